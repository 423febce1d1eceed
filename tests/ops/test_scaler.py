"""The per-window scaler: the float op against torch, the integer op against exact arithmetic and its C."""

from fractions import Fraction
from math import isqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops.integer.numbers import Refusal
from edgec.ops.integer.scaler import LONGEST, QStdScale, QStdUnscale, fraction_bits
from edgec.ops.scaler import StdScale, StdUnscale, integer_scale, integer_unscale
from tests.backends.kernel_tools import Case, build_c, prepare
from tests.op_families import f32

UNIT = 0.01  # of the series in most tests here


def windows(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """int16 windows [B,L,C]: over the whole range, a few units around a level, constant, at the ends of the range."""
    level = rng.integers(-32000, 32000, (shape[0], 1, *shape[2:]))
    return {
        "wide": rng.integers(-32768, 32768, shape),
        "small": level + rng.integers(-2, 3, shape),
        "one step": level + (np.arange(shape[1])[None, :, None] >= shape[1] // 2),
        "constant": np.broadcast_to(level, shape).copy(),
        "ends": np.where(rng.random(shape) < 0.5, -32768, 32767),
    }[kind].astype(np.int64)


KINDS = ("wide", "small", "one step", "constant", "ends")


def exact(x: np.ndarray, unit: float, eps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y, loc and scale of windows [B,L,C] in units, the sums exact and the rest in float64."""
    length = x.shape[1]
    total, squares = x.sum(1, keepdims=True), (x * x).sum(1, keepdims=True)
    variance = (length * squares - total * total).astype(np.float64) / length**2 * unit**2
    scale = np.sqrt(variance + eps)
    return (length * x - total) / length * unit / scale, total / length * unit, scale


@pytest.mark.parametrize("shape", [(1, 512, 1), (2, 32, 3), (3, 5, 2)])
def test_the_reference_is_torchs_instance_norm(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 20
    y, loc, scale = StdScale(1, 1e-5).reference(x)
    torch.testing.assert_close(y, torch.nn.functional.instance_norm(x.transpose(1, 2)).transpose(1, 2))
    torch.testing.assert_close(StdUnscale(1).reference(y, loc, scale), x, rtol=1e-5, atol=1e-5)


def test_the_c_of_the_float_ops_keeps_a_small_swing_on_a_high_level(tmp_path: Path) -> None:
    """A swing of 1 around 5000: a single pass in float32 would lose it."""
    rng, cases = np.random.default_rng(0), []
    for k, (shape, axis, level) in enumerate([((1, 512, 2), 1, 5000.0), ((2, 3, 7, 4), 2, 0.0), ((1, 9), 1, 100.0)]):
        x = (rng.normal(size=shape) + level).astype(np.float32)
        cases.append(prepare(Case(f"s{k}", StdScale(axis, 1e-5), [f32(*shape)], [x]), rng))
        kept = [n if a != axis else 1 for a, n in enumerate(shape)]
        operands = [rng.normal(size=s).astype(np.float32) for s in (shape, kept, kept)]
        types = [f32(*shape), f32(*kept), f32(*kept)]
        cases.append(prepare(Case(f"u{k}", StdUnscale(axis), types, operands), rng))
    library = build_c([c.named for c in cases if c.named], tmp_path)
    for case in cases:
        found = library(case.symbol, case.arrays)
        if isinstance(case.op, StdScale):
            real = torch.from_numpy(case.values[0]).double()
            expected = dict(zip(("y", "loc", "scale"), StdScale(case.op.axis).reference(real), strict=True))
        else:
            expected = {"y": torch.from_numpy(case.expected["y"])}
        for name, value in expected.items():
            # the mean itself is a float32: half a unit of its last place is all that may be lost
            atol = 1e-5 + 2**-23 * float(np.abs(case.values[0]).max())
            np.testing.assert_allclose(found[name].reshape(value.shape), value, rtol=1e-5, atol=atol)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 700), st.sampled_from(KINDS), st.floats(-4, 1), st.integers(0, 2**16))
def test_integers_are_within_half_a_step_of_exact_arithmetic(length: int, kind: str, power: float, seed: int) -> None:
    """y to half a step (and 2^-20 of it), loc exactly, scale to 2^-15 of a unit, whatever the window's variance."""
    rng, unit = np.random.default_rng(seed), 10.0**power
    x, step = windows(kind, (2, length, 3), rng), float(np.sqrt(length)) / 32000
    op = integer_scale(StdScale(1, 1e-5), length, unit, step)
    kept = op.infer([TensorType(x.shape, DType.I16, QuantParams((unit,)))])
    y, loc, scale = (v.numpy() for v in op.reference(torch.from_numpy(x)))
    real_y, real_loc, real_scale = exact(x, unit, 1e-5)
    assert kept[1].quant is not None
    assert kept[2].quant is not None
    assert np.abs(y - real_y / step).max() <= 0.5 + 2**-20 * float(np.abs(real_y).max() / step)
    np.testing.assert_array_equal(loc, x.sum(1, keepdims=True))
    np.testing.assert_allclose(loc * kept[1].quant.scale[0], real_loc, rtol=1e-12)
    # eps itself is rounded to a whole number: to 2^-16 of a unit where it is all there is
    assert np.abs(scale * kept[2].quant.scale[0] - real_scale).max() <= 2**-15 * unit


def test_the_square_root_and_the_quotient_are_exact() -> None:
    """One window in Python's integers, by the formula in the op's docstring."""
    rng, length = np.random.default_rng(3), 37
    for kind in KINDS:
        x = windows(kind, (1, length, 1), rng)
        op = integer_scale(StdScale(1, 1e-5), length, UNIT, 2e-4)
        y, loc, scale = (v.reshape(-1).tolist() for v in op.reference(torch.from_numpy(x)))
        values = x.reshape(-1).tolist()
        total = sum(values)
        n = (length * sum(v * v for v in values) - total**2) * 4 ** fraction_bits(length) + op.eps
        k = next(k for k in range(32) if n * 4**k >= 2**60)
        root = isqrt(n * 4**k)
        inverse = (op.factor << 31) // root
        t = op.shift + 31 - k
        assert loc == [total]
        assert scale == [int(Fraction(root, 2**k) + Fraction(1, 2))]
        assert y == [max(-32768, min(32767, ((length * v - total) * inverse + 2 ** (t - 1)) >> t)) for v in values]


def test_a_constant_window_has_the_deviation_of_eps() -> None:
    op = integer_scale(StdScale(1, 1e-5), 512, 1e-4, 5e-4)
    (kind,) = [t for k, t in enumerate(op.infer([TensorType((1, 512, 1), DType.I16, QuantParams((1e-4,)))])) if k == 2]
    y, _, scale = op.reference(torch.full((1, 512, 1), 12345))
    assert kind.quant is not None
    assert int(y.abs().max()) == 0
    assert float(scale) * kind.quant.scale[0] == pytest.approx(np.sqrt(1e-5), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 700), st.sampled_from(KINDS), st.integers(0, 2**16))
def test_there_and_back_is_the_same_series(length: int, kind: str, seed: int) -> None:
    """unscale(scale(x)) is x to half a unit, 2^-15 of the swing and half a step of y."""
    x, step = windows(kind, (2, length, 1), np.random.default_rng(seed)), float(np.sqrt(length)) / 32000
    forward = integer_scale(StdScale(1, 1e-5), length, UNIT, step)
    back = integer_unscale(StdUnscale(1), length, UNIT, step)
    y, loc, scale = forward.reference(torch.from_numpy(x))
    again = back.reference(y, loc, scale).numpy()
    deviation = exact(x, UNIT, 1e-5)[2] / UNIT
    swing = np.abs(x - x.mean(1, keepdims=True))
    assert (np.abs(again - x) <= 0.5 + 2**-14 * swing + 0.51 * step * deviation + 0.01).all()


def test_a_forecast_beyond_the_range_saturates() -> None:
    op = integer_unscale(StdUnscale(1), 512, UNIT, 1e-3)
    scale = torch.tensor([[[512 * 20000 << fraction_bits(512)]]])
    loc = torch.tensor([[[512 * 20000]]])
    found = op.reference(torch.tensor([[[32767], [-32768], [0]]]), loc, scale)
    assert found.reshape(-1).tolist() == [32767, -32768, 20000]


def integer_cases(rng: np.random.Generator) -> list[Case]:
    """Windows of every kind at once, along the first axis, in different shapes."""
    cases = []
    for k, (length, channels) in enumerate([((512,), (1,)), ((33,), (3,)), ((2, 7), (5,)), ((1000,), ())]):
        axis, n = len(length), length[-1]
        shape = (len(KINDS), *length, *channels)
        rows = [windows(kind, (shape[0] // len(KINDS) * int(np.prod(length[:-1])), n, *(channels or (1,))), rng)
                for kind in KINDS]  # fmt: skip
        x, series = np.concatenate(rows).reshape(shape), TensorType(shape, DType.I16, QuantParams((UNIT,)))
        op = integer_scale(StdScale(axis, 1e-5), n, UNIT, float(rng.uniform(1e-4, 1e-3)))
        cases.append(prepare(Case(f"s{k}", op, [series], [x]), rng))
        kept, dtype = op.infer([series])[1:], (DType.I8, DType.I16)[k % 2]
        back = integer_unscale(StdUnscale(axis), n, UNIT, float(rng.uniform(1e-4, 1e-2)))
        _, loc, scale = op.reference(torch.from_numpy(x))
        operands = [rng.integers(*dtype.range, shape), loc.numpy(), scale.numpy()]
        cases.append(prepare(Case(f"u{k}", back, [TensorType(shape, dtype), *kept], operands), rng))
    return cases


def test_the_c_gives_the_bytes_of_the_reference(tmp_path: Path) -> None:
    cases = integer_cases(np.random.default_rng(1))
    library = build_c([c.named for c in cases if c.named], tmp_path)
    for case in cases:
        found = library(case.symbol, case.arrays)
        for name, expected in case.expected.items():
            np.testing.assert_array_equal(found[name].reshape(-1), expected.reshape(-1), err_msg=f"{case.op} {name}")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(Refusal, match=f"its window of {LONGEST + 1} values is longer than {LONGEST}"):
        integer_scale(StdScale(), LONGEST + 1, UNIT, 1e-3)
    with pytest.raises(Refusal, match="hides windows in units of 1e-10"):
        integer_scale(StdScale(), 512, 1e-10, 1e-3)
    series = TensorType((1, 512, 1), DType.I16)
    with pytest.raises(ValueError, match="expected int16, found int8"):
        QStdScale().infer([TensorType((1, 512, 1), DType.I8)])
    with pytest.raises(ValueError, match="axis 3 is not an axis"):
        StdScale(axis=3).infer([f32(1, 512, 1)])
    with pytest.raises(ValueError, match="expected loc and scale int32"):
        QStdUnscale().infer([series, series, series])
    with pytest.raises(ValueError, match="expected loc and scale of shape"):
        StdUnscale().infer([f32(1, 96, 1), f32(1, 2, 1), f32(1, 2, 1)])
