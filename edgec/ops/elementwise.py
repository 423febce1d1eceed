"""Elementwise arithmetic and the activations that act on one element at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from string import ascii_lowercase
from typing import ClassVar

import numpy as np
import torch

from edgec.ir.types import DType, TensorType
from edgec.ops.axes import LETTERS, along
from edgec.ops.base import Array, Form, Kernel, Op, Site, need, same_time
from edgec.ops.expression import SIGNATURES, Term, evaluate, interval, kernel_text, operands, parse, typed, varies
from edgec.ops.functions import IN_TORCH


def broadcast_shape(*types: TensorType) -> tuple[int, ...]:
    """The shape of an elementwise result."""
    try:
        return np.broadcast_shapes(*(t.shape for t in types))
    except ValueError as err:
        raise ValueError(f"shapes {' and '.join(str(t.shape) for t in types)} do not broadcast") from err


def strides_for(shape: Sequence[int], out: Sequence[int]) -> list[int]:
    """Element stride of a broadcast operand for every axis of the output (0 where it repeats)."""
    padded = [1] * (len(out) - len(shape)) + list(shape)
    strides, step = [0] * len(out), 1
    for axis in reversed(range(len(out))):
        strides[axis] = step if padded[axis] != 1 else 0
        step *= padded[axis]
    return strides


def loop_nest(shape: Sequence[int], statements: str | Sequence[str]) -> tuple[str, list[str]]:
    """Nested loops over a shape (the outer one parallel) around one statement or several; also the index names."""
    lines, names = [], [f"i{k}" for k in range(len(shape))]
    for k, extent in enumerate(shape):
        kind = "T.parallel" if k == 0 else "T.serial"
        lines.append("    " * k + f"for {names[k]} in {kind}({extent}):")
    inner = [statements] if isinstance(statements, str) else statements
    lines += ["    " * len(shape) + line for line in inner]
    return "\n".join(lines), names


def position(shape: Sequence[int], out: Sequence[int]) -> str:
    """Flat index of an operand in the loops of `loop_nest` over the output's axes."""
    terms = [f"i{k} * {s}" for k, s in enumerate(strides_for(shape, out)) if s]
    return " + ".join(terms) or "0"


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
class LinearMap:
    """y = x * scale + shift along an axis of x, in float64: vectors over it, or one number for all of x."""

    operand: int
    axis: int
    scale: Array
    shift: Array


@dataclass(frozen=True)
class Elementwise(Op):
    """An expression of broadcast operands, element by element (`ops.expression`)."""

    def axes(self, types: Sequence[TensorType]) -> str:
        return ",".join(["..."] * len(types)) + "->..."

    def expression(self) -> Term:
        """The syntax tree of the result."""
        raise NotImplementedError

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

    def permuted(self, perm: Sequence[int], types: Sequence[TensorType]) -> Op | None:
        """The op after its operands' axes are permuted; None where an operand is only broadcast."""
        return self if all(len(t.shape) == len(perm) for t in types) else None

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

    def expression(self) -> Term:
        return parse(self.expr)


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

    def expression(self) -> Term:
        return parse(f"a {self.symbol} b")

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


@dataclass(frozen=True)
class Add(Binary):
    """y = a + b."""

    name: ClassVar[str] = "add"
    symbol: ClassVar[str] = "+"
    neutral: ClassVar[float] = 0
    commutes: ClassVar[bool] = True

    def terms(self, c: Array, place: int) -> tuple[Array, Array] | None:
        return np.ones(1), c


@dataclass(frozen=True)
class Sub(Binary):
    """y = a - b."""

    name: ClassVar[str] = "sub"
    symbol: ClassVar[str] = "-"
    neutral: ClassVar[float] = 0

    def simplified(self, site: Site) -> Form | None:
        """x - c is x + -c."""
        return Form(Add(), (0, 1), {1: -site.consts[1]}) if 1 in site.consts else None

    def terms(self, c: Array, place: int) -> tuple[Array, Array] | None:
        return (np.ones(1), -c) if place == 1 else (-np.ones(1), c)


