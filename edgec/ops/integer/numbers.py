"""The arithmetic of quantisation: scales, fixed-point ratios, quantised weights, proofs that nothing overflows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.ir.types import QuantParams
from edgec.ops.integer.requantize import accumulator_bounds

Array = npt.NDArray[Any]

INT32_MAX = 2**31 - 1
#: room for a bias, so that a bias and a full accumulator together stay below 2**31
BIAS_LIMIT = 2**29


class Refusal(Exception):
    """A node cannot become integer; the message is the reason, `hint` the next step."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.hint = hint


@dataclass(frozen=True)
class Scale:
    """One scale and zero point for a whole tensor: real = scale * (q - zero).

    rounding `even` is that of a file's grids: integers are the nearest, half to even, and ratios of scales float32;
    `single` rounds half up, of the bits that are cheapest to compute with.
    """

    scale: float
    zero: int = 0
    rounding: str = "single"

    @property
    def exact(self) -> bool:
        """Whether an integer of this scale must be the nearest one."""
        return self.rounding == "even"

    def levels(self, reals: Array, lo: int = -128, hi: int = 127) -> Array:
        """The integers nearest to real values (infinite ones too), clamped."""
        if self.exact:
            nearest = np.rint(reals.astype(np.float32) / np.float32(self.scale))
        else:
            nearest = np.floor(reals / self.scale + 0.5)
        return np.asarray(np.clip(nearest + self.zero, lo, hi))

    def quantized(self, real: float, lo: int = -128, hi: int = 127) -> int:
        """The integer nearest to a real value."""
        return int(self.levels(np.asarray(real), lo, hi))

    def of(self, scale: Array) -> Array:
        """Other scales in units of this one."""
        if self.exact:
            return np.asarray(scale.astype(np.float32) / np.float32(self.scale), np.float64)
        return np.asarray(scale / self.scale)


def asymmetric(lo: float, hi: float, levels: int = 256) -> Scale:
    """int8 (or `levels` integers around 0) over [lo, hi], which holds 0; 0 is exactly representable."""
    if hi - lo < 1e-30:
        return Scale(1.0)
    scale, least = (hi - lo) / (levels - 1), -levels // 2
    return Scale(scale, int(np.clip(np.floor(least - lo / scale + 0.5), least, -least - 1)))


def symmetric(reach: float, limit: int) -> Scale:
    """Integers up to `limit` over [-reach, reach]."""
    return Scale(reach / limit if reach > 1e-30 else 1.0)


def ratio(values: Array) -> tuple[Array, Array]:
    """multiplier and shift (int32) with values = multiplier / 2**shift, as Requantize takes them.

    values >= 0; multiplier 0 or in [2**30, 2**31), shift in [1, 62]. Refusal for values of 2**30 and up.
    """
    mantissa, exponent = np.frexp(values.astype(np.float64))
    multiplier = np.floor(mantissa * 2.0**31 + 0.5)
    over = multiplier == 2.0**31
    multiplier, exponent = np.where(over, 2.0**30, multiplier), exponent + over
    shift = 31 - exponent
    if (values < 0).any() or (shift < 1).any():
        raise Refusal(f"its scale ratio {float(values.max()):g} is out of range")
    vanishes = (shift > 62) | (values == 0)
    multiplier, shift = np.where(vanishes, 0, multiplier), np.where(vanishes, 31, shift)
    return multiplier.astype(np.int32), shift.astype(np.int32)


@dataclass(frozen=True)
class Weights:
    """Integer weights [..., O] with a scale per output channel, their int32 bias, and the accumulator's proven bounds.

    `rest` is the part of the real bias that rounding left out, at most half an accumulator unit.
    """

    w: Array
    scale: Array
    bias: Array
    rest: Array
    lo: Array
    hi: Array


#: largest weight by bits: symmetric
LIMITS = {8: 127, 4: 7, 2: 1}
#: shares of a channel's largest weight that its largest integer may stand for
SHARES = np.linspace(1.0, 0.15, 86)


def least_error_scale(w: Array, limit: int) -> Array:
    """The scale of each column of w [inputs, outputs] whose integers up to `limit` have the least square error.

    For every share of the largest weight the integers are rounded, then the scale that fits them best is taken.
    """
    top = np.abs(w).max(0, initial=0.0)
    best: Array = top / limit
    error = np.full(top.shape, np.inf)
    for share in SHARES:
        tried = np.maximum(top * share / limit, 1e-30)
        q = np.clip(np.floor(w / tried + 0.5), -limit, limit)
        tried = np.where((q * q).sum(0) > 0, (w * q).sum(0) / np.maximum((q * q).sum(0), 1.0), tried)
        tried = np.maximum(tried, 1e-30)
        q = np.clip(np.floor(w / tried + 0.5), -limit, limit)
        found = ((w - q * tried) ** 2).sum(0)
        best, error = np.where(found < error, tried, best), np.minimum(found, error)
    return best


