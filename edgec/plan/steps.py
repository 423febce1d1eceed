"""The program of a graph some of whose chains run in steps (`regions`): calls of parts, copies, and loops of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from edgec.ir.graph import Graph, Node
from edgec.plan.arena import Buffer, lower_bound
from edgec.plan.calls import Call, Consts, Copy, Loop, Offset, Select, make_call
from edgec.plan.layout import Layout, make_buffers, resolve_views, scratch_of, share_in_place
from edgec.plan.regions import Memory, Region, choose, effort, fits, layer_of, pixel_bytes
from edgec.plan.tiles import Action, Fetch, Keep, Make, Schedule, Span

Item = Call | Copy


def lay_out_steps(graph: Graph, select: Select, whole: Layout, arena: int | None) -> Layout:
    """The layout with the regions that `choose` finds; `whole` where there are none."""
    refused: set[tuple[int, int, int, int]] = set()
    memory = memory_of(graph, select, whole)
    work = sum(effort(layer_of(graph, n)) for n in graph.nodes if fits(graph, n))
    variants = {c.index: c.variant for c in whole.calls}
    while regions := choose(graph, memory, work, arena, refused):
        consts: Consts = {}
        built = {r.first: _Builder(graph, r, select, consts) for r in regions}
        worse = {b.region.key for b in built.values() if any(c.variant != variants[c.index] for c in b.parts())}
        if not worse:
            found = _assemble(graph, select, whole, consts, built)
            return found if lower_bound(found.buffers) < lower_bound(whole.buffers) else whole
        refused |= worse
    return whole


def memory_of(graph: Graph, select: Select, whole: Layout) -> Memory:
    """What choosing looks at. Scratch is that of the whole node, or where this is much, because it holds a copy of the
    image, of the largest part."""
    members: dict[str, set[str]] = {}
    for node in graph.nodes:
        for name in node.outputs:
            members.setdefault(whole.owner.get(name, name), set()).add(name)
    most = {c.index: c.kernel.scratch for c in whole.calls}
    lowered: dict[object, int] = {}

    def scratch(index: int, region: Region) -> int:
        if 4 * most[index] < region.layers[index - region.first].inputs[0].bytes:
            return most[index]
        layer = index - region.first
        makes = {(m.op, m.rows, m.made, m.cols, m.wide) for m in region.makes() if m.layer == layer}
        for key in makes:
            if (index, key) not in lowered:
                call = part_call(graph, select, {}, region, layer, *key)
                lowered[index, key] = call.kernel.scratch
        return max(lowered[index, key] for key in makes)

    overlay = {c.index: c.kernel.overlay for c in whole.calls}
    return Memory(tuple(whole.buffers), {k: frozenset(v) for k, v in members.items()}, overlay, scratch)


def part_call(
    graph: Graph, select: Select, consts: Consts, region: Region, at: int, op: Any, rows: int, made: int, cols: Span,
    wide: Span, names: Sequence[str] | None = None,
) -> Call:  # fmt: skip
    """Layer `at` of a region as `op`, from an image of rows and columns to one of `made` rows and `wide` columns;
    names: of the region's tensors where they are not the graph's."""
    index = region.first + at
    node, layer = graph.nodes[index], region.layers[at]
    image, out = layer.inputs[0], layer.output
    inputs = (replace(image, shape=(1, rows, _width(cols), image.shape[3])), *layer.inputs[1:])
    types = (replace(out, shape=(1, made, _width(wide), out.shape[3])),)
    source, to = (node.inputs[0], node.output) if names is None else (names[at], names[at + 1])
    part = Node(op, (source, *node.inputs[1:]), (to,), types, node.source, when=node.when)
    return make_call(graph, index, part, select, consts, inputs)


def _assemble(graph: Graph, select: Select, whole: Layout, consts: Consts, built: Mapping[int, _Builder]) -> Layout:
    """Calls, program and memory of the graph with its regions."""
    inside = {k for b in built.values() for k in range(b.region.first, b.region.last + 1)}
    single = {c.index: make_call(graph, c.index, c.node, select, consts) for c in whole.calls if c.index not in inside}
    owner = resolve_views(graph)
    shared = share_in_place(graph, owner, {k: c.kernel for k, c in single.items()})
    calls: list[Call] = []
    program: list[Loop] = []
    for index in range(len(graph.nodes)):
        if index in single:
            calls.append(replace(single[index], in_place=index in shared))
            program.append(Loop(1, (calls[-1],)))
        elif index in built:
            program += built[index].loops
            calls += built[index].largest()
    regions = tuple(b.region for b in built.values())
    scratch = scratch_of([c for c in calls if c.index in single])
    buffers = make_buffers(graph, owner, scratch, regions)
    tiles = set()
    for b in built.values():
        buffers += b.buffers()
        owner |= b.owner()
        tiles |= {o for n in graph.nodes[b.region.first : b.region.last] for o in n.outputs}
    return Layout(consts, tuple(calls), tuple(program), owner, buffers, frozenset(tiles), regions)


class _Builder:
    """The calls of one region."""

    def __init__(self, graph: Graph, region: Region, select: Select, consts: Consts) -> None:
        self.graph, self.region, self.select, self.consts = graph, region, select, consts
        self.nodes = graph.nodes[region.first : region.last + 1]
        self.tensors = (self.nodes[0].inputs[0], *(n.output for n in self.nodes))
        self.names = self.tensors
        if region.strips > 1:  # two regions may meet at a tensor: each has a tile of its own there
            first, *inside, last = self.tensors
            self.names = (f"{first}_read_strip", *inside, f"{last}_made_strip")
        self.made: dict[object, Call] = {}
        self.over = self._overlays()
        self.loops = [loop for plan in region.schedules for loop in self._loops(plan)]

    def parts(self) -> list[Call]:
        """Every different call."""
        return list(self.made.values())

    def largest(self) -> list[Call]:
        """For each node the part that makes most, as a call of the node."""
        found = []
        for at, node in enumerate(self.nodes):
            index = self.region.first + at
            call = max((c for c in self.parts() if c.index == index), key=lambda c: (c.node.type.size, -c.part))
            found.append(replace(call, node=node, at={}, inputs=self.graph.input_types(node)))
        return found

    # ---- memory ----

    def _overlays(self) -> list[int]:
        makes = [self._part(m) for m in self.region.makes()]
        allowed = [
            all(c.kernel.overlay for c in makes if c.index == self.region.first + at) for at in range(len(self.nodes))
        ]
        return self.region.overlays(allowed)

    def buffers(self) -> list[Buffer]:
        """The tiles that are not laid over others, and the scratch that all calls share."""
        sizes = {n: s for k, (n, s) in enumerate(self._tiles()) if k - 1 not in self.over}
        sizes[self.scratch] = max(c.kernel.scratch for c in self.parts())
        return [Buffer(n, size, self.region.first, self.region.last) for n, size in sizes.items() if size]

    def _tiles(self) -> zip[tuple[str, int]]:
        return zip(self.names, self.region.tile_bytes(), strict=True)

    @property
    def scratch(self) -> str:
        return f"{self.tensors[-1]}_steps_scratch"

    def owner(self) -> dict[str, str]:
        """Tiles in the memory of another tile, and every call's scratch."""
        found = {self.names[at + 1]: self.names[at] for at in self.over}
        return found | {c.args[-1]: self.scratch for c in self.parts() if c.kernel.scratch}

    # ---- calls ----

    def _part(self, make: Make) -> Call:
        """The call for a part of a layer, without offsets; equal parts have the same."""
        key = make.layer, make.op, make.rows, make.made, _width(make.cols), _width(make.wide)
        if key not in self.made:
            part = make.layer, make.op, make.rows, make.made, make.cols, make.wide
            call = part_call(self.graph, self.select, self.consts, self.region, *part, self.names)
            self.made[key] = replace(call, part=len(self.made) + 1)
        return self.made[key]

    def _loops(self, plan: Schedule) -> list[Loop]:
        """The steps of a strip; steps that differ only in where the chain's ends lie are turns of one loop."""
        loops: list[Loop] = []
        steps = [tuple(self._item(a, plan) for a in step) for step in plan.steps]
        ends = {self.tensors[0], self.tensors[-1]}
        while steps:
            count = next((k for k in range(1, len(steps)) if not _continues(steps, k, ends)), len(steps))
            loops.append(Loop(count, _moving(steps[0], steps[1]) if count > 1 else steps[0]))
            steps = steps[count:]
        return loops

    def _item(self, action: Action, plan: Schedule) -> Item:
        """A call or copy with the offsets of its step."""
        if isinstance(action, Keep):
            name, row = self.names[action.tensor], self._row(plan, action.tensor)
            at = {"to": Offset(action.to * row), "source": Offset(action.start * row)}
            return Copy(name, name, action.count * row, at)
        if isinstance(action, Make):
            call = self._part(action)
            source = action.read * self._row(plan, action.layer)
            to = action.write * self._row(plan, action.layer + 1)
            at = {call.node.inputs[0]: Offset(source), call.node.output: Offset(to)}
            return replace(call, at=at, in_place=action.layer in self.over)
        fetch = isinstance(action, Fetch)
        tensor = 0 if fetch else len(self.nodes)
        pixel, tile = pixel_bytes(self.region.layers, tensor), self._row(plan, tensor)
        pitch = self._pitch(tensor)
        outer = Offset(action.first * pitch + plan.cols[tensor][0] * pixel)
        inner = Offset(action.to * tile if isinstance(action, Fetch) else 0)
        if fetch:
            at = {"to": inner, "source": outer}
            return Copy(self.names[tensor], self.tensors[tensor], tile, at, action.count, tile, pitch)
        return Copy(self.tensors[tensor], self.names[tensor], tile, {"to": outer, "source": inner}, action.count,
                    pitch, tile)  # fmt: skip

    def _row(self, plan: Schedule, tensor: int) -> int:
        """Bytes of a row of a tensor as the calls see it."""
        return _width(plan.cols[tensor]) * pixel_bytes(self.region.layers, tensor)

    def _pitch(self, tensor: int) -> int:
        layers = self.region.layers
        whole = layers[tensor].inputs[0] if tensor < len(layers) else layers[-1].output
        return whole.shape[2] * pixel_bytes(layers, tensor)


