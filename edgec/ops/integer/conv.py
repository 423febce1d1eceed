"""Integer convolutions along one axis or two, channels last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from edgec.ir.types import DType, TensorType
from edgec.ops.base import Array, Cost, Kernel, Param, Part, Site, indent, need
from edgec.ops.integer.requantize import IntegerLayer, Requantizing, accumulator, exact, integer_filter
from edgec.ops.lowering.sums import Axis, Filter, line_of, window_of
from edgec.ops.lowering.window import conv_axes, in_extent, out_extent
from edgec.ops.relations.interval import Interval, weighted


def zone_deltas(bias: Array) -> Array | None:
    """What the bias of every zone has more than that of zone (0, 0), [row zones, column zones, O], as kernels for
    Cortex-M keep it: int16 if that holds it with either sign, else int32; None where neither does."""
    deltas = bias.astype(np.int64) - bias[0, 0]
    fitting = (d for d in (np.int16, np.int32) if np.abs(deltas).max() <= np.iinfo(d).max)
    return next((deltas.astype(d) for d in fitting), None)


@dataclass(frozen=True)
class QConv2d(IntegerLayer):
    """Integer Conv2d: x [B,H,W,C], w [KH,KW,C/groups,O], bias int32 [O] -> int32 [B,H,W,O]; padding is `pad_value`.

    Where the bias depends on the place, `row_zone` and `col_zone` give the zone of each row and column of the output,
    and the bias is [row zones, column zones, O].
    """

    name: ClassVar[str] = "qconv2d"
    examples: ClassVar[tuple[str, ...]] = (
        "int8[2,5,4,3] t0, int8[3,2,3,4], int32[4] {pad=(1,1,0,1),stride=(2,1),pad_value=-3}",
        "int8[1,4,4,3], int8[2,2,1,3], int32[3] {groups=3}",
        "int8[1,3,2,2], int8[1,1,2,3], int32[2,1,3] {row_zone=(0,1,0),col_zone=(0,0)}",
    )
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    pad_value: int = 0
    row_zone: tuple[int, ...] = field(default=(), kw_only=True)
    col_zone: tuple[int, ...] = field(default=(), kw_only=True)

    @property
    def requantizing(self) -> type[Any]:
        return QConv2dRequantize

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, w, bias = types
        images = len(x.shape) == len(w.shape) == 4
        need(images, f"expected x [B,H,W,C] and w [KH,KW,C,O], found {x.shape} and {w.shape}")
        fits = x.shape[3] == w.shape[2] * self.groups
        need(fits, f"x has {x.shape[3]} channels, w expects {w.shape[2] * self.groups}")
        need(x.time_axis in (None, 0), "convolving over a time axis in two dimensions")
        h = out_extent(x.shape[1], w.shape[0], self.stride[0], self.pad[:2], self.dilation[0])
        v = out_extent(x.shape[2], w.shape[1], self.stride[1], self.pad[2:], self.dilation[1])
        self._check_bias(bias, h, v, w.shape[3])
        return (accumulator((x.shape[0], h, v, w.shape[3]), x, w),)

    def _check_bias(self, bias: TensorType, rows: int, cols: int, outputs: int) -> None:
        shape: tuple[int, ...] = (outputs,)
        if self.row_zone:
            placed = (len(self.row_zone), len(self.col_zone)) == (rows, cols) and len(bias.shape) == 3
            need(placed, f"expected zones of {rows} rows and {cols} columns, and a bias for each")
            shape = (max(bias.shape[0], max(self.row_zone) + 1), max(bias.shape[1], max(self.col_zone) + 1), outputs)
        need(bias.shape == shape and bias.dtype is DType.I32, f"expected int32 bias of shape {shape}")

    def axes(self, types: Sequence[TensorType]) -> str:
        return conv_axes("hw", self.groups, types[1])

    def sums(self, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        if self.row_zone:
            bias = bias[list(self.row_zone)][:, list(self.col_zone)]
        top, bottom, left, right = self.pad
        padded = F.pad(exact(x).permute(0, 3, 1, 2), (left, right, top, bottom), value=float(self.pad_value))
        weights = exact(w).permute(3, 2, 0, 1)
        y = F.conv2d(padded, weights, None, self.stride, 0, self.dilation, self.groups)
        return y.permute(0, 2, 3, 1).to(torch.int64) + bias

    def part(self, types: Sequence[TensorType], rows: tuple[int, int], cols: tuple[int, int]) -> Part:
        (_, h, v, _), (kh, kw, _, _) = types[0].shape, types[1].shape
        down, (top, bottom) = in_extent(rows, h, kh, self.stride[0], self.pad[0], self.dilation[0])
        op = replace(self, row_zone=self.row_zone[slice(*rows)], col_zone=self.col_zone[slice(*cols)])
        if cols == (0, out_extent(v, kw, self.stride[1], self.pad[2:], self.dilation[1])):  # whole lines stay whole
            return Part(replace(op, pad=(top, bottom, *self.pad[2:])), down, (0, v), top)
        along, (left, right) = in_extent(cols, v, kw, self.stride[1], self.pad[2], self.dilation[1])
        return Part(replace(op, pad=(top, bottom, left, right)), down, along, top)

    def filter(self, site: Site) -> tuple[Filter, str, tuple[Param, ...], dict[str, Array]]:
        """Of a kernel: its sums, the bias of output {o} at (i, j), its parameters up to the bias' zones, its tables."""
        window = window_of(site, site.inputs[1].shape[:2], self.stride, self.pad, self.dilation)
        products, params, consts = integer_filter(site, window, self.groups, self.pad_value)
        if not self.row_zone:
            return products, "bias[{o}]", params, consts
        zones = {n: np.array(getattr(self, n), np.int32) for n in ("row_zone", "col_zone")}
        params = (*params, *((name, t.shape, "int32") for name, t in zones.items()))
        return products, "bias[row_zone[i], col_zone[j], {o}]", params, consts | zones

    def lower(self, site: Site) -> Kernel:
        products, start, params, consts = self.filter(site)
        window, o = products.window, products.weights[3]
        lines = products.nest("int32", start, f"y[{window.position}, {{o}}] = {{acc}}")
        return Kernel("\n".join(lines), (*params, ("y", (window.count, o), "int32")), consts)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        kh, kw, cg, _ = inputs[1].shape
        return Cost(outputs[0].size * kh * kw * cg)


