"""Channel attention found in the ways people write it, and left alone where it is something else."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgec.frontends import load
from edgec.frontends.pytorch.importer import FrontendError
from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Graph
from edgec.ir.text import parse_graph, print_graph
from edgec.ir.verify import verify
from edgec.ops import OPS, Conv1d, Mean, Mul, Reshape, Sigmoid
from edgec.passes.assign_layout import AssignLayout
from edgec.passes.canonicalize import Canonicalize
from edgec.passes.recognize_eca import RecognizeEca
from tests.graphs import Builder

Forward = Callable[[nn.Module, Tensor], Tensor]


def published(m: nn.Module, x: Tensor) -> Tensor:
    """As in the repository of the paper."""
    y = F.adaptive_avg_pool2d(x, 1)
    y = m(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
    return x * torch.sigmoid(y).expand_as(x)


def viewed(m: nn.Module, x: Tensor) -> Tensor:
    y = m(x.mean((2, 3)).view(x.shape[0], 1, -1))
    return x * y.sigmoid().view(x.shape[0], -1, 1, 1).expand_as(x)


def two_means(m: nn.Module, x: Tensor) -> Tensor:
    y = torch.sigmoid(m(x.mean(-1).mean(-1).unsqueeze(1)))
    return y.transpose(1, 2).unsqueeze(3) * x


def pooled(m: nn.Module, x: Tensor) -> Tensor:
    y = F.avg_pool2d(x, x.shape[-2:]).flatten(2).permute(0, 2, 1)
    return m(y).permute(0, 2, 1).sigmoid()[..., None] * x


def rows_first(m: nn.Module, x: Tensor) -> Tensor:
    y = x.mean(2, keepdim=True).mean(3, keepdim=True).reshape(1, 1, x.shape[1])
    return x * torch.sigmoid(m(y).reshape(1, x.shape[1], 1, 1))


def summed(m: nn.Module, x: Tensor) -> Tensor:
    """The mean as a sum over the number of positions."""
    y = x.sum((2, 3)) / (x.shape[2] * x.shape[3])
    return x * torch.sigmoid(m(y[:, None])).reshape(1, -1, 1, 1)


def sharpened(m: nn.Module, x: Tensor) -> Tensor:
    """Other numbers on the way, which the filter takes."""
    y = m(x.flatten(2).sum(-1)[:, None] * 0.03) / 0.7
    return torch.sigmoid(-y).reshape(1, -1, 1, 1) * x


def of_tokens(m: nn.Module, x: Tensor) -> Tensor:
    """An image that is a view of tokens, whose mean is theirs."""
    tokens = torch.relu(x.flatten(2).transpose(1, 2))
    image = tokens.reshape(1, x.shape[2], x.shape[3], x.shape[1])
    y = torch.sigmoid(m(tokens.mean(1)[:, None])).reshape(1, 1, 1, -1)
    return (image * y).permute(0, 3, 1, 2)


class Net(nn.Module):
    """The attention between two convolutions, or alone."""

    def __init__(self, forward: Forward, taps: int, channels: int, alone: bool) -> None:
        super().__init__()
        self.before = nn.Identity() if alone else nn.Conv2d(channels, channels, 1)
        self.filter = nn.Conv1d(1, 1, taps, padding=taps // 2, bias=False)
        self.after = nn.Identity() if alone else nn.Conv2d(channels, 2, 1)
        self.attend = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.attend(self.filter, self.before(x)))


def names(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes]


def check(net: nn.Module, x: Tensor, expected: list[str]) -> None:
    graph = RecognizeEca().run(Canonicalize().run(load(net, (x,))))
    verify(graph)
    graph = AssignLayout().run(graph)
    verify(graph)
    assert names(graph) == expected
    with torch.no_grad():
        torch.testing.assert_close(evaluate(graph, {graph.inputs[0].name: x})[0], net(x))


@pytest.mark.parametrize("taps", [1, 3, 5])
@pytest.mark.parametrize("forward", [published, viewed, two_means, pooled, rows_first, summed, sharpened])
def test_every_spelling_is_one_node(forward: Forward, taps: int) -> None:
    torch.manual_seed(taps)
    net = Net(forward, taps, 6, alone=False).eval()
    check(net, torch.randn(1, 6, 5, 4), ["permute", "conv2d", "eca", "conv2d", "permute"])


@pytest.mark.parametrize("shape", [(1, 6, 5, 4), (1, 6, 1, 1), (1, 2, 1, 3), (1, 3, 3, 3)])
@pytest.mark.parametrize("forward", [published, viewed, two_means, rows_first, summed, sharpened])
def test_right_behind_the_input(forward: Forward, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = Net(forward, 3, shape[1], alone=True).eval()
    moves = "reshape" if shape[2:] == (1, 1) else "permute"
    check(net, torch.randn(shape), [moves, "eca", moves])


def test_an_image_that_is_a_view_of_tokens() -> None:
    torch.manual_seed(0)
    net, x = Net(of_tokens, 3, 6, alone=False).eval(), torch.randn(1, 6, 5, 4)
    graph = RecognizeEca().run(Canonicalize().run(load(net, (x,))))
    verify(graph)
    assert {"eca", "sigmoid"} & set(names(graph)) == {"eca"}
    with torch.no_grad():
        torch.testing.assert_close(evaluate(graph, {graph.inputs[0].name: x})[0], net(x))


def test_timms_module_unchanged() -> None:
    pytest.importorskip("timm")
    from timm.layers.eca import EcaModule

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), EcaModule(16), nn.ReLU(), EcaModule(kernel_size=5)).eval()
    check(net, torch.randn(1, 3, 8, 7), ["permute", "conv2d", "eca", "relu", "eca", "permute"])


class Gated(nn.Module):
    """Things beside channel attention."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        pad, bias, stride = (0 if kind == "short" else 1), kind == "bias", 1
        self.filter = nn.Conv1d(1, 1, 3, padding=pad, bias=bias, stride=stride, dilation=1)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "rows":  # the gate is one per row, not one per channel
            return x * torch.sigmoid(self.filter(x.mean((1, 3))[:, None])).view(1, 1, 4, 1)
        if self.kind == "turned":  # the gate of channel c meets row c
            return x * torch.sigmoid(self.filter(x.mean((2, 3))[:, None])).view(1, 1, 4, 1)
        if self.kind == "half":  # the mean leaves out the rows
            return x * torch.sigmoid(self.filter(x.mean(3).reshape(1, 1, 16))).view(1, 4, 4, 1)
        if self.kind == "other":
            return (x + 1.0) * published(self.filter, x)
        if self.kind == "short":
            return x[:, 1:3] * torch.sigmoid(self.filter(x.mean((2, 3))[:, None])).view(1, 2, 1, 1)
        return published(self.filter, x)