@dataclass(frozen=True)
class Mul(Binary):
    """y = a * b."""

    name: ClassVar[str] = "mul"
    symbol: ClassVar[str] = "*"
    neutral: ClassVar[float] = 1
    commutes: ClassVar[bool] = True

    def terms(self, c: Array, place: int) -> tuple[Array, Array] | None:
        return c, np.zeros(1)


@dataclass(frozen=True)
class Div(Binary):
    """y = a / b."""

    name: ClassVar[str] = "div"
    symbol: ClassVar[str] = "/"
    neutral: ClassVar[float] = 1

    def simplified(self, site: Site) -> Form | None:
        """x / c is x * (1 / c) where no bit of that is rounded: where c is a power of two."""
        c = site.consts.get(1)
        return Form(Mul(), (0, 1), {1: 1 / c}) if c is not None and has_exact_reciprocals(c) else None

    def terms(self, c: Array, place: int) -> tuple[Array, Array] | None:
        return (1 / c, np.zeros(1)) if place == 1 and c.all() else None


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
        inner = 1
        for extent in x.shape[axis + 1 :]:
            inner *= extent
        c = f"(i // {inner}) % {scale.size}"
        body = f"for i in T.parallel({x.size}):\n    y[i] = x[i] * scale[{c}] + shift[{c}]"
        vec = ("float32",)
        return Kernel(
            body,
            (
                ("x", (x.size,), *vec),
                ("scale", scale.shape, *vec),
                ("shift", scale.shape, *vec),
                ("y", (x.size,), *vec),
            ),
        )

    def equals(self, site: Site) -> int | None:
        scale, shift = site.consts.get(1), site.consts.get(2)
        same = scale is not None and shift is not None and (scale == 1).all() and not shift.any()
        return 0 if same else None

    def linear_map(self, site: Site) -> LinearMap | None:
        """What the op does to x, where scale and shift are constants."""
        if set(site.consts) != {1, 2}:
            return None
        scale, shift = (site.consts[k].astype(np.float64) for k in (1, 2))
        return LinearMap(0, self.axis % len(site.outputs[0].shape), scale, shift)

    def permuted(self, perm: Sequence[int], types: Sequence[TensorType]) -> Op | None:
        return Affine(axis=list(perm)[self.axis % len(perm)])


@dataclass(frozen=True)
class Unary(Elementwise):
    """A function of one element, by its name in the table FUNCTIONS."""

    examples: ClassVar[tuple[str, ...]] = ("float32[2,3,4]",)
    inplace: ClassVar[tuple[int, ...]] = (0,)

    def expression(self) -> Term:
        parameters = tuple((f.name, getattr(self, f.name)) for f in fields(self))
        return parse(SIGNATURES[self.name][2], parameters)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        function = IN_TORCH.get(self.name)
        return super().reference(*tensors) if function is None else function(tensors[0])


@dataclass(frozen=True)
class Clamp(Unary):
    """A bound from below, above or both."""

    monotone: ClassVar[bool] = True

    @property
    def varies(self) -> tuple[float, float]:
        return -np.inf, np.inf  # integers are clamped where they are stored

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest value that it lets through."""
        low, high = interval(self.expression(), [(-np.inf, np.inf)])
        return float(low), float(high)

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
    space = {"__doc__": f"{text}, a the operand.", "name": name}
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


def activation_text(activation: str, element: str, indent: str) -> str:
    """The statement that applies it to one finished element; empty for none."""
    if not activation:
        return ""
    term = typed(ACTIVATIONS[activation]().expression(), [DType.F32])
    return f"\n{indent}{element} = {kernel_text(term, [element])}"


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

    def expression(self) -> Term:
        text = "a" if self.low is None else f"max(a, {self.low!r})"
        return parse(text if self.high is None else f"min({text}, {self.high!r})")

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
