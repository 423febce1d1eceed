"""Elementwise arithmetic on two tensors, and the affine map along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import numpy as np
import torch

from edgec.ir.graph import Graph, Node
from edgec.ir.types import TensorType
from edgec.ops.base import Array, Form, Kernel, LinearMap, Op, Reads, Site, need
from edgec.ops.elementwise import Elementwise, Relu, Relu6
from edgec.ops.integer.arithmetic import added, described, multiplied
from edgec.ops.integer.build import Builder
from edgec.ops.integer.numbers import Refusal
from edgec.ops.lowering.loops import loop_nest
from edgec.ops.relations.axes import LETTERS, along


def along_axis(values: Array, like: TensorType) -> tuple[int, Array] | None:
    """A constant operand as a vector over the one axis of a tensor along which it varies, the last for one of one
    element; None for any other shape."""
    rank = len(like.shape)
    shape = (1,) * (rank - values.ndim) + values.shape
    axes = [k for k, n in enumerate(shape) if n != 1] or [rank - 1]
    if len(axes) > 1 or values.size not in (1, like.shape[axes[0]]):
        return None
    return axes[0], values.reshape(-1).astype(np.float64)


@dataclass(frozen=True)
class Binary(Elementwise):
    """Broadcasting arithmetic on two tensors."""

    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,3,4], float32[2,3,4]",
        "float32[2,3,4], float32[3,1]",
        "float32[1], float32[2,3]",
    )
    inplace: ClassVar[tuple[int, ...]] = (0, 1)
    symbol: ClassVar[str]
    #: the operand that changes nothing: 0 of a sum, 1 of a product
    neutral: ClassVar[float]

    @property
    def formula(self) -> str:
        return f"a {self.symbol} b"

    def equals(self, site: Site) -> int | None:
        left = 0 in site.consts and self.commutes and bool((site.consts[0] == self.neutral).all())
        right = 1 in site.consts and bool((site.consts[1] == self.neutral).all())
        return 0 if right else 1 if left else None

    def simplified(self, site: Site) -> Form | None:
        """A constant stands second where the operands may change places."""
        return Form(self, (1, 0)) if self.commutes and 0 in site.consts and 1 not in site.consts else None

    def linear_map(self, site: Site) -> LinearMap | None:
        """What the op does to its computed operand, where the other is constant but for one axis; else None."""
        if len(site.consts) != 1:
            return None
        ((place, values),) = site.consts.items()
        vector = along_axis(values, site.outputs[0])
        terms = self.terms(vector[1], place) if vector else None
        if vector is None or terms is None or site.inputs[1 - place].shape != site.outputs[0].shape:
            return None
        return LinearMap(1 - place, vector[0], *terms)

    def terms(self, c: Array, place: int) -> tuple[Array, Array] | None:
        """Scale and shift of the other operand by a constant that is operand `place`; None where there are none."""
        return None


def relu_behind(graph: Graph, node: Node) -> Node | None:
    """The relu that alone reads a node."""
    readers = graph.consumers(node.output)
    alone = len(readers) == 1 and isinstance(readers[0].op, (Relu, Relu6)) and node.output not in graph.outputs
    return readers[0] if alone else None


@dataclass(frozen=True)
class Add(Binary):
    """y = a + b."""

    name: ClassVar[str] = "add"
    reads: ClassVar[Reads] = Reads.SUMMED
    symbol: ClassVar[str] = "+"
    neutral: ClassVar[float] = 0
    commutes: ClassVar[bool] = True

    def terms(self, c: Array, place: int) -> tuple[Array, Array] | None:
        return np.ones(1), c

    def integer(self, b: Builder, node: Node) -> None:
        if not described(b, node):
            added(b, node, 1, relu_behind(b.graph, node))


@dataclass(frozen=True)
class Sub(Binary):
    """y = a - b."""

    name: ClassVar[str] = "sub"
    reads: ClassVar[Reads] = Reads.SUMMED
    symbol: ClassVar[str] = "-"
    neutral: ClassVar[float] = 0

    def simplified(self, site: Site) -> Form | None:
        """x - c is x + -c."""
        return Form(Add(), (0, 1), {1: -site.consts[1]}) if 1 in site.consts else None

    def terms(self, c: Array, place: int) -> tuple[Array, Array] | None:
        return (np.ones(1), -c) if place == 1 else (-np.ones(1), c)

    def integer(self, b: Builder, node: Node) -> None:
        if not described(b, node):
            added(b, node, -1, relu_behind(b.graph, node))


@dataclass(frozen=True)
class Mul(Binary):
    """y = a * b."""

    name: ClassVar[str] = "mul"
    reads: ClassVar[Reads] = Reads.WIDE
    symbol: ClassVar[str] = "*"
    neutral: ClassVar[float] = 1
    commutes: ClassVar[bool] = True

    def terms(self, c: Array, place: int) -> tuple[Array, Array] | None:
        return c, np.zeros(1)

    def integer(self, b: Builder, node: Node) -> None:
        if not described(b, node):
            multiplied(b, node)


@dataclass(frozen=True)
class Div(Binary):
    """y = a / b."""

    name: ClassVar[str] = "div"
    symbol: ClassVar[str] = "/"
    product: ClassVar[Any] = Mul
    neutral: ClassVar[float] = 1

    def simplified(self, site: Site) -> Form | None:
        """x / c is x * (1 / c) where no bit of that is rounded: where c is a power of two."""
        c = site.consts.get(1)
        return Form(Mul(), (0, 1), {1: 1 / c}) if c is not None and has_exact_reciprocals(c) else None

    def terms(self, c: Array, place: int) -> tuple[Array, Array] | None:
        return (1 / c, np.zeros(1)) if place == 1 and c.all() else None

    def integer(self, b: Builder, node: Node) -> None:
        if not described(b, node):
            super().integer(b, node)


def has_exact_reciprocals(values: Array) -> bool:
    """Whether 1 / v is exact in float32 and not denormal for each value: powers of two of moderate size."""
    mantissas, exponents = np.frexp(values)
    return bool((np.abs(mantissas) == 0.5).all() and (np.abs(exponents) < 100).all())


@dataclass(frozen=True)
class Affine(Op):
    """y = x * scale[c] + shift[c] along one axis: batch norm at inference time."""

    name: ClassVar[str] = "affine"
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,3,4], float32[4], float32[4]",
        "float32[2,3,4], float32[3], float32[3] {axis=1}",
    )
    inplace: ClassVar[tuple[int, ...]] = (0,)
    axis: int = -1

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, scale, shift = types
        channels = x.shape[self.axis]
        need(
            scale.shape == shift.shape == (channels,),
            f"expected scale and shift of shape ({channels},), found {scale.shape}, {shift.shape}",
        )
        return (replace(x, quant=None),)

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        x, c = along(rank, self.axis), LETTERS[self.axis % rank]
        return f"{x},{c},{c}->{x}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, scale, shift = tensors
        view = [1] * x.ndim
        view[self.axis] = -1
        return x * scale.view(view) + shift.view(view)

    def lower(self, site: Site) -> Kernel:
        x, scale, _ = site.inputs
        axis = self.axis % len(x.shape)
        shape = (prod(x.shape[:axis]), scale.size, prod(x.shape[axis + 1 :]))
        body, _ = loop_nest(shape, "y[i0, i1, i2] = x[i0, i1, i2] * scale[i1] + shift[i1]")
        shapes = {"x": shape, "scale": scale.shape, "shift": scale.shape, "y": shape}
        return Kernel(body, tuple((name, extents, "float32") for name, extents in shapes.items()))

    def equals(self, site: Site) -> int | None:
        scale, shift = site.consts.get(1), site.consts.get(2)
        same = scale is not None and shift is not None and (scale == 1).all() and not shift.any()
        return 0 if same else None

    def linear_map(self, site: Site) -> LinearMap | None:
        """What the op does to x, where scale and shift are constants."""
        if set(site.consts) != {1, 2}:
            return None
        scale, shift = (site.consts[k].astype(np.float64) for k in (1, 2))
        return LinearMap(0, self.axis % len(site.outputs[0].shape), scale, shift, given=True)

    def integer(self, b: Builder, node: Node) -> None:
        """Batch norm: folded into whatever reads it."""
        if not described(b, node):
            raise Refusal("its scale and shift are computed, not constant")
