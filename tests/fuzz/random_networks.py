"""Random networks as users write them: torch modules over streams, images, windows and vectors, each from one seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import edgec.nn

Rng = np.random.Generator
Make = Callable[[Rng, int], nn.Module]
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Identity)
TIME = 1  # the axis of frames in a stream [B,T,C]


@dataclass(frozen=True)
class Case:
    """A module in eval mode and inputs for it [1,...]. `streams`: it takes frames along axis 1; `readout`: by a mean
    over them, so that only the last frame is what the whole sequence gives; `spikes`: rounding may flip one, and what
    follows is another sequence."""

    module: nn.Module
    inputs: tuple[torch.Tensor, ...]
    streams: bool = False
    readout: bool = False
    spikes: bool = False

    def draw(self, rng: Rng) -> tuple[torch.Tensor, ...]:
        """Other inputs of the same shapes."""
        return tuple(torch.from_numpy(rng.normal(size=x.shape).astype(np.float32)) for x in self.inputs)


def pick(rng: Rng, *choices: int) -> int:
    return int(rng.choice(choices))


def act(rng: Rng) -> nn.Module:
    return ACTIVATIONS[rng.integers(len(ACTIVATIONS))]()


class TimeConv(nn.Module):
    """A convolution over frames [B,T,C], looking back, ahead or both ways, with its norm and activation."""

    def __init__(self, rng: Rng, c: int, o: int) -> None:
        super().__init__()
        k, dilation = pick(rng, 1, 2, 3, 5), pick(rng, 1, 1, 2)
        span = dilation * (k - 1)
        left = pick(rng, span, span, span // 2, 0)
        self.pad = (left, span - left)
        groups = pick(rng, 1, 1, c) if o % c == 0 else 1
        self.conv = nn.Conv1d(c, o, k, dilation=dilation, groups=groups, bias=bool(rng.integers(2)))
        self.norm, self.act = (nn.BatchNorm1d(o) if rng.integers(2) else nn.Identity()), act(rng)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.pad(x.transpose(1, 2), self.pad)
        return self.act(self.norm(self.conv(y))).transpose(1, 2)


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class Gated(nn.Module):
    """x times a gate computed from it."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.gate(x))


class Concat(nn.Module):
    """Two branches side by side along an axis."""

    def __init__(self, a: nn.Module, b: nn.Module, axis: int) -> None:
        super().__init__()
        self.a, self.b, self.axis = a, b, axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.a(x), self.b(x)], self.axis)


class Mean(nn.Module):
    def __init__(self, axes: tuple[int, ...], keep: bool = False) -> None:
        super().__init__()
        self.axes, self.keep = axes, keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(self.axes, keepdim=self.keep)


