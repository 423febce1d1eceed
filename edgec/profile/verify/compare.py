"""Layer by layer: the device against its reference, byte for byte, and the integers against the float model; and the
outputs against the network as it was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch

from edgec.compiled import CompiledModel, Inputs, to_real
from edgec.device import Device
from edgec.errors import InputError
from edgec.ir.evaluate import StepRunner
from edgec.ir.graph import Graph
from edgec.ir.types import DType, TensorType
from edgec.passes.quantize import compare as quantize_compare
from edgec.passes.streaming.compare import Difference
from edgec.profile.verify import trained
from edgec.profile.verify.original import Original, load_original
from edgec.profile.verify.trained import Agreement, Sequences
from edgec.toolchain.checksums import as_changed
from edgec.toolchain.manifest import Manifest, NodeSpec

Array = np.ndarray[Any, np.dtype[Any]]
FLOAT_TOLERANCE = 1e-4


def pack_bits(spikes: Array) -> Array:
    """Spikes [..., C] of 0 and 1 as the device stores them: [..., ceil(C/32)] words, channel c in bit c % 32."""
    pad = -spikes.shape[-1] % 32
    padded = np.pad(spikes.astype(np.uint8), [(0, 0)] * (spikes.ndim - 1) + [(0, pad)])
    packed = np.packbits(padded.reshape(*padded.shape[:-1], -1, 32), axis=-1, bitorder="little")
    return packed.view("<u4").reshape(*padded.shape[:-1], -1)


def as_stored(value: torch.Tensor, t: TensorType) -> Array:
    """A reference tensor in the device's form."""
    data = value.numpy()
    return pack_bits(data) if t.dtype is DType.BIT else data.astype(t.dtype.storage)


@dataclass(frozen=True)
class Row:
    """One layer over all frames; `quantised` compares its integers with the float tensor they stand for, if any."""

    name: str
    op: str
    source: str
    mismatches: int
    elements: int
    device_error: float
    quantised: quantize_compare.Row | None

    @property
    def device_text(self) -> str:
        if self.elements == 0:
            return "runs in steps: never whole"
        if self.mismatches == 0:
            return f"identical ({self.elements:,})"
        return f"{self.mismatches:,} of {self.elements:,} differ, by at most {self.device_error:.3g}"


@dataclass(frozen=True)
class Verification:
    """Outcome of `verify_model`: each layer against its reference, each output against the trained network.

    `first` says what is beyond tolerance, first of all.
    """

    rows: tuple[Row, ...]
    agreements: tuple[Agreement, ...]
    first: str | None
    how: str
    verdict: str

    @property
    def ok(self) -> bool:
        return self.first is None


@dataclass
class _Sums:
    mismatches: int = 0
    elements: int = 0
    device_error: float = 0.0


def _add_device(sums: _Sums, expected: Array, found: Array) -> None:
    found = found.reshape(expected.shape)
    if expected.dtype.kind == "f":
        error = np.abs(expected - found)
        differs = error > FLOAT_TOLERANCE * np.maximum(1.0, np.abs(expected))
    else:
        differs = expected != found
        error = np.abs(expected.astype(np.float64) - found.astype(np.float64))
    sums.mismatches += int(differs.sum())
    sums.elements += expected.size
    sums.device_error = max(sums.device_error, float(error.max(initial=0.0)))


def verify_model(
    model: CompiledModel,
    x: Inputs,
    kind: str = "host",
    original: Any = None,
    tolerance: float | None = None,
) -> Verification:
    """Stream x through the device and its reference side by side; compare what came out with the network as it was
    trained, over the whole sequence: its float graph, and its own runtime where the original is given.

    x: the inputs by name; what is shorter than the window the network was trained on gets zeros behind it. original:
    the torch module, its exported program, a shipped model's name or a file (.pt, .pt2, .onnx, .tflite). tolerance:
    least signal to error of the outputs in dB (default: `trained.default_tolerance`). EdgecError where the original
    cannot be run or is another network.
    """
    if tolerance is not None and not isfinite(tolerance):
        raise InputError(f"tolerance: expected decibels, found {tolerance}")
    runtime = None if original is None else load_original(original)
    with as_changed(model.folder):
        return _verify(model, x, kind, runtime, tolerance)


