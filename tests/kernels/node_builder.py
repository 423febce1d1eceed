"""Builds a step graph node by node, each node on an input of its own, and lays its values in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgec.ir.graph import Const, Graph, Node, State, Value
from edgec.ir.types import DType, TensorType
from edgec.ir.verify import verify


def storage(values: np.ndarray, t: TensorType) -> np.ndarray:
    """Values as they lie in memory: spikes 32 to a word along the last axis."""
    if t.dtype is not DType.BIT:
        kind = "bool" if t.dtype is DType.BOOL else t.dtype.storage
        return np.ascontiguousarray(values, dtype=kind).reshape(t.shape)
    words = t.storage_shape[-1]
    padded = np.zeros((*t.shape[:-1], words * 32), np.uint8)
    padded[..., : t.shape[-1]] = values
    octets = np.packbits(padded.reshape(-1, 32), axis=-1, bitorder="little")
    return octets.view("<u4").astype(np.uint32).reshape(t.storage_shape)


class Builder:
    """Appends nodes; `reach` bounds the random values of each input."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.inputs: list[Value] = []
        self.consts: dict[str, Const] = {}
        self.states: list[State] = []
        self.nodes: list[Node] = []
        self.reach: dict[str, int] = {}

    def int8(self, *shape: int) -> np.ndarray:
        return self.rng.integers(-127, 128, shape)

    def ints(self, low: int, high: int, *shape: int) -> np.ndarray:
        return self.rng.integers(low, high, shape)

    def add(self, op: Any, *operands: tuple[TensorType, int] | tuple[np.ndarray, str]) -> None:
        """A node whose operands are inputs (type, reach) or constants (values, element type)."""
        names, types = [], []
        for value, detail in operands:
            if isinstance(value, TensorType):
                name, t = f"x{len(self.inputs)}", value
                self.inputs.append(Value(name, t))
                self.reach[name] = int(detail)
            else:
                dtype = DType(str(detail))
                data = np.asarray(value, dtype.storage)
                name, t = f"c{len(self.consts)}", TensorType(data.shape, dtype)
                self.consts[name] = Const(data, t)
            names.append(name)
            types.append(t)
        states = tuple(f"s{len(self.states) + k}" for k in range(len(op.state_types(types))))
        for name, (t, init) in zip(states, op.state_types(types), strict=True):
            self.states.append(State(name, t, init))
        outs = op.infer(types)
        labels = tuple(f"y{len(self.nodes)}_{k}" for k in range(len(outs)))
        self.nodes.append(Node(op, tuple(names), labels, outs, ("node_builder.py:1",), states))

    def graph(self) -> Graph:
        outputs = tuple(o for n in self.nodes for o in n.outputs)
        graph = Graph("every", tuple(self.inputs), self.consts, tuple(self.nodes), outputs, tuple(self.states), True)
        verify(graph)
        return graph


def frame_type(dtype: DType, *shape: int) -> TensorType:
    return TensorType(shape, dtype, None, 1)
