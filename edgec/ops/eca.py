"""Efficient channel attention (Wang et al., CVPR 2020): each channel of an image scaled by a gate in (0, 1).

The gate of a channel is the sigmoid of a short filter over the channels' means. It depends on the data, so it folds
into no weights, and it needs the whole image before the first scaled pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from edgec.ir.graph import Node
from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops.base import Array, Cost, Kernel, Op, Site, indent, need
from edgec.ops.integer.build import Builder
from edgec.ops.integer.numbers import INT32_MAX, Refusal
from edgec.ops.lowering.sums import Sum


def check_operands(x: TensorType, w: TensorType) -> None:
    """x [B,H,W,C] and w [k], k odd; a time axis can only be the batch axis, as a gate reads the whole image."""
    need(len(x.shape) == 4 and len(w.shape) == 1, f"expected x [B,H,W,C] and w [k], found {x.shape} and {w.shape}")
    need(w.shape[0] % 2 == 1, f"expected a filter of odd length, found {w.shape[0]}")
    need(x.time_axis in (None, 0), "the gate averages over the image, which holds the time axis")


def filtered(means: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The filter w [k] over the channels of means [B,C], zeros beyond both ends."""
    channels, half = means.shape[1], w.shape[0] // 2
    padded = F.pad(means, (half, half))
    total = torch.zeros_like(means)
    for k in range(w.shape[0]):
        total = total + padded[:, k : k + channels] * w[k]
    return total


def tap(channels: int, taps: int, value: str, zero: str) -> str:
    """TVMScript for the term that tap k reads for channel c: `value` in terms of the index {at}, or zero outside."""
    if taps == 1:
        return value.format(at="c")
    at = f"c + k - {taps // 2}"
    return f"T.if_then_else({at} >= 0 and {at} < {channels}, {value.format(at=at)}, {zero})"


def totals_text(pixels: int, channels: int, kind: str, start: str, element: str) -> str:
    """TVMScript for the sums of the channels of image n to the first part of scratch."""
    sums = Sum(kind, start, f"{{acc}} + {element}", "scratch[{o}] = {acc}", [("p", str(pixels))])
    return "\n".join(indent(sums.blocks(channels)))


