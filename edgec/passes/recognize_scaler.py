"""Find per-window standardisation spelled out in arithmetic, and put `std_scale` and `std_unscale` in its place.

    loc = mean(x),  scale = sqrt(mean((x - loc)^2) + eps),  y = (x - loc) / scale   ->   y, loc, scale = std_scale(x)
    z * scale + loc                                                                 ->   std_unscale(z, loc, scale)

A mean may be written as a sum times and over constants, with its axis kept or put back by a reshape; a quotient as a
product with the reciprocal, as rsqrt gives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgec.ir.graph import Graph, Node
from edgec.ops.arithmetic import Add, Div, Mul, Sub
from edgec.ops.elementwise import Sqrt
from edgec.ops.lowering.loops import statistics_shape
from edgec.ops.pool import Mean
from edgec.ops.scaler import StdScale, StdUnscale
from edgec.ops.shape import Reshape
from edgec.passes.base import Pass

#: how far the constants around a sum may be from making it a mean
NEAR_ONE = 1e-5


@dataclass(frozen=True)
class Scaled:
    """A standardisation: of x over one axis, and the nodes whose outputs are y, loc and scale."""

    x: str
    axis: int
    eps: float
    y: Node
    loc: Node
    scale: Node


@dataclass(frozen=True)
class Finder:
    """Looks backwards from a quotient."""

    graph: Graph
    producers: Mapping[str, Node]

    def constant(self, name: str) -> float | None:
        """The value of a constant that is one number everywhere."""
        const = self.graph.consts.get(name)
        same = const is not None and const.data.size > 0 and bool((const.data == const.data.flat[0]).all())
        return float(const.data.flat[0]) if const is not None and same else None

    def node(self, name: str, op: type) -> Node | None:
        """The node that computes `name`, where it is of this kind."""
        node = self.producers.get(name)
        return node if node is not None and isinstance(node.op, op) else None

    def with_constant(self, node: Node) -> tuple[str, float] | None:
        """The computed operand of a sum, product or quotient, and the number at its other side."""
        for k, name in enumerate(node.inputs):
            value = self.constant(name)
            if value is not None and (k == 1 or not isinstance(node.op, (Div, Sub))):
                return node.inputs[1 - k], value
        return None

    def mean(self, name: str) -> tuple[str, int] | None:
        """What `name` is the mean of, and over which axis (kept with extent 1)."""
        factor, kept = 1.0, self.graph.type_of(name).shape
        while (node := self.producers.get(name)) is not None:
            pair = self.with_constant(node) if isinstance(node.op, (Mul, Div)) else None
            if isinstance(node.op, Mean):
                x, axis = node.inputs[0], node.op.axis
                is_mean = abs(factor - 1.0) < NEAR_ONE and kept == statistics_shape(self.graph.type_of(x).shape, axis)
                return (x, axis) if is_mean else None
            if pair is not None:
                name, value = pair
                factor *= value if isinstance(node.op, Mul) else 1.0 / (value or np.inf)
            elif isinstance(node.op, Reshape):
                name = node.inputs[0]
            else:
                return None
        return None

    def deviation(self, name: str) -> tuple[str, int, float] | None:
        """x, the axis and eps where `name` is sqrt(mean((x - mean x)^2) + eps)."""
        while (below := self.reciprocal(name)) and (whole := self.reciprocal(below)):
            name = whole
        root = self.node(name, Sqrt)
        added = root and self.node(root.inputs[0], Add)
        pair = self.with_constant(added) if added else None
        squares = self.mean(pair[0]) if pair else None
        square = self.node(squares[0], Mul) if squares else None
        away = self.node(square.inputs[0], Sub) if square and square.inputs[0] == square.inputs[1] else None
        if pair is None or squares is None or away is None or pair[1] <= 0:
            return None
        x, axis = away.inputs[0], squares[1]
        return (x, axis, pair[1]) if self.mean(away.inputs[1]) == (x, axis) else None

    def reciprocal(self, name: str) -> str | None:
        """What `name` is 1 over."""
        node = self.node(name, Div)
        return node.inputs[1] if node is not None and self.constant(node.inputs[0]) == 1 else None

    def pairs(self, node: Node, op: type, inverse: type) -> Iterator[tuple[str, str]]:
        """a and b where the node is a `op` b, also as the inverse op with 1 / b."""
        if not isinstance(node.op, (Mul, Div)):
            return
        for a, b in (node.inputs, node.inputs[::-1])[: 2 if isinstance(node.op, Mul) else 1]:
            if isinstance(node.op, op):
                yield a, b
            elif isinstance(node.op, inverse) and (over := self.reciprocal(b)) is not None:
                yield a, over

    def scaled(self, node: Node) -> Scaled | None:
        """The standardisation that ends in this node."""
        for above, below in self.pairs(node, Div, Mul):
            away = self.node(above, Sub)
            found = self.deviation(below) if away is not None else None
            if away is None or found is None:
                continue
            x, axis, eps = found
            if away.inputs[0] == x and self.mean(away.inputs[1]) == (x, axis):
                return Scaled(x, axis, eps, node, self.producers[away.inputs[1]], self.producers[below])
        return None

    def is_loc(self, name: str, s: Scaled) -> bool:
        """Whether a tensor is the mean of a standardisation."""
        return name == s.loc.output or self.mean(name) == (s.x, s.axis)

    def is_scale(self, name: str, s: Scaled) -> bool:
        """Whether a tensor is the deviation of a standardisation."""
        return name == s.scale.output or self.deviation(name) == (s.x, s.axis, s.eps)


@dataclass(frozen=True)
class RecognizeScaler(Pass):
    """The scaler of PatchTSMixer and Tiny Time Mixer, and the same in plain torch, as one op each way."""

    name: ClassVar[str] = "recognize_scaler"

    def run(self, graph: Graph) -> Graph:
        assert not graph.is_step
        finder = Finder(graph, {o: n for n in graph.nodes for o in n.outputs})
        found = [s for node in graph.nodes if (s := finder.scaled(node)) is not None]
        if not found:
            return graph
        heads = {s.loc.output: s for s in reversed(found)}  # one quotient for each mean, the first
        gone = {n.output for s in heads.values() for n in (s.y, s.scale, s.loc)}
        nodes = []
        for node in graph.nodes:
            if node.outputs[0] in heads:
                nodes.append(scale_node(graph, heads[node.output]))
            elif not gone.intersection(node.outputs):
                nodes.append(unscale_node(graph, node, finder, list(heads.values())) or node)
        return replace(graph, nodes=tuple(nodes)).prune_unused()


def scale_node(graph: Graph, s: Scaled) -> Node:
    """One node for y, loc and scale, where loc was computed."""
    op = StdScale(s.axis, s.eps)
    lines = tuple(dict.fromkeys((*s.loc.source, *s.scale.source, *s.y.source)))
    return Node(op, (s.x,), (s.y.output, s.loc.output, s.scale.output), op.infer([graph.type_of(s.x)]), lines)


def unscale_node(graph: Graph, node: Node, finder: Finder, found: list[Scaled]) -> Node | None:
    """z * scale + loc of one standardisation, in whatever order it is written and wherever its mean is taken again."""
    if not isinstance(node.op, Add):
        return None
    for name, loc in (node.inputs, node.inputs[::-1]):
        product = finder.producers.get(name)
        for z, scale in finder.pairs(product, Mul, Div) if product else ():
            s = next((s for s in found if finder.is_loc(loc, s) and finder.is_scale(scale, s)), None)
            if product is None or s is None or graph.type_of(z).shape != node.type.shape:
                continue
            op, operands = StdUnscale(s.axis), (z, s.loc.output, s.scale.output)
            lines = tuple(dict.fromkeys((*product.source, *node.source)))
            return Node(op, operands, node.outputs, op.infer([graph.type_of(i) for i in operands]), lines)
    return None
