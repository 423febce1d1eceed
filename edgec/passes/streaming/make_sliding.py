"""Stream a network that mixes its whole window: keep the last frames, run it on them whenever new ones come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from edgec.errors import PassError
from edgec.ir.graph import Graph, Node, State, Value, When, numbered
from edgec.ops.base import with_frames
from edgec.ops.timeline import DelayLine, Window
from edgec.passes.base import Pass


@dataclass(frozen=True)
class MakeSliding(Pass):
    """Whole-window graph to step graph: each input becomes a delay line as long as the window.

    A step takes `hop` new frames along `axis` and evaluates the graph on the last L; nothing comes out before L frames
    came, and there is nothing to flush. What comes out is what the whole-window graph gives for that window.
    """

    name: ClassVar[str] = "make_sliding"
    axis: int = 1
    hop: int = 1

    def run(self, graph: Graph) -> Graph:
        length = self.window(graph)
        first = -(-length // self.hop) - 1
        taken = {v.name for v in graph.inputs} | set(graph.consts) | {o for n in graph.nodes for o in n.outputs}
        inputs, nodes, states, windows = [], [], [], {}
        for v in graph.inputs:
            frames = with_frames(replace(v.type, time_axis=self.axis), self.hop)
            line, op = free(f"{v.name}_line", taken), DelayLine(length, self.axis)
            windows[v.name] = free(f"{v.name}_window", taken)
            kept, ((memory, init),) = op.infer([frames]), op.state_types([frames])
            inputs.append(Value(v.name, frames))
            states.append(State(free(f"{line}_state", taken), memory, init))
            nodes.append(Node(op, (v.name,), (line,), kept, (), (states[-1].name,)))
            nodes.append(Node(Window(), (line,), (windows[v.name],), Window().infer(kept), (), (), When(first)))
        for node in graph.nodes:
            operands = tuple(windows.get(i, i) for i in node.inputs)
            nodes.append(replace(node, inputs=operands, when=When(first)))
        step = replace(graph, inputs=tuple(inputs), nodes=tuple(nodes), states=tuple(states), is_step=True, delay=first)
        return step.prune_unused()

    def window(self, graph: Graph) -> int:
        """The number of frames the graph looks at; PassError where it cannot slide."""
        assert not graph.is_step
        lengths = set()
        for v in graph.inputs:
            shape = v.type.shape
            if not 0 <= self.axis < len(shape) or prod(shape[: self.axis]) != 1:
                raise PassError(
                    f"input %{v.name} of shape {shape} cannot slide along axis {self.axis}",
                    hint="name its time axis; the axes before it must have extent 1, as in [1, time, channels]",
                )
            lengths.add(shape[self.axis])
        if len(lengths) != 1:
            raise PassError(f"the inputs have windows of different lengths {sorted(lengths)}")
        length = lengths.pop()
        if not 1 <= self.hop <= length:
            raise PassError(f"expected a hop of 1 to {length} frames, the length of the window, found {self.hop}")
        moved = {v.name for v in graph.inputs}
        for node in graph.nodes:
            if node.op.is_view and node.inputs[0] in moved:
                moved.update(node.outputs)
        if moved.intersection(graph.outputs):
            raise PassError("the network returns its window as it is, so there is nothing to slide")
        return length


def slides(graph: Graph) -> bool:
    """Whether a step graph runs a whole window: something reads a delay line as one that has no frames."""
    return any(
        n.op.is_view and n.types[0].time_axis is None and graph.type_of(n.inputs[0]).time_axis is not None
        for n in graph.nodes
    )


def can_slide(graph: Graph) -> bool:
    """Whether a network that was imported with a time axis could slide over it instead: it would be imported without
    one, which a log-mel front end, for one, does not take."""
    axes = [(v.type.time_axis, v.type.shape) for v in graph.inputs]
    if any(not axis or prod(shape[:axis]) != 1 for axis, shape in axes):
        return False
    types = {name: replace(const.type, time_axis=None) for name, const in graph.consts.items()}
    types |= {v.name: replace(v.type, time_axis=None) for v in graph.inputs}
    try:
        for node in graph.nodes:
            types |= zip(node.outputs, node.op.infer([types[i] for i in node.inputs]), strict=True)
    except ValueError:
        return False
    return True


def free(stem: str, taken: set[str]) -> str:
    """A name nothing has yet, now taken."""
    name = next(n for n in numbered(stem) if n not in taken)
    taken.add(name)
    return name
