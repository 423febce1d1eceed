"""Layers on int4 and int2: the reference, C on the host and C on the emulated cores agree, and what is packed fits."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.errors import VerifyError
from edgec.ir.graph import Const, Graph
from edgec.ir.text import parse_graph, print_graph
from edgec.ir.types import DType, TensorType
from edgec.ir.verify import verify
from edgec.kernels.cortex_m.narrow import pack_single
from edgec.kernels.cortex_m.packed import FIELD, level_row, pack_weights, runs_of
from edgec.ops import OPS, QConv1d, QConv2d, QConv2dRequantize, QLinear, QLinearRequantize
from edgec.ops.base import Site
from edgec.ops.integer.requantize import Requantize, weight_array
from tests.kernels.every_kernel import Bench
from tests.kernels.node_builder import Builder, frame_type

REACH = {"int4": 7, "int2": 1}
HOSTS = [(("generic",), "gcc"), (("arm_dsp", "generic"), "gcc"), (("arm_dsp", "generic"), "zig")]
CORES = [("cortex-m7", "zig"), ("cortex-m4", "gcc"), ("cortex-m33", "zig"), ("cortex-m0plus", "zig")]


def weights(b: Builder, dtype: str, *shape: int) -> tuple[np.ndarray, str]:
    return b.ints(-REACH[dtype], REACH[dtype] + 1, *shape), dtype


def scales(b: Builder, o: int, low: int = 33, high: int = 38) -> list[tuple[np.ndarray, str]]:
    return [(b.ints(-999, 999, o), "int32"), (b.ints(1 << 30, 1 << 31, o), "int32"), (b.ints(low, high, o), "int32")]


def add_linear(b: Builder) -> None:
    """Rows of every number and length, outputs that are no multiple of a block, sums in several runs."""
    for w, x in (("int4", "int8"), ("int4", "int4"), ("int2", "int8"), ("int2", "int4")):
        for rows, c, o in ((1, 37, 7), (2, 16, 4), (5, 64, 13), (9, 6, 4), (37, 20, 5), (4, 300, 9), (4, 3, 3)):
            operand = (frame_type(DType(x), 1, rows, c), 128)
            ops = (
                QLinearRequantize("int8", 1.0, -9),
                QLinearRequantize("int4", 1.0, 1, -6, 7),
                QLinearRequantize("int8", 1.0, 5, -100, 90),
                QLinearRequantize("int16", 1.0, 0, -32768, 32767),
                QLinearRequantize("int8", 1.0, 3, rounding="tflite"),
            )
            b.add(ops[(rows + c) % len(ops)], operand, weights(b, w, c, o), *scales(b, o))
            b.add(ops[(rows + o) % 3], operand, weights(b, w, c, o), *scales(b, o))
    for dtype in ("int4", "int2"):
        for rows in (1, 4):
            operand = (frame_type(DType.I8, 1, rows, 21), 128)
            b.add(QLinear(), operand, weights(b, dtype, 21, 6), (b.ints(-999, 999, 6), "int32"))
        operand = (frame_type(DType.I8, 1, 3, 20), 128)
        b.add(QConv1d(), operand, weights(b, dtype, 3, 20, 6), (b.ints(-999, 999, 6), "int32"))
        least = np.full((9, 5), DType(dtype).range[0]), dtype  # -8 and -2 are no values that quantisation makes
        b.add(QLinearRequantize(), (frame_type(DType.I4, 1, 6, 9), 8), least, *scales(b, 5))
        b.add(QLinearRequantize(), (frame_type(DType.I4, 1, 1, 9), 8), least, *scales(b, 5))


def add_images(b: Builder) -> None:
    """1x1 convolutions, windows with and without padding, groups, several images."""
    for w, x in (("int4", "int8"), ("int4", "int4"), ("int2", "int8")):
        for image, kernel, o, fields in (
            ((2, 5, 5, 16), (1, 1), 9, {}),
            ((1, 5, 5, 8), (1, 1), 6, {"stride": (2, 2)}),
            ((1, 6, 5, 8), (3, 3), 7, {"pad": (1, 1, 1, 1), "pad_value": -7, "lo": -3, "hi": 99}),
            ((2, 7, 6, 3), (3, 3), 8, {"stride": (2, 2), "pad": (0, 1, 0, 1), "pad_value": 5}),
            ((1, 7, 7, 12), (3, 2), 5, {"dilation": (2, 3), "pad": (2, 2, 1, 2), "pad_value": -8}),
            ((1, 5, 6, 5), (3, 3), 4, {"dilation": (1, 2), "pad": (1, 1, 2, 2), "pad_value": 3}),
            ((1, 4, 4, 6), (3, 3), 6, {"groups": 6, "pad": (1, 1, 1, 1)}),
        ):
            groups = fields.get("groups", 1)
            operand = (TensorType(image, DType(x)), 128)
            shape = (*kernel, image[3] // groups, o)
            b.add(QConv2dRequantize(zero_point=-7, **fields), operand, weights(b, w, *shape), *scales(b, o))
        operand = (TensorType((1, 4, 4, 8), DType(x)), 128)
        b.add(QConv2d(pad=(1, 1, 1, 1)), operand, weights(b, w, 3, 3, 8, 5), (b.ints(-99, 99, 5), "int32"))


def narrow() -> tuple[Graph, dict[str, int]]:
    """The graph, and how far the values of each input reach."""
    b = Builder()
    add_linear(b)
    add_images(b)
    return b.graph(), b.reach


@pytest.mark.parametrize(("isa", "cc"), HOSTS, ids=lambda p: p if isinstance(p, str) else p[0])
def test_host(isa: tuple[str, ...], cc: str) -> None:
    if cc != "zig" and shutil.which(cc) is None:
        pytest.skip(f"{cc} is not installed")
    bench = Bench("host", "host", isa, cc=cc, make=narrow)
    found = {call.variant for call in bench.plan.calls}
    assert found == ({"generic"} if len(isa) == 1 else {"packed_dsp", "narrow_rows_dsp", "narrow_dsp", "generic"})
    with bench.device:
        bench.check_seeded((0.0, 1.0, 0.0, 1.0))


@pytest.mark.parametrize(("target", "toolchain"), CORES)
def test_emulated_core(target: str, toolchain: str) -> None:
    pytest.importorskip("unicorn")
    if toolchain == "gcc" and shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    bench = Bench("unicorn", target, toolchain=toolchain, make=narrow)
    with bench.device:
        bench.check_seeded((0.0, 1.0, 0.0, 1.0))


def test_text_round_trip() -> None:
    graph, _ = narrow()
    text = print_graph(graph)
    assert "int4[" in text
    assert print_graph(parse_graph(text, OPS)) == text


def test_a_constant_out_of_range_is_refused() -> None:
    text = """graph net
