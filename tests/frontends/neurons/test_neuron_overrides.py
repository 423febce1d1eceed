"""Neurons that are not their library's any more: subclasses, changed instances, hooks; against the user's module."""

import copy
import functools
import warnings

import pytest
import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # spikingjelly still uses torch.jit
    jelly = pytest.importorskip("spikingjelly.activation_based.neuron")
    from spikingjelly.activation_based import functional

    snn = pytest.importorskip("snntorch")

from edgec.errors import FrontendError
from edgec.frontends import load
from edgec.ir.evaluate import evaluate

pytestmark = pytest.mark.filterwarnings("ignore")


class Slow(snn.Leaky):
    def _base_state_function(self, input_):
        return 0.5 * super()._base_state_function(input_)


class LateFire(snn.Synaptic):
    def fire(self, mem):
        return super().fire(mem - 0.1)


class NoReset(snn.Lapicque):
    def mem_reset(self, mem):
        return torch.zeros_like(mem)


class Called(snn.Leaky):
    def __call__(self, *args):
        return super().__call__(2 * args[0], *args[1:])


class Charge(jelly.ParametricLIFNode):
    def neuronal_charge(self, x):
        self.v = self.v + 2 * x


class Reset(jelly.ParametricLIFNode):
    def neuronal_reset(self, spike):
        self.v = self.v * (1 - 0.5 * spike)


class Fire(jelly.ParametricLIFNode):
    def neuronal_fire(self):
        return self.surrogate_function(self.v - 2 * self.v_threshold)


class Step(jelly.LIFNode):
    def single_step_forward(self, x):
        return super().single_step_forward(2 * x)


class Sequence(jelly.IFNode):
    def multi_step_forward(self, x_seq):
        return super().multi_step_forward(2 * x_seq)


class Jit(jelly.IFNode):
    @staticmethod
    def jit_eval_single_step_forward_hard_reset(x, v, v_threshold, v_reset):
        v = v + 2 * x
        spike = (v >= v_threshold).to(x)
        return spike, v * (1 - spike)


class Doubling(jelly.BaseNode):
    def neuronal_fire(self):
        return self.surrogate_function(self.v - 2 * self.v_threshold)


class Between(jelly.ParametricLIFNode, Doubling):
    """Its changed method stands behind the library's class, and before that class's base."""


class Adaptive(jelly.IFNode):
    @property
    def v_threshold(self):
        self.count = getattr(self, "count", 0) + 1
        return 0.5 + 0.1 * self.count

    @v_threshold.setter
    def v_threshold(self, value):
        pass


class Forward(snn.Leaky):
    def forward(self, input_, mem=None):
        return super().forward(2 * input_, mem)


CHANGED = [
    (lambda: Slow(0.8), "Slow._base_state_function takes the place of Leaky._base_state_function"),
    (lambda: LateFire(0.8, 0.9), "LateFire.fire takes the place of Synaptic.fire"),
    (lambda: NoReset(0.8), "NoReset.mem_reset takes"),
    (lambda: Called(0.8), "Called.__call__ takes"),
    (lambda: Forward(0.8), "Forward.forward takes"),
    (Charge, "Charge.neuronal_charge takes the place of ParametricLIFNode.neuronal_charge"),
    (Reset, "Reset.neuronal_reset takes"),
    (Fire, "Fire.neuronal_fire takes"),
    (Step, "Step.single_step_forward takes"),
    (Sequence, "Sequence.multi_step_forward takes"),
    (Jit, "Jit.jit_eval_single_step_forward_hard_reset takes"),
    (Between, "Doubling.neuronal_fire takes the place of ParametricLIFNode.neuronal_fire"),
    (Adaptive, "Adaptive.v_threshold is computed"),
]


def refusal(neuron):
    module = nn.Sequential(nn.Linear(4, 3), neuron).eval()
    with pytest.raises(FrontendError, match="neurons that edgec cannot represent") as caught:
        load(module, (torch.zeros(1, 4),), step=True)
    return str(caught.value)


@pytest.mark.parametrize(("make", "reason"), CHANGED, ids=[reason.split()[0] for _, reason in CHANGED])
def test_a_subclass_that_changes_a_method_is_refused_by_name(make, reason):
    assert reason in refusal(make())


def replaced(neuron, name, value):
    setattr(neuron, name, value)
    return neuron


