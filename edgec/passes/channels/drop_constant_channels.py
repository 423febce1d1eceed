"""Drop channels that are the same for every input, with what computes them and what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from edgec.ir.graph import Const, Graph, Node
from edgec.ir.types import QuantParams, TensorType
from edgec.ops.base import Array
from edgec.ops.integer.conv import zone_deltas
from edgec.ops.relations.interval import Interval
from edgec.passes.base import Pass
from edgec.passes.channels.intervals import intervals
from edgec.passes.channels.slices import Channels, biases_of, has_zones, needed, tied


@dataclass(frozen=True)
class DropConstantChannels(Pass):
    """Runs on the whole-sequence graph and changes no output byte; of float channels only zeros go.

    A channel (an index of the last axis) goes where nothing needs its value: its consumers' weights for it are zero, or
    it is constant, which moves into their bias. A constant that differs from the padding around it adds something else
    to the sums at the border: the bias of a convolution then depends on the place, by zones of rows and columns. Along
    time, where padding meets the first and last frames only, such a constant stays. Channels stay in multiples of
    `aligned`, because kernels take that many at a time. Biases that depend on the place are made where the target's
    kernels take `zones`; with the goal "size" only where they make the constants smaller.
    """

    name: ClassVar[str] = "drop_constant_channels"
    aligned: int = 4
    goal: str = "latency"
    zones: bool = True

    def run(self, graph: Graph) -> Graph:
        assert not graph.is_step
        found = intervals(graph)
        stay = {} if self.zones else {n.output: np.array(True) for n in graph.nodes if has_zones(graph, n)}
        channels = needed(graph, self.aligned, found, stay)
        if all(need.all() for need in channels.need.values()):
            return graph
        return Rebuilder(smallest(channels, self.aligned) if self.goal == "size" else channels).graph()


def smallest(channels: Channels, aligned: int) -> Channels:
    """The same without biases by zones, layer by layer, where the constants are smaller so."""
    least, stay = _constant_bytes(Rebuilder(channels).graph()), channels.stay
    for node in channels.graph.nodes:
        if has_zones(channels.graph, node) and zones_of(channels, node).count > 1:
            other = {**stay, node.output: np.array(True)}
            tried = needed(channels.graph, aligned, channels.intervals, other)
            size = _constant_bytes(Rebuilder(tried).graph())
            if size < least:
                channels, least, stay = tried, size, other
    return channels


@dataclass(frozen=True)
class Zones:
    """Zones of the rows and columns of a convolution's output, and their bias [row zones, column zones, O]."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    bias: Array

    @property
    def count(self) -> int:
        return int(self.bias.shape[0] * self.bias.shape[1])


def zones_of(channels: Channels, node: Node) -> Zones:
    """Of a convolution without the channels that go, for the outputs needed; the commonest row and column are of zone
    0."""
    total = biases_of(channels, node).numpy()[..., channels.need[node.output]]
    total = np.broadcast_to(total, (*node.type.shape[1:3], total.shape[-1]))
    (rows, row), (cols, col) = (kinds(np.moveaxis(total, axis, 0)) for axis in (0, 1))
    return Zones(tuple(rows.tolist()), tuple(cols.tolist()), total[row][:, col])


