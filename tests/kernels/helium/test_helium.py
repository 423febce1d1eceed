"""Kernels for Helium: random shapes by the portable twins on the host, and on the emulated Cortex-M55."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.backends.emit import write_folder
from edgec.device import open_device
from edgec.ir.evaluate import StepRunner
from edgec.ir.types import DType, TensorType
from edgec.kernels.helium.each import rounds_half_up
from edgec.kernels.helium.image import finish_of
from edgec.ops import (
    QConv1d,
    QConv2d,
    QConv2dRequantize,
    QLayerNorm,
    QLinear,
    QLinearRequantize,
    QLut,
    QMatMul,
    QMul,
    TfliteAdd,
    TfliteMul,
)
from edgec.ops.integer.requantize import Requantize
from edgec.ops.integer.softmax import exponent
from edgec.ops.signal.log_mel import QLogMel
from edgec.pipeline import compile_model
from edgec.target import load_target
from edgec.toolchain.manifest import read_manifest
from tests.conftest import needs
from tests.kernels.every_kernel import Bench, random_frame
from tests.kernels.node_builder import Builder, frame_type, storage

DATA = Path(__file__).resolve().parents[2] / "data" / "mlperf_tiny"
#: file, vectors, and what one inference may take on the emulated core
MODELS = {
    "kws": ("kws_ref_model.tflite", "kws_vectors.npz", 1_000_000),
    "ic": ("pretrainedResnet_quant.tflite", "ic_vectors.npz", 2_600_000),
}
FINISHES = (  # rounding, element type, zero point, lowest level, shifts
    ("single", "int8", -9, -128, (33, 44)), ("tflite", "int8", -128, -128, (31, 44)),
    ("tflite", "int8", 5, -128, (31, 44)), ("single", "int16", 0, -32768, (24, 36)), ("single", "int8", 3, 3, (32, 40)),
)  # fmt: skip


def scales(b: Builder, o: int, finish: int) -> list[tuple[np.ndarray, str]]:
    return [(b.ints(1 << 30, 1 << 31, o), "int32"), (b.ints(*FINISHES[finish][4], o), "int32")]


def fields(finish: int) -> dict[str, object]:
    rounding, dtype, zero, lo, _ = FINISHES[finish]
    return {"dtype": dtype, "zero_point": zero, "lo": lo, "hi": DType(dtype).range[1], "rounding": rounding}


def add_linear(b: Builder) -> None:
    """One row or several, on int8 and int16, to sums and to levels."""
    rows, c, o = int(b.ints(1, 8)), int(b.ints(1, 140)), int(b.ints(4, 40))
    w, bias = (b.int8(c, o), "int8"), (b.ints(-9999, 9999, o), "int32")
    x, finish = (frame_type(DType.I8, 1, rows, c), 128), int(b.ints(0, len(FINISHES)))
    b.add(QLinearRequantize(**fields(finish)), x, w, bias, *scales(b, o, finish))
    b.add(QLinear(), (frame_type((DType.I8, DType.I16)[rows % 2], 1, rows, c), 1 << 15), w, bias)
    b.add(QLinear(spike_rate=0.5), (frame_type(DType.BIT, 1, rows, c), 1), w, bias)
    frames = (frame_type(DType.I16, 1, 3, c), 1 << 15)
    b.add(QConv1d(), frames, (b.int8(3, c, o), "int8"), bias)


def add_convolution(b: Builder) -> None:
    """Kernel, stride and padding as they come."""
    (kh, kw), (sh, sw) = b.ints(1, 5, 2).tolist(), b.ints(1, 4, 2).tolist()
    c, o, finish = int(b.ints(1, 40)), int(b.ints(4, 20)), int(b.ints(0, len(FINISHES)))
    pad = tuple(int(b.ints(0, k)) for k in (kh, kh, kw, kw))
    image = (TensorType((1, int(b.ints(kh, 12)), int(b.ints(kw, 12)), c), DType.I8), 128)
    w, bias, zero = (b.int8(kh, kw, c, o), "int8"), (b.ints(-9999, 9999, o), "int32"), int(b.ints(-128, 128))
    b.add(QConv2d((sh, sw), pad, pad_value=zero), image, w, bias)
    op = QConv2dRequantize((sh, sw), pad, pad_value=zero, **fields(finish))
    b.add(op, image, w, bias, *scales(b, o, finish))


def add_depthwise(b: Builder) -> None:
    """Up to 16 taps per channel."""
    (kh, kw), s = b.ints(1, 5, 2).tolist(), int(b.ints(1, 4))
    c, finish = int(b.ints(1, 30)), int(b.ints(0, 3))
    pad = tuple(int(b.ints(0, k)) for k in (kh, kh, kw, kw))
    image = (TensorType((1, int(b.ints(kh, 20)), int(b.ints(kw, 20)), c), DType.I8), 128)
    op = QConv2dRequantize((s, s), pad, groups=c, pad_value=int(b.ints(-128, 128)), **fields(finish))
    b.add(op, image, (b.int8(kh, kw, 1, c), "int8"), (b.ints(-9999, 9999, c), "int32"), *scales(b, c, finish))


def add_sum(b: Builder) -> None:
    """TFLite's add and subtract of any scales."""
    x = (TensorType((1, 3, int(b.ints(1, 30))), DType.I8), 128)
    za, zb, zero = b.ints(-128, 128, 3).tolist()
    ma, mb, my = b.ints(1 << 30, 1 << 31, 3).tolist()
    sa, sb, sy = int(b.ints(0, 6)), 0, int(b.ints(14, 22))
    b.add(TfliteAdd(1.0, zero, za, zb, ma, sa, mb, sb, my, sy, 1 if zero % 2 else -1), x, x)


