"""Elementwise arithmetic and the activations that act on one element at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from edgec.ir.types import DType, TensorType
from edgec.ops.axes import LETTERS, along
from edgec.ops.base import Array, Form, Kernel, Op, Site, need, same_time


def broadcast(a: TensorType, b: TensorType) -> TensorType:
    """Type of an elementwise result: numpy broadcasting, float32."""
    need(
        a.dtype is DType.F32 and b.dtype is DType.F32,
        f"expected float32 operands, found {a.dtype.value}, {b.dtype.value}",
    )
    return TensorType(broadcast_shape(a, b), DType.F32, None, same_time([a, b]))


def broadcast_shape(a: TensorType, b: TensorType) -> tuple[int, ...]:
    """The shape of an elementwise result."""
    try:
        return np.broadcast_shapes(a.shape, b.shape)
    except ValueError as err:
        raise ValueError(f"shapes {a.shape} and {b.shape} do not broadcast") from err


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
class Binary(Op):
    """Broadcasting arithmetic on two tensors."""

    axes: ClassVar[Any] = "...,...->..."
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,3,4], float32[2,3,4]",
        "float32[2,3,4], float32[3,1]",
        "float32[1], float32[2,3]",
    )
    inplace: ClassVar[tuple[int, ...]] = (0, 1)
    symbol: ClassVar[str]
    #: the operand that changes nothing: 0 of a sum, 1 of a product
    neutral: ClassVar[float]

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        need(len(types) == 2, f"expected 2 operands, found {len(types)}")
        return (broadcast(types[0], types[1]),)

    def lower(self, site: Site) -> Kernel:
        a, b = site.inputs
        (y,) = site.outputs
        at = {name: position(t.shape, y.shape) for name, t in (("a", a), ("b", b), ("y", y))}
        nest, _ = loop_nest(y.shape, f"y[{at['y']}] = a[{at['a']}] {self.symbol} b[{at['b']}]")
        return Kernel(nest, (("a", (a.size,), "float32"), ("b", (b.size,), "float32"), ("y", (y.size,), "float32")))

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

    def permuted(self, perm: Sequence[int], types: Sequence[TensorType]) -> Op | None:
        """The op after its operands' axes are permuted; None where an operand is only broadcast."""
        return self if all(len(t.shape) == len(perm) for t in types) else None


@dataclass(frozen=True)
class Add(Binary):
    """y = a + b."""

    name: ClassVar[str] = "add"
    symbol: ClassVar[str] = "+"
    neutral: ClassVar[float] = 0
    commutes: ClassVar[bool] = True

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0] + tensors[1]

    def terms(self, c: Array, place: int) -> tuple[Array, Array] | None:
        return np.ones(1), c


@dataclass(frozen=True)
class Sub(Binary):
    """y = a - b."""

    name: ClassVar[str] = "sub"
    symbol: ClassVar[str] = "-"
    neutral: ClassVar[float] = 0

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0] - tensors[1]

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

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0] * tensors[1]

    def terms(self, c: Array, place: int) -> tuple[Array, Array] | None:
        return c, np.zeros(1)


