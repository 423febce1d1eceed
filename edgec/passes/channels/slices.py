"""Which channels (indices of the last axis) of a graph's tensors are needed: the least fixed point of rules per op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from edgec.ir.evaluate import as_tensor
from edgec.ir.graph import Graph, Node
from edgec.ir.types import DType
from edgec.ops.base import Array
from edgec.ops.relations.axes import axes_of
from edgec.ops.relations.interval import Interval
from edgec.ops.relations.moves import sources


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

    def tie(self, names: Sequence[str]) -> None:
        """These tensors have the same channels."""
        mask = np.logical_or.reduce([self.need[name] for name in names])
        for name in names:
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
    return hasattr(node.op, "row_zone") and node.op.groups == 1 and all(t.dtype is DType.I8 for t in types)


def biases_of(c: Channels, node: Node) -> torch.Tensor:
    """The biases [OH,OW,O] of a convolution that has zones, with what the channels that go add to them."""
    values, bias = (as_tensor(k.data, k.type) for k in (c.graph.consts[i] for i in node.inputs[1:3]))
    x, gone = c.intervals[node.inputs[0]].lo[:1], torch.from_numpy(~c.need[node.inputs[0]])
    x = torch.where(gone, x, 0)
    sums: torch.Tensor = node.op.sums(x, torch.where(gone[:, None], values, 0), bias)
    return sums[0]


def tied(graph: Graph, node: Node) -> list[str]:
    """The operands whose channels are those of the results, one by one; of those that repeat one channel there are
    none. Spikes are packed, so their channels do not go."""
    types = graph.input_types(node)
    axes = axes_of(node.op, types)
    if axes is None or not all(axes.results) or any(t.dtype is DType.BIT for t in (*types, *node.types)):
        return []
    ends = {own[-1] for own in axes.results}
    pairs = zip(node.inputs, axes.operands, strict=True)
    return [i for i, own in pairs if own and ends == {own[-1]} and channels_of(graph, i) == node.types[0].shape[-1]]


def elementwise(c: Channels, node: Node) -> None:
    """What the axes say: a channel of the result needs the same one of the operands that have it, all of the others."""
    same = [i for i in tied(c.graph, node) if i in c.need]
    if not same:
        return c.everything(node)
    c.tie([*same, *node.outputs])
    for name in set(node.inputs) - set(same):
        if channels_of(c.graph, name) > 1:
            c.add(name, np.array(True))
    return None


def moved(c: Channels, node: Node) -> None:
    """Each channel of the result needs the one it comes from, and that one all results of its own: where whole pixels
    become one axis it is there once for each. A constant operand's stay, and so do fill values."""
    found, need, same = sources(node.op, c.graph.input_types(node)), c.need[node.output], tied(c.graph, node)
    channels = [channels_of(c.graph, i) for i in node.inputs]
    if found is None or any(len(np.unique(s[s >= 0])) < n for s, n in zip(found, channels, strict=True)):
        return c.everything(node)  # channels are mixed, or cut off
    need |= np.max(found, axis=0) < 0
    for name, source in zip(node.inputs, found, strict=True):
        there = source >= 0
        if name in c.need:
            c.need[name][source[there & need]] = True
            need[there] |= c.need[name][source[there]]
        elif name not in same:
            need |= there
    return None


def reads(c: Channels, node: Node) -> None:
    """What a node needs of its operands, and what of its results it then has."""
    types = (*c.graph.input_types(node), *node.types)
    moves = node.op.moves and all(t.shape and t.dtype is not DType.BIT for t in types)
    rule = layer if node.op.is_layer else moved if moves else elementwise
    rule(c, node)


def needed(graph: Graph, aligned: int, found: Mapping[str, Interval], stay: Mapping[str, Array]) -> Channels:
    """The channels that outputs need, with those that keep them company in kernels that take `aligned` at a time."""
    channels = Channels(graph, found, stay)
    for name in (*graph.outputs, *(v.name for v in graph.inputs)):
        channels.add(name, np.array(True))
    before = -1
    while channels.count() != before:
        before = channels.count()
        for node in reversed(graph.nodes):
            reads(channels, node)
        if channels.count() == before:
            channels.align(aligned)
    return channels
