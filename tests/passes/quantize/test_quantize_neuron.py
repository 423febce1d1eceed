"""Integer neurons against float neurons fed with exactly what the integers stand for."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.ir.evaluate import evaluate_all
from edgec.ir.graph import Graph, Node
from edgec.ops import Affine, Lif, Linear
from edgec.ops.integer.neuron import QLifSaturating
from edgec.ops.integer.spiking import QLif
from edgec.passes.quantize.compare import dequantize
from tests.graphs import Builder
from tests.passes.quantize.quantize_tools import assert_stays_in_int32, extreme_inputs, quantized, samples

CHANNELS = 6


def neuron_net(
    op: Lif, gamma: Any, shift: Any, beta: Any = 0.5, threshold: Any = 1.0, seed: int = 0, frames: int = 40
) -> Graph:
    """linear -> affine -> neuron, the output being the spikes."""
    b = Builder(seed=seed)
    x = b.input("x", 1, frames, 4)
    y = b.emit(Linear(), x, b.normal(4, CHANNELS), b.normal(CHANNELS, scale=0.3))
    y = b.emit(Affine(axis=-1), y, b.const(np.broadcast_to(gamma, CHANNELS)), b.const(np.broadcast_to(shift, CHANNELS)))
    s = b.emit(op, y, b.const(np.atleast_1d(beta)), b.const(np.atleast_1d(threshold)))
    return b.build(s)


def neuron(graph: Graph) -> Node:
    return next(n for n in graph.nodes if n.op.name in ("qlif", "qlif_saturating"))


def float_membrane(graph: Graph, drive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes and H of the float neuron, in float64, on a given drive; H is what the threshold is compared with."""
    node = next(n for n in graph.nodes if isinstance(n.op, Lif))
    beta, threshold = (torch.from_numpy(graph.consts[i].data).double() for i in node.inputs[1:])
    v = torch.full_like(drive[:, :1], node.op.state_start())
    spikes, levels = [], []
    for t in range(drive.shape[1]):
        frame = drive.narrow(1, t, 1)
        h = h_before_reset(node.op, frame, v, beta, threshold)
        s, v = node.op.step(frame, v, beta, threshold)
        spikes.append(s)
        levels.append(h)
    return torch.cat(spikes, 1), torch.cat(levels, 1)


def h_before_reset(op: Lif, *now: torch.Tensor) -> torch.Tensor:
    """What the threshold is compared with; now: drive, membrane, beta, threshold."""
    return op.step(*now)[1] if op.delayed_reset else Lif(op.decay_input, "none").step(*now)[1]


def check_spikes(graph: Graph, integer: Graph, inputs: dict[str, torch.Tensor], slack: float = 0.004) -> None:
    """Spikes agree until the first frame at which the float membrane lay within `slack` of its threshold.

    The float neuron is driven by the dequantised accumulators, so only the neuron's own arithmetic differs: the floor
    of the leak, at most 1 / (1 - beta) membrane units, and half a unit each of bias and threshold.
    """
    values = evaluate_all(integer, inputs)
    acc = neuron(integer).inputs[0]
    affine = next(n for n in graph.nodes if isinstance(n.op, Affine))
    gamma, shift = (torch.from_numpy(graph.consts[i].data).double() for i in affine.inputs[1:])
    drive = (dequantize(values[acc], integer.type_of(acc)) + rest(graph, integer)) * gamma + shift
    wanted, level = float_membrane(graph, drive)
    got = values[integer.outputs[0]].double()
    node = next(n for n in graph.nodes if isinstance(n.op, Lif))
    threshold = torch.from_numpy(graph.consts[node.inputs[2]].data).double()
    for c in range(CHANNELS):
        differs = torch.nonzero(wanted[0, :, c] != got[0, :, c])
        if len(differs):
            first = int(differs[0])
            margin = float((level[0, : first + 1, c] - threshold[c % len(threshold)]).abs().min())
            assert margin <= slack, f"channel {c} differs at frame {first}, {margin:g} from its threshold"


def rest(graph: Graph, integer: Graph) -> torch.Tensor:
    """What rounding left out of the layer's bias; the neuron's bias makes up for it."""
    float_bias = graph.consts[graph.nodes[0].inputs[2]].data.astype(np.float64)
    layer = integer.producer(graph.nodes[0].output)
    assert layer is not None
    x, w, bias = layer.inputs
    quant = integer.type_of(x).quant
    assert quant is not None
    assert layer.type.quant is not None
    own = integer.consts[bias].data + quant.zero_point * integer.consts[w].data.astype(np.int64).sum(0)
    return torch.from_numpy(float_bias - own * np.array(layer.type.quant.scale))


def inputs_of(graph: Graph, integer: Graph) -> dict[str, torch.Tensor]:
    q = integer.inputs[0].type.quant
    assert q is not None
    real = samples(graph, 1, seed=3)["x"]
    return {"x": torch.from_numpy(np.clip(np.round(real / q.scale[0]) + q.zero_point, -128, 127)).to(torch.int64)}


