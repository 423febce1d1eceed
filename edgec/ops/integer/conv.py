"""Integer convolution in two dimensions, channels last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from edgec.ir.types import DType, TensorType
from edgec.ops.base import Array, Cost, Kernel, Part, Site, ctype, need
from edgec.ops.integer.requantize import (
    IntegerLayer,
    Requantizing,
    accumulator,
    element,
    exact,
    rows_of,
    weight,
    weight_array,
)
from edgec.ops.window import conv_axes, in_extent, out_extent


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

    def bias_operand(self, bias: TensorType) -> tuple[str, tuple[str, tuple[int, ...], str], dict[str, Array]]:
        """Of a kernel: the bias of output o at (i, j), its parameter, and the tables that it needs."""
        param = ("bias", bias.shape, "int32")
        if not self.row_zone:
            return "bias[o]", param, {}
        tables = {n: np.array(getattr(self, n), np.int32) for n in ("row_zone", "col_zone")}
        return "bias[row_zone[i], col_zone[j], o]", param, tables

    def tap(self, site: Site) -> str:
        """Of a kernel: the product of weight (p, q, c) of output o with the input that it meets at pixel (n, i, j)."""
        x, w = site.inputs[:2]
        (_, h, v, _), (_, _, cg, o) = x.shape, w.shape
        row = f"i * {self.stride[0]} + p * {self.dilation[0]} - {self.pad[0]}"
        col = f"j * {self.stride[1]} + q * {self.dilation[1]} - {self.pad[2]}"
        load = element(x, f"(n * {h} + {row}) * {v} + {col}", f"o // {o // self.groups} * {cg} + c")
        if any(self.pad):
            inside = f"{row} >= 0 and {row} < {h} and {col} >= 0 and {col} < {v}"
            load = f"T.if_then_else({inside}, {load}, {self.pad_value})"
        return f"{load} * {weight(w, 'p', 'q', 'c', 'o')}"

    def lower(self, site: Site) -> Kernel:
        x, w, bias = site.inputs
        (kh, kw, cg, o), (b, oh, ov, _) = w.shape, site.outputs[0].shape
        start, bias_param, tables = self.bias_operand(bias)
        body = f"""for o in T.parallel({o}):
    for n, i, j in T.grid({b}, {oh}, {ov}):
        y[n, i, j, o] = {start}
        for p, q, c in T.grid({kh}, {kw}, {cg}):
            y[n, i, j, o] = y[n, i, j, o] + {self.tap(site)}"""
        weights, packed = weight_array(site)
        zones = tuple((name, t.shape, "int32") for name, t in tables.items())
        params = (("x", rows_of(x), ctype(x.dtype)), weights, bias_param, *zones)
        return Kernel(body, (*params, ("y", (b, oh, ov, o), "int32")), packed | tables)

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
        x, w, bias, multiplier, _ = site.inputs
        (kh, kw, cg, o), (b, oh, ov, _) = w.shape, site.outputs[0].shape
        start, bias_param, tables = self.bias_operand(bias)
        lines = self.requantization.element_lines("total[o]", "o" if multiplier.size > 1 else "0", "y[n, i, j, o]")
        finish = "\n".join(f"        {line}" for line in lines)
        body = f"""for n, i, j in T.grid({b}, {oh}, {ov}):
    for o in T.serial({o}):
        total[o] = {start}
        for p, q, c in T.grid({kh}, {kw}, {cg}):
            total[o] = total[o] + {self.tap(site)}
    for o in T.serial({o}):
{finish}"""
        scales = tuple((name, multiplier.shape, "int32") for name in ("multiplier", "shift"))
        weights, packed = weight_array(site)
        zones = tuple((name, t.shape, "int32") for name, t in tables.items())
        params = (("x", rows_of(x), ctype(x.dtype)), weights, bias_param, *scales, *zones)
        y = ("y", (b, oh, ov, o), self.dtype)
        return Kernel(body, (*params, y, ("total", (o,), "int32")), packed | tables, scratch=4 * o)
