"""A linear layer that is only read in slices of its features becomes one layer per slice.

Queries, keys and values of attention usually come from one layer. Apart they need no copy, and in integers each has a
scale of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgec.ir.graph import Const, Graph, Node
from edgec.ir.types import TensorType
from edgec.ops.dense import Linear
from edgec.ops.shape import Reshape, Slice
from edgec.passes.base import Pass

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Cut:
    """One reader: the slice itself, the reshape before it if there is one, and which features it takes."""

    reader: Node
    view: Node | None
    features: Array


@dataclass(frozen=True)
class SplitLinear(Pass):
    """linear -> (reshape ->) slices along its features, which together take none twice: one linear layer per slice."""

    name: ClassVar[str] = "split_linear"

    def run(self, graph: Graph) -> Graph:
        consts, replaced = dict(graph.consts), {}
        for node in graph.nodes:
            cuts = cuts_of(graph, node)
            for cut in cuts or []:
                replaced[cut.reader.output] = layer(graph, node, cut, consts)
        nodes = [new for n in graph.nodes for new in replaced.get(n.outputs[0], [n])]
        return replace(graph, consts=consts, nodes=tuple(nodes)).prune_unused()


def cuts_of(graph: Graph, node: Node) -> list[Cut] | None:
    """The slices that a linear layer is read by; None where anything else reads it or features are taken twice."""
    if not isinstance(node.op, Linear) or any(i not in graph.consts for i in node.inputs[1:]):
        return None
    cuts = []
    for reader in graph.consumers(node.output):
        is_view = isinstance(reader.op, Reshape)
        slices = graph.consumers(reader.output) if is_view else (reader,)
        for s in slices:
            features = features_of(node, reader if is_view else None, s)
            if features is None:
                return None
            cuts.append(Cut(s, reader if is_view else None, features))
        if is_view and reader.output in graph.outputs:
            return None
    taken = np.concatenate([c.features for c in cuts]) if cuts else np.zeros(0)
    if len(cuts) < 2 or len(np.unique(taken)) < len(taken) or node.output in graph.outputs:
        return None
    return cuts


def features_of(node: Node, view: Node | None, reader: Node) -> Array | None:
    """The layer's features in a slice of its output; None where the slice does not take the same ones of every row."""
    if not isinstance(reader.op, Slice):
        return None
    shape = node.type.shape if view is None else view.type.shape
    axis, rows = reader.op.axis % len(shape), prod(node.type.shape[:-1])
    lead = next((k for k in range(len(shape) + 1) if prod(shape[:k]) == rows), None)
    if lead is None or axis < lead:
        return None
    index = np.arange(node.type.shape[-1]).reshape(shape[lead:])
    return np.take(index, reader.op.indices, axis - lead).reshape(-1)


def layer(graph: Graph, node: Node, cut: Cut, consts: dict[str, Const]) -> list[Node]:
    """The linear layer of one slice, and its reshape where the slice had one."""
    names = []
    for name in node.inputs[1:]:
        data = np.ascontiguousarray(graph.consts[name].data[..., cut.features])
        names.append(f"{name}_{cut.reader.output}")
        consts[names[-1]] = Const(data, TensorType(data.shape, graph.consts[name].type.dtype))
    kind = replace(node.type, shape=(*node.type.shape[:-1], len(cut.features)))
    source = tuple(dict.fromkeys((*node.source, *cut.reader.source)))
    if cut.view is None:
        return [replace(cut.reader, op=node.op, inputs=(node.inputs[0], *names), types=(kind,), source=source)]
    flat = f"{node.output}_{cut.reader.output}"
    view = Reshape(cut.reader.type.shape, cut.view.op.time_axis)
    return [
        replace(node, inputs=(node.inputs[0], *names), outputs=(flat,), types=(kind,)),
        replace(cut.reader, op=view, inputs=(flat,)),
    ]
