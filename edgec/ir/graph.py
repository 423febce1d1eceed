"""The graph: frozen nodes in execution order, constants, and the state of a step graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.ir.types import TensorType


def numbered(stem: str) -> Iterator[str]:
    """Names to try for something new: stem, stem_1, stem_2, ..."""
    return itertools.chain([stem], (f"{stem}_{k}" for k in itertools.count(1)))


@dataclass(frozen=True)
class Value:
    """A named tensor."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class Const:
    """A constant tensor; BIT constants hold 0/1 as int8. Real numbers on a grid, `type.quant`, are held in float64:
    their integers come back exactly."""

    data: npt.NDArray[Any]
    type: TensorType

    @property
    def elements(self) -> npt.NDArray[Any]:
        """The data as kernels read them."""
        return np.asarray(self.data, np.float32) if self.type.dtype.is_float else self.data


@dataclass(frozen=True)
class State:
    """Memory that one node of a step graph keeps between frames; every element starts at `init`."""

    name: str
    type: TensorType
    init: float = 0


@dataclass(frozen=True)
class When:
    """The frames at which a node of a step graph runs.

    A tensor with delay d carries at frame t what the whole-sequence graph computes for frame t - d. A node runs from
    frame `first` on, then through flush step `last` (flush step k = 1.. stands for the k-th frame after the end), and
    of those only at every `period`-th frame counted from `first`.
    """

    first: int = 0
    last: int = 0
    period: int = 1


@dataclass(frozen=True)
class Node:
    """One operation. `source` is where the user wrote it: torch stack lines or ONNX node names."""

    op: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: tuple[TensorType, ...]
    source: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    when: When = When()

    @property
    def output(self) -> str:
        """The only output."""
        (out,) = self.outputs
        return out

    @property
    def type(self) -> TensorType:
        """The type of the only output."""
        (t,) = self.types
        return t


@dataclass(frozen=True)
class Graph:
    """A network. On a step graph `delay` is that of its outputs in frames, `flush_steps` how many steps drain it.

    `arguments` and `results`: what the user calls the inputs and the outputs, in their order; empty where that is as
    they are called here.
    """

    name: str
    inputs: tuple[Value, ...]
    consts: Mapping[str, Const]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    states: tuple[State, ...] = ()
    is_step: bool = False
    delay: int = 0
    flush_steps: int = 0
    arguments: tuple[str, ...] = ()
    results: tuple[str, ...] = ()

    @cached_property
    def _types(self) -> dict[str, TensorType]:
        types = {v.name: v.type for v in self.inputs} | {n: c.type for n, c in self.consts.items()}
        return types | {o: t for node in self.nodes for o, t in zip(node.outputs, node.types, strict=True)}

    @cached_property
    def _producers(self) -> dict[str, Node]:
        return {o: node for node in reversed(self.nodes) for o in node.outputs}

    @cached_property
    def _consumers(self) -> dict[str, list[Node]]:
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return found

    def type_of(self, name: str) -> TensorType:
        """The type of an input, constant or node output."""
        return self._types[name]

    def input_types(self, node: Node) -> tuple[TensorType, ...]:
        return tuple(self.type_of(i) for i in node.inputs)

    def producer(self, name: str) -> Node | None:
        """The node that computes `name`; None for inputs and constants."""
        return self._producers.get(name)

    def consumers(self, name: str) -> tuple[Node, ...]:
        """The nodes that read `name`, in order; one that reads it twice stands there once."""
        return tuple(self._consumers.get(name, ()))

    def state(self, name: str) -> State:
        return next(s for s in self.states if s.name == name)

    def fresh(self, stem: str) -> Iterator[str]:
        """Names that nothing in the graph uses yet, see `numbered`."""
        used = {v.name for v in self.inputs} | set(self.consts) | {o for n in self.nodes for o in n.outputs}
        used |= {s.name for s in self.states}
        return (name for name in numbered(stem) if name not in used)

    def prune_unused(self) -> Graph:
        """The same graph without nodes, constants and states that no output needs."""
        needed, nodes = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                nodes.append(node)
                needed.update(node.inputs)
        nodes.reverse()
        states = {s for n in nodes for s in n.states}
        return replace(
            self,
            nodes=tuple(nodes),
            consts={n: c for n, c in self.consts.items() if n in needed},
            states=tuple(s for s in self.states if s.name in states),
        )
