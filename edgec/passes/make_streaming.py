"""Derive the per-frame step graph, its state and its delay from a whole-sequence graph.

Every op says with its stream rule how it works on one frame: a convolution keeps a delay line, a neuron its membrane,
a mean over time a running mean. Right (non-causal) padding becomes delay; branches of different delay are aligned; a
stride along time becomes a period at which a node runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from edgec.errors import PassError, join_problems, option
from edgec.ir.graph import Const, Graph, Node, State, Value, When, numbered
from edgec.ir.types import DType, TensorType
from edgec.ops.timeline import Delay, DelayLine, with_frames
from edgec.passes.base import Pass


class CannotStream(Exception):
    """An op has no per-frame form; the message is the reason."""


@dataclass
class StepBuilder:
    """Builds the step graph node by node; stream rules of the ops call `delay_line`, `emit` and `const`."""

    types: dict[str, TensorType] = field(default_factory=dict)
    when: dict[str, When] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    consts: dict[str, Const] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    node: Node | None = None

    def type_of(self, name: str) -> TensorType:
        return self.types[name]

    def fresh(self, stem: str) -> str:
        """A name not used in the step graph yet."""
        name = next(n for n in numbered(stem) if n not in self.used)
        self.used.add(name)
        return name

    def const(self, stem: str, data: np.ndarray[Any, Any]) -> str:
        """A new constant."""
        name = self.fresh(stem)
        kind = TensorType(data.shape, DType(data.dtype.name))
        self.consts[name], self.types[name] = Const(data, kind), kind
        return name

    def delay_line(self, x: str, length: int, left: int, right: int = 0, stride: int = 1, fill: float = 0.0) -> str:
        """The last `length` elements of x along time: what a filter padded by left, right sees at its newest position.

        The filter's output j needs x up to element j * stride + length - 1 - left, so it comes that much later than x.
        """
        t, at = self.types[x], self.when[x]
        assert t.time_axis is not None
        new = t.shape[t.time_axis]
        lag, rest = divmod(length - new - left, new)
        if rest or lag < 0:
            raise CannotStream(f"left padding {left} does not fit a span of {length}")
        if right and at.period > 1:
            raise CannotStream("look-ahead (right padding) behind a stride along time")
        first, last = at.first + lag * at.period, at.last + right * at.period
        line: str = self._append(DelayLine(length, t.time_axis, fill), (x,), When(at.first, last, at.period))
        self.when[line] = When(first, last, at.period * stride)
        return line

    def emit(self, op: Any, *inputs: str) -> Any:
        """A node on one frame; operands of different delay are aligned first. One name, or a tuple of outputs."""
        live = [self.when[i] for i in inputs if i in self.when]
        latest = max(live, key=lambda w: w.first, default=When())
        if any(w.period != latest.period for w in live):
            raise CannotStream(f"operands arrive every {sorted({w.period for w in live})} frames")
        if any(w.last - w.first != latest.last - latest.first for w in live):
            raise CannotStream("operands have different numbers of frames")
        aligned = tuple(self._align(i, latest) for i in inputs)
        return self._append(op, aligned, latest)

    def _align(self, name: str, to: When) -> str:
        if name not in self.when or self.when[name].first == to.first:
            return name
        at, t = self.when[name], self.types[name]
        lag, rest = divmod(to.first - at.first, at.period)
        if rest or t.time_axis is None:
            raise CannotStream(f"operands cannot be aligned: one is {to.first - at.first} frames early")
        delayed: str = self._append(Delay(lag, t.time_axis), (name,), When(at.first, to.last, at.period))
        self.when[delayed] = to
        return delayed

    def _append(self, op: Any, inputs: tuple[str, ...], when: When) -> Any:
        assert self.node is not None
        try:
            types = op.infer([self.types[i] for i in inputs])
        except ValueError as err:
            raise CannotStream(str(err)) from err
        own = type(op) is type(self.node.op)
        outputs = self.node.outputs if own else tuple(f"{self.node.outputs[0]}_{op.name}" for _ in types)
        outputs = tuple(self.fresh(o) for o in outputs)
        states = []
        for t, init in op.state_types([self.types[i] for i in inputs]):
            states.append(State(self.fresh(f"{outputs[0]}_state"), t, init))
        self.states += states
        self.nodes.append(Node(op, inputs, outputs, types, self.node.source, tuple(s.name for s in states), when))
        for o, t in zip(outputs, types, strict=True):
            self.types[o], self.when[o] = t, when
        return outputs[0] if len(outputs) == 1 else outputs


def samples_per_frame(graph: Graph) -> int:
    """Elements of the input's time axis that make one frame: the hop of a front end, or 1."""
    hops = {n.op.hop for n in graph.nodes if hasattr(n.op, "hop")}
    if len(hops) > 1:
        raise PassError(f"the front ends of the graph have different hops {sorted(hops)}")
    return hops.pop() if hops else 1


