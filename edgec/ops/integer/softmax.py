"""Softmax on integers with 15 fraction bits, for attention weights and gates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil, e, floor, log2
from typing import Any, ClassVar

import torch

from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops.base import Kernel, Op, Site, need
from edgec.ops.integer.requantize import rows_of

MAX_CLASSES = 1 << 15
LOGIT_LIMIT = 2**30 - 1  # the difference of two then fits int32
EXPONENT_BITS = 25  # fraction bits of an exponent to the base 2
EXPONENT_LIMIT = 30  # 2 to the minus of this is 0 with 29 fraction bits
ONE = (1 << 15) - 1
PROBABILITY = 1 / ONE  # the scale of the result
#: ONE / 2**15 times 2**-f for f in [0, 1] within 2.6e-6, by powers of f; term k with 29 + k fraction bits, so that each
#: product by f with 31 fraction bits needs only its high word; a factor common to all terms cancels
TERMS = tuple(
    round(c * 2.0 ** (14 + k) * ONE)
    for k, c in enumerate((0.99999741, -0.69303019, 0.23934105, -0.05307404, 0.00676707))
)


@dataclass(frozen=True)
class QSoftmax(Op):
    """2**-z / sum(2**-z) over the last axis as int16 with scale 1 / ONE; z is max - x in units of 1 / log2(e).

    x [..., C] int8, int16, or int32 below 2**30 in magnitude. z has 25 fraction bits: (min(max - x, limit) << left) *
    multiplier >> 32; `limit` keeps it below 63. p = 2**-z * ONE / 2**15 has 29 fraction bits, e is p in 15, rounded.
    With T the sum of p in 15 bits, n the least number with T < 2**(16 + n), D = T / 2**n rounded, R = ONE * 2**16 / D
    rounded: y = e * R / 2**(16 + n) rounded. It differs from the exact softmax of x by less than 2**-14.
    """

    name: ClassVar[str] = "qsoftmax"
    axes: ClassVar[Any] = "...i->...c"
    examples: ClassVar[tuple[str, ...]] = ("int8[2,3,4] {multiplier=4000000000,left=20,limit=900}",)
    multiplier: int = 1
    left: int = 0
    limit: int = 0

    @property
    def largest(self) -> int:
        """Bound of z."""
        return (self.limit << self.left) * self.multiplier >> 32

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(x.dtype in (DType.I8, DType.I16, DType.I32), f"expected integers, found {x.dtype.value}")
        need(x.shape[-1] <= MAX_CLASSES, f"expected at most {MAX_CLASSES} elements to a row, found {x.shape[-1]}")
        need(x.time_axis != len(x.shape) - 1, "softmax mixes frames: its axis is the time axis")
        need(0 <= self.multiplier < 1 << 32 and 0 <= self.left < 31, "multiplier or left shift out of range")
        fits = self.limit << self.left < 1 << 32 and self.largest < 63 << EXPONENT_BITS
        need(0 <= self.limit < 1 << 31 and fits, f"limit {self.limit} out of range")
        return (replace(x, dtype=DType.I16, quant=QuantParams((PROBABILITY,))),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        (x,) = tensors
        z = ((x.amax(-1, keepdim=True) - x).clamp(max=self.limit) << self.left) * self.multiplier >> 32
        whole, f = z >> EXPONENT_BITS, (z & (1 << EXPONENT_BITS) - 1) << 31 - EXPONENT_BITS
        p = torch.full_like(f, TERMS[-1])
        for term in TERMS[-2::-1]:
            p = term + (p * f >> 32)
        p = p >> whole
        e = p + (1 << 13) >> 14
        total = p.sum(-1, keepdim=True) + (1 << 13) >> 14
        n = sum((total >= 1 << 16 + k).to(torch.int64) for k in range(15))
        divisor = total + (1 << n >> 1) >> n
        reciprocal = torch.div((ONE << 16) + (divisor >> 1), divisor, rounding_mode="floor")
        return e * reciprocal + (1 << 15 + n) >> 16 + n

    def lower(self, site: Site) -> Kernel:
        """What is used twice is a buffer: TVM would compute a binding anew at each use."""
        x = site.inputs[0]
        rows, classes = rows_of(x)
        locals_ = {"top": "int32", "sum": "uint64", "bits": "int32", "z": "int32", "f": "int32", "p": "int32"}
        locals_ |= {"k": "uint32", "divisor": "uint32", "share": "uint32"}
        body = f"""for r in T.parallel({rows}):
{_lines(f'{name} = T.alloc_buffer((1,), "{kind}")' for name, kind in locals_.items())}
    top[0] = T.cast(x[r, 0], "int32")
    for c in T.serial({classes}):
        top[0] = T.max(top[0], T.cast(x[r, c], "int32"))
    sum[0] = T.uint64(0)
    for c in T.serial({classes}):
{self.term_text()}
        sum[0] = sum[0] + T.cast(T.cast(p[0], "uint32"), "uint64")
        y[r, c] = T.cast(T.shift_right(p[0] + {1 << 13}, 14), "int16")
    z[0] = T.cast(T.shift_right(sum[0] + T.uint64({1 << 13}), T.uint64(14)), "int32")
    bits[0] = 0
    for b in T.serial(15):
        if T.shift_right(z[0], bits[0] + 16) > 0:
            bits[0] = bits[0] + 1
    divisor[0] = T.cast(T.shift_right(z[0] + T.shift_right(T.shift_left(1, bits[0]), 1), bits[0]), "uint32")
    share[0] = T.truncdiv(T.uint32({ONE << 16}) + T.shift_right(divisor[0], T.uint32(1)), divisor[0])
    divisor[0] = T.shift_left(T.uint32(1), T.cast(bits[0] + 15, "uint32"))
    for c in T.serial({classes}):
        k[0] = T.cast(y[r, c], "uint32") * share[0] + divisor[0]
        y[r, c] = T.cast(T.shift_right(k[0], T.cast(bits[0] + 16, "uint32")), "int16")"""
        return Kernel(body, (("x", (rows, classes), x.dtype.value), ("y", (rows, classes), "int16")))

    def term_text(self) -> str:
        """p[0] of one element: the polynomial in f[0], the part of z[0] below 1, shifted down by the part above."""
        power = "T.cast(T.shift_right(T.cast(p[0], 'int64') * T.cast(f[0], 'int64'), T.int64(32)), 'int32')"
        product = f"T.cast(k[0], 'uint64') * T.uint64({self.multiplier})"
        whole = f"T.shift_right(z[0], T.int32({EXPONENT_BITS}))"
        if self.largest >= 32 << EXPONENT_BITS:
            whole = f"T.min({whole}, 31)"
        return _lines(
            (
                f"z[0] = T.min(top[0] - T.cast(x[r, c], 'int32'), T.int32({self.limit}))",
                f"k[0] = T.shift_left(T.cast(z[0], 'uint32'), T.uint32({self.left}))",
                f"z[0] = T.cast(T.shift_right({product}, T.uint64(32)), 'int32')",
                f"f[0] = T.shift_left(z[0] & T.int32({(1 << EXPONENT_BITS) - 1}), T.int32({31 - EXPONENT_BITS}))",
                f"p[0] = T.int32({TERMS[-1]})",
                *(f"p[0] = {power} + T.int32({term})" for term in TERMS[-2::-1]),
                f"p[0] = T.shift_right(p[0], {whole})",
            ),
            8,
        )


def _lines(lines: Iterable[str], indent: int = 4) -> str:
    """Lines of a kernel's text, indented."""
    return "\n".join(" " * indent + line for line in lines)


def exponent(scale: float) -> QSoftmax:
    """The op for logits of a scale. The multiplier has 32 bits unless the scale is below 2**-26."""
    unit = min(scale * log2(e), float(EXPONENT_LIMIT))  # beyond, every element but the largest is 0
    left = min(max(EXPONENT_BITS + 1 + floor(log2(unit)), 0), 30)
    limit = ceil(EXPONENT_LIMIT / unit)
    if limit >= 2**31:  # the product of the largest difference is still small
        limit = 2**31 - 1
    return QSoftmax(min(round(unit * 2.0 ** (EXPONENT_BITS + 32 - left)), 2**32 - 1), left, limit)
