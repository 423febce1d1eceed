"""Which chains of layers run a few rows at a time, so that the wide tensors between them never exist."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from math import prod

from edgec.ir.graph import Graph, Node
from edgec.ir.types import DType
from edgec.ops.relations.axes import part_of
from edgec.plan.arena import Buffer
from edgec.plan.tiles import Fetch, Keep, Layer, Make, Schedule, Store, schedule

MAX_LAYERS = 8  # of a chain that runs as one
ROWS = (1, 2, 3, 4, 6, 8, 12, 16)  # made in one step
FEW_ROWS = (1, 2, 4)  # with strips
STRIPS = (1, 2, 3, 4, 6, 8)  # of columns; more than one only where a budget asks for it
FREE_OVERHEAD = 0.04  # instructions that a smaller arena may cost unasked, as a share of the network's


@dataclass(frozen=True)
class Region:
    """Nodes [first, last] of the graph, `rows` output rows a step, one strip of columns after the other."""

    first: int
    last: int
    rows: int
    strips: int
    layers: tuple[Layer, ...]

    @property
    def key(self) -> tuple[int, int, int, int]:
        return self.first, self.last, self.rows, self.strips

    @cached_property
    def schedules(self) -> tuple[Schedule, ...]:
        """One per strip; their widths differ by one column at most."""
        if self.strips == 1:
            return (schedule(self.layers, self.rows),)
        width = self.layers[-1].output.shape[2]
        edges = [width * k // self.strips for k in range(self.strips + 1)]
        return tuple(schedule(self.layers, self.rows, span) for span in itertools.pairwise(edges))

    def tile_bytes(self) -> list[int]:
        """Bytes of each tensor's tile, 0 where there is none: the largest of the strips."""
        found = [0] * (len(self.layers) + 1)
        for plan in self.schedules:
            for k, (rows, (left, right)) in enumerate(zip(plan.capacity, plan.cols, strict=True)):
                found[k] = max(found[k], rows * (right - left) * pixel_bytes(self.layers, k))
        return found

    def overlays(self, allowed: Sequence[bool]) -> list[int]:
        """Layers whose output rows lie in the tile they read: those `allowed` to, whose output no later step reads
        again, and which stay clear of the rows that move to the front."""
        found = []
        for at in range(1, len(self.layers) - 1):
            room = [
                k.start * (p.cols[at][1] - p.cols[at][0]) * pixel_bytes(self.layers, at)
                for p in self.schedules for step in p.steps for k in step if isinstance(k, Keep) and k.tensor == at
            ]  # fmt: skip
            makes = [m for p in self.schedules for s in p.steps for m in s if isinstance(m, Make) and m.layer == at]
            kept = any(isinstance(k, Keep) and k.tensor == at + 1 for p in self.schedules for s in p.steps for k in s)
            sizes = [m.made * (m.wide[1] - m.wide[0]) * pixel_bytes(self.layers, at + 1) for m in makes]
            clear = max(sizes) <= min(room, default=self.tile_bytes()[at]) and all(m.write == 0 for m in makes)
            if allowed[at] and not kept and clear and (at - 1) not in found:
                found.append(at)
        return found

    def memory(self, allowed: Sequence[bool]) -> int:
        """Bytes of all tiles."""
        tiles, inside = self.tile_bytes(), self.overlays(allowed)
        padded = [-(-b // 8) * 8 for b in tiles]
        return sum(b for k, b in enumerate(padded) if k - 1 not in inside)

    def macs(self) -> int:
        """Multiply-accumulates of all steps together."""
        return sum(macs_of(self.layers[m.layer], m) for m in self.makes())

    def makes(self) -> list[Make]:
        return [m for p in self.schedules for step in p.steps for m in step if isinstance(m, Make)]

    def overhead(self) -> float:
        """Instructions beyond those of the layers one by one, estimated."""
        total = -sum(effort(layer) for layer in self.layers)
        for plan in self.schedules:
            for step in plan.steps:
                for a in step:
                    if isinstance(a, Make):
                        wide = a.wide[1] - a.wide[0]
                        layer = self.layers[a.layer]
                        total += effort(layer, a.rows * (a.cols[1] - a.cols[0]), a.made * wide)
                    else:
                        total += self._copied(plan, a) * COPY_BYTE + CALL
        return total

    def _copied(self, plan: Schedule, a: Keep | Fetch | Store) -> int:
        tensor = a.tensor if isinstance(a, Keep) else 0 if isinstance(a, Fetch) else len(self.layers)
        left, right = plan.cols[tensor]
        return a.count * (right - left) * pixel_bytes(self.layers, tensor)


# Instructions on a Cortex-M with DSP kernels, fitted to counts of bench/kernels.py: a rough scale to compare by.
CALL, COPY_BYTE, BLOCK = 30.0, 0.7, 3
DEPTHWISE_INPUT, DEPTHWISE_OUTPUT, DEPTHWISE_FILTER, PRODUCT, ELEMENT = 2.4, 17.0, 45.0, 0.88, 5.0


def effort(layer: Layer, read: int | None = None, made: int | None = None) -> float:
    """Instructions of a layer from `read` to `made` pixels, by default all of them."""
    channels = layer.output.shape[3]
    read = prod(layer.inputs[0].shape[1:3]) if read is None else read
    made = prod(layer.output.shape[1:3]) if made is None else made
    if len(layer.inputs) < 2 or len(layer.inputs[1].shape) != 4:
        return CALL + ELEMENT * made * channels
    kh, kw, inside, _ = layer.inputs[1].shape
    if inside == 1 and channels > 1:
        return CALL + DEPTHWISE_INPUT * read * channels + (DEPTHWISE_FILTER + DEPTHWISE_OUTPUT * made) * channels
    return CALL + PRODUCT * kh * kw * inside * channels * (-(-made // BLOCK) * BLOCK)


def macs_of(layer: Layer, make: Make) -> int:
    """Multiply-accumulates of one call."""
    share = make.made * (make.wide[1] - make.wide[0])
    whole = layer.op.cost(layer.inputs, (layer.output,)).macs
    return int(whole * share // (layer.output.shape[1] * layer.output.shape[2]))


def pixel_bytes(layers: Sequence[Layer], tensor: int) -> int:
    """Bytes of a pixel of a chain's tensor."""
    t = layers[tensor].inputs[0] if tensor < len(layers) else layers[-1].output
    return t.bytes // (t.shape[1] * t.shape[2])


# ---- which chains there are ----


def fits(graph: Graph, node: Node) -> bool:
    """Whether a node may be a layer of a chain: one image in, one out, all else constant."""
    if not node.inputs or len(node.outputs) != 1 or node.states or node.when.last:
        return False
    image, out = graph.type_of(node.inputs[0]), node.type
    plain = all(len(t.shape) == 4 and t.shape[0] == 1 and t.dtype is not DType.BIT for t in (image, out))
    alone = node.inputs[0] not in graph.consts and all(i in graph.consts for i in node.inputs[1:])
    if not (plain and alone):
        return False
    return part_of(node.op, graph.input_types(node), (0, out.shape[1]), (0, out.shape[2])) is not None


def chains(graph: Graph) -> list[tuple[int, int]]:
    """Longest runs [first, last] of nodes in which each reads only what the one before it made, for it alone."""
    uses: dict[str, int] = {}
    for node in graph.nodes:
        for name in node.inputs:
            uses[name] = uses.get(name, 0) + 1
    found: list[tuple[int, int]] = []
    for k, node in enumerate(graph.nodes):
        if not fits(graph, node):
            continue
        before = graph.nodes[k - 1] if k else None
        follows = (
            found and found[-1][1] == k - 1 and before is not None and node.inputs[0] == before.output
            and uses[before.output] == 1 and before.output not in graph.outputs and before.when == node.when
        )  # fmt: skip
        if follows:
            found[-1] = (found[-1][0], k)
        else:
            found.append((k, k))
    return [c for c in found if c[1] > c[0]]


def layer_of(graph: Graph, node: Node) -> Layer:
    """A node as a layer of a chain."""
    return Layer(node.op, graph.input_types(node), node.type)


# ---- which of them run in steps ----


@dataclass(frozen=True)
class Memory:
    """What choosing needs to know of the plan without regions: its buffers, the tensors in each, of each node whether
    its output may overlay its input, and the bytes of scratch its parts in a region need."""

    buffers: tuple[Buffer, ...]
    members: Mapping[str, frozenset[str]]
    overlay: Mapping[int, bool]
    scratch: Callable[[int, Region], int]


@dataclass(frozen=True)
class Choice:
    """A region with the bytes alive while it runs and its price."""

    region: Region
    peak: int
    price: float


def alive(memory: Memory, graph: Graph, first: int, last: int) -> int:
    """Bytes alive while nodes [first, last] run as one, without their tiles and scratch."""
    inside = {o for n in graph.nodes[first:last] for o in n.outputs}
    out, source = graph.nodes[last].output, graph.nodes[first].inputs[0]
    total = 0
    for b in memory.buffers:
        held = memory.members.get(b.name, frozenset())
        if b.first > last or b.last < first:
            continue
        own_scratch = not held and first <= b.first <= last
        if source in held or not (out in held or own_scratch or held <= inside):
            total += b.padded
    if any(out in held for held in memory.members.values()):
        total += -(-graph.type_of(out).bytes // 8) * 8
    return total


def choices(
    graph: Graph, memory: Memory, chain: tuple[int, int], strips: Sequence[int], crowded: Set[int]
) -> list[Choice]:
    """Every way to run a part of a chain, one with a `crowded` node in it, in steps."""
    found = []
    layers = [layer_of(graph, n) for n in graph.nodes[chain[0] : chain[1] + 1]]
    for first in range(chain[0], chain[1]):
        for last in range(first + 1, min(chain[1], first + MAX_LAYERS - 1) + 1):
            if crowded.isdisjoint(range(first, last + 1)):
                continue
            part = tuple(layers[first - chain[0] : last - chain[0] + 1])
            outside = alive(memory, graph, first, last)
            allowed = [memory.overlay[k] for k in range(first, last + 1)]
            height, width = part[-1].output.shape[1:3]
            for count in strips:
                for rows in ROWS if count == 1 else FEW_ROWS:
                    if rows < height and (count == 1 or count <= width // 2):
                        region = Region(first, last, rows, count, part)
                        scratch = max(memory.scratch(k, region) for k in range(first, last + 1))
                        peak = outside + region.memory(allowed) + -(-scratch // 8) * 8
                        found.append(Choice(region, peak, region.overhead()))
    return found


Options = Mapping[int, Sequence[Choice]]  # choices by their last node


def options_of(
    graph: Graph, memory: Memory, strips: Sequence[int], crowded: Set[int], refused: Set[tuple[int, int, int, int]]
) -> Options:
    """Every choice that is not refused."""
    found: dict[int, list[Choice]] = {}
    for chain in chains(graph):
        for c in choices(graph, memory, chain, strips, crowded):
            if c.region.key not in refused:
                found.setdefault(c.region.last, []).append(c)
    return found


def cheapest(singles: Sequence[int], options: Options, limit: int) -> tuple[float, tuple[Region, ...]] | None:
    """The regions of least price with which no more than `limit` bytes are alive at any node, and the price; None:
    there are none. singles: the bytes alive at each node by itself."""
    best: list[tuple[float, tuple[Region, ...]] | None] = [(0.0, ())]
    for k, bytes_alive in enumerate(singles):
        found = best[k] if bytes_alive <= limit else None
        for choice in options.get(k, ()):
            start = best[choice.region.first]
            if choice.peak <= limit and start is not None:
                price = start[0] + max(choice.price, 1.0)
                if found is None or price < found[0]:
                    found = (price, (*start[1], choice.region))
        best.append(found)
    return best[-1]


def smallest(singles: Sequence[int], options: Options, accept: float) -> tuple[int, tuple[Region, ...]]:
    """The least limit that regions of no higher price than `accept` keep, and those."""
    limits = sorted({*singles, *(c.peak for cs in options.values() for c in cs)})
    found: tuple[int, tuple[Region, ...]] = (max(singles), ())
    low, high = 0, len(limits) - 1
    while low <= high:
        middle = (low + high) // 2
        tried = cheapest(singles, options, limits[middle])
        if tried is not None and tried[0] <= accept:
            found, high = (limits[middle], tried[1]), middle - 1
        else:
            low = middle + 1
    return found


def choose(
    graph: Graph, memory: Memory, work: float, ram: int | None, refused: Set[tuple[int, int, int, int]]
) -> tuple[Region, ...]:
    """The regions that make the arena smallest for at most FREE_OVERHEAD of `work`; where that is above `ram`, those
    that fit into it at the least price, or come nearest. `refused` ones would run on lesser kernels."""
    singles = [sum(b.padded for b in memory.buffers if b.first <= k <= b.last) for k in range(len(graph.nodes))]
    in_chains = {k for first, last in chains(graph) for k in range(first, last + 1)}
    if not in_chains:
        return ()
    floor = max((s for k, s in enumerate(singles) if k not in in_chains), default=0) if ram is None else ram
    crowded = {k for k, s in enumerate(singles) if s > floor}
    options = options_of(graph, memory, (1,), crowded, refused)
    limit, regions = smallest(singles, options, FREE_OVERHEAD * work)
    if ram is None or limit <= ram:
        return regions
    for strips in ((1,), STRIPS):
        options = options if strips == (1,) else options_of(graph, memory, strips, crowded, refused)
        fitting = cheapest(singles, options, ram)
        if fitting is not None:
            return fitting[1]
    return smallest(singles, options, math.inf)[1]
