"""Quotients as products: x / y is x times 1 / y, which integers compute by a table or fold where y is constant."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgec.ir.graph import Const, Graph, Node
from edgec.ir.types import TensorType
from edgec.ops.base import Array
from edgec.passes.base import Pass


@dataclass(frozen=True)
class SplitQuotient(Pass):
    """Before quantisation, so that calibration sees 1 / y; what is left divides one number by a tensor."""

    name: ClassVar[str] = "split_quotient"

    def run(self, graph: Graph) -> Graph:
        consts, nodes = dict(graph.consts), list[Node]()

        def const(stem: str, data: Array) -> str:
            name = next(n for n in graph.fresh(stem) if n not in consts)
            consts[name] = Const(data, TensorType(data.shape))
            return name

        for node in graph.nodes:
            if node.op.product is None or is_reciprocal(graph, node):
                nodes.append(node)
                continue
            x, y = node.inputs
            if y in graph.consts:
                factor = const(f"{y}_reciprocal", (1 / graph.consts[y].data).astype(np.float32))
            else:
                factor = next(graph.fresh(f"{node.output}_reciprocal"))
                one = const(f"{node.output}_one", np.ones(1, np.float32))
                types = node.op.infer([consts[one].type, graph.type_of(y)])
                nodes.append(Node(node.op, (one, y), (factor,), types, node.source))
            nodes.append(replace(node, op=node.op.product(), inputs=(x, factor)))
        return replace(graph, consts=consts, nodes=tuple(nodes)).prune_unused()


def is_reciprocal(graph: Graph, node: Node) -> bool:
    """Whether a quotient has one number above and a computed tensor below."""
    above, below = node.inputs
    return above in graph.consts and graph.consts[above].data.size == 1 and below not in graph.consts
