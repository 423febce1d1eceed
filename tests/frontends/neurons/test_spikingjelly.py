"""Networks with spikingjelly 0.0.0.0.14 neurons against spikingjelly itself (pip install --no-deps)."""

import warnings

import pytest
import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it still uses torch.jit
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    clock = pytest.importorskip("spikingjelly.clock_driven.neuron")
    from spikingjelly.activation_based import functional, layer

from edgec.errors import FrontendError
from edgec.frontends import load
from edgec.ir.evaluate import evaluate

pytestmark = pytest.mark.filterwarnings("ignore")
T = 10

NODES = {
    "if hard": lambda m, s: m.IFNode(v_threshold=0.7, **s),
    "if reset": lambda m, s: m.IFNode(v_threshold=0.7, v_reset=0.25, **s),
    "if soft": lambda m, s: m.IFNode(v_reset=None, **s),
    "lif hard": lambda m, s: m.LIFNode(tau=2.0, v_threshold=0.4, **s),
    "lif soft": lambda m, s: m.LIFNode(tau=4.0, v_threshold=0.4, v_reset=None, **s),
    "lif no decay": lambda m, s: m.LIFNode(tau=2.0, decay_input=False, **s),
    "plif": lambda m, s: m.ParametricLIFNode(init_tau=2.0, v_threshold=0.4, **s),
}


def compare(module: nn.Module, x: torch.Tensor, step: bool = False) -> None:
    module.eval()
    graph = load(module, (x[0],) if step else (x,), step=step)
    functional.reset_net(module)
    with torch.no_grad():
        expected = torch.stack([module(frame) for frame in x]) if step else module(x)
    assert bool(expected.any())
    assert torch.equal(evaluate(graph, {graph.inputs[0].name: x})[0], expected)


@pytest.mark.parametrize("kind", NODES)
def test_single_step_neurons(kind):
    torch.manual_seed(0)
    for library in (neuron, clock):
        module = nn.Sequential(nn.Linear(4, 6), NODES[kind](library, {}), nn.Linear(6, 5), NODES[kind](library, {}))
        module[2].weight.data.mul_(20)
        compare(module, torch.randn(3, 1, 4) * 6, step=True)


@pytest.mark.parametrize("kind", NODES)
def test_multi_step_neurons(kind):
    torch.manual_seed(1)
    x = torch.randn(T, 1, 4) * 4
    compare(nn.Sequential(nn.Linear(4, 6), NODES[kind](neuron, {"step_mode": "m"})), x)


@pytest.mark.parametrize("make", [clock.MultiStepIFNode, clock.MultiStepLIFNode, clock.MultiStepParametricLIFNode])
def test_clock_driven_multi_step_neurons(make):
    torch.manual_seed(2)
    compare(nn.Sequential(nn.Linear(4, 6), make(v_threshold=0.5, backend="torch")), torch.randn(T, 1, 4) * 4)


def test_a_convolutional_network_over_a_whole_sequence():
    torch.manual_seed(3)
    module = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, step_mode="m"),
        layer.BatchNorm2d(4, step_mode="m"),
        neuron.LIFNode(step_mode="m", v_threshold=0.3),
        layer.MaxPool2d(2, step_mode="m"),
        layer.Flatten(step_mode="m"),
        layer.Linear(16, 5, step_mode="m"),
        neuron.IFNode(step_mode="m"),
    )
    compare(module, torch.randn(T, 1, 2, 4, 4) * 3)


def test_what_is_not_supported_is_named():
    module = nn.Sequential(nn.Linear(4, 4), neuron.EIFNode(), neuron.LIFNode(v_reset=0.5)).eval()
    with pytest.raises(FrontendError) as caught:
        load(module, (torch.zeros(1, 4),), step=True)
    assert "EIFNode is not supported; supported are IFNode, LIFNode" in str(caught.value)
    assert "2: v_reset 0.5 with a leak" in str(caught.value)
