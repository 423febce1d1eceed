"""Derive the per-frame step graph, its state and its delay from a whole-sequence graph.

Every op says with its stream rule how it works on one frame: a convolution keeps a delay line, a neuron its membrane,
a mean over time a running mean. Right (non-causal) padding becomes delay; branches of different delay are aligned; a
stride along time becomes a period at which a node runs.

A mean over time is known at the end of the sequence only. Where nothing that still has frames reads it, it is a
readout: at frame t the network's answer for the frames so far. Where frames meet it, the network cannot stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from edgec.errors import PassError, join_problems, option
from edgec.ir.graph import Const, Graph, Node, State, Value, When, numbered
from edgec.ir.types import DType, TensorType
from edgec.ops.base import with_frames
from edgec.ops.relations.axes import is_framewise
from edgec.ops.timeline import Delay, DelayLine
from edgec.passes.base import Pass
from edgec.passes.streaming.make_sliding import can_slide


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
    readouts: dict[str, str] = field(default_factory=dict)  # of what comes behind a mean over time: that mean, in words
    timeless: set[str] = field(default_factory=set)  # what depends on constants alone
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
        if t.time_axis is None:
            raise CannotStream("it keeps a history of what has no frames")
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
        live = [self.when[i] for i in inputs if i in self.when and i not in self.timeless]
        latest = max(live, key=lambda w: w.first, default=When())
        if any(w.period != latest.period for w in live):
            raise CannotStream(f"operands arrive every {sorted({w.period for w in live})} frames")
        if any(w.last - w.first != latest.last - latest.first for w in live):
            raise CannotStream("operands have different numbers of frames")
        aligned = tuple(self.align(i, latest) for i in inputs)
        outputs = self._append(op, aligned, latest)
        if not live:
            self.timeless.update((outputs,) if isinstance(outputs, str) else outputs)
        return outputs

    def align(self, name: str, to: When) -> str:
        """A tensor as late as another; CannotStream where no delay makes it so."""
        if name not in self.when or name in self.timeless or self.when[name].first == to.first:
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


def _stream_node(step: StepBuilder, graph: Graph, node: Node, inputs: Sequence[str]) -> tuple[str, ...]:
    """The node on one frame. Without frames among its operands it runs as it is: a weight's arithmetic, a readout's."""
    step.node = node
    timed = [i for i in inputs if step.types[i].time_axis is not None]
    readouts = [step.readouts[i] for i in inputs if i in step.readouts]
    if timed and readouts:
        raise CannotStream(
            f"frames meet the mean over time of {readouts[0]}: it is that of the whole sequence, and a stream knows"
            " only the frames so far"
        )
    _check_lengths(graph, node)
    rule = type(node.op).stream
    if not timed:
        if node.op.state_types([step.types[i] for i in inputs]):
            raise CannotStream("it keeps a state along an axis that is not the stream's")
        rule = None
    elif rule is None and not is_framewise(node.op, graph.input_types(node)):
        raise CannotStream("the op has no per-frame form")
    frames = max((step.types[i].frames or 1 for i in timed), default=1)
    out = node.op.stream(step, *inputs) if rule else step.emit(_on_frames(node, frames), *inputs)
    outs = out if isinstance(out, tuple) else (out,)
    for name, t in zip(outs, node.types, strict=True):
        _check_frame(step, name, t, frames)
        if step.types[name].time_axis is None and (timed or readouts):
            step.readouts[name] = readouts[0] if readouts else _where(node)
    return outs


def _on_frames(node: Node, frames: int) -> Any:
    """The op of a node for so many frames."""
    t = node.types[0]
    return node.op if t.time_axis is None else node.op.with_shape(with_frames(t, frames).shape)


def _check_lengths(graph: Graph, node: Node) -> None:
    """Operands with frames have the same number of them: broadcasting along time repeats one frame for all."""
    lengths = sorted({t.frames for t in graph.input_types(node) if t.frames is not None})
    if len(lengths) > 1:
        raise CannotStream(f"operands have {' and '.join(map(str, lengths))} frames")


def _check_frame(step: StepBuilder, name: str, whole: TensorType, frames: int) -> None:
    """A step's tensor is a piece of the whole sequence's along time, and of no more frames than what it is made of."""
    t = step.types[name]
    if t.time_axis != whole.time_axis:
        raise CannotStream("the op has no per-frame form")
    wanted = whole if t.frames is None else with_frames(whole, t.frames)
    if t.shape != wanted.shape or (t.frames or 1) > frames:
        raise CannotStream("a constant operand differs from frame to frame, and a stream has no frame number")


def _where(node: Node) -> str:
    return f"%{node.outputs[0]}" + (f" ({'; '.join(node.source)})" if node.source else "")


def restore_names(graph: Graph, names: Mapping[str, str]) -> Graph:
    """The step graph with tensors called what they are called in the whole-sequence graph."""
    taken = {o for n in graph.nodes for o in n.outputs} | set(graph.consts) | {v.name for v in graph.inputs}
    new = {old: name for old, name in names.items() if name not in taken}

    def rename(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(new.get(v, v) for v in values)

    nodes = tuple(replace(n, inputs=rename(n.inputs), outputs=rename(n.outputs)) for n in graph.nodes)
    return replace(graph, nodes=nodes, outputs=rename(graph.outputs))


def _check_inputs(graph: Graph) -> None:
    """Every input has frames, and all equally many; PassError."""
    for v in graph.inputs:
        if v.type.time_axis is None:
            raise PassError(
                f"input %{v.name} names no time axis, so there is nothing to stream; compile with {option('whole')}"
            )
    lengths = {v.name: v.type.frames for v in graph.inputs}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"%{name} {n}" for name, n in lengths.items())
        raise PassError(
            f"a step takes a frame of every input, but they have different numbers of frames: {found}",
            hint=f"give them one length along time, or compile the whole window with {option('whole')}",
        )


def describe(when: When) -> str:
    """The frames at which a tensor comes, in words."""
    every = "every frame" if when.period == 1 else f"every {when.period} frames"
    return f"{every} from frame {when.first} on"


def mean_readouts(step: Graph) -> list[Node]:
    """The nodes of a step graph that hold a mean of the frames so far."""
    return [n for n in step.nodes if n.op.is_readout]


@dataclass(frozen=True)
class MakeStreaming(Pass):
    """Whole-sequence graph to step graph. What cannot stream is reported, all of it, with the reason."""

    name: ClassVar[str] = "make_streaming"

    def run(self, graph: Graph) -> Graph:
        hop = samples_per_frame(graph)
        _check_inputs(graph)
        step, problems = StepBuilder(), []
        renamed: dict[str, str] = {}
        for v in graph.inputs:
            step.types[v.name], step.when[v.name] = with_frames(v.type, hop), When()
        step.used |= {v.name for v in graph.inputs} | set(graph.consts)
        step.consts.update(graph.consts)
        step.types.update({n: c.type for n, c in graph.consts.items()})
        for node in graph.nodes:
            inputs = [renamed.get(i, i) for i in node.inputs]
            if any(i not in step.types for i in inputs):
                continue  # follows a node that is already reported
            try:
                outs = _stream_node(step, graph, node, inputs)
            except CannotStream as err:
                where = "; ".join(node.source) or f"%{node.outputs[0]}"
                problems.append(f"{node.op.name} ({where}): {err}")
                continue
            renamed.update(zip(node.outputs, outs, strict=True))
        if problems:
            raise PassError(
                join_problems("these nodes cannot run frame by frame:", problems),
                hint=f"compile the whole window with {option('whole')}"
                + (f", or slide it over the stream with {option('sliding')}" if can_slide(graph) else "")
                + ("; edgec.nn.RunningMean makes it a mean of the frames so far" if step.readouts else ""),
            )
        built = self._finish(graph, step, [renamed.get(o, o) for o in graph.outputs])
        return restore_names(built, {new: old for old, new in renamed.items()})

    def _together(self, graph: Graph, step: StepBuilder, outputs: list[str]) -> list[str]:
        """The outputs, the early ones delayed to come with the latest; as they are where that cannot be."""
        moving = [o for o in outputs if o not in step.timeless]
        latest = max((step.when[o] for o in moving), key=lambda w: w.first, default=When())
        for o in moving:
            at, lag = step.when[o], latest.first - step.when[o].first
            if (at.period, at.last - at.first) != (latest.period, latest.last - latest.first) or lag % at.period:
                return outputs
        aligned = []
        for name, o in zip(graph.outputs, outputs, strict=True):
            step.node = graph.producer(name) or Node(None, (), (name,), ())
            aligned.append(step.align(o, latest))
        return aligned

    def _finish(self, graph: Graph, step: StepBuilder, outputs: list[str]) -> Graph:
        fixed = [o for o in outputs if o not in step.when]
        if fixed:
            raise PassError(f"output %{fixed[0]} does not depend on the input", hint="leave it out")
        outputs = self._together(graph, step, outputs)
        whens = {step.when[o] for o in outputs if o not in step.timeless} or {When()}
        if len(whens) > 1:
            listed = ", ".join(f"%{o} {describe(step.when[o])}" for o in outputs)
            raise PassError(
                f"a step gives all outputs at once, but they come at different frames: {listed}",
                hint=f"compile them one by one ({option('output')}), or the whole window with {option('whole')}",
            )
        (when,) = whens
        # what depends on constants alone is always there, but as a result it comes with the others
        always = replace(when, first=0, period=1)
        timeless = {o: when if o in outputs else always for o in step.timeless}
        step.nodes = [replace(n, when=timeless.get(n.outputs[0], n.when)) for n in step.nodes]
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
