"""Reductions over positions: mean over one axis, pooling over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from edgec.ir.types import DType, TensorType
from edgec.ops.base import Kernel, Op, Site, need
from edgec.ops.conv import out_extent
from edgec.ops.timeline import RunningMean


@dataclass(frozen=True)
class Mean(Op):
    """Mean over one axis, which goes. Over the time axis it streams as a running mean (any-time readout)."""

    name: ClassVar[str] = "mean"
    axis: int = 1

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(0 <= self.axis < len(x.shape), f"axis {self.axis} is not an axis of {x.shape}")
        shape = tuple(n for k, n in enumerate(x.shape) if k != self.axis)
        time = x.time_axis
        if time is not None:
            time = None if time == self.axis else time - (time > self.axis)
        return (replace(x, shape=shape, quant=None, time_axis=time),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0].mean(self.axis)

    def stream(self, step: Any, x: str) -> str:
        t = step.type_of(x)
        if t.time_axis != self.axis:
            return step.emit(self, x)  # type: ignore[no-any-return]
        return step.emit(Mean(self.axis), step.emit(RunningMean(), x))  # type: ignore[no-any-return]

    def lower(self, site: Site) -> Kernel:
        shape = site.inputs[0].shape
        outer, n, inner = prod(shape[: self.axis]), shape[self.axis], prod(shape[self.axis + 1 :])
        body = f"""for i in T.parallel({inner}):
    for r in T.serial({outer}):
        y[r, i] = T.float32(0)
        for k in T.serial({n}):
            y[r, i] = y[r, i] + x[r, k, i]
        y[r, i] = y[r, i] * T.float32({1.0 / n!r})"""
        return Kernel(body, (("x", (outer, n, inner), "float32"), ("y", (outer, inner), "float32")))

    def permuted(self, perm: Sequence[int], types: Sequence[TensorType]) -> Op | None:
        return None


LOWEST = -3.4028234663852886e38  # of float32


@dataclass(frozen=True)
class Pool2d(Op):
    """A window over positions of x [B,H,W,C]. The time axis may be H (W then has extent 1) or the batch axis."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
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

    def nest(self, site: Site, update: str, finish: str = "") -> Kernel:
        """Loops over outputs and window; {v} in update is the element under the window or the fill value."""
        (b, h, w, c), (_, oh, ow, _) = site.inputs[0].shape, site.outputs[0].shape
        row = f"i * {self.stride[0]} + p - {self.pad[0]}"
        col = f"j * {self.stride[1]} + q - {self.pad[2]}"
        load, fill = f"x[n, {row}, {col}, o]", f"T.float32({self.fill!r})"
        if any(self.pad):
            load = f"T.if_then_else(({row}) >= 0 and ({row}) < {h} and ({col}) >= 0 and ({col}) < {w}, {load}, {fill})"
        body = f"""for n, i, j, o in T.grid({b}, {oh}, {ow}, {c}):
    y[n, i, j, o] = {fill}
    for p, q in T.grid({self.kernel[0]}, {self.kernel[1]}):
        y[n, i, j, o] = {update.format(v=load)}{finish}"""
        return Kernel(body, (("x", (b, h, w, c), "float32"), ("y", (b, oh, ow, c), "float32")))


@dataclass(frozen=True)
class MaxPool2d(Pool2d):
    """The largest element of each window; padding never wins."""

    name: ClassVar[str] = "max_pool2d"
    fill: ClassVar[float] = LOWEST

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(self.padded(tensors[0]), self.kernel, self.stride).permute(0, 2, 3, 1)

    def lower(self, site: Site) -> Kernel:
        return self.nest(site, "T.max(y[n, i, j, o], {v})")


@dataclass(frozen=True)
class AvgPool2d(Pool2d):
    """The mean of each window; padding counts as zeros when count_pad is set."""

    name: ClassVar[str] = "avg_pool2d"
    count_pad: bool = True

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        need(self.count_pad or not any(self.pad), "average pooling that leaves its padding out of the count")
        return super().infer(types)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(self.padded(tensors[0]), self.kernel, self.stride).permute(0, 2, 3, 1)

    def lower(self, site: Site) -> Kernel:
        finish = f"\n    y[n, i, j, o] = y[n, i, j, o] / T.float32({prod(self.kernel)})"
        return self.nest(site, "y[n, i, j, o] + {v}", finish)
