"""A matrix product reads a transposed operand as it lies in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from edgec.ir.graph import Graph, Node
from edgec.ops.dense import MatMul
from edgec.ops.shape import Permute
from edgec.passes.base import Pass


@dataclass(frozen=True)
class FoldTranspose(Pass):
    """a @ permute(b), the last two axes of b exchanged, becomes a product with `transpose_b` turned."""

    name: ClassVar[str] = "fold_transpose"

    def run(self, graph: Graph) -> Graph:
        producers = {o: n for n in graph.nodes for o in n.outputs}
        nodes = [self.folded(n, producers.get(n.inputs[1])) if isinstance(n.op, MatMul) else n for n in graph.nodes]
        return replace(graph, nodes=tuple(nodes)).prune_unused()

    def folded(self, node: Node, before: Node | None) -> Node:
        """The product that reads what `before` permuted, if it only exchanged the last two axes."""
        if before is None or not isinstance(before.op, Permute):
            return node
        last = len(before.op.perm) - 1
        if before.op.perm != (*range(last - 1), last, last - 1):
            return node
        op = replace(node.op, transpose_b=not node.op.transpose_b)
        return replace(node, op=op, inputs=(node.inputs[0], before.inputs[0]))
