"""Integer layer norm, softmax and products of computed tensors: against exact mathematics, and their C against them."""

from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.ir.types import DType, TensorType
from edgec.ops.integer.norm import QLayerNorm, channel_maps, deviation_bits, inverse_sqrt, normalised
from edgec.ops.integer.numbers import Refusal, Scale
from edgec.ops.integer.product import QMatMul, QMul
from edgec.ops.integer.softmax import PROBABILITY, QSoftmax, exponent
from tests.passes.quantize.test_quantize_ops import run_both, typed

STORED = [DType.I8, DType.I16]


def rows(rng: np.random.Generator, dtype: DType, channels: int) -> np.ndarray:
    """Rows that lie anywhere, close together, at the ends of the type, all equal, and one element away from that."""
    lo, hi = dtype.range
    x = rng.integers(lo, hi + 1, (6, channels))
    x[1] = rng.integers(-2, 3, channels)
    x[2] = np.where(rng.random(channels) < 0.5, lo, hi)
    x[3] = hi
    x[4] = lo
    x[4, 0] = hi
    x[5] = x[5] // 256
    return x.astype(dtype.value)


def layer_norm_case(
    rng: np.random.Generator, channels: int, dtype: DType, step: float
) -> tuple[QLayerNorm, list[Any], np.ndarray]:
    """An op as the pass makes it, its operands, and the exact result for the output's scale."""
    x, gamma, beta = rows(rng, dtype, channels), rng.normal(size=channels), rng.normal(size=channels)
    target = Scale(step, -7)
    multiplier, offset, shift = channel_maps(gamma, beta, target)
    eps = 3 * channels
    op = QLayerNorm("int16", target.scale, target.zero, eps, shift, -32768, 32767)
    real = x.astype(np.float64)
    spread = np.sqrt(real.var(-1, keepdims=True) + eps / channels**2)
    exact = ((real - real.mean(-1, keepdims=True)) / spread * gamma + beta) / step + target.zero
    return op, [x, multiplier, offset], exact.clip(-32768, 32767)


@given(st.integers(0, 2**16), st.integers(1, 700), st.sampled_from(STORED), st.floats(-9, 0))
@settings(max_examples=60, deadline=None)
def test_layer_norm_rounds_the_exact_value(seed: int, channels: int, dtype: DType, log_step: float) -> None:
    op, operands, exact = layer_norm_case(np.random.default_rng(seed), channels, dtype, 2.0**log_step)
    got = op.reference(*(torch.from_numpy(v).long() for v in operands)).numpy()
    assert np.abs(got - exact).max() <= 0.52


def test_layer_norm_of_long_rows_uses_all_of_int64() -> None:
    op, operands, exact = layer_norm_case(np.random.default_rng(0), 32767, DType.I16, 2.0**-6)
    got = op.reference(*(torch.from_numpy(v).long() for v in operands)).numpy()
    assert np.abs(got - exact).max() <= 0.52


def test_inverse_square_root() -> None:
    powers = 2.0 ** np.random.default_rng(0).uniform(0, 62, 100_000)
    ends = [1, 2, 3, 4, 2**29 - 1, 2**29, 2**31 - 1, 2**31, 2**62 - 1]
    w = torch.from_numpy(np.append(powers.astype(np.int64), ends))
    m, t = normalised(w)
    assert 2**29 <= int(m.min()) <= int(m.max()) < 2**31
    assert float((m.double() * 4.0**t / w.double() - 1).abs().max()) < 2.0**-28
    assert float((inverse_sqrt(m).double() / 2.0**45 * m.double().sqrt() - 1).abs().max()) < 2.0**-27


@pytest.mark.parametrize("channels", [1, 2, 3, 64, 192, 1023])
def test_deviations_stay_within_30_bits(channels: int) -> None:
    """The row whose largest deviation is as large as can be: one element apart from all others."""
    x = torch.full((1, channels), -32768)
    x[0, 0] = 32767
    op = QLayerNorm(eps=1)
    total, n = x.sum(), op.normalise(x)
    _, t = normalised(channels * (x * x).sum() - total * total + 1)
    shift = deviation_bits(channels) - 15 - int(t)
    assert int((channels * x - total).abs().max()) * 2.0**shift <= 2**30
    assert int(n.abs().max()) < 2**31


@pytest.mark.parametrize(("channels", "dtype"), [(1, DType.I8), (97, DType.I16), (192, DType.I8), (2500, DType.I16)])
def test_layer_norm_in_c(channels: int, dtype: DType, tmp_path: Path) -> None:
    op, operands, _ = layer_norm_case(np.random.default_rng(channels), channels, dtype, 0.01)
    vec = typed((channels,), DType.I32)
    run_both(op, [typed(operands[0].shape, dtype), vec, vec], operands, tmp_path)


def test_a_gain_beyond_the_output_is_refused() -> None:
    with pytest.raises(Refusal, match=r"its gain 1e\+12 is too large for the scale 1 of its output"):
        channel_maps(np.array([1e12]), np.zeros(1), Scale(1.0))


def logits(rng: np.random.Generator, dtype: DType, classes: int) -> tuple[np.ndarray, float]:
    """Rows of every kind and a scale at which they differ by about 10."""
    if dtype is DType.I32:
        return rows(rng, DType.I16, classes).astype(np.int32) * 2**14, 2.0**-26
    return rows(rng, dtype, classes), 0.05 if dtype is DType.I8 else 3e-4


