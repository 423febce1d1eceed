"""Fold linear maps into the layers around them: batch norm at inference, and arithmetic with constants.

    conv or linear, then a map  ->  one layer, if nothing else reads the layer's output
    a map, then a map           ->  one map
    a map, then linear or conv  ->  one layer, if no zero padding would have to become the map's shift

A map is an affine op, or a sum, difference, product or quotient with a constant that is one number or varies along one
axis. One between a residual stream and a neuron stays: the integer neuron takes it over.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from edgec.ir.graph import Const, Graph, Node, numbered
from edgec.ir.types import QuantParams, TensorType
from edgec.ops.arithmetic import Add, Affine, Mul
from edgec.ops.base import Array, LinearMap, Op, Site
from edgec.passes.base import Pass

#: x - m is exact near m, x * s - m * s is off by the rounding of m * s: left apart where that is more than this
REACH = 16.0
#: a sum with more than this keeps nothing of a float32: it is a mask
MASK = 2.0**24


def padding_of(op: Any) -> bool:
    """Whether a layer pads its input with zeros."""
    pad = getattr(op, "pad", ())
    return any(pad)


def unites(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """Sources of a node that stands for two."""
    return first + tuple(s for s in second if s not in first)


@dataclass
class Folder:
    """One run over a graph. `nodes` holds the nodes still there, by their output, `reads` the readers of a tensor."""

    graph: Graph
    spread: float
    nodes: dict[str, Node] = field(default_factory=dict)
    consts: dict[str, Const] = field(default_factory=dict)
    reads: dict[str, set[str]] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def run(self) -> Graph:
        self.consts = dict(self.graph.consts)
        for place, node in enumerate(self.graph.nodes):
            self.places[node.outputs[0]] = place
            self.put(node)
        self.used = {v.name for v in self.graph.inputs} | set(self.consts)
        self.used |= {o for n in self.graph.nodes for o in n.outputs}
        for node in self.graph.nodes:
            self.settle(node.outputs[0])
        nodes = tuple(self.nodes.values())
        return replace(self.graph, consts=self.consts, nodes=nodes).prune_unused()

    def put(self, node: Node) -> None:
        """A node in place of the one with its output, or a new one."""
        self.take(node.outputs[0])
        self.nodes[node.outputs[0]] = node
        for name in node.inputs:
            self.reads.setdefault(name, set()).add(node.outputs[0])

    def take(self, name: str) -> None:
        """No longer count what the node `name` reads."""
        for operand in self.nodes[name].inputs if name in self.nodes else ():
            self.reads[operand].discard(name)

    def settle(self, name: str) -> None:
        """Fold a map as long as a rule applies; without it the one before it may fold."""
        while name in self.nodes and (found := self.linear_map(self.nodes[name])) is not None:
            operand = self.nodes[name].inputs[found.operand]
            if not self.fold(self.nodes[name], found):
                return
            if name not in self.nodes:
                self.settle(operand)

    def fold(self, node: Node, found: LinearMap) -> bool:
        """Try the three rules on one map; whether one applied."""
        name, x = node.output, node.inputs[found.operand]
        before = self.nodes.get(x)
        if before is not None and self.reads[x] == {name} and x not in self.graph.outputs:
            if self.is_layer(before) and self.on_last(node, found):
                self.into_layer_before(before, node, found)
                return True
            first = self.linear_map(before)
            if first is not None and (both := self.composed(first, node, found)) is not None:
                self.into_map_before(before, before.inputs[first.operand], node, both)
                return True
        after = self.readers(name)
        if after and name not in self.graph.outputs and all(self.takes(node, found, layer) for layer in after):
            self.into_layers_after(node, x, found, after)
            return True
        return False

    def readers(self, name: str) -> list[Node]:
        return [self.nodes[o] for o in sorted(self.reads.get(name, ()), key=self.places.__getitem__)]

    def linear_map(self, node: Node) -> LinearMap | None:
        """The node as a map over one axis that does not count frames; None where it is no such."""
        consts = {k: self.consts[i].data for k, i in enumerate(node.inputs) if i in self.consts}
        types = tuple(self.consts[i].type if i in self.consts else self.graph.type_of(i) for i in node.inputs)
        found = node.op.linear_map(Site(types, node.types, consts=consts))
        if found is None or (found.axis == node.type.time_axis and self.is_vector(found)):
            return None
        return None if (np.abs(found.shift) >= MASK).any() else found

    def is_vector(self, found: LinearMap) -> bool:
        return found.scale.size > 1 or found.shift.size > 1

    def is_layer(self, node: Node) -> bool:
        """Whether a node is a layer whose weights are constants and whose output is the sum itself."""
        constant = all(i in self.consts for i in node.inputs[1:])
        return bool(node.op.is_layer) and node.type.dtype.is_float and constant and not node.op.activation

    def on_last(self, node: Node, found: LinearMap) -> bool:
        return found.axis == len(node.type.shape) - 1 or not self.is_vector(found)

    def composed(self, first: LinearMap, node: Node, second: LinearMap) -> LinearMap | None:
        """Both maps as one; None where their axes differ or the rounding of the shift would show."""
        vectors = [m.axis for m in (first, second) if self.is_vector(m)]
        if len(set(vectors)) > 1:
            return None
        scale, shift = first.scale * second.scale, first.shift * second.scale
        exact = first.given or (second.scale == 1).all()
        if not exact and (np.abs(shift) > REACH).any():
            return None
        return LinearMap(0, (vectors or [self.thin_axis(node.type)])[0], scale, shift + second.shift)

    def thin_axis(self, t: TensorType) -> int:
        """An axis of extent 1 that counts no frames, where a map by one number takes one number; else the last."""
        return next((k for k, n in enumerate(t.shape) if n == 1 and k != t.time_axis), len(t.shape) - 1)

    def takes(self, node: Node, found: LinearMap, layer: Node) -> bool:
        """Whether a layer can absorb the map in front of it."""
        if not self.is_layer_input(node.output, layer) or not self.on_last(node, found):
            return False
        if not found.given and (np.abs(found.shift) > REACH).any():
            return False
        groups = getattr(layer.op, "groups", 1)
        factors = np.abs(np.broadcast_to(found.scale, node.type.shape[-1:])).reshape(groups, -1)
        least = np.where(factors > 0, factors, factors.max(1, keepdims=True)).min(1)
        alike = self.spread == np.inf or bool((factors.max(1) <= self.spread * least).all())
        return alike and (not padding_of(layer.op) or not found.shift.any())

    def is_layer_input(self, name: str, layer: Node) -> bool:
        constant = all(i in self.consts for i in layer.inputs[1:])
        return bool(layer.op.is_layer) and layer.inputs[0] == name and constant

    def data(self, name: str) -> Array:
        values: Array = self.consts[name].data.astype(np.float64)
        return values

    def store(self, name: str, data: Array, grid: QuantParams | None = None) -> str:
        """A new constant beside one it replaces; the name is taken over where nothing else reads it."""
        data = data.astype(np.float32)
        if name not in self.consts or len(self.reads[name]) > 1:
            name = next(n for n in numbered(name) if n not in self.used)
            self.used.add(name)
        self.consts[name] = Const(data, TensorType(data.shape, quant=grid))
        return name

    def scaled_grid(self, name: str, scale: Array) -> QuantParams | None:
        """The grid of weights times a factor for each output: their integers stay."""
        t = self.consts[name].type
        last = len(t.shape) - 1
        if t.quant is None or t.quant.axis not in (None, last) or (scale <= 0).any():
            return None
        scales = np.broadcast_to(np.asarray(t.quant.scale) * scale, t.shape[-1:])
        return QuantParams(tuple(map(float, scales)), 0, last)

    def drop(self, gone: Node, kept: Node) -> None:
        """Put `kept` where `gone` was, under the name of `gone`."""
        self.take(kept.outputs[0])
        del self.nodes[kept.outputs[0]]
        self.put(replace(kept, outputs=gone.outputs, types=gone.types))

    def into_layer_before(self, layer: Node, node: Node, found: LinearMap) -> None:
        grid = self.scaled_grid(layer.inputs[1], found.scale)
        w = self.store(layer.inputs[1], self.data(layer.inputs[1]) * found.scale, grid)
        bias = self.store(layer.inputs[2], self.data(layer.inputs[2]) * found.scale + found.shift)
        self.drop(node, replace(layer, inputs=(layer.inputs[0], w, bias), source=unites(layer.source, node.source)))

    def into_map_before(self, before: Node, x: str, node: Node, both: LinearMap) -> None:
        old = [i for i in before.inputs if i != x]
        stems = old if len(old) == 2 else [f"{node.output}_scale", f"{node.output}_shift"]
        values = [np.broadcast_to(v, node.type.shape[both.axis]) for v in (both.scale, both.shift)]
        op: Op = Affine(both.axis)
        if not self.is_vector(both) and not both.shift.any():
            op, stems, values = Mul(), stems[:1], [both.scale]
        elif not self.is_vector(both) and (both.scale == 1).all():
            op, stems, values = Add(), stems[1:], [both.shift]
        inputs = (x, *(self.store(stem, data) for stem, data in zip(stems, values, strict=True)))
        self.drop(node, replace(before, op=op, inputs=inputs, source=unites(before.source, node.source)))

    def into_layers_after(self, node: Node, x: str, found: LinearMap, layers: list[Node]) -> None:
        scale, shift = (np.broadcast_to(v, node.type.shape[-1:]) for v in (found.scale, found.shift))
        for layer in layers:
            w = self.data(layer.inputs[1])
            groups = getattr(layer.op, "groups", 1)
            added = (w * per_weight(shift, w.shape, groups)).reshape(-1, w.shape[-1]).sum(0)
            bias = self.store(layer.inputs[2], self.data(layer.inputs[2]) + added)
            weight = self.store(layer.inputs[1], w * per_weight(scale, w.shape, groups))
            self.put(replace(layer, inputs=(x, weight, bias), source=unites(node.source, layer.source)))
        self.take(node.output)
        del self.nodes[node.output]


def per_weight(values: Array, shape: tuple[int, ...], groups: int) -> Array:
    """One value per input channel spread over a weight [..., C/groups, O]: output o reads its group's channels."""
    inputs, outputs = shape[-2:]
    spread = values.reshape(groups, inputs)[np.arange(outputs) // (outputs // groups)]
    return spread.T


@dataclass(frozen=True)
class FoldBatchnorm(Pass):
    """Fold linear maps into the layers before and after them; see the module. `spread`: how many times as large as
    another of the same output's a factor on a layer's weights may be; each power of two is a bit less in int8."""

    name: ClassVar[str] = "fold_batchnorm"
    spread: float = np.inf

    def run(self, graph: Graph) -> Graph:
        assert not graph.is_step
        return Folder(graph, self.spread).run()
