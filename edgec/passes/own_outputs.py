"""Give every result memory of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from edgec.ir.graph import Graph, Node, When
from edgec.ops.shape import Copy
from edgec.passes.base import Pass


@dataclass(frozen=True)
class OwnOutputs(Pass):
    """Results that would share memory are copied: a tensor returned twice, or as itself and in another shape; an input,
    a constant, or a state that is returned."""

    name: ClassVar[str] = "own_outputs"

    def run(self, graph: Graph) -> Graph:
        owned: set[str] = set()
        outputs, copies, taken = [], list[Node](), set[str]()
        for name in graph.outputs:
            memory = memory_of(graph, name)
            if memory is not None and memory not in owned:
                owned.add(memory)
                outputs.append(name)
                continue
            own = next(n for n in graph.fresh(f"{name}_out") if n not in taken)
            taken.add(own)
            outputs.append(own)
            copies.append(Node(Copy(), (name,), (own,), (graph.type_of(name),), when=when_of(graph, name)))
        return replace(graph, nodes=(*graph.nodes, *copies), outputs=tuple(outputs)) if copies else graph


def memory_of(graph: Graph, name: str) -> str | None:
    """The tensor whose memory a result has; None where that is no result's: an input, a constant or a state."""
    node = graph.producer(name)
    while node is not None and node.op.is_view:
        name = node.inputs[0]
        node = graph.producer(name)
    return None if node is None or node.op.output_is_state else name


def when_of(graph: Graph, name: str) -> When:
    """When a result is there to be copied; what depends on no input is copied with the other results."""
    whens = [n.when for n in map(graph.producer, (name, *graph.outputs)) if n is not None]
    return whens[0] if whens else When()
