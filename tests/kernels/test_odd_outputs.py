"""Layers with a few outputs that no fast kernel takes: the rest keeps its kernel, and every byte is the reference's."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from edgec.ir.graph import Graph
from edgec.ir.types import DType, TensorType
from edgec.kernels import select
from edgec.kernels.odd_outputs import settled
from edgec.ops import QConv2d, QConv2dRequantize, QLinearRequantize, Requantize
from edgec.ops.base import Site
from edgec.ops.integer.requantize import accumulator_bounds
from tests.kernels.every_kernel import Bench
from tests.kernels.node_builder import Builder, frame_type

#: kernel, channels, outputs, depthwise, image
LAYERS = (
    ((3, 3), 8, 12, False, (6, 5)), ((1, 1), 16, 8, False, (4, 4)), ((3, 3), 16, 16, True, (6, 6)),
    ((5, 5), 16, 16, True, (6, 6)), ((1, 3), 4, 16, False, (3, 9)),
)  # fmt: skip
KINDS = ("empty", "empty_high", "dead", "deader", "steep", "least", "biased")
MODES = (("single", "int8", -128, -128, 127), ("single", "int8", 5, -128, 100), ("tflite", "int8", -9, -9, 90),
         ("tflite", "int8", 11, -128, 127), ("single", "int16", 0, -32768, 32767))  # fmt: skip


def plant(b: Builder, kind: str, at: int, w: np.ndarray, bias: np.ndarray, m: np.ndarray, s: np.ndarray) -> None:
    """Output `at` becomes odd."""
    if kind.startswith("empty"):  # no weights, and a bias as quantisers write it for a ratio near zero
        w[..., at], bias[at], s[at] = 0, (-1 if kind == "empty" else 1) << int(b.ints(29, 31)), 31
    elif kind in ("dead", "deader"):  # some levels above the zero point, moved by a level or two
        s[at] = 48 if kind == "dead" else 52
        bias[at] = round(3.5 * 2.0 ** int(s[at]) / float(m[at])) - 400
    elif kind == "steep":
        s[at] = 31
    elif kind == "least":
        w[..., at] = -128
    else:  # beyond 24 bits, not constant
        s[at], bias[at] = 48, (1 << 23) + 12345


def add_layer(b: Builder, kind: str, mode: tuple[str, str, int, int, int], layer: tuple, ats: tuple[int, ...]) -> None:
    """A convolution with odd outputs at `ats`."""
    kernel, c, o, depthwise, image = layer
    rounding, dtype, zero, lo, hi = mode
    w = b.int8(*kernel, 1 if depthwise else c, o)
    bias, m, s = b.ints(-9999, 9999, o), b.ints(1 << 30, 1 << 31, o), b.ints(38, 43, o)
    if dtype == "int16":
        s = s - 7
    for at in ats:
        plant(b, kind, at, w, bias, m, s)
    pad = tuple(k // 2 for k in kernel for _ in (0, 1))
    levels = {"dtype": dtype, "zero_point": zero, "lo": lo, "hi": hi, "rounding": rounding}
    op = QConv2dRequantize(pad=pad, groups=c if depthwise else 1, pad_value=-7, **levels)
    x = (TensorType((1, *image, c), DType.I8), 128)
    b.add(op, x, (w, "int8"), (bias, "int32"), (m, "int32"), (s, "int32"))


def odd_layers() -> tuple[Graph, dict[str, int]]:
    """Every kind of odd output in every kind of layer."""
    b = Builder(seed=5)
    for number, kind in enumerate(KINDS):
        for k, layer in enumerate(LAYERS):
            mode, o = MODES[(number + k) % len(MODES)], layer[2]
            if mode[1] == "int16" and layer[3]:
                mode = MODES[0]
            add_layer(b, kind, mode, layer, ((0,), (o - 1,), (1, 2, o - 2))[(number + k) % 3])
        for rows, o, mode in ((5, 12, MODES[0]), (1, 12, MODES[1]), (4, 8, MODES[4])):
            rounding, dtype, zero, lo, hi = mode
            w, bias = b.int8(40, o), b.ints(-9999, 9999, o)
            m, s = b.ints(1 << 30, 1 << 31, o), b.ints(38, 43, o) - (7 if dtype == "int16" else 0)
            plant(b, kind, (0, o - 1, 3)[number % 3], w, bias, m, s)
            op, x = QLinearRequantize(dtype, 1.0, zero, lo, hi, rounding), (frame_type(DType.I8, 1, rows, 40), 128)
            b.add(op, x, (w, "int8"), (bias, "int32"), (m, "int32"), (s, "int32"))
    for kind in ("empty", "dead", "deader", "biased"):  # few bits
        for dtype, x in (("int4", DType.I8), ("int2", DType.I8), ("int4", DType.I4)):
            low, high = DType(dtype).range
            w, bias = b.ints(low + 1, high + 1, 32, 12), b.ints(-999, 999, 12)
            m, s = b.ints(1 << 30, 1 << 31, 12), b.ints(36, 40, 12)
            plant(b, kind, 3, w, bias, m, s)
            for rows in (6, 1):
                xs = (frame_type(x, 1, rows, 32), 128)
                b.add(QLinearRequantize(zero_point=-9), xs, (w, dtype), (bias, "int32"), (m, "int32"), (s, "int32"))
    for kind in ("empty", "biased"):  # sums that stay
        w, bias = b.int8(3, 3, 8, 12), b.ints(-9999, 9999, 12)
        plant(b, kind, 4, w, bias, b.ints(1 << 30, 1 << 31, 12), b.ints(38, 43, 12))
        b.add(QConv2d(pad=(1, 1, 1, 1)), (TensorType((1, 5, 5, 8), DType.I8), 128), (w, "int8"), (bias, "int32"))
    shift = b.ints(38, 43, 12)
    shift[[0, 7]] = 60, 26
    x = (frame_type(DType.I32, 1, 2, 12), 1 << 31)
    b.add(Requantize("int8", 1.0, -100), x, (b.ints(1 << 30, 1 << 31, 12), "int32"), (shift, "int32"))
    return b.graph(), b.reach


def site_of(graph: Graph, number: int, ordinary: bool) -> tuple[Any, Site]:
    """A node and what its kernel sees; `ordinary` copies a layer's third output, which is not odd, to all others."""
    node = graph.nodes[number]
    consts = {k: graph.consts[i].data for k, i in enumerate(node.inputs) if i in graph.consts}
    if ordinary:
        depthwise = getattr(node.op, "groups", 1) > 1
        plain = 3 if not depthwise else 4
        consts = {k: np.repeat(v[..., plain : plain + 1], v.shape[-1], -1) for k, v in consts.items()}
    return node.op, Site(tuple(graph.type_of(i) for i in node.inputs), node.types, (), consts)


