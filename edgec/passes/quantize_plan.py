"""What quantisation decides before it rewrites: residual groups and their scale, tensors that need a special scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgec.ir.graph import Graph
from edgec.ops.elementwise import Add, Affine, Sigmoid, Tanh
from edgec.ops.pool import MaxPool2d
from edgec.ops.recurrent import LmuMemory
from edgec.ops.shape import Concat, Permute, Reshape, Slice
from edgec.ops.spiking import Lif
from edgec.passes.calibrate import Statistics
from edgec.passes.quantize_numbers import Scale, asymmetric, symmetric

#: head room of int16 above the largest value seen in calibration
MARGIN = 2.0


class Groups:
    """Union-find over tensor names."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        root = self.parent.setdefault(name, name)
        while self.parent[root] != root:
            root = self.parent[root]
        self.parent[name] = root
        return root

    def join(self, a: str, b: str) -> None:
        self.parent[self.find(a)] = self.find(b)

    def members(self) -> list[list[str]]:
        """The groups, members in the order they were met."""
        found: dict[str, list[str]] = {}
        for name in self.parent:
            found.setdefault(self.find(name), []).append(name)
        return list(found.values())


@dataclass(frozen=True)
class Plan:
    """`residual`: int16 scale of each tensor in a residual group; `int8`, `int16`: each tensor's scale in that type."""

    residual: Mapping[str, Scale]
    int8: Mapping[str, Scale]
    int16: Mapping[str, Scale]


def feeds_neuron(graph: Graph, name: str) -> bool:
    """Whether a tensor drives a neuron, directly or through an affine map."""
    return any(
        isinstance(n.op, Lif) or (isinstance(n.op, Affine) and feeds_neuron(graph, n.output))
        for n in graph.consumers(name)
    )


def residual_groups(graph: Graph) -> list[list[str]]:
    """Tensors that must share one int16 scale: operands and results of adds that chain, or whose sum drives neurons."""
    groups = Groups()
    adds = [n for n in graph.nodes if isinstance(n.op, Add) and not any(i in graph.consts for i in n.inputs)]
    for node in adds:
        for name in node.inputs:
            groups.join(name, node.output)
    sums = {n.output for n in adds}
    found = groups.members()
    return [g for g in found if len(sums.intersection(g)) > 1 or any(feeds_neuron(graph, t) for t in g)]


def reach(ranges: Mapping[str, Statistics], names: Iterable[str]) -> float:
    """Largest magnitude that any of the tensors held."""
    return max(max(-ranges[n].lo, ranges[n].hi, 0.0) for n in names)


#: the whole range of bounded functions, as TFLite fixes it too
BOUNDED: Mapping[type, Scale] = {Sigmoid: Scale(1.0 / 256.0, -128), Tanh: Scale(1.0 / 128.0)}


def int8_scales(graph: Graph, ranges: Mapping[str, Statistics]) -> dict[str, Scale]:
    """Scale and zero point of every tensor; ops that only move or pick elements keep theirs from input to output."""
    found = {n: asymmetric(*(s.extremes() if n in graph.outputs else s.clip())) for n, s in ranges.items()}
    for node in graph.nodes:
        if type(node.op) in BOUNDED:
            found[node.output] = BOUNDED[type(node.op)]
    for node in reversed(graph.nodes):
        if isinstance(node.op, (Concat, Reshape, Permute)):
            found.update({i: found[node.output] for i in node.inputs if i in found})
    for node in graph.nodes:
        if isinstance(node.op, (MaxPool2d, Reshape, Permute, Slice)):
            found[node.output] = found[node.inputs[0]]
    for name in {i for n in graph.nodes if isinstance(n.op, LmuMemory) for i in n.inputs}:
        found[name] = symmetric(ranges[name].clip(255, symmetric=True)[1], 127)  # its empty history must be zero
    return found


def make_plan(graph: Graph, ranges: Mapping[str, Statistics]) -> Plan:
    """All decisions for one graph."""
    residual = {}
    for group in residual_groups(graph):
        scale = symmetric(reach(ranges, group) * MARGIN, 32767)
        residual.update(dict.fromkeys(group, scale))
    int16 = {name: symmetric(reach(ranges, [name]) * MARGIN, 32767) for name in ranges}
    return Plan(residual, int8_scales(graph, ranges), int16)
