"""Functions of elements: expressions of broadcast operands, and the named ones of one operand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from string import ascii_lowercase
from typing import ClassVar

import numpy as np
import torch

from edgec.ir.graph import Node
from edgec.ir.types import DType, TensorType
from edgec.ops.base import Form, Kernel, Op, Site, need, same_time
from edgec.ops.integer.arithmetic import clamped, tabulated
from edgec.ops.integer.build import Builder
from edgec.ops.language.expression import (
    SIGNATURES,
    Term,
    evaluate,
    interval,
    kernel_text,
    operands,
    parse,
    typed,
    varies,
)
from edgec.ops.language.functions import FIXED_RANGES, IN_TORCH
from edgec.ops.lowering.loops import broadcast_shape, loop_nest, position


@dataclass(frozen=True)
class Elementwise(Op):
    """An expression of broadcast operands, element by element (`ops.expression`)."""

    def axes(self, types: Sequence[TensorType]) -> str:
        return ",".join(["..."] * len(types)) + "->..."

    def expression(self) -> Term:
        """The syntax tree of the result."""
        return parse(self.formula)

    def typed(self, types: Sequence[TensorType]) -> Term:
        """The tree on operands of these types; ValueError names what does not fit."""
        term = self.expression()
        count = max(operands(term), default=-1) + 1
        need(len(types) == count, f"expected {count} operand{'s' * (count != 1)}, found {len(types)}")
        whole = [t for t in types if t.dtype.is_float or t.quant is None]
        need(len(whole) == len(types), "an operand is quantised; expected float32, or integers as data")
        return typed(term, [t.dtype for t in types])

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        dtype = self.typed(types).dtype or DType.F32
        return (TensorType(broadcast_shape(*types), dtype, None, same_time(types)),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return evaluate(self.expression(), tensors)

    def lower(self, site: Site) -> Kernel:
        (y,), names = site.outputs, letters(len(site.inputs))
        if len(names) == 1:
            value = self.stored(site, ["x[i]"])
            body = f"for i in T.parallel({y.size}):\n    y[i] = {value}"
        else:
            at = [f"{n}[{position(t.shape, y.shape)}]" for n, t in zip(names, site.inputs, strict=True)]
            body, _ = loop_nest(y.shape, f"y[{position(y.shape, y.shape)}] = {self.stored(site, at)}")
        types = zip((*names, "y"), (*site.inputs, y), strict=True)
        params = tuple((n, (t.size,), t.dtype.storage) for n, t in types)
        return Kernel(body, params, inplace=tuple(range(len(names))))

    def stored(self, site: Site, elements: Sequence[str]) -> str:
        """TVMScript of the result in the operands' elements, as it is stored."""
        text = kernel_text(self.typed(site.inputs), elements)
        return f'T.cast({text}, "uint8")' if site.outputs[0].dtype is DType.BOOL else text

    def integer(self, b: Builder, node: Node) -> None:
        tabulated(b, node)

    @property
    def varies(self) -> tuple[float, float]:
        """A function of one operand is constant below the first and above the second."""
        term = self.expression()
        return varies(term) if operands(term) == {0} else (-np.inf, np.inf)


def letters(count: int) -> Sequence[str]:
    """What a kernel calls that many operands."""
    return ["x"] if count == 1 else list(ascii_lowercase[:count])


@dataclass(frozen=True)
class Map(Elementwise):
    """An expression of broadcast operands a, b, ..., of float32, integers or bool: `where(a > b, a, 2 * b)`."""

    name: ClassVar[str] = "map"
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,3,4] {expr='sin(a) ** 2'}",
        "float32[2,3,4], float32[4], float32[3,1] {expr='where(a > b, a * c, 0.5)'}",
        "bool[2,3], int32[3], uint8[2,1] {expr='where(a, b, c)'}",
    )
    expr: str = "a"

    @property
    def formula(self) -> str:
        return self.expr


@dataclass(frozen=True)
class Unary(Elementwise):
    """A function of one element, by its name in the table FUNCTIONS."""

    examples: ClassVar[tuple[str, ...]] = ("float32[2,3,4]",)
    inplace: ClassVar[tuple[int, ...]] = (0,)

    @property
    def formula(self) -> str:
        return f"{self.name}({', '.join(['a', *(f'{f.name}={getattr(self, f.name)!r}' for f in fields(self))])})"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        function = IN_TORCH.get(self.name)
        return super().reference(*tensors) if function is None else function(tensors[0])


