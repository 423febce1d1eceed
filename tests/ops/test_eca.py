"""Channel attention: the float op against timm's module, the integer op against the float one and against its C."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.ir.types import DType, TensorType
from edgec.ops.eca import Eca, QEca, filter_of, fitted, gates, sigmoid_table
from edgec.ops.integer.numbers import Refusal
from tests.backends.kernel_tools import Case, build_c, prepare
from tests.op_families import f32

SHAPES = [(1, 8, 8, 32), (2, 3, 5, 7), (1, 1, 1, 3), (1, 9, 2, 1), (3, 4, 4, 65)]

PAIRS = [(x, y) for x in (DType.I8, DType.I16) for y in (DType.I8, DType.I16)]


@pytest.mark.parametrize("taps", [1, 3, 5, 7])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_reference_is_timms_module(shape: tuple[int, ...], taps: int) -> None:
    pytest.importorskip("timm")
    from timm.layers.eca import EcaModule

    torch.manual_seed(taps)
    module, x = EcaModule(kernel_size=max(taps, 3)).eval(), torch.randn(shape)
    if taps == 1:  # timm goes down to 3: the same filter with nothing at its ends
        with torch.no_grad():
            module.conv.weight[0, 0, 0] = module.conv.weight[0, 0, 2] = 0
    w = module.conv.weight.detach().reshape(-1)
    with torch.no_grad():
        expected = module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(Eca().reference(x, w if taps > 1 else w[1:2]), expected)


def test_the_c_of_the_float_op(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = []
    for k, (shape, taps) in enumerate((s, t) for s, t in zip(SHAPES, (1, 3, 5, 7, 3), strict=True)):
        values = [rng.normal(size=s).astype(np.float32) for s in (shape, (taps,))]
        cases.append(prepare(Case(f"f{k}", Eca(), [f32(*shape), f32(taps)], values), rng))
    library = build_c([c.named for c in cases if c.named], tmp_path)
    for case in cases:
        found = library(case.symbol, case.arrays)["y"]
        np.testing.assert_allclose(found.reshape(-1), case.expected["y"].reshape(-1), rtol=2e-6, atol=1e-6)


def integer_case(
    rng: np.random.Generator, symbol: str, shape: tuple[int, ...], taps: int, x: DType, y: DType, spread: float
) -> tuple[Case, np.ndarray, float]:
    """An integer op on random operands; also what the float op makes of them, and the logits' largest error."""
    (lo, hi), zero = x.range, 0 if x is DType.I16 else int(rng.integers(-128, 128))
    out_zero = 0 if y is DType.I16 else int(rng.integers(-128, 128))
    x_scale, y_scale = 8.0 / hi, float(rng.uniform(0.5, 1.5)) * 8.0 / y.range[1]
    w, pixels = rng.normal(size=taps) * spread, shape[1] * shape[2]
    filtered, shift = filter_of(w * x_scale / pixels, pixels * max(abs(v - zero) for v in x.range))
    op = fitted(QEca(y.value, y_scale, out_zero, zero, shift), x, x_scale / y_scale)
    values = rng.integers(lo, hi + 1, shape)
    if rng.random() < 0.3:
        values = np.where(rng.random(shape) < 0.5, lo, hi)
    types = [TensorType(shape, x), TensorType((taps,), DType.I32), TensorType((257,), DType.I16)]
    case = prepare(Case(symbol, op, types, [values, filtered, sigmoid_table()]), rng)
    real = torch.from_numpy((values - zero) * x_scale)
    ideal = Eca().reference(real, torch.from_numpy(w)).numpy()
    low, high = ((v - out_zero) * y_scale for v in y.range)
    return case, np.clip(ideal, low, high), y_scale


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from(SHAPES),
    taps=st.sampled_from([1, 3, 5, 7]),
    x=st.sampled_from([DType.I8, DType.I16]),
    y=st.sampled_from([DType.I8, DType.I16]),
    spread=st.sampled_from([0.01, 1.0, 30.0]),
)
def test_the_integer_op_is_near_the_float_one(
    seed: int, shape: tuple[int, ...], taps: int, x: DType, y: DType, spread: float
) -> None:
    """Half a step of the output, and 2**-10 of x: a gate is off by 2**-13, one beyond the table's ends by 3.4e-4."""
    case, ideal, scale = integer_case(np.random.default_rng(seed), "f", shape, taps, x, y, spread)
    found = (case.expected["y"] - case.op.zero_point) * scale
    assert np.abs(found - ideal).max() <= 0.51 * scale + 16.1 * 2.0**-10 / 2


def test_the_c_of_the_integer_op(tmp_path: Path) -> None:
    rng, cases = np.random.default_rng(1), []
    for k in range(20):  # every pair of types meets every shape, and every length of filter most of them
        x, y = PAIRS[k % 4]
        cases.append(integer_case(rng, f"f{k}", SHAPES[k % 5], (1, 3, 5, 7)[k // 5], x, y, 3.0)[0])
    library = build_c([c.named for c in cases if c.named], tmp_path)
    for case in cases:
        np.testing.assert_array_equal(
            library(case.symbol, case.arrays)["y"].reshape(-1), case.expected["y"].reshape(-1), err_msg=str(case.op)
        )


def test_the_table_and_its_interpolation() -> None:
    """All 2**16 logits against the sigmoid in float64."""
    logits = torch.arange(-(1 << 15), 1 << 15)
    found = gates(logits, torch.from_numpy(sigmoid_table().astype(np.int64)))
    assert float((found - torch.sigmoid(logits.double() / 4096.0) * 2.0**15).abs().max()) <= 2.2


@pytest.mark.parametrize(
    ("shape", "taps", "time", "message"),
    [
        ((1, 4, 4, 8), 2, None, "expected a filter of odd length, found 2"),
        ((1, 4, 8), 3, None, r"expected x \[B,H,W,C\] and w \[k\]"),
        ((1, 4, 4, 8), 3, 1, "the gate averages over the image, which holds the time axis"),
    ],
)
def test_operands_that_do_not_fit(shape: tuple[int, ...], taps: int, time: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Eca().infer([f32(*shape, time=time), f32(taps)])
    types = [TensorType(shape, DType.I8, None, time), TensorType((taps,), DType.I32), TensorType((257,), DType.I16)]
    with pytest.raises(ValueError, match=message):
        QEca().infer(types)


def test_sums_beyond_int32_are_refused() -> None:
    filters = [TensorType((3,), DType.I32), TensorType((257,), DType.I16)]
    with pytest.raises(ValueError, match="leaves the int32 range"):
        QEca().infer([TensorType((1, 256, 257, 1), DType.I16), *filters])
    QEca().infer([TensorType((1, 255, 256, 1), DType.I16), *filters])
    with pytest.raises(ValueError, match="its factors leave the int32 range"):
        QEca(multiplier=1 << 24).infer([TensorType((1, 2, 2, 1), DType.I8), *filters])
    with pytest.raises(Refusal, match="its filter's gain"):
        filter_of(np.array([1e6]), 1 << 30)