def _verify(
    model: CompiledModel, x: Inputs, kind: str, runtime: Original | None, tolerance: float | None
) -> Verification:
    """`verify_model` with the original ready to run."""
    reference, whole, step = (model.graph(name) for name in ("reference", "whole", "step"))
    given = trained.sequences(x, model, whole)
    least = trained.default_tolerance(reference, whole) if tolerance is None else tolerance
    with model.device(kind, profile=True) as device:
        sums, outs, within = _run(step, model.manifest, device, given)
    todo = trained.cases(given, whole, step, len(outs), within)
    found = trained.against_reference(reference, given, todo, outs, model.manifest.outputs, least)
    if runtime is not None:
        found += trained.against_original(runtime, reference, given, todo, outs, model.manifest.outputs, least)
    difference = trained.step_difference(whole, step, given)
    quantised = against_float(reference, whole, given, todo)
    how = f"{kind} against the reference over {given.frames} frames"
    return _conclude(step, model.manifest.nodes, sums, quantised, tuple(found), difference, how)


def _run(
    step: Graph, manifest: Manifest, device: Device, given: Sequences
) -> tuple[dict[int, _Sums], list[list[Array]], int]:
    """What each layer's bytes were beside the reference; the outputs in real values; how many of them came within the
    window the network was trained on, if the sequence is longer."""
    runner, names = StepRunner(step), [v.name for v in step.inputs]
    sums: dict[int, _Sums] = {n.id: _Sums() for n in manifest.nodes}
    whole = [n for n in manifest.nodes if n.outputs]
    outs: list[list[Array]] = []
    within = 0
    device.watch([n.id for n in whole])
    for number, frame in enumerate(given.device_frames()):
        out = device.step(frame)
        runner.step({name: torch.from_numpy(data) for name, data in zip(names, frame, strict=True)})
        for n in whole:
            node = step.nodes[n.id]
            if node.outputs[0] in runner.values:
                for name, t, found in zip(node.outputs, node.types, device.dump(n.id), strict=True):
                    _add_device(sums[n.id], as_stored(runner.values[name], t), found)
        if out is not None:
            outs.append([to_real(o, spec) for o, spec in zip(out, manifest.outputs, strict=True)])
        within += out is not None and number < given.window
    while (out := device.flush()) is not None:
        outs.append([to_real(o, spec) for o, spec in zip(out, manifest.outputs, strict=True)])
    return sums, outs, within


def against_float(
    reference: Graph, whole: Graph, given: Sequences, todo: Sequence[trained.Case]
) -> dict[str, quantize_compare.Row]:
    """Each tensor of an integer build against the float graph it came from, over one window of each input.

    Nothing where there are no two: a float build, or a model that came quantised.
    """
    if all(v.type.dtype.is_float for v in whole.inputs) or trained.came_quantised(reference) or not todo:
        return {}
    windows = {v.name: x.reshape(v.type.shape) for v, x in zip(whole.inputs, todo[0].inputs.values(), strict=True)}
    return {r.name: r for r in quantize_compare.compare(reference, whole, windows)}


def drift(quantised: Mapping[str, quantize_compare.Row]) -> str:
    """Where an integer build first leaves the float model by more than its bounds, in words."""
    if not quantised:
        return ""
    first = quantize_compare.first_diverging(list(quantised.values()))
    bounds = f"{quantize_compare.DIVERGED_DB:g} dB or {100 * quantize_compare.DIVERGED_FLIPS:g} % of its spikes"
    if first is None:
        return f"; no layer is further from the float model than {bounds}"
    return f"; the first layer further from the float model than {bounds}: %{first.name} ({'; '.join(first.source)})"


def _conclude(
    step: Graph, nodes: Sequence[NodeSpec], sums: Mapping[int, _Sums], quantised: Mapping[str, quantize_compare.Row],
    agreements: tuple[Agreement, ...], difference: Difference | None, how: str,
) -> Verification:  # fmt: skip
    rows = []
    for n in nodes:
        s, name = sums[n.id], step.nodes[n.id].outputs[0]
        rows.append(Row(name, n.op, n.source, s.mismatches, s.elements, s.device_error, quantised.get(name)))
    diverging = next((r for r in rows if r.mismatches), None)
    far = next((a for a in agreements if not a.ok), None)
    if diverging is not None:
        where = f"%{diverging.name} = {diverging.op}" + (f" ({diverging.source})" if diverging.source else "")
        first = f"the device diverges from the reference first in {where}: {diverging.device_text}"
    elif difference is not None:
        first = f"frame by frame the network is not what it is over the whole sequence: {difference}"
    elif far is not None:
        first = f"the outputs are further from the trained network than the tolerance: {far}"
    else:
        verdict = f"all {sum(r.elements > 0 for r in rows)} layers agree with the reference" + drift(quantised)
        return Verification(tuple(rows), agreements, None, how, verdict)
    return Verification(tuple(rows), agreements, first, how, first)
