"""Integer forms of the per-window scaler: exact sums in 64 bits, an integer square root, one reciprocal per window.

With x in units of s, L values a window and h fraction bits:

    S = sum x,  N = (L sum x^2 - S^2) 4^h + E,  E = eps L^2 4^h / s^2      loc = S s / L,  scale = sqrt(N) s / (L 2^h)
    (x - loc) / scale = (L x - S) 2^h / sqrt(N)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops.base import Kernel, Op, Site, need
from edgec.ops.lowering.loops import around, statistics_shape
from edgec.ops.relations.axes import along

#: windows longer than this would not leave room in 64 bits
LONGEST = 1 << 13
#: halvings of the normalisation: N is shifted left by 2 k, k = 0..31, into [2^60, 2^62)
STEPS = (16, 8, 4, 2, 1)


def fraction_bits(length: int) -> int:
    """h, as large as N < 2^62 allows: L sum x^2 - S^2 <= L^2 2^30 for int16."""
    return 15 - (length - 1).bit_length()


def clamp_text(value: str, dtype: str) -> str:
    """TVMScript for an int64 saturated to an integer type."""
    lo, hi = DType(dtype).range
    return f'T.cast(T.max(T.min({value}, T.int64({hi})), T.int64({lo})), "{dtype}")'


@dataclass(frozen=True)
class QStdScale(Op):
    """x int16 [.., L, ..] -> y in its own scale, loc int32 (the sum), scale int32 (sqrt(N)), both [.., 1, ..].

    y = clamp((D R + 2^(t-1)) >> t) with D = L x - S, r = floor(sqrt(N 4^k)) of 31 bits, R = floor(factor 2^31 / r),
    t = shift + 31 - k; factor / 2^shift is 2^h over the scale of y. `eps` is E, at least 1.
    """

    name: ClassVar[str] = "qstd_scale"
    examples: ClassVar[tuple[str, ...]] = ("int16[2,5,3]",)
    axis: int = 1
    dtype: str = "int16"
    scale: float = 1.0
    eps: int = 1
    factor: int = 1 << 30
    shift: int = 30

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(x.dtype is DType.I16, f"expected int16, found {x.dtype.value}")
        need(0 <= self.axis < len(x.shape), f"axis {self.axis} is not an axis of {x.shape}")
        length = x.shape[self.axis]
        need(length <= LONGEST, f"a window of {length} values, expected at most {LONGEST}")
        need(1 <= self.eps <= 1 << 60, f"expected eps in [1, 2^60], found {self.eps}")
        need(1 << 30 <= self.factor < 1 << 31, f"expected a factor of 31 bits, found {self.factor}")
        need(self.least_shift() >= 1 and self.shift <= 31, f"shift {self.shift} is out of range")
        unit = None if x.quant is None else x.quant.scale[0] / length
        time = None if x.time_axis == self.axis else x.time_axis

        def stats(bits: int) -> TensorType:
            quant = None if unit is None else QuantParams((unit / (1 << bits),))
            return TensorType(statistics_shape(x.shape, self.axis), DType.I32, quant, time)

        y = replace(x, dtype=DType(self.dtype), quant=QuantParams((self.scale,)))
        return y, stats(0), stats(fraction_bits(length))

    def least_shift(self) -> int:
        """The smallest t: of a constant window, whose N is eps."""
        return self.shift + 31 - (62 - self.eps.bit_length()) // 2

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        return (
            f"{along(rank, self.axis, 'i')}->{along(rank, self.axis)},{along(rank, self.axis)},{along(rank, self.axis)}"
        )

    def reference(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        (x,) = tensors
        length = x.shape[self.axis]
        total = x.sum(self.axis, keepdim=True)
        spread = length * (x * x).sum(self.axis, keepdim=True) - total * total
        n = (spread << (2 * fraction_bits(length))) + self.eps
        k = torch.zeros_like(n)
        for step in STEPS:
            small = n < (1 << (62 - 2 * step))
            n, k = torch.where(small, n << (2 * step), n), k + step * small
        root = torch.zeros_like(n)
        for bit in range(30, -1, -1):
            trial = root | (1 << bit)
            root = torch.where(trial * trial <= n, trial, root)
        inverse = torch.div(torch.full_like(root, self.factor << 31), root, rounding_mode="floor")
        t = self.shift + 31 - k
        lo, hi = DType(self.dtype).range
        y = (((length * x - total) * inverse + (1 << (t - 1))) >> t).clamp(lo, hi)
        return y, total, (root + ((1 << k) >> 1)) >> k

    def lower(self, site: Site) -> Kernel:
        outer, length, inner = around(site.inputs[0].shape, self.axis)
        y = clamp_text("T.shift_right(part, t[0])", self.dtype)
        sqrt_and_divide = "\n".join("    " + line for line in _root_lines(self.factor))
        body = f"""for r, i in T.grid({outer}, {inner}):
    total = T.alloc_buffer((1,), "int64")
    n = T.alloc_buffer((1,), "int64")
    t = T.alloc_buffer((1,), "int64")
    root = T.alloc_buffer((1,), "int64")
    rest = T.alloc_buffer((1,), "int64")
    inverse = T.alloc_buffer((1,), "int64")
    total[0] = T.int64(0)
    n[0] = T.int64(0)
    for k in T.serial({length}):
        total[0] = total[0] + T.cast(x[r, k, i], "int64")
        n[0] = n[0] + T.cast(T.cast(x[r, k, i], "int32") * T.cast(x[r, k, i], "int32"), "int64")
    n[0] = n[0] * T.int64({length}) - total[0] * total[0]
    n[0] = n[0] * T.int64({1 << (2 * fraction_bits(length))}) + T.int64({self.eps})
{sqrt_and_divide}
    loc[r, i] = T.cast(total[0], "int32")
    scale[r, i] = T.cast(T.shift_right(root[0] + T.shift_right(T.shift_left(T.int64(1), t[0]), T.int64(1)), t[0]), \
"int32")
    t[0] = T.int64({self.shift + 31}) - t[0]
    for k in T.serial({length}):
        away: T.let[T.int64] = T.cast(x[r, k, i], "int64") * T.int64({length}) - total[0]
        part: T.let[T.int64] = away * inverse[0] + T.shift_left(T.int64(1), t[0] - T.int64(1))
        y[r, k, i] = {y}"""
        full, stats = (outer, length, inner), (outer, inner)
        params = (("x", full, "int16"), ("y", full, self.dtype), ("loc", stats, "int32"), ("scale", stats, "int32"))
        return Kernel(body, params)


def _root_lines(factor: int) -> list[str]:
    """TVMScript: n normalised by 2 t bits, root = floor(sqrt(n)), inverse = floor(factor 2^31 / root), bit by bit."""
    return f"""t[0] = T.int64(0)
