"""What quantisation decides before it rewrites: residual groups and their scale, tensors that need a special scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf

from edgec.bits import Bits
from edgec.ir.graph import Graph, Node
from edgec.ops.base import Reads, site_of
from edgec.ops.integer.build import Plan, Scales
from edgec.ops.integer.numbers import Scale, asymmetric, symmetric
from edgec.ops.integer.softmax import PROBABILITY
from edgec.passes.quantize.assign_precision import Assignment
from edgec.passes.quantize.calibrate import Statistics

#: head room of int16 above the largest value seen in calibration
MARGIN = 2.0

#: a layer over frames reads in 16 bits what one scale of 8 bits holds with less signal to error than this, in dB
COARSE_DB = 35.0

#: a softmax whose largest probability in calibration is below this is scaled by what it held
SPREAD = 0.25


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


def reads(graph: Graph, node: Node, *ways: Reads) -> bool:
    """Whether a node reads its operands in one of these ways."""
    return node.op.reads in ways and not is_map(graph, node)


def computed(graph: Graph, node: Node) -> list[str]:
    """The operands of a node that are not constants."""
    return [i for i in node.inputs if i not in graph.consts]


def coarse_tensors(graph: Graph, ranges: Mapping[str, Statistics]) -> frozenset[str]:
    """What layers over frames read and one int8 scale serves badly: a few of its channels reach far.

    A frame times weights costs about the same in either type. Many rows at once, as images and windows have them, do
    not: their kernels share weights between rows of int8.
    """
    read = {i for n in graph.nodes if n.op.reads is Reads.FRAMES for i in computed(graph, n)}
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
        passed_on = (node.op.moves or is_map(graph, node)) and node.outputs[0] in found
        if passed_on or reads(graph, node, Reads.WIDE, Reads.FINE, Reads.NORMED):
            found.update(computed(graph, node))
    return frozenset(found)


def feeds_neuron(graph: Graph, name: str) -> bool:
    """Whether a tensor drives a neuron, directly or through an affine map."""
    return any(n.op.spikes or (is_map(graph, n) and feeds_neuron(graph, n.output)) for n in graph.consumers(name))


def residual_groups(graph: Graph) -> list[list[str]]:
    """Tensors that must share one int16 scale: operands and results of adds that chain, also through ops that only
    move elements, or whose sum drives neurons, a layer norm or a softmax."""
    groups = Groups()
    sums = {n.output for n in graph.nodes if reads(graph, n, Reads.SUMMED)}
    for node in graph.nodes:
        if node.op.moves or node.outputs[0] in sums:
            for name in computed(graph, node):
                groups.join(name, node.output)
    found = [g for g in groups.members() if sums.intersection(g)]
    return [g for g in found if len(sums.intersection(g)) > 1 or any(needs_int16(graph, t) for t in g)]


def needs_int16(graph: Graph, name: str) -> bool:
    """Whether something reads the tensor that 8 bits do not serve."""
    return feeds_neuron(graph, name) or any(n.op.reads in (Reads.FINE, Reads.NORMED) for n in graph.consumers(name))


def reach(ranges: Mapping[str, Statistics], names: Iterable[str]) -> float:
    """Largest magnitude that any of the tensors held."""
    return max(max(-ranges[n].lo, ranges[n].hi, 0.0) for n in names)


def factors(graph: Graph) -> set[str]:
    """Operands of matrix products, and what they are before they were moved or scaled."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        scaled = node.op.linear_map(site_of(graph, node))
        passed_on = node.op.moves or (scaled is not None and not scaled.shift.any())
        if node.op.reads is Reads.FACTOR or (passed_on and node.outputs[0] in found):
            found.update(computed(graph, node))
    return found


def spike_tensors(graph: Graph) -> frozenset[str]:
    """Spikes, also where they were only moved or pooled: what is 0 or 1."""
    found: set[str] = set()
    for node in graph.nodes:
        kept = (node.op.moves or node.op.picks) and found.issuperset(node.inputs)
        if kept or node.op.spikes:
            found.add(node.outputs[0])
    return frozenset(found)


def fixed_scale(node: Node, ranges: Mapping[str, Statistics]) -> Scale | None:
    """The int8 scale of a result of fixed range; None for a softmax over so many classes that most levels would go
    unused."""
    if node.op.fixed_range is None or (node.op.shares and ranges[node.output].hi < SPREAD):
        return None
    lo, hi = node.op.fixed_range
    return Scale((hi - lo) / 256, round(-128 - lo * 256 / (hi - lo)))


