"""Float graphs become integer graphs that mean the same: random networks, residual streams, overflow, streaming."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.errors import PassError
from edgec.ir.evaluate import StepRunner, evaluate
from edgec.ir.graph import Graph
from edgec.ir.types import DType, QuantParams
from edgec.ops import (
    Add,
    Affine,
    AvgPool2d,
    Clip,
    Concat,
    Conv1d,
    Conv2d,
    Gelu,
    Lif,
    Linear,
    LmuMemory,
    LogMel,
    MaxPool2d,
    Mean,
    Mul,
    Permute,
    Relu,
    Relu6,
    Reshape,
    RunningMean,
    Sigmoid,
    Sub,
    Tanh,
)
from edgec.passes.quantize.calibrate import calibrate
from edgec.passes.quantize.compare import compare
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.streaming.make_streaming import MakeStreaming
from tests.graphs import Builder, conv, lif, streaming_nets
from tests.passes.quantize.quantize_tools import assert_stays_in_int32, extreme_inputs, quantized, samples


def linear(b: Builder, x: str, outputs: int) -> str:
    c = b.types[x].shape[-1]
    return b.emit(Linear(), x, b.normal(c, outputs, scale=1.2 / np.sqrt(c)), b.normal(outputs, scale=0.3))


def final_sqnr(graph: Graph) -> float:
    data = samples(graph)
    return compare(graph, quantized(graph, data), data)[-1].sqnr


def draw_affine(draw: Any, b: Builder, x: str) -> str:
    c = b.types[x].shape[-1]
    return b.emit(Affine(axis=-1), x, b.normal(c), b.normal(c))


BLOCKS: list[Any] = [
    lambda draw, b, x: linear(b, x, draw(st.integers(1, 9))),
    lambda draw, b, x: conv(b, x, draw(st.integers(1, 6)), 3, (draw(st.integers(0, 2)), 1), draw(st.integers(1, 2))),
    lambda draw, b, x: b.emit(draw(st.sampled_from([Relu(), Relu6(), Gelu(), Sigmoid(), Tanh(), Clip(-0.7, 0.9)])), x),
    lambda draw, b, x: b.emit(Add(), x, linear(b, x, b.types[x].shape[-1])),
    lambda draw, b, x: b.emit(Relu(), b.emit(Add(), x, linear(b, x, b.types[x].shape[-1]))),
    lambda draw, b, x: b.emit(Concat(), x, linear(b, x, draw(st.integers(1, 4)))),
    draw_affine,
]


@st.composite
def dense_nets(draw: Any) -> Graph:
    """Networks without neurons: their integer form must be close everywhere."""
    b = Builder(seed=draw(st.integers(0, 2**16)))
    x = b.input("x", 1, 12, draw(st.integers(2, 6)))
    for _ in range(draw(st.integers(1, 4))):
        x = draw(st.sampled_from(BLOCKS))(draw, b, x)
    if draw(st.booleans()):
        x = b.emit(draw(st.sampled_from([Mean(1), RunningMean()])), x)
    return b.build(x)


@given(dense_nets())
@settings(max_examples=60, deadline=None)
def test_random_networks_stay_close(graph: Graph) -> None:
    data = samples(graph)
    rows = compare(graph, quantized(graph, data), data)
    spans = {name: np.ptp(s.extremes()) for name, s in calibrate(graph, data).items()}
    for row in rows:
        stem = row.name if row.name in spans else row.name.rsplit("_", 1)[0]
        assert row.error <= 0.03 * spans[stem] + 1e-6, f"%{row.name}: {row}"


@given(streaming_nets())
@settings(max_examples=40, deadline=None)
def test_every_integer_network_streams_to_the_same_bits_and_never_overflows(graph: Graph) -> None:
    if any(isinstance(n.op, LmuMemory) and n.op.form == "recurrent" for n in graph.nodes):
        return
    integer = quantized(graph)
    step = MakeStreaming().run(integer)
    for kind in ("lo", "hi", "random", "turns"):
        inputs = extreme_inputs(integer, kind)
        assert_stays_in_int32(integer, inputs)
        frames = [out[0] for out in StepRunner(step).run(inputs)]
        assert torch.equal(torch.cat(frames, 1), evaluate(integer, inputs)[0])


def residual_net(adds: int = 2) -> Graph:
    b = Builder()
    x = b.input("x", 1, 20, 8)
    y = linear(b, x, 8)
    for _ in range(adds):
        s = lif(b, b.emit(Affine(axis=-1), y, b.normal(8), b.normal(8)))
        y = b.emit(Add(), y, linear(b, s, 8))
    return b.build(y)


def test_a_residual_stream_is_int16_with_one_scale() -> None:
    graph = quantized(residual_net())
    adds = [n for n in graph.nodes if n.op.name == "qadd"]
    assert len(adds) == 2
    quants = {graph.type_of(i).quant for n in adds for i in (*n.inputs, *n.outputs)}
    assert len(quants) == 1
    assert all(n.type.dtype is DType.I16 and (n.op.ma, n.op.mb, n.op.shift) == (1, 1, 0) for n in adds)


def test_affine_maps_leave_no_node() -> None:
    ops = [n.op.name for n in quantized(residual_net()).nodes]
    assert "qaffine" not in ops
    assert ops.count("qlif") == 2


def test_folded_nodes_keep_their_source_lines() -> None:
    graph = quantized(residual_net())
    neuron = next(n for n in graph.nodes if n.op.name == "qlif")
    assert neuron.source == ("net.py:2", "net.py:3")


def test_one_add_between_layers_is_int8_with_the_relu_fused() -> None:
    b = Builder()
    x = b.input("x", 1, 20, 8)
    total = b.emit(Add(), linear(b, x, 8), linear(b, x, 8))
    graph = b.build(linear(b, b.emit(Relu(), total), 3))
    integer = quantized(graph)
    add = next(n for n in integer.nodes if n.op.name == "qadd")
    assert add.type.dtype is DType.I8
    assert add.op.lo == add.op.zero_point == -128
    assert final_sqnr(graph) > 30


def test_integer_tensors_keep_their_names() -> None:
    graph = residual_net()
    integer = quantized(graph)
    names = {o for n in integer.nodes for o in n.outputs}
    assert {"t0", "t2", "t3", "t4", "t6"} <= names
    assert names - {o for n in graph.nodes for o in n.outputs} == {"t0_i16", "t3_i16", "t7_i16", "t8_i8"}


def test_spikes_stay_packed_and_exact() -> None:
    b = Builder()
    x = b.input("x", 1, 30, 4)
    left, right = lif(b, linear(b, x, 32)), lif(b, linear(b, x, 5))
    integer = quantized(b.build(linear(b, b.emit(Concat(), left, right), 3)))
    joined = next(n for n in integer.nodes if n.op.name == "concat")
    assert joined.type.dtype is DType.BIT
    last = next(n for n in integer.nodes if n.op.name == "qlinear" and joined.output in n.inputs)
    assert integer.type_of(last.inputs[0]).quant == QuantParams((1.0,))


def test_spikes_that_do_not_fill_words_join_as_int8() -> None:
    b = Builder()
    x = b.input("x", 1, 30, 4)
    both = b.emit(Concat(), lif(b, linear(b, x, 5)), lif(b, linear(b, x, 32)))
    integer = quantized(b.build(linear(b, both, 3)))
    joined = next(n for n in integer.nodes if n.op.name == "concat")
    assert joined.type.dtype is DType.I8
    assert joined.type.quant == QuantParams((1.0,))


def test_pcm_input_is_int16_and_features_have_the_calibrated_scale() -> None:
    b = Builder()
    pcm = b.input("pcm", 1, 1600)
    mel = b.emit(LogMel(n_mels=20, scale=0.1), pcm)
    graph = b.build(linear(b, mel, 3))
    data = (np.random.default_rng(0).normal(size=(8, 1600)) * 3000).astype(np.int16)
    integer = quantized(graph, data)
    assert integer.inputs[0].type.dtype is DType.I16
    assert integer.inputs[0].type.quant == QuantParams((2.0**-15,))
    rows = compare(graph, integer, {"pcm": data})
    assert [r.op for r in rows] == ["qlog_mel", "qlinear", "requantize"]
    assert min(r.sqnr for r in rows) > 30


def image_net() -> Graph:
    b = Builder()
    x = b.input("x", 1, 12, 10, 3, time=None)
    w = b.normal(3, 3, 3, 8, scale=0.2)
    y = b.emit(Relu(), b.emit(Conv2d(pad=(1, 1, 1, 1)), x, w, b.normal(8, scale=0.1)))
    y = b.emit(MaxPool2d((2, 2), (2, 2)), y)
    w = b.normal(3, 3, 1, 8, scale=0.4)
    y = b.emit(Relu6(), b.emit(Conv2d(pad=(1, 1, 1, 1), groups=8), y, w, b.normal(8, scale=0.1)))
    y = b.emit(AvgPool2d((2, 5), (2, 5), (0, 0, 1, 0), counted=(0, 0, 0, 0)), y)
    y = b.emit(Reshape((1, 3, 8)), y)
    return b.build(linear(b, b.emit(Mean(1), y), 4))


def test_convolutional_network_on_images() -> None:
    assert final_sqnr(image_net()) > 25


@pytest.mark.parametrize("axis", [1, 2])
def test_mean_over_either_axis(axis: int) -> None:
    b = Builder()
    x = b.input("x", 1, 30, 6, time=None)
    assert final_sqnr(b.build(b.emit(Mean(axis), b.emit(Relu(), linear(b, x, 7))))) > 25


def test_constant_operands_are_affine_maps() -> None:
    b = Builder()
    x = linear(b, b.input("x", 1, 20, 4), 6)
    x = b.emit(Sub(), b.const([0.5]), b.emit(Mul(), b.emit(Add(), x, b.normal(6)), b.normal(6)))
    graph = b.build(linear(b, b.emit(Tanh(), x), 3))
    assert final_sqnr(graph) > 28


def test_permute_moves_stored_integers() -> None:
    b = Builder()
    x = b.emit(Relu(), linear(b, b.input("x", 1, 20, 4), 6))
    graph = b.build(b.emit(Permute((0, 2, 1)), x))
    assert final_sqnr(graph) > 30


def test_quantise_from_statistics_equals_quantise_from_data() -> None:
    graph = residual_net()
    data = samples(graph)
    assert Quantize(calibrate(graph, data)).run(graph).nodes == Quantize(data).run(graph).nodes


def test_memory_uses_one_scale_per_order() -> None:
    b = Builder()
    u = linear(b, b.input("x", 1, 40, 4), 1)
    graph = b.build(linear(b, b.emit(LmuMemory(12, 16), lif(b, u)), 3))
    integer = quantized(graph)
    taps = integer.consts["t2_taps"]
    assert taps.data.dtype == np.int8
    assert taps.type.quant is not None
    assert len(taps.type.quant.scale) == 12
    assert final_sqnr(graph) > 25


def wide(inputs: int) -> Graph:
    b = Builder()
    x = b.input("x", 1, 2, inputs)
    return b.build(b.emit(Linear(), x, b.const(np.ones((inputs, 2))), b.normal(2)))


def test_accumulators_are_proven_to_fit() -> None:
    assert_stays_in_int32(quantized(wide(60000)), extreme_inputs(quantized(wide(60000)), "lo"))
    with pytest.raises(PassError, match=r"%t0 = linear \(net.py:1\): its accumulator can reach \d+, above int32's"):
        Quantize(samples(wide(140000), 2)).run(wide(140000))


def test_a_dead_output_channel_keeps_its_bias() -> None:
    b = Builder()
    x = b.input("x", 1, 9, 4)
    w = b.rng.normal(size=(4, 3))
    w[:, 1], w[:, 2] = 0.0, 1e-12
    graph = b.build(b.emit(Linear(), x, b.const(w), b.const([0.1, -3.0, 2.0])))
    data = samples(graph)
    integer = quantized(graph, data)
    out = evaluate(integer, extreme_inputs(integer, "hi"))[0]
    q = integer.type_of(integer.outputs[0]).quant
    assert q is not None
    real = (out - q.zero_point) * q.scale[0]
    assert np.allclose(real[0, :, 1:].numpy(), [-3.0, 2.0], atol=2 * q.scale[0])


def test_a_strided_convolution() -> None:
    b = Builder()
    x = b.input("x", 1, 40, 2)
    y = b.emit(Conv1d(stride=4), x, b.normal(8, 2, 6, scale=0.3), b.normal(6))
    assert final_sqnr(b.build(linear(b, b.emit(Relu(), y), 3))) > 28


def test_neuron_on_the_input_and_on_spikes() -> None:
    b = Builder()
    x = b.input("x", 1, 30, 6)
    graph = b.build(linear(b, lif(b, b.emit(Affine(axis=-1), lif(b, x), b.normal(6), b.normal(6))), 3))
    assert_stays_in_int32(quantized(graph), extreme_inputs(quantized(graph), "random"))


def test_membrane_as_an_output() -> None:
    b = Builder()
    x = linear(b, b.input("x", 1, 30, 6), 4)
    op = Lif(decay_input=False, reset="none", membrane=True)
    b.emit(op, x, b.const([0.9]), b.const([1.0]))
    graph = b.build("t1_1")
    data = samples(graph)
    integer = quantized(graph, data)
    assert compare(graph, integer, data)[-1].sqnr > 30


def test_pcm_into_a_convolution_stays_int16_where_int32_holds_the_sums() -> None:
    b = Builder()
    x = b.input("x", 1, 400, 1)
    y = b.emit(Conv1d(stride=4), x, b.normal(40, 1, 6, scale=0.3), b.normal(6))
    graph = b.build(linear(b, b.emit(Relu(), y), 3))
    data = (np.random.default_rng(0).normal(size=(8, 400, 1)) * 3000).astype(np.int16)
    integer = quantized(graph, data)
    assert integer.inputs[0].type.dtype is DType.I16
    assert integer.nodes[0].inputs[0] == "x"
    assert compare(graph, integer, {"x": data})[0].sqnr > 35
    assert quantized(wide(600), np.zeros((2, 2, 600), np.int16) + np.int16(9)).nodes[0].op.name == "requantize"


@pytest.mark.parametrize("window", [0, 7])
def test_running_mean_keeps_its_window(window: int) -> None:
    b = Builder()
    x = linear(b, b.input("x", 1, 30, 6), 4)
    graph = b.build(b.emit(RunningMean(window), x))
    assert quantized(graph).nodes[-1].op.window == window
    assert final_sqnr(graph) > 28