#: int8 inputs: least part of an output's step that an accumulator's unit is, and the largest bias in those units
LEAST_PART, SMALL_BIAS = 2.0**-16, 2**22


def quantize_weights(
    w: Array, bias: Array, x: Scale, x_range: tuple[int, int], bits: int = 8, step: float = 0.0
) -> Weights:
    """Weights [..., O] and a float bias [O] for an input of the given scale and integer range.

    8 bits hold every weight of a channel, fewer cut some off where that lessens the error. With `step`, that of an
    int8 output, a nearly dead channel has coarser weights, so that its accumulators stay in the 24 bits of fast
    kernels: for an input their rounding is at most 1/500 of that step, 1/128 where the bias fills the output's range.

    The zero point of the input is folded into the bias: acc = sum w (x - zero) + bias. Refusal if an accumulator, any
    partial sum included, could leave int32.
    """
    flat = w.astype(np.float64).reshape(-1, w.shape[-1])
    b = bias.astype(np.float64)
    limit = LIMITS[bits]
    scale = np.abs(flat).max(0, initial=0.0) / limit if bits == 8 else least_error_scale(flat, limit)
    scale = np.maximum(scale, np.abs(b) / (x.scale * BIAS_LIMIT))  # a channel that is almost only its bias
    if step:
        scale = np.maximum(scale, np.maximum(np.abs(b) / SMALL_BIAS, step * LEAST_PART) / x.scale)
    scale = np.where(scale < 1e-30, 1.0, scale)
    q = np.clip(np.floor(flat / scale + 0.5), -limit, limit).astype(np.int64)
    rounded = np.floor(b / (scale * x.scale) + 0.5).astype(np.int64)
    total = rounded - x.zero * q.sum(0)
    lo, hi = bounds(q, total, x_range)
    return Weights(
        q.astype(np.int8).reshape(w.shape), scale, total.astype(np.int32), b - rounded * scale * x.scale, lo, hi
    )


def given_weights(
    w: Array, grid: QuantParams, bias: Array, bias_grid: QuantParams | None, x: Scale, x_range: tuple[int, int]
) -> Weights:
    """Weights [..., O] on a grid of int8, as its integers. A bias on the grid of the accumulators is its integers too,
    any other is rounded to them."""
    if grid.axis not in (None, w.ndim - 1):
        raise Refusal("its weights have scales along another axis than that of its outputs")
    scale = np.broadcast_to(np.asarray(grid.scale), w.shape[-1:])
    q = np.rint(w / scale).astype(np.int64)
    if q.min(initial=0) < -128 or q.max(initial=0) > 127:
        hint = "quantise them without one: weight_type=QuantType.QInt8 of onnxruntime's quantize_static"
        raise Refusal("its weights less their zero point do not fit int8", hint)
    unit = (np.float32(x.scale) * scale.astype(np.float32)).astype(np.float64)
    own = bias_grid is not None and np.allclose(bias_grid.scale, unit, rtol=1e-5, atol=0)
    rounded = np.rint(bias / (np.asarray(bias_grid.scale) if own and bias_grid else unit))
    total = rounded.astype(np.int64) - x.zero * q.reshape(-1, scale.size).sum(0)
    lo, hi = bounds(q, total, x_range)
    return Weights(q.astype(np.int8), scale, total.astype(np.int32), np.zeros(1), lo, hi)


def bounds(q: Array, bias: Array, x_range: tuple[int, int]) -> tuple[Array, Array]:
    """Smallest and largest accumulator per channel (last axis of q), partial sums included; Refusal beyond int32."""
    lo, hi = accumulator_bounds(q, bias, x_range)
    worst = int(max(np.abs(lo).max(initial=0), np.abs(hi).max(initial=0)))
    if worst > INT32_MAX:
        raise Refusal(
            f"its accumulator can reach {worst}, above int32's {INT32_MAX}",
            "fewer inputs per output, or int8 instead of int16 activations",
        )
    return lo, hi


def fixed_point(values: Array, bits: int) -> tuple[Array, int]:
    """Integers below 2**bits and one shift with values = integers / 2**shift; the largest value has all the bits."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0:
        return np.zeros(values.shape, np.int64), 1
    shift = int(bits - 1 - np.floor(np.log2(largest)))
    if np.floor(largest * 2.0**shift + 0.5) >= 2**bits:
        shift -= 1
    shift = min(shift, 30)
    if shift < 1:
        raise Refusal(f"its scale ratio {largest:g} is out of range")
    return np.floor(values * 2.0**shift + 0.5).astype(np.int64), shift


def nearest_point(values: Array, top: float) -> tuple[Array, int]:
    """As `fixed_point`, with all the bits that sums of up to `top` levels of the result leave in int32."""
    shift = min(int(np.floor(31 - np.log2(max(top, 2.0**-30)) - 1e-9)), 24)
    if shift < 1:
        raise Refusal("its output scale is too fine for its inputs")
    return np.rint(values * 2.0**shift).astype(np.int64), shift
