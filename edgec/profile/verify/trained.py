"""Compare what a device gave with the network as it was trained: its float graph over the whole sequence, and, where it
is at hand, the original in its own runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
import torch

from edgec.compiled import CompiledModel, Inputs, by_name, frames, to_device, to_real
from edgec.errors import EdgecError, InputError
from edgec.ir.graph import Graph
from edgec.ir.types import TensorType
from edgec.passes.quantize.compare import DIVERGED_FLIPS
from edgec.passes.streaming.compare import Difference, Expected, first_difference
from edgec.profile.verify.original import Original
from edgec.signal_math import PCM_SCALE
from edgec.toolchain.manifest import TensorSpec

Array = np.ndarray[Any, np.dtype[Any]]
#: least signal to error in dB of a build's outputs: of floats where nothing spikes; of integers, and where rounding may
#: flip spikes
FLOAT_DB, COARSE_DB = 60.0, 10.0
#: windows that are compared of a network that runs on whole ones, and prefixes of a sequence that ends in a readout
MOST_WINDOWS = 16


@dataclass(frozen=True)
class Sequences:
    """Inputs of a verification, raw: arrays [.., T, ..] by name, T at least the window of the trained network."""

    arrays: Mapping[str, Array]
    specs: tuple[TensorSpec, ...]
    axes: Mapping[str, int]
    hop: Mapping[str, int]
    window: int  # frames of the sequence that the network was trained on

    @property
    def frames(self) -> int:
        """Steps that take all of them."""
        name = self.specs[0].name
        return int(self.arrays[name].shape[self.axes[name]]) // self.hop[name]

    def piece(self, first: int, count: int) -> dict[str, Array]:
        """Frames [first, first + count) of every input."""
        cut = {}
        for name, x in self.arrays.items():
            at = (slice(None),) * self.axes[name]
            cut[name] = x[(*at, slice(first * self.hop[name], (first + count) * self.hop[name]))]
        return cut

    def device_frames(self) -> Iterator[list[Array]]:
        """What each step takes."""
        for k in range(self.frames):
            yield [to_device(x, spec) for x, spec in zip(self.piece(k, 1).values(), self.specs, strict=True)]


def sequences(x: Inputs, model: CompiledModel, whole: Graph) -> Sequences:
    """The inputs as sequences, with zeros behind them where they are shorter than the trained network's window."""
    arrays, axes, hop = {}, {}, {}
    specs = model.manifest.inputs
    for (name, given), spec, v in zip(by_name(x, specs).items(), specs, whole.inputs, strict=True):
        axis = 0 if spec.time_axis is None else spec.time_axis
        pieces = [p.reshape(spec.shape) for p in frames(given, spec)]
        missing = v.type.shape[axis] - len(pieces) * spec.shape[axis]
        if missing > 0:
            shape = tuple(missing if k == axis else n for k, n in enumerate(spec.shape))
            pieces.append(np.zeros(shape, given.dtype))
        arrays[name], axes[name], hop[name] = np.concatenate(pieces, axis), axis, spec.shape[axis]
    first, v = specs[0].name, whole.inputs[0]
    found = Sequences(arrays, specs, axes, hop, v.type.shape[axes[first]] // hop[first])
    counts = {name: a.shape[axes[name]] // hop[name] for name, a in arrays.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {n}" for name, n in counts.items())
        raise InputError(f"the inputs hold different numbers of frames: {listed}")
    return found


@dataclass(frozen=True)
class Case:
    """Inputs on which the trained network runs once, and the outputs of the build [first, first + count) that it is to
    give: those of its frames where it `streams`, else its only ones. `ends`: the last is that of the sequence's end."""

    inputs: Mapping[str, Array]
    first: int
    count: int
    streams: bool = False
    ends: bool = True
    causal: bool = False  # frame t depends on nothing behind it


def cases(given: Sequences, whole: Graph, step: Graph, outputs: int, within: int) -> list[Case]:
    """How the outputs of a build come about; `within` of them came within the first window of the sequence."""
    if not step.is_step:
        return [Case(given.piece(k, 1), k, 1) for k in range(min(outputs, MOST_WINDOWS))]
    v, name = whole.inputs[0], given.specs[0].name
    if v.type.time_axis is None:  # sliding
        length = v.type.shape[given.axes[name]]
        ends = [(step.delay + 1 + k) * given.hop[name] for k in range(min(outputs, MOST_WINDOWS))]
        return [Case(_until(given, end, length), k, 1) for k, end in enumerate(ends)]
    if given.frames > given.window:
        return [Case(given.piece(0, given.window), 0, within, streams=True, ends=False)]
    causal = step.delay == 0 and outputs == given.frames
    return [Case(given.piece(0, given.window), 0, outputs, streams=True, causal=causal)]


def _until(given: Sequences, end: int, length: int) -> dict[str, Array]:
    """The last `length` elements of every input before element `end`."""
    return {name: x[(*(slice(None),) * given.axes[name], slice(end - length, end))] for name, x in given.arrays.items()}


def numbers(x: Array, spec: TensorSpec, t: TensorType) -> torch.Tensor:
    """A raw sequence as a graph takes it: real values, or the device's integers."""
    if t.dtype.is_float:
        return torch.from_numpy(np.ascontiguousarray(real_values(x, spec))).reshape(t.shape)
    return torch.from_numpy(to_device(x, replace(spec, shape=x.shape))).reshape(t.shape)


def real_values(x: Array, spec: TensorSpec) -> Array:
    """A raw sequence in real values; int16 PCM in [-1, 1)."""
    if x.dtype.kind == "f":
        return x.astype(np.float32)
    if x.dtype == np.dtype(spec.dtype) and spec.scale:
        return to_real(x, spec)
    return x.astype(np.float32) * np.float32(PCM_SCALE if x.dtype == np.int16 else 1.0)


@dataclass(frozen=True)
class Agreement:
    """One output of the build against the trained network, over `values` numbers of `frames` frames. sqnr: signal to
    error in dB; flips: share that differ, where both are spikes, else None. `least`: the tolerance in dB."""

    output: str
    oracle: str
    frames: int
    values: int
    sqnr: float
    largest: float
    least: float
    flips: float | None = None

    @property
    def ok(self) -> bool:
        return self.sqnr >= self.least or (self.flips is not None and self.flips <= DIVERGED_FLIPS)

    def __str__(self) -> str:
        bound = "exact" if self.least == inf else f"at least {self.least:g} dB"
        if self.flips is not None:
            found, bound = f"{100 * self.flips:.2f} % of the spikes differ", f"at most {100 * DIVERGED_FLIPS:g} %"
        else:
            found = f"{decibels(self.sqnr)}, off by at most {self.largest:.3g}"
        return f"%{self.output} against {self.oracle}, {self.frames} frames: {found} (expected: {bound})"


def decibels(sqnr: float) -> str:
    """Signal to error in words; nothing where it is not known."""
    if np.isnan(sqnr):
        return ""
    return "exact" if sqnr == inf else "silent in float" if sqnr == -inf else f"{sqnr:.1f} dB"


def agreement(output: str, oracle: str, pairs: Sequence[tuple[Array, Array]], least: float) -> Agreement:
    """The figures over pairs (found, wanted), one a frame."""
    found, wanted = (np.concatenate([p[k].reshape(-1) for p in pairs]).astype(np.float64) for k in (0, 1))
    error, signal = float(np.square(found - wanted).sum()), float(np.square(wanted).sum())
    sqnr = inf if error == 0 else -inf if signal == 0 else 10 * float(np.log10(signal / error))
    spikes = np.isin(wanted, (0, 1)).all() and np.isin(found, (0, 1)).all()
    flips = float((found != wanted).mean()) if spikes and error and least < inf else None
    largest = float(np.abs(found - wanted).max(initial=0.0))
    return Agreement(output, oracle, len(pairs), found.size, sqnr, largest, least, flips)


def default_tolerance(reference: Graph, whole: Graph) -> float:
    """Of a float build's outputs FLOAT_DB, of integers and where neurons spike COARSE_DB."""
    integer = any(not t.dtype.is_float for n in whole.nodes for t in n.types)
    spiking = any(hasattr(n.op, "reset") for n in reference.nodes)
    return COARSE_DB if integer or spiking else FLOAT_DB


def came_quantised(reference: Graph) -> bool:
    """Whether the graph that the user gave is an integer one."""
    return all(not t.dtype.is_float for n in reference.nodes for t in n.types)


def against_reference(
    reference: Graph, given: Sequences, todo: Sequence[Case], outs: Sequence[Sequence[Array]],
    outputs: Sequence[TensorSpec], least: float,
) -> list[Agreement]:  # fmt: skip
    """The outputs (real values, one list for each that came) against the whole-sequence graph as it was imported; of a
    readout, frame t against the network on the frames so far. Integers hold the range of the whole sequence's mean, and
    a mean of few frames saturates: of theirs, the second half of the frames counts."""
    pairs: dict[str, list[tuple[Array, Array]]] = {name: [] for name in reference.outputs}
    integer = any(spec.dtype.startswith("int") for spec in given.specs)
    for case in todo:
        inputs = {
            v.name: numbers(x, spec, v.type)
            for v, x, spec in zip(reference.inputs, case.inputs.values(), given.specs, strict=True)
        }
        expected = Expected(reference, inputs)
        for k in range(case.count):
            for place, name in enumerate(reference.outputs):
                if integer and case.streams and reference.type_of(name).time_axis is None and 2 * k < case.count - 1:
                    continue
                wanted = expected.at(name, k) if case.streams else expected.values[name]
                if wanted is not None:
                    pairs[name].append((outs[case.first + k][place], to_real(wanted.numpy(), outputs[place])))
    kind = "the imported integers" if came_quantised(reference) else "the float network"
    oracle = f"{kind} over the whole sequence"
    return [agreement(name, oracle, p, inf if came_quantised(reference) else least) for name, p in pairs.items() if p]


def against_original(
    original: Original, reference: Graph, given: Sequences, todo: Sequence[Case], outs: Sequence[Sequence[Array]],
    outputs: Sequence[TensorSpec], least: float,
) -> list[Agreement]:  # fmt: skip
    """The outputs against the original in its own runtime. A readout is compared at the sequence's end, and where the
    original takes shorter sequences and nothing is delayed, at some frames before it; likewise a result of which the
    original gives the last frame only, as a loop over time may."""
    pairs: dict[str, list[tuple[Array, Array]]] = {name: [] for name in reference.outputs}
    for case in todo:
        for count in _lengths(original, case):
            length = case.count if count is None else count
            results = _results(original, reference, given, case.inputs, count, outputs)
            if results is None:
                continue
            for place, (name, result) in enumerate(zip(reference.outputs, results, strict=True)):
                t = reference.type_of(name)
                timed = case.streams and t.time_axis is not None
                if timed and count is None and result.size == t.size:
                    steps = [(k, result.reshape(t.shape).take([k], t.time_axis)) for k in range(length)]
                else:
                    steps = [(length - 1, result)] if (case.ends if count is None else not timed) else []
                pairs[name] += [(outs[case.first + k][place], wanted) for k, wanted in steps]
    return [agreement(name, original.how, p, least) for name, p in pairs.items() if p]


def _lengths(original: Original, case: Case) -> list[int | None]:
    """Numbers of frames on which the original runs: all (None), and prefixes that a readout's frames stand for."""
    if not (original.any_length and case.causal):
        return [None]
    return [None, *sorted({(case.count * k + 3) // 4 for k in (2, 3)})]


def _results(
    original: Original, reference: Graph, given: Sequences, inputs: Mapping[str, Array], count: int | None,
    outputs: Sequence[TensorSpec],
) -> list[Array] | None:  # fmt: skip
    """The original's outputs in real values; None where it takes no sequence as short, InputError where it is another
    network."""
    real = {}
    for v, (name, x), spec in zip(reference.inputs, inputs.items(), given.specs, strict=True):
        values = real_values(x, spec)
        if count is None:
            values = values.reshape(v.type.shape)
        else:
            values = values[(*(slice(None),) * given.axes[name], slice(count * given.hop[name]))]
        real[v.name] = np.ascontiguousarray(values)
    try:
        results = original.run(real)
    except EdgecError:
        raise
    except Exception as err:  # a network raises what it pleases on inputs that are not its own
        if count is not None:
            return None
        shapes = ", ".join(f"{name} {list(x.shape)}" for name, x in real.items())
        raise InputError(
            f"{original.how} does not take the compiled model's inputs, {shapes}: {err}",
            hint="is it the network that was compiled?",
        ) from err
    if len(results) != len(outputs):
        raise InputError(
            f"{original.how} gives {len(results)} results where the compiled model has {len(outputs)}",
            hint="compare with the network that was compiled, with all its results",
        )
    for name, result in zip(reference.outputs, results, strict=True):
        t = reference.type_of(name)
        if count is None and result.size not in (t.size, t.size // (t.frames or 1)):
            raise InputError(
                f"{original.how} gives {list(result.shape)} where the compiled model was {list(t.shape)}",
                hint="is it the network that was compiled?",
            )
    return [_real_result(r, spec) for r, spec in zip(results, outputs, strict=True)]


def _real_result(result: Array, spec: TensorSpec) -> Array:
    """An integer result without a scale of its own has that of the compiled model, whose int8 is uint8 less 128."""
    if result.dtype.kind == "f":
        return result
    return to_real(result.astype(np.int64) - (128 if result.dtype == np.uint8 else 0), spec)


def step_difference(whole: Graph, step: Graph, given: Sequences) -> Difference | None:
    """Where the compiled step leaves the same graph over the whole sequence, in its own numbers; None where nowhere, or
    where nothing streams."""
    if not step.is_step or any(v.type.time_axis is None for v in whole.inputs):
        return None
    inputs = {
        v.name: numbers(x, spec, v.type)
        for v, x, spec in zip(whole.inputs, given.piece(0, given.window).values(), given.specs, strict=True)
    }
    return first_difference(whole, step, inputs)
