"""Constant channels go and no output byte changes: random integer networks with planted channels, and each rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.ir.evaluate import evaluate, evaluate_all
from edgec.ir.graph import Graph
from edgec.ir.types import DType
from edgec.ir.verify import verify
from edgec.ops import (
    Concat,
    Conv2d,
    QAdd,
    QAffine,
    QAvgPool2d,
    QConv1d,
    QConv2dRequantize,
    QLinear,
    QLinearRequantize,
    QLut,
    QMaxPool2d,
    QMean,
    Relu,
    Requantize,
    Reshape,
    TfliteAdd,
    TfliteAvgPool2d,
)
from edgec.passes.channels.drop_constant_channels import DropConstantChannels, savings
from edgec.passes.channels.intervals import intervals
from edgec.pipeline import compile_model
from edgec.printing import print_report
from tests.graphs import Builder

SHARE = 0.4  # of planted channels


def constants(b: Builder, outputs: int, *shape: int) -> list[str]:
    """Weights, bias, multiplier and shift of a layer: some outputs have no weights, some saturate."""
    w = b.rng.integers(-127, 128, (*shape, outputs))
    dead, loud = b.rng.random((2, outputs)) < [[SHARE], [SHARE / 4]]
    w[..., dead] = 0
    bias = np.where(loud, 1 << 29, 1) * b.rng.integers(-3000, 3000, outputs).clip(-3, 3)
    bias = np.where(loud, bias, b.rng.integers(-30000, 30000, outputs))
    reach = 127 * 40 * np.sqrt(np.prod(shape))
    multiplier, shift = b.rng.integers(1 << 30, 1 << 31, outputs), int(31 + np.log2(reach / 127))
    return [
        b.const(w, "int8"),
        b.const(bias, "int32"),
        b.const(multiplier, "int32"),
        b.const([shift] * outputs, "int32"),
    ]


def channels_of(b: Builder, x: str) -> int:
    return b.types[x].shape[-1]


def zero(b: Builder) -> int:
    return int(b.rng.integers(-40, 41))


def dense(b: Builder, x: str, k: int | None = None, outputs: int | None = None) -> str:
    """A convolution of one or nine pixels; its padding has some constant's value, the zero point or another."""
    k = k or int(b.rng.choice([1, 3]))
    outputs = outputs or int(b.rng.integers(1, 14))
    x_zero = b.types[x].quant.zero_point if b.types[x].quant else 0
    rounding = str(b.rng.choice(["single", "tflite"]))
    lo = int(b.rng.choice([-128, zero(b)]))
    pad = (k // 2,) * 4 if b.rng.integers(2) else (0, 0, 0, 0)
    if k > 1 and min(b.types[x].shape[1:3]) < k:
        pad = (1, 1, 1, 1)
    op = QConv2dRequantize((1, 1), pad, (1, 1), 1, x_zero, "int8", 0.1, zero(b), lo, 127, rounding)
    return b.emit(op, x, *constants(b, outputs, k, k, channels_of(b, x)))


def depthwise(b: Builder, x: str) -> str:
    c, multi = channels_of(b, x), int(b.rng.choice([1, 1, 2]))
    x_zero = b.types[x].quant.zero_point if b.types[x].quant else 0
    op = QConv2dRequantize((1, 1), (1, 1, 1, 1), (1, 1), c, x_zero, "int8", 0.1, zero(b), zero(b) - 60, 127)
    return b.emit(op, x, *constants(b, c * multi, 3, 3, 1))


def residual(b: Builder, x: str) -> str:
    y = dense(b, x, 1, channels_of(b, x))
    if b.types[x].shape != b.types[y].shape:
        return y
    if b.rng.integers(2):
        return b.emit(TfliteAdd(0.1, zero(b), zero(b), zero(b), 1 << 30, 1, 1 << 30, 0, 1 << 30, 19), x, y)
    return b.emit(QAdd("int8", 0.1, zero(b), 0, 0, 3, 5, 3, -128, 127), x, y)


def pool(b: Builder, x: str) -> str:
    if min(b.types[x].shape[1:3]) < 2:
        return x
    kind = int(b.rng.integers(3))
    if kind == 0:
        return b.emit(QMaxPool2d((2, 2), (1, 1)), x)
    if kind == 1:
        return b.emit(TfliteAvgPool2d((2, 2), (1, 1), (1, 0, 0, 1)), x)
    return b.emit(QAvgPool2d((2, 2), (1, 1), (0, 0, 0, 0), 0, 0.1, zero(b), 3, 1 << 13, 15), x)


def table(b: Builder, x: str) -> str:
    levels = np.clip(np.arange(-128, 128) * float(b.rng.choice([0.0, 0.5, -1.0])) + zero(b), -128, 127)
    return b.emit(QLut(0.1, zero(b)), x, b.const(levels, "int8"))


def affine(b: Builder, x: str) -> str:
    c = channels_of(b, x)
    factors = b.rng.integers(-60, 61, c) * (b.rng.random(c) > SHARE)
    return b.emit(
        QAffine("int8", 0.1, zero(b), 6, -128, 127),
        x,
        b.const(factors, "int32"),
        b.const(b.rng.integers(-999, 999, c), "int32"),
    )


def branches(b: Builder, x: str) -> str:
    return b.emit(Concat(), dense(b, x, 1), dense(b, x, 1))


def head(b: Builder, x: str) -> str:
    _, h, w, c = b.types[x].shape
    kind, outputs = int(b.rng.integers(3)), int(b.rng.integers(1, 6))
    if kind == 0:
        rows = b.emit(Reshape((1, h * w, c)), x)
        x, features = b.emit(QMean(1, 0.1, zero(b)), rows, b.const([1 << 30], "int32"), b.const([30], "int32")), c
    else:
        x, features = b.emit(Reshape((1, h * w * c)), x), h * w * c
    w, bias, *scales = constants(b, outputs, features)
    if kind == 1:
        return b.emit(QLinearRequantize("int8", 0.1, zero(b)), x, w, bias, *scales)
    return b.emit(Requantize("int8", 0.1, zero(b)), b.emit(QLinear(), x, w, bias), *scales)


BLOCKS = [dense, depthwise, residual, pool, table, affine, branches]


@st.composite
def networks(draw: Any) -> Graph:
    b = Builder(seed=draw(st.integers(0, 2**32)))
    x = b.input(
        "x", 1, draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 5)), time=None, dtype=DType.I8
    )
    x = dense(b, x)
    for block in draw(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=6)):
        x = block(b, x)
    return b.build(head(b, x) if draw(st.booleans()) else dense(b, x))


