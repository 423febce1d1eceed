"""Layer by layer: the device against its reference, byte for byte, and the integers against the float model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgec.compiled import CompiledModel, Inputs, by_name, input_frames
from edgec.ir.evaluate import StepRunner
from edgec.ir.graph import Graph
from edgec.ir.types import DType, TensorType
from edgec.passes import quantize_compare

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
    """Outcome of `verify_model`; `first` names the first layer beyond tolerance."""

    rows: tuple[Row, ...]
    ok: bool
    first: str | None
    how: str
    verdict: str


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


def verify_model(model: CompiledModel, x: Inputs, kind: str = "host") -> Verification:
    """Stream x through the device and its reference side by side, and compare integer builds with the float model."""
    step = model.graph("step")
    runner, specs, nodes = StepRunner(step), model.manifest.inputs, model.manifest.nodes
    names = [v.name for v in step.inputs]
    sums: dict[int, _Sums] = {n.id: _Sums() for n in nodes}
    count = 0
    with model.device(kind, profile=True) as device:
        whole = [n for n in nodes if n.outputs]
        device.watch([n.id for n in whole])
        for frame in input_frames(x, specs):
            device.step(frame)
            runner.step({name: torch.from_numpy(data) for name, data in zip(names, frame, strict=True)})
            count += 1
            for n in whole:
                node = step.nodes[n.id]
                if node.outputs[0] in runner.values:
                    for name, t, found in zip(node.outputs, node.types, device.dump(n.id), strict=True):
                        _add_device(sums[n.id], as_stored(runner.values[name], t), found)
    return _conclude(
        step, nodes, sums, against_float(model, by_name(x, specs)), f"{kind} against the reference over {count} frames"
    )


def against_float(model: CompiledModel, x: Mapping[str, Array]) -> dict[str, quantize_compare.Row]:
    """Each tensor of an integer build against the float graph it came from, over one window of each input.

    Nothing where there are no two: a float build, or a model that came quantised.
    """
    whole, reference = model.graph("whole"), model.graph("reference")
    if all(v.type.dtype.is_float for v in whole.inputs) or not reference.nodes[0].types[0].dtype.is_float:
        return {}
    windows = {}
    for v, given in zip(whole.inputs, x.values(), strict=True):
        window = np.zeros(v.type.size, given.dtype)
        window[: given.size] = given.reshape(-1)[: v.type.size]
        windows[v.name] = window.reshape(v.type.shape)
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
    step: Graph, nodes: Any, sums: Mapping[int, _Sums], quantised: Mapping[str, quantize_compare.Row], how: str
) -> Verification:
    rows = []
    for n in nodes:
        s, name = sums[n.id], step.nodes[n.id].outputs[0]
        rows.append(Row(name, n.op, n.source, s.mismatches, s.elements, s.device_error, quantised.get(name)))
    first = next((r for r in rows if r.mismatches), None)
    if first is None:
        verdict = f"all {sum(r.elements > 0 for r in rows)} layers agree with the reference"
        return Verification(tuple(rows), True, None, how, verdict + drift(quantised))
    where = f"%{first.name} = {first.op}" + (f" ({first.source})" if first.source else "")
    return Verification(tuple(rows), False, where, how, f"first diverging layer: {where}: {first.device_text}")
