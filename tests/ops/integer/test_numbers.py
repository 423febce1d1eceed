"""The arithmetic of quantisation: scales of weights, ratios as integers, proofs of accumulators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.ir.types import QuantParams
from edgec.ops.integer.numbers import (
    INT32_MAX,
    Refusal,
    Scale,
    asymmetric,
    bounds,
    fixed_point,
    given_weights,
    least_error_scale,
    nearest_point,
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


def test_levels_of_a_file_are_half_to_even_and_others_half_up() -> None:
    ties = np.arange(-6, 6) + 0.5
    assert Scale(1.0, 2, "even").levels(ties).tolist() == (np.rint(ties) + 2).tolist()
    assert Scale(1.0, 2).levels(ties).tolist() == (np.floor(ties + 0.5) + 2).tolist()
    for scale in (Scale(0.1, 5), Scale(0.1, 5, "even")):
        assert [scale.quantized(v) for v in (-np.inf, np.inf, 1e30)] == [-128, 127, 127]


@given(seed=st.integers(0, 99))
def test_ratios_of_a_file_are_those_of_float32(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w, y = (np.float32(10.0 ** rng.uniform(-4, 1)) for _ in range(3))
    assert Scale(float(y), 0, "even").of(np.array([float(x) * float(w)])) == float(x * w / y)


@given(factors=st.lists(st.floats(1e-3, 60), min_size=1, max_size=3), data=st.data())
def test_a_sum_of_levels_is_the_nearest_one(factors: list[float], data: st.DataObject) -> None:
    """Within the error of its bits of half a level, in int32."""
    integers, shift = nearest_point(np.array(factors), top := 256 * sum(factors) + 2)
    q = np.array([data.draw(st.integers(-255, 255)) for _ in factors])
    total = int((integers * q).sum()) + (1 << shift >> 1)
    assert abs(total) < 2**31
    exact = float((np.array(factors) * q).sum())
    assert abs((total >> shift) - exact) <= 0.5 + 255 * len(factors) * 2.0**-shift
    assert shift == 24 or top * 2.0 ** (shift + 1) > 2.0**31 * (1 - 1e-8)


def test_weights_of_a_file_keep_their_integers() -> None:
    rng, scales = np.random.default_rng(0), np.float32([0.3, 1e-6, 0.007])
    q = rng.integers(-128, 128, (4, 5, 3))
    x, bias = Scale(float(np.float32(0.02)), 7, "even"), np.array([2**30, -(2**30), 3])
    unit = tuple(map(float, np.float32(x.scale) * scales))
    grid = QuantParams(tuple(map(float, scales)), 0, 2)
    real, offsets = q * scales.astype(np.float64), bias * np.array(unit)
    found = given_weights(real, grid, offsets, QuantParams(unit, 0, 0), x, (-128, 127))
    np.testing.assert_array_equal(found.w, q)
    np.testing.assert_array_equal(found.bias, bias - 7 * q.reshape(-1, 3).sum(0))
    with pytest.raises(Refusal, match="do not fit int8"):
        given_weights(real * 2, grid, offsets, None, x, (-128, 127))
    with pytest.raises(Refusal, match="along another axis"):
        given_weights(real, QuantParams((1.0,) * 5, 0, 1), offsets, None, x, (-128, 127))


def test_what_leaves_its_range_is_refused() -> None:
    with pytest.raises(Refusal, match=r"its scale ratio 2\.14748e\+09 is out of range"):
        ratio(np.array([2.0**31]))
    with pytest.raises(Refusal, match=f"above int32's {INT32_MAX}"):
        bounds(np.full((1 << 10, 1), 127), np.zeros(1, np.int64), (-(2**15), 2**15 - 1))
