"""Compute what depends on constants alone; drop products with ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from edgec.ir.evaluate import as_tensor
from edgec.ir.graph import Const, Graph, Node
from edgec.ir.types import DType
from edgec.ops.elementwise import Div, Mul
from edgec.passes.base import Pass


def factor_of_ones(node: Node, graph: Graph, known: Mapping[str, Const]) -> str | None:
    """The operand of a product with ones, or a quotient by them, where it is the result: a mask that hides nothing."""
    if not isinstance(node.op, (Mul, Div)):
        return None
    for operand, ones in (node.inputs, node.inputs[::-1])[: 2 if isinstance(node.op, Mul) else 1]:
        is_ones = ones in known and operand not in known and bool((known[ones].data == 1).all())
        if is_ones and graph.type_of(operand) == node.type:
            return operand
    return None


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Nodes with only constant inputs become constants, products with ones their operand where the graph does not
    return them."""

    name: ClassVar[str] = "fold_constants"

    def run(self, graph: Graph) -> Graph:
        assert not graph.is_step
        known, nodes, same = dict(graph.consts), list[Node](), dict[str, str]()
        for node in graph.nodes:
            node = replace(node, inputs=tuple(same.get(i, i) for i in node.inputs))
            operand = factor_of_ones(node, graph, known)
            if operand is not None and node.output not in graph.outputs:
                same[node.output] = operand
                continue
            if set(node.inputs) <= set(known):
                known.update(self.compute(node, known))
            else:
                nodes.append(node)
        computed = {o for n in nodes for o in n.outputs}
        consts = {name: const for name, const in known.items() if name not in computed}
        return replace(graph, consts=consts, nodes=tuple(nodes)).prune_unused()

    def compute(self, node: Node, consts: dict[str, Const]) -> dict[str, Const]:
        """The outputs of one node as constants."""
        with torch.no_grad():
            outs, _ = node.op.run([as_tensor(consts[i].data, consts[i].type) for i in node.inputs], ())
        results = {}
        for name, t, value in zip(node.outputs, node.types, outs, strict=True):
            dtype = "int8" if t.dtype is DType.BIT else t.dtype.storage
            data = np.ascontiguousarray(value.numpy().astype(dtype)).reshape(t.shape)
            results[name] = Const(data, t)
        return results