@dataclass(frozen=True)
class QConv2dRequantize(Requantizing, QConv2d):
    """QConv2d whose accumulators are requantised pixel by pixel: operands x, w, bias, multiplier [O], shift [O].

    The accumulators of one pixel are all that exists at a time.
    """

    name: ClassVar[str] = "qconv2d_requantize"
    examples: ClassVar[tuple[str, ...]] = (
        "int8[2,5,4,3] t0, int8[3,2,3,4], int32[4], int32[4], int32[4] {pad=(1,1,0,1),stride=(2,1),pad_value=-3}",
        "int8[1,4,4,3], int8[2,2,1,3], int32[3], int32[1], int32[1] {groups=3}",
        "int8[1,3,2,2], int8[1,1,2,3], int32[2,1,3], int32[3], int32[3] {row_zone=(0,1,0),col_zone=(0,0)}",
    )

    def lower(self, site: Site) -> Kernel:
        products, start, params, consts = self.filter(site)
        window, o, multiplier = products.window, products.weights[3], site.inputs[3]
        y, channel = f"y[{window.position}, o]", "o" if multiplier.size > 1 else "0"
        finish = [f"for o in T.serial({o}):", *indent(self.requantization.element_lines("total[o]", channel, y))]
        lines = products.nest_by_position("int32", start, "total[{o}] = {acc}", finish)
        scales = tuple((name, multiplier.shape, "int32") for name in ("multiplier", "shift"))
        params = (*params[:3], *scales, *params[3:], ("y", (window.count, o), self.dtype), ("total", (o,), "int32"))
        return Kernel("\n".join(lines), params, consts, scratch=4 * o)