def kinds(slices: Array) -> tuple[Array, Array]:
    """The kind of each slice along the first axis, the commonest first, and an example of each kind."""
    flat = slices.reshape(len(slices), -1)
    _, first, kind, count = np.unique(flat, axis=0, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(-count, kind="stable")
    return np.argsort(order)[kind.reshape(-1)], first[order]


class Rebuilder:
    """The graph with the needed channels only; names of tensors stay."""

    def __init__(self, channels: Channels) -> None:
        self.channels, self.old = channels, channels.graph
        self.consts = dict(self.old.consts)
        self.types = {v.name: v.type for v in self.old.inputs}

    def graph(self) -> Graph:
        nodes = []
        for node in self.old.nodes:
            op, inputs = self.node(node)
            types = tuple(op.infer([self.type_of(i) for i in inputs]))
            nodes.append(replace(node, op=op, inputs=inputs, types=types))
            self.types.update(zip(node.outputs, types, strict=True))
        return replace(self.old, nodes=tuple(nodes), consts=self.consts).prune_unused()

    def type_of(self, name: str) -> TensorType:
        return self.types[name] if name in self.types else self.consts[name].type

    def node(self, node: Node) -> tuple[Any, tuple[str, ...]]:
        """The op and its operands for the channels that stay."""
        kept = [self.channels.need[o] for o in node.outputs]
        if all(k.all() for k in kept) and all(self.mask(i).all() for i in node.inputs):
            return node.op, node.inputs
        if node.op.is_layer:
            return self.layer(node)
        op = node.op.with_shape((*node.types[0].shape[:-1], int(kept[0].sum())))
        same = [i for i in tied(self.old, node) if i in self.old.consts]
        return op, tuple(self.cut(i, kept[0]) if i in same else i for i in node.inputs)

    def mask(self, name: str) -> Array:
        return self.channels.need.get(name, np.ones(1, bool))

    def layer(self, node: Node) -> tuple[Any, tuple[str, ...]]:
        """Weights and requantisation without what goes; what it contributed is in the bias."""
        x, w, bias, *scales = node.inputs
        kept_in, kept_out = self.mask(x), self.channels.need[node.output]
        weights = self.old.consts[w].data
        rest = [self.cut(name, kept_out) for name in scales]
        if getattr(node.op, "groups", 1) > 1:
            op = replace(node.op, groups=int(kept_in.sum()))
            return op, (x, self.cut(w, kept_out), self.cut(bias, kept_out), *rest)
        inside = self.const(w, weights[..., kept_in, :][..., kept_out], sliced(self.old.consts[w].type, kept_out))
        op, level = self.bias(node)
        return op, (x, inside, self.const(bias, level, self.old.consts[bias].type), *rest)

    def bias(self, node: Node) -> tuple[Any, Array]:
        """The op and the bias of the outputs that stay, with what the channels that go contributed: by zones where that
        depends on the place."""
        x, w, bias = node.inputs[:3]
        level, weights = self.old.consts[bias].data, self.old.consts[w].data
        if has_zones(self.old, node):
            zones = zones_of(self.channels, node)
            level = zones.bias.astype(level.dtype)
            if zones.count > 1:
                return replace(node.op, row_zone=zones.rows, col_zone=zones.cols), level
            return replace(node.op, row_zone=(), col_zone=()), level[0, 0]
        gone = np.where(self.mask(x), 0, self.channels.constants(x)[1])
        if gone.any():
            shift = np.tensordot(gone, weights.astype(np.int64).reshape(-1, *weights.shape[-2:]).sum(0), 1)
            level = (level.astype(np.int64) + shift).astype(level.dtype)
        return node.op, level[self.channels.need[node.output]]

    def cut(self, name: str, kept: Array) -> str:
        """A constant with the channels kept; one with a single value as it is."""
        const = self.old.consts[name]
        if const.data.ndim == 0 or const.data.shape[-1] != kept.size or kept.all():
            return name
        return self.const(name, const.data[..., kept], sliced(const.type, kept))

    def const(self, name: str, data: Array, t: TensorType) -> str:
        """A new constant beside an old one, which other nodes may read."""
        fresh = next(n for n in self.old.fresh(f"{name}_kept") if n not in self.consts)
        self.consts[fresh] = Const(np.ascontiguousarray(data), replace(t, shape=data.shape))
        return fresh


def sliced(t: TensorType, kept: Array) -> TensorType:
    """The type with the scales of the channels that stay, where each has its own."""
    if t.quant is None or t.quant.axis is None or t.quant.axis % len(t.shape) != len(t.shape) - 1:
        return t
    scale = tuple(s for s, k in zip(t.quant.scale, kept, strict=True) if k)
    return replace(t, quant=QuantParams(scale, t.quant.zero_point, t.quant.axis))


def savings(before: Graph, after: Graph) -> dict[str, Any]:
    """What the pass took: layers with their output channels before and after, and in all the channels, the
    multiply-accumulates of a run over the whole sequence and the bytes of constants that went; `zones` are layers
    whose bias now depends on the place, with their zones; `kept` are layers' channels that are the same for every input
    and stay."""
    was, now = ({n.output: n.type.shape[-1] for n in g.nodes if n.op.is_layer} for g in (before, after))
    found = intervals(after)
    macs, constants = ([f(g) for g in (before, after)] for f in (_macs, _constant_bytes))
    zones = {n.output: _zones(n.op) for n in after.nodes if getattr(n.op, "row_zone", ())}
    return {
        "layers": [{"name": n, "before": was[n], "after": now[n]} for n in was if now[n] != was[n] or n in zones],
        "channels": sum(was.values()) - sum(now.values()),
        "macs": macs[0] - macs[1],
        "bytes": constants[0] - constants[1],
        "zones": zones,
        "kept": sum(known_channels(found, name) for name in now),
    }


def known_channels(found: Mapping[str, Interval], name: str) -> int:
    """How many channels of a tensor do not depend on the input."""
    known = found[name].known
    return int(known.reshape(-1, known.shape[-1]).all(0).sum())


def _zones(op: Any) -> int:
    return len(set(op.row_zone)) * len(set(op.col_zone))


def _macs(graph: Graph) -> int:
    return sum(n.op.cost(graph.input_types(n), n.types).macs for n in graph.nodes)


def _constant_bytes(graph: Graph) -> int:
    """In flash, where the biases of zones are those of the first and what the others have more."""
    total = sum(c.type.bytes for c in graph.consts.values())
    for bias in (graph.consts[n.inputs[2]] for n in graph.nodes if getattr(n.op, "row_zone", ())):
        deltas = zone_deltas(bias.data)
        total += 4 * bias.data.shape[2] - (bias.data.nbytes - deltas.nbytes if deltas is not None else 0)
    return total
