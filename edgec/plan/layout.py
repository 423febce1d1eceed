"""The calls of a graph, who owns which memory, and how long each piece of the arena is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgec.ir.graph import Graph
from edgec.ops.base import Kernel
from edgec.plan.arena import Buffer
from edgec.plan.calls import Call, Loop, Select, is_view, make_call
from edgec.plan.regions import Region


@dataclass(frozen=True)
class Layout:
    """What a plan gives places to: the calls, and who owns which memory."""

    consts: Mapping[str, np.ndarray[Any, Any]]
    calls: tuple[Call, ...]
    program: tuple[Loop, ...]
    owner: Mapping[str, str]
    buffers: Sequence[Buffer]
    tiles: frozenset[str] = frozenset()
    regions: tuple[Region, ...] = ()


def lay_out_whole(graph: Graph, select: Select) -> Layout:
    """Every node by one call."""
    consts: dict[str, np.ndarray[Any, Any]] = {}
    calls = tuple(make_call(graph, k, node, select, consts) for k, node in enumerate(graph.nodes) if not is_view(node))
    owner = resolve_views(graph)
    shared = share_in_place(graph, owner, {c.index: c.kernel for c in calls})
    calls = tuple(replace(c, in_place=c.index in shared) for c in calls)
    buffers = make_buffers(graph, owner, scratch_of(calls))
    return Layout(consts, calls, tuple(Loop(1, (c,)) for c in calls), owner, buffers)


def resolve_views(graph: Graph) -> dict[str, str]:
    """Each tensor's memory owner: views belong to their input, delay lines to their state."""
    owner: dict[str, str] = {}
    for node in graph.nodes:
        if is_view(node):
            owner[node.output] = owner.get(node.inputs[0], node.inputs[0])
        elif node.op.output_is_state:
            owner[node.output] = node.states[0]
    return owner


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
    """Let outputs take the memory of an operand that dies there, in `owner`; the indices of the nodes that do.

    kernels: of every node that may.
    """
    outside, shared = outside_arena(graph, owner), set()
    for index, node in enumerate(graph.nodes):
        allowed = (node.op.inplace or kernels[index].inplace) if index in kernels else ()
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


def make_buffers(
    graph: Graph, owner: Mapping[str, str], scratch: Mapping[str, tuple[int, int]], regions: Sequence[Region] = ()
) -> list[Buffer]:
    """Arena buffers with lifetimes: node outputs that are neither states nor outputs of the graph, and scratch by name
    (bytes, node). The nodes of a region run at the same time."""
    outside, last = outside_arena(graph, owner), last_uses(graph, owner)
    spans = {k: (r.first, r.last) for r in regions for k in range(r.first, r.last + 1)}
    inner = {o for r in regions for n in graph.nodes[r.first : r.last] for o in n.outputs}
    buffers = []
    for index, node in enumerate(graph.nodes):
        for name, t in zip(node.outputs, node.types, strict=True):
            if owner.get(name, name) == name and name not in outside and name not in inner:
                end = last.get(name, index)
                buffers.append(
                    Buffer(name, t.bytes, spans.get(index, (index, index))[0], spans.get(end, (end, end))[1])
                )
    for name, (size, index) in scratch.items():
        buffers.append(Buffer(name, size, index, index))
    return buffers


def scratch_of(calls: Sequence[Call]) -> dict[str, tuple[int, int]]:
    """Bytes of scratch of each call that wants some, and its node."""
    return {c.args[-1]: (c.kernel.scratch, c.index) for c in calls if c.kernel.scratch}
