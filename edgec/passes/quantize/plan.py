"""What quantisation decides before it rewrites: residual groups and their scale, tensors that need a special scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

from edgec.bits import Bits
from edgec.ir.graph import Graph, Node
from edgec.ops.activation import Softmax
from edgec.ops.arithmetic import Add, Affine, Mul, Sub
from edgec.ops.base import site_of
from edgec.ops.conv import Conv1d
from edgec.ops.dense import Linear, MatMul
from edgec.ops.elementwise import Elementwise, Sigmoid, Tanh
from edgec.ops.integer.build import Plan
from edgec.ops.integer.numbers import Scale, asymmetric, symmetric
from edgec.ops.integer.softmax import PROBABILITY
from edgec.ops.neurons.lif import Lif
from edgec.ops.norm import LayerNorm
from edgec.ops.pool import MaxPool2d
from edgec.ops.recurrent import LmuMemory
from edgec.ops.scaler import StdUnscale
from edgec.ops.shape import Concat, Permute, Reshape, Slice
from edgec.passes.quantize.assign_precision import Assignment
from edgec.passes.quantize.calibrate import Statistics

#: head room of int16 above the largest value seen in calibration
MARGIN = 2.0

#: a layer over frames reads in 16 bits what one scale of 8 bits holds with less signal to error than this, in dB
COARSE_DB = 35.0

#: a softmax whose largest probability in calibration is below this is scaled by what it held
SPREAD = 0.25

#: ops that only move or pick elements
MOVERS = (Concat, Permute, Reshape, Slice)


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


def is_map(graph: Graph, node: Node) -> bool:
    """Whether the node is an affine map, which needs no operand as integers."""
    return node.op.linear_map(site_of(graph, node)) is not None


def is_sum(graph: Graph, node: Node) -> bool:
    """Whether an add needs both operands as integers: they are computed, or one is not a vector along an axis."""
    return isinstance(node.op, (Add, Sub)) and not is_map(graph, node)


def is_product(graph: Graph, node: Node) -> bool:
    """Whether a product needs both factors as integers, as `is_sum`."""
    return isinstance(node.op, Mul) and not is_map(graph, node)


def coarse_tensors(graph: Graph, ranges: Mapping[str, Statistics]) -> frozenset[str]:
    """What layers over frames read and one int8 scale serves badly: a few of its channels reach far.

    A frame times weights costs about the same in either type. Many rows at once, as images and windows have them, do
    not: their kernels share weights between rows of int8.
    """
    read = {n.inputs[0] for n in graph.nodes if isinstance(n.op, (Conv1d, Linear))} & ranges.keys()
    framed = [name for name in read if graph.type_of(name).time_axis is not None]
    return frozenset(name for name in framed if ranges[name].sqnr() < COARSE_DB)


def wide_tensors(graph: Graph, coarse: frozenset[str]) -> frozenset[str]:
    """What a layer norm, a softmax, a product, a neuron or a forecast's scaler reads, and what is `coarse`, also before
    it was only moved or mapped.

    A layer norm or softmax over small differences, a gate of small values, a membrane, which adds up what it is driven
    by, and a forecast lose too much at 8 bits.
    """
    found = set(coarse)
    for node in reversed(graph.nodes):
        passed_on = isinstance(node.op, MOVERS) or is_map(graph, node)
        if (
            isinstance(node.op, (LayerNorm, Lif, Softmax, StdUnscale))
            or is_product(graph, node)
            or (passed_on and node.outputs[0] in found)
        ):
            found.update(i for i in node.inputs if i not in graph.consts)
    return frozenset(found)


def feeds_neuron(graph: Graph, name: str) -> bool:
    """Whether a tensor drives a neuron, directly or through an affine map."""
    return any(
        isinstance(n.op, Lif) or (isinstance(n.op, Affine) and feeds_neuron(graph, n.output))
        for n in graph.consumers(name)
    )


def residual_groups(graph: Graph) -> list[list[str]]:
    """Tensors that must share one int16 scale: operands and results of adds that chain, also through ops that only
    move elements, or whose sum drives neurons, a layer norm or a softmax."""
    groups = Groups()
    sums = {n.output for n in graph.nodes if is_sum(graph, n)}
    for node in graph.nodes:
        if isinstance(node.op, MOVERS) or node.outputs[0] in sums:
            for name in node.inputs:
                if name not in graph.consts:
                    groups.join(name, node.output)
    found = [g for g in groups.members() if sums.intersection(g)]
    return [g for g in found if len(sums.intersection(g)) > 1 or any(needs_int16(graph, t) for t in g)]


def needs_int16(graph: Graph, name: str) -> bool:
    """Whether something reads the tensor that 8 bits do not serve."""
    return feeds_neuron(graph, name) or any(isinstance(n.op, (LayerNorm, Softmax)) for n in graph.consumers(name))


def reach(ranges: Mapping[str, Statistics], names: Iterable[str]) -> float:
    """Largest magnitude that any of the tensors held."""
    return max(max(-ranges[n].lo, ranges[n].hi, 0.0) for n in names)


#: the whole range of bounded functions, as TFLite fixes it too
BOUNDED: Mapping[type, Scale] = {
    Sigmoid: Scale(1.0 / 256.0, -128),
    Softmax: Scale(1.0 / 256.0, -128),
    Tanh: Scale(1.0 / 128.0),
}


def factors(graph: Graph) -> set[str]:
    """Operands of matrix products, and what they are before they were moved or scaled."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        scaled = isinstance(node.op, Mul) and is_map(graph, node)
        if isinstance(node.op, MatMul) or ((isinstance(node.op, MOVERS) or scaled) and node.outputs[0] in found):
            found.update(i for i in node.inputs if i not in graph.consts)
    return found


