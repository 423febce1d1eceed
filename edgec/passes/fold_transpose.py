"""A matrix product reads a transposed operand as it lies in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from edgec.ir.graph import Graph, Node
from edgec.ops.relations.axes import permutation
from edgec.passes.base import Pass


@dataclass(frozen=True)
class FoldTranspose(Pass):
    """a @ permute(b), the last two axes of b exchanged, becomes a product with `transpose_b` turned."""

    name: ClassVar[str] = "fold_transpose"

    def run(self, graph: Graph) -> Graph:
        return replace(graph, nodes=tuple(folded(graph, n) for n in graph.nodes)).prune_unused()


def folded(graph: Graph, node: Node) -> Node:
    """The node that reads what a permute before one of its operands reads, if its op can."""
    for k, name in enumerate(node.inputs):
        before = graph.producer(name)
        perm = permutation(before.op, graph.input_types(before)) if before is not None else None
        op = node.op.transposed(k, perm) if perm is not None else None
        if before is not None and op is not None:
            return replace(node, op=op, inputs=(*node.inputs[:k], before.inputs[0], *node.inputs[k + 1 :]))
    return node
