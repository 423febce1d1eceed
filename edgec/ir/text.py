"""The text form of a graph: what `--dump-ir` writes, `edgec opt` reads and pass tests compare. It round-trips.

graph net
input %x : float32[1,100,40] t1
const %w : int8[3,40,128] q([0.01,...],0,2) = [1, -3, ...]
state %line : bit[1,3,128] = 0
%y = conv1d(%x, %w, %b) {pad=(1,1)} : float32[1,100,128] t1  # model.py:41
return %y
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgec.errors import VerifyError
from edgec.ir.graph import Const, Graph, Node, State, Value, When
from edgec.ir.types import DType, QuantParams, TensorType


def print_type(t: TensorType) -> str:
    """`int8[1,16] q(0.02,-3) t1`: element type and shape, quantisation, time axis."""
    text = f"{t.dtype.value}[{','.join(map(str, t.shape))}]"
    if t.quant is not None:
        q = t.quant
        scale = repr(q.scale[0]) if q.axis is None else "[" + ",".join(map(repr, q.scale)) + "]"
        text += f" q({scale},{q.zero_point}" + (")" if q.axis is None else f",{q.axis})")
    return text + ("" if t.time_axis is None else f" t{t.time_axis}")


def print_attributes(op: Any) -> str:
    """Fields that differ from their defaults, as ` {name=value, ...}`."""
    parts = [f"{f.name}={getattr(op, f.name)!r}" for f in dataclasses.fields(op) if getattr(op, f.name) != f.default]
    return " {" + ", ".join(parts) + "}" if parts else ""


def print_node(node: Node) -> str:
    """One node on one line."""
    outs = ", ".join(f"%{o}" for o in node.outputs)
    args = ", ".join(f"%{i}" for i in node.inputs)
    states = f" [{', '.join('%' + s for s in node.states)}]" if node.states else ""
    when = "" if node.when == When() else f" when({node.when.first},{node.when.last},{node.when.period})"
    types = ", ".join(print_type(t) for t in node.types)
    source = f"  # {'; '.join(node.source)}" if node.source else ""
    return f"{outs} = {node.op.name}({args}){states}{print_attributes(node.op)}{when} : {types}{source}"


def print_graph(graph: Graph, consts: bool = True) -> str:
    """The whole graph. With consts=False the values of large constants are left out (then it does not parse back)."""
    lines = [f"graph {graph.name}" + (f" step delay={graph.delay} flush={graph.flush_steps}" if graph.is_step else "")]
    lines += [f"input %{v.name} : {print_type(v.type)}" for v in graph.inputs]
    for name, const in graph.consts.items():
        values = const.data.reshape(-1)
        shown = values.tolist() if consts or values.size <= 8 else "..."
        lines.append(f"const %{name} : {print_type(const.type)} = {shown}")
    lines += [f"state %{s.name} : {print_type(s.type)} = {s.init!r}" for s in graph.states]
    lines += [print_node(n) for n in graph.nodes]
    lines.append("return " + ", ".join(f"%{o}" for o in graph.outputs))
    return "\n".join(lines) + "\n"


#: what Python raises at texts that are no values of the kind a line has
_DAMAGE = (
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    RecursionError,
    MemoryError,
)

_TYPE = re.compile(r"(\w+)\[([\d,]*)\](?: q\((\[[^\]]*\]|[^,()]+),(-?\d+)(?:,(\d+))?\))?(?: t(\d+))?")
_NODE = re.compile(
    r"(?P<outs>%[\w.]+(?:, %[\w.]+)*) = (?P<op>\w+)\((?P<args>[^)]*)\)(?: \[(?P<states>[^\]]*)\])?"
    r"(?: \{(?P<attrs>.*?)\})?(?: when\((?P<when>[^)]*)\))? : (?P<types>.*?)(?:  # (?P<source>.*))?$"
)


def parse_type(text: str) -> TensorType:
    """The inverse of `print_type`."""
    match = _TYPE.fullmatch(text.strip())
    if match is None or match[1] not in {d.value for d in DType}:
        raise VerifyError(f"expected a type such as int8[1,16] q(0.02,-3) t1, found {text.strip()!r}")
    dtype, shape, scale, zero, axis, time = match.groups()
    quant = None
    if scale is not None:
        values = ast.literal_eval(scale)
        values = tuple(values) if isinstance(values, list) else (values,)
        quant = QuantParams(values, int(zero), None if axis is None else int(axis))
    dims = tuple(int(d) for d in shape.split(",") if d)
    return TensorType(dims, DType(dtype), quant, None if time is None else int(time))


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip().lstrip("%") for part in (text or "").split(",") if part.strip())


def _attributes(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    call = ast.parse(f"f({text})", mode="eval").body
    assert isinstance(call, ast.Call)
    return {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}


def parse_sample(op: Any, text: str) -> tuple[Any, tuple[TensorType, ...]]:
    """An op of a class with the types of its operands: "float32[1,4], float32[4] {axis=1}"."""
    types, _, attributes = text.partition(" {")
    return op(**_attributes(attributes.removesuffix("}"))), tuple(parse_type(m[0]) for m in _TYPE.finditer(types))


def _parse_node(line: str, ops: Mapping[str, Any]) -> Node:
    match = _NODE.match(line)
    if match is None:
        raise VerifyError(f"expected `%y = op(%x) {{...}} : type`, found {line!r}")
    if match["op"] not in ops:
        raise VerifyError(f"unknown op {match['op']!r}; `edgec ops` lists the ops")
    try:
        op = ops[match["op"]](**_attributes(match["attrs"]))
    except _DAMAGE as err:
        raise VerifyError(f"attributes of {match['op']} do not fit: {err} in {line!r}") from err
    types = tuple(parse_type(m.group(0)) for m in _TYPE.finditer(match["types"]))
    when = When(*(int(x) for x in match["when"].split(","))) if match["when"] else When()
    source = tuple(match["source"].split("; ")) if match["source"] else ()
    return Node(op, _names(match["args"]), _names(match["outs"]), types, source, _names(match["states"]), when)


def parse_graph(text: str, ops: Mapping[str, Any], data: Mapping[str, np.ndarray[Any, Any]] | None = None) -> Graph:
    """A graph from its text form; `ops` maps op names to classes, `data` holds constants the text leaves out ("...").

    VerifyError names the line that does not parse.
    """
    name, is_step, delay, flush = "", False, 0, 0
    inputs: list[Value] = []
    consts: dict[str, Const] = {}
    states: list[State] = []
    nodes: list[Node] = []
    outputs: tuple[str, ...] = ()
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        try:
            if word == "graph":
                match = re.fullmatch(r"(\S+)(?: (step) delay=(\d+) flush=(\d+))?", rest)
                if match is None:
                    raise VerifyError(f"expected `graph NAME`, found {line!r}")
                name, is_step, delay, flush = match[1], match[2] is not None, int(match[3] or 0), int(match[4] or 0)
            elif word == "input":
                label, _, kind = rest.partition(" : ")
                inputs.append(Value(label.lstrip("%"), parse_type(kind)))
            elif word in ("const", "state"):
                label, _, tail = rest.partition(" : ")
                kind, _, value = tail.partition(" = ")
                t = parse_type(kind)
                if word == "state":
                    states.append(State(label.lstrip("%"), t, ast.literal_eval(value)))
                else:
                    name_of = label.lstrip("%")
                    known = None if value != "..." or data is None else data.get(name_of)
                    consts[name_of] = Const(_const_data(value, t) if known is None else known.reshape(t.shape), t)
            elif word == "return":
                outputs = _names(rest)
            else:
                nodes.append(_parse_node(line, ops))
        except (VerifyError, *_DAMAGE) as err:
            raise VerifyError(f"line {number}: {str(err)[:400]}") from err
    if not name:
        raise VerifyError("expected a line `graph NAME`, found none")
    return Graph(name, tuple(inputs), consts, tuple(nodes), outputs, tuple(states), is_step, delay, flush)


def _const_data(text: str, t: TensorType) -> np.ndarray[Any, Any]:
    if text == "...":
        raise VerifyError("constant printed without its values; print the graph with them")
    dtype = "int8" if t.dtype is DType.BIT else "float64" if t.dtype.is_float and t.quant else t.dtype.storage
    data = np.array(ast.literal_eval(text), dtype=dtype)
    if data.size != t.size:
        raise VerifyError(f"expected {t.size} values for {print_type(t)}, found {data.size}")
    return data.reshape(t.shape)
