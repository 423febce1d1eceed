"""Fold a network that a Python loop unrolled over time back into one network over a sequence.

The exported program holds T copies of one frame's computation, joined only through neurons. Each node is given the
frame it belongs to and a class: what it computes, the frame left out. Nodes of one class in every frame are one node
of the sequence. What mixes frames in any other way is refused by name. A class may be missing in some frames: whatever
reads it (a neuron, a stack of frames, an output) checks for itself that it gets the same class in every frame it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from edgec.frontends.pytorch.call import needed_by

#: Calls that hand their operand on unchanged.
SAME = frozenset({"aten::detach", "aten::alias", "aten::clone", "aten::contiguous", "aten::lift_fresh_copy"})
ZEROS = frozenset({"aten::zeros", "aten::zeros_like", "aten::new_zeros"})
NEURON, NEURON_SEQUENCE, GETITEM = "edgec_trace::neuron", "edgec_trace::neuron_sequence", "_operator::getitem"


class Mixed(Exception):
    """A node cannot be folded; the message is the reason."""


@dataclass(frozen=True)
class Role:
    """frame: the frame a node belongs to, None for what is the same in all of them. kind: the number of its class.

    piece: the sequence a frame is cut out of. joined: a frame whose class the node puts together as a sequence.
    summed: a frame whose class the node adds up from the first frame to its own.
    """

    frame: int | None
    kind: int
    piece: fx.Node | None = None
    joined: fx.Node | None = None
    summed: fx.Node | None = None


@dataclass
class Chain:
    """One neuron over the frames: its calls in order."""

    path: str
    calls: list[fx.Node] = field(default_factory=list)


def name_of_target(node: fx.Node) -> str:
    """`aten::conv1d` for torch.ops.aten.conv1d.default."""
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name)
    return f"{getattr(target, '__module__', '')}::{getattr(target, '__name__', target)}"


def through(node: Any) -> Any:
    """The node behind calls that change nothing."""
    while isinstance(node, fx.Node) and node.op == "call_function" and name_of_target(node) in SAME:
        node = node.args[0]
    return node


class Frames:
    """Roles of the nodes of an exported program, asked for in order.

    time_of: the time axis of a node that is a whole sequence. is_zero: whether a node is a constant of zeros.
    """

    def __init__(
        self, graph: fx.Graph, count: int, time_of: Callable[[fx.Node], int | None], is_zero: Callable[[fx.Node], bool]
    ) -> None:
        self.count = count
        self.time_of = time_of
        self.is_zero_constant = is_zero
        self.live = needed_by([n for n in graph.nodes if n.op == "output"])
        self.roles: dict[fx.Node, Role] = {}
        self.chains: dict[fx.Node, Chain] = {}
        self.numbers: dict[Any, int] = {}

    def number(self, *key: Any) -> int:
        """The class of whatever has this key."""
        return self.numbers.setdefault(key, len(self.numbers))

    def assign(self, node: fx.Node) -> Role:
        """The role of the next node; Mixed when it cannot have one."""
        if node.op != "call_function":
            self.roles[node] = Role(None, self.number("given", node))
            return self.roles[node]
        try:
            self.roles[node] = self.role(node)
        except Mixed:
            self.roles[node] = Role(None, self.number("given", node))
            raise
        return self.roles[node]

    def role(self, node: fx.Node) -> Role:
        target = name_of_target(node)
        if target == NEURON:
            return self.neuron_role(node)
        piece = self.piece_of_sequence(node, target)
        if piece is not None:
            return piece
        frames = {f for f in (self.roles[n].frame for n in node.all_input_nodes) if f is not None}
        if len(frames) > 1:
            return self.sum_of_frames(node, target) or self.join(node, target, frames)
        args = fx.node.map_arg((node.args, node.kwargs), lambda n: ClassOf(self.roles[n].kind))  # type: ignore[arg-type,return-value]
        return Role(frames.pop() if frames else None, self.number(str(node.target), freeze(args)))

    def piece_of_sequence(self, node: fx.Node, target: str) -> Role | None:
        """A frame cut out of a sequence: x[t], x[:, t], an element of unbind or split."""
        base = node.args[0] if node.args else None
        if not isinstance(base, fx.Node):
            return None
        if target == GETITEM:
            return self.piece_of_unbind(node, base)
        if target not in ("aten::select", "aten::slice"):
            return None
        source = through(base)
        axis, shape = self.time_of(source), base.meta["val"].shape
        args: list[Any] = [*node.args[1:], None, None, None, None][:4]
        if axis is None or int(args[0] or 0) % len(shape) != axis:
            return None
        if target == "aten::select":
            start = int(args[1]) % shape[axis]
        else:
            start, stop, _ = slice(args[1], args[2]).indices(shape[axis])
            if stop - start != 1:
                return None
        return self.piece(node, source, start)

    def piece_of_unbind(self, node: fx.Node, base: fx.Node) -> Role | None:
        """An element of unbind, or of split or chunk into single frames."""
        if not self.cuts_all(base):
            return None
        return self.piece(node, through(base.args[0]), int(node.args[1]))  # type: ignore[arg-type]

    def cuts_all(self, node: fx.Node) -> bool:
        """Whether a call cuts a sequence into all its frames at once."""
        kind = name_of_target(node) if node.op == "call_function" else ""
        if kind not in ("aten::unbind", "aten::split", "aten::chunk") or len(node.meta["val"]) != self.count:
            return False
        source, position = through(node.args[0]), 1 if kind == "aten::unbind" else 2
        axis = self.time_of(source)
        dim: Any = node.args[position] if len(node.args) > position else node.kwargs.get("dim", 0)
        return axis is not None and dim % len(source.meta["val"].shape) == axis

    def piece(self, node: fx.Node, source: fx.Node, frame: int) -> Role:
        return Role(frame, self.number("piece", source, tuple(node.meta["val"].shape)), piece=source)

    def neuron_role(self, node: fx.Node) -> Role:
        """The call continues the neuron whose states it is given, or starts one."""
        x, states, path = node.args[0], node.args[1], str(node.args[2])
        assert isinstance(x, fx.Node)
        assert isinstance(states, list | tuple)
        frame = self.roles[x].frame
        if frame is None:
            raise Mixed(
                f"the input of {path} is the same in every frame; pass it as a sequence and read one frame per step"
            )
        before = {self.state_origin(s, k, len(states), path) for k, s in enumerate(states)}
        if len(before) > 1:
            raise Mixed(f"the states of {path} come from different calls")
        start = before.pop() if before else None
        chain = self.chains[start] if start is not None else Chain(path)
        if start is not None and (chain.calls[-1] is not start or chain.path != path):
            raise Mixed(f"the state of {path} is used twice, or is another neuron's")
        if frame != len(chain.calls):
            raise Mixed(
                f"call {len(chain.calls)} of {path} works on frame {frame}: a neuron sees every frame once, in order"
            )
        first = chain.calls[0].args[0] if chain.calls else x
        if self.roles[x].kind != self.roles[first].kind:  # type: ignore[index]
            raise Mixed(f"the input of {path} is computed in another way than in the first frame")
        chain.calls.append(node)
        self.chains[node] = chain
        return Role(frame, self.number("neuron", chain.calls[0]))

    def state_origin(self, state: Any, position: int, count: int, path: str) -> fx.Node | None:
        """The call a state comes from; None for a state of zeros."""
        node = through(state)
        if self.is_zero(node):
            return None
        if isinstance(node, fx.Node) and name_of_target(node) == GETITEM and node.args[0] in self.chains:
            call = node.args[0]
            assert isinstance(call, fx.Node)
            expected = position if count == len(call.meta["val"]) else position + 1
            if node.args[1] == expected:
                return call
        raise Mixed(f"the state of {path} is changed between frames, or does not start at zero")

    def is_zero(self, node: Any) -> bool:
        node = through(node)
        if not isinstance(node, fx.Node):
            return isinstance(node, int | float) and node == 0
        if node.op != "call_function":
            return self.is_zero_constant(node)
        target = name_of_target(node)
        return target in ZEROS or (target in ("aten::full", "aten::full_like") and bool(node.args[1] == 0))

    def sum_of_frames(self, node: fx.Node, target: str) -> Role | None:
        """total = total + value in every frame, read after the last one only."""
        if target != "aten::add" or len(node.args) != 2 or node.kwargs:
            return None
        pair = sorted((n for n in node.args if isinstance(n, fx.Node)), key=lambda n: self.roles[n].frame or 0)
        if len(pair) != 2:
            return None
        (total, value), now = pair, self.roles[pair[1]].frame
        before, kind = self.roles[total], self.number("sum", self.roles[pair[1]].kind)
        if now is None or before.frame != now - 1:
            return None
        starts = before.frame == 0 and self.first_of_sum(total) == self.roles[value].kind
        if not (before.kind == kind or starts) or (set(total.users) & self.live) - {node}:
            return None
        return Role(now, kind, summed=value)

    def first_of_sum(self, node: fx.Node) -> int:
        """The class of the first summand: the node itself, or what it adds to zero."""
        if name_of_target(node) == "aten::add" and len(node.args) == 2:
            operands = [a for a in node.args if not self.is_zero(a)]
            if len(operands) == 1 and isinstance(operands[0], fx.Node):
                return self.roles[operands[0]].kind
        return self.roles[node].kind

    def join(self, node: fx.Node, target: str, frames: set[int]) -> Role:
        """stack or cat of all frames of one class, in order."""
        parts = node.args[0]
        if target in ("aten::stack", "aten::cat") and isinstance(parts, list | tuple):
            roles = [self.roles[p] for p in parts if isinstance(p, fx.Node)]
            in_order = [r.frame for r in roles] == list(range(self.count))
            if in_order and all(r.kind == roles[0].kind for r in roles) and isinstance(parts[0], fx.Node):
                return Role(None, self.number("joined", node), joined=parts[0])
            raise Mixed("it joins frames that are not all the frames, once each and in order")
        raise Mixed(
            f"it mixes frames {min(frames)} and {max(frames)}; only neurons may carry state from frame to frame"
        )


@dataclass(frozen=True)
class ClassOf:
    """An operand in a class: the number of its own class."""

    kind: int


def freeze(value: Any) -> Any:
    """A hashable form of call arguments."""
    if isinstance(value, dict):
        return tuple(sorted((k, freeze(v)) for k, v in value.items()))
    if isinstance(value, list | tuple):
        return tuple(freeze(v) for v in value)
    return value