def spike_tensors(graph: Graph) -> frozenset[str]:
    """Spikes, also where they were only moved or pooled: what is 0 or 1."""
    found: set[str] = set()
    for node in graph.nodes:
        kept = isinstance(node.op, (*MOVERS, MaxPool2d)) and found.issuperset(node.inputs)
        if kept or isinstance(node.op, Lif):
            found.add(node.outputs[0])
    return frozenset(found)


def spreads(node: Node, ranges: Mapping[str, Statistics]) -> bool:
    """Whether a softmax spreads over so many classes that most levels of its whole range would go unused."""
    return isinstance(node.op, Softmax) and ranges[node.output].hi < SPREAD


def bounded_readers(graph: Graph) -> dict[str, tuple[float, float]]:
    """Tensors read only by functions that are constant below and above some value, and the range where one varies."""
    found: dict[str, tuple[float, float]] = {}
    for name in (o for n in graph.nodes for o in n.outputs if o not in graph.outputs):
        ends = [n.op.varies if isinstance(n.op, Elementwise) else (-inf, inf) for n in graph.consumers(name)]
        lo, hi = min((e[0] for e in ends), default=-inf), max((e[1] for e in ends), default=inf)
        if (lo, hi) != (-inf, inf):
            found[name] = lo, hi
    return found


def int8_scales(graph: Graph, ranges: Mapping[str, Statistics]) -> dict[str, Scale]:
    """Scale and zero point of every tensor; ops that only move or pick elements keep theirs from input to output."""
    found = {n: asymmetric(*(s.extremes() if n in graph.outputs else s.clip())) for n, s in ranges.items()}
    found.update({n: asymmetric(*ranges[n].within(*ends).clip()) for n, ends in bounded_readers(graph).items()})
    for name in factors(graph):  # no zero points: the sums of products need no correction
        found[name] = symmetric(ranges[name].clip(255, symmetric=True)[1], 127)
    for node in graph.nodes:
        if type(node.op) in BOUNDED and not spreads(node, ranges):
            found[node.output] = BOUNDED[type(node.op)]
    found.update(dict.fromkeys(spike_tensors(graph), Scale(1.0)))
    for node in reversed(graph.nodes):
        if isinstance(node.op, (Concat, Reshape, Permute)):
            found.update({i: found[node.output] for i in node.inputs if i in found})
    for node in graph.nodes:
        if isinstance(node.op, (MaxPool2d, Reshape, Permute, Slice)):
            found[node.output] = found[node.inputs[0]]
    for name in {i for n in graph.nodes if isinstance(n.op, LmuMemory) for i in n.inputs}:
        found[name] = symmetric(ranges[name].clip(255, symmetric=True)[1], 127)  # its empty history must be zero
    return found


def make_plan(graph: Graph, ranges: Mapping[str, Statistics], assignment: Assignment) -> Plan:
    """All decisions for one graph."""
    residual, normed = {}, set[str]()
    for group in residual_groups(graph):
        if any(isinstance(n.op, LayerNorm) for name in group for n in graph.consumers(name)):
            normed.update(group)
        scale = symmetric(reach(ranges, group) * MARGIN, 32767)
        residual.update(dict.fromkeys(group, scale))
    int16 = {name: symmetric(reach(ranges, [name]) * MARGIN, 32767) for name in ranges}
    int16.update({n.output: Scale(PROBABILITY) for n in graph.nodes if isinstance(n.op, Softmax)})
    coarse, bits = coarse_tensors(graph, ranges), assignment.of(graph)
    few = {n.inputs[0] for n in graph.nodes if bits.get(n.outputs[0], Bits()).activations == 4}
    int4 = {name: asymmetric(*ranges[name].clip(16), 16) for name in few}
    wide, rates = wide_tensors(graph, coarse), {name: round(s.mean, 3) for name, s in ranges.items()}
    return Plan(residual, int8_scales(graph, ranges), int16, wide, frozenset(normed), coarse, bits, int4, rates)