def same_bytes(graph: Graph, after: Graph, count: int = 4) -> None:
    verify(after)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        x = rng.integers(-128, 128, graph.inputs[0].type.shape)
        if seed < 2:
            x[:] = (-128, 127)[seed]
        values = {graph.inputs[0].name: torch.from_numpy(x)}
        for old, new in zip(evaluate(graph, values), evaluate(after, values), strict=True):
            assert torch.equal(old, new)


@settings(max_examples=40, deadline=None)
@given(networks(), st.sampled_from([1, 4]))
def test_no_output_byte_changes(graph: Graph, aligned: int) -> None:
    after = DropConstantChannels(aligned).run(graph)
    same_bytes(graph, after)


@settings(max_examples=15, deadline=None)
@given(networks(), st.integers(0, 2**16))
def test_intervals_hold(graph: Graph, seed: int) -> None:
    found = intervals(graph)
    x = torch.from_numpy(np.random.default_rng(seed).integers(-128, 128, graph.inputs[0].type.shape))
    for name, value in evaluate_all(graph, {"x": x}).items():
        assert (found[name].lo <= value).all(), name
        assert (value <= found[name].hi).all(), name


def layer(b: Builder, x: str, w: Any, bias: Any, pad: int = 0, pad_value: int = 0, groups: int = 1) -> str:
    """A convolution whose sums are halved; weights [KH,KW,C,O]."""
    n = np.shape(w)[-1]
    scales = [b.const([1 << 30] * n, "int32"), b.const([31] * n, "int32")]
    op = QConv2dRequantize(pad=(pad,) * 4, groups=groups, pad_value=pad_value)
    return b.emit(op, x, b.const(w, "int8"), b.const(bias, "int32"), *scales)


