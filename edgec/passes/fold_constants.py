"""Compute what depends on constants alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from edgec.ir.evaluate import as_tensor
from edgec.ir.graph import Const, Graph, Node
from edgec.ir.types import DType
from edgec.passes.base import Pass


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Nodes with only constant inputs become constants; those the graph returns stay nodes."""

    name: ClassVar[str] = "fold_constants"

    def run(self, graph: Graph) -> Graph:
        assert not graph.is_step
        known, nodes = dict(graph.consts), []
        for node in graph.nodes:
            constant = set(node.inputs) <= set(known)
            if constant:
                known.update(self.compute(node, known))
            if not constant or set(node.outputs) & set(graph.outputs):
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
            dtype = "int8" if t.dtype is DType.BIT else t.dtype.value
            data = np.ascontiguousarray(value.numpy().astype(dtype)).reshape(t.shape)
            results[name] = Const(data, t)
        return results