for j in T.serial({len(STEPS)}):
    step: T.let[T.int64] = T.shift_right(T.int64({STEPS[0]}), T.cast(j, "int64"))
    if n[0] < T.shift_left(T.int64(1), T.int64(62) - step - step):
        n[0] = T.shift_left(n[0], step + step)
        t[0] = t[0] + step
root[0] = T.int64(0)
for j in T.serial(31):
    trial: T.let[T.int64] = root[0] + T.shift_left(T.int64(1), T.int64(30) - T.cast(j, "int64"))
    if trial * trial <= n[0]:
        root[0] = trial
inverse[0] = T.int64(0)
rest[0] = T.int64({factor})
for j in T.serial(32):
    inverse[0] = inverse[0] + inverse[0]
    if rest[0] >= root[0]:
        rest[0] = rest[0] - root[0]
        inverse[0] = inverse[0] + T.int64(1)
    rest[0] = rest[0] + rest[0]""".splitlines()


@dataclass(frozen=True)
class QStdUnscale(Op):
    """A forecast back in the sensor's integers: clamp((x scale multiplier + loc mean + 2^(shift-1)) >> shift).

    x int8 or int16 [.., H, ..], loc and scale int32 [.., 1, ..] as `qstd_scale` gives them -> int16 in the scale of its
    input. multiplier / 2^shift is the scale of x over L 2^h; mean / 2^shift is 1 / L.
    """

    name: ClassVar[str] = "qstd_unscale"
    examples: ClassVar[tuple[str, ...]] = ("int8[2,5,3], int32[2,1,3], int32[2,1,3]",)
    inplace: ClassVar[tuple[int, ...]] = (0,)
    axis: int = 1
    scale: float = 1.0
    multiplier: int = 1
    mean: int = 1
    shift: int = 1

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, loc, scale = types
        expected = statistics_shape(x.shape, self.axis)
        fits = loc.shape == scale.shape == expected and loc.dtype is scale.dtype is DType.I32
        need(fits, f"expected loc and scale int32 {expected}, found {loc.shape}, {scale.shape}")
        need(x.dtype in (DType.I8, DType.I16), f"expected int8 or int16, found {x.dtype.value}")
        need(0 <= self.multiplier < 1 << 15, f"expected a multiplier of 15 bits, found {self.multiplier}")
        need(1 <= self.shift <= 46, f"shift {self.shift} is out of range")
        return (replace(x, dtype=DType.I16, quant=QuantParams((self.scale,))),)

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        x, statistics = along(rank, self.axis), along(rank, self.axis, "i")
        return f"{x},{statistics},{statistics}->{x}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, loc, scale = tensors
        lo, hi = DType.I16.range
        total = x * scale * self.multiplier + loc * self.mean + (1 << (self.shift - 1))
        return (total >> self.shift).clamp(lo, hi)

    def lower(self, site: Site) -> Kernel:
        outer, n, inner = around(site.inputs[0].shape, self.axis)
        wide = 'T.cast({}, "int64")'.format
        body = f"""for r, k, i in T.grid({outer}, {n}, {inner}):
    part: T.let[T.int64] = {wide("x[r, k, i]")} * {wide("scale[r, i]")} * T.int64({self.multiplier})
    moved: T.let[T.int64] = part + {wide("loc[r, i]")} * T.int64({self.mean}) + T.int64({1 << (self.shift - 1)})
    y[r, k, i] = {clamp_text(f"T.shift_right(moved, T.int64({self.shift}))", "int16")}"""
        full, stats = (outer, n, inner), (outer, inner)
        params = (("x", full, site.inputs[0].dtype.value), ("loc", stats, "int32"), ("scale", stats, "int32"))
        return Kernel(body, (*params, ("y", full, "int16")))
