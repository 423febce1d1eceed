"""Functions of lowered TIR as C text: statements, local names, the signature."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgec.backends.c_expr import NARROW, UNROLL, ExprPrinter, Externs, Unsupported, call_name, dtype_of, kind_of
from edgec.backends.kernel import NamedKernel
from edgec.backends.names import KEYWORDS
from edgec.ir.graph import numbered

COLUMNS = 100
_INDENT = "    "


@dataclass
class Function:
    """A printed function: head and body without the braces' owner, and what it calls."""

    params: list[str]
    body: list[str]
    helpers: set[str] = field(default_factory=set)
    externs: Externs = field(default_factory=dict)


def children(node: Any) -> Iterator[Any]:
    """Statements and expressions directly below a lowered TIR node (buffers apart)."""
    kind = kind_of(node)
    names = _FIELDS.get(kind)
    if names is None:
        if hasattr(node, "a") and hasattr(node, "b"):
            names = ("a", "b")
        else:
            raise Unsupported(f"{kind} has no C form: {node}")
    for name in names:
        value = getattr(node, name)
        if value is None:
            continue
        if name in _LISTS:
            yield from value
        else:
            yield value


_LISTS = frozenset({"seq", "indices", "args"})
_FIELDS: dict[str, tuple[str, ...]] = {
    "SeqStmt": ("seq",), "For": ("min", "extent", "body"), "While": ("condition", "body"), "Bind": ("value",),
    "BufferStore": ("buffer", "indices", "value"), "AllocBuffer": (), "DeclBuffer": (), "Evaluate": ("value",),
    "IfThenElse": ("condition", "then_case", "else_case"), "AttrStmt": ("value", "body"), "Var": (), "IntImm": (),
    "FloatImm": (), "StringImm": (), "Cast": ("value",), "TensorLoad": ("source", "indices"), "Call": ("args",),
    "Select": ("condition", "true_value", "false_value"), "Let": ("value", "body"), "Not": ("a",), "BitwiseNot": ("a",),
    "AssertStmt": ("condition",),
}  # fmt: skip


