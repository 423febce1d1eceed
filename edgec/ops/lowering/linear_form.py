"""A level of two int8 operands with one rounding instead of several: proven by trying every pair of operands."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from edgec.ops.base import Array

LEVELS = np.arange(-128, 128, dtype=np.int64)
NEAR = sorted(itertools.product(range(-3, 4), repeat=2), key=lambda d: abs(d[0]) + abs(d[1]))
INT32 = 1 << 31


@dataclass(frozen=True)
class LinearForm:
    """clamp((a * fa + b * fb + constant) >> shift), all within int32 for a and b of int8."""

    fa: int
    fb: int
    constant: int
    shift: int


def linear_form(levels: Array, slopes: tuple[float, float], constant: float, lo: int, hi: int) -> LinearForm | None:
    """The form that gives `levels` [a, b], within [lo, hi], for all 65,536 pairs of operands; None if none is found.

    slopes, constant: about what a level rises by with each operand, and what it is at 0, 0. Several roundings differ
    from one only very near its steps, where no pair need lie: integer factors near the slopes are tried.
    """
    reach = 128 * (abs(slopes[0]) + abs(slopes[1])) + abs(constant) + 1
    shift = int(np.floor(31 - np.log2(reach)))
    for da, db in NEAR:
        fa, fb = (round(s * 2.0**shift) + d for s, d in zip(slopes, (da, db), strict=True))
        sums = LEVELS[:, None] * fa + LEVELS * fb
        least = ((levels << shift) - sums)[levels > lo].max(initial=-INT32)
        most = (((levels + 1) << shift) - 1 - sums)[levels < hi].min(initial=INT32 - 1)
        middle = int(least + most) // 2
        if least <= most and max(abs(v).max() for v in (sums + middle, LEVELS * fa + middle, sums)) < INT32:
            return LinearForm(fa, fb, middle, shift)
    return None
