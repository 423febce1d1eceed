"""Find efficient channel attention spelled out in ordinary layers, and put one `eca` node in its place.

    mul(x, sigmoid(conv1d(mean of x over its positions)))  ->  eca(x, w)

Between these stand reshapes and permutes, as many as the writer of the module liked; they are followed axis by axis. So
do products with and quotients by numbers before the sigmoid, as in a sum over the number of positions: they go into w.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

import numpy as np

from edgec.ir.graph import Const, Graph, Node
from edgec.ir.types import TensorType
from edgec.ops.arithmetic import Div, Mul
from edgec.ops.base import site_of
from edgec.ops.conv import Conv1d
from edgec.ops.eca import Eca
from edgec.ops.elementwise import Sigmoid
from edgec.ops.pool import AvgPool2d, Mean
from edgec.ops.shape import Permute, Reshape
from edgec.passes.base import Pass

#: for each axis of a tensor, the axes of x that it runs over, slowest first; axes of extent 1 appear nowhere
Axes = list[list[int]]
LINKS = (Mean, AvgPool2d, Reshape, Permute, Conv1d, Sigmoid)


@dataclass(frozen=True)
class Match:
    """What a multiplication turned out to be: x, its channel axis, the filter's convolution, and what it is times."""

    x: str
    channel: int
    conv: Node
    factor: float


def factor_of(node: Node, graph: Graph) -> float | None:
    """The number that a node multiplies its operand by; None where it does something else."""
    found = node.op.linear_map(site_of(graph, node)) if isinstance(node.op, (Mul, Div)) else None
    return float(found.scale[0]) if found is not None and found.scale.size == 1 else None


def starts(x: str, graph: Graph) -> dict[str, Axes]:
    """Where a way to the gate may start: at x, or at what x is another order or shape of; the axes of each."""
    t, node = graph.type_of(x), graph.producer(x)
    own: Axes = [[k] if n > 1 else [] for k, n in enumerate(t.shape)]
    found: dict[str, Axes] = {x: own}
    if node is not None and isinstance(node.op, Permute):
        found[node.inputs[0]] = [own[node.op.perm.index(k)] for k in range(len(own))]
    elif node is not None and isinstance(node.op, Reshape):
        shaped = regrouped(own, t.shape, graph.type_of(node.inputs[0]).shape)
        found |= {node.inputs[0]: shaped} if shaped is not None else {}
    return found


def chain_to(ends: Container[str], gate: str, graph: Graph) -> list[Node]:
    """The nodes from one of the ends to the gate in execution order; none where something else stands between them."""
    chain: list[Node] = []
    while gate not in ends:
        node = graph.producer(gate)
        if node is None or not (isinstance(node.op, LINKS) or factor_of(node, graph) is not None):
            return []
        chain.append(node)
        gate = operand(node, graph)
    return chain[::-1]


def operand(node: Node, graph: Graph) -> str:
    """What a node of a chain computes from."""
    return next(i for i in node.inputs if i not in graph.consts)


def regrouped(axes: Axes, extents: tuple[int, ...], shape: tuple[int, ...]) -> Axes | None:
    """The axes after a reshape; None where it cuts one in two. `extents` are those of x."""
    left = [a for group in axes for a in group]
    found: Axes = []
    for n in shape:
        group: list[int] = []
        while left and prod(extents[a] for a in group) < n:
            group.append(left.pop(0))
        if prod(extents[a] for a in group) != n:
            return None
        found.append(group)
    return found


def follow(node: Node, axes: Axes, extents: tuple[int, ...]) -> Axes | None:
    """The axes of a node's output from those of its input; None where it mixes what a gate keeps apart."""
    op = node.op
    if isinstance(op, Permute):
        return [axes[p] for p in op.perm]
    if isinstance(op, Reshape):
        return regrouped(axes, extents, op.shape)
    if isinstance(op, Mean):
        return axes[: op.axis] + axes[op.axis + 1 :]
    if isinstance(op, AvgPool2d):
        whole = node.type.shape[1:3] == (1, 1) and not any(op.pad)
        covered = tuple(prod(extents[a] for a in group) for group in axes[1:3])
        return [axes[0], [], [], axes[3]] if whole and covered == op.kernel else None
    return axes


