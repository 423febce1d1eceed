"""Requantise the sums of an integer layer where they are made: the tensor of int32 sums then never exists."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from edgec.ir.graph import Graph, Node
from edgec.ir.types import DType
from edgec.ops.integer.conv import QConv2d, QConv2dRequantize
from edgec.ops.integer.linear import QLinear, QLinearRequantize
from edgec.ops.integer.requantize import Requantize
from edgec.passes.base import Pass

FUSED: dict[type[Any], type[Any]] = {QConv2d: QConv2dRequantize, QLinear: QLinearRequantize}


def values(op: Any) -> dict[str, Any]:
    """The fields of an op."""
    return {f.name: getattr(op, f.name) for f in fields(op)}


@dataclass(frozen=True)
class FuseRequantize(Pass):
    """Runs after quantisation. Sums that something else reads too stay, and so do those of spikes, whose kernels
    are others."""

    name: ClassVar[str] = "fuse_requantize"

    def run(self, graph: Graph) -> Graph:
        uses = Counter(i for n in graph.nodes for i in n.inputs) + Counter(graph.outputs)
        at: dict[str, int] = {}
        nodes: list[Node] = []
        for node in graph.nodes:
            host = at.get(node.inputs[0]) if isinstance(node.op, Requantize) else None
            if host is not None and uses[node.inputs[0]] == 1 and nodes[host].when == node.when:
                before = nodes[host]
                op = FUSED[type(before.op)](**values(before.op), **values(node.op))
                nodes[host] = replace(
                    node,
                    op=op,
                    inputs=before.inputs + node.inputs[1:],
                    source=tuple(dict.fromkeys(before.source + node.source)),
                )
                continue
            if type(node.op) in FUSED and graph.type_of(node.inputs[0]).dtype in (DType.I4, DType.I8):
                at[node.output] = len(nodes)
            nodes.append(node)
        return replace(graph, nodes=tuple(nodes))
