"""What the expressions of `Map` are made of: each operation in torch, as a kernel's text and on intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgec.ir.types import DType

Range = tuple[Any, Any]  # lowest and highest: numbers or arrays
Rule = Callable[..., Range]

FLOAT = (DType.F32,)
NUMERIC = (DType.F32, DType.I32)
BITS = (DType.BOOL, DType.I32)
ANY = (*NUMERIC, DType.BOOL)


@dataclass(frozen=True)
class Operation:
    """`arity` operands (negative: that many or more) of one type among `takes`; the result is of that type, or what it
    `gives`. Texts are TVMScript: {0}, {1} are operands, {t} their element type; `int_text` and `bool_text` are for
    operands of those types where they differ. `called`: it is written as a call."""

    arity: int
    takes: tuple[DType, ...]
    torch: Callable[..., torch.Tensor]
    text: str
    int_text: str = ""
    bool_text: str = ""
    interval: Rule | None = None
    gives: DType | None = None
    called: bool = True

    def text_for(self, dtype: DType) -> str:
        """Its text on operands of a type."""
        if dtype.is_float:
            return self.text
        return (self.bool_text if dtype is DType.BOOL else "") or self.int_text or self.text


def wrapped(y: torch.Tensor, dtype: DType) -> torch.Tensor:
    """Integers brought back into the range of their type, as two's complement does."""
    low, high = dtype.range
    return torch.remainder(y.long() - low, high - low + 1) + low


def extern(function: str, kind: str = "float32", *arguments: str) -> str:
    """A call of a function of edgec_math.h or edgec_map.h."""
    return f'T.call_extern("{kind}", "edgec_{function}", {", ".join(arguments or ("{0}",))})'


def extern2(function: str, kind: str = "float32") -> str:
    """A call of one of two operands."""
    return extern(function, kind, "{0}", "{1}")


def wrapping(symbol: str) -> str:
    """Arithmetic that wraps around: unsigned, as signed overflow is undefined in C."""
    return f'T.cast(T.cast({{0}}, "uint32") {symbol} T.cast({{1}}, "uint32"), "int32")'


def monotone(function: Callable[[Any], Any]) -> Rule:
    """The interval of a function that nowhere falls, one step of rounding wider."""

    def rule(x: Range) -> Range:
        with np.errstate(all="ignore"):
            lo, hi = (function(np.float64(v)) for v in x)
        return np.nextafter(lo, -np.inf), np.nextafter(hi, np.inf)

    return rule


def steps(function: Callable[[Any], Any]) -> Rule:
    """The interval of an exact function that nowhere falls."""
    return lambda x: (function(x[0]), function(x[1]))


def total(a: Range, b: Range) -> Range:
    """A sum, one step of rounding wider where it is rounded."""

    def end(x: Any, y: Any, outwards: float) -> Any:
        x, y = np.float64(x), np.float64(y)
        with np.errstate(invalid="ignore"):
            s = x + y
            exact = np.isinf(s) | ((s - x == y) & (s - y == x)) | ((a[0] == a[1]) & (b[0] == b[1]))
        return np.where(exact, s, np.nextafter(s, outwards))

    return end(a[0], b[0], -np.inf), end(a[1], b[1], np.inf)


def times(a: Any, b: Any) -> Any:
    """A product of bounds, where 0 times an infinite bound is 0: no value is infinite."""
    with np.errstate(invalid="ignore"):
        return np.where((np.asarray(a) == 0) | (np.asarray(b) == 0), 0.0, np.multiply(a, b))


def product(a: Range, b: Range) -> Range:
    """A product: an end is where two ends meet."""
    corners = [times(x, y) for x in a for y in b]
    return np.minimum.reduce(corners), np.maximum.reduce(corners)


def quotient(a: Range, b: Range) -> Range:
    """A quotient; anything where the divisor may be 0."""
    with np.errstate(all="ignore"):
        inverse = 1 / np.float64(b[1]), 1 / np.float64(b[0])
    lo, hi = product(a, inverse)
    apart = np.logical_or(np.asarray(b[0]) > 0, np.asarray(b[1]) < 0)
    return np.where(apart, lo, -np.inf), np.where(apart, hi, np.inf)


