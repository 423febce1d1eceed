"""Order, kernels, arena and state of a graph, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgec.ir.graph import Graph, Node
from edgec.ir.types import TensorType
from edgec.ops.base import Kernel, Site
from edgec.plan.arena import Buffer, place
from edgec.plan.state import Member, lay_out


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: storage is input, output, const, state or arena; offset in bytes, or index of the input."""

    storage: str
    offset: int
    type: TensorType


@dataclass(frozen=True)
class Call:
    """One node with its kernel. `args` are tensor, constant and state names in the order of the kernel's parameters;
    `in_place` says that the output overwrites an operand."""

    index: int
    node: Node
    variant: str
    kernel: Kernel
    args: tuple[str, ...]
    in_place: bool = False


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
    """Everything the code generator needs to know about memory."""

    graph: Graph
    calls: tuple[Call, ...]
    places: Mapping[str, Place]
    consts: Mapping[str, np.ndarray[Any, Any]]
    members: tuple[Member, ...]
    state_bytes: int
    arena_bytes: int
    arena_lower_bound: int
    items: tuple[Item, ...] = ()  # in which memory each constant, the state and the arena lie

    @property
    def homes(self) -> dict[str, str]:
        """Name of an item -> the fast memory it lies in."""
        return {i.name: i.region for i in self.items if i.region not in ("flash", "ram")}


Select = Callable[[Any, Site], tuple[str, Kernel]]


def site_of(graph: Graph, node: Node) -> Site:
    """What a lowering rule may look at."""
    consts = {k: graph.consts[name].data for k, name in enumerate(node.inputs) if name in graph.consts}
    states = tuple(graph.state(s).type for s in node.states)
    return Site(graph.input_types(node), node.types, states, consts)


def is_view(node: Node) -> bool:
    """Whether a node is only another shape of its input's memory."""
    return bool(node.op.is_view)


def resolve_views(graph: Graph) -> dict[str, str]:
    """Each tensor's memory owner: views belong to their input, delay lines to their state."""
    owner: dict[str, str] = {}
    for node in graph.nodes:
        if is_view(node):
            owner[node.output] = owner.get(node.inputs[0], node.inputs[0])
        elif node.op.output_is_state:
            owner[node.output] = node.states[0]
    return owner


def _make_call(graph: Graph, index: int, node: Node, select: Select, consts: dict[str, np.ndarray[Any, Any]]) -> Call:
    """Choose the kernel and name the argument of each of its parameters."""
    variant, kernel = select(node.op, site_of(graph, node))
    params = [p[0] for p in kernel.params]
    inputs = [name for k, name in enumerate(node.inputs) if k not in kernel.drops]
    args = []
    for param, name in zip(params, inputs, strict=False):
        if param in kernel.consts:
            name = f"{name}_{variant}" if name in graph.consts else name
            consts[name] = kernel.consts[param]
        elif name in graph.consts:
            consts[name] = graph.consts[name].data
        args.append(name)
    for param in params[len(inputs) :]:
        if param in kernel.consts:
            args.append(f"{node.outputs[0]}_{param}")
            consts[args[-1]] = kernel.consts[param]
    args += node.states
    if not node.op.output_is_state:
        args += node.outputs
    if kernel.scratch:
        args.append(f"{node.outputs[0]}_scratch")
    assert len(args) == len(params), f"{node.op.name}: kernel takes {params}, node offers {args}"
    return Call(index, node, variant, kernel, tuple(args))


def outside_arena(graph: Graph, owner: Mapping[str, str]) -> set[str]:
    """Memory that is not the arena's: inputs, outputs, states."""
    return {owner.get(o, o) for o in graph.outputs} | {s.name for s in graph.states} | {v.name for v in graph.inputs}


def last_uses(graph: Graph, owner: Mapping[str, str]) -> dict[str, int]:
    """Index of the last node that reads each piece of memory."""
    last: dict[str, int] = {}
    for index, node in enumerate(graph.nodes):
        for name in node.inputs:
            last[owner.get(name, name)] = index
    return last


def share_in_place(graph: Graph, owner: dict[str, str], kernels: Mapping[int, Kernel]) -> frozenset[int]:
    """Let outputs take the memory of an operand that dies there, in `owner`; the indices of the nodes that do."""
    outside, shared = outside_arena(graph, owner), set()
    for index, node in enumerate(graph.nodes):
        allowed = node.op.inplace or (kernels[index].inplace if index in kernels else ())
        if not allowed or node.outputs[0] in outside:
            continue
        last = last_uses(graph, owner)
        for k in allowed:
            memory, t = owner.get(node.inputs[k], node.inputs[k]), graph.type_of(node.inputs[k])
            twice = [owner.get(i, i) for i in node.inputs].count(memory) > 1
            if memory in outside or memory in graph.consts or last[memory] != index or twice:
                continue
            if (t.shape, t.dtype) == (node.type.shape, node.type.dtype):
                owner |= dict.fromkeys((n for n, o in owner.items() if o == node.output), memory)  # views of it
                owner[node.output] = memory
                shared.add(index)
                break
    return frozenset(shared)


def _buffers(graph: Graph, calls: tuple[Call, ...], owner: Mapping[str, str]) -> list[Buffer]:
    """Arena buffers with lifetimes: node outputs that are neither states nor outputs of the graph, and scratch."""
    outside, last = outside_arena(graph, owner), last_uses(graph, owner)
    buffers = []
    for index, node in enumerate(graph.nodes):
        for name, t in zip(node.outputs, node.types, strict=True):
            if owner.get(name, name) == name and name not in outside:
                buffers.append(Buffer(name, t.bytes, index, last.get(name, index)))
    for call in calls:
        if call.kernel.scratch:
            buffers.append(Buffer(call.args[-1], call.kernel.scratch, call.index, call.index))
    return buffers


def make_plan(graph: Graph, select: Select) -> Plan:
    """Lower every node and lay out memory. `select` maps an op and its site to a kernel variant."""
    consts: dict[str, np.ndarray[Any, Any]] = {}
    calls = tuple(_make_call(graph, k, node, select, consts) for k, node in enumerate(graph.nodes) if not is_view(node))
    owner = resolve_views(graph)
    shared = share_in_place(graph, owner, {c.index: c.kernel for c in calls})
    calls = tuple(replace(c, in_place=c.index in shared) for c in calls)
    buffers = _buffers(graph, calls, owner)
    arena = place(buffers)
    state_bytes, members = lay_out(graph.states)
    places: dict[str, Place] = {v.name: Place("input", k, v.type) for k, v in enumerate(graph.inputs)}
    places |= {m.state.name: Place("state", m.offset, m.state.type) for m in members}
    sizes = {b.name: b.size for b in buffers}
    for name, offset in arena.offsets.items():
        places[name] = Place("arena", offset, TensorType((sizes[name],)))
    for k, name in enumerate(graph.outputs):
        places[owner.get(name, name)] = Place("output", k, graph.type_of(name))
    for node in graph.nodes:
        for name, t in zip(node.outputs, node.types, strict=True):
            home = places[owner.get(name, name)]
            places[name] = Place(home.storage, home.offset, t)
    return Plan(graph, calls, places, consts, members, state_bytes, arena.bytes, arena.lower_bound)
