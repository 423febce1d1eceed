"""Two int8 weights a and b in one lane of 16 bits, 256 * a + b.

The lane holds -128 as a only beside b that are not negative. Where a's sum is requantised, its sign may change.
"""

from __future__ import annotations

import numpy as np

from edgec.ops.base import Array


def signs_of(a: Array, b: Array) -> Array:
    """Per pair of outputs the sign of `a` with which every lane fits, 0 where there is none; int64 [inputs, pairs]."""
    plain, turned = ((lanes == lanes.astype(np.int16)).all(0) for lanes in (256 * a + b, -256 * a + b))
    return np.where(plain, 1, np.where(turned, -1, 0))


def terms_of(w: Array) -> list[Array]:
    """w [inputs, outputs] as a sum of weights that fit lanes with the outputs' neighbours: -128 is -127 - 1."""
    pairs = w.shape[1] // 2
    less = np.zeros_like(w)
    less[:, : 2 * pairs : 2] = -((w[:, : 2 * pairs : 2] == -128) & (w[:, 1::2] < 0)).astype(w.dtype)
    return [w - less, less] if less.any() else [w]
