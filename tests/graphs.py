"""Graphs that tests are made of: a small builder, and random streaming networks for property tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from edgec.ir.graph import Const, Graph, Node, Value
from edgec.ir.types import DType, TensorType
from edgec.ir.verify import verify
from edgec.ops import Add, Affine, Concat, Conv1d, Lif, Linear, LmuMemory, Relu, RunningMean


class Builder:
    """Append nodes one after another; names are given, types inferred."""

    def __init__(self, name: str = "net", seed: int = 0) -> None:
        self.name, self.rng = name, np.random.default_rng(seed)
        self.inputs: list[Value] = []
        self.consts: dict[str, Const] = {}
        self.nodes: list[Node] = []
        self.types: dict[str, TensorType] = {}

    def input(self, name: str, *shape: int, time: int | None = 1, dtype: DType = DType.F32) -> str:
        self.inputs.append(Value(name, TensorType(shape, dtype, None, time)))
        self.types[name] = self.inputs[-1].type
        return name

    def const(self, data: Any, dtype: str = "float32") -> str:
        name = f"c{len(self.consts)}"
        array = np.asarray(data, dtype)
        self.consts[name] = Const(array, TensorType(array.shape, DType(dtype)))
        self.types[name] = self.consts[name].type
        return name

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        return self.const(self.rng.normal(size=shape) * scale)

    def emit(self, op: Any, *inputs: str) -> str:
        name = f"t{len(self.nodes)}"
        types = op.infer([self.types[i] for i in inputs])
        outputs = (name,) if len(types) == 1 else tuple(f"{name}_{k}" for k in range(len(types)))
        self.nodes.append(Node(op, inputs, outputs, types, (f"net.py:{len(self.nodes) + 1}",)))
        self.types.update(zip(outputs, types, strict=True))
        return outputs[0]

    def build(self, *outputs: str) -> Graph:
        graph = Graph(self.name, tuple(self.inputs), self.consts, tuple(self.nodes), outputs)
        verify(graph)
        return graph


def conv(b: Builder, x: str, channels: int, k: int, pad: tuple[int, int], dilation: int = 1) -> str:
    c = b.types[x].shape[2]
    return b.emit(
        Conv1d(pad=pad, dilation=dilation),
        x,
        b.normal(k, c, channels, scale=1.5 / np.sqrt(k * c)),
        b.normal(channels, scale=0.2),
    )


def lif(b: Builder, x: str, **options: Any) -> str:
    return b.emit(Lif(**options), x, b.const([0.5]), b.const([0.4]))


@st.composite
def streaming_nets(draw: Any) -> Graph:
    """Random networks over [1,T,C] with look-ahead, branches of different delay, neurons, an LMU memory and a mean."""
    b = Builder(seed=draw(st.integers(0, 2**16)))
    frames, channels = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    x = b.input("x", 1, frames, channels)
    for _ in range(draw(st.integers(1, 5))):
        x = draw(st.sampled_from(_BLOCKS))(draw, b, x)
    if draw(st.booleans()):
        x = b.emit(RunningMean(draw(st.integers(0, 5))), x)
    return b.build(x)


def _conv(draw: Any, b: Builder, x: str) -> str:
    k, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    left = draw(st.integers(0, dilation * (k - 1)))
    return conv(b, x, draw(st.integers(1, 5)), k, (left, dilation * (k - 1) - left), dilation)


def _lif(draw: Any, b: Builder, x: str) -> str:
    options = {
        "decay_input": draw(st.booleans()),
        "reset": draw(st.sampled_from(["hard", "subtract", "none"])),
        "strict": draw(st.booleans()),
        "delayed_reset": draw(st.booleans()),
    }
    return lif(b, x, **options)


def _residual(draw: Any, b: Builder, x: str) -> str:
    c = b.types[x].shape[2]
    return b.emit(Add(), x, conv(b, _lif(draw, b, x), c, 3, draw(st.sampled_from([(1, 1), (2, 0), (0, 2)]))))


def _concat(draw: Any, b: Builder, x: str) -> str:
    return b.emit(Concat(), _conv(draw, b, x), x)


def _dense(draw: Any, b: Builder, x: str) -> str:
    c, o = b.types[x].shape[2], draw(st.integers(1, 5))
    y = b.emit(Linear(), x, b.normal(c, o), b.normal(o))
    return b.emit(Relu(), b.emit(Affine(axis=2), y, b.normal(o), b.normal(o)))


def _memory(draw: Any, b: Builder, x: str) -> str:
    c = b.types[x].shape[2]
    u = b.emit(Linear(), x, b.normal(c, 1), b.normal(1))
    return b.emit(
        LmuMemory(draw(st.integers(1, 4)), draw(st.integers(2, 9)), draw(st.sampled_from(["fir", "recurrent"]))), u
    )


_BLOCKS = [_conv, _lif, _residual, _concat, _dense, _memory]