@dataclass(frozen=True)
class Clamp(Unary):
    """A bound from below, above or both."""

    clamps: ClassVar[bool] = True
    monotone: ClassVar[bool] = True

    @property
    def varies(self) -> tuple[float, float]:
        return -np.inf, np.inf  # integers are clamped where they are stored

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest value that it lets through."""
        low, high = interval(self.expression(), [(-np.inf, np.inf)])
        return float(low), float(high)

    def integer(self, b: Builder, node: Node) -> None:
        clamped(b, node, self.bounds)

    def following(self, before: Op, x: TensorType, alone: bool) -> Op | None:
        """One clamp for two: the one before where it suffices, else a new one where nothing reads what lies between."""
        if not isinstance(before, Clamp):
            return None
        both = clamp_between(*(min(max(b, self.bounds[0]), self.bounds[1]) for b in before.bounds))
        return before if both == before else both if alone else None


def named(name: str, base: type[Unary] = Unary) -> type[Unary]:
    """The op of a function of the table; its parameters are its attributes."""
    _, parameters, text = SIGNATURES[name]
    attributes = [(k, float, field(default=value)) for k, value in parameters.items()]
    space = {"__doc__": f"{text}, a the operand.", "name": name, "fixed_range": FIXED_RANGES.get(name)}
    title = "".join(part.title() for part in name.split("_"))
    made = make_dataclass(title, attributes, bases=(base,), frozen=True, namespace=space)
    made.__module__ = __name__
    return made


#: every function of the table as an op
UNARY: dict[str, type[Unary]] = {n: named(n, Clamp if n in ("relu", "relu6") else Unary) for n in SIGNATURES}


def function(name: str, **parameters: float) -> Unary:
    """A function of the table with values of its parameters."""
    return UNARY[name](**parameters)


globals().update({op.__name__: op for op in UNARY.values()})
#: those that kernel tables, fusions and recognisers name
Relu, Relu6, Gelu, Sigmoid, Tanh, Sqrt = (UNARY[n] for n in ("relu", "relu6", "gelu", "sigmoid", "tanh", "sqrt"))


def activate(t: torch.Tensor, activation: str) -> torch.Tensor:
    """An activation that `fuse` moved into the op before it; "" is none."""
    return ACTIVATIONS[activation]().reference(t) if activation else t


def activation_lines(activation: str, element: str) -> list[str]:
    """The statement that applies it to one finished element; none for none."""
    if not activation:
        return []
    term = typed(ACTIVATIONS[activation]().expression(), [DType.F32])
    return [f"{element} = {kernel_text(term, [element])}"]


def check_activation(activation: str) -> None:
    """ValueError for a name that is no activation."""
    known = sorted(ACTIVATIONS)
    need(not activation or activation in ACTIVATIONS, f"expected activation one of {known}, found {activation!r}")


@dataclass(frozen=True)
class Clip(Clamp):
    """min(max(x, low), high); a bound of None is absent."""

    name: ClassVar[str] = "clip"
    examples: ClassVar[tuple[str, ...]] = ("float32[2,3,4] {low=-0.5,high=1.0}", "float32[3] {high=0.5}")
    low: float | None = None
    high: float | None = None

    @property
    def formula(self) -> str:
        text = "a" if self.low is None else f"max(a, {self.low!r})"
        return text if self.high is None else f"min({text}, {self.high!r})"

    def equals(self, site: Site) -> int | None:
        return 0 if self.bounds == (-np.inf, np.inf) else None

    def simplified(self, site: Site) -> Form | None:
        """A clamp that has a name of its own goes by it."""
        named = clamp_between(*self.bounds)
        return None if named == self else Form(named, (0,))


def clamp_between(low: float, high: float) -> Unary:
    """The clamp with these bounds; infinite ones are absent."""
    if low == 0 and high in (6, np.inf):
        return Relu6() if high == 6 else Relu()
    return Clip(None if low == -np.inf else low, None if high == np.inf else high)


#: activations that convolutions and linear layers can apply to their own output
ACTIVATIONS: dict[str, type[Unary]] = {n: UNARY[n] for n in ("relu", "relu6", "gelu", "sigmoid", "tanh")}
