"""Integer reductions over positions: pooling of int8 images and sequences, mean over one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops.base import Array, Kernel, Op, Param, Site, ctype, need
from edgec.ops.integer.build import Source
from edgec.ops.integer.numbers import Refusal, Scale, ratio
from edgec.ops.integer.requantize import element, exact, rows_of
from edgec.ops.integer.spiking import DIFFERENCE, QRunningMean
from edgec.ops.lowering.sums import Sum, Window, apart, nest, window_of
from edgec.ops.lowering.window import Sides, check_counted, count_text, counts_of, out_extent
from edgec.ops.relations.axes import LETTERS, along


@dataclass(frozen=True)
class QPool2d(Op):
    """A window over positions of x int8 [B,H,W,C]. The time axis may be H (W then has extent 1) or the batch axis."""

    axes: ClassVar[Any] = "b(h)(w)c->bhwc"
    monotone: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = ("int8[2,5,4,3] {kernel=(3,2),stride=(2,1),pad=(1,1,0,1)}",)
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pad: Sides = (0, 0, 0, 0)
    pad_value: int = -128

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(x.dtype is DType.I8 and len(x.shape) == 4, f"expected int8 [B,H,W,C], found {x.dtype.value} {x.shape}")
        along = x.time_axis in (None, 0) or (x.time_axis == 1 and x.shape[2] == 1)
        need(along, "pooling over a time axis in two dimensions")
        h = out_extent(x.shape[1], self.kernel[0], self.stride[0], self.pad[:2], 1)
        w = out_extent(x.shape[2], self.kernel[1], self.stride[1], self.pad[2:], 1)
        return (replace(x, shape=(x.shape[0], h, w, x.shape[3])),)

    def padded(self, x: torch.Tensor) -> torch.Tensor:
        """x [B,C,H,W] with the padding filled in, in float64, which is exact."""
        top, bottom, left, right = self.pad
        return F.pad(exact(x).permute(0, 3, 1, 2), (left, right, top, bottom), value=float(self.pad_value))

    def stream(self, step: Any, x: str) -> str:
        if step.type_of(x).time_axis != 1:
            return step.emit(self, x)  # type: ignore[no-any-return]
        top, bottom = self.pad[:2]
        size, stride = self.kernel[0], self.stride[0]
        window = step.delay_line(x, length=size, left=top, right=bottom, stride=stride, fill=self.pad_value)
        return step.emit(replace(self, stride=(1, 1), pad=(0, 0, *self.pad[2:])), window)  # type: ignore[no-any-return]

    def window(self, site: Site) -> Window:
        """What slides over the image."""
        return window_of(site, self.kernel, self.stride, self.pad)

    def sum(self, w: Window, start: str, update: str, result: str) -> Sum:
        """Of a kernel: {v} in update is an element as int32, {acc} the value of its window so far."""
        row, loops = f"n * {w.rows.extent} + {w.rows.at('i', 'p')}", [("p", w.span(w.rows)), ("q", w.span(w.cols))]
        value = f'T.cast(x[{row}, {w.cols.at("j", "q")}, {{o}}], "int32")'
        return Sum("int32", start, update.replace("{v}", value), f"y[{w.position}, {{o}}] = {result}", loops)

    def sums(self, w: Window) -> Sum:
        """Of a kernel: the values of the windows meant by `w`."""
        raise NotImplementedError

    def params(self, site: Site) -> tuple[Param, Param]:
        """Of a kernel: x and y."""
        w = self.window(site)
        x = (w.batch * w.rows.extent, w.cols.extent, w.channels)
        return ("x", x, "int8"), ("y", (w.count, w.channels), "int8")

    def lower(self, site: Site) -> Kernel:
        w = self.window(site)
        return Kernel("\n".join(nest(w.positions, apart(w, w.channels, self.sums))), self.params(site))


@dataclass(frozen=True)
class QMaxPool2d(QPool2d):
    """The largest element of each window; padding never wins."""

    name: ClassVar[str] = "qmax_pool2d"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        y = F.max_pool2d(self.padded(tensors[0]), self.kernel, self.stride)
        return y.permute(0, 2, 3, 1).to(torch.int64)

    def sums(self, w: Window) -> Sum:
        return self.sum(w, "-128", "T.max({acc}, {v})", 'T.cast({acc}, "int8")')


@dataclass(frozen=True)
class QAvgPool2d(QPool2d):
    """clamp(zero_point + (((sum - n * x_zero) * multiplier + 2**(shift-1)) >> shift)), n the window's size, in int32.

    `pad_value` is x_zero: padding adds zeros. `half_even` rounds exact halves to the even level, not up. With `counted`
    a window is divided by its elements that lie in the image or in so much of the padding around it, and `multiplier`
    is that of a sum of one element.
    """

    name: ClassVar[str] = "qavg_pool2d"
    examples: ClassVar[tuple[str, ...]] = (
        "int8[2,5,4,3] {kernel=(3,2),stride=(2,1),pad=(1,1,0,1),pad_value=0,multiplier=43,shift=8}",
        "int8[1,4,4,3] {kernel=(2,2),stride=(2,2),multiplier=64,shift=8}",
    )
    scale: float = 1.0
    zero_point: int = 0
    x_zero: int = 0
    multiplier: int = 1
    shift: int = 1
    half_even: bool = False
    counted: Sides | None = None

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        n = prod(self.kernel)
        largest = int((self.factors() * np.arange(1, n + 1)).max()) if self.counted else self.multiplier * n
        need(largest * 255 + (1 << self.shift) < 2**31, f"a window of {n} leaves the int32 range")
        (y,) = super().infer(types)
        check_counted(self.counted, self.pad, y)
        return (replace(y, quant=QuantParams((self.scale,), self.zero_point)),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        n, (kh, kw) = prod(self.kernel), self.kernel
        windows = self.padded(tensors[0]).unfold(2, kh, self.stride[0]).unfold(3, kw, self.stride[1])
        total = windows.sum((-1, -2)).permute(0, 2, 3, 1).to(torch.int64) - n * self.x_zero
        scaled = total * self.multiplier
        if self.counted:
            counts = counts_of(tuple(tensors[0].shape[1:3]), self.kernel, self.stride, self.pad, self.counted)
            scaled = total * torch.from_numpy(self.factors()[counts - 1]).unsqueeze(-1)
        odd = ((scaled >> self.shift) & 1) - 1 if self.half_even else 0
        mean = (scaled + (1 << (self.shift - 1)) + odd) >> self.shift
        return (mean + self.zero_point).clamp(-128, 127)

    def factors(self) -> npt.NDArray[np.int64]:
        """The multiplier of a sum of 1, 2, ... counted elements."""
        n = np.arange(1, prod(self.kernel) + 1)
        return np.asarray((2 * self.multiplier + n) // (2 * n), np.int64)

    def sums(self, w: Window) -> Sum:
        n, scaled = prod(self.kernel), f"{{acc}} * {self.multiplier}"
        if self.counted:
            count = str(n)
            if w.clipped:
                count = count_text((w.rows.extent, w.cols.extent), self.kernel, self.stride, self.pad, self.counted)
            scaled = f"{{acc}} * factors[{count} - 1]"
        odd = f" + (T.shift_right({scaled}, {self.shift}) & 1) - 1" if self.half_even else ""
        scaled = f"T.shift_right({scaled} + {1 << (self.shift - 1)}{odd}, {self.shift})"
        mean = f'T.cast(T.max(T.min({scaled} + {self.zero_point}, 127), -128), "int8")'
        start = f"{(self.pad_value - self.x_zero) * n} - {self.pad_value} * ({w.inside})"
        return self.sum(w, start, "{acc} + {v}", mean)

    def lower(self, site: Site) -> Kernel:
        kernel = super().lower(site)
        if self.counted is None:
            return kernel
        (x, y), factors = kernel.params, self.factors().astype(np.int32)
        return replace(kernel, params=(x, ("factors", factors.shape, "int32"), y), consts={"factors": factors})


@dataclass(frozen=True)
class QMean(Op):
    """Mean over one axis, which goes, of integers or spikes, requantised to int8 exactly as QRunningMean does it.

    multiplier and shift (>= 9) int32 [C] or [1]; total = sum over the n positions - n * x_zero;
    t = (total * multiplier) >> (shift - 8); y = clamp(zero_point + floor((t + 128 n) / (256 n)), -128, 127).
    Over the time axis it streams as a QRunningMean (any-time readout). With a `divisor` (see Mean) that is n in y, and
    a stream's total stays within `limit`.
    """

    name: ClassVar[str] = "qmean"
    monotone: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "int8[2,3,4] t1, int32[4], int32[4]",
        "int8[2,3,4] t1, int32[1], int32[1] {axis=2}",
        "bit[2,3,4], int32[1], int32[1]",
    )
    axis: int = 1
    scale: float = 1.0
    zero_point: int = 0
    x_zero: int = 0
    divisor: int = 0
    limit: int = 0

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, multiplier, shift = types
        need(x.dtype in DIFFERENCE, f"expected spikes or integers, found {x.dtype.value}")
        need(x.dtype is not DType.BIT or self.axis < len(x.shape) - 1, "packed spikes along their axis")
        need(0 <= self.axis < len(x.shape), f"axis {self.axis} is not an axis of {x.shape}")
        rest = tuple(n for k, n in enumerate(x.shape) if k != self.axis)
        channels = x.shape[-1] if self.axis != len(x.shape) - 1 else 1
        fits = multiplier.shape == shift.shape and multiplier.shape in ((1,), (channels,))
        need(fits, f"multiplier {multiplier.shape} and shift {shift.shape} do not fit {x.shape}")
        time = x.time_axis
        if time is not None:
            time = None if time == self.axis else time - (time > self.axis)
        return (TensorType(rest, DType.I8, QuantParams((self.scale,), self.zero_point), time),)

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        c = LETTERS[rank - 1]
        return f"{LETTERS[:rank]},{c},{c}->{along(rank, self.axis, '')}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, multiplier, shift = tensors
        n = self.divisor or x.shape[self.axis]
        t = ((x.sum(self.axis) - x.shape[self.axis] * self.x_zero) * multiplier) >> (shift - 8)
        mean = torch.div(t + 128 * n, 256 * n, rounding_mode="floor")
        return (mean + self.zero_point).clamp(-128, 127)

    def stream(self, step: Any, x: str, multiplier: str, shift: str) -> str:
        """A running mean of the frames so far; the mean over its one frame then is that frame."""
        if step.type_of(x).time_axis != self.axis:
            return step.emit(self, x, multiplier, shift)  # type: ignore[no-any-return]
        running = QRunningMean(0, self.scale, self.zero_point, self.x_zero, self.divisor, self.limit)
        mean = step.emit(running, x, multiplier, shift)
        multiplier = step.const("qmean_multiplier", np.array([1 << 30], np.int32))
        shift = step.const("qmean_shift", np.array([30], np.int32))
        now = replace(self, x_zero=self.zero_point, divisor=0, limit=0)
        return step.emit(now, mean, multiplier, shift)  # type: ignore[no-any-return]

    def lower(self, site: Site) -> Kernel:
        x, multiplier, _ = site.inputs
        shape, channels = x.shape, x.shape[-1]
        outer, n, inner = prod(shape[: self.axis]), shape[self.axis], prod(shape[self.axis + 1 :])
        assert self.divisor in (0, n), "a sum's mean is lowered on all its positions"
        c = f"i % {multiplier.size}" if multiplier.size > 1 else "0"
        product = f'T.cast(total[i], "int64") * T.cast(multiplier[{c}], "int64")'
        units: tuple[int, ...] = (outer, n, inner)
        load = 'T.cast(x[r, k, {o}], "int32")'
        if x.dtype is DType.BIT:  # rows of packed channels
            load = element(x, f"(r * {n} + k) * {inner // channels} + {{o}} // {channels}", f"{{o}} % {channels}")
            units = rows_of(x)
        reach = n * max(abs(v - self.x_zero) for v in x.dtype.range)
        kind = "int32" if reach < 1 << 31 else "int64"
        value = load if kind == "int32" else f'T.cast({load}, "int64")'
        start, store = f"T.{kind}({-n * self.x_zero})", "total[{o}] = {acc}"
        sums = Sum(kind, start, f"{{acc}} + {value}", store, [("k", str(n))]).blocks(inner)
        finish = f"""for i in T.serial({inner}):
    t: T.let[T.int64] = T.shift_right({product}, T.cast(shift[{c}] - 8, "int64"))
    eighth: T.let[T.int64] = T.shift_right(t + T.int64({128 * n}), T.int64(8))
    bounded: T.let[T.int64] = T.max(T.min(eighth, T.int64({256 * n})), T.int64({-256 * n}))
    quotient: T.let[T.int32] = T.floordiv(T.cast(bounded, "int32"), {n})
    y[r, i] = T.cast(T.max(T.min(quotient + {self.zero_point}, 127), -128), "int8")"""
        body = nest([("r", outer)], [*sums, *finish.splitlines()], order="serial")
        scales = tuple((name, multiplier.shape, "int32") for name in ("multiplier", "shift"))
        params = (("x", units, ctype(x.dtype)), *scales, ("y", (outer, inner), "int8"), ("total", (inner,), kind))
        return Kernel("\n".join(body), params, scratch=(8 if kind == "int64" else 4) * inner)


#: frames after which QRunningMean halves its total
MEAN_FRAMES = 2**16


def largest(source: Source) -> Array:
    """The largest magnitude of what a mean adds up, by channel or of all."""
    return np.asarray(np.maximum(np.abs(source.lo - source.zero), np.abs(source.hi - source.zero)), np.float64)


def limit_of(source: Source, divisor: int) -> int:
    """The largest total of a sum over time: that of MEAN_FRAMES frames, or of as many as it was trained on."""
    return int(largest(source).max()) * max(MEAN_FRAMES, divisor) if divisor else 0


def mean_ratio(source: Source, target: Scale, channels: int, frames: int, limit: int = 0) -> tuple[Array, Array]:
    """multiplier and shift of a mean over `frames`: as many bits as total * multiplier leaves in int64."""
    multiplier, shift = ratio(np.broadcast_to(target.of(source.scale), (1 if target.exact else channels,)))
    top = np.asarray(limit / frames) if limit else largest(source)
    drop = np.maximum(np.ceil(np.log2(np.maximum(top * frames * 2.0**31, 1.0))) - 62, 0).astype(np.int32)
    multiplier, shift = multiplier >> drop, shift - drop
    if (shift < 9).any() or (drop > 16).any():
        raise Refusal("the scale of its output is too fine for its accumulators")
    return multiplier, shift
