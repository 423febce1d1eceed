"""Masks of attention: -inf is exact where a softmax reads it, and refused elsewhere. The oracle is torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgec.errors import FrontendError
from edgec.frontends import load
from edgec.ir.evaluate import evaluate
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.split_quotient import SplitQuotient
from edgec.stages import float_passes, transform

T, DIM, HEADS = 6, 8, 2
CAUSAL = torch.ones(T, T, dtype=torch.bool).tril()
INFINITE = torch.zeros(T, T).masked_fill(~CAUSAL, float("-inf"))


class Attention(nn.Module):
    """Causal self-attention of x [1, T, DIM]; `kind` is how the mask is written down."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.qkv, self.out = kind, nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.register_buffer("mask", INFINITE)
        self.register_buffer("tril", CAUSAL.float()[None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).view(1, T, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)
        if self.kind == "sdpa causal":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.kind == "sdpa float":
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        elif self.kind == "sdpa bool":
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.tril == 1)
        else:
            y = self.masked(q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(1, T, DIM))

    def masked(self, scores: torch.Tensor) -> torch.Tensor:
        if self.kind == "added":
            return scores + self.mask
        if self.kind == "made in forward":
            return scores + torch.full((T, T), float("-inf")).triu(1)
        if self.kind == "masked_fill":
            return scores.masked_fill(self.tril[:, :, :T, :T] == 0, float("-inf"))
        if self.kind == "lowest":
            return scores.masked_fill(self.tril == 0, torch.finfo(torch.float32).min)
        return torch.where(self.tril == 1, scores, float("-inf"))


KINDS = ["added", "made in forward", "masked_fill", "lowest", "where", "sdpa causal", "sdpa float", "sdpa bool"]


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    module = Attention(kind).eval()
    module.qkv.weight.data.mul_(4)
    return module


def sample(seed: int) -> torch.Tensor:
    return torch.randn(1, T, DIM, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_float_is_exact(kind: str) -> None:
    module = network(kind)
    graph = load(module, (sample(0),), time_axis=None)
    assert all(np.isfinite(c.data).all() for c in graph.consts.values())
    x = sample(1)
    torch.testing.assert_close(evaluate(graph, {graph.inputs[0].name: x})[0], module(x).detach())


@pytest.mark.parametrize("kind", ["added", "lowest", "sdpa causal"])
def test_int8_keeps_the_scores_fine(kind: str) -> None:
    module = network(kind)
    passes = [*float_passes(), SplitQuotient()]
    graph = transform(load(module, (sample(0),), time_axis=None), passes, lambda stage: None)[-1]
    quantised = Quantize(np.concatenate([sample(k).numpy() for k in range(40)])).run(graph)
    signal = error = 0.0
    for k in range(100, 120):
        (found,) = evaluate(quantised, {quantised.inputs[0].name: integers(quantised, sample(k))})
        q: Any = quantised.type_of(quantised.outputs[0]).quant
        wanted = module(sample(k)).detach()
        real = (found - q.zero_point) * q.scale[0]
        signal, error = signal + float((wanted**2).sum()), error + float(((wanted - real) ** 2).sum())
    assert 10 * np.log10(signal / error) > 28


def integers(graph: Any, x: torch.Tensor) -> torch.Tensor:
    t = graph.inputs[0].type
    return torch.clamp(torch.round(x / t.quant.scale[0]) + t.quant.zero_point, *t.dtype.range).to(torch.int64)


class Odd(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("mask", INFINITE)
        self.register_buffer("rows", INFINITE.flip(1).T.roll(1, 0).masked_fill(~CAUSAL, float("-inf")))

    def forward(self, x: torch.Tensor) -> Any:
        if self.kind == "sum":
            return x + self.mask
        if self.kind == "both":
            y = x + self.mask
            return torch.softmax(y, -1), y
        if self.kind == "product":
            return torch.softmax(x * self.mask, -1)
        return torch.softmax(x + torch.full((T, T), float("-inf")), -1)


@pytest.mark.parametrize("kind", ["sum", "both", "product", "rows"])
def test_other_uses_are_refused(kind: str) -> None:
    with pytest.raises(FrontendError, match=r"holds -inf, and not only a softmax|masks whole rows|not finite"):
        load(Odd(kind).eval(), (torch.randn(1, T, T),))


def test_infinite_weights_are_refused() -> None:
    module = nn.Linear(3, 2).eval()
    module.weight.data[0, 1] = float("-inf")
    with pytest.raises(FrontendError, match="weight: 1 of 6 values are not finite"):
        load(module, (torch.randn(1, 3),))
    norm = nn.Sequential(nn.BatchNorm1d(3)).eval()
    norm[0].running_mean[0] = float("-inf")
    with pytest.raises(FrontendError, match="not finite"):
        load(norm, (torch.randn(1, 3, 4),))
