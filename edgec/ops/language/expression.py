"""The expression language of `Map`: Python's spelling, parsed once to a tree, which is read in three ways:
as torch (the reference), as a kernel's text, and as an interval (what values can come out).

    where(a > 0, a, 0.1 * a)

The letters a, b, c, ... are the operands in order. Literal numbers take the type of what they meet; float32, integers
and bool do not meet: float(), int(), bool() convert. Integers compute as int32, which wraps around, whatever type they
are stored in; uint8(), int8() and int16() store the result so. A division of integers by zero is 0.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from string import ascii_lowercase
from typing import Any

import torch

from edgec.ir.types import DType
from edgec.ops.language.functions import FUNCTIONS
from edgec.ops.language.operations import CASTS, OPERATIONS, Range, wrapped

#: operators of Python, and the operation each is
OPERATORS: Mapping[type[ast.AST], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.FloorDiv: "floor_div", ast.Mod: "mod",
    ast.Pow: "pow", ast.LShift: "shift_left", ast.RShift: "shift_right",
    ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor", ast.USub: "neg", ast.Invert: "not",
    ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne",
}  # fmt: skip
NARROW = (DType.U8, DType.I8, DType.I16)
JUMP = 1e-6
NUMBERS: Mapping[str, float] = {"inf": math.inf, "pi": math.pi}
FIXED = frozenset(kind for kind, operation in OPERATIONS.items() if kind.isidentifier() and operation.called)


@dataclass(frozen=True)
class Term:
    """A node of the tree: an operation on terms, "operand" number `value`, or the "number" `value`. `dtype` is known
    once the operands' are; of a number that met none it is None."""

    kind: str
    args: tuple[Term, ...] = ()
    value: float = 0
    dtype: DType | None = None


def number(value: float) -> Term:
    """A literal number."""
    return Term("number", value=value)


@lru_cache(maxsize=1024)
def parse(text: str) -> Term:
    """The tree of an expression. ValueError says what is no expression."""
    names = {letter: Term("operand", value=k) for k, letter in enumerate(ascii_lowercase)}
    names |= {name: number(value) for name, value in NUMBERS.items()}
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
        raise ValueError(f"expected an expression such as 'where(a > b, a, 2 * b)', found {text!r}") from err
    return _term(tree, names)


def _term(node: ast.AST, names: Mapping[str, Term]) -> Term:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return number(node.value)
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.UnaryOp | ast.BinOp) and type(node.op) in OPERATORS:
        operands = [node.operand] if isinstance(node, ast.UnaryOp) else [node.left, node.right]
        return operation(OPERATORS[type(node.op)], *(_term(x, names) for x in operands))
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OPERATORS:
        return operation(OPERATORS[type(node.ops[0])], _term(node.left, names), _term(node.comparators[0], names))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        given = {str(k.arg): _term(k.value, names) for k in node.keywords}
        return _call(node.func.id, [_term(x, names) for x in node.args], given)
    raise ValueError(f"{ast.unparse(node)!r} is no part of an expression: operands are a, b, c, ... in order")


def _call(name: str, args: list[Term], given: Mapping[str, Term]) -> Term:
    """A call of an operation, or of a function of the table, whose expression takes its place."""
    if name in FIXED and not given:
        return operation(name, *args)
    if name not in SIGNATURES:
        raise ValueError(f"unknown function {name}; functions: {', '.join(sorted({*FIXED, *SIGNATURES}))}")
    letters, parameters, text = SIGNATURES[name]
    if len(args) != len(letters) or not given.keys() <= parameters.keys():
        raise ValueError(f"expected {name}({', '.join([*letters, *parameters])}), found {len(args)} operands")
    if any(v.kind != "number" for v in given.values()):
        raise ValueError(f"a parameter of {name} is computed, expected a number")
    inner = {k: number(v) for k, v in {**NUMBERS, **parameters}.items()}
    return _term(ast.parse(text, mode="eval").body, {**inner, **given, **dict(zip(letters, args, strict=True))})


def signature(text: str) -> tuple[str, tuple[str, ...], dict[str, float]]:
    """Name, operands and parameters with their defaults of `name(a, slope=0.1)`."""
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    letters = tuple(ast.unparse(x) for x in call.args)
    return ast.unparse(call.func), letters, {str(k.arg): float(ast.literal_eval(k.value)) for k in call.keywords}


#: name -> operands, parameters with their defaults, expression
SIGNATURES: dict[str, tuple[tuple[str, ...], dict[str, float], str]] = {}
for _key, _text in FUNCTIONS.items():
    _function, _letters, _defaults = signature(_key)
    SIGNATURES[_function] = _letters, _defaults, _text


def operation(kind: str, *args: Term) -> Term:
    """An operation on terms, computed at once where all of them are numbers."""
    found = OPERATIONS[kind]
    if len(args) != found.arity and not (found.arity < 0 and len(args) >= 2):
        raise ValueError(f"{kind} takes {abs(found.arity)} operands, found {len(args)}")
    if found.arity < 0 and len(args) > 2:  # min and max of several
        return operation(kind, operation(kind, *args[:-1]), args[-1])
    if kind == "pow" and args[1].kind == "number" and args[1].value in POWERS:
        return POWERS[args[1].value](args[0])
    if all(a.kind == "number" for a in args) and kind not in CASTS:
        exact = all(isinstance(a.value, int) for a in args) and kind != "div"
        values = [torch.tensor(a.value, dtype=torch.int64 if exact else torch.float64) for a in args]
        return number(found.torch(*values).item())
    return Term(kind, args)


