"""Move an activation into the float convolution or linear layer before it: one pass over memory and one buffer less."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

from edgec.ir.graph import Graph, Node
from edgec.ops.elementwise import ACTIVATIONS
from edgec.ops.layer import FloatLayer
from edgec.passes.base import Pass


@dataclass(frozen=True)
class Fuse(Pass):
    """Runs after quantisation: integer layers clamp in their requantisation and have nothing left to fuse."""

    name: ClassVar[str] = "fuse"

    def run(self, graph: Graph) -> Graph:
        uses = Counter(i for n in graph.nodes for i in n.inputs) + Counter(graph.outputs)
        nodes: list[Node] = []
        at: dict[str, int] = {}
        for node in graph.nodes:
            host = at.get(node.inputs[0]) if node.op.name in ACTIVATIONS else None
            if host is not None and uses[node.inputs[0]] == 1 and nodes[host].when == node.when:
                before = nodes[host]
                # the fused node keeps both source lines and computes the activation's output
                nodes[host] = replace(
                    before,
                    op=replace(before.op, activation=node.op.name),
                    outputs=node.outputs,
                    types=node.types,
                    source=tuple(dict.fromkeys(before.source + node.source)),
                )
                continue
            if isinstance(node.op, FloatLayer) and not node.op.activation:
                at[node.output] = len(nodes)
            nodes.append(node)
        return replace(graph, nodes=tuple(nodes))