def image(b: Builder, channels: int) -> str:
    return b.input("x", 1, 4, 4, channels, time=None, dtype=DType.I8)


def shapes(graph: Graph) -> list[int]:
    return [n.type.shape[-1] for n in DropConstantChannels(1).run(graph).nodes]


@pytest.mark.parametrize(("constant", "zones"), [(7, 1), (9, 9)])
def test_a_constant_meets_padding(constant: int, zones: int) -> None:
    """Channel 1 is `constant`; the depthwise layer pads with 7. Where they are equal its sums are one value, else the
    bias of the last layer has nine zones: corners, edges, inside."""
    b = Builder()
    x, w = image(b, 2), b.rng.integers(-50, 50, (1, 1, 2, 3))
    w[..., 1] = 0
    x = layer(b, x, w, [0, 2 * constant, 0])
    x = layer(b, x, b.rng.integers(0, 3, (3, 3, 1, 3)), [0, 0, 0], 1, 7, groups=3)
    graph = b.build(layer(b, x, b.rng.integers(-50, 50, (1, 1, 3, 3)), [0, 1, 2]))
    after = DropConstantChannels(1).run(graph)
    assert shapes(graph) == [2, 2, 3]
    same_bytes(graph, after)
    where_kernels_lack_zones = DropConstantChannels(1, zones=False).run(graph)
    assert where_kernels_lack_zones.nodes[0].type.shape[-1] == (2 if zones == 1 else 3)
    assert not any(n.op.row_zone for n in where_kernels_lack_zones.nodes)
    same_bytes(graph, where_kernels_lack_zones)
    last = after.nodes[-1]
    assert after.consts[last.inputs[2]].data.size == 3 * zones
    assert last.op.row_zone == ((1, 0, 0, 2) if zones > 1 else ())


def test_the_goal_of_size_weighs_zones() -> None:
    """Behind a 3x3 layer the biases of nine zones take more than the weights of one input, and less than of many."""
    for constants, left in ((1, 2), (30, 1)):
        b = Builder()
        x, w = image(b, 2), b.rng.integers(-50, 50, (1, 1, 2, 1 + constants))
        w[..., 1:] = 0
        x = layer(b, x, w, [0] + [254] * constants)
        x = layer(b, x, b.rng.integers(1, 50, (3, 3, 1 + constants, 20)), [0] * 20, 1, -128)
        graph = b.build(x)
        after = DropConstantChannels(1, "size").run(graph)
        assert [n.type.shape[-1] for n in after.nodes] == [left, 20]
        assert shapes(graph) == [1, 20]
        same_bytes(graph, after)
        same_bytes(graph, DropConstantChannels(1).run(graph))


def test_a_channel_nobody_reads_goes_with_its_producers() -> None:
    """Filter 2 of the depthwise layer is zero, so what comes before it is not needed either."""
    b = Builder()
    x = layer(b, image(b, 2), b.rng.integers(-50, 50, (1, 1, 2, 4)), [1, 2, 3, 4])
    w = b.rng.integers(1, 9, (3, 3, 1, 4))
    w[..., 2] = 0
    x = layer(b, x, w, [5, 6, 7, 8], 1, 0, groups=4)
    graph = b.build(layer(b, x, b.rng.integers(-50, 50, (1, 1, 4, 3)), [0, 1, 2]))
    assert shapes(graph) == [3, 3, 3]
    same_bytes(graph, DropConstantChannels(1).run(graph))


def test_saturated_channels_are_constant() -> None:
    b = Builder()
    x = layer(b, image(b, 2), b.rng.integers(-50, 50, (1, 1, 2, 3)), [0, 1 << 20, -(1 << 20)])
    graph = b.build(layer(b, x, b.rng.integers(-50, 50, (1, 1, 3, 3)), [0, 1, 2]))
    assert shapes(graph) == [1, 3]
    same_bytes(graph, DropConstantChannels(1).run(graph))


