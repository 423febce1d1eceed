"""Activations and functions of one element beside those that layers take over (`elementwise`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from edgec.ops.elementwise import Unary, extern

ZERO = "T.float32(0)"
BELOW = f"T.min(x[i], {ZERO})"
ABOVE = f"T.max(x[i], {ZERO})"
#: log(1 + exp(x)) without overflow
SOFTPLUS = f"{ABOVE} + " + extern("logf", "T.float32(1) + " + extern("expf", f"T.min(x[i], {ZERO} - x[i])"))
SIX = "T.min(T.max(x[i] + T.float32(3), T.float32(0)), T.float32(6)) / T.float32(6)"


def number(value: float) -> str:
    """A constant in TVMScript."""
    return f"T.float32({float(value)!r})"


@dataclass(frozen=True)
class Abs(Unary):
    """|x|."""

    name: ClassVar[str] = "abs"
    c: ClassVar[str] = f"T.max(x[i], {ZERO} - x[i])"
    torch_function: ClassVar[Any] = staticmethod(torch.abs)


@dataclass(frozen=True)
class Exp(Unary):
    """exp(x)."""

    name: ClassVar[str] = "exp"
    c: ClassVar[str] = extern("expf", "x[i]")
    torch_function: ClassVar[Any] = staticmethod(torch.exp)


@dataclass(frozen=True)
class Log(Unary):
    """The natural logarithm."""

    name: ClassVar[str] = "log"
    c: ClassVar[str] = extern("logf", "x[i]")
    torch_function: ClassVar[Any] = staticmethod(torch.log)


@dataclass(frozen=True)
class Hardsigmoid(Unary):
    """relu6(x + 3) / 6."""

    name: ClassVar[str] = "hardsigmoid"
    varies: ClassVar[tuple[float, float]] = (-3.0, 3.0)
    c: ClassVar[str] = SIX
    torch_function: ClassVar[Any] = staticmethod(F.hardsigmoid)


@dataclass(frozen=True)
class Hardswish(Unary):
    """x * relu6(x + 3) / 6."""

    name: ClassVar[str] = "hardswish"
    varies: ClassVar[tuple[float, float]] = (-3.0, np.inf)
    c: ClassVar[str] = f"x[i] * ({SIX})"
    torch_function: ClassVar[Any] = staticmethod(F.hardswish)


@dataclass(frozen=True)
class Silu(Unary):
    """x / (1 + exp(-x))."""

    name: ClassVar[str] = "silu"
    c: ClassVar[str] = "x[i] / (T.float32(1) + " + extern("expf", f"{ZERO} - x[i]") + ")"
    torch_function: ClassVar[Any] = staticmethod(F.silu)


@dataclass(frozen=True)
class Mish(Unary):
    """x * tanh(log(1 + exp(x)))."""

    name: ClassVar[str] = "mish"
    c: ClassVar[str] = "x[i] * " + extern("tanhf", SOFTPLUS)
    torch_function: ClassVar[Any] = staticmethod(F.mish)


@dataclass(frozen=True)
class GeluTanh(Unary):
    """x * Phi(x), the form with tanh."""

    name: ClassVar[str] = "gelu_tanh"
    c: ClassVar[str] = (
        "T.float32(0.5) * x[i] * (T.float32(1) + "
        + extern("tanhf", "T.float32(0.7978845608) * x[i] * (T.float32(1) + T.float32(0.044715) * x[i] * x[i])")
        + ")"
    )
    torch_function: ClassVar[Any] = staticmethod(lambda x: F.gelu(x, approximate="tanh"))


@dataclass(frozen=True)
class Softplus(Unary):
    """log(1 + exp(beta * x)) / beta."""

    name: ClassVar[str] = "softplus"
    beta: float = 1.0

    def expression(self) -> str:
        beta = number(self.beta)
        return f"({SOFTPLUS.replace('x[i]', f'(x[i] * {beta})')}) / {beta}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return F.softplus(tensors[0], self.beta)


@dataclass(frozen=True)
class LeakyRelu(Unary):
    """x above 0, slope * x below."""

    name: ClassVar[str] = "leaky_relu"
    slope: float = 0.01

    def expression(self) -> str:
        return f"{ABOVE} + {number(self.slope)} * {BELOW}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(tensors[0], self.slope)


@dataclass(frozen=True)
class Elu(Unary):
    """gain * x above 0, gain * alpha * (exp(rate * x) - 1) below: ELU, SELU and CELU."""

    name: ClassVar[str] = "elu"
    alpha: float = 1.0
    gain: float = 1.0
    rate: float = 1.0

    def expression(self) -> str:
        low = extern("expf", f"{BELOW} * {number(self.rate)}")
        return f"{number(self.gain)} * ({ABOVE} + {number(self.alpha)} * ({low} - T.float32(1)))"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        low = self.alpha * torch.expm1(tensors[0].clamp(max=0) * self.rate)
        return self.gain * (tensors[0].clamp(min=0) + low)
