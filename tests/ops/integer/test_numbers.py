"""The arithmetic of quantisation: scales of weights, ratios as integers, proofs of accumulators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.ops.integer.numbers import (
    INT32_MAX,
    Refusal,
    Scale,
    asymmetric,
    bounds,
    fixed_point,
    least_error_scale,
    quantize_weights,
    ratio,
)


@given(limit=st.sampled_from((7, 1)), seed=st.integers(0, 99), heavy=st.booleans())
def test_no_share_of_the_largest_weight_does_better(limit: int, seed: int, heavy: bool) -> None:
    rng = np.random.default_rng(seed)
    w = rng.standard_t(3, (50, 4)) if heavy else rng.normal(size=(50, 4))
    scale = least_error_scale(w, limit)

    def error(s: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        q = np.clip(np.floor(w / s + 0.5), -limit, limit)
        return ((w - q * s) ** 2).sum(0)

    for share in (1.0, 0.8, 0.6, 0.4, 0.25):
        assert (error(scale) <= error(np.abs(w).max(0) * share / limit) + 1e-9).all()


def test_integers_of_few_bits_are_symmetric() -> None:
    w = np.random.default_rng(0).normal(size=(30, 5))
    for bits, limit in ((4, 7), (2, 1)):
        q = quantize_weights(w, np.zeros(5), Scale(0.1, 3), (-128, 127), bits).w
        assert (q.min(), q.max()) == (-limit, limit)


@given(lo=st.floats(-1e6, 0), hi=st.floats(0, 1e6))
def test_zero_is_a_level_of_every_range(lo: float, hi: float) -> None:
    scale = asymmetric(lo, hi)
    assert -128 <= scale.zero <= 127
    assert scale.quantized(0.0) == scale.zero
    for end in (lo, hi):
        assert abs((scale.quantized(end) - scale.zero) * scale.scale - end) <= scale.scale


@given(value=st.floats(2.0**-30, 2.0**29))
def test_a_ratio_has_31_bits_and_a_fixed_point_the_bits_asked_for(value: float) -> None:
    (multiplier,), (shift,) = ratio(np.array([value]))
    assert 2**30 <= multiplier <= 2**31 - 1
    assert multiplier / 2.0**shift == pytest.approx(value, rel=2.0**-31)
    if value < 2.0**13:
        (q,), places = fixed_point(np.array([value]), 15)
        assert q < 2**15
        assert q / 2.0**places == pytest.approx(value, rel=2.0**-14, abs=2.0**-31)


def test_what_leaves_its_range_is_refused() -> None:
    with pytest.raises(Refusal, match=r"its scale ratio 2\.14748e\+09 is out of range"):
        ratio(np.array([2.0**31]))
    with pytest.raises(Refusal, match=f"above int32's {INT32_MAX}"):
        bounds(np.full((1 << 10, 1), 127), np.zeros(1, np.int64), (-(2**15), 2**15 - 1))