def test_channels_stay_in_multiples() -> None:
    b = Builder()
    w = b.rng.integers(-50, 50, (1, 1, 2, 12))
    w[..., :7] = 0
    x = layer(b, image(b, 2), w, range(12))
    graph = b.build(layer(b, x, b.rng.integers(-50, 50, (1, 1, 12, 5)), [0] * 5))
    after = DropConstantChannels().run(graph)
    assert [n.type.shape[-1] for n in after.nodes] == [8, 5]
    same_bytes(graph, after)
    assert savings(graph, after) == {
        "layers": [{"name": "t0", "before": 12, "after": 8}],
        "channels": 4,
        "macs": 16 * 4 * 2 + 16 * 4 * 5,
        "bytes": 4 * (2 + 4 + 4 + 4) + 4 * 5,
        "zones": {},
        "kept": 3,
    }


def test_frames_of_any_stream() -> None:
    """Along time padding meets some frames only, so a constant goes where it equals the padding."""
    for pad_value, left in ((3, 2), (4, 3)):
        b = Builder()
        x = b.input("x", 1, 6, 2, dtype=DType.I8)
        w = b.rng.integers(-50, 50, (1, 2, 3))
        w[..., 1] = 0
        scales = [b.const([1 << 30], "int32"), b.const([33], "int32")]
        sums = b.emit(QConv1d(), x, b.const(w, "int8"), b.const([0, 24, 0], "int32"))
        x = b.emit(Requantize(), sums, *scales)
        op = QConv1d(pad=(1, 1), pad_value=pad_value)
        graph = b.build(b.emit(op, x, b.const(b.rng.integers(-50, 50, (3, 3, 2)), "int8"), b.const([0, 0], "int32")))
        assert shapes(graph) == [left, left, 2]
        same_bytes(graph, DropConstantChannels(1).run(graph))


def test_of_floats_only_zeros_go(tmp_path: Path) -> None:
    b = Builder()
    x, w = b.input("x", 1, 4, 4, 2, time=None), b.rng.normal(size=(1, 1, 2, 4))
    w[..., :2] = 0
    x = b.emit(Relu(), b.emit(Conv2d(), x, b.const(w), b.const([-1.0, 1.0, 0.5, -0.5])))
    x = b.emit(Conv2d(pad=(1, 1, 1, 1)), x, b.normal(3, 3, 4, 3), b.normal(3))
    graph = b.build(x)
    assert shapes(graph) == [3, 3, 3]
    verify(DropConstantChannels(1).run(graph))
    image, found = b.rng.normal(size=(1, 4, 4, 2)).astype(np.float32), []
    for drop in (False, True):
        out = tmp_path / str(drop)
        model = compile_model(graph, "host", out, precision="float32", drop_constant_channels=drop)
        found.append(model.step(image).tobytes())
    assert found[0] == found[1]


def planted() -> Graph:
    """Pixelwise and depthwise layers with constant channels of every kind, and a head."""
    b = Builder(seed=3)
    x = dense(b, b.input("x", 1, 6, 6, 4, time=None, dtype=DType.I8), 3, 16)
    x = depthwise(b, x)
    x = dense(b, residual(b, x), 1, 12)
    return b.build(head(b, depthwise(b, x)))


def test_the_library_computes_the_same_bytes(tmp_path: Path) -> None:
    """For the M4: on the host and on the emulated core, with and without; the report says what went."""
    graph, found = planted(), []
    rng = np.random.default_rng(0)
    inputs = [rng.integers(-128, 128, graph.inputs[0].type.shape).astype(np.int8) for _ in range(3)]
    for drop in (False, True):
        model = compile_model(graph, "cortex-m4", tmp_path / str(drop), drop_constant_channels=drop)
        for kind in ("host", "unicorn"):
            with model.device(kind) as device:
                found.append([device.step([x])[0].tobytes() for x in inputs])  # type: ignore[index]
        assert ("dropped" in model.report) == drop
    assert all(f == found[0] for f in found)
    assert found[0] == [
        evaluate(graph, {"x": torch.from_numpy(x)})[0].numpy().astype(np.int8).tobytes() for x in inputs
    ]
    assert model.report["dropped"]["channels"] > 8
    assert model.report["totals"]["macs"] < sum(n.op.cost(graph.input_types(n), n.types).macs for n in graph.nodes)
    print_report(model.report)
