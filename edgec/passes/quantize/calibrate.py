"""Statistics of every tensor of a float graph over calibration data: what quantisation chooses scales from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgec.errors import InputError
from edgec.ir.evaluate import Tensors, evaluate_all
from edgec.ir.graph import Const, Graph, Node, Value
from edgec.ir.types import TensorType
from edgec.ops.relations.axes import axes_of
from edgec.passes.samples import Data, gather
from edgec.signal_math import PCM_SCALE

Array = npt.NDArray[Any]
Batch = Mapping[str, Any]

BINS = 8192
#: shares of the range that `clip` tries; less than half would cut off what calibration happened to see rarely
CLIPS = np.geomspace(1.0, 0.5, 70)


@dataclass(frozen=True)
class Statistics:
    """What one tensor held: extremes, mean, root mean square, and a histogram over [-reach, reach].

    `zeros` of the `count` values were exactly 0; `pcm` marks an input whose data came as int16 samples.
    """

    lo: float
    hi: float
    mean: float
    rms: float
    count: int
    reach: float
    bins: Array
    pcm: bool = False
    zeros: int = 0

    def extremes(self) -> tuple[float, float]:
        """The range seen, widened to hold 0."""
        return min(self.lo, 0.0), max(self.hi, 0.0)

    def clip(self, levels: int = 256, symmetric: bool = False) -> tuple[float, float]:
        """The range, holding 0, whose uniform quantisation to `levels` values has the least mean square error."""
        lo, hi = self.extremes()
        if symmetric:
            hi = max(-lo, hi)
            lo = -hi
        if hi == lo:
            return lo, hi
        values, weight = self.histogram()
        best = min(CLIPS, key=lambda factor: rounding_error(values, weight, lo * factor, hi * factor, levels))
        return lo * float(best), hi * float(best)

    def within(self, lo: float, hi: float) -> Statistics:
        """The range and histogram of the values clamped to lo..hi; mean and root mean square stay."""
        values = (np.arange(BINS) + 0.5) * (2.0 * self.reach / BINS) - self.reach
        place = np.clip((np.clip(values, lo, hi) + self.reach) * (BINS / (2.0 * self.reach)), 0, BINS - 1)
        bins = np.bincount(place.astype(np.int64), self.bins, BINS).astype(np.int64)
        return replace(self, lo=min(max(self.lo, lo), hi), hi=max(min(self.hi, hi), lo), bins=bins)

    def histogram(self) -> tuple[Array, Array]:
        """The values seen, to a bin, and how often."""
        seen = np.flatnonzero(self.bins)
        return (seen + 0.5) * (2.0 * self.reach / BINS) - self.reach, self.bins[seen]

    def sqnr(self, levels: int = 256) -> float:
        """Signal to error in dB of the best uniform quantisation of the whole tensor to `levels` values."""
        error = rounding_error(*self.histogram(), *self.clip(levels), levels) / max(1, self.count)
        return float(10.0 * np.log10(max(self.rms**2, 1e-300) / max(error, 1e-300)))


def rounding_error(values: Array, weight: Array, lo: float, hi: float, levels: int) -> float:
    """Sum of square errors of values, each seen `weight` times, that take the nearest of `levels` between lo and hi."""
    step = (hi - lo) / (levels - 1)
    clipped = np.clip(values, lo, hi)
    inside = clipped == values
    return float(np.sum(weight * np.where(inside, step * step / 12.0, (values - clipped) ** 2)))


class Collector:
    """Statistics of one tensor while the data passes."""

    def __init__(self) -> None:
        self.lo, self.hi = np.inf, -np.inf
        self.total = self.squares = 0.0
        self.count = self.zeros = 0
        self.reach = 0.0
        self.bins: Array = np.zeros(BINS, np.int64)

    def add(self, values: Array) -> None:
        """Take in one batch; the histogram doubles its reach, exactly, when a value lies outside."""
        if values.size == 0:
            return
        lo, hi = float(values.min()), float(values.max())
        if not np.isfinite([lo, hi]).all():
            self.squares = np.inf  # reported when all data has passed
            return
        self.lo, self.hi = min(self.lo, lo), max(self.hi, hi)
        self.total += float(values.sum(dtype=np.float64))
        self.squares += float(np.square(values, dtype=np.float64).sum())
        self.count += values.size
        self.zeros += int(values.size - np.count_nonzero(values))
        extreme = max(-lo, hi)
        if self.reach == 0.0:
            self.reach = float(2.0 ** np.ceil(np.log2(extreme))) if extreme > 0 else 2.0**-20
        while self.reach < extreme:
            middle = self.bins.reshape(-1, 2).sum(1)
            self.bins = np.concatenate([np.zeros(BINS // 4, np.int64), middle, np.zeros(BINS // 4, np.int64)])
            self.reach *= 2.0
        place = (values.astype(np.float64).reshape(-1) + self.reach) * (BINS / (2.0 * self.reach))
        self.bins += np.bincount(np.minimum(place.astype(np.int64), BINS - 1), minlength=BINS)

    def statistics(self) -> Statistics:
        n = max(1, self.count)
        mean, rms = self.total / n, float(np.sqrt(self.squares / n))
        return Statistics(self.lo, self.hi, mean, rms, n, self.reach, self.bins, zeros=self.zeros)


def batched(graph: Graph, n: int) -> Graph | None:
    """The same whole-sequence graph on n independent samples (axis 0); None where the batch axis is not free."""
    if any(not v.type.shape or v.type.shape[0] != 1 or v.type.time_axis == 0 for v in graph.inputs):
        return None
    inputs = tuple(Value(v.name, v.type.with_shape(n, *v.type.shape[1:])) for v in graph.inputs)
    types = {v.name: v.type for v in inputs} | {name: c.type for name, c in graph.consts.items()}
    nodes, consts = [], dict(graph.consts)
    for node in graph.nodes:
        op = node.op.with_shape((n, *node.types[0].shape[1:]))
        new = _inferred(op, [types[i] for i in node.inputs])
        if new is None:
            node = _with_constants_per_sample(graph, node, consts, n)
            types.update({i: consts[i].type for i in node.inputs if i in consts})
            new = _inferred(op, [types[i] for i in node.inputs])
        alike = zip(new or (), node.types, strict=False)
        if new is None or any(t.shape != (n, *old.shape[1:]) or old.shape[:1] != (1,) for t, old in alike):
            return None
        types.update(zip(node.outputs, new, strict=True))
        nodes.append(replace(node, op=op, types=new))
    return replace(graph, inputs=inputs, consts=consts, nodes=tuple(nodes))


def _inferred(op: Any, types: list[TensorType]) -> tuple[TensorType, ...] | None:
    """The types of an op's results; None where it does not take its operands."""
    try:
        found: tuple[TensorType, ...] = op.infer(types)
    except (ValueError, IndexError):
        return None
    return found