@dataclass(frozen=True)
class Div(Binary):
    """y = a / b."""

    name: ClassVar[str] = "div"
    symbol: ClassVar[str] = "/"
    neutral: ClassVar[float] = 1

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0] / tensors[1]

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
class Unary(Op):
    """A function of one element. `c` is its TVMScript expression in x[i]; one with attributes has an `expression`."""

    axes: ClassVar[Any] = "...->..."
    examples: ClassVar[tuple[str, ...]] = ("float32[2,3,4]",)
    inplace: ClassVar[tuple[int, ...]] = (0,)
    #: the function is constant below the first and above the second
    varies: ClassVar[tuple[float, float]] = (-np.inf, np.inf)
    c: ClassVar[str]
    torch_function: ClassVar[Any]

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(x.dtype is DType.F32, f"expected float32, found {x.dtype.value}")
        return (replace(x, quant=None),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return type(self).torch_function(tensors[0])  # type: ignore[no-any-return]

    def expression(self) -> str:
        """TVMScript of the result in x[i]."""
        return self.c

    def lower(self, site: Site) -> Kernel:
        n = site.inputs[0].size
        body = f"for i in T.parallel({n}):\n    y[i] = {self.expression()}"
        return Kernel(body, (("x", (n,), "float32"), ("y", (n,), "float32")))

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The least and the largest value that a clamp lets through; None for any other function."""
        return None

    def following(self, before: Op, x: TensorType, alone: bool) -> Op | None:
        """One clamp for two: the one before where it suffices, else a new one where nothing reads what lies between."""
        if not isinstance(before, Unary) or before.bounds is None or self.bounds is None:
            return None
        both = clamp_between(*(min(max(b, self.bounds[0]), self.bounds[1]) for b in before.bounds))
        return before if both == before else both if alone else None

    def permuted(self, perm: Sequence[int], types: Sequence[TensorType]) -> Op | None:
        return self


def extern(function: str, argument: str) -> str:
    """A float function of edgec_math.h applied to an expression."""
    return f'T.call_extern("float32", "edgec_{function}", {argument})'


def activate(t: torch.Tensor, activation: str) -> torch.Tensor:
    """An activation that `fuse` moved into the op before it; "" is none."""
    if not activation:
        return t
    activated: torch.Tensor = ACTIVATIONS[activation].torch_function(t)
    return activated


def activation_text(activation: str, element: str, indent: str) -> str:
    """The statement that applies it to one finished element; empty for none."""
    if not activation:
        return ""
    return f"\n{indent}{element} = " + ACTIVATIONS[activation].c.replace("x[i]", element)


def check_activation(activation: str) -> None:
    """ValueError for a name that is no activation."""
    known = sorted(ACTIVATIONS)
    need(not activation or activation in ACTIVATIONS, f"expected activation one of {known}, found {activation!r}")


@dataclass(frozen=True)
class Relu(Unary):
    """max(x, 0)."""

    name: ClassVar[str] = "relu"
    monotone: ClassVar[bool] = True
    c: ClassVar[str] = "T.max(x[i], T.float32(0))"
    torch_function: ClassVar[Any] = staticmethod(torch.relu)

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, np.inf


@dataclass(frozen=True)
class Relu6(Unary):
    """min(max(x, 0), 6)."""

    name: ClassVar[str] = "relu6"
    monotone: ClassVar[bool] = True
    c: ClassVar[str] = "T.min(T.max(x[i], T.float32(0)), T.float32(6))"
    torch_function: ClassVar[Any] = staticmethod(torch.nn.functional.relu6)

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, 6.0


@dataclass(frozen=True)
class Gelu(Unary):
    """x * Phi(x), the erf form."""

    name: ClassVar[str] = "gelu"
    c: ClassVar[str] = (
        "T.float32(0.5) * x[i] * (T.float32(1) + " + extern("erff", "x[i] * T.float32(0.7071067811865476)") + ")"
    )
    torch_function: ClassVar[Any] = staticmethod(torch.nn.functional.gelu)


@dataclass(frozen=True)
class Sigmoid(Unary):
    """1 / (1 + exp(-x))."""

    name: ClassVar[str] = "sigmoid"
    c: ClassVar[str] = "T.float32(1) / (T.float32(1) + " + extern("expf", "T.float32(0) - x[i]") + ")"
    torch_function: ClassVar[Any] = staticmethod(torch.sigmoid)


@dataclass(frozen=True)
class Tanh(Unary):
    """tanh(x)."""

    name: ClassVar[str] = "tanh"
    c: ClassVar[str] = extern("tanhf", "x[i]")
    torch_function: ClassVar[Any] = staticmethod(torch.tanh)


@dataclass(frozen=True)
class Sqrt(Unary):
    """The square root."""

    name: ClassVar[str] = "sqrt"
    c: ClassVar[str] = extern("sqrtf", "x[i]")
    torch_function: ClassVar[Any] = staticmethod(torch.sqrt)


@dataclass(frozen=True)
class Clip(Unary):
    """min(max(x, low), high); a bound of None is absent."""

    name: ClassVar[str] = "clip"
    examples: ClassVar[tuple[str, ...]] = ("float32[2,3,4] {low=-0.5,high=1.0}", "float32[3] {high=0.5}")
    low: float | None = None
    high: float | None = None

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0].clamp(*self.bounds)

    def expression(self) -> str:
        value = "x[i]"
        if self.low is not None:
            value = f"T.max({value}, T.float32({self.low!r}))"
        if self.high is not None:
            value = f"T.min({value}, T.float32({self.high!r}))"
        return value

    @property
    def bounds(self) -> tuple[float, float]:
        return -np.inf if self.low is None else self.low, np.inf if self.high is None else self.high

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
ACTIVATIONS: dict[str, type[Unary]] = {a.name: a for a in (Relu, Relu6, Gelu, Sigmoid, Tanh)}
