"""Expressions of lowered TIR as C. Nodes are told apart by class name, so this module needs no `import tvm`.

TVM's own C printer is not used: it writes float constants with seven digits and infinity as `inff`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

C_TYPES = {
    "int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "int64": "int64_t",
    "uint8": "uint8_t", "uint16": "uint16_t", "uint32": "uint32_t", "uint64": "uint64_t", "float32": "float",
}  # fmt: skip
#: types C promotes to int before it computes: results must be cast back
NARROW = frozenset({"int8", "int16", "uint8", "uint16"})
#: short names of the types the min and max helpers exist for
_HELPER_TYPES = {"int32": "i32", "int64": "i64", "uint32": "u32", "uint64": "u64", "float32": "f32"}

PRIMARY, UNARY, MUL, ADD, SHIFT, COMPARE, EQUAL, AND, XOR, OR, LOGIC_AND, LOGIC_OR, TERNARY = range(13, 0, -1)
_BINARY = {
    "Add": ("+", ADD), "Sub": ("-", ADD), "Mul": ("*", MUL), "Div": ("/", MUL), "Mod": ("%", MUL),
    "LShift": ("<<", SHIFT), "RShift": (">>", SHIFT), "BitwiseAnd": ("&", AND), "BitwiseXor": ("^", XOR),
    "BitwiseOr": ("|", OR), "LT": ("<", COMPARE), "LE": ("<=", COMPARE), "GT": (">", COMPARE), "GE": (">=", COMPARE),
    "EQ": ("==", EQUAL), "NE": ("!=", EQUAL), "And": ("&&", LOGIC_AND), "Or": ("||", LOGIC_OR),
}  # fmt: skip
_FLIPPED = {"LT": ">", "LE": ">=", "GT": "<", "GE": "<="}
Externs = dict[str, tuple[str, tuple[str, ...]]]  # function: result type, argument types ("int8*": a pointer)
Text = tuple[str, int]  # C text and the precedence of its outermost operator


class Unsupported(Exception):
    """A TIR node that has no C form; the caller names the kernel."""


def kind_of(node: Any) -> str:
    """Class name of a TIR node."""
    return type(node).__name__


def call_name(call: Any) -> str:
    """What a call calls, without the dialect in front (`tirx.`, `prim.`)."""
    return str(call.op.name).rpartition(".")[2]


def dtype_of(node: Any) -> str:
    """Element type of an expression or buffer variable."""
    return str(node.ty.dtype)


def literal(value: float, dtype: str) -> Text:
    """A number of a TIR type; a float32 in the fewest digits that give back its bits."""
    if dtype == "float32":
        return _float_literal(value)
    number = int(value)
    if dtype in ("int32", "int64") and number == -(1 << (int(dtype[3:]) - 1)):
        return f"{dtype.upper()}_MIN", PRIMARY
    digits = str(abs(number))
    if dtype in ("int64", "uint64"):
        digits = f"{dtype.upper()}_C({digits})"
    elif dtype == "uint32":
        digits += "u"
    return (f"-{digits}", UNARY) if number < 0 else (digits, PRIMARY)


def _float_literal(value: float) -> Text:
    single = np.float32(value)
    if math.isnan(single):
        return '__builtin_nanf("")', PRIMARY
    sign, prec = ("-", UNARY) if math.copysign(1.0, single) < 0 else ("", PRIMARY)
    if math.isinf(single):
        return f"{sign}__builtin_inff()", prec
    text = str(abs(single))
    return f"{sign}{text}{'' if '.' in text or 'e' in text else '.0'}f", prec


def paren(text: Text, least: int) -> str:
    """The text, in parentheses where its operator binds less than `least`."""
    return text[0] if text[1] >= least else f"({text[0]})"


class ExprPrinter:
    """Prints expressions. `names` maps a variable's hash to its C text; what is called is kept for the caller."""

    def __init__(self) -> None:
        self.names: dict[int, Text] = {}
        self.scalars: set[int] = set()  # local buffers of one element, printed as plain variables
        self.helpers: set[str] = set()
        self.externs: Externs = {}

    def text(self, e: Any) -> str:
        return self.expr(e)[0]

    def expr(self, e: Any) -> Text:
        kind = kind_of(e)
        if kind in _BINARY:
            return self._binary(e, kind)
        method = getattr(self, f"_{kind.lower()}", None)
        if method is None:
            raise Unsupported(f"{kind} has no C form: {e}")
        return method(e)  # type: ignore[no-any-return]

    def value(self, e: Any, dtype: str) -> str:
        """An expression about to be stored as `dtype`."""
        text = self.expr(e)
        if dtype in NARROW and dtype_of(e) == "bool":
            return f"({C_TYPES[dtype]}){paren(text, UNARY)}"
        return text[0]

    def _intimm(self, e: Any) -> Text:
        return literal(e.value, dtype_of(e))

    def _floatimm(self, e: Any) -> Text:
        if dtype_of(e) != "float32":
            raise Unsupported(f"kernels compute in float32 or integers, found {dtype_of(e)}")
        return literal(e.value, "float32")

    def _var(self, e: Any) -> Text:
        return self.names[hash(e)]

    def element(self, buffer: Any, indices: Any) -> Text:
        """One element of a flat buffer."""
        name = paren(self.names[hash(buffer)], PRIMARY)
        if hash(buffer) in self.scalars:
            return name, PRIMARY
        (index,) = indices
        return f"{name}[{self.text(index)}]", PRIMARY

    def _tensorload(self, e: Any) -> Text:
        return self.element(e.source, e.indices)

    def _cast(self, e: Any) -> Text:
        to, inner = dtype_of(e), self.expr(e.value)
        if to == "bool":
            return f"{paren(inner, COMPARE)} != 0", EQUAL
        return f"({self.ctype(to)}){paren(inner, UNARY)}", UNARY

    def ctype(self, dtype: str) -> str:
        if dtype not in C_TYPES:
            raise Unsupported(f"expected one of {', '.join(C_TYPES)}; found {dtype}")
        return C_TYPES[dtype]

    def _binary(self, e: Any, kind: str) -> Text:
        symbol, prec = _BINARY[kind]
        left_node, right_node = e.a, e.b
        if kind in _FLIPPED and kind_of(left_node) in ("IntImm", "FloatImm"):  # the variable reads better first
            symbol, left_node, right_node = _FLIPPED[kind], right_node, left_node
        a, b, dtype = self.expr(left_node), self.expr(right_node), dtype_of(e)
        if prec == SHIFT and kind_of(e.b) == "IntImm":
            b = (str(e.b.value), PRIMARY)
        if kind == "Mod" and dtype == "float32":
            raise Unsupported("the remainder of floats has no C form; call an edgec_ function")
        if kind == "Add" and b[0].startswith("-") and kind_of(e.b) in ("IntImm", "FloatImm"):
            symbol, b = "-", (b[0][1:], PRIMARY)
        if kind == "LShift" and dtype.startswith("int") and dtype not in NARROW:
            shifted = f"({self.ctype('u' + dtype)}){paren(a, UNARY)} << {paren(b, UNARY)}"
            return f"({self.ctype(dtype)})({shifted})", UNARY
        left, right = _operand_levels(prec)
        if prec in (AND, OR, XOR, LOGIC_AND, LOGIC_OR) and a[1] == prec:
            left = prec
        return self.narrow((f"{paren(a, left)} {symbol} {paren(b, right)}", prec), dtype)

    def narrow(self, text: Text, dtype: str) -> Text:
        """Cast back what C promoted to int."""
        return (f"({C_TYPES[dtype]}){paren(text, UNARY)}", UNARY) if dtype in NARROW else text

    def _min(self, e: Any) -> Text:
        return self._extremum(e, "min")

    def _max(self, e: Any) -> Text:
        return self._extremum(e, "max")

    def _extremum(self, e: Any, which: str) -> Text:
        """A helper call, so that operands are written once."""
        dtype = dtype_of(e)
        helper = f"edgec_{which}_{_HELPER_TYPES['int32' if dtype in NARROW else dtype]}"
        self.helpers.add(helper)
        return self.narrow((f"{helper}({self.text(e.a)}, {self.text(e.b)})", PRIMARY), dtype)

    def _not(self, e: Any) -> Text:
        return f"!{paren(self.expr(e.a), UNARY)}", UNARY

    def _bitwisenot(self, e: Any) -> Text:
        return self.narrow((f"~{paren(self.expr(e.a), UNARY)}", UNARY), dtype_of(e))

    def _select(self, e: Any) -> Text:
        return self._ternary(e.condition, e.true_value, e.false_value, dtype_of(e))

    def _ternary(self, condition: Any, yes: Any, no: Any, dtype: str) -> Text:
        parts = [paren(self.expr(x), LOGIC_OR) for x in (condition, yes, no)]
        return self.narrow(("{} ? {} : {}".format(*parts), TERNARY), dtype)

    def _let(self, e: Any) -> Text:
        self.names[hash(e.var)] = self.expr(e.value)
        return self.expr(e.body)

    def _call(self, e: Any) -> Text:
        name, args = call_name(e), list(e.args)
        if name == "if_then_else":
            return self._ternary(args[0], args[1], args[2], dtype_of(e))
        if name == "likely":
            return self.expr(args[0])
        if name == "buffer_data":
            return self.names[hash(args[0])]
        if name == "address_of":
            return f"&{paren(self.expr(args[0]), PRIMARY)}", UNARY
        if name in ("call_extern", "call_pure_extern"):
            return self._extern(args[0].value, args[1:], self.result_type(e))
        if name == "reinterpret" and (dtype_of(e), dtype_of(args[0])) == ("float32", "int32"):
            return f"edgec_bits_float((uint32_t){paren(self.expr(args[0]), UNARY)})", PRIMARY
        raise Unsupported(f"T.{name} has no C form; call a function of the runtime (edgec_*) with T.call_extern")

    def result_type(self, e: Any) -> str:
        """Type a call returns; `void` for statements."""
        dtype = dtype_of(e) if hasattr(e.ty, "dtype") else "void"
        return "void" if dtype in ("", "void", "handle") else dtype

    def _extern(self, name: str, args: list[Any], result: str) -> Text:
        if not name.startswith("edgec_"):
            raise Unsupported(f"expected a function of the runtime (edgec_*) called with T.call_extern, found {name}")
        kinds = tuple(self._argument_type(a) for a in args)
        self.externs[name] = (result, kinds)
        return f"{name}({', '.join(self.text(a) for a in args)})", PRIMARY

    def _argument_type(self, arg: Any) -> str:
        if kind_of(arg) == "Call" and call_name(arg) in ("buffer_data", "address_of"):
            target = arg.args[0]
            return f"{dtype_of(target)}*"
        return dtype_of(arg)