def _width(span: Span) -> int:
    return span[1] - span[0]


def _offsets(item: Item) -> list[tuple[str, Offset]]:
    """The tensors an item touches at an offset."""
    if isinstance(item, Call):
        return list(item.at.items())
    return [(item.to, item.at["to"]), (item.source, item.at["source"])]


def _still(item: Item, ends: Set[str]) -> tuple[object, ...]:
    """An item without what may move from step to step: the offsets in the chain's ends."""
    inside = tuple(o.start for name, o in _offsets(item) if name not in ends)
    if isinstance(item, Call):
        return item.key, item.in_place, inside
    return item.to, item.source, item.bytes, item.rows, inside


def _starts(step: Iterable[Item]) -> list[int]:
    return [o.start for item in step for _, o in _offsets(item)]


def _continues(steps: list[tuple[Item, ...]], k: int, ends: Set[str]) -> bool:
    """Whether step k is the one before it moved on by as much as the second step is moved from the first."""
    if [_still(i, ends) for i in steps[k]] != [_still(i, ends) for i in steps[0]]:
        return False
    first, second, before, this = (_starts(steps[i]) for i in (0, 1, k - 1, k))
    return [b - a for a, b in zip(first, second, strict=True)] == [b - a for a, b in zip(before, this, strict=True)]


def _moving(first: tuple[Item, ...], second: tuple[Item, ...]) -> tuple[Item, ...]:
    """The items of a loop, from those of its first two turns."""
    return tuple(
        replace(a, at={name: Offset(o.start, b.at[name].start - o.start) for name, o in a.at.items()})
        for a, b in zip(first, second, strict=True)
    )