def _stream_node(step: StepBuilder, node: Node, inputs: Sequence[str]) -> tuple[str, ...]:
    step.node = node
    rule = type(node.op).stream
    if rule is None and not node.op.framewise and any(step.types[i].time_axis is not None for i in inputs):
        raise CannotStream("the op has no per-frame form")
    out = step.emit(node.op, *inputs) if rule is None else node.op.stream(step, *inputs)
    return out if isinstance(out, tuple) else (out,)


def restore_names(graph: Graph, names: Mapping[str, str]) -> Graph:
    """The step graph with tensors called what they are called in the whole-sequence graph."""
    taken = {o for n in graph.nodes for o in n.outputs} | set(graph.consts) | {v.name for v in graph.inputs}
    new = {old: name for old, name in names.items() if name not in taken}

    def rename(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(new.get(v, v) for v in values)

    nodes = tuple(replace(n, inputs=rename(n.inputs), outputs=rename(n.outputs)) for n in graph.nodes)
    return replace(graph, nodes=nodes, outputs=rename(graph.outputs))


@dataclass(frozen=True)
class MakeStreaming(Pass):
    """Whole-sequence graph to step graph. What cannot stream is reported, all of it, with the reason."""

    name: ClassVar[str] = "make_streaming"

    def run(self, graph: Graph) -> Graph:
        hop = samples_per_frame(graph)
        step, problems = StepBuilder(), []
        renamed: dict[str, str] = {}
        for v in graph.inputs:
            if v.type.time_axis is None:
                raise PassError(
                    f"input %{v.name} names no time axis, so there is nothing to stream; compile with {option('whole')}"
                )
            step.types[v.name], step.when[v.name] = with_frames(v.type, hop), When()
        step.used |= {v.name for v in graph.inputs} | set(graph.consts)
        step.consts.update(graph.consts)
        step.types.update({n: c.type for n, c in graph.consts.items()})
        for node in graph.nodes:
            inputs = [renamed.get(i, i) for i in node.inputs]
            if any(i not in step.types for i in inputs):
                continue  # follows a node that is already reported
            try:
                outs = _stream_node(step, node, inputs)
            except CannotStream as err:
                where = "; ".join(node.source) or f"%{node.outputs[0]}"
                problems.append(f"{node.op.name} ({where}): {err}")
                continue
            renamed.update(zip(node.outputs, outs, strict=True))
        if problems:
            raise PassError(
                join_problems("these nodes cannot run frame by frame:", problems),
                hint=f"compile the whole window with {option('whole')},"
                f" or slide it over the stream with {option('sliding')}",
            )
        built = self._finish(graph, step, [renamed[o] for o in graph.outputs])
        return restore_names(built, {new: old for old, new in renamed.items()})

    def _finish(self, graph: Graph, step: StepBuilder, outputs: list[str]) -> Graph:
        whens = {step.when[o] for o in outputs}
        if len(whens) > 1:
            raise PassError(f"outputs have different delays {sorted(w.first for w in whens)}")
        (when,) = whens
        inputs = tuple(Value(v.name, step.types[v.name]) for v in graph.inputs)
        built = replace(
            graph,
            inputs=inputs,
            consts=step.consts,
            nodes=tuple(step.nodes),
            outputs=tuple(outputs),
            states=tuple(step.states),
            is_step=True,
            delay=when.first,
            flush_steps=when.last,
        )
        return built.prune_unused()