def walk(node: Any) -> Iterator[Any]:
    """A node and everything below it, in order."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(reversed(list(children(top))))


def statements(body: Any) -> list[Any]:
    """A body as a flat list of statements."""
    if kind_of(body) == "SeqStmt":
        return [s for part in body.seq for s in statements(part)]
    return [body]


def has_effect(e: Any) -> bool:
    """True when an expression calls something that may write."""
    return any(kind_of(n) == "Call" and call_name(n) == "call_extern" for n in walk(e))


def local_size(buffer: Any) -> int:
    """Elements of a local buffer."""
    size = 1
    for extent in buffer.ty.shape:
        if kind_of(extent) != "IntImm":
            raise Unsupported(f"local buffer {buffer.name} has no constant size")
        size *= int(extent.value)
    return size


def break_at(text: str, room: int) -> int:
    """Where to break a line: the last space of the least bracket depth in its second half. 0: nowhere."""
    depth, best, least = 0, 0, 1 << 30
    for at, c in enumerate(text[:room]):
        depth += (c in "([") - (c in ")]")
        if c == " " and depth <= least and at > room // 2:
            best, least = at, depth
    return best or max(text.rfind(" ", 0, room), 0)


class FunctionPrinter:
    """Prints one lowered kernel. `scopes` holds the C names in use, innermost last."""

    def __init__(self, named: NamedKernel, func: Any) -> None:
        self.named, self.func = named, func
        self.printer = ExprPrinter()
        self.lines: list[str] = []
        self.depth = 1
        self.scopes: list[set[str]] = [set()]
        self.uses: Counter[int] = Counter()
        self._aliases: dict[int, int] = {}
        self.stored: set[int] = set()
        self._survey()
        self.param_names: dict[int, str] = {}
        for var in func.params:
            self.param_names[hash(var)] = self.declare(var)

    def _survey(self) -> None:
        """Count uses of every variable, find the stored buffers and the locals that may be plain variables."""
        addressed: set[int] = set()
        for node in walk(self.func.body):
            kind = kind_of(node)
            if kind == "Var":
                self.uses[hash(node)] += 1
            elif kind == "BufferStore":
                self.stored.add(hash(node.buffer))
            elif kind == "Call" and call_name(node) == "buffer_data":
                addressed.add(hash(node.args[0]))
            elif kind == "Call" and call_name(node) == "address_of":
                addressed.add(hash(node.args[0].source))
            elif kind == "DeclBuffer":
                data = node.data.args[0] if kind_of(node.data) == "Call" else node.data
                self._aliases[hash(node.buffer)] = self._aliases.get(hash(data), hash(data))
        for node in walk(self.func.body):
            if kind_of(node) == "AllocBuffer" and hash(node.buffer) not in addressed and local_size(node.buffer) == 1:
                self.printer.scalars.add(hash(node.buffer))

    def params_in(self, node: Any) -> set[int]:
        """Parameters that a statement touches, by the hash of their variable."""
        return {self._aliases.get(hash(n), hash(n)) for n in walk(node) if kind_of(n) == "Var"}

    def declare(self, var: Any) -> str:
        """A C name for a variable, unlike every name visible here."""
        stem = re.sub(r"\W", "_", var.name)
        taken = KEYWORDS.union(*self.scopes)
        name = next(n for n in numbered(stem) if n not in taken)
        self.scopes[-1].add(name)
        self.printer.names[hash(var)] = (name, 13)
        return name

    # ---- signature

    def signature(self, restrict: str) -> list[str]:
        """Parameter declarations; pointers to const unless the kernel may write there."""
        written = {self._aliases.get(b, b) for b in self.stored}
        out = []
        for var, (name, _, kind) in zip(self.func.params, self.named.kernel.params, strict=True):
            if hash(var) in written and name not in self.named.writable:
                allowed = ", ".join(sorted(self.named.writable)) or "nothing"
                raise Unsupported(f"it writes to {name}, but it may write to {allowed} only")
            const = "" if name in self.named.writable else "const "
            qualifier = f"{restrict} " if self.named.restrict else ""
            out.append(f"{const}{self.printer.ctype(kind)} *{qualifier}{self.param_names[hash(var)]}")
        return out

    def unused(self) -> list[str]:
        """Parameters the body never touches."""
        used = self.params_in(self.func.body)
        return [name for var, name in self.param_names.items() if var not in used]

    # ---- statements

    def emit(self, text: str) -> None:
        """One line, or several where it is too long."""
        pad = _INDENT * self.depth
        while len(pad) + len(text) > COLUMNS and (cut := break_at(text, COLUMNS - len(pad))):
            self.lines.append(f"{pad}{text[:cut]}")
            text, pad = text[cut + 1 :], _INDENT * (self.depth + 1)
        self.lines.append(f"{pad}{text}")

    def block(self, opening: str, body: Any, closing: str | None = "}") -> None:
        """`opening {`, an indented body with its own names, `}`."""
        self.emit(f"{opening} {{")
        self.depth += 1
        self.scopes.append(set())
        self.stmt(body)
        self.scopes.pop()
        self.depth -= 1
        if closing:
            self.emit(closing)

    def stmt(self, s: Any) -> None:
        method: Callable[[Any], None] | None = getattr(self, f"_{kind_of(s).lower()}", None)
        if method is None:
            raise Unsupported(f"{kind_of(s)} has no C form: {s}")
        method(s)

    def _seqstmt(self, s: Any) -> None:
        for part in s.seq:
            self.stmt(part)

    def _declbuffer(self, s: Any) -> None:
        self.printer.names[hash(s.buffer)] = self.printer.expr(s.data)

    def _allocbuffer(self, s: Any) -> None:
        if not self.uses[hash(s.buffer)]:
            return
        size = local_size(s.buffer)
        kind, name = self.printer.ctype(dtype_of(s.buffer)), self.declare(s.buffer)
        self.emit(f"{kind} {name};" if hash(s.buffer) in self.printer.scalars else f"{kind} {name}[{size}];")

    def _bind(self, s: Any) -> None:
        if not self.uses[hash(s.var)]:
            if has_effect(s.value):
                self.emit(f"(void){self.printer.text(s.value)};")
            return
        if kind_of(s.value) == "Call" and call_name(s.value) == "buffer_data":
            self.printer.names[hash(s.var)] = self.printer.expr(s.value)
            return
        dtype = dtype_of(s.var)
        text = self.printer.value(s.value, dtype)
        kind = "int32_t" if dtype == "bool" else self.printer.ctype(dtype)
        self.emit(f"const {kind} {self.declare(s.var)} = {text};")

    def _bufferstore(self, s: Any) -> None:
        target, dtype = self.printer.element(s.buffer, s.indices)[0], dtype_of(s.buffer)
        update = self._update(s.value, target) if dtype not in NARROW else None
        self.emit(f"{target} {update};" if update else f"{target} = {self.printer.value(s.value, dtype)};")

    def _update(self, value: Any, target: str) -> str | None:
        """`+= b` where the value is target + b."""
        symbol = _COMPOUND.get(kind_of(value))
        if symbol is None or kind_of(value.a) != "TensorLoad" or self.printer.text(value.a) != target:
            return None
        b = self.printer.text(value.b)
        if symbol == "+=" and b.startswith("-") and kind_of(value.b) in ("IntImm", "FloatImm"):
            return f"-= {b[1:]}"
        return f"{symbol} {b}"

    def _evaluate(self, s: Any) -> None:
        if kind_of(s.value) == "IntImm":
            return
        void = kind_of(s.value) == "Call" and self.printer.result_type(s.value) == "void"
        self.emit(f"{'' if void else '(void)'}{self.printer.text(s.value)};")

    def _for(self, s: Any) -> None:
        if int(s.kind) == 4:
            raise Unsupported("thread bindings are made by the backend; mark the loop T.parallel")
        start, stop = self.printer.text(s.min), self.bound(s)
        self.scopes.append(set())
        kind, var = self.printer.ctype(dtype_of(s.loop_var)), self.declare(s.loop_var)
        unit = s.step is None or (kind_of(s.step) == "IntImm" and s.step.value == 1)
        step = f"++{var}" if unit else f"{var} += {self.printer.text(s.step)}"
        if (turns := s.annotations.get("unroll")) is not None:
            self.emit(f"{UNROLL}({int(turns)})")
            self.printer.helpers.add(UNROLL)
        self.block(f"for ({kind} {var} = {start}; {var} < {stop}; {step})", s.body)
        self.scopes.pop()

    def bound(self, s: Any) -> str:
        """The end of a loop; evaluated once when it reads memory."""
        stop = s.extent if kind_of(s.min) == "IntImm" and s.min.value == 0 else s.min + s.extent
        if all(kind_of(n) not in ("TensorLoad", "Call") for n in walk(stop)):
            return self.printer.text(stop)
        name = f"{re.sub(r'[^0-9A-Za-z_]', '_', s.loop_var.name)}_end"
        while any(name in scope for scope in self.scopes):
            name += "_"
        self.scopes[-1].add(name)
        self.emit(f"const {self.printer.ctype(dtype_of(stop))} {name} = {self.printer.text(stop)};")
        return name

    def _while(self, s: Any) -> None:
        self.block(f"while ({self.printer.text(s.condition)})", s.body)

    def _ifthenelse(self, s: Any) -> None:
        self.block(f"if ({self.printer.text(s.condition)})", s.then_case, None if s.else_case is not None else "}")
        if s.else_case is not None:
            self.block("} else", s.else_case)

    def _attrstmt(self, s: Any) -> None:
        self.stmt(s.body)

    def _assertstmt(self, s: Any) -> None:
        self.emit(f"EDGEC_ASSERT({self.printer.text(s.condition)});")


_COMPOUND = {"Add": "+=", "Sub": "-=", "Mul": "*="}


def print_function(named: NamedKernel, func: Any, restrict: str = "restrict") -> Function:
    """A lowered kernel as a C function. CodegenError for what C cannot say."""
    try:
        printer = FunctionPrinter(named, func)
        params = printer.signature(restrict)
        for name in printer.unused():
            printer.emit(f"(void){name};")
        printer.stmt(func.body)
    except Unsupported as err:
        raise named.problem(str(err)) from err
    return Function(params, printer.lines, printer.printer.helpers, printer.printer.externs)


def comment_text(comment: str) -> str:
    """A C comment; empty for none."""
    if not comment:
        return ""
    lines = comment.replace("*/", "* /").splitlines()
    if len(lines) == 1:
        return f"/* {lines[0]} */\n"
    return "/* " + "\n * ".join(lines) + " */\n"


def head_text(prefix: str, params: Sequence[str]) -> str:
    """`prefix(params) {`, one line or several."""
    one = f"{prefix}({', '.join(params)}) {{"
    if len(one) <= COLUMNS:
        return one
    return f"{prefix}(\n{_INDENT}" + f",\n{_INDENT}".join(params) + ") {"