def chosen(condition: Range, yes: Range, no: Range) -> Range:
    """One of two, or either where the condition is open."""
    lo = np.where(condition[0] == 1, yes[0], np.where(condition[1] == 0, no[0], np.minimum(yes[0], no[0])))
    return lo, np.where(condition[0] == 1, yes[1], np.where(condition[1] == 0, no[1], np.maximum(yes[1], no[1])))


def below(a: Range, b: Range) -> Range:
    """a < b: 0 or 1."""
    return np.where(np.asarray(a[1]) < b[0], 1, 0), np.where(np.asarray(a[0]) < b[1], 1, 0)


def division(rounding: str) -> Callable[..., torch.Tensor]:
    """Rounded division, of integers too, where one by zero is 0."""

    def divide(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if a.is_floating_point():
            return torch.div(a, b, rounding_mode=rounding)
        return torch.where(b == 0, 0, torch.div(a, torch.where(b == 0, 1, b), rounding_mode=rounding))

    return divide


def remainder(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A remainder, of integers too, where one by zero is 0."""

    def rest(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (
            function(a, b) if a.is_floating_point() else torch.where(b == 0, 0, function(a, torch.where(b == 0, 1, b)))
        )

    return rest


def power(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a ** b; of integers 1 / a ** -b towards zero where b is negative."""
    if a.is_floating_point():
        return torch.pow(a, b)
    small = torch.where(a == 1, 1, torch.where(a == -1, 1 - 2 * (b & 1), 0))
    return torch.where(b < 0, small, torch.pow(a, b.clamp(min=0)))


def shift(left: bool) -> Callable[..., torch.Tensor]:
    """A shift of int32; by less than 0 or more than 31 places nothing is left but the sign, to the right."""

    def shifted(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        beyond = (b < 0) | (b > 31)
        return torch.where(beyond, 0, a << b.clamp(0, 31)) if left else a >> torch.where(beyond, 31, b)

    return shifted


def to_integer(x: torch.Tensor) -> torch.Tensor:
    """Towards zero; beyond int32 its ends, not a number 0."""
    if not x.is_floating_point():
        return x.long()
    low, high = DType.I32.range
    return x.double().nan_to_num(0.0, high, low).clamp(low, high).long()


def cast(dtype: DType) -> Operation:
    """A conversion to an integer type, which wraps around."""
    through = f'T.cast({extern("map_to_i32", "int32")}, "{dtype.storage}")'
    return Operation(1, ANY, to_integer, through, f'T.cast({{0}}, "{dtype.storage}")', gives=dtype)


def _compare(symbol: str, function: Callable[..., torch.Tensor], rule: Rule | None, equal: bool = False) -> Operation:
    takes = ANY if equal else NUMERIC
    return Operation(2, takes, function, f"({{0}} {symbol} {{1}})", interval=rule, gives=DType.BOOL, called=False)


CASTS: Mapping[str, Operation] = {
    "float": Operation(1, ANY, lambda x: x.float(), 'T.cast({0}, "float32")', interval=lambda x: x, gives=DType.F32),
    "bool": Operation(1, ANY, lambda x: x != 0, "({0} != T.float32(0))", "({0} != 0)", "{0}", gives=DType.BOOL),
    "int": cast(DType.I32),
    "int16": cast(DType.I16),
    "int8": cast(DType.I8),
    "uint8": cast(DType.U8),
}


def _float(function: str, in_torch: Callable[..., torch.Tensor], rule: Rule | None = None) -> Operation:
    return Operation(1, FLOAT, in_torch, extern(function), interval=rule)


def _logic(name: str, symbol: str, function: Callable[..., torch.Tensor]) -> Operation:
    logic = f"T.{name}({{0}}, {{1}})" if name else "({0} != {1})"
    return Operation(2, BITS, function, f"({{0}} {symbol} {{1}})", bool_text=logic, called=False)


_IN_RANGE = "T.And({1} >= 0, {1} < 32)"

OPERATIONS: Mapping[str, Operation] = {
    "add": Operation(
        2, NUMERIC, torch.add, "({0} + {1})", wrapping("+"), called=False,
        interval=total,
    ),
    "sub": Operation(
        2, NUMERIC, torch.sub, "({0} - {1})", wrapping("-"), called=False,
        interval=lambda a, b: total(a, (-b[1], -b[0])),
    ),
    "mul": Operation(2, NUMERIC, torch.mul, "({0} * {1})", wrapping("*"), called=False, interval=product),
    "div": Operation(2, FLOAT, torch.div, "({0} / {1})", called=False, interval=quotient),
    "neg": Operation(
        1, NUMERIC, torch.neg, "({0} * T.float32(-1))", 'T.cast(T.uint32(0) - T.cast({0}, "uint32"), "int32")',
        called=False, interval=lambda x: (-x[1], -x[0]),
    ),
    "floor_div": Operation(
        2, NUMERIC, division("floor"), extern("floorf", "float32", "{0} / {1}"), extern2("map_floor_div", "int32"),
        called=False,
    ),
    "trunc_div": Operation(
        2, NUMERIC, division("trunc"), extern("map_truncf", "float32", "{0} / {1}"), extern2("map_trunc_div", "int32")
    ),
    "mod": Operation(
        2, NUMERIC, remainder(torch.remainder), extern2("map_floor_modf"), extern2("map_floor_mod", "int32"),
        called=False,
    ),
    "fmod": Operation(
        2, NUMERIC, remainder(torch.fmod), extern2("map_fmodf"), extern2("map_trunc_mod", "int32")
    ),
    "pow": Operation(2, NUMERIC, power, extern2("map_powf"), extern2("map_powi", "int32")),
    "min": Operation(
        -2, NUMERIC, torch.minimum, "T.min({0}, {1})",
        interval=lambda a, b: (np.minimum(a[0], b[0]), np.minimum(a[1], b[1])),
    ),
    "max": Operation(
        -2, NUMERIC, torch.maximum, "T.max({0}, {1})",
        interval=lambda a, b: (np.maximum(a[0], b[0]), np.maximum(a[1], b[1])),
    ),
    "where": Operation(3, ANY, torch.where, "T.if_then_else({0}, {1}, {2})", interval=chosen),
    "lt": _compare("<", torch.lt, below),
    "gt": _compare(">", torch.gt, lambda a, b: below(b, a)),
    "le": _compare("<=", torch.le, lambda a, b: (1 - below(b, a)[1], 1 - below(b, a)[0])),
    "ge": _compare(">=", torch.ge, lambda a, b: (1 - below(a, b)[1], 1 - below(a, b)[0])),
    "eq": _compare("==", torch.eq, None, equal=True),
    "ne": _compare("!=", torch.ne, None, equal=True),
    "and": _logic("And", "&", torch.bitwise_and),
    "or": _logic("Or", "|", torch.bitwise_or),
    "xor": _logic("", "^", torch.bitwise_xor),
    "not": Operation(1, BITS, torch.bitwise_not, "T.bitwise_not({0})", bool_text="T.Not({0})", called=False),
    "shift_left": Operation(
        2, (DType.I32,), shift(True), f"T.if_then_else({_IN_RANGE}, {wrapping('<<')}, 0)", called=False
    ),
    "shift_right": Operation(
        2, (DType.I32,), shift(False), f"{{0}} >> T.if_then_else({_IN_RANGE}, {{1}}, 31)", called=False
    ),
    "sign": Operation(
        1, NUMERIC, torch.sign, "T.if_then_else({0} > T.{t}(0), T.{t}(1), T.if_then_else({0} < T.{t}(0), T.{t}(-1), "
        "T.{t}(0)))", interval=steps(np.sign),
    ),
    "floor": _float("floorf", torch.floor, steps(np.floor)),
    "ceil": _float("map_ceilf", torch.ceil, steps(np.ceil)),
    "round": _float("roundf", torch.round, steps(np.round)),
    "trunc": _float("map_truncf", torch.trunc, steps(np.trunc)),
    "exp": _float("expf", torch.exp, monotone(np.exp)),
    "log": _float("logf", torch.log, monotone(np.log)),
    "sqrt": _float("sqrtf", torch.sqrt, monotone(np.sqrt)),
    "tanh": _float("tanhf", torch.tanh, monotone(np.tanh)),
    "atan": _float("map_atanf", torch.atan, monotone(np.arctan)),
    "erf": _float("erff", torch.erf),
    "sin": _float("map_sinf", torch.sin),
    "cos": _float("map_cosf", torch.cos),
    "isnan": Operation(1, FLOAT, torch.isnan, f'({extern("map_isnanf", "int32")} != 0)', gives=DType.BOOL),
    "isinf": Operation(1, FLOAT, torch.isinf, f'({extern("map_isinff", "int32")} != 0)', gives=DType.BOOL),
    **CASTS,
}  # fmt: skip
