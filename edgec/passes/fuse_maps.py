"""Truth values and integers on the way from real values to real values become part of one expression: `x > 0` in
`where(x > 0, x, 0.1 * x)`. A function of one tensor is then one table of int8, whatever it is made of."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from string import ascii_lowercase
from typing import ClassVar

from edgec.ir.graph import Graph, Node
from edgec.ops.elementwise import Map
from edgec.passes.base import Pass


class Letters(ast.NodeTransformer):
    """An expression with others in the place of its letters."""

    def __init__(self, terms: dict[str, ast.expr]) -> None:
        self.terms = terms

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.terms.get(node.id, node)

    def visit_Call(self, node: ast.Call) -> ast.Call:
        return ast.Call(node.func, [self.visit(a) for a in node.args], node.keywords)


@dataclass(frozen=True)
class FuseMaps(Pass):
    """Before quantisation: an expression takes in what computes those of its operands that are data."""

    name: ClassVar[str] = "fuse_maps"

    def run(self, graph: Graph) -> Graph:
        made: dict[str, Node] = {}
        for node in graph.nodes:
            made[node.outputs[0]] = fused(node, made, graph)
        nodes = tuple(made[n.outputs[0]] for n in graph.nodes)
        return replace(graph, nodes=nodes).prune_unused()


def fused(node: Node, made: dict[str, Node], graph: Graph) -> Node:
    """The node with the expressions of its data in its own; itself where it has none, or too many operands would be."""
    inner = {i: made[i] for i in node.inputs if i in made and made[i].op.formula}
    data = {i for i in inner if graph.type_of(i).dtype.is_data}
    if not node.op.formula or not data:
        return node
    sources = {s for i in data for s in inner[i].inputs}
    taken = {i: n for i, n in inner.items() if i in data or sources.issuperset(set(n.inputs) - graph.consts.keys())}
    operands: dict[str, ast.expr] = {}
    for name in (s for i in node.inputs for s in (taken[i].inputs if i in taken else (i,))):
        if name not in operands and len(operands) == len(ascii_lowercase):
            return node
        operands.setdefault(name, ast.Name(ascii_lowercase[len(operands)]))
    terms = [spelled(taken[i], operands) if i in taken else operands[i] for i in node.inputs]
    text = ast.unparse(substituted(node.op.formula, terms))
    lines = tuple(dict.fromkeys((*(line for n in taken.values() for line in n.source), *node.source)))
    return replace(node, op=Map(text), inputs=tuple(operands), source=lines)


def spelled(node: Node, operands: dict[str, ast.expr]) -> ast.expr:
    """A node's expression in the letters of its operands."""
    return substituted(node.op.formula, [operands[i] for i in node.inputs])


def substituted(text: str, terms: list[ast.expr]) -> ast.expr:
    """An expression with these terms as its operands."""
    body = ast.parse(text, mode="eval").body
    found: ast.expr = Letters(dict(zip(ascii_lowercase, terms, strict=False))).visit(body)
    return found
