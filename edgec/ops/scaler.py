"""Per-window standardisation of a time series, and its inverse: RevIN without weights, the StdScaler of TTM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor, log2
from typing import ClassVar

import torch

from edgec.ir.graph import Node
from edgec.ir.types import DType, TensorType
from edgec.ops.base import Kernel, Op, Reads, Site, need
from edgec.ops.integer.build import Builder, Source
from edgec.ops.integer.numbers import Refusal, Scale
from edgec.ops.integer.scaler import LONGEST, QStdScale, QStdUnscale, fraction_bits
from edgec.ops.lowering.loops import around, statistics_shape
from edgec.ops.relations.axes import along

EPS_LIMIT = 2**60
MULTIPLIER_BITS = 15
SHIFT_LIMIT = 46


@dataclass(frozen=True)
class StdScale(Op):
    """y = (x - loc) / scale over one axis, with loc = mean(x), scale = sqrt(mean((x - loc)^2) + eps).

    x [.., L, ..] -> y of the same shape, loc and scale [.., 1, ..].
    """

    name: ClassVar[str] = "std_scale"
    reads: ClassVar[Reads] = Reads.SERIES
    examples: ClassVar[tuple[str, ...]] = ("float32[2,5,3]",)
    axis: int = 1
    eps: float = 1e-5

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(x.dtype is DType.F32, f"expected float32, found {x.dtype.value}")
        need(0 <= self.axis < len(x.shape), f"axis {self.axis} is not an axis of {x.shape}")
        need(self.eps > 0, f"expected eps above 0, found {self.eps}")
        time = None if x.time_axis == self.axis else x.time_axis
        stats = TensorType(statistics_shape(x.shape, self.axis), DType.F32, None, time)
        return replace(x, quant=None), stats, stats

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        return (
            f"{along(rank, self.axis, 'i')}->{along(rank, self.axis)},{along(rank, self.axis)},{along(rank, self.axis)}"
        )

    def reference(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        (x,) = tensors
        loc = x.mean(self.axis, keepdim=True)
        scale = torch.sqrt((x - loc).square().mean(self.axis, keepdim=True) + self.eps)
        return (x - loc) / scale, loc, scale

    def lower(self, site: Site) -> Kernel:
        """A second pass corrects the mean: one pass in float32 is off by 1e-5 of it, which may be many deviations."""
        outer, n, inner = around(site.inputs[0].shape, self.axis)
        body = f"""for r, i in T.grid({outer}, {inner}):
    scale[r, i] = T.float32(0)
    for k in T.serial({n}):
        scale[r, i] = scale[r, i] + x[r, k, i]
    loc[r, i] = scale[r, i] / T.float32({n})
    scale[r, i] = T.float32(0)
    for k in T.serial({n}):
        scale[r, i] = scale[r, i] + (x[r, k, i] - loc[r, i])
    loc[r, i] = loc[r, i] + scale[r, i] / T.float32({n})
    scale[r, i] = T.float32(0)
    for k in T.serial({n}):
        scale[r, i] = scale[r, i] + (x[r, k, i] - loc[r, i]) * (x[r, k, i] - loc[r, i])
    scale[r, i] = T.call_extern("float32", "edgec_sqrtf", scale[r, i] / T.float32({n}) + T.float32({self.eps!r}))
    for k in T.serial({n}):
        y[r, k, i] = (x[r, k, i] - loc[r, i]) / scale[r, i]"""
        full, stats = (outer, n, inner), (outer, inner)
        names = (("x", full), ("y", full), ("loc", stats), ("scale", stats))
        return Kernel(body, tuple((name, shape, "float32") for name, shape in names))

    def integer(self, b: Builder, node: Node) -> None:
        """int16 in and out: a layer reads it in int16 where its sums bear that, as it does a front end's features."""
        (name,) = node.inputs
        x, target = b.store(name, DType.I16, b.plan.int16[name]), b.plan.int16[node.outputs[0]]
        length, unit = b.graph.type_of(name).shape[self.axis], float(x.scale[0])
        b.emit(integer_scale(self, length, unit, target.scale), (x.tensor,), node.outputs)
        b.features.add(node.outputs[0])
        b.hold(node.outputs[0], node.outputs[0], target)
        for kept, bits in zip(node.outputs[1:], (0, fraction_bits(length)), strict=True):
            b.hold(kept, kept, Scale(unit / length / 2**bits))