def test_an_instance_that_was_changed_is_refused_by_name():
    other = snn.Leaky(0.8)
    for neuron, name, value in [
        (snn.Leaky(0.8), "fire", lambda mem: mem),
        (snn.Leaky(0.8), "forward", other.forward),
        (snn.Leaky(0.8), "state_function", other.state_function),
        (snn.Leaky(0.8), "state_function", lambda x: x),
        (jelly.IFNode(), "neuronal_fire", lambda: 0),
        (jelly.LIFNode(), "single_step_forward", functools.partial(jelly.LIFNode.single_step_forward, jelly.LIFNode())),
    ]:
        assert f"its {name} was replaced after it was made" in refusal(replaced(neuron, name, value))


def test_a_library_that_was_changed_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(jelly.BaseNode, "neuronal_fire", lambda self: self.v)
    assert "ParametricLIFNode.neuronal_fire is no longer the library's" in refusal(jelly.ParametricLIFNode())


def test_a_membrane_that_does_not_start_at_rest_is_refused():
    neuron = jelly.IFNode()
    neuron.set_reset_value("v", 0.5)
    assert "a membrane that starts at 0.5, expected 0.0" in refusal(neuron)


class Own(snn.SpikingNeuron):
    def forward(self, x):
        return self.fire(x)


def test_a_neuron_made_from_a_librarys_base_is_refused_by_name():
    for neuron, base in ((Own(), "snntorch's SpikingNeuron"), (Doubling(), "spikingjelly's BaseNode")):
        name = type(neuron).__name__
        assert f"1: {name}, a neuron of your own made from {base} is not supported; supported are" in refusal(neuron)


def test_another_spike_function_is_refused():
    assert "not the step `membrane >= threshold`" in refusal(jelly.IFNode(surrogate_function=lambda x: (x > 0).to(x)))
    assert "not the step `membrane > threshold`" in refusal(snn.Leaky(0.8, spike_grad=lambda x: (x >= 0).float()))


# ---- what is the library's neuron under another name, or with something around it ----


class Renamed(jelly.IFNode):
    pass


class RenamedLif(jelly.LIFNode):
    """A constructor and methods of its own change nothing."""

    def __init__(self, scale):
        super().__init__(tau=2.0 * scale, v_threshold=0.4)
        self.scale = scale

    def rate(self):
        return self.v

    def extra_repr(self):
        return "mine"


class RenamedLeaky(snn.Leaky):
    def __init__(self, *, decay, **options):
        super().__init__(beta=decay, threshold=0.4, **options)


def compare(module):
    """Eight sequences of the three frames that a module of one frame per call is imported with."""
    module = module.eval()
    graph, spikes = load(module, (torch.zeros(1, 4),), step=True), 0
    for x in 4 * torch.randn(8, 3, 1, 4, generator=torch.Generator().manual_seed(1)):
        (found,) = evaluate(graph, {graph.inputs[0].name: x})
        module[1].reset_mem() if isinstance(module[1], snn.Leaky) else functional.reset_net(module)
        with torch.no_grad():
            expected = torch.stack([module(frame) for frame in x])
        spikes += int(expected.any())
        torch.testing.assert_close(found, expected)
    assert spikes > 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: Renamed(v_threshold=0.7),
        lambda: RenamedLif(2.0),
        lambda: RenamedLeaky(decay=0.8, init_hidden=True),
        lambda: functools.partial(RenamedLeaky, decay=0.7)(init_hidden=True),
        lambda: copy.deepcopy(RenamedLeaky(decay=0.8, init_hidden=True)),
        lambda: type("Leaky", (Renamed,), {})(),
    ],
)
def test_a_subclass_that_changes_no_method_is_the_same_neuron(make):
    torch.manual_seed(0)
    compare(nn.Sequential(nn.Linear(4, 6), make()))


class Halved(nn.Module):
    def forward(self, beta):
        return beta / 2


def test_a_parametrised_decay_is_read_as_it_is():
    torch.manual_seed(0)
    neuron = snn.Leaky(0.9, threshold=0.3, learn_beta=True, init_hidden=True)
    nn.utils.parametrize.register_parametrization(neuron, "beta", Halved())
    compare(nn.Sequential(nn.Linear(4, 6), neuron))


@pytest.mark.parametrize("make", [Renamed, lambda: snn.Leaky(0.8, threshold=0.4, init_hidden=True)])
def test_hooks_of_a_neuron_are_imported(make):
    torch.manual_seed(0)
    neuron = make()
    neuron.register_forward_pre_hook(lambda module, args: (args[0] * 3,))
    neuron.register_forward_hook(lambda module, args, result: result * 0.5)
    compare(nn.Sequential(nn.Linear(4, 6), neuron, nn.Linear(6, 5)))
