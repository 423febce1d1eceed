"""What the tensors of an ONNX network are while it is converted: tensors of the float graph, and constants.

A QuantizeLinear with the DequantizeLinear behind it is a Snap; a constant that comes through a DequantizeLinear knows
its grid. Images are channels last in the graph: the permutes around an image op are for `assign_layout` to cancel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.frontends import call as calls
from edgec.frontends.builder import GraphBuilder
from edgec.frontends.onnx.model import OnnxNode
from edgec.frontends.onnx.schema import Ref, bound
from edgec.ir.types import QuantParams
from edgec.ops.shape import Permute, Reshape

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Constant:
    """A constant of the file; real numbers in float64 where they lie on a grid."""

    data: Array
    grid: QuantParams | None = None

    def reshaped(self, shape: tuple[int, ...]) -> Constant:
        """The elements in their order; the axis that has a scale for each index must stay one."""
        grid, axis = self.grid, None if self.grid is None else self.grid.axis
        if grid is not None and axis is not None:
            before, extent = prod(self.data.shape[:axis]), self.data.shape[axis]
            kept = [k for k, n in enumerate(shape) if n == extent and prod(shape[:k]) == before]
            grid = QuantParams(grid.scale, 0, kept[0]) if kept else None
        return Constant(self.data.reshape(shape), grid)

    def permuted(self, perm: Sequence[int]) -> Constant:
        """Axis k is the old axis perm[k]."""
        grid = self.grid
        if grid is not None and grid.axis is not None:
            grid = QuantParams(grid.scale, 0, tuple(perm).index(grid.axis))
        return Constant(self.data.transpose(perm), grid)


Value = str | Constant


@dataclass(frozen=True)
class Call(calls.Call):
    """One operator being converted, and the values of the tensors so far."""

    values: dict[str, Value]
    opset: int

    def value(self, key: str) -> Value:
        """An input's value; ValueError where there is none."""
        return self.found(key, self[key])

    def found(self, key: str, ref: Ref | None) -> Value:
        if ref is None:
            raise ValueError(f"{key} is missing")
        if ref.name not in self.values:
            raise ValueError(f"{key} ({ref.name}) is neither a constant nor computed before it")
        return self.values[ref.name]

    def tensor(self, key: str) -> str:
        """An input as a tensor of the graph; a constant becomes one."""
        value = self.value(key)
        return value if isinstance(value, str) else self.part(key, value)

    def tensors(self, key: str) -> list[str]:
        """The tensors of a variadic input."""
        values = [self.found(key, ref) for ref in self[key]]
        return [v if isinstance(v, str) else self.part(f"{key}{k}", v) for k, v in enumerate(values)]

    def constant(self, key: str) -> Constant:
        value = self.value(key)
        if not isinstance(value, Constant):
            raise ValueError(f"{key} ({self[key].name}) is computed, expected a constant")
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        """An attribute, or what became an input, as a list of numbers, such as a shape; empty where there is none."""
        given = self.constant(key).data.reshape(-1) if isinstance(self[key], Ref) else self[key]
        return () if given is None else tuple(int(n) for n in given)

    def number(self, key: str, default: float) -> float:
        """Likewise one number."""
        given = self.constant(key).data.reshape(()) if isinstance(self[key], Ref) else self[key]
        return default if given is None else float(given)

    def shape(self, key: str) -> tuple[int, ...]:
        """The extents of an input."""
        value = self.value(key)
        return value.data.shape if isinstance(value, Constant) else self.build.type_of(value).shape

    def part(self, name: str, value: Constant | Array) -> str:
        """A float constant of the graph, named after the operator's output."""
        value = value if isinstance(value, Constant) else Constant(value)
        if value.grid is None and value.data.dtype.kind != "f":
            raise ValueError(f"{name} holds {value.data.dtype}, expected real numbers")
        data = value.data if value.grid else value.data.astype(np.float32)
        return self.build.const(f"{self.name}_{name}", data, value.grid)

    def permute(self, x: str, perm: tuple[int, ...]) -> str:
        return x if perm == tuple(range(len(perm))) else self.build.emit(Permute(perm), x)

    def reshape(self, x: str, shape: tuple[int, ...]) -> str:
        return x if shape == self.build.type_of(x).shape else self.build.emit(Reshape(shape), x)


def call_of(opset: int, node: OnnxNode, build: GraphBuilder, values: dict[str, Value]) -> Call:
    """A node bound to its operator's schema. ValueError for what does not fit it."""
    schema, args = bound(node.kind, opset, node.inputs, node.attributes)
    return Call(node.kind, schema, args, build, node.outputs[0], values, opset)


def grid_of(build: GraphBuilder, name: str) -> Any:
    """The scale at whose integers all elements of a tensor lie, also where they were moved or picked since."""
    node = build.producer(name)
    if node is None or node.op.grid is not None:
        return None if node is None else node.op.grid
    filled = node.type.size > sum(build.type_of(i).size for i in node.inputs)
    grids = {grid_of(build, i) for i in node.inputs} if node.op.picks or (node.op.moves and not filled) else set()
    return grids.pop() if len(grids) == 1 else None


def channels_last(rank: int) -> tuple[int, ...]:
    """The order of axes in which the graph holds images and sequences."""
    return (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))
