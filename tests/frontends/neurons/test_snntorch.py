"""Networks with snnTorch neurons against snnTorch itself: spikes equal, states to 1e-6."""

import pytest
import torch
from torch import Tensor, nn

snn = pytest.importorskip("snntorch")

from edgec.errors import FrontendError  # noqa: E402
from edgec.frontends import load  # noqa: E402
from edgec.frontends.neurons.importer import from_step_module  # noqa: E402
from edgec.ir.evaluate import StepRunner, evaluate  # noqa: E402
from edgec.passes.assign_layout import AssignLayout  # noqa: E402
from edgec.passes.streaming.make_streaming import MakeStreaming  # noqa: E402

T, INPUTS, HIDDEN, CLASSES = 12, 6, 8, 5


class Loop(nn.Module):
    """Two layers, states passed by hand; gives spikes and every state of both layers."""

    def __init__(self, make):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(INPUTS, HIDDEN), make(HIDDEN)
        self.fc2, self.lif2 = nn.Linear(HIDDEN, CLASSES), make(CLASSES)

    def forward(self, x: Tensor):
        first, second = self.lif1.reset_mem(), self.lif2.reset_mem()
        first = first if isinstance(first, tuple) else (first,)
        second = second if isinstance(second, tuple) else (second,)
        record = []
        for t in range(x.shape[0]):
            out1 = self.lif1(self.fc1(x[t]), *first)
            out2 = self.lif2(self.fc2(out1[0]), *second)
            first, second = out1[-len(first) :], out2[-len(second) :]
            record.append((*out1, *out2))
        return tuple(torch.stack(signal) for signal in zip(*record, strict=True))


def vector(rng, n, low, high):
    return torch.rand(n, generator=rng) * (high - low) + low


def leaky(reset, late, vectors, rng):
    def make(n):
        beta = vector(rng, n, 0.3, 0.99) if vectors else 0.8
        threshold = vector(rng, n, 0.2, 0.6) if vectors else 0.4
        return snn.Leaky(
            beta=beta,
            threshold=threshold,
            learn_beta=vectors,
            learn_threshold=vectors,
            reset_mechanism=reset,
            reset_delay=late,
        )

    return make


def compare(module: nn.Module, x: Tensor) -> None:
    """The graph's outputs are the module's; those of spikes to the bit."""
    module.eval()
    graph = load(module, (x,))
    with torch.no_grad():
        expected = module(x)
    found = evaluate(graph, {graph.inputs[0].name: x})
    assert any(bool(e.any()) for e in expected)
    for e, f in zip(expected, found, strict=True):
        if bool(((e == 0) | (e == 1)).all()):
            assert torch.equal(e, f)
        else:
            torch.testing.assert_close(f, e, rtol=1e-6, atol=1e-6)


