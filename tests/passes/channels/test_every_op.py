"""Whatever op stands between two layers, channels that go by what it declares change no output."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Const, Graph
from edgec.ir.types import DType, TensorType
from edgec.ir.verify import verify
from edgec.ops import Linear, QLinear, QLinearRequantize
from edgec.passes.channels.drop_constant_channels import DropConstantChannels
from tests.graphs import Builder
from tests.ops.test_declarations import SAMPLES, Types, name_of, values

BETWEEN = [s for s in SAMPLES if s[1][0].shape and s[0].lag == 0 and not s[0].output_is_state]


def before(b: Builder, x: str, c: int) -> str:
    """A layer with some outputs that are the same for every input."""
    dead = b.rng.random(c) < 0.4
    if b.types[x].dtype.is_float:
        w, bias = (b.rng.normal(size=shape) * ~dead for shape in ((c, c), (c,)))
        return b.emit(Linear(), x, b.const(w), b.const(bias))
    if b.types[x].dtype is not DType.I8:
        return x
    weights = b.const(b.rng.integers(-127, 128, (c, c)) * ~dead, "int8"), b.const(b.rng.integers(-99, 99, c), "int32")
    scales = b.const(b.rng.integers(1 << 30, 1 << 31, c), "int32"), b.const([37] * c, "int32")
    return b.emit(QLinearRequantize(), x, *weights, *scales)


def after(b: Builder, x: str, c: int) -> str:
    """A layer that does not read some of its inputs."""
    unread = (b.rng.random(c) < 0.4)[:, None]
    if b.types[x].time_axis == len(b.types[x].shape) - 1:
        return x
    if b.types[x].dtype.is_float:
        return b.emit(Linear(), x, b.const(b.rng.normal(size=(c, 3)) * ~unread), b.normal(3))
    if b.types[x].dtype is not DType.I8:
        return x
    return b.emit(QLinear(), x, b.const(b.rng.integers(-127, 128, (c, 3)) * ~unread, "int8"), b.const([0] * 3, "int32"))


def const(b: Builder, value: torch.Tensor, t: TensorType) -> str:
    name = b.const(value.numpy(), "int8" if t.dtype is DType.BIT else t.dtype.storage)
    b.consts[name], b.types[name] = Const(b.consts[name].data, t), t
    return name


def between(op: Any, types: Types, seed: int) -> Graph:
    b, t = Builder(seed=seed), types[0]
    x = b.input("x", *t.shape, time=t.time_axis, dtype=t.dtype)
    if t.time_axis != len(t.shape) - 1:
        x = before(b, x, t.shape[-1])
    rest = values(op, types, seed)[1:]
    consts = [const(b, v, k) for v, k in zip(rest, types[1:], strict=True)]
    y = b.emit(op, x, *consts)
    return b.build(after(b, y, b.types[y].shape[-1]) if b.types[y].shape else y)


@pytest.mark.parametrize(("op", "types"), BETWEEN, ids=name_of)
def test_outputs_stay(op: Any, types: Types) -> None:
    for seed in range(6):
        graph = between(op, types, seed)
        dropped = DropConstantChannels(aligned=1).run(graph)
        verify(dropped)
        x = {"x": values(op, types, seed + 10)[0]}
        for old, new in zip(evaluate(graph, x), evaluate(dropped, x), strict=True):
            defined = torch.isfinite(old)  # no number times a weight of zero is no number either
            torch.testing.assert_close(new[defined], old[defined])


def gone(name: str) -> int:
    """How many channels go of the results of an op that stands between two layers."""
    op, types = next(s for s in BETWEEN if s[0].name == name)
    graphs = [between(op, types, seed) for seed in range(6)]
    pairs = [(g.nodes[1], DropConstantChannels(aligned=1).run(g).nodes[1]) for g in graphs]
    return sum(old.types[0].shape[-1] - new.types[0].shape[-1] for old, new in pairs)


@pytest.mark.parametrize("name", ["tanh", "clip", "affine", "lif", "concat", "pad", "qlut", "qaffine"])
def test_channels_go_behind_what_keeps_them_apart(name: str) -> None:
    assert gone(name) > 0


@pytest.mark.parametrize("name", ["softmax", "layer_norm", "eca"])
def test_channels_that_are_mixed_stay(name: str) -> None:
    assert gone(name) == 0