def add_product(b: Builder) -> None:
    """Two computed tensors, zero points as they come."""
    turned, wide = b.ints(0, 2, 2).tolist()
    m, k, n = int(b.ints(2, 9)), int(b.ints(1, 4)) * (8 if wide else 16), int(b.ints(1, 9)) * 4
    op = QMatMul(bool(turned), int(b.ints(-128, 128)) * turned, int(b.ints(-128, 128)))
    left = TensorType((1, 2, m, k), DType.I16 if wide else DType.I8)
    right = TensorType((1, 2, n, k) if turned else (1, 2, k, n), DType.I8)
    b.add(op, (left, 1 << 15), (right, 128))


def add_norm(b: Builder) -> None:
    """Layer norm of rows that vary much and little, to int8 and int16."""
    for dtype, reach in ((DType.I8, 128), (DType.I8, 2), (DType.I16, 1 << 15), (DType.I16, 3)):
        c, shift, to = int(b.ints(1, 200)), int(b.ints(1, 20)), ("int8", "int16")[int(b.ints(0, 2))]
        lo, hi = DType(to).range
        op = QLayerNorm(to, 1.0, 0, int(b.ints(1, 1 << int(b.ints(1, 50)))), shift, lo + 3, hi)
        offset = b.ints(-(1 << 30), 1 << 30, c)
        b.add(op, (frame_type(dtype, 1, 3, c), reach), (b.ints(-(1 << 31), 1 << 31, c), "int32"), (offset, "int32"))


def add_softmax(b: Builder) -> None:
    """Rows of one element and more, from even to one that has it all."""
    for dtype, reach in ((DType.I8, 128), (DType.I16, 1 << 15), (DType.I32, (1 << 30) - 1)):
        x = TensorType((1, 2, 3, int(b.ints(1, 150))), dtype)
        b.add(exponent(10.0 ** float(b.rng.uniform(-2, 2)) / reach), (x, reach))
    b.add(exponent(1e-4), (TensorType((1, 2, 700), DType.I8), 128))  # the sum has 25 bits
    b.add(QLut(), (TensorType((1, int(b.ints(1, 50))), DType.I8), 128), (b.ints(-128, 128, 256), "int8"))


def add_mul(b: Builder) -> None:
    """Elementwise products of both types, with zero points and without, raised and not."""
    shape, (za, zb, zero) = (1, 2, int(b.ints(1, 40))), b.ints(-128, 128, 3).tolist()
    i8, i16 = TensorType(shape, DType.I8), TensorType(shape, DType.I16)
    for a, c in ((i8, i8), (i8, i16), (i16, i8), (i16, i16)):
        bits = 15 + 8 * sum(t.dtype is DType.I16 for t in (a, c))
        to, m = ("int8", "int16")[int(b.ints(0, 2))], int(b.ints(1, 1 << 31))
        least, most = DType(to).range
        at_ends = [(zero, za, zb), (0, 0, 0)][a is c is i16]
        op = QMul(to, 1.0, *at_ends, m, int(b.ints(bits, 58)), least + 5 * (zero > 0), most)
        b.add(op, (a, 1 << 15), (c, 1 << 15))
    op = TfliteMul(1.0, zero, za, zb, int(b.ints(1 << 30, 1 << 31)), int(b.ints(28, 45)), -100, 120)
    b.add(op, (i8, 128), (i8, 128))


def add_front_end(b: Builder) -> None:
    """Spectra of several lengths, with a last stage of radix 2 and without."""
    for op, (pcm,) in QLogMel.samples():
        b.add(op, (pcm, 1 << 15))


