"""Interval arithmetic: the smallest and largest value every element of a tensor can have, whatever the input is.

Along a time axis a tensor is one frame here: its interval holds for every frame of a stream of any length.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from edgec.ir.evaluate import as_tensor
from edgec.ir.graph import Graph, Node
from edgec.ir.types import TensorType
from edgec.ops.relations.axes import axes_of, is_framewise
from edgec.ops.relations.interval import Interval, corners, moved, one_frame


def anything(t: TensorType) -> Interval:
    """All a tensor of this type can hold."""
    lo, hi = (-torch.inf, torch.inf) if t.dtype.is_float else t.dtype.range
    kind = torch.float32 if t.dtype.is_float else torch.int64
    return Interval(*(torch.full(one_frame(t), v, dtype=kind) for v in (lo, hi)))


def intervals(graph: Graph) -> dict[str, Interval]:
    """The interval of every tensor of a whole-sequence graph, by name; inputs can be anything."""
    found = {v.name: anything(v.type) for v in graph.inputs}
    for name, const in graph.consts.items():
        value = as_tensor(const.data, const.type)
        found[name] = Interval(value, value)
    with torch.no_grad():
        for node in graph.nodes:
            found.update({o: anything(t) for o, t in zip(node.outputs, node.types, strict=True)})
            interval = interval_of(graph, node, found) if len(node.outputs) == 1 else None
            if interval is not None:
                found[node.output] = interval
    return found


def interval_of(graph: Graph, node: Node, found: Mapping[str, Interval]) -> Interval | None:
    """What the result of a node can be by what its op declares; None where that says nothing."""
    op, types, operands = node.op, graph.input_types(node), [found[i] for i in node.inputs]
    if op.interval is not None:
        result: Interval | None = op.interval(types, operands)
        return result
    timed = any(t.time_axis is not None for t in types)
    if not (op.moves or op.monotone) or (timed and not is_alike(graph, node)):
        return None
    return moved(op.with_shape(one_frame(node.type)), operands) if op.moves else corners(op, operands)


def is_alike(graph: Graph, node: Node) -> bool:
    """Whether a node does the same to every frame: frames do not mix, and no operand differs from frame to frame."""
    types, time = graph.input_types(node), node.type.time_axis
    axes = axes_of(node.op, types)
    if axes is None or time is None or not is_framewise(node.op, types):
        return False
    frame = axes.results[0][time]
    untimed = [(o, t) for o, t in zip(axes.operands, types, strict=True) if t.time_axis is None]
    return all(t.shape[o.index(frame)] == 1 for o, t in untimed if frame in o)
