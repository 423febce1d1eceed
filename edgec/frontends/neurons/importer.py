"""Modules with neurons of snnTorch or spikingjelly, their time loop folded back into sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from math import prod
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.export import ExportedProgram

from edgec.errors import FrontendError
from edgec.frontends.neurons.specs import NeuronSpec, Unsupported, read_neuron
from edgec.frontends.neurons.trace import find_neurons, traced
from edgec.frontends.neurons.unroll import NEURON, NEURON_SEQUENCE, Frames, Mixed, Role, name_of_target
from edgec.frontends.pytorch.call import Call, Constant, call_of
from edgec.frontends.pytorch.importer import GUESS, Failed, Importer, TimeAxis, check_ready, export, without_mutation
from edgec.frontends.pytorch.source import source_of
from edgec.ir.graph import Graph, Node
from edgec.ops.arithmetic import Mul
from edgec.ops.neurons.lif import Lif
from edgec.ops.neurons.snntorch import SequenceNeuron
from edgec.ops.timeline import RunningMean

STEP_FRAMES = 3
PREFIX = "step."  # of everything inside Loop


def has_neurons(module: nn.Module) -> bool:
    """Whether a module contains neurons of a library edgec knows, supported or not."""
    for path, child in module.named_modules():
        try:
            if read_neuron(child, path) is not None:
                return True
        except Unsupported:
            return True
    return False


def from_neuron_module(
    module: nn.Module, example_inputs: Sequence[torch.Tensor], name: str, time_axis: TimeAxis = GUESS
) -> Graph:
    """Import a module whose forward runs foreign neurons over time.

    An output of the last frame becomes one of every frame.
    """
    specs = find_neurons(module, name)
    with traced(module, specs):
        check_ready(module, name)
        ep = without_mutation(export(module, tuple(example_inputs), name))
    return NeuronImporter(ep, name, {s.path: s for s in specs.values()}).run(time_axis)


class Loop(nn.Module):
    """Calls a module that takes one frame, frame after frame. carry: which output is which input of the next frame."""

    def __init__(self, step: nn.Module, carry: dict[int, int]) -> None:
        super().__init__()
        self.step = step
        self.carry = carry

    def forward(self, *inputs: torch.Tensor) -> Any:
        carried = {k: torch.zeros_like(x) for k, x in enumerate(inputs) if k in self.carry}
        frames = []
        for t in range(STEP_FRAMES):
            result = self.step(*[carried[k] if k in carried else x[t] for k, x in enumerate(inputs)])
            results = result if isinstance(result, tuple | list) else (result,)
            carried = {k: results[self.carry[k]] for k in carried}
            frames.append([r for k, r in enumerate(results) if k not in self.carry.values()])
        return tuple(torch.stack(signal) for signal in zip(*frames, strict=True))


def from_step_module(
    module: nn.Module, example_frame: Sequence[torch.Tensor], name: str = "model", carry: dict[int, int] | None = None
) -> Graph:
    """Import a module that takes one frame [1,...] per call. The graph's inputs are sequences [T,1,...].

    carry: for states passed through forward, input number -> number of the output that is its next value.
    """
    carry = carry or {}
    inputs = [x if k in carry else x.unsqueeze(0).expand(STEP_FRAMES, *x.shape) for k, x in enumerate(example_frame)]
    loop = Loop(module, carry).train(module.training)
    specs = find_neurons(loop, name, PREFIX)
    if not specs:
        raise FrontendError(
            f"{name}: the module has no neurons, so a frame has no state; import it with edgec.load(module, inputs)"
        )
    with traced(loop, specs):
        check_ready(loop, name)
        ep = without_mutation(export(loop, tuple(inputs), name))
    axes = [None if k in carry else 0 for k in range(len(inputs))]
    graph = NeuronImporter(
        ep,
        name,
        {s.path: s for s in specs.values()},
        prefix=PREFIX,
        input_names=tuple(signature(module.forward).parameters),
    ).run(axes)
    return without_carried(graph, name)


def without_carried(graph: Graph, name: str) -> Graph:
    """The graph without the inputs that were states; they all start at zero now."""
    read = {i for n in graph.nodes for i in n.inputs}
    carried = [v.name for v in graph.inputs if v.type.time_axis is None]
    if read.intersection(carried):
        raise FrontendError(
            f"{name}: the state {', '.join(read.intersection(carried))} is used by more than its neuron"
        )
    return replace(graph, inputs=tuple(v for v in graph.inputs if v.name not in carried))


class NeuronImporter(Importer):
    """An importer that gives every node its role among the frames, and imports each class of nodes once.

    A frame's tensor [1,...] stands in the graph as all frames, [T,...] with time on axis 0.
    """

    def __init__(
        self,
        ep: ExportedProgram,
        name: str,
        specs: dict[str, NeuronSpec],
        prefix: str = "",
        input_names: tuple[str, ...] = (),
    ) -> None:
        super().__init__(ep, name, prefix)
        self.input_names = input_names
        self.specs = specs
        self.done: dict[int, Any] = {}
        self.frames: Frames

    def input_name(self, node: fx.Node) -> str:
        names = dict(zip(self.user_inputs(), self.input_names, strict=False))
        return names.get(node, node.name)

    def guess_time(self, calls: set[str]) -> Any:
        """The axis frames are read along: the one each sequence input is indexed along from end to end."""
        if NEURON_SEQUENCE in calls:
            return 0
        axes = [self.indexed_axis(node) for node in self.user_inputs()]
        if all(a is None for a in axes):
            raise FrontendError(
                f"{self.name}: no input is read frame by frame, so the neurons have no time axis",
                hint="for a module of one frame per call use edgec.load(module, frame, step=True); else pass time_axis",
            )
        return axes

    def indexed_axis(self, node: fx.Node) -> int | None:
        shape = node.meta["val"].shape
        seen: dict[int, set[int]] = {}
        for user in node.users:
            kind = name_of_target(user) if user.op == "call_function" else ""
            if kind == "aten::unbind":
                return int(user.args[1]) if len(user.args) > 1 else 0  # type: ignore[arg-type]
            if kind in ("aten::select", "aten::slice"):
                dim = int(user.args[1]) % len(shape) if len(user.args) > 1 else 0  # type: ignore[arg-type]
                at: Any = user.args[2] if len(user.args) > 2 else 0
                seen.setdefault(dim, set()).add(int(at or 0) % shape[dim])
        whole = [d for d, indices in seen.items() if indices == set(range(shape[d]))]
        return whole[0] if whole else None

    def run(self, time_axis: TimeAxis) -> Graph:
        axes = self.time_axes(time_axis)
        counts = {int(n.meta["val"].shape[a]) for n, a in axes.items() if a is not None}
        if len(counts) != 1:
            raise FrontendError(f"{self.name}: expected inputs with one number of frames, found {sorted(counts)}")
        if counts == {1}:
            raise FrontendError(
                f"{self.name}: the example has one frame, too few to tell time steps apart",
                hint="pass at least two frames, or a module of one frame per call with step=True",
            )
        self.axes = axes
        self.frames = Frames(self.ep.graph, counts.pop(), self.time_of, self.is_zero)
        return drop_unread_signals(super().run(axes))

    def is_known(self, target: str) -> bool:
        return target in (NEURON, NEURON_SEQUENCE) or super().is_known(target)

    def unknown(self, calls: Sequence[fx.Node]) -> list[tuple[str, str]]:
        """One of each that stands in every frame."""
        found = super().unknown(calls)
        return [pair for pair in dict.fromkeys(found) for _ in range(max(found.count(pair) // self.frames.count, 1))]

    def time_of(self, node: fx.Node) -> int | None:
        value = self.env.get(node)
        return self.builder.type_of(value).time_axis if isinstance(value, str) and node not in self.lifted() else None

    def lifted(self) -> set[fx.Node]:
        return {n for n, role in self.frames.roles.items() if role.frame is not None}

    def is_zero(self, node: fx.Node) -> bool:
        value = self.env.get(node)
        if isinstance(value, Constant):
            return not bool(value.value.any())
        return node in self.axes and self.axes[node] is None  # a state that is carried from call to call

    def convert(self, node: fx.Node) -> Any:
        for n in node.all_input_nodes:
            if n not in self.frames.roles:
                self.frames.assign(n)
        try:
            role = self.frames.assign(node)
            if role.frame is None:
                return self.join(node, role.joined) if role.joined is not None else self.convert_whole(node)
            if role.kind not in self.done:
                self.builder.source = source_of(node.meta, node.name, self.prefix)
                self.done[role.kind] = self.convert_frame(node, role)
            return self.done[role.kind]
        except (Mixed, ValueError, IndexError) as err:
            if not any(isinstance(self.env.get(n), Failed) for n in node.all_input_nodes):
                self.problems.append(
                    f"{name_of_target(node)} at {source_of(node.meta, node.name, self.prefix)[0]}: {err}"
                )
            return Failed()

    def convert_whole(self, node: fx.Node) -> Any:
        if name_of_target(node) == NEURON_SEQUENCE:
            return self.neuron_sequence(node)
        if self.frames.cuts_all(node):
            return None  # each frame is read off the sequence itself
        return super().convert(node)

    def convert_frame(self, node: fx.Node, role: Role) -> Any:
        """All frames of a class at once."""
        operands = [self.env.get(n) for n in node.all_input_nodes]
        if any(isinstance(v, Failed) for v in operands):
            return Failed()
        if role.piece is not None:
            return self.lift(self.env[role.piece], tuple(node.meta["val"].shape), node)
        if role.summed is not None:
            return self.sum(self.env[role.summed], node)
        if name_of_target(node) == NEURON:
            return self.neuron(self.env[node.args[0]], self.specs[str(node.args[2])], node)  # type: ignore[index]
        value = super().convert(node)
        self.check_lifted(node, value)
        return value

    def call(self, node: fx.Node, target: str) -> Call:
        role = self.frames.roles.get(node)
        lifted = role is not None and role.frame is not None
        return replace(super().call(node, target), frames=self.frames.count if lifted else None)

    def check_lifted(self, node: fx.Node, value: Any) -> None:
        """The frames must still lie along axis 0, in the place of the batch."""
        shapes = node.meta["val"] if isinstance(node.meta["val"], list | tuple) else [node.meta["val"]]
        for result, fake in zip(value if isinstance(value, tuple) else (value,), shapes, strict=False):
            if not isinstance(result, str):
                continue
            t, expected = self.builder.type_of(result), (self.frames.count, *fake.shape[1:])
            if t.shape != expected or t.time_axis != 0:
                raise ValueError("inside the time loop the first axis must stay the batch axis of 1")

    def lift(self, name: Any, frame_shape: tuple[int, ...], node: fx.Node) -> Any:
        """A sequence with any time axis as frames along axis 0."""
        if not isinstance(name, str):
            return name
        if not frame_shape or frame_shape[0] != 1:
            raise ValueError(f"a frame has shape {frame_shape}; expected a batch axis of 1 in front")
        call = call_of(self.builder, node, "frames", self.prefix)
        axis = self.builder.type_of(name).time_axis
        rank = len(self.builder.type_of(name).shape)
        assert axis is not None
        y = call.permute(name, (axis, *(k for k in range(rank) if k != axis)))
        return call.reshape(y, (self.frames.count, *frame_shape[1:]))

    def join(self, node: fx.Node, part: fx.Node) -> Any:
        """stack or cat of all frames: the time axis goes where the call puts it."""
        name, count = self.env[part], self.frames.count
        if not isinstance(name, str):
            return name
        self.builder.source = source_of(node.meta, node.name, self.prefix)
        call = call_of(self.builder, node, name_of_target(node), self.prefix)
        target = call.result_shape
        dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        axis = dim % len(target)
        others = tuple(n for k, n in enumerate(target) if k != axis)
        if prod(others) * count != prod(target):
            raise ValueError("frames are joined along an axis that is not 1")
        y = call.reshape(name, (count, *others))
        return call.permute(y, (*range(1, axis + 1), 0, *range(axis + 1, len(target))))

    def sum(self, name: Any, node: fx.Node) -> Any:
        """A sum over the frames: that of the frames so far."""
        call = call_of(self.builder, node, "sum", self.prefix)
        t = self.builder.type_of(name)
        flat = call.reshape(name, (t.shape[0], prod(t.shape[1:])))
        mean = call.emit(RunningMean(0, self.frames.count), flat)
        total = call.emit(Mul(), mean, call.const(f"{call.name}_frames", np.array([self.frames.count])))
        return call.reshape(total, t.shape)

    def neuron(self, x: str, spec: NeuronSpec, node: fx.Node) -> tuple[str, ...]:
        """All results of a neuron on frames [T,...]: its channels are all elements of a frame, channels last."""
        call = call_of(self.builder, node, "lif", self.prefix)
        shape = self.builder.type_of(x).shape
        order = (0, *range(2, len(shape)), 1) if len(shape) > 2 else tuple(range(len(shape)))
        back = tuple(int(k) for k in np.argsort(order))
        moved = call.permute(x, order)
        flat = call.reshape(moved, (shape[0], prod(shape[1:])))
        for gain in spec.gains:
            flat = call.emit(Mul(), flat, call.const(f"{spec.path}.gain", np.array([gain])))
        params = [per_channel(call, spec, label, data, shape, order) for label, data in spec.params]
        params += [call.const(f"{spec.path}.{label}", data) for label, data in spec.weights]
        outs = self.builder.emit_all(with_all_signals(spec), flat, *params, name=call.name)
        moved_shape = self.builder.type_of(moved).shape
        return tuple(call.permute(call.reshape(o, moved_shape), back) for o in outs)

    def neuron_sequence(self, node: fx.Node) -> Any:
        """A multi-step neuron on [T,1,...]."""
        x: Any = self.env[node.args[0]]  # type: ignore[index]
        if isinstance(x, Failed):
            return x
        t = self.builder.type_of(x)
        if t.time_axis != 0 or t.shape[1] != 1:
            raise ValueError(
                f"a multi-step neuron takes [T,1,...] with time on axis 0, found {t.shape} with time axis {t.time_axis}"
            )
        self.builder.source = source_of(node.meta, node.name, self.prefix)
        call = call_of(self.builder, node, "lif", self.prefix)
        frames = call.reshape(x, (t.shape[0], *t.shape[2:]))
        outs = self.neuron(frames, self.specs[str(node.args[1])], node)
        return tuple(call.reshape(o, t.shape) for o in outs)

    def check_output(self, node: Any) -> str | None:
        role = self.frames.roles.get(node)
        if role is not None and role.frame is not None and role.frame != self.frames.count - 1:
            return f"an output is frame {role.frame} of {self.frames.count}; return the last one or a stack of all"
        return None


def per_channel(
    call: Call, spec: NeuronSpec, label: str, data: Any, shape: tuple[int, ...], order: tuple[int, ...]
) -> str:
    """A parameter of a neuron as one value, or as one per element of a frame in the order of the flattened frame."""
    if data.size == 1:
        return call.const(f"{spec.path}.{label}", data.reshape(1))
    try:
        whole = np.broadcast_to(data, (1, *shape[1:]))
    except ValueError as err:
        raise ValueError(f"{label} of {spec.path} has shape {data.shape}, a frame {shape[1:]}") from err
    return call.const(f"{spec.path}.{label}", whole.transpose(order).reshape(-1))


def with_all_signals(spec: NeuronSpec) -> Any:
    """The op of a neuron giving every result its module returns, in that order."""
    return replace(spec.op, membrane=True) if isinstance(spec.op, Lif) else replace(spec.op, outputs=spec.signals)


def drop_unread_signals(graph: Graph) -> Graph:
    """Neurons without the results nothing reads; spikes always stay."""
    read = {i for n in graph.nodes for i in n.inputs} | set(graph.outputs)
    nodes = []
    for node in graph.nodes:
        kept = [k for k, o in enumerate(node.outputs) if k == 0 or o in read]
        if len(kept) < len(node.outputs) and isinstance(node.op, Lif | SequenceNeuron):
            op: Any = node.op
            op = (
                replace(op, membrane=False)
                if isinstance(op, Lif)
                else replace(op, outputs=tuple(op.outputs[k] for k in kept))
            )
            node = Node(
                op, node.inputs, tuple(node.outputs[k] for k in kept), tuple(node.types[k] for k in kept), node.source
            )
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))
