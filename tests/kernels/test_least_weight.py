"""Weights of -128: two of them do not always fit one word, and the kernels are the same ones, with the same bytes."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgec.ir.graph import Graph
from edgec.ir.types import DType, TensorType
from edgec.kernels.cortex_m.dense import pack_chunks
from edgec.kernels.cortex_m.rows import SUMS, Finish, Stream, pack_stream, pairs_of
from edgec.kernels.lanes import signs_of, terms_of
from edgec.ops import QConv2d, QConv2dRequantize, QLinear, QLinearRequantize
from tests.conftest import needs
from tests.kernels.every_kernel import Bench
from tests.kernels.node_builder import Builder, frame_type

#: pairs of neighbouring outputs that cannot share a word as they are, or with the first one's sign changed
HARD = ((-128, -128), (-128, -1), (-128, 0), (-128, 127), (127, -128), (0, -128))
WEIGHTS = hnp.arrays(
    np.int8,
    st.tuples(st.integers(1, 6).map(lambda quads: 4 * quads), st.integers(2, 13)),
    elements=st.sampled_from((-128, -128, -127, -1, 0, 1, 127)) | st.integers(-128, 127),
)


def weights(b: Builder, kind: str, *shape: int) -> np.ndarray:
    """Weights [.., inputs, outputs] with -128 where it hurts.

    `turned`: only over negative neighbours, so that the first one's sign can change; `hard`: every pair of HARD in
    the first pairs of outputs, the rest harmless; `all`: nothing but -128.
    """
    w = np.full(shape, -128) if kind == "all" else b.int8(*shape)
    flat = w.reshape(-1, shape[-1])
    if kind == "turned":
        flat[:, 1::2] = -np.abs(flat[:, 1::2])
        flat[np.arange(shape[-1] // 2) % len(flat), 2 * np.arange(shape[-1] // 2)] = -128
        flat[flat[:, : shape[-1] // 2 * 2 : 2].argmin(0), 1 : shape[-1] // 2 * 2 : 2] = -128
    for k, pair in enumerate(HARD if kind == "hard" else ()):
        flat[k % len(flat), :2] = pair
    return w


def least_weights() -> tuple[Graph, dict[str, int]]:
    """Layers over several rows and pixels, some of which can be computed in place, and over a single row."""
    b = Builder(3)
    rounded = (
        ({"dtype": "int8", "zero_point": -9}, (33, 45)), ({"dtype": "int8", "zero_point": 3, "lo": -30}, (26, 36)),
        ({"dtype": "int16", "lo": -32768, "hi": 32767}, (26, 36)), ({"dtype": "int8", "rounding": "tflite"}, (33, 44)),
    )  # fmt: skip
    for kind in ("turned", "hard", "all"):
        for rows, c, o in ((3, 8, 8), (4, 37, 7), (7, 12, 12), (1, 21, 6)):
            x, bias = (frame_type(DType.I8, 1, rows, c), 128), (b.ints(-9999, 9999, o), "int32")
            b.add(QLinear(), x, (weights(b, kind, c, o), "int8"), bias)
            for fields, shift in rounded:
                scales = (b.ints(1 << 30, 1 << 31, o), "int32"), (b.ints(*shift, o), "int32")
                b.add(QLinearRequantize(**fields), x, (weights(b, kind, c, o), "int8"), bias, *scales)
        for dtype, c, o, reach in ((DType.I16, 16, 8, 1 << 15), (DType.I8, 11, 9, 128), (DType.BIT, 40, 3, 1)):
            x, bias = (frame_type(dtype, 1, 2, c), reach), (b.ints(-9999, 9999, o), "int32")
            b.add(QLinear(spike_rate=0.5), x, (weights(b, kind, c, o), "int8"), bias)
        for image, kernel, o, pad in (
            ((1, 4, 5, 8), (3, 3), 8, 1), ((2, 5, 4, 3), (2, 2), 6, 0), ((1, 1, 2, 12), (1, 1), 10, 0),
        ):  # fmt: skip
            x, bias = (TensorType(image, DType.I8), 128), (b.ints(-9999, 9999, o), "int32")
            b.add(QConv2d(pad=(pad,) * 4, pad_value=-7), x, (weights(b, kind, *kernel, image[3], o), "int8"), bias)
            for rounding in ("single", "tflite"):
                op = QConv2dRequantize(pad=(pad,) * 4, pad_value=-7, rounding=rounding)
                scales = (b.ints(1 << 30, 1 << 31, o), "int32"), (b.ints(33, 45, o), "int32")
                b.add(op, x, (weights(b, kind, *kernel, image[3], o), "int8"), bias, *scales)
    return b.graph(), b.reach


@pytest.mark.parametrize(
    ("isa", "cc"),
    [pytest.param(("arm_dsp", "generic"), "gcc", marks=needs("gcc")), (("scalar", "generic"), "zig")],
)
def test_host(isa: tuple[str, ...], cc: str) -> None:
    bench = Bench("host", "host", isa, cc=cc, make=least_weights)
    with bench.device:
        bench.check_seeded((0.5, 1.0))


@pytest.mark.parametrize(
    ("target", "toolchain"), [("cortex-m4", "zig"), ("cortex-m33", "gcc"), ("cortex-m0plus", "zig")]
)
def test_emulated_core(target: str, toolchain: str) -> None:
    pytest.importorskip("unicorn")
    if toolchain == "gcc" and shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    bench = Bench("unicorn", target, toolchain=toolchain, make=least_weights)
    if target == "cortex-m4":
        slow = [call.node for call in bench.plan.calls if call.variant in ("generic", "dense")]
        # few rows: no kernel rounds dense products in the way of TFLite, nor sums of two pixels
        assert {n.op.name for n in slow} == {"qlinear_requantize", "qconv2d", "qconv2d_requantize"}, slow
        assert all(len(n.types[0].shape) == 3 or n.types[0].shape[2] == 2 for n in slow)
    with bench.device:
        bench.check_seeded((0.5, 1.0))


def sums_of(stream: Stream, outputs: int, finish: Finish, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums that edgec_products.h makes of a stream and one row x, and the sign of each output's multiplier."""
    found, signs = np.zeros(outputs, np.int64), np.zeros(outputs, np.int64)
    lanes = x.reshape(-1, 2, 2).transpose(0, 2, 1).reshape(-1)  # of the words (0, 2), (1, 3)
    for run in stream.runs:
        size = 2 + 2 * stream.quads * (1 + run.apart) + 6 * bool(finish.first.size)
        for p in range(run.pairs):
            row, at = stream.words[run.word + p * size :][:size], run.first + 2 * p
            packed = row[2 : size - 6 * bool(finish.first.size)]
            if run.apart:
                words = packed.reshape(-1, 2).T.copy().view(np.int16).astype(np.int64)
                found[at : at + 2] = row[:2] + words @ lanes
            else:
                both = packed.copy().view(np.int16).astype(np.int64)
                second = row[1] + both.astype(np.int8).astype(np.int64) @ lanes
                first, rest = divmod(row[0] + both @ lanes - second, 256)
                assert rest == 0
                found[at : at + 2] = first, second
            signs[at : at + 2] = (1, 1) if not finish.first.size else np.sign(row[[size - 6, size - 3]])
    return found, signs