@dataclass(frozen=True)
class Eca(Op):
    """y = x * sigmoid(filter over the channels of the mean of x over H and W); x [B,H,W,C], w [k], no bias."""

    name: ClassVar[str] = "eca"
    axes: ClassVar[Any] = "bijk,l->bhwc"
    examples: ClassVar[tuple[str, ...]] = ("float32[2,2,3,4], float32[3]",)
    inplace: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, w = types
        need(x.dtype is DType.F32, f"expected float32, found {x.dtype.value}")
        check_operands(x, w)
        return (replace(x, quant=None),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, w = tensors
        gate = torch.sigmoid(filtered(x.mean((1, 2)), w))
        return x * gate[:, None, None, :]

    def lower(self, site: Site) -> Kernel:
        x, w = site.inputs
        (b, h, v, c), taps = x.shape, w.shape[0]
        term = tap(c, taps, "scratch[{at}] * w[k]", "T.float32(0)")
        totals = totals_text(h * v, c, "float32", "T.float32(0)", "x[n, p, {o}]")
        body = f"""for n in T.serial({b}):
{totals}
    for c in T.serial({c}):
        scratch[{c} + c] = T.float32(0)
        for k in T.serial({taps}):
            scratch[{c} + c] = scratch[{c} + c] + {term}
    for c in T.serial({c}):
        logit: T.let[T.float32] = scratch[{c} + c] * T.float32({1.0 / (h * v)!r})
        scratch[{c} + c] = T.call_extern("float32", "edgec_sigmoidf", logit)
    for p, c in T.grid({h * v}, {c}):
        y[n, p, c] = x[n, p, c] * scratch[{c} + c]"""
        image, f32 = (b, h * v, c), "float32"
        params = (("x", image, f32), ("w", (taps,), f32), ("y", image, f32), ("scratch", (2 * c,), f32))
        return Kernel(body, params, scratch=8 * c)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        x, w = inputs
        return Cost(x.size + x.shape[0] * x.shape[3] * w.shape[0])

    def integer(self, b: Builder, node: Node) -> None:
        """int16 or int8 in; out int16 at the scale of a residual group, or what the readers want."""
        w = b.data(node.inputs[1])
        if w is None:
            raise Refusal("its filter is computed, not constant")
        x = b.operand(node.inputs[0])  # int16 where it is an accumulator: it feeds a product of 16 bits either way
        _, h, v, _ = node.type.shape
        reach = max(abs(end - x.zero) for end in b.dtype(x).range)
        if h * v * reach > INT32_MAX:
            raise Refusal(f"the sum over {h} x {v} pixels leaves the int32 range")
        taps, logit_shift = filter_of(w.astype(np.float64) * float(x.scale[0]) / (h * v), h * v * reach)
        dtype, target = b.plan.stored(node.output)
        op = QEca(dtype.value, target.scale, target.zero, x.zero, logit_shift)
        op = fitted(op, b.dtype(x), float(x.scale[0]) / target.scale)
        table = TABLE if TABLE in b.consts else b.const(TABLE, sigmoid_table())
        b.emit(op, (x.tensor, b.const(node.inputs[1], taps), table), node.outputs)
        b.hold(node.output, node.output, target)


#: QEca's logits have 12 fraction bits and saturate at 8 in magnitude; its gates have 15
LOGIT_BITS, GATE_BITS, LOGIT_LIMIT = 12, 15, 1 << 15
#: a step of the table is 2**8 logit units, 1/16
STEP_BITS, STEPS = 8, 256
#: the filter is scaled to fewer bits than its sums would bear: 24 are far beyond what an int8 image resolves
FILTER_LIMIT = 2**23
TABLE = "eca_sigmoid"


def sigmoid_table() -> Array:
    """sigmoid at -8, -8 + 1/16, ..., 8 in units of 2**-15, int16 [257]; between them QEca interpolates.

    The largest error of the interpolated gate is 2.2 units.
    """
    logits = np.arange(STEPS + 1) / 16.0 - 8.0
    return np.floor(2.0**GATE_BITS / (1.0 + np.exp(-logits)) + 0.5).astype(np.int16)


def gates(logits: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The table at logits of 12 fraction bits within [-8, 8), interpolated."""
    step, rest = (logits >> STEP_BITS) + STEPS // 2, logits & ((1 << STEP_BITS) - 1)
    low, high = table[step], table[step + 1]
    return low + (((high - low) * rest + (1 << (STEP_BITS - 1))) >> STEP_BITS)


@dataclass(frozen=True)
class QEca(Op):
    """Integer Eca: x int8 or int16 [B,H,W,C], w int32 [k], table int16 [257] (`sigmoid_table`) -> int8 or int16.

    total = sum of x - x_zero over H and W (int32); logit = sum of total * w over the taps, / 2**logit_shift, to 12
    fraction bits within [-8, 8); gate = table, interpolated, 15 fraction bits;
    factor = (gate * multiplier + 2**14) >> 15;
    y = clamp(zero_point + (((x - x_zero) * factor + 2**(shift-1)) >> shift)).
    The pass that makes one proves the sums: int64 for the logits, int32 for the pixels (see `pixel_limit`).
    """

    name: ClassVar[str] = "qeca"
    axes: ClassVar[Any] = "bijk,l,t->bhwc"
    examples: ClassVar[tuple[str, ...]] = (
        "int8[2,2,3,4], int32[3], int16[257] {multiplier=1000,shift=8,logit_shift=16}",
    )
    inplace: ClassVar[tuple[int, ...]] = (0,)
    dtype: str = "int8"
    scale: float = 1.0
    zero_point: int = 0
    x_zero: int = 0
    logit_shift: int = 1
    multiplier: int = 1
    shift: int = 1

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, w, table = types
        need(x.dtype in (DType.I8, DType.I16), f"expected int8 or int16, found {x.dtype.value}")
        need(w.dtype is DType.I32, f"expected an int32 filter, found {w.dtype.value}")
        need(table.shape == (STEPS + 1,), f"expected a table of {STEPS + 1}, found {table.shape}")
        check_operands(x, w)
        reach = max(abs(v - self.x_zero) for v in x.dtype.range)
        need(x.shape[1] * x.shape[2] * reach < 2**31, f"the sum over {x.shape[1:3]} leaves the int32 range")
        need(1 <= self.logit_shift <= 62 and 1 <= self.shift <= 30, "expected shifts of at least 1, at most 62 and 30")
        need(0 <= self.multiplier <= self.pixel_limit(x.dtype), "its factors leave the int32 range")
        return (replace(x, dtype=DType(self.dtype), quant=QuantParams((self.scale,), self.zero_point)),)

    def pixel_limit(self, x: DType) -> int:
        """The largest multiplier for which int32 holds x * factor + offset of every pixel."""
        fixed = (abs(self.zero_point) << self.shift) + (1 << self.shift)
        return max(2**31 - 1 - fixed, 0) // (max(abs(v) for v in x.range) + abs(self.x_zero))

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, w, table = tensors
        total = x.sum((1, 2)) - x.shape[1] * x.shape[2] * self.x_zero
        logit = (filtered(total, w) + (1 << (self.logit_shift - 1))) >> self.logit_shift
        gate = gates(logit.clamp(-LOGIT_LIMIT, LOGIT_LIMIT - 1), table)
        factor = (gate * self.multiplier + (1 << (GATE_BITS - 1))) >> GATE_BITS
        y = ((x - self.x_zero) * factor[:, None, None, :] + (1 << (self.shift - 1))) >> self.shift
        return (y + self.zero_point).clamp(*DType(self.dtype).range)

    def lower(self, site: Site) -> Kernel:
        """scratch: the channels' totals, then their factors, then their offsets unless x has no zero point."""
        x, w, _ = site.inputs
        (b, h, v, c), taps = x.shape, w.shape[0]
        lo, hi = DType(self.dtype).range
        totals = totals_text(h * v, c, "int32", str(-h * v * self.x_zero), 'T.cast(x[n, p, {o}], "int32")')
        term = tap(c, taps, 'T.cast(scratch[{at}], "int64") * T.cast(w[k], "int64")', "T.int64(0)")
        added = (self.zero_point << self.shift) + (1 << (self.shift - 1))
        offset, finish = f"T.int32({added})", ""
        if self.x_zero:
            offset = f"scratch[{2 * c} + c]"
            finish = f"\n        {offset} = {added} - scratch[{c} + c] * {self.x_zero}"
        pixel = f'T.shift_right(T.cast(x[n, p, c], "int32") * scratch[{c} + c] + {offset}, {self.shift})'
        body = f"""for n in T.serial({b}):
{totals}
    for c in T.serial({c}):
        total = T.alloc_buffer((1,), "int64")
        total[0] = T.int64({1 << (self.logit_shift - 1)})
        for k in T.serial({taps}):
            total[0] = total[0] + {term}
        total[0] = T.shift_right(total[0], T.int64({self.logit_shift}))
        total[0] = T.min(T.max(total[0], T.int64({-LOGIT_LIMIT})), T.int64({LOGIT_LIMIT - 1}))
        logit: T.let[T.int32] = T.cast(total[0], "int32")
        step: T.let[T.int32] = T.shift_right(logit, {STEP_BITS}) + {STEPS // 2}
        low: T.let[T.int32] = T.cast(table[step], "int32")
        rise: T.let[T.int32] = (T.cast(table[step + 1], "int32") - low) * (logit & {(1 << STEP_BITS) - 1})
        gate: T.let[T.int32] = low + T.shift_right(rise + {1 << (STEP_BITS - 1)}, {STEP_BITS})
        total[0] = T.cast(gate, "int64") * T.int64({self.multiplier}) + T.int64({1 << (GATE_BITS - 1)})
        scratch[{c} + c] = T.cast(T.shift_right(total[0], T.int64({GATE_BITS})), "int32"){finish}
    for p, c in T.grid({h * v}, {c}):
        y[n, p, c] = T.cast(T.max(T.min({pixel}, {hi}), {lo}), "{self.dtype}")"""
        image, words = (b, h * v, c), 3 * c if self.x_zero else 2 * c
        params = (
            ("x", image, x.dtype.value), ("w", (taps,), "int32"), ("table", (STEPS + 1,), "int16"),
            ("y", image, self.dtype), ("scratch", (words,), "int32"),
        )  # fmt: skip
        return Kernel(body, params, scratch=4 * words)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        x, w = inputs[:2]
        return Cost(x.size + x.shape[0] * x.shape[3] * w.shape[0])


def filter_of(gains: Array, reach: int) -> tuple[Array, int]:
    """The filter in integers, and the shift from its sums to logits; int64 holds sums over totals up to `reach`."""
    largest = float(np.abs(gains).max())
    if largest == 0.0:
        return np.zeros(gains.shape, np.int32), 1
    places = min(int(np.floor(np.log2(FILTER_LIMIT / largest))), 62 + LOGIT_BITS)
    taps = np.floor(gains * 2.0**places + 0.5).astype(np.int64)
    shift = places - LOGIT_BITS
    if shift < 1 or int(np.abs(taps).sum()) * reach + (1 << shift) >= 2**63:
        raise Refusal(f"its filter's gain {largest:g} on one pixel is out of range")
    return taps.astype(np.int32), shift


def fitted(op: QEca, x: DType, ratio: float) -> QEca:
    """The op with the finest multiplier and shift for a ratio of scales that int32 bears."""
    for shift in range(30, 0, -1):
        multiplier = int(np.floor(ratio * 2.0**shift + 0.5))
        found = replace(op, multiplier=multiplier, shift=shift)
        if multiplier <= found.pixel_limit(x):
            return found
    raise Refusal(f"its scale ratio {ratio:g} is out of range")