@dataclass(frozen=True)
class StdUnscale(Op):
    """y = x * scale + loc: a forecast [.., H, ..] back in the units of the window that `std_scale` took apart."""

    name: ClassVar[str] = "std_unscale"
    reads: ClassVar[Reads] = Reads.WIDE
    examples: ClassVar[tuple[str, ...]] = ("float32[2,5,3], float32[2,1,3], float32[2,1,3]",)
    axis: int = 1

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, loc, scale = types
        expected = statistics_shape(x.shape, self.axis)
        need(
            loc.shape == scale.shape == expected,
            f"expected loc and scale of shape {expected}, found {loc.shape}, {scale.shape}",
        )
        need(all(t.dtype is DType.F32 for t in types), f"expected float32, found {[t.dtype.value for t in types]}")
        return (replace(x, quant=None),)

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        x, statistics = along(rank, self.axis), along(rank, self.axis, "i")
        return f"{x},{statistics},{statistics}->{x}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, loc, scale = tensors
        return x * scale + loc

    def lower(self, site: Site) -> Kernel:
        outer, n, inner = around(site.inputs[0].shape, self.axis)
        body = f"""for r, k, i in T.grid({outer}, {n}, {inner}):
    y[r, k, i] = x[r, k, i] * scale[r, i] + loc[r, i]"""
        full, stats = (outer, n, inner), (outer, inner)
        names = (("x", full), ("loc", stats), ("scale", stats), ("y", full))
        return Kernel(body, tuple((name, shape, "float32") for name, shape in names))

    def integer(self, b: Builder, node: Node) -> None:
        """The forecast as it is stored, else in int16; out in the units of the window."""
        name, *kept = node.inputs
        statistics = tuple(b.sources[i].tensor for i in kept)
        window = next((n for n in b.nodes if isinstance(n.op, QStdScale) and n.outputs[1:] == statistics), None)
        if window is None:
            raise Refusal("its mean and deviation are not those of one window")
        series, x = b.types[window.inputs[0]], centred(b, name)
        assert series.quant is not None
        length, unit = series.shape[window.op.axis], series.quant.scale[0]
        op = integer_unscale(self, length, unit, float(x.scale[0]))
        b.emit(op, (x.tensor, *statistics), node.outputs)
        b.forecasts.add(node.output)
        b.hold(node.output, node.output, Scale(unit))


def integer_scale(op: StdScale, length: int, unit: float, target: float) -> QStdScale:
    """The integer form of a scaler over windows of int16 at scale `unit`; y in int16 at scale `target`."""
    if length > LONGEST:
        raise Refusal(f"its window of {length} values is longer than {LONGEST}")
    ones = 1 << fraction_bits(length)
    eps = max(1, round(op.eps * (length * ones / unit) ** 2))
    if eps > EPS_LIMIT:
        raise Refusal(f"its eps of {op.eps:g} hides windows in units of {unit:g}", "give the series in smaller units")
    shift = 30 - floor(log2(ones / target))
    factor = min(round(ones / target * 2.0**shift), 2**31 - 1)
    return QStdScale(op.axis, "int16", target, eps, factor, shift)


def integer_unscale(op: StdUnscale, length: int, unit: float, scale: float) -> QStdUnscale:
    """The integer form of its inverse for a forecast stored at `scale`; its factor has 15 bits."""
    ratio = scale / (length << fraction_bits(length))
    shift = min(MULTIPLIER_BITS - 1 - floor(log2(ratio)), SHIFT_LIMIT)
    multiplier = min(round(ratio * 2.0**shift), 2**MULTIPLIER_BITS - 1)
    return QStdUnscale(op.axis, unit, multiplier, round(2.0**shift / length), shift)


def centred(b: Builder, name: str) -> Source:
    """A tensor in integers without a zero point."""
    x = b.operand(name)
    return x if x.zero == 0 else b.store(name, DType.I16, b.plan.int16[name])