def bounded_readers(graph: Graph) -> dict[str, tuple[float, float]]:
    """Tensors read only by functions that are constant below and above some value, and the range where one varies."""
    found: dict[str, tuple[float, float]] = {}
    for name in (o for n in graph.nodes for o in n.outputs if o not in graph.outputs):
        ends = [n.op.varies for n in graph.consumers(name)]
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
        if (fixed := fixed_scale(node, ranges)) is not None:
            found[node.output] = fixed
    found.update(dict.fromkeys(spike_tensors(graph), Scale(1.0)))
    for node in reversed(graph.nodes):
        if node.op.moves and node.type.size == sum(graph.type_of(i).size for i in node.inputs):  # all elements stay
            found.update({i: found[node.output] for i in node.inputs if i in found})
    for node in graph.nodes:
        if node.op.picks or (node.op.moves and len(node.inputs) == 1):
            found[node.output] = found.get(node.inputs[0], found[node.output])
    for name in {i for n in graph.nodes if n.op.reads is Reads.HISTORY for i in n.inputs}:
        found[name] = symmetric(ranges[name].clip(255, symmetric=True)[1], 127)
    return found


def has_grids(graph: Graph) -> bool:
    """Whether a file gave scales to tensors of a float graph."""
    return any(n.op.grid is not None for n in graph.nodes)


def grids(graph: Graph) -> dict[str, Scale]:
    """The scales that a graph's Snaps give: to what they read, also before it was moved or cut off for them alone, and
    to what is only moved or clamped after them."""
    found: dict[str, Scale] = {}
    for node in reversed(graph.nodes):
        name = node.outputs[0]
        if node.op.grid is not None:
            found[name] = found[node.inputs[0]] = node.op.grid
        elif name in found and (node.op.moves or node.op.picks or node.op.clamps):
            found |= {i: found[name] for i in node.inputs if i not in found and graph.consumers(i) == (node,)}
    for node in graph.nodes:
        given = {found.get(i) for i in node.inputs}
        if (node.op.moves or node.op.picks or node.op.clamps) and len(given) == 1 and (grid := given.pop()) is not None:
            found.setdefault(node.outputs[0], grid)
    return found


def make_plan(graph: Graph, ranges: Mapping[str, Statistics], assignment: Assignment) -> Plan:
    """All decisions for one graph: the scales that its Snaps give, and by statistics, if there are any, those of all
    other tensors."""
    given = grids(graph)
    if not ranges:
        return Plan({}, Scales(given), Scales(), bits=assignment.of(graph))
    plan = calibrated_plan(graph, ranges, assignment)
    residual = {name: scale for name, scale in plan.residual.items() if name not in given}
    wide, normed, coarse = (names - given.keys() for names in (plan.wide, plan.normed, plan.coarse))
    return replace(plan, residual=residual, int8=Scales(plan.int8 | given), wide=wide, normed=normed, coarse=coarse)


def calibrated_plan(graph: Graph, ranges: Mapping[str, Statistics], assignment: Assignment) -> Plan:
    """All decisions for a graph of whose tensors only statistics are known."""
    residual, normed = {}, set[str]()
    for group in residual_groups(graph):
        if any(n.op.reads is Reads.NORMED for name in group for n in graph.consumers(name)):
            normed.update(group)
        scale = symmetric(reach(ranges, group) * MARGIN, 32767)
        residual.update(dict.fromkeys(group, scale))
    int16 = {name: symmetric(reach(ranges, [name]) * MARGIN, 32767) for name in ranges}
    int16.update({n.output: Scale(PROBABILITY) for n in graph.nodes if n.op.shares})
    coarse, bits = coarse_tensors(graph, ranges), assignment.of(graph)
    few = {n.inputs[0] for n in graph.nodes if bits.get(n.outputs[0], Bits()).activations == 4}
    int4 = {name: asymmetric(*ranges[name].clip(16), 16) for name in few}
    wide, rates = wide_tensors(graph, coarse), {name: round(s.mean, 3) for name, s in ranges.items()}
    int8 = Scales(int8_scales(graph, ranges))
    return Plan(residual, int8, Scales(int16), wide, frozenset(normed), coarse, bits, Scales(int4), rates)
