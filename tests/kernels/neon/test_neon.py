"""Integer kernels for NEON: random shapes by the portable twins on the host, and on the emulated Cortex-A53."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.ir.graph import Graph
from edgec.ir.types import DType, TensorType
from edgec.kernels.helium.image import finish_of
from edgec.ops import QConv1d, QConv2d, QConv2dRequantize, QLinear, QLinearRequantize
from edgec.ops.integer.requantize import Requantize
from edgec.pipeline import compile_model
from tests.conftest import needs
from tests.kernels.every_kernel import Bench, Make, random_frame
from tests.kernels.node_builder import Builder, frame_type

DATA = Path(__file__).resolve().parents[2] / "data" / "mlperf_tiny"
ISA = ("neon", "generic")
VARIANTS = {"dense_neon", "windows_neon", "depth_neon", "requantize_neon"}
#: file, vectors, and what one inference of LiteRT takes on the same core
MODELS = {
    "kws": ("kws_ref_model.tflite", "kws_vectors.npz", 1_340_000),
    "ic": ("pretrainedResnet_quant.tflite", "ic_vectors.npz", 5_010_000),
}
FINISHES = (  # rounding, element type, zero point, lowest and highest level, shifts
    ("single", "int8", -9, -128, 127, (33, 44)), ("tflite", "int8", -128, -128, 127, (31, 44)),
    ("tflite", "int8", 5, -100, 90, (31, 44)), ("single", "int16", 0, -32768, 32767, (24, 36)),
    ("single", "int8", 3, 3, 99, (32, 40)),
)  # fmt: skip


def scales(b: Builder, o: int, finish: int) -> list[tuple[np.ndarray, str]]:
    return [(b.ints(1 << 30, 1 << 31, o), "int32"), (b.ints(*FINISHES[finish][5], o), "int32")]


def fields(finish: int) -> dict[str, object]:
    rounding, dtype, zero, lo, hi, _ = FINISHES[finish]
    return {"dtype": dtype, "zero_point": zero, "lo": lo, "hi": hi, "rounding": rounding}


def weights(b: Builder, *shape: int) -> tuple[np.ndarray, str]:
    """Of the whole range; -128 everywhere in one layer of four."""
    return (b.ints(-128, 128, *shape) if b.ints(0, 4) else np.full(shape, -128), "int8")


def add_linear(b: Builder) -> None:
    """One row or several, to levels and to sums."""
    rows, c, o, finish = (int(b.ints(*ends)) for ends in ((1, 11), (1, 140), (4, 40), (0, len(FINISHES))))
    x, w, bias = (frame_type(DType.I8, 1, rows, c), 128), weights(b, c, o), (b.ints(-9999, 9999, o), "int32")
    b.add(QLinearRequantize(**fields(finish)), x, w, bias, *scales(b, o, finish))
    b.add(QLinear(), x, w, bias)
    b.add(QConv1d(), (frame_type(DType.I8, 1, 3, c), 128), weights(b, 3, c, o), bias)


def add_convolution(b: Builder) -> None:
    """Kernel, stride, padding and batch as they come."""
    (kh, kw), (sh, sw) = b.ints(1, 5, 2).tolist(), b.ints(1, 4, 2).tolist()
    c, o, finish, n = (int(b.ints(*ends)) for ends in ((1, 40), (4, 20), (0, len(FINISHES)), (1, 3)))
    pad = tuple(int(b.ints(0, k)) for k in (kh, kh, kw, kw))
    image = (TensorType((n, int(b.ints(kh, 12)), int(b.ints(kw, 12)), c), DType.I8), 128)
    w, bias, zero = weights(b, kh, kw, c, o), (b.ints(-9999, 9999, o), "int32"), int(b.ints(-128, 128))
    b.add(QConv2d((sh, sw), pad, pad_value=zero), image, w, bias)
    op = QConv2dRequantize((sh, sw), pad, pad_value=zero, **fields(finish))
    b.add(op, image, w, bias, *scales(b, o, finish))


def add_depthwise(b: Builder) -> None:
    """Three lines of three taps half of the time."""
    (kh, kw), (sh, sw) = b.ints(1, 5, 2).tolist() if b.ints(0, 2) else (3, 3), b.ints(1, 4, 2).tolist()
    c, finish = int(b.ints(16, 60)), (0, 1, 2, 4)[int(b.ints(0, 4))]
    pad = tuple(int(b.ints(0, k)) for k in (kh, kh, kw, kw))
    image = (TensorType((int(b.ints(1, 3)), int(b.ints(kh, 12)), int(b.ints(kw, 12)), c), DType.I8), 128)
    op = QConv2dRequantize((sh, sw), pad, groups=c, pad_value=int(b.ints(-128, 128)), **fields(finish))
    b.add(op, image, weights(b, kh, kw, 1, c), (b.ints(-9999, 9999, c), "int32"), *scales(b, c, finish))


def add_each(b: Builder) -> None:
    """Requantisation between any types, by channel and not."""
    c = int(b.ints(1, 40))
    for source, dtype in ((DType.I16, "int8"), (DType.I32, "int8"), (DType.I8, "int16"), (DType.I32, "int16")):
        many, low, high = c if b.ints(0, 2) else 1, *DType(dtype).range
        factors = (b.ints(1 << 30, 1 << 31, many), "int32"), (b.ints(32, 45, many), "int32")
        x = (TensorType((2, 3, c), source), (1 << 31) - 1)
        b.add(Requantize(dtype, 1.0, int(b.ints(-128, 128)), low + int(b.ints(0, 50)), high), x, *factors)


def random_layers(seed: int) -> Make:
    """What makes the graph of some layers, drawn by the seed."""

    def make() -> tuple[Graph, dict[str, int]]:
        b = Builder(seed)
        for _ in range(3):
            for add in (add_linear, add_convolution, add_depthwise, add_each):
                add(b)
        return b.graph(), b.reach

    return make


def lowest() -> tuple[Graph, dict[str, int]]:
    """Weights of -128 that meet in one lane, and one row of them that do not."""
    b = Builder()
    w = np.full((40, 8), -128)
    for values in (w, np.where(np.arange(40)[:, None] % 16 < 8, w, -127)):
        for rows in (1, 5):
            b.add(QLinear(), (frame_type(DType.I8, 1, rows, 40), 128), (values, "int8"), (np.zeros(8), "int32"))
    image, factors = (TensorType((1, 4, 4, 16), DType.I8), 128), scales(b, 16, 2)
    apart = np.where(np.arange(9) % 2, -127, -128).repeat(16)
    for values in (np.full((3, 3, 1, 16), -128), apart.reshape(3, 3, 1, 16)):
        op = QConv2dRequantize(groups=16, **fields(2))
        b.add(op, image, (values, "int8"), (np.zeros(16), "int32"), *factors)
    return b.graph(), b.reach


def check(bench: Bench) -> set[str]:
    """Anything, the ends of the range, and the lowest value everywhere. Returns the variants."""
    rng = np.random.default_rng(1)
    frames = [random_frame(bench.graph, bench.reach, rng, rate) for rate in (0.0, 1.0)]
    frames.append({name: np.full_like(a, max(-bench.reach[name], -128)) for name, a in frames[0].items()})
    with bench.device:
        bench.check(frames)
    return {call.variant for call in bench.plan.calls}


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_layers_on_the_host(seed: int) -> None:
    assert check(Bench("host", "host", ISA, make=random_layers(seed))) >= VARIANTS


@needs("qemu-aarch64")
@pytest.mark.parametrize("make", [random_layers(11), random_layers(12), lowest], ids=["11", "12", "lowest"])
def test_layers_on_qemu(make: Make) -> None:
    assert check(Bench("qemu-aarch64", "cortex-a53", ISA, make=make)) >= {"dense_neon", "depth_neon"}


@needs("qemu-aarch64")
def test_every_kernel_on_qemu() -> None:
    bench = Bench("qemu-aarch64", "cortex-a53", ISA)
    with bench.device:
        bench.check_seeded((0.0, 0.15, 1.0) * 3)


@needs("qemu-aarch64")
@pytest.mark.parametrize("name", MODELS)
def test_mlperf_tiny_on_qemu(name: str, tmp_path: Path) -> None:
    """The bytes of LiteRT's reference kernels, in fewer instructions than LiteRT's own for this core."""
    pytest.importorskip("tflite")
    file, vectors, limit = MODELS[name]
    compiled = compile_model(DATA / file, "cortex-a53", tmp_path / name)
    with np.load(DATA / vectors) as data, compiled.device("qemu-aarch64", counting=True) as device:
        for x, y in list(zip(data["x_i8"], data["y_i8"], strict=True))[:2]:
            device.reset()
            found = device.step([x[None]])
            assert found is not None
            np.testing.assert_array_equal(found[0].reshape(-1), y)
            assert 0 < device.counters.instructions < limit


def test_int16_levels_with_a_zero_point_are_left_to_other_kernels() -> None:
    """They saturate before the zero point is added."""
    low, high, factors = np.array([-9999]), np.array([9999]), (np.array([1 << 30]), np.array([33]))
    for zero in (0, 5):
        finish = finish_of(Requantize("int16", 1.0, zero, -32768, 32767), *factors, low, high)
        assert (finish is None) == (zero != 0)