def _operand_levels(prec: int) -> tuple[int, int]:
    """Least precedence of the left and right operand that needs no parentheses.

    Stricter than C where compilers warn about, and readers stumble over, bare mixtures of operators.
    """
    if prec in (MUL, ADD):
        return prec, prec + 1
    if prec in (COMPARE, EQUAL):
        return ADD, ADD
    if prec in (LOGIC_AND, LOGIC_OR):
        return EQUAL, EQUAL
    return UNARY, UNARY


#: stands before a loop and says how many turns are one in machine code, where a compiler's own choice costs much flash
UNROLL = "EDGEC_UNROLL"
_UNROLL_TEXT = f"""#define EDGEC_PRAGMA(text) _Pragma(#text)
#if defined(__clang__) && !defined(__CUDACC__)
#define {UNROLL}(turns) EDGEC_PRAGMA(clang loop unroll_count(turns))
#elif defined(__GNUC__) && __GNUC__ >= 8 && !defined(__CUDACC__)
#define {UNROLL}(turns) EDGEC_PRAGMA(GCC unroll turns)
#else
#define {UNROLL}(turns)
#endif
"""


def helper_text(name: str, qualifier: str) -> str:
    """Definition of what kernels share: a min or max, whose first operand wins ties and passes a NaN on, or UNROLL."""
    if name == UNROLL:
        return _UNROLL_TEXT
    _, which, kind = name.split("_")
    c = {v: C_TYPES[k] for k, v in _HELPER_TYPES.items()}[kind]
    test = "a < b" if which == "max" else "b < a"
    return f"{qualifier} {c} {name}({c} a, {c} b) {{\n    return {test} ? b : a;\n}}\n"
