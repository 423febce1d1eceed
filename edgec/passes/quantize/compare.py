"""Compare an integer graph with the float graph it came from, tensor by tensor, in real units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgec.ir.evaluate import Tensors, run_node
from edgec.ir.graph import Graph
from edgec.ir.types import DType, TensorType
from edgec.passes.quantize.calibrate import Batch, batched, evaluate_batches
from edgec.signal_math import PCM_SCALE

#: a tensor diverges below this ratio of signal to error in dB, spikes above this share of flipped ones
DIVERGED_DB = 20.0
DIVERGED_FLIPS = 0.02


@dataclass(frozen=True)
class Row:
    """How far one tensor of the integer graph is from the float tensor it stands for.

    error: root mean square, largest: maximum of the difference; sqnr: signal to error in dB; flips: share of elements
    that differ, rate and float_rate: share of ones (spikes only, else 0). own_sqnr and own_flips: the same when the
    node reads the float graph's values, quantised: the error this node alone makes.
    """

    name: str
    op: str
    dtype: str
    source: tuple[str, ...]
    error: float
    largest: float
    sqnr: float
    own_sqnr: float
    is_spikes: bool = False
    rate: float = 0.0
    float_rate: float = 0.0
    flips: float = 0.0
    own_flips: float = 0.0

    @property
    def diverged(self) -> bool:
        return self.flips > DIVERGED_FLIPS if self.is_spikes else self.sqnr < DIVERGED_DB


def dequantize(q: torch.Tensor, t: TensorType) -> torch.Tensor:
    """Integers in real units; a type without quantisation is taken as it is."""
    if t.quant is None:
        return q.to(torch.float64)
    scale = torch.tensor(t.quant.scale, dtype=torch.float64)
    if scale.numel() > 1:
        shape = [1] * q.ndim
        shape[-1 if t.quant.axis is None else t.quant.axis] = scale.numel()
        scale = scale.view(shape)
    return (q - t.quant.zero_point) * scale


def requantized(real: torch.Tensor, t: TensorType) -> torch.Tensor:
    """Real values as the integers of a type."""
    if t.quant is None:
        return real.round().to(torch.int64)
    zero = torch.zeros(1, dtype=torch.float64)
    unit = dequantize(torch.ones_like(real, dtype=torch.float64) + t.quant.zero_point, t)
    lo, hi = t.dtype.range
    return (torch.floor(real / unit + 0.5 + zero) + t.quant.zero_point).clamp(lo, hi).to(torch.int64)


class Sums:
    """Error sums of one tensor over the data."""

    def __init__(self) -> None:
        self.count = 0
        self.signal = self.error = self.largest = self.ones = self.float_ones = self.flips = 0.0

    def add(self, real: torch.Tensor, got: torch.Tensor) -> None:
        difference = (got - real).abs()
        self.count += real.numel()
        self.signal += float(real.square().sum())
        self.error += float(difference.square().sum())
        self.largest = max(self.largest, float(difference.max()))
        self.ones += float(got.sum())
        self.float_ones += float(real.sum())
        self.flips += float((difference > 0.5).sum())

    def sqnr(self) -> float:
        if self.error == 0.0:
            return float("inf")
        return float(10.0 * np.log10(self.signal / self.error)) if self.signal else -float("inf")


def matching(int_graph: Graph, known: set[str]) -> list[str]:
    """Tensors of the integer graph, in order, that stand for a float tensor; stored copies match by their stem."""
    names = [o for n in int_graph.nodes for o, t in zip(n.outputs, n.types, strict=True) if t.quant is not None]
    return [n for n in names if float_name(n, known) in known]


def float_name(name: str, known: set[str]) -> str:
    """The float tensor an integer tensor stands for: its own name, or the name before _i8, _i16, _i32."""
    for suffix in ("_i8", "_i16", "_i32"):
        if name not in known and name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def compare(float_graph: Graph, int_graph: Graph, inputs: Batch, batch: int = 32) -> list[Row]:
    """One row per integer tensor that stands for a float tensor, in execution order.

    inputs: samples along axis 0 of every input, float32, or int16 PCM where the integer graph takes int16.
    """
    known = {o for n in float_graph.nodes for o in n.outputs} | {v.name for v in float_graph.inputs}
    names = matching(int_graph, known)
    sums, own = {n: Sums() for n in names}, {n: Sums() for n in names}
    for real, got in zip(
        evaluate_batches(float_graph, inputs, batch),
        evaluate_batches(int_graph, {v.name: quantised_input(inputs[v.name], v.type) for v in int_graph.inputs}, batch),
        strict=True,
    ):
        for name in names:
            sums[name].add(real[float_name(name, known)].double(), dequantize(got[name], int_graph.type_of(name)))
        for name, value in _alone(int_graph, real, known):
            own[name].add(real[float_name(name, known)].double(), dequantize(value, int_graph.type_of(name)))
    return [_row(int_graph, name, sums[name], own[name]) for name in names]


def quantised_input(data: Any, t: TensorType) -> Any:
    """Input data for an integer graph: real values, or int16 PCM; what a float graph or its own type takes stays."""
    tensor = data if isinstance(data, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(data))
    if t.dtype.is_float or (tensor.dtype is torch.int16 and t.dtype is DType.I16) or tensor.dtype is torch.int8:
        return tensor
    real = tensor.double() * (PCM_SCALE if tensor.dtype is torch.int16 else 1.0)
    return requantized(real, t)


def _alone(graph: Graph, real: Tensors, known: set[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """Each node that stands for a float tensor, run on the float graph's values of its inputs."""
    first = graph.inputs[0]
    n = len(real[first.name]) // first.type.shape[0]  # where axis 0 is time, a sample is as many rows as it has frames
    sized = batched(graph, n) if n > 1 else graph
    assert sized is not None
    consts: Tensors = {name: torch.from_numpy(c.data).to(torch.int64) for name, c in sized.consts.items()}
    for node in sized.nodes:
        computed = [i for i in node.inputs if i not in consts]
        if any(float_name(i, known) not in known for i in computed):
            continue
        if any(graph.type_of(i).quant is None for i in computed):
            continue
        values = dict(consts)
        for i in computed:
            values[i] = requantized(real[float_name(i, known)].double(), graph.type_of(i))
        run_node(node, values, None)
        for o, t in zip(node.outputs, node.types, strict=True):
            if t.quant is not None and float_name(o, known) in known:
                yield o, values[o]


def _row(graph: Graph, name: str, s: Sums, own: Sums) -> Row:
    node = graph.producer(name)
    assert node is not None
    spikes, n = graph.type_of(name).dtype is DType.BIT, max(1, s.count)
    row = (name, node.op.name, graph.type_of(name).dtype.value, node.source)
    errors = (float(np.sqrt(s.error / n)), s.largest, s.sqnr(), own.sqnr() if own.count else float("nan"))
    if not spikes:
        return Row(*row, *errors)
    own_flips = own.flips / own.count if own.count else float("nan")
    return Row(*row, *errors, True, s.ones / n, s.float_ones / n, s.flips / n, own_flips)


def first_diverging(rows: list[Row]) -> Row | None:
    """The first tensor that differs by more than quantisation should make it."""
    return next((r for r in rows if r.diverged), None)
