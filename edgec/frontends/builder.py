"""Builds a graph node by node; what every frontend ends in."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.errors import FrontendError
from edgec.ir.graph import Const, Graph, Node, Value, numbered
from edgec.ir.types import DType, QuantParams, TensorType

_DTYPES = {
    "float32": DType.F32, "int8": DType.I8, "int16": DType.I16, "int32": DType.I32, "int64": DType.I64,
    "uint8": DType.U8, "bool": DType.BOOL,
}  # fmt: skip


MAX_ELEMENTS = 1 << 28  # of one tensor, beyond any device edgec compiles for


def check_size(t: TensorType) -> None:
    """ValueError for a tensor so large that its shape must be a mistake or damage."""
    if t.size > MAX_ELEMENTS:
        raise ValueError(f"a tensor of shape {t.shape} has {t.size} elements, more than the limit of {MAX_ELEMENTS}")


def safe_name(name: str) -> str:
    """A name the text form can spell."""
    name = re.sub(r"[^\w.]", "_", name) or "value"
    return f"layer{name}" if name[0].isdigit() else name


class GraphBuilder:
    """The graph so far. `source` is put on every node emitted until it changes."""

    def __init__(self, name: str) -> None:
        self.name = safe_name(name)
        self.source: tuple[str, ...] = ()
        self.masks: set[str] = set()  # constants that stand for infinite ones
        self._inputs: list[Value] = []
        self._consts: dict[str, Const] = {}
        self._nodes: list[Node] = []
        self._types: dict[str, TensorType] = {}
        self._producers: dict[str, Node] = {}

    def type_of(self, name: str) -> TensorType:
        return self._types[name]

    def producer(self, name: str) -> Node | None:
        """The node that computes a tensor; None for inputs and constants."""
        return self._producers.get(name)

    def fresh(self, stem: str) -> str:
        """A name not used yet: the stem, or the stem with a number."""
        stem = safe_name(stem)
        return next(name for name in numbered(stem) if name not in self._types)

    def input(self, name: str, t: TensorType) -> str:
        check_size(t)
        name = self.fresh(name)
        self._inputs.append(Value(name, t))
        self._types[name] = t
        return name

    def const(self, stem: str, data: npt.NDArray[Any], grid: QuantParams | None = None) -> str:
        """A constant, on a grid if one is given; the same data under the same name is stored once. ValueError for an
        element type the IR lacks."""
        # a copy: the weights of a module may change or be read-only
        data = np.array(data, None if grid is None else np.float64, order="C")
        if data.dtype.name not in _DTYPES and grid is None:
            raise ValueError(f"constant {stem} has element type {data.dtype.name}; edgec computes in float32")
        t = TensorType(data.shape, DType.F32 if grid else _DTYPES[data.dtype.name], grid)
        data = data if grid else data.astype(t.dtype.storage)
        old = self._consts.get(safe_name(stem))
        if old is not None and old.type == t and np.array_equal(old.data, data):
            return safe_name(stem)
        name = self.fresh(stem)
        self._consts[name], self._types[name] = Const(data, t), t
        return name

    def emit_all(self, op: Any, *inputs: str, name: str | None = None, count: int = 1) -> tuple[str, ...]:
        """One node; its output names. ValueError says what does not fit."""
        types = tuple(op.infer([self._types[i] for i in inputs]))
        for t in types:
            check_size(t)
        outputs = []
        for t in types:
            outputs.append(self.fresh(name or op.name))
            self._types[outputs[-1]] = t
        self._nodes.append(Node(op, inputs, tuple(outputs), types, self.source))
        self._producers.update(dict.fromkeys(outputs, self._nodes[-1]))
        return tuple(outputs)

    def emit(self, op: Any, *inputs: str, name: str | None = None) -> str:
        """One node with one output."""
        (out,) = self.emit_all(op, *inputs, name=name)
        return out

    def build(self, outputs: tuple[str, ...]) -> Graph:
        """The graph, without what no output needs."""
        if not outputs:
            raise FrontendError(f"{self.name}: the model returns no tensor")
        if not self._inputs:
            raise FrontendError(f"{self.name}: the model reads no input: what it returns is always the same")
        graph = Graph(self.name, tuple(self._inputs), self._consts, tuple(self._nodes), outputs)
        return graph.prune_unused()