def drive(rng) -> Tensor:
    return torch.randn(T, 1, INPUTS, generator=rng) * 2.5


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_leaky(reset, late, vectors):
    rng = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    compare(Loop(leaky(reset, late, vectors, rng)), drive(rng))


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("options", [{"beta": 0.8}, {"R": 2.5, "C": 1.7}, {"beta": 0.7, "R": 0.6, "time_step": 0.5}])
def test_lapicque(reset, options):
    torch.manual_seed(2)
    make = lambda n: snn.Lapicque(**options, threshold=0.3, reset_mechanism=reset)  # noqa: E731
    compare(Loop(make), drive(torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_synaptic(reset, late):
    rng = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    make = lambda n: snn.Synaptic(  # noqa: E731
        alpha=vector(rng, n, 0.2, 0.9), beta=0.7, threshold=0.5, reset_mechanism=reset, reset_delay=late
    )
    compare(Loop(make), drive(rng))


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_alpha(reset):
    torch.manual_seed(4)
    make = lambda n: snn.Alpha(alpha=0.85, beta=0.6, threshold=0.2, reset_mechanism=reset)  # noqa: E731
    compare(Loop(make), drive(torch.Generator().manual_seed(4)))


@pytest.mark.parametrize("all_to_all", [False, True])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_recurrent_leaky(reset, late, all_to_all):
    rng = torch.Generator().manual_seed(5)
    torch.manual_seed(5)

    def make(n):
        options = {"linear_features": n} if all_to_all else {"V": vector(rng, n, -0.5, 0.5)}
        return snn.RLeaky(
            beta=0.8, all_to_all=all_to_all, threshold=0.5, reset_mechanism=reset, reset_delay=late, **options
        )

    compare(Loop(make), drive(rng))


@pytest.mark.parametrize("all_to_all", [False, True])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_recurrent_synaptic(reset, all_to_all):
    torch.manual_seed(6)

    def make(n):
        options = {"linear_features": n} if all_to_all else {"V": 0.3}
        return snn.RSynaptic(
            alpha=0.6, beta=0.8, all_to_all=all_to_all, threshold=0.5, reset_mechanism=reset, **options
        )

    compare(Loop(make), drive(torch.Generator().manual_seed(6)))


class Conv(nn.Module):
    """Frames are images; the state is hidden; the readout sums spikes over time."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(2, 4, 3, padding=1), nn.AvgPool2d(2)
        self.lif1 = snn.Leaky(beta=0.7, threshold=0.3, init_hidden=True)
        self.fc = nn.Linear(4 * 3 * 3, 5)
        self.lif2 = snn.Leaky(beta=torch.rand(5), threshold=0.2, init_hidden=True, output=True)

    def forward(self, x: Tensor):
        count, spikes = 0, []
        for frame in x.unbind(1):
            h = self.pool(self.lif1(self.conv(frame)))
            s, m = self.lif2(self.fc(h.flatten(1)))
            count = count + s
            spikes.append(s)
        return torch.stack(spikes, 1), count, m, self.lif2.mem


def test_hidden_state_images_sums_and_last_frames():
    torch.manual_seed(7)
    module, x = Conv().eval(), torch.randn(1, T, 2, 6, 6) * 6
    graph = load(module, (x,))
    assert graph.inputs[0].type.time_axis == 1
    with torch.no_grad():
        spikes, count, membrane, _ = module(x)
    for candidate in (graph, AssignLayout().run(graph)):
        found = evaluate(candidate, {"x": x})
        assert torch.equal(found[0], spikes)
        torch.testing.assert_close(found[1][-1:], count)
        torch.testing.assert_close(found[1], spikes.cumsum(1)[0])  # what the loop has counted after each frame
        torch.testing.assert_close(found[2][-1:], membrane, rtol=1e-6, atol=1e-6)
        assert torch.equal(found[2], found[3])
    assert bool(spikes.any())


def test_the_module_is_left_as_it_was():
    module, x = Conv().eval(), torch.randn(1, T, 2, 6, 6)
    module(x)
    before = module.lif1.mem
    load(module, (x,))
    assert module.lif1.mem is before
    assert "forward" not in module.lif1.__dict__
    assert "forward" not in module.__dict__


def test_a_module_of_one_frame_per_call_with_hidden_state():
    torch.manual_seed(8)
    module = nn.Sequential(
        nn.Linear(INPUTS, HIDDEN),
        snn.Leaky(beta=0.9, threshold=0.3, init_hidden=True),
        nn.Linear(HIDDEN, CLASSES),
        snn.Synaptic(alpha=0.5, beta=0.6, threshold=0.2, init_hidden=True, output=True),
    ).eval()
    x = torch.randn(3, 1, INPUTS) * 3
    graph = load(module, (x[0],), step=True)
    with torch.no_grad():
        frames = [module(frame) for frame in x]
    found = evaluate(graph, {graph.inputs[0].name: x})
    for k in range(3):
        torch.testing.assert_close(found[k], torch.stack([f[k] for f in frames]), rtol=1e-6, atol=1e-6)


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(INPUTS, CLASSES), snn.Leaky(beta=0.9, threshold=0.3)

    def forward(self, x: Tensor, mem: Tensor):
        return self.lif(self.fc(x), mem)


def test_a_module_of_one_frame_per_call_with_its_state_passed_through():
    torch.manual_seed(9)
    module, x = Step().eval(), torch.randn(3, 1, INPUTS) * 3
    graph = from_step_module(module, (x[0], torch.zeros(1, CLASSES)), "step", carry={1: 1})
    assert [v.name for v in graph.inputs] == ["x"]
    mem, spikes = torch.zeros(1, CLASSES), []
    with torch.no_grad():
        for frame in x:
            s, mem = module(frame, mem)
            spikes.append(s)
    assert torch.equal(evaluate(graph, {graph.inputs[0].name: x})[0], torch.stack(spikes))


def test_the_folded_graph_streams():
    rng = torch.Generator().manual_seed(10)
    torch.manual_seed(10)
    module, x = Loop(leaky("subtract", True, True, rng)).eval(), drive(rng)
    graph = load(module, (x,))
    whole = evaluate(graph, {"x": x})
    step = MakeStreaming().run(AssignLayout().run(graph))
    frames = list(StepRunner(step).run({"x": x}))
    for k, signal in enumerate(whole):
        assert torch.equal(torch.cat([f[k] for f in frames]), signal)


class Bad(nn.Module):
    def __init__(self, neuron, body):
        super().__init__()
        self.fc, self.lif, self.body = nn.Linear(INPUTS, CLASSES), neuron, body

    def forward(self, x: Tensor):
        return self.body(self, x)


def plain(self, x):
    mem, out = self.lif.reset_mem(), []
    for frame in x:
        s, mem = self.lif(self.fc(frame), mem)
        out.append(s)
    return torch.stack(out)


def touched(self, x):
    mem, out = self.lif.reset_mem(), []
    for frame in x:
        s, mem = self.lif(self.fc(frame), mem * 0.5)
        out.append(s)
    return torch.stack(out)


def mixed(self, x):
    mem, out, last = self.lif.reset_mem(), [], 0
    for frame in x:
        s, mem = self.lif(self.fc(frame) + last, mem)
        last = s * 0.1
        out.append(s)
    return torch.stack(out)


def static(self, x):
    mem, out = self.lif.reset_mem(), []
    for _ in range(4):
        s, mem = self.lif(self.fc(x[0]), mem)
        out.append(s)
    return torch.stack(out)


def uneven(self, x):
    mem, out = self.lif.reset_mem(), []
    for t, frame in enumerate(x):
        s, mem = self.lif(self.fc(frame) if t else frame[:, :CLASSES], mem)
        out.append(s)
    return torch.stack(out)


REFUSED = [
    (lambda: snn.Leaky(beta=0.9, inhibition=True), plain, "inhibition=True"),
    (lambda: snn.Leaky(beta=0.9, graded_spikes_factor=2.0), plain, "graded_spikes_factor 2.0"),
    (lambda: snn.Leaky(beta=0.9, state_quant=lambda m: m), plain, "state_quant"),
    (lambda: snn.Leaky(beta=0.9, threshold=0.0), plain, "it must be positive"),
    (lambda: snn.Leaky(beta=0.9, spike_grad=torch.sigmoid), plain, "not the step"),
    (lambda: snn.SLSTM(CLASSES, CLASSES), plain, "SLSTM is not supported; supported are Alpha"),
    (lambda: snn.Leaky(beta=0.9), touched, "the state of lif is changed between frames"),
    (lambda: snn.Leaky(beta=0.9), mixed, "mixes frames 0 and 1"),
    (lambda: snn.Leaky(beta=0.9), static, "no input is read frame by frame"),
    (lambda: snn.Leaky(beta=0.9), uneven, "computed in another way than in the first frame"),
]


@pytest.mark.filterwarnings("ignore:Inhibition")
@pytest.mark.parametrize(("neuron", "body", "message"), REFUSED)
def test_what_cannot_be_represented_is_refused_by_name(neuron, body, message):
    module = Bad(neuron(), body).eval()
    with pytest.raises(FrontendError) as caught:
        load(module, (torch.randn(4, 1, INPUTS),))
    assert message in str(caught.value)
    assert "lif" in str(caught.value) or "frames" in str(caught.value) or "frame" in str(caught.value)


def test_one_frame_is_too_few():
    module = Bad(snn.Leaky(beta=0.9), plain).eval()
    with pytest.raises(FrontendError, match="one frame, too few"):
        load(module, (torch.randn(1, 1, INPUTS),))


def test_names_in_a_step_module_are_the_users():
    module = nn.Sequential(nn.Linear(INPUTS, CLASSES), snn.Leaky(beta=0.9, init_hidden=True)).eval()
    graph = load(module, (torch.randn(1, INPUTS),), step=True)
    names = {*graph.consts, *(o for n in graph.nodes for o in n.outputs), *(s for n in graph.nodes for s in n.source)}
    assert not any("step" in n for n in names)
    neuron = snn.Leaky(beta=0.9, init_hidden=True).eval()
    graph = load(neuron, (torch.randn(1, INPUTS),), step=True)
    assert "neuron.beta" in graph.consts