OPS = st.builds(
    Lif,
    decay_input=st.booleans(),
    reset=st.sampled_from(["hard", "subtract", "none"]),
    strict=st.booleans(),
    delayed_reset=st.booleans(),
)


@given(OPS, st.integers(0, 2**16), st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.booleans())
@settings(max_examples=80, deadline=None)
def test_every_mode_fires_as_the_float_neuron(op: Lif, seed: int, beta: float, scalar: bool) -> None:
    rng = np.random.default_rng(seed)
    gamma, shift = rng.normal(size=CHANNELS), rng.normal(size=CHANNELS) * 0.5
    threshold = 0.8 if scalar else rng.uniform(0.3, 2.0, CHANNELS)
    graph = neuron_net(op, gamma, shift, beta, threshold, seed)
    integer = quantized(graph)
    assert isinstance(neuron(integer).op, QLif)
    check_spikes(graph, integer, inputs_of(graph, integer), slack=0.004 / (1.0 - beta))


def test_negative_batch_norm_scale_is_a_negative_gain() -> None:
    gamma = np.array([1.0, -1.0, 0.5, -0.5, 2.0, -2.0])
    graph = neuron_net(Lif(), gamma, 0.0)
    integer = quantized(graph)
    gain = integer.consts[neuron(integer).inputs[1]].data
    assert np.array_equal(np.sign(gain), np.sign(gamma))
    assert np.array_equal(np.abs(gain), np.full(CHANNELS, 256))
    check_spikes(graph, integer, inputs_of(graph, integer))


def test_dead_channels_keep_their_constant_drive() -> None:
    gamma = np.array([0.0, 1e-30, -1e-9, 1.0, 0.0, -1e-7])
    shift = np.array([3.0, 0.2, -5.0, 0.0, 0.999, 1.5])
    graph = neuron_net(Lif(), gamma, shift)
    integer = quantized(graph)
    node = neuron(integer)
    assert integer.consts[node.inputs[1]].data.tolist() == [0, 0, 0, 256, 0, 0]
    check_spikes(graph, integer, inputs_of(graph, integer), slack=1e-4)
    rates = evaluate_all(integer, inputs_of(graph, integer))[integer.outputs[0]].double().mean((0, 1))
    assert rates[0] == 1.0
    assert rates[2] == 0.0
    assert rates[1] == 0.0


def test_a_drive_far_above_its_input_is_a_dead_channel_too() -> None:
    graph = neuron_net(Lif(), 1e-8, 1e6)
    integer = quantized(graph)
    assert evaluate_all(integer, inputs_of(graph, integer))[integer.outputs[0]].min() == 1


@pytest.mark.parametrize("decay_input", [True, False])
def test_reset_value_is_folded_into_coordinates(decay_input: bool) -> None:
    op = Lif(decay_input=decay_input, reset="hard", v_reset=-0.3)
    graph = neuron_net(op, 1.0, 0.2, 0.7)
    integer = quantized(graph)
    check_spikes(graph, integer, inputs_of(graph, integer), slack=0.02)


@pytest.mark.parametrize("beta", [1.0, 0.99999])
@pytest.mark.parametrize("reset", ["hard", "subtract"])
def test_neurons_without_leak_saturate(beta: float, reset: str) -> None:
    graph = neuron_net(Lif(decay_input=False, reset=reset), 1.0, -0.1, beta, frames=60)
    integer = quantized(graph)
    assert isinstance(neuron(integer).op, QLifSaturating)
    check_spikes(graph, integer, inputs_of(graph, integer), slack=0.02)
    for kind in ("lo", "hi", "random"):
        assert_stays_in_int32(integer, extreme_inputs(integer, kind))


def test_decay_per_channel() -> None:
    beta = np.linspace(0.1, 0.95, CHANNELS)
    graph = neuron_net(Lif(decay_input=False, reset="subtract", delayed_reset=True, strict=True), 1.0, 0.0, beta)
    integer = quantized(graph)
    assert integer.consts[neuron(integer).inputs[4]].data.tolist() == [round((1 - v) * 2**15) for v in beta]
    check_spikes(graph, integer, inputs_of(graph, integer), slack=0.02)


@given(OPS, st.integers(0, 2**16), st.floats(-3, 6), st.floats(-3, 6), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
@settings(max_examples=60, deadline=None)
def test_membranes_never_leave_int32(op: Lif, seed: int, gain_power: float, shift_power: float, beta: float) -> None:
    rng = np.random.default_rng(seed)
    gamma = rng.normal(size=CHANNELS) * 10.0**gain_power
    shift, threshold = rng.normal(size=CHANNELS) * 10.0**shift_power, rng.uniform(0.1, 9, CHANNELS)
    graph = neuron_net(op, gamma, shift, beta, threshold, seed)
    integer = quantized(graph)
    for kind in ("lo", "hi", "random", "turns"):
        assert_stays_in_int32(integer, extreme_inputs(integer, kind))
