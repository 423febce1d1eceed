"""Layer by layer: the device against the reference, byte for byte, and the reference against the float model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgec.compiled import CompiledModel, frames, to_device
from edgec.ir.evaluate import StepRunner
from edgec.ir.graph import Graph
from edgec.ir.types import DType, TensorType
from edgec.passes.make_streaming import MakeStreaming

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
    return pack_bits(data) if t.dtype is DType.BIT else data.astype(t.dtype.value)


def real(value: torch.Tensor, t: TensorType) -> Array | None:
    """A reference tensor in real values; None where the graph does not say what its integers mean."""
    data = value.numpy().astype(np.float64)
    if t.dtype is DType.F32:
        return data
    if t.quant is None:
        return None
    scaled: Array = (data - t.quant.zero_point) * np.array(t.quant.scale)
    return scaled


@dataclass(frozen=True)
class Row:
    """One layer over all frames. `float_error` and `sqnr_db` compare the reference with the float model."""

    name: str
    op: str
    source: str
    mismatches: int
    elements: int
    device_error: float
    float_error: float | None
    sqnr_db: float | None

    @property
    def device_text(self) -> str:
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
    signal: float = 0.0
    noise: float = 0.0
    float_error: float = 0.0
    compared: bool = False


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


def _add_float(sums: _Sums, wanted: Array, got: Array | None) -> None:
    if got is None or got.shape != wanted.shape:
        return
    error = got - wanted
    sums.compared = True
    sums.signal += float((wanted**2).sum())
    sums.noise += float((error**2).sum())
    sums.float_error = max(sums.float_error, float(np.abs(error).max(initial=0.0)))


def _float_inputs(frame: Array, step: Graph) -> dict[str, torch.Tensor]:
    t = step.inputs[0].type
    scale, zero = (t.quant.scale[0], t.quant.zero_point) if t.quant else (1.0, 0)
    values = torch.from_numpy(frame.astype(np.float32))
    return {step.inputs[0].name: (values - zero) * scale}


def verify_model(model: CompiledModel, x: Array, kind: str = "host") -> Verification:
    """Stream x through the device, the integer reference and the float reference side by side."""
    step = model.graph("step")
    reference = model.graph("reference")
    runner, exact = StepRunner(step), StepRunner(MakeStreaming().run(reference) if step.is_step else reference)
    spec, nodes = model.manifest.inputs[0], model.manifest.nodes
    sums: dict[int, _Sums] = {n.id: _Sums() for n in nodes}
    count = 0
    with model.device(kind, profile=True) as device:
        device.watch([n.id for n in nodes])
        for frame in frames(x, spec):
            data = to_device(frame, spec)
            device.step([data])
            runner.step({step.inputs[0].name: torch.from_numpy(data)})
            exact.step(_float_inputs(data, step))
            count += 1
            for n in nodes:
                node = step.nodes[n.id]
                if node.outputs[0] in runner.values:
                    _compare(sums[n.id], device.dump(n.id), node, runner.values, exact.values)
    return _conclude(step, nodes, sums, f"{kind} against the reference over {count} frames")


def _compare(
    sums: _Sums, dumped: list[Array], node: Any, values: Mapping[str, torch.Tensor], exact: Mapping[str, torch.Tensor]
) -> None:
    for name, t, found in zip(node.outputs, node.types, dumped, strict=True):
        _add_device(sums, as_stored(values[name], t), found)
        if name in exact:
            _add_float(sums, exact[name].numpy().astype(np.float64), real(values[name], t))


def _conclude(step: Graph, nodes: Any, sums: Mapping[int, _Sums], how: str) -> Verification:
    rows = []
    for n in nodes:
        s = sums[n.id]
        sqnr = None
        if s.compared:
            sqnr = float("inf") if s.noise == 0 else 10 * float(np.log10(max(s.signal, 1e-30) / s.noise))
        name = step.nodes[n.id].outputs[0]
        rows.append(
            Row(
                name,
                n.op,
                n.source,
                s.mismatches,
                s.elements,
                s.device_error,
                s.float_error if s.compared else None,
                sqnr,
            )
        )
    first = next((r for r in rows if r.mismatches), None)
    if first is None:
        return Verification(tuple(rows), True, None, how, f"all {len(rows)} layers agree with the reference")
    where = f"%{first.name} = {first.op}" + (f" ({first.source})" if first.source else "")
    return Verification(tuple(rows), False, where, how, f"first diverging layer: {where}: {first.device_text}")
