"""Let an op do the work of the next one too: one pass over memory and one buffer less."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

from edgec.ir.graph import Graph, Node
from edgec.passes.base import Pass


@dataclass(frozen=True)
class Fuse(Pass):
    """An activation moves into the float layer before it, requantisation into the integer layer. Runs after
    quantisation. What something else reads too stays."""

    name: ClassVar[str] = "fuse"

    def run(self, graph: Graph) -> Graph:
        uses = Counter(i for n in graph.nodes for i in n.inputs) + Counter(graph.outputs)
        nodes: list[Node] = []
        at: dict[str, int] = {}
        for node in graph.nodes:
            host = at.get(node.inputs[0]) if node.inputs and uses[node.inputs[0]] == 1 else None
            both = fused(graph, nodes[host], node) if host is not None else None
            if host is not None and both is not None:
                nodes[host] = both
                continue
            at |= dict.fromkeys(node.outputs[:1], len(nodes))
            nodes.append(node)
        return replace(graph, nodes=tuple(nodes))


def fused(graph: Graph, before: Node, node: Node) -> Node | None:
    """A node and its only reader as one, which keeps both source lines; None where no op does the work of both."""
    alone = len(before.outputs) == 1 and before.when == node.when and all(i in graph.consts for i in node.inputs[1:])
    op = before.op.taking(node.op, graph.input_types(before)) if alone else None
    inputs, source = before.inputs + node.inputs[1:], tuple(dict.fromkeys(before.source + node.source))
    return None if op is None else replace(node, op=op, inputs=inputs, source=source)
