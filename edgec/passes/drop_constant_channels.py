"""Drop channels that are the same for every input, with what computes them and what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from edgec.ir.graph import Const, Graph, Node
from edgec.ir.types import QuantParams, TensorType
from edgec.ops.base import Array
from edgec.ops.quantized import QLut
from edgec.ops.shape import Reshape
from edgec.passes.base import Pass
from edgec.passes.channels import LAYERS, Channels, needed
from edgec.passes.intervals import Interval, intervals


@dataclass(frozen=True)
class DropConstantChannels(Pass):
    """Runs on the whole-sequence graph and changes no output byte; of float channels only zeros go.

    A channel (an index of the last axis) goes where nothing needs its value: its consumers' weights for it are zero, or
    it is one constant everywhere, which moves into their bias. A constant that differs from the padding around it adds
    something else to the sums at the border, so it stays. Channels stay in multiples of `aligned`, because kernels take
    that many at a time.
    """

    name: ClassVar[str] = "drop_constant_channels"
    aligned: int = 4

    def run(self, graph: Graph) -> Graph:
        assert not graph.is_step
        channels = needed(graph, self.aligned)
        if all(need.all() for need in channels.need.values()):
            return graph
        return Rebuilder(channels).graph()


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
        if isinstance(node.op, LAYERS):
            return self.layer(node)
        if isinstance(node.op, Reshape):
            return replace(node.op, shape=(*node.op.shape[:-1], int(kept[0].sum()))), node.inputs
        if isinstance(node.op, QLut):  # its table has a value per level, which may be as many as channels
            return node.op, node.inputs
        return node.op, tuple(self.cut(i, kept[0]) if i in self.old.consts else i for i in node.inputs)

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
        _, value = self.channels.constants(x)
        level = self.old.consts[bias].data
        gone = np.where(kept_in, 0, value)
        if gone.any():
            shift = np.tensordot(gone, weights.astype(np.int64).reshape(-1, *weights.shape[-2:]).sum(0), 1)
            level = (level.astype(np.int64) + shift).astype(level.dtype)
        bias = self.const(bias, level[kept_out], self.old.consts[bias].type)
        inside = self.const(w, weights[..., kept_in, :][..., kept_out], sliced(self.old.consts[w].type, kept_out))
        return node.op, (x, inside, bias, *rest)

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
    multiply-accumulates of a run over the whole sequence and the bytes of constants that went; `kept` are layers'
    channels that are the same for every input and stay."""
    was, now = ({n.output: n.type.shape[-1] for n in g.nodes if isinstance(n.op, LAYERS)} for g in (before, after))
    found = intervals(after)
    macs, constants = ([f(g) for g in (before, after)] for f in (_macs, _constant_bytes))
    return {
        "layers": [{"name": n, "before": was[n], "after": now[n]} for n in was if now[n] != was[n]],
        "channels": sum(was.values()) - sum(now.values()),
        "macs": macs[0] - macs[1],
        "bytes": constants[0] - constants[1],
        "kept": sum(known_channels(found, name) for name in now),
    }


def known_channels(found: Mapping[str, Interval], name: str) -> int:
    """How many channels of a tensor do not depend on the input."""
    known = found[name].known
    return int(known.reshape(-1, known.shape[-1]).all(0).sum())


def _macs(graph: Graph) -> int:
    return sum(n.op.cost(graph.input_types(n), n.types).macs for n in graph.nodes)


def _constant_bytes(graph: Graph) -> int:
    return sum(c.type.bytes for c in graph.consts.values())
