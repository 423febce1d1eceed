"""Calls of kernels, and the program they make: which kernel runs on which memory, in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgec.ir.graph import Graph, Node, numbered
from edgec.ir.types import TensorType
from edgec.ops.base import Kernel, Site

Consts = dict[str, np.ndarray[Any, Any]]
Select = Callable[[Any, Site], tuple[str, Kernel]]


@dataclass(frozen=True)
class Offset:
    """Bytes from the start of a tensor's memory: `start`, and `step` more in each turn of a loop."""

    start: int
    step: int = 0


@dataclass(frozen=True)
class Call:
    """One node with its kernel. `args` are tensor, constant and state names in the order of the kernel's parameters;
    `in_place` says that the output overwrites an operand. A call for a part of its node (`part` numbers them) finds its
    tensors at offsets."""

    index: int
    node: Node
    variant: str
    kernel: Kernel
    args: tuple[str, ...]
    inputs: tuple[TensorType, ...]
    in_place: bool = False
    part: int = 0
    at: Mapping[str, Offset] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, int]:
        """What two calls share only if they are the same."""
        return self.index, self.part


@dataclass(frozen=True)
class Copy:
    """`rows` rows of `bytes` from one tensor to another, each a pitch behind the one before; one row may overlap."""

    to: str
    source: str
    bytes: int
    at: Mapping[str, Offset]
    rows: int = 1
    to_pitch: int = 0
    source_pitch: int = 0


@dataclass(frozen=True)
class Loop:
    """Calls and copies, `count` times in turn."""

    count: int
    items: tuple[Call | Copy, ...]


def site_of(graph: Graph, node: Node, inputs: tuple[TensorType, ...] | None = None) -> Site:
    """What a lowering rule may look at; `inputs` where they are not those of the graph."""
    consts = {k: graph.consts[name].elements for k, name in enumerate(node.inputs) if name in graph.consts}
    states = tuple(graph.state(s).type for s in node.states)
    return Site(inputs or graph.input_types(node), node.types, states, consts)


def is_view(node: Node) -> bool:
    """Whether a node is only another shape of its input's memory."""
    return bool(node.op.is_view)


def make_call(
    graph: Graph, index: int, node: Node, select: Select, consts: Consts, inputs: tuple[TensorType, ...] | None = None
) -> Call:
    """Choose the kernel of a node, or of a part of one with these `inputs`, and name the argument of each of its
    parameters; constants that are not there yet go to `consts`."""
    site = site_of(graph, node, inputs)
    variant, kernel = select(node.op, site)
    params = [p[0] for p in kernel.params]
    operands = [name for k, name in enumerate(node.inputs) if k not in kernel.drops]
    args = []
    for param, name in zip(params, operands, strict=False):
        if param in kernel.consts:
            name = f"{name}_{variant}" if name in graph.consts else name
            name = _keep_const(consts, name, kernel.consts[param])
        elif name in graph.consts:
            consts[name] = graph.consts[name].elements
        args.append(name)
    for param in params[len(operands) :]:
        if param in kernel.consts:
            args.append(_keep_const(consts, f"{node.outputs[0]}_{param}", kernel.consts[param]))
    args += node.states
    if not node.op.output_is_state:
        args += node.outputs
    if kernel.scratch:
        args.append(f"{node.outputs[0]}_scratch")
    assert len(args) == len(params), f"{node.op.name}: kernel takes {params}, node offers {args}"
    return Call(index, node, variant, kernel, tuple(args), site.inputs)


def _keep_const(consts: Consts, name: str, data: np.ndarray[Any, Any]) -> str:
    """The name an array is kept under: `name`, or one beside it where parts of a node differ in it."""
    free = next(n for n in numbered(name) if n not in consts or _same(consts[n], data))
    consts[free] = data
    return free


def _same(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b)
