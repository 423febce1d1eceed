"""The numbers TFLite computes when it prepares a model: fixed-point factors, activation ranges, tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import floor, frexp, inf

import numpy as np
import numpy.typing as npt

from edgec.frontends.tflite.model import TfTensor

Floats = npt.NDArray[np.float32]

DIFF_BITS = 5  # integer bits of a softmax's differences
#: exp(-2**k) with 31 fraction bits for k = -2 .. 4
EXP_POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
EXP_EIGHTH, THIRD = 1895147668, 715827883  # exp(-1/8) and 1/3, likewise
ACTIVATIONS = {"NONE": (-inf, inf), "RELU": (0.0, inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}


def round_away(x: float) -> int:
    """C's round: half away from zero."""
    return floor(abs(x) + 0.5) * (1 if x >= 0 else -1)


def quantize_multiplier(real: float) -> tuple[int, int]:
    """TFLite's QuantizeMultiplier as (multiplier, shift) with real = multiplier / 2**(31 + shift); real >= 0."""
    if real == 0:
        return 0, 0
    mantissa, exponent = frexp(real)
    multiplier = round_away(mantissa * 2.0**31)
    if multiplier == 1 << 31:
        multiplier, exponent = 1 << 30, exponent + 1
    return (0, 0) if exponent < -31 else (multiplier, -exponent)


def multipliers(reals: Sequence[float]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """multiplier and shift as Requantize takes them. ValueError for a factor of 2**30 or more."""
    pairs = [quantize_multiplier(r) for r in reals]
    if any(31 + s < 1 for _, s in pairs):
        raise ValueError(f"its scale ratio {max(reals):g} is out of range")
    return np.array([m for m, _ in pairs], np.int32), np.array([31 + s for _, s in pairs], np.int32)


def float32(x: float) -> float:
    """Rounded to float32, in which TFLite stores scales and multiplies some of them."""
    return float(np.float32(x))


def activation_range(kind: str, y: TfTensor) -> tuple[int, int]:
    """The fused activation as a clamp of the int8 output."""
    if kind not in ACTIVATIONS:
        raise ValueError(f"fused activation {kind} is not supported; supported: {', '.join(ACTIVATIONS)}")
    low, high = ACTIVATIONS[kind]
    scale, zero = np.float32(y.scales[0]), y.zeros[0]
    lo = -128 if low == -inf else max(-128, zero + round_away(float(np.float32(low) / scale)))
    hi = 127 if high == inf else min(127, zero + round_away(float(np.float32(high) / scale)))
    return lo, hi


def high_mul(a: int, b: int) -> int:
    """SaturatingRoundingDoublingHighMul; both are never -2**31 here."""
    return (a * b + (1 << 30)) >> 31


def rounding_shift(x: int, shift: int) -> int:
    """RoundingDivideByPOT: half away from zero."""
    return (x + (1 << (shift - 1)) - (x < 0)) >> shift if shift else x


def scaled_twice(x: int, multiplier: int, shift: int) -> int:
    """MultiplyByQuantizedMultiplier with both roundings."""
    return rounding_shift(high_mul(x << max(-shift, 0), multiplier), max(shift, 0))


def exp_small(a: int) -> int:
    """exp of a in [-1/4, 0), both with 31 fraction bits: a Taylor polynomial around -1/8."""
    x = a + (1 << 28)
    x2 = high_mul(x, x)
    x3, x4 = high_mul(x2, x), high_mul(x2, x2)
    inner = high_mul(rounding_shift(x4, 2) + x3, THIRD) + x2
    return EXP_EIGHTH + high_mul(EXP_EIGHTH, x + rounding_shift(inner, 1))


def exp_negative(a: int) -> int:
    """exp of a <= 0 with 26 fraction bits, the result with 31."""
    if a == 0:
        return (1 << 31) - 1
    quarter = 1 << 24
    part = (a & (quarter - 1)) - quarter
    result, rest = exp_small(part << DIFF_BITS), part - a
    for k, factor in enumerate(EXP_POWERS):
        if rest & (quarter << k):
            result = high_mul(result, factor)
    return result


def softmax_table(beta: float, scale: float) -> npt.NDArray[np.int32]:
    """exp(-k * beta * scale) for k = 0, 1, ... as the reference kernel computes it, up to the first k it leaves out."""
    real = min(beta * scale * (1 << (31 - DIFF_BITS)), 2.0**31 - 1)
    multiplier, shift = quantize_multiplier(real)
    left = -shift
    if not 0 < left <= 31:
        raise ValueError(f"its input scale {scale:g} is out of range")
    radius = floor(((1 << DIFF_BITS) - 1) * 2.0 ** (31 - DIFF_BITS) / 2.0**left)
    values = [exp_negative(high_mul(-k << left, multiplier)) for k in range(min(radius, 255) + 1)]
    return np.array(values if len(values) == 256 else [*values, 0], np.int32)


def float_table(function: Callable[[Floats], Floats], x: TfTensor, y: TfTensor) -> npt.NDArray[np.int64]:
    """A function's 256 levels as the kernels compute them before they run: in float32, half away from zero."""
    real = np.float32(x.scales[0]) * (np.arange(-128, 128, dtype=np.float32) - np.float32(x.zeros[0]))
    scaled = function(real).astype(np.float32) * (np.float32(1) / np.float32(y.scales[0]))
    rounded = np.trunc(scaled + np.copysign(np.float32(0.5), scaled))
    levels: npt.NDArray[np.int64] = np.clip(rounded + np.float32(y.zeros[0]), -128, 127).astype(np.int64)
    return levels


def mean_factor(x: TfTensor, y: TfTensor, count: int) -> tuple[int, int]:
    """Multiplier and shift, as Requantize takes them, of a mean over `count` elements: 1/count is divided into the
    rounded multiplier, which is first shifted by as many bits as count has."""
    multiplier, shift = quantize_multiplier(float(x.scales[0]) / float(y.scales[0]))
    bits = min(count.bit_length() - 1, 32, 31 - shift)
    multiplier, shift = (multiplier << bits) // count, 31 + shift + bits
    if not 1 <= shift <= 62:
        raise ValueError(f"its scale ratio {x.scales[0] / y.scales[0]:g} is out of range")
    return multiplier, shift


def same_padding(extent: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Before and after: the odd element goes after."""
    outputs = -(-extent // stride)
    total = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - extent, 0)
    return total // 2, total - total // 2