input %x : int8[1,2] t0
const %w : int4[2,1] = [7, 8]
const %b : int32[1] = [0]
%y = qlinear(%x, %w, %b) : int32[1,1] t0
return %y
"""
    with pytest.raises(VerifyError, match="constant %w: int4 holds -8 to 7, found 7 to 8"):
        verify(parse_graph(text, OPS))


def test_bounds_wider_than_the_type_are_refused() -> None:
    types = [TensorType((1, 4), DType.I32), *[TensorType((1,), DType.I32)] * 2]
    with pytest.raises(ValueError, match="-128 to 127 is more than int4 holds"):
        Requantize("int4").infer(types)
    assert Requantize("int4", lo=-8, hi=7).infer(types)[0].bytes == 4  # one to a byte


@given(inputs=st.integers(1, 300), wide=st.booleans(), seed=st.integers(0, 99))
def test_runs_fit_their_fields(inputs: int, wide: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    limit, reach = (1, (-128, 127)) if wide else (7, (-8, 7))
    w = rng.integers(-limit, limit + 1, (inputs, 3))
    runs = runs_of(w, reach)
    assert [r.start for r in runs] == [0, *[r.stop for r in runs[:-1]]]
    assert runs[-1].stop == inputs
    for r in runs:
        ends = np.stack([w[r.start : r.stop] * x for x in reach])
        assert ends.max(0).sum(0).max() < FIELD
        assert ends.min(0).sum(0).min() >= -FIELD
    assert all(r.stop - r.start >= 64 for r in runs[:-1])


def test_weights_of_a_word_lie_28_bits_apart() -> None:
    rng = np.random.default_rng(0)
    for dtype, turns in ((DType.I4, (0, 8, 16, 24)), (DType.I2, (4, 6, 12, 14, 20, 22, 28, 30))):
        low = dtype.range[0]
        w = rng.integers(low, dtype.range[1] + 1, (8, 4))
        words = pack_weights(w, dtype).view(np.uint32).astype(np.uint64)
        turned = [(int(x) >> t | int(x) << (32 - t)) & 0xFFFFFFFF for x in words[0] for t in turns]
        mask = 15 if dtype is DType.I4 else 3
        found = [(v & mask) + low for t in turned for v in (t, t >> 28)]
        assert np.array(found).reshape(8, 4).tolist() == w.tolist()


@settings(max_examples=30, deadline=None)
@given(
    multiplier=st.integers(1 << 30, (1 << 31) - 1), shift=st.integers(32, 45), bias=st.integers(-5000, 5000),
    reach=st.integers(1, 8191), rounding=st.sampled_from(("single", "tflite")),
)  # fmt: skip
def test_levels_are_those_of_the_reference(multiplier: int, shift: int, bias: int, reach: int, rounding: str) -> None:
    op = Requantize("int8", 1.0, -5, rounding=rounding)
    row = level_row(op, multiplier, shift, bias, -reach, reach)
    if row is None:
        return  # the layer then takes another kernel
    sums = np.arange(-reach, reach + 1)
    found = (((sums + FIELD) * row[0] >> 16) + row[1]) >> 17
    wanted = op.levels(sums + bias, np.array([multiplier]), np.array([shift]))
    assert np.clip(found, -128, 127).tolist() == wanted.tolist()


def test_flash_is_what_the_bits_take() -> None:
    for dtype, each in (("int4", 2), ("int2", 4)):
        kinds = TensorType((1, 64), DType.I8), TensorType((64, 8), DType(dtype)), TensorType((8,), DType.I32)
        site = Site(kinds, QLinear().infer(kinds), (), {1: np.zeros((64, 8), np.int8), 2: np.zeros(8, np.int32)})
        assert weight_array(site)[1]["w"].nbytes == 64 * 8 // each
    assert pack_single(np.zeros((64, 8), np.int8)).nbytes == 64 * 8 // 2
    assert Const(np.zeros((64, 8), np.int8), kinds[1]).type.size == 512