@dataclass(frozen=True)
class QConv1d(IntegerLayer):
    """Integer Conv1d: x [B,T,C], w [K,C/groups,O], bias int32 [O] -> int32 [B,T',O]; padding is `pad_value`.

    `spike_rate` as in QLinear.
    """

    name: ClassVar[str] = "qconv1d"
    examples: ClassVar[tuple[str, ...]] = (
        "int8[2,6,3] t1, int8[3,3,4], int32[4] {pad=(2,1),stride=2,pad_value=5}",
        "bit[2,7,4] t1, int8[2,1,4], int32[4] {groups=4,dilation=2}",
        "int8[2,5,4], int8[2,2,6], int32[6] {groups=2}",
    )
    stride: int = 1
    pad: tuple[int, int] = (0, 0)
    dilation: int = 1
    groups: int = 1
    pad_value: int = 0
    spike_rate: float | None = field(default=None, kw_only=True)

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, w, bias = types
        three = len(x.shape) == len(w.shape) == 3
        need(three, f"expected x [B,T,C] and w [K,C,O], found {x.shape} and {w.shape}")
        channels = w.shape[1] * self.groups
        need(x.shape[2] == channels, f"x has {x.shape[2]} channels, w expects {channels}")
        need(bias.shape == (w.shape[2],) and bias.dtype is DType.I32, f"expected int32 bias of shape ({w.shape[2]},)")
        frames = out_extent(x.shape[1], w.shape[0], self.stride, self.pad, self.dilation)
        return (accumulator((x.shape[0], frames, w.shape[2]), x, w),)

    def axes(self, types: Sequence[TensorType]) -> str:
        return conv_axes("t", self.groups, types[1])

    def sums(self, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        padded = F.pad(exact(x).transpose(1, 2), self.pad, value=float(self.pad_value))
        y = F.conv1d(padded, exact(w).permute(2, 1, 0), None, self.stride, 0, self.dilation, self.groups)
        return y.transpose(1, 2).to(torch.int64) + bias

    def interval(self, types: Sequence[TensorType], operands: Sequence[Interval]) -> Interval | None:
        """Along time any frames, and padding, lie under every tap."""
        if types[0].time_axis != 1:
            return super().interval(types, operands)
        (x, w, bias), op = operands, QConv1d(groups=self.groups)
        if self.pad != (0, 0):
            x = Interval(x.lo.clamp(max=self.pad_value), x.hi.clamp(min=self.pad_value))

        def sums(a: torch.Tensor, taps: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
            return op.sums(a, taps.sum(0, keepdim=True), start)

        return weighted(sums, x, w, bias)

    def lower(self, site: Site) -> Kernel:
        (b, t, c), taps, frames = site.inputs[0].shape, site.inputs[1].shape[0], site.outputs[0].shape[1]
        window = line_of(b, Axis(t, frames, taps, self.stride, self.pad[0], self.dilation), c)
        products, params, consts = integer_filter(site, window, self.groups, self.pad_value)
        o = products.weights[3]
        lines = products.nest("int32", "bias[{o}]", f"y[{window.position}, {{o}}] = {{acc}}")
        return Kernel("\n".join(lines), (*params, ("y", (window.count, o), "int32")), consts)

    def stream(self, step: Any, x: str, w: str, bias: str) -> str:
        if step.type_of(x).time_axis != 1:  # the filter runs along another axis: frames do not mix
            return step.emit(self, x, w, bias)  # type: ignore[no-any-return]
        span = self.dilation * (step.type_of(w).shape[0] - 1) + 1
        left, right = self.pad
        line = step.delay_line(x, length=span, left=left, right=right, stride=self.stride, fill=self.pad_value)
        return step.emit(replace(self, pad=(0, 0), stride=1), line, w, bias)  # type: ignore[no-any-return]

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        k, cg, _ = inputs[1].shape
        return Cost(outputs[0].size * k * cg)