@pytest.mark.parametrize("isa", [("arm_dsp", "generic"), ("scalar", "generic"), ("neon", "generic"),
                                 ("helium", "arm_dsp", "generic")], ids=lambda i: i[0])  # fmt: skip
def test_no_layer_falls_to_the_generic_kernel(isa: tuple[str, ...]) -> None:
    """A layer with odd outputs takes a kernel of its instruction set wherever the same layer without them does."""
    graph, _ = odd_layers()
    for number, node in enumerate(graph.nodes):
        found, before = (select(*site_of(graph, number, ordinary), isa)[0] for ordinary in (False, True))
        assert (found == "generic") <= (before == "generic"), f"layer {number}, {node.op}: {before} -> {found}"


@pytest.mark.parametrize("rounding", ["single", "tflite"])
def test_a_constant_output_keeps_its_level(rounding: str) -> None:
    """Whatever its bias, and with weights that cannot move it: the same level from operands that every kernel takes."""
    rng = np.random.default_rng(2)
    w = rng.integers(-128, 128, (9, 6)).astype(np.int8)
    w[:, :4] = 0
    bias = np.array([1 << 30, -(1 << 30), (1 << 31) - 1, 77, 500, -500], np.int32)
    scales = np.full(6, 1 << 30, np.int32), np.array([31, 31, 60, 33, 62, 40], np.int32)
    last = Requantize("int8", 1.0, -20, -20, 100, rounding)
    op = QLinearRequantize("int8", 1.0, -20, -20, 100, rounding)
    types = (TensorType((1, 9), DType.I8), TensorType((9, 6), DType.I8), *[TensorType((6,), DType.I32)] * 3)
    site = Site(types, op.infer(types), (), dict(zip((1, 2, 3, 4), (w, bias, *scales), strict=True)))
    calm = settled(op, site)
    x = rng.integers(-128, 128, (500, 9))
    for level in (0, 1, 2, 3, 4):
        assert abs(int(calm.consts[2][level])) <= 8 * 255
        assert int(calm.consts[4][level]) == 33
    wanted, found = (
        last.levels(x @ s.consts[1].astype(np.int64) + s.consts[2], *(s.consts[k] for k in (3, 4)))
        for s in (site, calm)
    )
    np.testing.assert_array_equal(found, wanted)
    low, high = accumulator_bounds(calm.consts[1], calm.consts[2], (-128, 127))
    assert int(max(abs(low).max(), abs(high).max())) < 1 << 23


HOSTS = [(("arm_dsp", "generic"), "gcc"), (("scalar", "generic"), "gcc"), (("neon", "generic"), "gcc"),
         (("helium", "arm_dsp", "generic"), "zig")]  # fmt: skip
CORES = ["cortex-m4", "cortex-m7", "cortex-m0plus", "cortex-m33"]


@pytest.mark.parametrize(("isa", "cc"), HOSTS, ids=lambda p: p[0] if isinstance(p, tuple) else p)
def test_host(isa: tuple[str, ...], cc: str) -> None:
    if cc != "zig" and shutil.which(cc) is None:
        pytest.skip(f"{cc} is not installed")
    bench = Bench("host", "host", isa, cc=cc, make=odd_layers)
    with bench.device:
        bench.check_seeded((0.5, 0.5, 1.0))


@pytest.mark.parametrize("target", CORES)
def test_emulated_core(target: str) -> None:
    pytest.importorskip("unicorn")
    bench = Bench("unicorn", target, make=odd_layers)
    with bench.device:
        bench.check_seeded((0.5, 0.5, 1.0))


@pytest.mark.parametrize(
    ("kind", "target", "tool"),
    [("qemu", "cortex-m55", "qemu-system-arm"), ("qemu-aarch64", "cortex-a53", "qemu-aarch64")],
)
def test_qemu(kind: str, target: str, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    bench = Bench(kind, target, make=odd_layers)
    with bench.device:
        bench.check_seeded((0.5, 0.5, 1.0))