@given(st.integers(0, 2**16), st.integers(1, 700), st.sampled_from([*STORED, DType.I32]), st.floats(0.02, 50))
@settings(max_examples=60, deadline=None)
def test_softmax_is_within_two_units(seed: int, classes: int, dtype: DType, factor: float) -> None:
    x, scale = logits(np.random.default_rng(seed), dtype, classes)
    got = exponent(scale * factor).reference(torch.from_numpy(x).long()).double() * PROBABILITY
    exact = torch.softmax(torch.from_numpy(x).double() * scale * factor, -1)
    assert float((got - exact).abs().max()) < 2.0**-14


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 23.0, 1e6])
def test_softmax_at_any_scale(scale: float) -> None:
    x = torch.from_numpy(rows(np.random.default_rng(0), DType.I16, 50)).long()
    got = exponent(scale).reference(x).double() * PROBABILITY
    assert float((got - torch.softmax(x.double() * scale, -1)).abs().max()) < 2.0**-14


@pytest.mark.parametrize(("classes", "dtype"), [(1, DType.I8), (64, DType.I8), (3000, DType.I16), (65, DType.I32)])
def test_softmax_in_c(classes: int, dtype: DType, tmp_path: Path) -> None:
    x, scale = logits(np.random.default_rng(classes), dtype, classes)
    run_both(exponent(scale), [typed(x.shape, dtype)], [x], tmp_path)


@pytest.mark.parametrize(
    ("shape", "dtype", "za", "zb", "transposed"),
    [
        ((2, 3, 5, 7, 6), DType.I8, 0, 0, True),
        ((2, 3, 5, 7, 6), DType.I8, -9, 127, False),
        ((1, 1, 1, 33, 1), DType.I8, -9, 127, True),
        ((1, 2, 17, 8, 9), DType.I16, 0, 0, False),
    ],
)
def test_matmul(shape: tuple[int, ...], dtype: DType, za: int, zb: int, transposed: bool, tmp_path: Path) -> None:
    n, h, m, k, o = shape
    rng = np.random.default_rng(0)
    a = rng.integers(dtype.range[0], dtype.range[1] + 1, (n, h, m, k)).astype(dtype.value)
    b = rng.integers(-128, 128, (n, h, o, k) if transposed else (n, h, k, o)).astype(np.int8)
    op = QMatMul(transposed, za, zb)
    exact = np.matmul(a.astype(np.int64) - za, (b.swapaxes(-1, -2) if transposed else b).astype(np.int64) - zb)
    got = op.reference(torch.from_numpy(a).long(), torch.from_numpy(b).long())
    np.testing.assert_array_equal(got.numpy(), exact)
    run_both(op, [typed(a.shape, dtype), typed(b.shape, DType.I8)], [a, b], tmp_path)


PRODUCTS = [
    ((2, 3, 4), (2, 3, 4), DType.I16, DType.I16, 0, 0),
    ((2, 3, 4), (2, 3, 1), DType.I16, DType.I8, 0, 5),
    ((4,), (2, 3, 4), DType.I8, DType.I8, -128, 127),
]


@pytest.mark.parametrize(("a", "b", "ka", "kb", "za", "zb"), PRODUCTS)
def test_product(a: Any, b: Any, ka: DType, kb: DType, za: int, zb: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.integers(t.range[0], t.range[1] + 1, s).astype(t.value) for s, t in ((a, ka), (b, kb)))
    op = QMul("int16", 1.0, 3, za, zb, 1234567890, 45 if ka is DType.I16 else 33, -32768, 32767)
    run_both(op, [typed(a, ka), typed(b, kb)], [x, y], tmp_path)
    got = op.reference(torch.from_numpy(x).long(), torch.from_numpy(y).long()).numpy()
    pairs = zip(*(v.reshape(-1).tolist() for v in (*np.broadcast_arrays(x, y), got)), strict=True)
    for p, q, r in pairs:
        value = Fraction((p - za) * (q - zb) * 1234567890, 1 << op.shift)
        assert r == min(max(floor(value + Fraction(1, 2)) + 3, -32768), 32767)


@pytest.mark.parametrize(
    ("op", "types", "message"),
    [
        (QMatMul(), [(2, 3), (2, 3)], "shapes .* do not multiply"),
        (QMul(multiplier=2**31 - 1, shift=62, za=-32768, zb=32767), [(2, 3), (2, 3)], "leaves the int64 range"),
        (QMul(), [(2, 3), (4, 3)], "do not broadcast"),
        (QSoftmax(2**32 - 1, 0, 2**31 - 1), [(2, 3)], "limit 2147483647 out of range"),
        (QLayerNorm(eps=0), [(2, 3), (3,), (3,)], "eps 0 or shift 1 out of range"),
    ],
)
def test_operands_that_do_not_fit(op: Any, types: list[tuple[int, ...]], message: str) -> None:
    kinds = [DType.I16, DType.I8 if isinstance(op, QMatMul) else DType.I16, DType.I16]
    with pytest.raises(ValueError, match=message):
        op.infer([TensorType(s, k) for s, k in zip(types, kinds, strict=False)])
