"""Which channels (indices of the last axis) of a graph's tensors are needed: the least fixed point of rules per op."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from edgec.ir.evaluate import as_tensor
from edgec.ir.graph import Graph, Node
from edgec.ir.types import DType
from edgec.ops.arithmetic import Add
from edgec.ops.base import Array
from edgec.ops.conv import Conv1d, Conv2d
from edgec.ops.dense import Linear
from edgec.ops.elementwise import Relu, Relu6
from edgec.ops.integer.conv import QConv2d, QConv2dRequantize
from edgec.ops.integer.elementwise import QAffine
from edgec.ops.integer.linear import QLinear, QLinearRequantize
from edgec.ops.integer.pool import QAvgPool2d, QMaxPool2d, QMean
from edgec.ops.integer.product import QMul
from edgec.ops.integer.requantize import QAdd, QConv1d, QLut, Requantize
from edgec.ops.integer.tflite import TfliteAdd, TfliteAvgPool2d, TfliteMean, TfliteMul
from edgec.ops.pool import AvgPool2d, MaxPool2d
from edgec.ops.shape import Concat, Pad, Permute, Reshape
from edgec.passes.channels.intervals import Interval


def channels_of(graph: Graph, name: str) -> int:
    """Extent of the last axis; 1 for a scalar."""
    return (graph.type_of(name).shape or (1,))[-1]


class Channels:
    """`need` holds a mask over the channels of every input and computed tensor; masks only grow.

    stay: by a convolution's output, channels of its input that it reads unless they add the same at every place.
    """

    def __init__(self, graph: Graph, found: Mapping[str, Interval], stay: Mapping[str, Array]) -> None:
        self.graph, self.intervals, self.stay = graph, found, stay
        names = [*(v.name for v in graph.inputs), *(o for n in graph.nodes for o in n.outputs)]
        self.need = {name: np.zeros(channels_of(graph, name), bool) for name in names}

    def constants(self, name: str) -> tuple[Array, Array]:
        """Mask of the channels with one value everywhere, whatever the input, and their values; of floats only zeros,
        as another value would be added in another order."""
        found, c = self.intervals[name], channels_of(self.graph, name)
        lo, hi = (v.reshape(-1, c).numpy() for v in (found.lo, found.hi))
        same = (lo == hi).all(0) & (lo == lo[:1]).all(0)
        if self.graph.type_of(name).dtype.is_float:
            same &= lo[0] == 0
        return same, np.where(same, lo[0], 0)

    def settled(self, name: str) -> Array:
        """Mask of the channels of an integer image [B,H,W,C] that are the same for every input, place by place, and
        in every image."""
        found = self.intervals[name]
        same = (found.lo == found.hi) & (found.lo == found.lo[:1])
        return np.asarray(same.reshape(-1, channels_of(self.graph, name)).all(0).numpy())

    def add(self, name: str, mask: Array) -> None:
        """Needs these channels of a tensor too; those of a constant are there anyway."""
        if name in self.need:
            self.need[name] |= mask

    def tie(self, node: Node) -> None:
        """Operands and result have the same channels; a broadcast operand of one channel serves all."""
        tied = [i for i in node.inputs if i in self.need and self.need[i].size == self.need[node.output].size]
        mask = np.logical_or.reduce([self.need[t] for t in (*tied, node.output)])
        for name in (*tied, node.output):
            self.add(name, mask)

    def everything(self, node: Node) -> None:
        """All channels of a node's operands and results."""
        for name in (*node.inputs, *node.outputs):
            self.add(name, np.array(True))

    def count(self) -> int:
        return sum(int(need.sum()) for need in self.need.values())

    def align(self, multiple: int) -> None:
        """Keep as many channels as make a multiple, the first ones that could go; at least one multiple, or all."""
        for need in self.need.values():
            wanted = min(max(-(-int(need.sum()) // multiple), 1) * multiple, need.size)
            need[np.flatnonzero(~need)[: wanted - int(need.sum())]] = True


def layer(c: Channels, node: Node) -> None:
    """An input channel is needed by the outputs whose weights for it are not zero, unless the bias can take it."""
    x, w = node.inputs[:2]
    weights, need = c.graph.consts.get(w), c.need[node.output]
    if weights is None or x not in c.need:
        return c.everything(node)
    groups, (inputs, outputs) = getattr(node.op, "groups", 1), weights.data.shape[-2:]
    if groups == 1:
        used = (weights.data[..., need] != 0).any(-1).reshape(-1, inputs).any(0)
        return c.add(x, used & ~absorbable(c, node))
    if inputs != 1:
        return c.everything(node)
    both = need.reshape(groups, -1).any(1) | c.need[x]
    c.add(x, both)
    return c.add(node.output, both.repeat(outputs // groups))


def absorbable(c: Channels, node: Node) -> Array:
    """Mask of the channels of a layer's input that its bias can take: constants, which any padding must equal; and
    where the bias may depend on the place, whatever does not depend on the input."""
    x = node.inputs[0]
    constant, value = c.constants(x)
    if any(getattr(node.op, "pad", ())):
        constant = constant & (value == getattr(node.op, "pad_value", 0))
    if not has_zones(c.graph, node):
        return constant
    return constant | (c.settled(x) & ~c.stay.get(node.output, np.array(False)))


def has_zones(graph: Graph, node: Node) -> bool:
    """Whether kernels can take a bias of this layer that depends on the place: convolutions of 8-bit images."""
    types = graph.input_types(node)[:2]
    return isinstance(node.op, QConv2d) and node.op.groups == 1 and all(t.dtype is DType.I8 for t in types)


def biases_of(c: Channels, node: Node) -> torch.Tensor:
    """The biases [OH,OW,O] of a convolution that has zones, with what the channels that go add to them."""
    values, bias = (as_tensor(k.data, k.type) for k in (c.graph.consts[i] for i in node.inputs[1:3]))
    x, gone = c.intervals[node.inputs[0]].lo[:1], torch.from_numpy(~c.need[node.inputs[0]])
    x = torch.where(gone, x, 0)
    return QConv2d.reference(node.op, x, torch.where(gone[:, None], values, 0), bias)[0]


def concat(c: Channels, node: Node) -> None:
    """Along the channels each operand has its part of the result."""
    if node.op.axis % len(node.type.shape) != len(node.type.shape) - 1:
        return c.tie(node)
    ends = np.cumsum([channels_of(c.graph, i) for i in node.inputs])
    for name, end in zip(node.inputs, ends, strict=True):
        part = slice(end - channels_of(c.graph, name), end)
        c.add(name, c.need[node.output][part])
        c.need[node.output][part] |= c.need.get(name, np.array(True))
    return None


def reshape(c: Channels, node: Node) -> None:
    """Whole pixels that become one axis: every channel is there once for each of them."""
    (x,), n = node.inputs, channels_of(c.graph, node.output)
    if x not in c.need or n % c.need[x].size:
        return c.everything(node)
    both = c.need[node.output].reshape(-1, c.need[x].size).any(0) | c.need[x]
    c.add(x, both)
    return c.add(node.output, np.tile(both, n // both.size))


def moves(c: Channels, node: Node) -> None:
    """Ops on other axes keep the channels apart."""
    op, last = node.op, len(node.type.shape) - 1
    apart = {
        Permute: lambda: op.perm[-1] == last,
        Pad: lambda: op.pairs[-1] == (0, 0),
        TfliteMean: lambda: op.axis != len(c.graph.type_of(node.inputs[0]).shape) - 1,
        QMean: lambda: op.axis != len(c.graph.type_of(node.inputs[0]).shape) - 1,
    }[type(op)]()
    return c.tie(node) if apart else c.everything(node)


LAYERS = (QConv2d, QConv2dRequantize, QConv1d, QLinear, QLinearRequantize, Conv1d, Conv2d, Linear)
TIED = (
    *(Requantize, QAffine, QAdd, QMul, TfliteAdd, TfliteMul, QLut, QMaxPool2d, QAvgPool2d, TfliteAvgPool2d),
    *(Add, Relu, Relu6, MaxPool2d, AvgPool2d),
)
#: op -> what it needs; an op that is not here needs all channels of its operands and has all of its results'
RULES: dict[type[Any], Callable[[Channels, Node], None]] = {
    **dict.fromkeys(LAYERS, layer),
    **dict.fromkeys(TIED, Channels.tie),
    **dict.fromkeys((Permute, Pad, QMean, TfliteMean), moves),
    Concat: concat,
    Reshape: reshape,
}


def needed(graph: Graph, aligned: int, found: Mapping[str, Interval], stay: Mapping[str, Array]) -> Channels:
    """The channels that outputs need, with those that keep them company in kernels that take `aligned` at a time."""
    channels = Channels(graph, found, stay)
    for name in (*graph.outputs, *(v.name for v in graph.inputs)):
        channels.add(name, np.array(True))
    before = -1
    while channels.count() != before:
        before = channels.count()
        for node in reversed(graph.nodes):
            RULES.get(type(node.op), Channels.everything)(channels, node)
        if channels.count() == before:
            channels.align(aligned)
    return channels
