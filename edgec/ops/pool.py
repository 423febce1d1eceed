"""Reductions over positions: mean over one axis, pooling over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, log2, prod
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from edgec.ir.graph import Node
from edgec.ir.types import DType, TensorType
from edgec.ops.base import Form, Kernel, Op, Site, need
from edgec.ops.integer.build import EVERYTHING, Builder, Source
from edgec.ops.integer.numbers import Refusal, Scale, fixed_point, nearest_point
from edgec.ops.integer.pool import MEAN_FRAMES, QAvgPool2d, QMaxPool2d, QMean, limit_of, mean_ratio
from edgec.ops.lowering.sums import Sum, Window, apart, nest, window_of
from edgec.ops.lowering.window import Sides, check_counted, count_text, counts_of, out_extent
from edgec.ops.relations.axes import LETTERS, along
from edgec.ops.shape import Permute, Reshape
from edgec.ops.timeline import RunningMean


@dataclass(frozen=True)
class Mean(Op):
    """Mean over one axis, which goes. Over the time axis it streams as a running mean (any-time readout).

    With a `divisor` it is the sum over that many: part of a sum, whose reader multiplies by the axis' whole extent.
    """

    name: ClassVar[str] = "mean"
    examples: ClassVar[tuple[str, ...]] = ("float32[2,3,4] t1", "float32[2,3,4] t1 {axis=2}")
    axis: int = 1
    divisor: int = 0

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(0 <= self.axis < len(x.shape), f"axis {self.axis} is not an axis of {x.shape}")
        shape = tuple(n for k, n in enumerate(x.shape) if k != self.axis)
        time = x.time_axis
        if time is not None:
            time = None if time == self.axis else time - (time > self.axis)
        return (replace(x, shape=shape, quant=None, time_axis=time),)

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        return f"{LETTERS[:rank]}->{along(rank, self.axis, '')}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        mean, n = tensors[0].mean(self.axis), tensors[0].shape[self.axis]
        return mean if self.divisor in (0, n) else mean * (n / self.divisor)

    def simplified(self, site: Site) -> Form | None:
        """The mean of one element, which is no frame, is the element."""
        (x,), (y,) = site.inputs, site.outputs
        single = x.shape[self.axis] == 1 and self.divisor in (0, 1) and x.time_axis != self.axis
        return Form(Reshape(y.shape, y.time_axis), (0,)) if single else None

    def stream(self, step: Any, x: str) -> str:
        t = step.type_of(x)
        if t.time_axis != self.axis:
            return step.emit(self, x)  # type: ignore[no-any-return]
        last = len(t.shape) - 2
        if self.axis != last and last >= 0:  # where a running mean has its time axis
            rest = [k for k in range(len(t.shape)) if k != self.axis]
            x = step.emit(Permute((*rest[:-1], self.axis, rest[-1])), x)
        return step.emit(Mean(last), step.emit(RunningMean(0, self.divisor), x))  # type: ignore[no-any-return]

    def lower(self, site: Site) -> Kernel:
        shape = site.inputs[0].shape
        outer, n, inner = prod(shape[: self.axis]), shape[self.axis], prod(shape[self.axis + 1 :])
        mean = f"{{acc}} * T.float32({1.0 / (self.divisor or n)!r})"
        total = Sum("float32", "T.float32(0)", "{acc} + x[r, k, {o}]", f"y[r, {{o}}] = {mean}", [("k", str(n))])
        params = (("x", (outer, n, inner), "float32"), ("y", (outer, inner), "float32"))
        return Kernel("\n".join(total.blocks(inner, outer=[("r", outer)])), params)

    def integer(self, b: Builder, node: Node) -> None:
        """Over time it reads what its streaming form does; over another axis accumulators or int8."""
        t, target, axis = b.graph.type_of(node.inputs[0]), b.plan.int8[node.output], self.axis
        shape, over_time = t.shape, t.time_axis == axis
        source, last = b.sources[node.inputs[0]], axis == len(shape) - 1
        summed = b.dtype(source) is DType.I32 and source.clip == EVERYTHING and not source.is_mapped and not last
        if shape[axis] > MEAN_FRAMES:
            raise Refusal(f"its axis has {shape[axis]} positions, more than {MEAN_FRAMES}")
        if over_time and axis != len(shape) - 2:
            source, axis = frames_before_channels(b, node), len(shape) - 2
        elif over_time:
            source = b.summand(node.inputs[0])
        elif not summed:
            source = int8(b, node.inputs[0])
        frames = MEAN_FRAMES if over_time else shape[axis]
        per_channel = over_time or not (last or t.time_axis == len(shape) - 1)  # along the last axis of what is left
        channels = node.type.shape[-1] if per_channel else 1
        limit = limit_of(source, self.divisor) if over_time else 0
        multiplier, shift = mean_ratio(source, target, channels, frames, limit)
        names = (b.const(f"{node.output}_multiplier", multiplier), b.const(f"{node.output}_shift", shift))
        mean = QMean(axis, target.scale, target.zero, source.zero, self.divisor, limit)
        b.emit(mean, (source.tensor, *names), node.outputs)
        b.hold(node.output, node.output, target)


def frames_before_channels(b: Builder, node: Node) -> Source:
    """What a mean over time reads in int8, its time axis moved to where a running mean has it: the last but one."""
    source, rank = int8(b, node.inputs[0]), len(b.graph.type_of(node.inputs[0]).shape)
    if rank < 2:
        raise Refusal("it has no axis beside time")
    rest = [k for k in range(rank) if k != node.op.axis]
    moved = b.fresh(node.output, "frames")
    b.emit(Permute((*rest[:-1], node.op.axis, rest[-1])), (source.tensor,), (moved,))
    return replace(source, tensor=moved)


def int8(b: Builder, name: str) -> Source:
    """A tensor in int8 at its own scale."""
    return b.store(name, DType.I8, b.plan.int8[name])


LOWEST = -3.4028234663852886e38  # of float32


@dataclass(frozen=True)
class Pool2d(Op):
    """A window over positions of x [B,H,W,C]. The time axis may be H (W then has extent 1) or the batch axis."""

    axes: ClassVar[Any] = "b(h)(w)c->bhwc"
    monotone: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = ("float32[2,5,4,3] {kernel=(3,2),stride=(2,1),pad=(1,1,0,1)}",)
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pad: Sides = (0, 0, 0, 0)
    fill: ClassVar[float] = 0.0

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(x.dtype is DType.F32, f"expected float32, found {x.dtype.value}")
        need(len(x.shape) == 4, f"expected x [B,H,W,C], found {x.shape}")
        one_row = x.time_axis == 1 and x.shape[2] == 1
        need(x.time_axis in (None, 0) or one_row, "pooling over a time axis in two dimensions")
        h = out_extent(x.shape[1], self.kernel[0], self.stride[0], self.pad[:2], 1)
        w = out_extent(x.shape[2], self.kernel[1], self.stride[1], self.pad[2:], 1)
        return (replace(x, shape=(x.shape[0], h, w, x.shape[3]), quant=None),)

    def equals(self, site: Site) -> int | None:
        return 0 if self.kernel == self.stride == (1, 1) and not any(self.pad) else None

    def padded(self, x: torch.Tensor) -> torch.Tensor:
        """x [B,C,H,W] with the padding filled in."""
        top, bottom, left, right = self.pad
        return F.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom), value=self.fill)

    def stream(self, step: Any, x: str) -> str:
        if step.type_of(x).time_axis != 1:
            return step.emit(self, x)  # type: ignore[no-any-return]
        top, bottom = self.pad[:2]
        window = step.delay_line(
            x, length=self.kernel[0], left=top, right=bottom, stride=self.stride[0], fill=self.fill
        )
        return step.emit(replace(self, stride=(1, 1), pad=(0, 0, *self.pad[2:])), window)  # type: ignore[no-any-return]

    def sum(self, w: Window, update: str, result: str) -> Sum:
        """Of a kernel: {v} in update is an element, {acc} the value of its window so far."""
        row, loops = f"n * {w.rows.extent} + {w.rows.at('i', 'p')}", [("p", w.span(w.rows)), ("q", w.span(w.cols))]
        update = update.replace("{v}", f"x[{row}, {w.cols.at('j', 'q')}, {{o}}]")
        return Sum("float32", f"T.float32({self.fill!r})", update, f"y[{w.position}, {{o}}] = {result}", loops)

    def sums(self, w: Window) -> Sum:
        """Of a kernel: the values of the windows meant by `w`."""
        raise NotImplementedError

    def lower(self, site: Site) -> Kernel:
        w = window_of(site, self.kernel, self.stride, self.pad)
        x = (w.batch * w.rows.extent, w.cols.extent, w.channels)
        params = (("x", x, "float32"), ("y", (w.count, w.channels), "float32"))
        return Kernel("\n".join(nest(w.positions, apart(w, w.channels, self.sums))), params)


@dataclass(frozen=True)
class MaxPool2d(Pool2d):
    """The largest element of each window; padding never wins."""

    name: ClassVar[str] = "max_pool2d"
    picks: ClassVar[bool] = True
    fill: ClassVar[float] = LOWEST

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(self.padded(tensors[0]), self.kernel, self.stride).permute(0, 2, 3, 1)

    def sums(self, w: Window) -> Sum:
        return self.sum(w, "T.max({acc}, {v})", "{acc}")

    def integer(self, b: Builder, node: Node) -> None:
        """The order of integers is that of the reals, so the scale stays."""
        x = int8(b, node.inputs[0])
        b.emit(QMaxPool2d(self.kernel, self.stride, self.pad), (x.tensor,), node.outputs)
        b.hold(node.output, node.output, Scale(float(x.scale[0]), x.zero))


@dataclass(frozen=True)
class AvgPool2d(Pool2d):
    """The sum of each window divided by its size; padding adds zeros.

    With `counted` it is divided by the elements that lie in the image or in so much of the padding around it.
    """

    name: ClassVar[str] = "avg_pool2d"
    counted: Sides | None = None

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (y,) = super().infer(types)
        check_counted(self.counted, self.pad, y)
        return (y,)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        if self.counted is None:
            return F.avg_pool2d(self.padded(tensors[0]), self.kernel, self.stride).permute(0, 2, 3, 1)
        sums = F.avg_pool2d(self.padded(tensors[0]), self.kernel, self.stride, divisor_override=1)
        counts = counts_of(tuple(tensors[0].shape[1:3]), self.kernel, self.stride, self.pad, self.counted)
        return sums.permute(0, 2, 3, 1) / torch.from_numpy(counts).unsqueeze(-1)

    def sums(self, w: Window) -> Sum:
        divisor = f"T.float32({prod(self.kernel)})"
        if self.counted and w.clipped:
            n = count_text((w.rows.extent, w.cols.extent), self.kernel, self.stride, self.pad, self.counted)
            divisor = f'T.cast({n}, "float32")'
        return self.sum(w, "{acc} + {v}", f"{{acc}} / {divisor}")

    def integer(self, b: Builder, node: Node) -> None:
        """Sums in int32 and one fixed-point factor."""
        x, target = int8(b, node.inputs[0]), b.plan.int8[node.output]
        n = prod(self.kernel)
        if n > 2**14:
            raise Refusal(f"its window of {n} positions is too large for int32 sums")
        counted = self.counted
        factor, step = np.array([float(x.scale[0]) / ((1 if counted else n) * target.scale)]), target.of(x.scale)
        if target.exact:
            multiplier, shift = nearest_point(factor, 255 * float(step[0]) + 2)
        else:
            multiplier, shift = fixed_point(factor, min(15, 29 - ceil(log2(255 * n))))
        shape = (self.kernel, self.stride, self.pad, x.zero)
        op = QAvgPool2d(*shape, target.scale, target.zero, x.zero, int(multiplier[0]), shift, target.exact, counted)
        b.emit(op, (x.tensor,), node.outputs)
        b.hold(node.output, node.output, target)
