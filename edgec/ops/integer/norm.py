"""Layer norm on integers: exact sums, an integer inverse square root, one multiplier and offset per channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, log2, sqrt
from typing import Any, ClassVar

import numpy as np
import torch

from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops.base import Array, Cost, Kernel, Op, Site, need
from edgec.ops.integer.numbers import INT32_MAX, Refusal, Scale
from edgec.ops.integer.requantize import clamped, rows_of

MAX_CHANNELS = 1 << 15
EPS_LIMIT = 2**61 - 1
DOWN, UP = (16, 8, 4, 2, 1), (8, 4, 2, 1)  # powers of 4 that `normalised` tries
#: the line 1.508 - 0.431 w is within 8.7 % of 1/sqrt(w) over [1/2, 2]; each Newton step squares that error
NEAR, SLOPE, STEPS = round(1.508 * 2**30), round(0.431 * 2**30), 4


def deviation_bits(channels: int) -> int:
    """K of `QLayerNorm` for rows of so many channels: deviations times 2**(K - E) stay below 2**30."""
    return 30 - ceil((log2(channels) + 1) / 2)


def normalised(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers in [1, 2**62) as (m, t): w is about m * 4**t, m in [2**29, 2**31), bits that leave m cut off."""
    m, t = w, torch.zeros_like(w)
    for j in DOWN:
        fits = (m >> 2 * j) >= 1 << 29
        m, t = torch.where(fits, m >> 2 * j, m), torch.where(fits, t + j, t)
    for j in UP:
        fits = m < 1 << 31 - 2 * j
        m, t = torch.where(fits, m << 2 * j, m), torch.where(fits, t - j, t)
    return m, t


def inverse_sqrt(m: torch.Tensor) -> torch.Tensor:
    """2**45 / sqrt(m) for m in [2**29, 2**31), by Newton's method; relative error below 2**-27."""
    r = NEAR - (m * SLOPE >> 30)
    for _ in range(STEPS):
        r = r * (3 * (1 << 30) - (m * (r * r >> 30) >> 30)) >> 31
    return r


def _normalising_text(indent: str) -> str:
    """TVMScript of `normalised` on w[0]; up[0] goes down by t."""
    lines = []
    for j in DOWN:
        lines += [
            f"if T.shift_right(w[0], T.int64({2 * j})) >= T.int64({1 << 29}):",
            f"    w[0] = T.shift_right(w[0], T.int64({2 * j}))",
            f"    up[0] = up[0] - {j}",
        ]
    for j in UP:
        lines += [
            f"if w[0] < T.int64({1 << 31 - 2 * j}):",
            f"    w[0] = T.shift_left(w[0], T.int64({2 * j}))",
            f"    up[0] = up[0] + {j}",
        ]
    return "\n".join(indent + line for line in lines)


