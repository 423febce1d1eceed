"""The scaler is found in plain torch code, in every way it is commonly written, and nothing else is taken for it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edgec.frontends import load
from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Graph
from edgec.ir.verify import verify
from edgec.passes.canonicalize import Canonicalize
from edgec.passes.recognize_scaler import RecognizeScaler

Scaler = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


class Net(nn.Module):
    """Scale a window, mix it, scale it back."""

    def __init__(self, scaler: Scaler, back: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.scaler, self.back, self.mix = scaler, back, nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y, loc, scale = self.scaler(x)
        return self.back(self.mix(y.transpose(1, 2)).transpose(1, 2), loc, scale)


def masked(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """With a mask of what was observed, all of it, as PatchTSMixer and Tiny Time Mixer do."""
    seen = torch.ones_like(x)
    count = seen.sum(1, keepdim=True).clamp_min(1.0)
    loc = (x * seen).sum(1, keepdim=True) / count
    variance = (((x - loc) * seen) ** 2).sum(1, keepdim=True) / count
    scale = torch.sqrt(variance + 1e-5)
    return (x - loc) / scale, loc, scale


def by_variance(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In one line, the mean taken three times."""
    scale = torch.sqrt(x.var(1, unbiased=False, keepdim=True) + 1e-5)
    return (x - x.mean(1, keepdim=True)) / scale, x.mean(1, keepdim=True), scale


def by_squares(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The distance from the mean once, its axis dropped and put back."""
    loc = x.mean(1).unsqueeze(1)
    away = x - loc
    scale = (1e-5 + away.square().mean(1).unsqueeze(1)).sqrt()
    return away / scale, loc, scale


def by_reciprocal(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A product with rsqrt; eps taken away, and both distances and sums written out."""
    loc = x.sum(1, keepdim=True) * (1 / 12)
    variance = ((x - loc) * (x - loc)).sum(1, keepdim=True) / 12 - -1e-5
    inverse = torch.rsqrt(variance)
    return inverse * (x - loc), loc, 1 / inverse


BACK = [lambda y, loc, scale: y * scale + loc, lambda y, loc, scale: loc + scale * y]


def imported(net: nn.Module, shape: tuple[int, ...] = (1, 12, 3)) -> Graph:
    return Canonicalize().run(load(net.eval(), (torch.zeros(shape),), name="net"))


@pytest.mark.parametrize("scaler", [masked, by_variance, by_squares, by_reciprocal])
@pytest.mark.parametrize("back", BACK)
def test_both_ways_become_one_op_each(scaler: Scaler, back: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    net = Net(scaler, back)
    graph = RecognizeScaler().run(imported(net))
    verify(graph)
    assert [n.op.name for n in graph.nodes] == ["std_scale", "permute", "linear", "permute", "std_unscale"]
    assert graph.nodes[0].op.axis == 1
    assert graph.nodes[0].op.eps == pytest.approx(1e-5)
    x = torch.randn(1, 12, 3) * 4 + 10
    torch.testing.assert_close(evaluate(graph, {"x": x})[0], net(x), rtol=1e-5, atol=1e-5)


def test_a_window_scaled_twice_is_two_scalers() -> None:
    net = Net(lambda x: by_squares(by_variance(x)[0]), BACK[0])
    graph = RecognizeScaler().run(imported(net))
    assert [n.op.name for n in graph.nodes].count("std_scale") == 2
    x = torch.randn(1, 12, 3) + 2
    torch.testing.assert_close(evaluate(graph, {"x": x})[0], net(x), rtol=1e-4, atol=1e-5)


def test_one_mean_with_two_quotients_is_scaled_once() -> None:
    def twice(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, loc, scale = by_squares(x)
        return y + (x - loc) / torch.sqrt((x - loc).square().mean(1, keepdim=True) + 0.5), loc, scale

    net = Net(twice, BACK[0])
    graph = RecognizeScaler().run(imported(net))
    verify(graph)
    assert [n.op.name for n in graph.nodes].count("std_scale") == 1
    x = torch.randn(1, 12, 3) + 2
    torch.testing.assert_close(evaluate(graph, {"x": x})[0], net(x), rtol=1e-5, atol=1e-5)


def unbiased(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale = torch.sqrt(x.var(1, keepdim=True) + 1e-5)
    return (x - x.mean(1, keepdim=True)) / scale, x.mean(1, keepdim=True), scale


def without_eps(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale = x.std(1, unbiased=False, keepdim=True)
    return (x - x.mean(1, keepdim=True)) / scale, x.mean(1, keepdim=True), scale


def other_axis(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale = torch.sqrt(x.var(1, unbiased=False, keepdim=True) + 1e-5)
    return (x - x.mean(2, keepdim=True)) / scale, x.mean(1, keepdim=True), scale


def other_tensor(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale = torch.sqrt((2 * x).var(1, unbiased=False, keepdim=True) + 1e-5)
    return (x - x.mean(1, keepdim=True)) / scale, x.mean(1, keepdim=True), scale


def halved(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    loc = x.sum(1, keepdim=True) / 24
    scale = torch.sqrt((x - loc).square().mean(1, keepdim=True) + 1e-5)
    return (x - loc) / scale, loc, scale


@pytest.mark.parametrize("scaler", [unbiased, without_eps, other_axis, other_tensor, halved])
def test_what_only_looks_like_it_stays_arithmetic(scaler: Scaler) -> None:
    net = Net(scaler, BACK[0])
    graph = imported(net)
    assert RecognizeScaler().run(graph) == graph
    x = torch.randn(1, 12, 3) + 2
    torch.testing.assert_close(evaluate(graph, {"x": x})[0], net(x), rtol=1e-5, atol=1e-5)


def test_a_mask_of_ones_is_dropped_and_another_is_not() -> None:
    class Masked(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.mask = torch.full((1, 12, 3), value)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.mask * (x * self.mask) / self.mask)

    assert [n.op.name for n in imported(Masked(1.0)).nodes] == ["relu"]
    assert [n.op.name for n in imported(Masked(3.0)).nodes] == ["mul", "mul", "div", "relu"]