@settings(max_examples=200)
@given(w=WEIGHTS, turns=st.booleans(), seed=st.integers(0, 99))
def test_every_stream_gives_the_products(w: np.ndarray, turns: bool, seed: int) -> None:
    rng, outputs = np.random.default_rng(seed), w.shape[1]
    bias, x = rng.integers(-9999, 9999, outputs), rng.integers(-128, 128, w.shape[0])
    table = np.ones((outputs, 3), np.int32)
    finish = Finish("i8", 1, table, table, turns=True) if turns else SUMS
    found, signs = sums_of(pack_stream(w, bias, finish), outputs, finish, x)
    assert (found * signs).tolist() == (bias + x @ w.astype(np.int64)).tolist()


@given(w=WEIGHTS)
def test_dense_chunks_give_the_weights(w: np.ndarray) -> None:
    chunks, words = pack_chunks(w)
    found = np.zeros((w.shape[0] + 8, -(-w.shape[1] // 4) * 4), np.int64)
    for c in chunks:
        blocks, quads = found.shape[1] // 4, -(-(c.stop - c.start) // 8) * 2
        lanes = words[c.word :][: blocks * quads * 4].view(np.int16).astype(np.int64)
        lanes = lanes.reshape(blocks, quads, 2, 2, 2).transpose(1, 4, 2, 0, 3)  # [quad, lane, word, block, pair]
        low = lanes.astype(np.int8).astype(np.int64)
        both = np.stack([(lanes - low) // 256, low], -1).reshape(4 * quads, -1)
        found[c.start : c.start + len(both)] += both[: len(found) - c.start]
    assert (found[: w.shape[0], : w.shape[1]] == w).all()
    assert (len(chunks) == 1) == (len(terms_of(w)) == 1)


@given(w=WEIGHTS)
def test_a_sign_is_changed_only_where_it_must_be(w: np.ndarray) -> None:
    a, b = pairs_of(w.shape[1])
    first, second = w[:, a].astype(np.int64), w[:, b].astype(np.int64)
    signs = signs_of(first, second)
    clash = ((first == -128) & (second < 0)).any(0)
    assert not signs[clash & (signs == 1)].size
    assert not signs[~clash & (signs == -1)].size
    assert not signs[~clash & (signs == 0)].size
    if not clash.any():
        assert len(pack_stream(w, np.zeros(w.shape[1], np.int64), SUMS).runs) == 1 + w.shape[1] % 2
