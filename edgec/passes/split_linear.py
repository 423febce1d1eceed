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
from edgec.ops.relations.moves import FILL, index_map
from edgec.ops.shape import Reshape
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
    constant = len(node.inputs) > 1 and all(i in graph.consts for i in node.inputs[1:])
    if not (node.op.is_layer and constant and len(graph.type_of(node.inputs[1]).shape) == 2):
        return None
    cuts = []
    for reader in graph.consumers(node.output):
        is_view = reader.op.is_view
        slices = graph.consumers(reader.output) if is_view else (reader,)
        for s in slices:
            features = features_of(graph, node, reader if is_view else None, s)
            if features is None:
                return None
            cuts.append(Cut(s, reader if is_view else None, features))
        if is_view and reader.output in graph.outputs:
            return None
    taken = np.concatenate([c.features for c in cuts]) if cuts else np.zeros(0)
    if len(cuts) < 2 or len(np.unique(taken)) < len(taken) or node.output in graph.outputs:
        return None
    return cuts


def features_of(graph: Graph, node: Node, view: Node | None, reader: Node) -> Array | None:
    """The layer's features that a reader of its output, or of a view of it, takes out of every row; None where it takes
    others of other rows, or does not only move them."""
    if not reader.op.moves or reader.op.is_view or len(reader.inputs) != 1:
        return None
    rows, width = prod(node.type.shape[:-1]), node.type.shape[-1]
    taken = index_map(reader.op, graph.input_types(reader))
    if taken.size % rows or (taken == FILL).any():
        return None
    by_row = taken.reshape(rows, -1) - np.arange(rows)[:, None] * width
    same = (by_row == by_row[0]).all() and (by_row >= 0).all() and (by_row < width).all()
    plain = view is not None or reader.type.shape[:-1] == node.type.shape[:-1]
    return by_row[0] if same and plain else None


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
    view = Reshape(cut.reader.type.shape, cut.reader.type.time_axis)
    return [
        replace(node, inputs=(node.inputs[0], *names), outputs=(flat,), types=(kind,)),
        replace(cut.reader, op=view, inputs=(flat,)),
    ]