@pytest.mark.parametrize("kind", ["turned", "half", "bias", "short"])
def test_what_is_no_attention_stays(kind: str) -> None:
    torch.manual_seed(0)
    net, x = Gated(kind).eval(), torch.randn(1, 4, 4, 4)
    graph = load(net, (x,))
    assert RecognizeEca().run(graph) == graph


@pytest.mark.parametrize("kind", ["rows", "other"])
def test_attention_in_unusual_places(kind: str) -> None:
    """Over rows it is the same thing of another axis; what else reads x does not matter."""
    torch.manual_seed(0)
    net, x = Gated(kind).eval(), torch.randn(1, 4, 4, 4)
    graph = RecognizeEca().run(Canonicalize().run(load(net, (x,))))
    verify(graph)
    assert names(graph).count("eca") == 1
    with torch.no_grad():
        torch.testing.assert_close(evaluate(graph, {graph.inputs[0].name: x})[0], net(x))


def test_several_images() -> None:
    """Over several images at once each has its own gate; a filter over all their channels at once is no attention."""

    def images(rows: int) -> Graph:
        b = Builder()
        x = b.input("x", 2, 3, 5, 4, time=None)
        mean = b.emit(Mean(1), b.emit(Reshape((2, 15, 4)), x))
        y = b.emit(Reshape((rows, 8 // rows, 1)), mean)
        y = b.emit(Sigmoid(), b.emit(Conv1d(pad=(1, 1)), y, b.normal(3, 1, 1), b.const([0.0])))
        return b.build(b.emit(Mul(), x, b.emit(Reshape((2, 1, 1, 4)), y)))

    x = torch.randn(2, 3, 5, 4)
    before, after = images(2), RecognizeEca().run(images(2))
    assert names(after) == ["eca"]
    torch.testing.assert_close(evaluate(after, {"x": x})[0], evaluate(before, {"x": x})[0])
    assert "eca" not in names(RecognizeEca().run(images(1)))


TEXT = """graph net
input %x : float32[1,3,3,4]
const %w : float32[3,1,1] = [0.5, -1.0, 0.25]
const %b : float32[1] = [0.0]
%flat = reshape(%x) {shape=(1, 9, 4)} : float32[1,9,4]  # a.py:1
%m = mean(%flat) : float32[1,4]  # a.py:1
%column = reshape(%m) {shape=(1, 4, 1)} : float32[1,4,1]  # a.py:2
%conv = conv1d(%column, %w, %b) {pad=(1, 1)} : float32[1,4,1]  # a.py:2
%gate = sigmoid(%conv) : float32[1,4,1]  # a.py:3
%row = reshape(%gate) {shape=(1, 1, 1, 4)} : float32[1,1,1,4]  # a.py:3
%y = mul(%x, %row) : float32[1,3,3,4]  # a.py:4
return %y
"""

RECOGNIZED = """graph net
input %x : float32[1,3,3,4]
const %w_taps : float32[3] = [0.5, -1.0, 0.25]
%y = eca(%x, %w_taps) : float32[1,3,3,4]  # a.py:2; a.py:4
return %y
"""


def test_text_in_text_out() -> None:
    assert print_graph(RecognizeEca().run(parse_graph(TEXT, OPS))) == RECOGNIZED


def test_an_expansion_without_arithmetic_is_refused() -> None:
    class Repeats(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(1, keepdim=True).expand_as(x).relu()

    class Both(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(1, keepdim=True).expand_as(x) + x.mean(1, keepdim=True).expand_as(x)

    with pytest.raises(FrontendError, match=r"expand from \(1, 1, 3\) to \(1, 4, 3\); only arithmetic follows it"):
        load(Repeats().eval(), (torch.randn(1, 4, 3),))
    with pytest.raises(FrontendError, match=r"both operands are expanded to \(1, 4, 3\)"):
        load(Both().eval(), (torch.randn(1, 4, 3),))
