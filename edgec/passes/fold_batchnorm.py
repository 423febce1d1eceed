"""Fold affine maps (batch norm at inference) into the layers around them.

    conv or linear, then affine  ->  one layer, if nothing else reads the layer's output
    affine, then affine          ->  one affine
    affine, then linear or conv  ->  one layer, if no zero padding would have to become the affine's shift

An affine between a residual stream and a neuron stays: the integer neuron takes it over.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgec.ir.graph import Const, Graph, Node
from edgec.ir.types import TensorType
from edgec.ops.conv import Conv1d, Conv2d
from edgec.ops.dense import Linear
from edgec.ops.elementwise import Affine
from edgec.passes.base import Pass

Array = npt.NDArray[Any]
LAYERS = (Linear, Conv1d, Conv2d)


def padding_of(op: Any) -> bool:
    """Whether a layer pads its input with zeros."""
    pad = getattr(op, "pad", ())
    return any(pad)


def unites(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """Sources of a node that stands for two."""
    return first + tuple(s for s in second if s not in first)


@dataclass
class Folder:
    """One run over a graph. `nodes` holds the nodes still there, by their output."""

    graph: Graph
    nodes: dict[str, Node] = field(default_factory=dict)
    consts: dict[str, Const] = field(default_factory=dict)

    def run(self) -> Graph:
        self.consts = dict(self.graph.consts)
        self.nodes = {n.outputs[0]: n for n in self.graph.nodes}
        while any(self.fold(name) for name in list(self.nodes)):
            pass
        nodes = tuple(self.nodes.values())
        return replace(self.graph, consts=self.consts, nodes=nodes).prune_unused()

    def fold(self, name: str) -> bool:
        """Try the three rules on one node; whether one applied."""
        node = self.nodes.get(name)
        if node is None or type(node.op) is not Affine or not self.are_const(node.inputs[1:]):
            return False
        before = self.nodes.get(node.inputs[0])
        if before is not None and self.is_only_reader(node, before.outputs[0]):
            if type(before.op) in LAYERS and self.are_const(before.inputs[1:]) and self.on_last(node):
                self.into_layer_before(before, node)
                return True
            if type(before.op) is Affine and self.are_const(before.inputs[1:]) and self.axis(before) == self.axis(node):
                self.into_affine_before(before, node)
                return True
        after = self.readers(name)
        if after and name not in self.graph.outputs and all(self.takes(node, layer) for layer in after):
            self.into_layers_after(node, after)
            return True
        return False

    def readers(self, name: str) -> list[Node]:
        return [n for n in self.nodes.values() if name in n.inputs]

    def is_only_reader(self, node: Node, name: str) -> bool:
        return self.readers(name) == [node] and name not in self.graph.outputs

    def are_const(self, names: tuple[str, ...]) -> bool:
        return all(n in self.consts for n in names)

    def rank(self, node: Node) -> int:
        return len(node.type.shape)

    def axis(self, node: Node) -> int:
        return int(node.op.axis) % self.rank(node)

    def on_last(self, node: Node) -> bool:
        return self.axis(node) == self.rank(node) - 1

    def takes(self, affine: Node, layer: Node) -> bool:
        """Whether a layer can absorb the affine in front of it."""
        if type(layer.op) not in LAYERS or layer.inputs[0] != affine.outputs[0] or not self.are_const(layer.inputs[1:]):
            return False
        if not self.on_last(affine):
            return False
        return not padding_of(layer.op) or not self.data(affine.inputs[2]).any()

    def data(self, name: str) -> Array:
        values: Array = self.consts[name].data.astype(np.float64)
        return values

    def store(self, name: str, data: Array) -> str:
        """A new constant beside one it replaces; the name is taken over where nothing else reads it."""
        data = data.astype(np.float32)
        if len(self.readers(name)) > 1:
            name = next(replace(self.graph, consts=self.consts).fresh(name))
        self.consts[name] = Const(data, TensorType(data.shape))
        return name

    def drop(self, gone: Node, kept: Node) -> None:
        """Put `kept` where `gone` was, under the name of `gone`."""
        del self.nodes[kept.outputs[0]]
        renewed = replace(kept, outputs=gone.outputs, types=gone.types)
        self.nodes = {k: (renewed if k == gone.outputs[0] else n) for k, n in self.nodes.items()}

    def into_layer_before(self, layer: Node, affine: Node) -> None:
        scale, shift = self.data(affine.inputs[1]), self.data(affine.inputs[2])
        w = self.store(layer.inputs[1], self.data(layer.inputs[1]) * scale)
        bias = self.store(layer.inputs[2], self.data(layer.inputs[2]) * scale + shift)
        self.drop(affine, replace(layer, inputs=(layer.inputs[0], w, bias), source=unites(layer.source, affine.source)))

    def into_affine_before(self, first: Node, second: Node) -> None:
        scale, shift = self.data(second.inputs[1]), self.data(second.inputs[2])
        a = self.store(first.inputs[1], self.data(first.inputs[1]) * scale)
        b = self.store(first.inputs[2], self.data(first.inputs[2]) * scale + shift)
        self.drop(second, replace(first, inputs=(first.inputs[0], a, b), source=unites(first.source, second.source)))

    def into_layers_after(self, affine: Node, layers: list[Node]) -> None:
        scale, shift = self.data(affine.inputs[1]), self.data(affine.inputs[2])
        for layer in layers:
            w = self.data(layer.inputs[1])
            groups = getattr(layer.op, "groups", 1)
            added = (w * per_weight(shift, w.shape, groups)).reshape(-1, w.shape[-1]).sum(0)
            bias = self.store(layer.inputs[2], self.data(layer.inputs[2]) + added)
            weight = self.store(layer.inputs[1], w * per_weight(scale, w.shape, groups))
            inputs = (affine.inputs[0], weight, bias)
            self.nodes[layer.outputs[0]] = replace(layer, inputs=inputs, source=unites(affine.source, layer.source))
        del self.nodes[affine.outputs[0]]


def per_weight(values: Array, shape: tuple[int, ...], groups: int) -> Array:
    """One value per input channel spread over a weight [..., C/groups, O]: output o reads its group's channels."""
    inputs, outputs = shape[-2:]
    spread = values.reshape(groups, inputs)[np.arange(outputs) // (outputs // groups)]
    return spread.T


@dataclass(frozen=True)
class FoldBatchnorm(Pass):
    """Fold affine maps into the layers before and after them; see the module."""

    name: ClassVar[str] = "fold_batchnorm"

    def run(self, graph: Graph) -> Graph:
        assert not graph.is_step
        return Folder(graph).run()