class Swapped(nn.Module):
    """A module over [B,C,T] for frames [B,T,C]."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x.transpose(1, 2)).transpose(1, 2)


class Standardised(nn.Module):
    """(x - mean) / deviation, as a preprocessing step that a user exports with the network."""

    def __init__(self, rng: Rng, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(rng.normal(size=shape).astype(np.float32)) * 0.2)
        self.register_buffer("std", torch.from_numpy(rng.uniform(0.5, 2.0, shape).astype(np.float32)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.std


class Several(nn.Module):
    """Two inputs meet; one or two heads come out."""

    def __init__(self, a: nn.Module, b: nn.Module, meet: str, heads: list[nn.Module]) -> None:
        super().__init__()
        self.a, self.b, self.meet, self.heads = a, b, meet, nn.ModuleList(heads)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        a, b = self.a(x), self.b(h)
        y = torch.cat([a, b], -1) if self.meet == "concat" else a * torch.sigmoid(b) if self.meet == "gate" else a - b
        outs = tuple(head(y) for head in self.heads)
        return outs if len(outs) > 1 else outs[0]


def frame_blocks(rng: Rng, c: int, count: int) -> tuple[list[nn.Module], int]:
    """Blocks over frames [B,T,C] and the channels after them."""
    blocks: list[nn.Module] = []
    for _ in range(count):
        o = int(rng.integers(1, 20))
        kind = pick(rng, 0, 1, 2, 3, 4, 5)
        if kind == 0:
            blocks += [nn.Linear(c, o), act(rng)]
        elif kind == 1:
            blocks.append(TimeConv(rng, c, o))
        elif kind == 2:
            blocks.append(Residual(TimeConv(rng, c, c)))
            o = c
        elif kind == 3:
            blocks.append(Gated(nn.Linear(c, c)))
            o = c
        elif kind == 4:
            blocks.append(Concat(TimeConv(rng, c, o), nn.Linear(c, 3), -1))
            o += 3
        else:
            blocks.append(nn.LayerNorm(c) if c > 2 else nn.Identity())
            o = c
        c = o
    return blocks, c


def stream(rng: Rng) -> Case:
    """Convolutions and dense layers over frames, at times with a mean over them and a classifier."""
    c = int(rng.integers(1, 12))
    first: list[nn.Module] = [Standardised(rng, (c,))] if rng.integers(3) == 0 else []
    blocks, last = frame_blocks(rng, c, int(rng.integers(1, 5)))
    readout = bool(rng.integers(2))
    head: list[nn.Module] = [nn.Linear(last, int(rng.integers(1, 8)))]
    head = [nn.ReLU(), Mean((TIME,)), *head] if readout else head
    x = torch.from_numpy(rng.normal(size=(1, int(rng.integers(8, 24)), c)).astype(np.float32))
    return Case(nn.Sequential(*first, *blocks, *head), (x,), streams=True, readout=readout)


def spiking(rng: Rng) -> Case:
    """Neurons between layers over frames; the last layer reads spikes."""
    c = int(rng.integers(1, 10))
    layers: list[nn.Module] = []
    width = c
    for _ in range(int(rng.integers(1, 4))):
        o = int(rng.integers(2, 40))
        layers += [TimeConv(rng, width, o) if rng.integers(2) else nn.Linear(width, o)]
        layers += [edgec.nn.LIF(beta=float(rng.uniform(0.2, 0.95)), threshold=float(rng.uniform(0.3, 1.0)))]
        width = o
    x = torch.from_numpy(rng.normal(size=(1, int(rng.integers(8, 24)), c)).astype(np.float32)) * 2
    return Case(nn.Sequential(*layers, nn.Linear(width, int(rng.integers(1, 8)))), (x,), streams=True, spikes=True)


def image_block(rng: Rng, c: int, o: int) -> list[nn.Module]:
    k = pick(rng, 1, 1, 3, 3, 5)
    groups = pick(rng, 1, 1, c) if o % c == 0 else 1
    conv = nn.Conv2d(
        c, o, (k, pick(rng, 1, k)), stride=pick(rng, 1, 1, 2), padding=pick(rng, 0, k // 2), groups=groups,
        dilation=1, bias=bool(rng.integers(2)),
    )  # fmt: skip
    return [conv, nn.BatchNorm2d(o) if rng.integers(2) else nn.Identity(), act(rng)]


def image(rng: Rng) -> Case:
    """A small convolutional network over an image [B,C,H,W], with every kind of end."""
    c, size = int(rng.integers(1, 5)), int(rng.integers(20, 27))
    layers: list[nn.Module] = []
    if rng.integers(3) == 0:
        layers.append(nn.BatchNorm2d(c) if rng.integers(2) else Standardised(rng, (c, 1, 1)))
    width = c
    for _ in range(int(rng.integers(1, 4))):
        o = int(rng.integers(1, 20)) if rng.integers(2) else width * pick(rng, 1, 2)
        layers += image_block(rng, width, o)
        width = o
        if rng.integers(3) == 0:
            layers.append(Gated(nn.Sequential(Mean((2, 3), keep=True), nn.Conv2d(width, width, 1))))
        if rng.integers(3) == 0:
            layers.append(Residual(nn.Sequential(nn.Conv2d(width, width, 3, padding=1), act(rng))))
    pool = [
        nn.MaxPool2d(2, 2, ceil_mode=bool(rng.integers(2))), nn.Identity(),
        nn.AvgPool2d(2, 2, ceil_mode=bool(rng.integers(2)), count_include_pad=bool(rng.integers(2))),
    ]  # fmt: skip
    layers.append(pool[rng.integers(len(pool))])
    x = torch.from_numpy(rng.normal(size=(1, c, size, size + int(rng.integers(0, 3)))).astype(np.float32))
    body = nn.Sequential(*layers).eval()
    n = int(rng.integers(1, 11))
    flat = int(np.prod(body(x).shape[1:]))
    ends = (
        [Mean((2, 3)), nn.Linear(width, n)], [nn.Flatten(), nn.Linear(flat, n)], [nn.Conv2d(width, n, 1)],
        [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n), nn.Softmax(-1)],
    )  # fmt: skip
    return Case(nn.Sequential(body, *ends[rng.integers(len(ends))]), (x,))


def window(rng: Rng) -> Case:
    """One-dimensional convolutions over a window [B,C,T], taken whole."""
    c, width = int(rng.integers(1, 9)), 0
    layers: list[nn.Module] = []
    width = c
    for _ in range(int(rng.integers(1, 4))):
        o, k = int(rng.integers(1, 18)), pick(rng, 1, 3, 5)
        layers += [nn.Conv1d(width, o, k, stride=pick(rng, 1, 2), padding=k // 2), act(rng)]
        width = o
    x = torch.from_numpy(rng.normal(size=(1, c, int(rng.integers(16, 40)))).astype(np.float32))
    end = [nn.Flatten(), nn.LazyLinear(5)] if rng.integers(2) else [Mean((2,)), nn.Linear(width, 5)]
    module = nn.Sequential(*layers, *end)
    module(x)  # the lazy layer takes its width
    return Case(module, (x,))


def vector(rng: Rng) -> Case:
    """A multilayer perceptron over a vector [B,C]."""
    c = int(rng.integers(1, 40))
    layers: list[nn.Module] = [nn.BatchNorm1d(c)] if rng.integers(3) == 0 else []
    for _ in range(int(rng.integers(1, 4))):
        o = int(rng.integers(1, 40))
        layers += [nn.Linear(c, o), nn.BatchNorm1d(o) if rng.integers(2) else nn.Identity(), act(rng)]
        c = o
    return Case(nn.Sequential(*layers, nn.Linear(c, int(rng.integers(1, 8)))), (_row(rng, layers),))


def _row(rng: Rng, layers: list[nn.Module]) -> torch.Tensor:
    first = layers[0]
    width = first.num_features if isinstance(first, nn.BatchNorm1d) else first.in_features  # type: ignore[union-attr]
    return torch.from_numpy(rng.normal(size=(1, int(width))).astype(np.float32))  # type: ignore[arg-type]


def pair(rng: Rng) -> Case:
    """Two inputs, vectors or streams, that meet; one or two outputs."""
    streams = bool(rng.integers(2))
    a, b, o = (int(n) for n in rng.integers(1, 14, size=3))
    meet = ("concat", "gate", "difference")[rng.integers(3)]
    width = 2 * o if meet == "concat" else o
    heads: list[nn.Module] = [nn.Linear(width, int(rng.integers(1, 6))) for _ in range(int(rng.integers(1, 3)))]
    module = Several(nn.Linear(a, o), nn.Sequential(nn.Linear(b, o), act(rng)), meet, heads)
    lead = (1, int(rng.integers(6, 14))) if streams else (1,)
    inputs = tuple(torch.from_numpy(rng.normal(size=(*lead, n)).astype(np.float32)) for n in (a, b))
    return Case(module, inputs, streams=streams)


FAMILIES = (stream, image, window, vector, pair, spiking)


def network(seed: int) -> Case:
    """The network of a seed; its family goes round with the seed."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    case = FAMILIES[seed % len(FAMILIES)](rng)
    for module in case.module.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            n = module.num_features
            module.running_mean = torch.randn(n) * 0.2
            module.running_var = torch.rand(n) * 1.5 + 0.5
    case.module.eval().requires_grad_(False)
    return case
