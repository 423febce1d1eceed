"""Packed weights and the bounds that make their arithmetic exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgec.errors import CodegenError
from edgec.ir.types import DType, TensorType
from edgec.kernels import select
from edgec.kernels.cortex_m.dense import RAISED_MARK, SUM_LIMIT, chunks_of, pack_dense, requantize_table
from edgec.kernels.cortex_m.rows import roundings_of, table_of
from edgec.kernels.event import BLOCK, blocks_of, pack_rows, segment_length
from edgec.ops import OPS
from edgec.ops.base import Op, Site
from edgec.ops.integer.linear import QLinear
from edgec.ops.integer.requantize import Requantize, accumulator_bounds

WEIGHTS = hnp.arrays(np.int8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(-127, 127))


@given(w=WEIGHTS, seed=st.integers(0, 99))
def test_bounds_hold_for_every_partial_sum(w: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bias, x = rng.integers(-1000, 1000, w.shape[1]), rng.integers(-128, 128, w.shape[0])
    low, high = accumulator_bounds(w, bias, (-128, 127))
    sums = bias + np.cumsum(x[:, None] * w.astype(np.int64), axis=0)
    assert (sums >= low).all()
    assert (sums <= high).all()


def test_bounds_are_reached() -> None:
    low, high = accumulator_bounds(np.array([[3, -2], [-1, 4]], np.int8), np.array([10, 0]), (0, 1))
    assert (low.tolist(), high.tolist()) == ([9, -2], [13, 4])


def test_bounds_along_another_axis() -> None:
    w = np.arange(24, dtype=np.int8).reshape(2, 3, 4)
    low, high = accumulator_bounds(w, np.zeros(3), (-1, 2), axis=1)
    assert high.tolist() == [2 * w[:, k].sum() for k in range(3)]
    assert low.tolist() == [-w[:, k].sum() for k in range(3)]


@settings(max_examples=50)
@given(rows=st.integers(1, 900), low=st.integers(-128, 127), high=st.integers(-128, 127), seed=st.integers(0, 99))
def test_no_choice_of_rows_of_a_segment_overflows(rows: int, low: int, high: int, seed: int) -> None:
    w = np.random.default_rng(seed).integers(min(low, high), max(low, high) + 1, (rows, 3)).astype(np.int8)
    n = segment_length(w)
    assert n >= min(rows, 256)
    wide = np.sort(w.astype(np.int64), axis=0)
    worst = np.minimum(wide[:n], 0).sum(0).min(), np.maximum(wide[-n:], 0).sum(0).max()
    assert worst[0] >= -32768
    assert worst[1] <= 32767


@given(w=WEIGHTS)
def test_rows_are_packed_in_blocks_of_sixteen(w: np.ndarray) -> None:
    rows, outputs = w.shape
    octets = pack_rows(w, 0).view(np.int8)
    large, small = blocks_of(outputs)
    assert octets.size == rows * (16 * large + 4 * small)
    for o in range(outputs):
        block, start = (o // BLOCK, 0) if o < large * BLOCK else (0, large * BLOCK * rows)
        width = BLOCK if o < large * BLOCK else 4
        column = octets[start + block * rows * width :][: rows * width].reshape(rows, width)[:, o % width]
        assert (column == w[:, o]).all()
    assert ((pack_rows(w, 128).view(np.uint8).astype(int) - 128) == octets).all()


@given(w=WEIGHTS)
def test_dense_words_hold_two_outputs(w: np.ndarray) -> None:
    lanes = pack_dense(w).view(np.int16).astype(np.int64)
    low = (lanes & 0xFF) - ((lanes & 0x80) << 1)
    assert np.abs((lanes - low) // 256).sum() + np.abs(low).sum() == np.abs(w.astype(np.int64)).sum()


def test_chunks_stay_below_the_limit() -> None:
    w = np.full((1500, 3), 127, np.int8)
    chunks = chunks_of(w)
    assert [c.start for c in chunks] == [0, *[c.stop for c in chunks[:-1]]]
    assert chunks[-1].stop == 1500
    for c in chunks:
        assert np.abs(w[c.start : c.stop].astype(np.int64)).sum(0).max() * 128 < SUM_LIMIT
    assert chunks_of(w[:120])[0].stop == 120


def test_ratios_of_channels_may_lie_far_apart() -> None:
    """Where a shift below 33 stands beside one above 36, a mark says which sums are raised by 8 bits."""
    op, multiplier = Requantize("int16", 1.0, 5, -32768, 32767), np.full(2, 1 << 30)
    for shifts, suffix, tops in (
        ((33, 40), "", [1, 8]), ((25, 36), "_raised", [1, 12]), ((32, 37), "_mixed", [8 + RAISED_MARK, 5]),
    ):  # fmt: skip
        found = requantize_table(op, multiplier, np.array(shifts))
        assert found is not None
        assert (found[0], found[1][:, 2].tolist()) == (suffix, tops)
    assert requantize_table(op, multiplier, np.array([24, 40])) is None


def site(dtype: DType, c: int, o: int, consts: bool = True) -> Site:
    types = TensorType((1, 1, c), dtype, None, 1), TensorType((c, o), DType.I8), TensorType((o,), DType.I32)
    values = {1: np.ones((c, o), np.int8), 2: np.zeros(o, np.int32)} if consts else {}
    return Site(types, QLinear().infer(types), (), values)


@pytest.mark.parametrize(
    ("isa", "dtype", "variant"),
    [
        (("arm_dsp", "generic"), DType.BIT, "event_dsp"), (("arm_dsp", "generic"), DType.I8, "dense_dsp"),
        (("generic",), DType.BIT, "event"), (("generic",), DType.I8, "dense"), (("cuda",), DType.BIT, "generic"),
        (("helium", "arm_dsp", "generic"), DType.BIT, "event_dsp"), ((), DType.BIT, "generic"),
    ],
)  # fmt: skip
def test_select_tries_the_sets_in_order(isa: tuple[str, ...], dtype: DType, variant: str) -> None:
    assert select(QLinear(), site(dtype, 64, 16), isa)[0] == variant


def test_select_falls_back_without_constants() -> None:
    assert select(QLinear(), site(DType.BIT, 64, 16, consts=False), ("arm_dsp",))[0] == "generic"


def test_select_names_an_op_without_kernel() -> None:
    class Nothing(Op):
        name = "nothing"

    with pytest.raises(CodegenError, match="nothing has no kernel for the instruction sets arm_dsp, generic"):
        select(Nothing(), site(DType.BIT, 8, 8), ("arm_dsp", "generic"))
    assert OPS["qlinear"].lower is not None


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1 << 30, (1 << 31) - 1) | st.just(1 << 30), st.integers(31, 46), st.integers(-128, 127),
    st.integers(0, 40), st.integers(2, 8),
)  # fmt: skip
def test_tflites_rounding_above_the_zero_point_is_one(m: int, s: int, zero: int, above: int, lift: int) -> None:
    """Of every sum near a step, and of those between: the table's level is the op's, clamped as kernels clamp it."""
    op = Requantize("int8", 1.0, zero, min(zero + above, 127), 127, "tflite")
    assert roundings_of(op) == ("up", "tflite")
    steps = np.round((np.arange(-3, 257) + 0.5) * 2.0**s / m).astype(np.int64)
    sums = np.unique(np.clip((steps[:, None] + np.arange(-3, 4)).reshape(-1), -(1 << 23) + 1, (1 << 23) - 1))
    same, flat = [np.array([m]), np.array([s])], np.array([zero])
    table = table_of(op, "up", same, np.array([lift]), flat, np.array([False]))
    if table is None:
        assert s + lift - 32 > 31 or abs(zero) << s + lift - 32 > 1 << 29
        return
    multiplier, addend, shift = table[0].astype(np.int64)
    found = ((((sums << lift) * multiplier >> 32) + addend) >> shift).clip(op.lo, op.hi)
    assert np.array_equal(found, op.levels(sums, *same))