def check(b: Builder, device: str, target: str, toolchain: str = "zig") -> list[str]:
    """The graph with the kernels for Helium on a device: the bytes of the reference. Returns the variants."""
    graph, rng = b.graph(), np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as work:
        plan = write_folder(graph, dataclasses.replace(load_target("cortex-m55"), name=target), Path(work))
        options = {} if device == "host" else {"toolchain": toolchain}
        manifest = read_manifest(work)
        with open_device(device, work, manifest, load_target(target), **options) as opened:  # type: ignore[arg-type]
            for rate in (0.0, 1.0):  # anything, then the ends of the range
                frame = random_frame(graph, b.reach, rng, rate)
                found = opened.step([storage(frame[v.name], v.type) for v in graph.inputs])
                expected = StepRunner(graph).step({n: torch.from_numpy(a) for n, a in frame.items()})
                assert found is not None
                assert expected is not None
                for node, y, r in zip(graph.nodes, found, expected, strict=True):
                    shapes = [t.shape for t in graph.input_types(node)]
                    assert y.tobytes() == storage(r.numpy(), node.type).tobytes(), f"{node.op} of {shapes}"
    return [c.variant for c in plan.calls]


def random_layers(seed: int) -> Builder:
    b = Builder(seed)
    for _ in range(3):
        for add in (
            add_linear,
            add_convolution,
            add_depthwise,
            add_sum,
            add_product,
            add_mul,
            add_norm,
            add_softmax,
            add_front_end,
        ):
            add(b)
    return b


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_layers_on_the_host(seed: int) -> None:
    variants = check(random_layers(seed), "host", "host")
    names = ["linear", "windows", "depth", "add", "product", "mul", "norm", "softmax", "lut", "fft"]
    own = {f"{name}_mve" for name in names}
    assert own <= set(variants)
    others = {"generic", "rows_dsp", "windows_dsp", "dense_dsp", "event_dsp", "silence_dsp", "spikes_dsp"}
    assert {v for v in variants if not v.endswith("_mve")} <= others


@needs("qemu-system-arm")
@pytest.mark.parametrize("toolchain", ["zig", "gcc"])
def test_random_layers_on_qemu(toolchain: str) -> None:
    if toolchain == "gcc" and shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    check(random_layers(11), "qemu", "cortex-m55", toolchain)


@needs("qemu-system-arm")
@pytest.mark.parametrize("toolchain", ["zig", "gcc"])
def test_every_kernel_on_qemu(toolchain: str) -> None:
    if toolchain == "gcc" and shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    bench = Bench("qemu", "cortex-m55", toolchain=toolchain)
    with bench.device:
        bench.check_seeded((0.0, 0.15, 1.0) * 3)


@needs("qemu-system-arm")
@pytest.mark.parametrize("name", MODELS)
def test_mlperf_tiny_on_qemu(name: str, tmp_path: Path) -> None:
    """LiteRT's bytes, within the instructions that were promised."""
    pytest.importorskip("tflite")
    file, vectors, limit = MODELS[name]
    compiled = compile_model(DATA / file, "cortex-m55", tmp_path / name)
    with np.load(DATA / vectors) as data, compiled.device("qemu", counting=True) as device:
        for x, y in list(zip(data["x_i8"], data["y_i8"], strict=True))[:2]:
            device.reset()
            found = device.step([x[None]])
            assert found is not None
            np.testing.assert_array_equal(found[0].reshape(-1), y)
            assert 0 < device.counters.instructions <= limit


def test_a_relu_hides_how_halves_round() -> None:
    low, high = np.array([-9999]), np.array([9999])
    scale = np.array([1 << 30]), np.array([36])
    for zero, lo, suffix in ((-128, -128, "i8_up"), (3, 3, "i8_up"), (3, -128, "i8_tflite")):
        finish = finish_of(Requantize("int8", 1.0, zero, lo, 127, "tflite"), *scale, low, high)
        assert finish is not None
        assert finish.suffix == suffix


def test_sums_that_32_bits_do_not_hold_are_left_to_other_kernels() -> None:
    low, high = np.array([-(1 << 30)]), np.array([1 << 30])
    op = Requantize("int16", 1.0, 0, -32768, 32767)
    assert finish_of(op, np.array([1 << 30]), np.array([30]), low, high) is None
    assert finish_of(op, np.array([1 << 30]), np.array([40]), low, high) is not None
    assert finish_of(Requantize(), np.array([1 << 30]), np.array([30]), low // 4096, high // 4096) is None


def test_adds_are_proven_for_every_pair() -> None:
    """1.5 / 2 of two odd halves is a tie: away from zero differs from up below it."""
    assert rounds_half_up(TfliteAdd(1.0, -128, -128, -128, 1400000000, 0, 1 << 30, 0, 1500000000, 19))
    assert not rounds_half_up(TfliteAdd(1.0, 0, 0, 0, 1 << 30, 0, 1 << 30, 0, 1 << 30, 19))
