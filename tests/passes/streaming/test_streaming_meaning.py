"""What streams gives what the torch module gives: over the whole sequence, and where it ends in a mean over time, over
the frames so far. What would mean something else is refused. The oracle is the module itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgec import frontends
from edgec.errors import EdgecError, PassError
from edgec.ir.evaluate import StepRunner
from edgec.ir.graph import Graph
from edgec.nn import LIF, LogMel
from edgec.passes.channels.drop_constant_channels import DropConstantChannels
from edgec.passes.quantize.assign_precision import Assignment
from edgec.passes.quantize.compare import dequantize, requantized
from edgec.passes.streaming.compare import first_difference
from edgec.passes.streaming.make_streaming import MakeStreaming
from edgec.stages import float_passes, make_stages, transform

SHAPES = {1: (1, 16, 8), 2: (1, 8, 16)}  # by time axis


class Net(nn.Module):
    """A function of the input and of some layers."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, **dict(self.layers.items()))


def net(function: Callable[..., Any], **layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for layer in layers.values():
        for p in layer.parameters():
            nn.init.normal_(p, std=0.5)
    return Net(function, **layers).eval()


def step_of(module: nn.Module, time_axis: int) -> Graph:
    graph = frontends.load(module, (torch.zeros(SHAPES[time_axis]),), time_axis=time_axis)
    return transform(graph, [*float_passes(), MakeStreaming()], lambda stage: None)[-1]


def streamed(step: Graph, x: Tensor) -> list[tuple[Tensor, ...]]:
    return list(StepRunner(step).run({step.inputs[0].name: x}))


def squeeze_excite(x: Tensor, c: nn.Module, down: nn.Module) -> Tensor:
    y = c(x)
    return y * torch.sigmoid(down(y.mean(2, keepdim=True)))


def both_moments(x: Tensor) -> Tensor:
    return torch.cat([x.mean(1), torch.sqrt(x.var(1, unbiased=False) + 1e-5)], -1)


REFUSED: dict[str, tuple[nn.Module, int]] = {
    "gate": (net(lambda x: x * torch.sigmoid(x.mean(1, keepdim=True))), 1),
    "statistics pooling": (net(both_moments), 1),
    "deviation": (net(lambda x: x.std(1)), 1),
    "unbiased variance": (net(lambda x: x.var(1)), 1),
    "squeeze and excite": (net(squeeze_excite, c=nn.Conv1d(8, 8, 1), down=nn.Conv1d(8, 8, 1)), 2),
    "squeeze and excite, pooled": (
        net(lambda x, c, a, d: c(x) * torch.sigmoid(d(a(c(x)))),
            c=nn.Conv1d(8, 8, 1), a=nn.AdaptiveAvgPool1d(1), d=nn.Conv1d(8, 8, 1)), 2),
    "gate from linear layers": (
        net(lambda x, a, b: x * torch.sigmoid(b(torch.relu(a(x.mean(1))))).unsqueeze(1),
            a=nn.Linear(8, 2), b=nn.Linear(2, 8)), 1),
    "efficient channel attention": (
        net(lambda x, c: x * torch.sigmoid(c(x.mean(1).unsqueeze(1))).reshape(1, 1, 8),
            c=nn.Conv1d(1, 1, 3, padding=1, bias=False)), 1),
    "mean normalisation": (net(lambda x, f: f(x - x.mean(1, keepdim=True)), f=nn.Linear(8, 3)), 1),
    "instance norm by hand": (
        net(lambda x: (x - x.mean(2, keepdim=True)) / torch.sqrt(x.var(2, keepdim=True, unbiased=False) + 1e-5)), 2),
    "instance norm": (net(lambda x, n: n(x), n=nn.InstanceNorm1d(8)), 2),
    "group norm": (net(lambda x, n: n(x), n=nn.GroupNorm(2, 8)), 2),
    "layer norm over time": (net(lambda x, n: n(x.transpose(1, 2)), n=nn.LayerNorm(16)), 1),
    "softmax over time": (net(lambda x: torch.softmax(x, 1)), 1),
    "attention pooling": (net(lambda x, f: (x * torch.softmax(f(x), 1)).mean(1), f=nn.Linear(8, 1)), 1),
    "mean, then frames again": (net(lambda x, f: f(torch.cat([x, x.mean(1, keepdim=True) + 0 * x], 2)),
                                    f=nn.Linear(16, 3)), 1),
    "pool of the whole window as a gate": (net(lambda x, p: x * p(x), p=nn.AvgPool1d(16)), 2),
    "peak of the whole window taken off": (net(lambda x, p: x - p(x), p=nn.MaxPool1d(16)), 2),
    "positions added": (net(lambda x, f: x + torch.tanh(f.weight), f=nn.Linear(8, 16)), 1),
    "positions multiplied": (net(lambda x, f: x * torch.tanh(f.weight), f=nn.Linear(8, 16)), 1),
    "product along time": (net(lambda x, f: torch.matmul(f.weight.unsqueeze(0), x), f=nn.Linear(16, 16)), 1),
    "batch norm of the frames": (net(lambda x, n: n(x), n=nn.BatchNorm1d(16)), 1),
    "means of different delay": (
        net(lambda x, c: torch.cat([x.mean(2), c(x).mean(2)], 1), c=nn.Conv1d(8, 8, 3, padding=1)), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_stream_cannot_know_is_refused(name: str) -> None:
    with pytest.raises(EdgecError):
        step_of(*REFUSED[name])


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_reason_names_the_mean_and_offers_sliding(precision: str) -> None:
    module, axis = REFUSED["gate from linear layers"]
    graph = frontends.load(module, (torch.zeros(SHAPES[axis]),), time_axis=axis)
    data = np.random.default_rng(0).normal(size=(8, *SHAPES[axis][1:])).astype(np.float32)
    with pytest.raises(PassError, match=r"mul \(test_streaming_meaning.py:\d+\): frames meet .* of %\w+ \(") as info:
        make_stages(graph, precision, data, MakeStreaming(), None, Assignment(), lambda stage: None, None)
    assert "--sliding" in info.value.for_shell()
    assert "edgec.nn.RunningMean" in str(info.value)


@pytest.mark.parametrize(
    ("module", "shape", "time_axis"),
    [
        (net(lambda x, f: f(x) * torch.sigmoid(f(x).mean(1, keepdim=True)), f=LogMel(n_mels=8)), (1, 3200), 1),
        (net(lambda x: x * torch.sigmoid(x.mean(0, keepdim=True))), (16, 1, 8), 0),
        (net(lambda x: x * torch.sigmoid(x.mean(2, keepdim=True))), (1, 8, 16), 2),
    ],
    ids=["log-mel", "time first", "channels first"],
)
def test_sliding_is_not_offered_where_it_cannot_be(module: nn.Module, shape: tuple[int, ...], time_axis: int) -> None:
    graph = frontends.load(module, (torch.zeros(shape),), time_axis=time_axis)
    with pytest.raises(PassError, match="compile the whole window with streaming=False") as info:
        transform(graph, [*float_passes(), MakeStreaming()], lambda stage: None)
    assert "sliding" not in str(info.value)


READOUTS: dict[str, tuple[nn.Module, int]] = {
    "mean": (net(lambda x: x.mean(1)), 1),
    "classifier": (net(lambda x, f: f(x.mean(1)), f=nn.Linear(8, 3)), 1),
    "deep head": (
        net(lambda x, a, n, b: torch.softmax(b(n(torch.relu(a(x.mean(1, keepdim=True))))), -1),
            a=nn.Linear(8, 7), n=nn.LayerNorm(7), b=nn.Linear(7, 3)), 1),
    "two heads multiplied": (net(lambda x, a, b: a(x.mean(1)) * torch.sigmoid(b(x.mean(1))),
                                 a=nn.Linear(8, 3), b=nn.Linear(8, 3)), 1),
    "moments": (net(lambda x: torch.cat([x.mean(1), (x * x).mean(1) - x.mean(1) ** 2], 1)), 1),
    "sum": (net(lambda x: x.sum(1)), 1),
    "sum over time and channels": (net(lambda x: x.sum((1, 2))), 1),
    "energy": (net(lambda x, f: f((x * x).sum(1, keepdim=True)), f=nn.Linear(8, 3)), 1),
    "pooled": (net(lambda x, c, a, f: f(a(torch.relu(c(x))).flatten(1)),
                   c=nn.Conv1d(8, 6, 1), a=nn.AdaptiveAvgPool1d(1), f=nn.Linear(6, 3)), 2),
    "convolution on the mean": (net(lambda x, c, d: d(c(x).mean(2, keepdim=True)),
                                    c=nn.Conv1d(8, 8, 1), d=nn.Conv1d(8, 4, 1)), 2),
    "causal convolutions": (
        net(lambda x, c, d, f: f(torch.relu(d(nn.functional.pad(torch.relu(c(nn.functional.pad(x, (2, 0)))), (4, 0))))
                                 .mean(2)), c=nn.Conv1d(8, 6, 3), d=nn.Conv1d(6, 5, 3, dilation=2),
            f=nn.Linear(5, 3)), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", READOUTS)
def test_frame_t_of_a_readout_is_the_network_on_the_frames_so_far(name: str) -> None:
    module, axis = READOUTS[name]
    x = torch.randn(SHAPES[axis], generator=torch.Generator().manual_seed(1))
    outs = streamed(step_of(module, axis), x)
    assert len(outs) == 16
    for t, (out,) in enumerate(outs, 1):
        with torch.no_grad():
            torch.testing.assert_close(out, module(x.narrow(axis, 0, t)), rtol=1e-4, atol=1e-5)


INTEGER: dict[str, tuple[nn.Module, int, float]] = {
    "mean over the last axis": (net(lambda x: torch.tanh(x).mean(2)), 2, 0.05),
    "sum over the last axis": (net(lambda x: torch.relu(x).sum(2)), 2, 0.4),
    "mean over channels, time last": (net(lambda x: x.mean(1, keepdim=True) * 4), 2, 0.15),
    "a computed quotient": (net(lambda x: x / (torch.sigmoid(x) + 1)), 1, 0.15),
    "classifier": (net(lambda x, f: f(torch.relu(x).mean(1)), f=nn.Linear(8, 3)), 1, 0.2),
}


@pytest.mark.parametrize("name", INTEGER)
def test_integers_stream_as_they_are_over_the_whole_sequence(name: str) -> None:
    """Exactly their own graph over the whole sequence; at its end torch's numbers, to some levels."""
    module, axis, levels = INTEGER[name]
    graph = frontends.load(module, (torch.zeros(SHAPES[axis]),), time_axis=axis)
    data = np.random.default_rng(1).normal(size=(32, *SHAPES[axis][1:])).astype(np.float32)
    stages = make_stages(
        graph, "int8", data, MakeStreaming(), DropConstantChannels(), Assignment(), lambda stage: None, None
    )
    (v,), x = stages.whole.inputs, torch.from_numpy(data[:1])
    integers = {v.name: requantized(x.double(), v.type)}
    assert first_difference(stages.whole, stages.step, integers) is None
    found = list(StepRunner(stages.step).run(integers))[-1][0]
    with torch.no_grad():
        wanted = module(x)
    wanted = wanted if wanted.numel() == found.numel() else wanted.narrow(axis, 15, 1)
    real = dequantize(found, stages.step.type_of(stages.step.outputs[0]))
    torch.testing.assert_close(real.reshape(wanted.shape).float(), wanted, atol=levels, rtol=0)


def test_a_readout_beside_frames() -> None:
    """Two outputs: a value for each frame, and the readout."""
    module = net(lambda x, a: (a(x), a(x).mean(1)), a=nn.Linear(8, 3))
    x = torch.randn(SHAPES[1])
    for t, (frame, mean) in enumerate(streamed(step_of(module, 1), x), 1):
        whole = module(x[:, :t])
        torch.testing.assert_close(frame, whole[0][:, -1:])
        torch.testing.assert_close(mean, whole[1])


class Tcn(nn.Module):
    """Residual blocks of dilated convolutions that look ahead, a mean over time and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.convs = nn.ModuleList([nn.Conv1d(8, 8, 3, padding=d, dilation=d) for d in (1, 2, 3)])
        self.head = nn.Linear(8, 4)

    def features(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = x + torch.relu(conv(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean(2))
        return logits


def test_a_temporal_convolutional_network_with_a_mean_at_its_end() -> None:
    """Its last frame is torch's output; frame t the classifier of the mean of the first t features."""
    module = Tcn().eval()
    x = torch.randn(SHAPES[2])
    step = step_of(module, 2)
    outs = streamed(step, x)
    assert (len(outs), step.delay) == (16, 6)
    features = module.features(x)
    for t, (out,) in enumerate(outs, 1):
        torch.testing.assert_close(out, module.head(features[:, :, :t].mean(2)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outs[-1][0], module(x), rtol=1e-4, atol=1e-5)


class Spikes(nn.Module):
    """Neurons along the last axis: edgec.nn.LIF, or by hand in a loop."""

    def __init__(self, reset: Literal["hard", "subtract"]) -> None:
        super().__init__()
        self.by_hand, self.reset = False, reset
        self.lif = LIF(beta=0.6, threshold=0.5, reset=reset, decay_input=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.by_hand:
            found: Tensor = self.lif(x.transpose(1, 2)).transpose(1, 2)
            return found
        v, spikes = torch.zeros_like(x[:, :, 0]), []
        for current in x.unbind(2):
            v = 0.6 * v + current
            spikes.append((v >= 0.5).float())
            v = v * (1 - spikes[-1]) if self.reset == "hard" else v - 0.5 * spikes[-1]
        return torch.stack(spikes, 2)


@st.composite
def sequential(draw: Any) -> nn.Sequential:
    """Causal, centred, valid, dilated, strided and grouped convolutions, pools, neurons and pointwise layers."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    layers: list[nn.Module] = []
    channels, frames, strided = 8, 16, False
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["conv", "conv", "depthwise", "pool", "norm", "relu", "spikes"]))
        k, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        span = dilation * (k - 1) + 1
        right = 0 if strided else draw(st.integers(0, span - 1))
        left = draw(st.sampled_from([0, span - 1 - right, span - 1]))
        stride = draw(st.sampled_from([1, 1, 2, 3]))
        if kind in ("conv", "depthwise") and frames + left + right >= span:
            out = channels if kind == "depthwise" else draw(st.sampled_from([3, 8]))
            groups = channels if kind == "depthwise" else 1
            layers += [nn.ConstantPad1d((left, right), 0.0), nn.Conv1d(channels, out, k, stride, 0, dilation, groups)]
            channels, frames, strided = out, (frames + left + right - span) // stride + 1, strided or stride > 1
        elif kind == "pool" and frames >= 2:
            stride = draw(st.sampled_from([1, 2]))
            layers.append(draw(st.sampled_from([nn.MaxPool1d, nn.AvgPool1d]))(2, stride))
            frames, strided = (frames - 2) // stride + 1, strided or stride > 1
        elif kind == "norm":
            norm = nn.BatchNorm1d(channels)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.running_mean)
            layers.append(norm)
        elif kind == "spikes":
            layers.append(Spikes(draw(st.sampled_from(["hard", "subtract"]))))
        else:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers).eval()


@settings(max_examples=60, deadline=None, derandomize=True)  # a spike within rounding of its threshold may flip
@given(sequential(), st.integers(0, 2**16))
def test_random_networks_give_torchs_frames_or_are_refused(module: nn.Sequential, seed: int) -> None:
    neurons = [layer for layer in module if isinstance(layer, Spikes)]
    x = torch.randn(SHAPES[2], generator=torch.Generator().manual_seed(seed))
    for layer in neurons:
        layer.by_hand = True
    with torch.no_grad():
        whole = module(x)
    for layer in neurons:
        layer.by_hand = False
    try:
        step = step_of(module, 2)
    except PassError as err:
        assert "left padding" in str(err)  # noqa: PT017
        return
    frames = torch.cat([out[0] for out in streamed(step, x)], 2)
    torch.testing.assert_close(frames, whole, rtol=1e-4, atol=1e-5)


def sensors(x: Tensor, q: nn.Module, k: nn.Module) -> Tensor:
    """Attention of the groups of channels of each frame on one another."""
    parts = x.reshape(1, x.shape[1], 4, 2)
    scores = torch.softmax(q(parts) @ k(parts).transpose(-1, -2), -1)
    return (scores @ parts).reshape(x.shape)


PER_FRAME: dict[str, tuple[nn.Module, int]] = {
    "attention over sensors": (net(sensors, q=nn.Linear(2, 3), k=nn.Linear(2, 3)), 1),
    "standardised frames": (net(lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 0.1)), 1),
    "outer product": (net(lambda x: (x.unsqueeze(-1) @ x.unsqueeze(-2)).reshape(1, x.shape[1], 64)), 1),
}


@pytest.mark.parametrize(("module", "time_axis"), PER_FRAME.values(), ids=PER_FRAME)
def test_products_within_a_frame_stream(module: nn.Module, time_axis: int) -> None:
    x = torch.randn(SHAPES[time_axis])
    with torch.no_grad():
        expected = module(x)
    found = torch.cat([out for (out,) in streamed(step_of(module, time_axis), x)], time_axis)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_products_across_frames_do_not() -> None:
    with pytest.raises(EdgecError, match="operands have different time axes"):
        step_of(net(lambda x: torch.softmax(x @ x.transpose(1, 2), -1) @ x), 1)
