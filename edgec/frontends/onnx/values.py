"""What the tensors of a QDQ network are while it is converted: stored integers, constants, results yet to be rounded.

The file computes real numbers between a DequantizeLinear and the next QuantizeLinear. The graph computes integers: what
lies between becomes one op with one rounding. Images are channels last in the graph; which axis of a stored tensor is
which of the file's is bookkeeping, so a Transpose costs nothing until an op needs another order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import floor, inf, log2
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.frontends import call as calls
from edgec.frontends.builder import GraphBuilder
from edgec.frontends.onnx.model import OnnxModel, OnnxNode
from edgec.frontends.onnx.schema import Ref, bound
from edgec.ops.integer.requantize import QLut
from edgec.ops.shape import Permute, Reshape

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """real = scale * (integer - zero); integers are int8, so those of a uint8 tensor are 128 less than in the file."""

    scale: float
    zero: int

    def levels(self, real: Floats) -> Array:
        """QuantizeLinear: float32, half to even, clamped."""
        levels: Array = np.clip(np.rint(real / np.float32(self.scale)) + self.zero, -128, 127).astype(np.int8)
        return levels

    def level(self, real: float) -> int:
        """One real number, infinite ones too."""
        if abs(real) == inf:
            return 127 if real > 0 else -128
        return int(self.levels(np.asarray(real, np.float32)))

    def reals(self) -> Floats:
        """The 256 numbers it holds, from level -128 on."""
        return ((np.arange(-128, 128) - self.zero) * np.float32(self.scale)).astype(np.float32)


@dataclass(frozen=True)
class Stored:
    """An int8 tensor of the graph. `shape` is the file's; axis k of the graph's tensor is the file's axis axes[k].

    `flat` is (channels, positions) where the last axis is an image flattened with its channels last, which the file
    flattens channels first.
    """

    name: str
    shape: tuple[int, ...]
    grid: Grid
    axes: tuple[int, ...]
    flat: tuple[int, int] | None = None


@dataclass(frozen=True)
class Constant:
    """A constant of the file: real numbers, and the integers they come from if it is quantised (int8 or int32), with a
    scale and a zero point for each index along `axis`."""

    real: Array
    integers: Array | None = None
    scales: Floats = field(default_factory=lambda: np.ones(1, np.float32))
    zeros: Array = field(default_factory=lambda: np.zeros(1, np.int64))
    axis: int = 0


@dataclass(frozen=True)
class Pending:
    """A result that its QuantizeLinear will round: `make` emits it on a grid, within [lo, hi] levels.

    `exact` is the grid on which the result needs no rounding, if there is one.
    """

    make: Callable[[Grid, int, int], Stored]
    low: float = -inf
    high: float = inf
    exact: Grid | None = None
    source: tuple[str, ...] = ()

    def within(self, low: float, high: float) -> Pending:
        """The same behind a Relu or Clip."""
        return replace(self, low=min(max(self.low, low), high), high=max(min(self.high, high), low))

    def on(self, grid: Grid, build: GraphBuilder) -> Stored:
        """Emitted; its nodes name the operator it comes from, not the one that reads it."""
        reader, build.source = build.source, self.source
        made = self.make(grid, grid.level(self.low), grid.level(self.high))
        build.source = reader
        return made


Value = Stored | Constant | Pending


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

    def stored(self, key: str) -> Stored:
        """An input as integers of the graph; ValueError where it is neither quantised nor exact without."""
        return self.integral(key, self[key])

    def all_stored(self, key: str) -> list[Stored]:
        """The tensors of a variadic input."""
        return [self.integral(key, ref) for ref in self[key]]

    def integral(self, key: str, ref: Ref | None) -> Stored:
        value = self.found(key, ref)
        assert ref is not None
        if isinstance(value, Pending) and value.exact is not None:
            value = self.values[ref.name] = value.on(value.exact, self.build)
        if not isinstance(value, Stored):
            what = "a constant" if isinstance(value, Constant) else "not quantised: no QuantizeLinear follows it"
            raise ValueError(f"{key} ({ref.name}) is {what}")
        return value

    def constant(self, key: str) -> Constant:
        value = self.value(key)
        if not isinstance(value, Constant):
            raise ValueError(f"{key} ({self[key].name}) is computed, expected a constant")
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        """An attribute, or what became an input, as a list of numbers, such as a shape; empty where there is none."""
        given = self.constant(key).real.reshape(-1) if isinstance(self[key], Ref) else self[key]
        return () if given is None else tuple(int(n) for n in given)

    def number(self, key: str, default: float) -> float:
        """Likewise one number."""
        given = self.constant(key).real.reshape(()) if isinstance(self[key], Ref) else self[key]
        return default if given is None else float(given)

    def consts(self, **arrays: Array) -> list[str]:
        """Constants named after the operator's output."""
        return [self.build.const(f"{self.name}_{part}", data) for part, data in arrays.items()]

    def arranged(self, x: Stored, axes: tuple[int, ...]) -> str:
        """The tensor's name with its axes in this order; one that moves only axes of extent 1 is a view."""
        name, held = x.name, x.axes
        if x.flat is not None:
            channels, positions = x.flat
            image = self.build.emit(Reshape((*x.shape[:-1], positions, channels)), name)
            last = len(x.shape)
            turned = self.build.emit(Permute((*range(last - 1), last, last - 1)), image)
            name = self.build.emit(Reshape(x.shape), turned)
        if held == axes:
            return name
        if [a for a in held if x.shape[a] > 1] == [a for a in axes if x.shape[a] > 1]:
            return self.build.emit(Reshape(tuple(x.shape[a] for a in axes)), name)
        return self.build.emit(Permute(tuple(held.index(a) for a in axes)), name)

    def natural(self, x: Stored) -> str:
        """The tensor's name with its axes as in the file."""
        return self.arranged(x, tuple(range(len(x.shape))))

    def mapped(self, x: Stored, grid: Grid, table: Array) -> Stored:
        """A function of one element by its 256 levels."""
        if np.array_equal(table, np.arange(-128, 128)) and grid == x.grid:
            return x
        name = self.emit(QLut(grid.scale, grid.zero), x.name, *self.consts(table=table.astype(np.int8)))
        return replace(x, name=name, grid=grid)

    def clamped(self, x: Stored, lo: int, hi: int) -> Stored:
        """x within levels [lo, hi]."""
        return self.mapped(x, x.grid, np.clip(np.arange(-128, 128), lo, hi))

    def regrid(self, x: Stored, grid: Grid, lo: int = -128, hi: int = 127) -> Stored:
        """x on another grid."""
        return self.mapped(x, grid, np.clip(grid.levels(x.grid.reals()), lo, hi))


def call_of(model: OnnxModel, node: OnnxNode, build: GraphBuilder, values: dict[str, Value]) -> Call:
    """A node bound to its operator's schema. ValueError for what does not fit it."""
    schema, args = bound(node.kind, model.opset, node.inputs, node.attributes)
    return Call(node.kind, schema, args, build, node.outputs[0], values, model.opset)


def channels_last(rank: int) -> tuple[int, ...]:
    """The order of axes in which the graph holds images and sequences."""
    return (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))


def power(real: float) -> int:
    """The largest n with real * 2**n below 2**31."""
    return floor(31 - log2(max(real, 2.0**-30)) - 1e-9)