@dataclass(frozen=True)
class QLayerNorm(Op):
    """y = clamp((n * multiplier[c] >> 32) + offset[c] >> shift, lo, hi), n the normalised x of its row.

    x [..., C] int8 or int16, rows along the last axis; multiplier and offset int32 [C]; zero point and rounding lie in
    the offset. With S and Q the sums of x and x * x: W = C * Q - S * S + eps, which is (C * sigma)**2 of the reals in
    units of x; W = m * 4**t (`normalised`), r = `inverse_sqrt`(m), E = 15 + t, K = `deviation_bits`(C):
    n = ((C * x - S) * 2**(K - E)) * r >> 32, which is (x - mean) / sigma with K - 2 fraction bits.
    """

    name: ClassVar[str] = "qlayer_norm"
    axes: ClassVar[Any] = "...i,(c),(c)->...c"
    examples: ClassVar[tuple[str, ...]] = ("int8[2,3,4] t1, int32[4], int32[4] {shift=8}",)
    dtype: str = "int8"
    scale: float = 1.0
    zero_point: int = 0
    eps: int = 1
    shift: int = 1
    lo: int = -128
    hi: int = 127

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, multiplier, offset = types
        channels = x.shape[-1]
        need(x.dtype in (DType.I8, DType.I16), f"expected int8 or int16, found {x.dtype.value}")
        need(channels < MAX_CHANNELS, f"expected fewer than {MAX_CHANNELS} channels, found {channels}")
        need(multiplier.shape == offset.shape == (channels,), f"expected vectors of {channels}, found {offset.shape}")
        need(x.time_axis != len(x.shape) - 1, "the layer mixes frames: its input's time axis is the feature axis")
        need(1 <= self.eps < 1 << 61 and 1 <= self.shift <= 30, f"eps {self.eps} or shift {self.shift} out of range")
        return (replace(x, dtype=DType(self.dtype), quant=QuantParams((self.scale,), self.zero_point)),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, multiplier, offset = tensors
        n = self.normalise(x)
        return ((n * multiplier >> 32) + offset >> self.shift).clamp(self.lo, self.hi)

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        """n of the formula above."""
        channels = x.shape[-1]
        total = x.sum(-1, keepdim=True)
        m, t = normalised(channels * (x * x).sum(-1, keepdim=True) - total * total + self.eps)
        up = deviation_bits(channels) - 15 - t
        deviation = (channels * x - total << up.clamp(min=0)) >> (-up).clamp(min=0)
        return deviation * inverse_sqrt(m) >> 32

    def lower(self, site: Site) -> Kernel:
        x = site.inputs[0]
        rows, channels = rows_of(x)
        value = f'T.cast(x[r, c], "int32") * T.int32({channels}) - total[0]'
        product = "T.cast(T.shift_right(T.cast({a}, 'int64') * T.cast({b}, 'int64'), T.int64(32)), 'int32')"
        most = channels * channels * x.dtype.range[0] ** 2 + self.eps  # of W, so of t
        shifted = f"T.shift_left({value}, left)"
        if deviation_bits(channels) - 15 < (most.bit_length() - 29) // 2:
            shifted = f"T.shift_right({shifted}, T.max(0 - up[0], 0))"
        body = f"""for r in T.parallel({rows}):
    total = T.alloc_buffer((1,), "int32")
    w = T.alloc_buffer((1,), "int64")
    root = T.alloc_buffer((1,), "int64")
    inverse = T.alloc_buffer((1,), "int32")
    up = T.alloc_buffer((1,), "int32")
    total[0] = 0
    w[0] = T.int64(0)
    for c in T.serial({channels}):
        total[0] = total[0] + T.cast(x[r, c], "int32")
        w[0] = w[0] + T.cast(T.cast(x[r, c], "int32") * T.cast(x[r, c], "int32"), "int64")
    w[0] = w[0] * T.int64({channels}) - T.cast(total[0], "int64") * T.cast(total[0], "int64") + T.int64({self.eps})
    up[0] = {deviation_bits(channels) - 15}
{_normalising_text("    ")}
    root[0] = T.int64({NEAR}) - T.shift_right(w[0] * T.int64({SLOPE}), T.int64(30))
    for k in T.serial({STEPS}):
        square: T.let[T.int64] = T.shift_right(root[0] * root[0], T.int64(30))
        step: T.let[T.int64] = T.int64({3 << 30}) - T.shift_right(w[0] * square, T.int64(30))
        root[0] = T.shift_right(root[0] * step, T.int64(31))
    left: T.let[T.int32] = T.max(up[0], 0)
    inverse[0] = T.cast(root[0], "int32")
    for c in T.serial({channels}):
        deviation: T.let[T.int32] = {shifted}
        n: T.let[T.int32] = {product.format(a="deviation", b="inverse[0]")}
        scaled: T.let[T.int32] = {product.format(a="n", b="multiplier[c]")}
        level: T.let[T.int32] = T.shift_right(scaled + offset[c], T.int32({self.shift}))
        y[r, c] = {clamped("level", self.lo, self.hi, DType(self.dtype), "int32")}"""
        vec = ((channels,), "int32")
        params = (("x", (rows, channels), x.dtype.value), ("multiplier", *vec), ("offset", *vec))
        return Kernel(body, (*params, ("y", (rows, channels), self.dtype)))

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(outputs[0].size)


def channel_maps(gamma: Array, beta: Array, target: Scale) -> tuple[Array, Array, int]:
    """Multiplier, offset and shift of a QLayerNorm with as many bits as int32 bears, rounding and zero point included.

    |n| is at most sqrt(channels), so its product by the multiplier is known to fit.
    """
    bits = deviation_bits(len(gamma)) - 2
    gain, level = gamma / target.scale, beta / target.scale + target.zero + 0.5
    largest = float(np.abs(gain).max())
    places = min(30 - floor(log2(largest)) if largest > 0 else 62, 62 - bits)
    while places + bits > 32:
        shift = places + bits - 32
        multiplier, offset = np.floor(gain * 2.0**places + 0.5), np.floor(level * 2.0**shift + 0.5)
        product = np.ceil(np.abs(multiplier) * ceil(sqrt(len(gamma))) * 2.0 ** (bits - 32)) + 1
        if np.abs(multiplier).max() <= INT32_MAX and (product + np.abs(offset)).max() <= INT32_MAX:
            return multiplier.astype(np.int32), offset.astype(np.int32), shift
        places -= 1
    raise Refusal(f"its gain {float(np.abs(gamma).max()):g} is too large for the scale {target.scale:g} of its output")