def _with_constants_per_sample(graph: Graph, node: Node, consts: dict[str, Const], n: int) -> Node:
    """A node whose constants of one sample are repeated for n, as it does not broadcast: those with its batch axis."""
    names, axes = list(node.inputs), axes_of(node.op, graph.input_types(node))
    for k, name in enumerate(names):
        if axes is not None and name in consts and consts[name].type.shape[:1] == (1,) and axes.follow(k, 0) == 0:
            const, names[k] = consts[name], f"{name}_times_{n}"
            data = np.repeat(const.data, n, 0)
            consts[names[k]] = Const(data, const.type.with_shape(*data.shape))
    return replace(node, inputs=tuple(names))


def evaluate_batches(graph: Graph, data: Batch, batch: int = 32) -> Iterator[Tensors]:
    """Every tensor of a whole-sequence graph, `batch` samples of data at a time.

    Samples lie one after another along axis 0 of every input. They run together where the graph's batch axis is free.
    """
    count = {len(data[v.name]) // v.type.shape[0] for v in graph.inputs}
    if len(count) != 1:
        raise InputError(f"the inputs have different numbers of samples: {sorted(count)}")
    total = count.pop()
    size = batch if total > 1 and batched(graph, min(batch, total)) is not None else 1
    for start in range(0, total, size):
        n = min(size, total - start)
        piece = {v.name: _samples(data[v.name], v, start, n) for v in graph.inputs}
        sized = graph if n == 1 else batched(graph, n)
        assert sized is not None
        with torch.no_grad():  # never around the yield: interleaved generators would leave gradients off in the caller
            values = evaluate_all(sized, piece)
        yield values


def _samples(data: Any, v: Value, start: int, count: int) -> torch.Tensor:
    """Some samples as the reference takes them; int16 PCM for a float input is scaled to [-1, 1)."""
    rows = v.type.shape[0]
    values = data[start * rows : (start + count) * rows]
    tensor = values if isinstance(values, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    if v.type.dtype.is_float and tensor.dtype is torch.int16:
        return tensor.to(torch.float32) * PCM_SCALE
    return tensor


def calibrate(graph: Graph, data: Data, batch: int = 32) -> dict[str, Statistics]:
    """Statistics of every tensor of a float whole-sequence graph over the data, as `samples.gather` takes it; int16 is
    PCM and is scaled by 1/32768. InputError for data that does not fit the inputs, holds NaN or infinity, or is empty.
    """
    assert not graph.is_step, "calibrate the whole-sequence graph"
    collectors: dict[str, Collector] = {v.name: Collector() for v in graph.inputs}
    collectors.update({o: Collector() for n in graph.nodes for o in n.outputs})
    samples = gather(graph.inputs, data)
    pcm = {name for name, values in samples.items() if values.dtype == np.int16}
    for values in evaluate_batches(graph, samples, batch):
        for name, collector in collectors.items():
            collector.add(values[name].numpy())
    found = {name: replace(c.statistics(), pcm=name in pcm) for name, c in collectors.items()}
    broken = [name for name, s in found.items() if not np.isfinite(s.rms)]
    if broken:
        raise InputError(f"calibration: %{broken[0]} overflows float32 on this data")
    return found
