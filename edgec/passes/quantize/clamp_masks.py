"""Masks of attention in the range of the scores they are added to, so that integers keep the scores fine.

A mask takes scores away from a softmax by adding -inf, or any large negative number. With scores within [-r, r] a mask
of -(2 r + REACH) leaves a weight below e**-REACH, which is nothing beside the 15 bits of a probability.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgec.ir.graph import Const, Graph, Node
from edgec.ops.activation import only_softmax
from edgec.ops.base import Reads
from edgec.passes.quantize.calibrate import Statistics

REACH = 16.0


def clamp_masks(graph: Graph, ranges: Mapping[str, Statistics]) -> tuple[Graph, Mapping[str, Statistics]]:
    """The graph with its masks clamped, and the statistics as if they had been so in calibration."""
    consts, found = dict(graph.consts), dict(ranges)
    for node in graph.nodes:
        mask = mask_of(graph, node)
        if mask is not None:
            scores = ranges[next(i for i in node.inputs if i != mask)]
            values, r = graph.consts[mask].data, max(-scores.lo, scores.hi)
            low = values <= -(2 * r + REACH)
            if low.any():
                rest = float(np.abs(values[~low]).max(initial=0.0))
                clamped = np.where(low, np.float32(-(2 * r + rest + REACH)), values).astype(np.float32)
                consts[mask] = Const(clamped, graph.consts[mask].type)
                reach = r + rest + REACH / 2  # int16 holds twice as much
                found[node.output] = replace(ranges[node.output], lo=-reach, hi=r + rest, reach=reach)
        elif node.op.moves and found.get(node.inputs[0]) is not ranges.get(node.inputs[0]):
            found[node.output] = found[node.inputs[0]]
    return replace(graph, consts=consts), found


def mask_of(graph: Graph, node: Node) -> str | None:
    """The constant that a node adds to scores which only a softmax reads, and nothing else reads."""
    given = [i for i in node.inputs if i in graph.consts]
    if len(given) != 1 or not mask_reader(graph, node):
        return None
    return given[0] if all(mask_reader(graph, n) for n in graph.consumers(given[0])) else None


def mask_reader(graph: Graph, node: Node) -> bool:
    """Whether a node adds its constant to what only a softmax reads."""
    return node.op.reads is Reads.SUMMED and node.op.commutes and only_softmax(graph, node.output)