def is_filter(node: Node, graph: Graph) -> bool:
    """Whether a convolution is one filter of odd length, without bias, that keeps the number of positions."""
    w, bias = (graph.consts.get(i) for i in node.inputs[1:])
    if w is None or bias is None or w.data.shape[1:] != (1, 1) or bias.data.any():
        return False
    op, half = node.op, w.data.shape[0] // 2
    return bool(w.data.shape[0] % 2 and op == Conv1d(pad=(half, half)))


def recognize(node: Node, graph: Graph) -> Match | None:
    """The match at a multiplication; None where it is something else."""
    for x, gate in (node.inputs, node.inputs[::-1]):
        t = graph.type_of(x)
        if len(t.shape) == 4 and t.shape == node.type.shape and t.time_axis in (None, 0):
            found = match(x, t, gate, graph)
            if found is not None:
                return found
    return None


def match(x: str, t: TensorType, gate: str, graph: Graph) -> Match | None:
    """Follow x's axes to the gate: the mean leaves batch and channels, the filter runs over the channels alone."""
    ends = starts(x, graph)
    chain = chain_to(ends, gate, graph)
    convs = [k for k, n in enumerate(chain) if isinstance(n.op, Conv1d)]
    gates = [k for k, n in enumerate(chain) if isinstance(n.op, Sigmoid)]
    if len(convs) != 1 or len(gates) != 1 or convs[0] > gates[0] or not is_filter(chain[convs[0]], graph):
        return None
    axes = ends[operand(chain[0], graph)]
    batch, channel, factor = ends[x][0], -1, 1.0
    for k, link in enumerate(chain):
        times = factor_of(link, graph)
        if times is not None and k > gates[0]:
            return None
        factor *= 1.0 if times is None else times
        if k == convs[0]:
            if axes[0] != batch or len(axes[1]) != 1 or axes[1] == batch:
                return None
            channel = axes[1][0]
        elif k > convs[0] and isinstance(link.op, (Mean, AvgPool2d)):
            return None
        after = follow(link, axes, t.shape)
        if after is None:
            return None
        axes = after
    first = len(t.shape) - len(axes)  # a shorter gate is broadcast from the last axis on
    met = [(k + first, group) for k, group in enumerate(axes) if group]
    kept = [(k, [k]) for k in (0, channel) if t.shape[k] > 1]
    return Match(x, channel, chain[convs[0]], factor) if met == kept else None


@dataclass(frozen=True)
class RecognizeEca(Pass):
    """Channel attention as one node, whichever way its module is written; see the module."""

    name: ClassVar[str] = "recognize_eca"

    def run(self, graph: Graph) -> Graph:
        assert not graph.is_step
        consts, nodes = dict(graph.consts), []
        for node in graph.nodes:
            found = recognize(node, graph) if isinstance(node.op, Mul) else None
            nodes += [node] if found is None else replacement(node, found, graph, consts)
        return replace(graph, nodes=tuple(nodes), consts=consts).prune_unused()


def replacement(node: Node, found: Match, graph: Graph, consts: dict[str, Const]) -> list[Node]:
    """The eca node, between permutes where the channels of x are not its last axis."""
    w = (consts[found.conv.inputs[1]].data.reshape(-1) * found.factor).astype(np.float32)
    name = next(replace(graph, consts=consts).fresh(f"{found.conv.inputs[1]}_taps"))
    consts[name] = Const(np.ascontiguousarray(w), TensorType(w.shape))
    source = tuple(dict.fromkeys(found.conv.source + node.source))
    if found.channel == 3:
        return [replace(node, op=Eca(), inputs=(found.x, name), source=source)]
    module = node.output.rpartition(".")[0] or Eca.name
    names = [next(graph.fresh(stem)) for stem in (f"{module}.last", module)]
    perm = (*(k for k in range(4) if k != found.channel), found.channel)
    back = tuple(int(k) for k in np.argsort(perm))
    (last,) = Permute(perm).infer([graph.type_of(found.x)])
    return [
        Node(Permute(perm), (found.x,), (names[0],), (last,), node.source),
        Node(Eca(), (names[0], name), (names[1],), Eca().infer([last, consts[name].type]), source),
        Node(Permute(back), (names[1],), node.outputs, node.types, node.source),
    ]