#: powers that are cheaper than pow
POWERS: Mapping[float, Callable[[Term], Term]] = {
    1: lambda x: x,
    2: lambda x: operation("mul", x, x),
    3: lambda x: operation("mul", operation("mul", x, x), x),
    0.5: lambda x: operation("sqrt", x),
    -1: lambda x: operation("div", number(1), x),
    -0.5: lambda x: operation("div", number(1), operation("sqrt", x)),
}


def operands(term: Term) -> frozenset[int]:
    """The numbers of the operands that a tree reads."""
    own = [int(term.value)] if term.kind == "operand" else []
    return frozenset(own).union(*(operands(a) for a in term.args))


def typed(term: Term, dtypes: Sequence[DType], wanted: DType | None = None) -> Term:
    """The tree with every term's type, given the operands'. ValueError names what does not meet."""
    if term.kind == "operand":
        return replace(term, dtype=dtypes[int(term.value)])
    if term.kind == "number":
        return replace(term, dtype=wanted)
    args, found = [_promoted(typed(a, dtypes)) for a in term.args], OPERATIONS[term.kind]
    start = 1 if term.kind == "where" else 0
    if start and args[0].dtype is not DType.BOOL:
        raise ValueError(f"the condition of where is {_name(args[0].dtype)}, expected bool")
    kinds = {a.dtype for a in args[start:] if a.dtype is not None}
    if len(kinds) > 1:
        names = " and ".join(sorted(k.value for k in kinds))
        raise ValueError(f"{term.kind} of {names}: convert one, as in float(a) or int(a)")
    meets = kinds.pop() if kinds else wanted or _of_numbers(args[start:])
    if meets not in found.takes:
        raise ValueError(f"{term.kind} takes {', '.join(t.value for t in found.takes)}, found {_name(meets)}")
    args = [a if a.dtype is not None else typed(a, dtypes, meets) for a in args]
    if not meets.is_float and any(a.kind == "number" and a.value != int(a.value) for a in args):
        raise ValueError(f"{term.kind} of {meets.value} and a number with a fraction: convert with float()")
    return replace(term, args=tuple(args), dtype=found.gives or meets)


def _promoted(term: Term) -> Term:
    """A term as one computes with it: of a narrow integer in int32."""
    return Term("int", (term,), dtype=DType.I32) if term.dtype in NARROW else term


def _of_numbers(args: Sequence[Term]) -> DType:
    """The type of literal numbers that meet nothing else."""
    return DType.I32 if all(isinstance(a.value, int) for a in args) else DType.F32


def _name(dtype: DType | None) -> str:
    return "a number" if dtype is None else dtype.value


def evaluate(term: Term, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """A tree on tensors: float32, int64 for integers, bool for bool."""

    def kind(x: torch.Tensor) -> DType:
        return DType.F32 if x.is_floating_point() else DType.BOOL if x.dtype is torch.bool else DType.I32

    return _value(typed(term, [kind(x) for x in tensors]), tensors)


def _value(term: Term, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    assert term.dtype is not None
    if term.kind == "operand":
        return tensors[int(term.value)]
    if term.kind == "number":
        kind = torch.float32 if term.dtype.is_float else torch.bool if term.dtype is DType.BOOL else torch.int64
        return torch.tensor(term.value, dtype=kind)
    y: torch.Tensor = OPERATIONS[term.kind].torch(*(_value(a, tensors) for a in term.args))
    return wrapped(y, term.dtype) if term.dtype.is_integer else y


def kernel_text(term: Term, operand: Sequence[str]) -> str:
    """A typed tree as TVMScript; `operand` spells each operand's element."""
    assert term.dtype is not None
    if term.kind == "operand":
        text = operand[int(term.value)]
        return f"({text} != T.uint8(0))" if term.dtype is DType.BOOL else text
    if term.kind == "number":
        return literal(term.value, term.dtype)
    args, inner = [kernel_text(a, operand) for a in term.args], term.args[-1].dtype
    assert inner is not None
    return OPERATIONS[term.kind].text_for(inner).format(*args, t=inner.storage)


def literal(value: float, dtype: DType) -> str:
    """A constant in TVMScript."""
    if dtype is DType.BOOL:
        return f"T.bool({bool(value)})"
    if not dtype.is_float:
        return f"T.{dtype.storage}({int(value)})"
    return f"T.float32({float(value)!r})" if math.isfinite(value) else f'T.float32("{value}")'


def interval(term: Term, ranges: Sequence[Range]) -> Range:
    """What values a tree can have, given those its operands can have: arrays or numbers, lowest and highest."""
    if term.kind == "operand":
        return ranges[int(term.value)]
    if term.kind == "number":
        return float(term.value), float(term.value)
    rule: Any = OPERATIONS[term.kind].interval
    return (-math.inf, math.inf) if rule is None else rule(*(interval(a, ranges) for a in term.args))


def varies(term: Term) -> tuple[float, float]:
    """Where a function of one operand is not constant: it is below the first and above the second of these. Of a jump
    everywhere: rounding must not cross it."""

    def is_constant(span: Range) -> bool:
        lo, hi = interval(term, [span])
        return bool(lo == hi)

    low = _edge(lambda r: is_constant((-math.inf, r)), -1.0)
    high = _edge(lambda r: is_constant((r, math.inf)), 1.0)
    return (low, high) if high - low > JUMP else (-math.inf, math.inf)


def _edge(holds: Callable[[float], bool], sign: float, far: float = 1e4) -> float:
    """The end of what `holds` from sign * infinity on, to the last bit."""
    if not holds(sign * far):
        return sign * math.inf
    inside, outside = sign * far, -sign * far
    while (middle := (inside + outside) / 2) not in (inside, outside):
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return inside
