"""Order, kernels, arena and state of a graph, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgec.ir.graph import Graph
from edgec.ir.types import TensorType
from edgec.plan.arena import place
from edgec.plan.calls import Call, Loop, Select
from edgec.plan.layout import Layout, lay_out_whole
from edgec.plan.regions import Region
from edgec.plan.state import Member, lay_out
from edgec.plan.steps import lay_out_steps


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: storage is input, output, const, state or arena; offset in bytes, or index of the input."""

    storage: str
    offset: int
    type: TensorType


@dataclass(frozen=True)
class Item:
    """A constant of the plan, its state or its arena. `uses`: reads of one byte in a frame, on average."""

    name: str
    kind: str  # weights, state or arena
    region: str
    size: int
    uses: float


@dataclass(frozen=True)
class Plan:
    """Everything the code generator needs to know about memory. `program` has all calls in the order they run, `calls`
    one a node: of a node that runs in parts the largest. `tiles` are the tensors that never exist as a whole."""

    graph: Graph
    calls: tuple[Call, ...]
    program: tuple[Loop, ...]
    places: Mapping[str, Place]
    consts: Mapping[str, np.ndarray[Any, Any]]
    members: tuple[Member, ...]
    state_bytes: int
    arena_bytes: int
    arena_lower_bound: int
    tiles: frozenset[str] = frozenset()
    regions: tuple[Region, ...] = ()
    items: tuple[Item, ...] = ()  # in which memory each constant, the state and the arena lie

    @property
    def every_call(self) -> tuple[Call, ...]:
        """All calls of the program."""
        return tuple(item for loop in self.program for item in loop.items if isinstance(item, Call))

    @property
    def homes(self) -> dict[str, str]:
        """Name of an item -> the fast memory it lies in."""
        return {i.name: i.region for i in self.items if i.region not in ("flash", "ram")}


@dataclass(frozen=True)
class Tiling:
    """Layers may run in steps to make the arena smaller. `arena`: bytes it must fit into at any price, if it can."""

    arena: int | None = None


def make_plan(graph: Graph, select: Select, tiling: Tiling | None = None) -> Plan:
    """Lower every node and lay out memory. `select` maps an op and its site to a kernel variant."""
    layout = lay_out_whole(graph, select)
    if tiling is not None:
        layout = lay_out_steps(graph, select, layout, tiling.arena)
    return finish(graph, layout)


def finish(graph: Graph, layout: Layout) -> Plan:
    """Give everything its place."""
    arena, owner = place(layout.buffers), layout.owner
    state_bytes, members = lay_out(graph.states)
    places: dict[str, Place] = {v.name: Place("input", k, v.type) for k, v in enumerate(graph.inputs)}
    places |= {m.state.name: Place("state", m.offset, m.state.type) for m in members}
    sizes = {b.name: b.size for b in layout.buffers}
    for name, offset in arena.offsets.items():
        places[name] = Place("arena", offset, TensorType((sizes[name],)))
    for k, name in enumerate(graph.outputs):
        places[owner.get(name, name)] = Place("output", k, graph.type_of(name))
    for node in graph.nodes:
        for name, t in zip(node.outputs, node.types, strict=True):
            home = places[owner.get(name, name)]
            places[name] = home if name in layout.tiles else replace(home, type=t)
    places |= {name: places[home] for name, home in owner.items() if name not in places}
    return Plan(
        graph, layout.calls, layout.program, places, layout.consts, members, state_bytes, arena.bytes,
        arena.lower_bound, layout.tiles, layout.regions,
    )  # fmt: skip
