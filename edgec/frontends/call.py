"""One operator of a foreign model as its converter sees it: inputs and attributes by the names of their schema.

Each format has a source of schemas (torch: the overload's own; ONNX: `onnx.defs`, by operator set; TFLite: a literal
table) and a `Call` derived from this one that says what its values are. Converters know neither places nor keywords nor
defaults, and what a model gives that no converter reads is refused: nothing is silently ignored.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import Any, Self

from edgec.frontends.builder import GraphBuilder
from edgec.ops.elementwise import Map, function
from edgec.ops.language.expression import SIGNATURES, parse

PLAIN = (bool, int, float, str, type(None))  # what a default is, or a list of them


@dataclass(frozen=True)
class Parameter:
    """An input or attribute of an operator; a variadic one takes all inputs from its place on, one at least."""

    name: str
    default: Any = None
    required: bool = False
    variadic: bool = False


Schema = tuple[Parameter, ...]


def bind(schema: Schema, places: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """What is given in the schema's order (None where absent) and by name, completed by defaults.

    ValueError for what the schema does not have, and for what it requires and nobody gives.
    """
    given = dict(named)
    for k, (p, value) in enumerate(zip(schema, places, strict=False)):
        given[p.name] = tuple(places[k:]) if p.variadic else value
    unknown = sorted(set(given) - {p.name for p in schema})
    if unknown:
        raise ValueError(f"{unknown[0]} is unknown, expected {', '.join(p.name for p in schema) or 'nothing'}")
    if len(places) > len(schema) and not any(p.variadic for p in schema):
        raise ValueError(f"{len(places)} inputs, expected {len(schema)} at most")
    for p in schema:
        values = given.setdefault(p.name, () if p.variadic else p.default)
        if (p.variadic and (not values or None in values)) or (p.required and values is None):
            raise ValueError(f"{p.name} is missing")
    return {p.name: given[p.name] for p in schema}


@dataclass(frozen=True)
class Call:
    """One operator being converted: `call[name]` is an input or attribute, and `seen` are the names read so far.

    name: what the tensors that come out are called.
    """

    kind: str
    schema: Schema
    args: Mapping[str, Any]
    build: GraphBuilder
    name: str
    seen: set[str] = field(default_factory=set, kw_only=True)

    @property
    def first(self) -> str:
        """The name of the first input."""
        return self.schema[0].name

    def __getitem__(self, key: str) -> Any:
        self.seen.add(key)
        return self.args[key]

    def get(self, key: str, default: Any = None) -> Any:
        """What only some operators or overloads of a converter have."""
        return self[key] if key in self.args else default

    def has(self, key: str) -> bool:
        """Whether something is given in the place of an optional input or attribute."""
        return self.args.get(key) is not None

    def only(self, key: str, *allowed: Any) -> Any:
        """An attribute that must be one of a few. ValueError for another value."""
        if (value := self[key]) not in allowed:
            raise ValueError(f"{key} {value} is not supported; supported: {', '.join(map(str, allowed))}")
        return value

    def ignore(self, *keys: str) -> None:
        """What changes no number here, and is not read for that reason."""
        self.seen.update(keys)

    def convert(self, row: str | Callable[[Self], Any]) -> Any:
        """The result of a converter, or of an expression. ValueError where it reads not all that the model gives."""
        value = self.map(row) if isinstance(row, str) else row(self)
        unread = [p for p in self.schema if p.name not in self.seen and differs(self.args[p.name], p.default)]
        if unread:
            p = unread[0]
            raise ValueError(f"{p.name} {self.args[p.name]} is not supported; supported: {p.default}")
        return value

    def tensor(self, key: str) -> str:
        """An input as a tensor of the graph."""
        raise NotImplementedError

    def map(self, text: str) -> str:
        """An expression of inputs and attributes by their names as one op: `leaky_relu(X, slope=alpha)`."""
        inputs: dict[str, str] = {}
        tree = Operands(self, inputs).visit(ast.parse(text, mode="eval").body)
        name = tree.func.id if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) else ""
        if name in SIGNATURES and [ast.unparse(a) for a in tree.args] == ["a"]:
            parameters = {str(k.arg): ast.literal_eval(k.value) for k in tree.keywords}
            return self.emit(function(name, **parameters), *inputs)
        return self.emit(Map(ast.unparse(tree)), *inputs)

    def emit(self, op: Any, *inputs: str) -> str:
        """One node with one output, named after the call."""
        return self.build.emit(op, *inputs, name=self.name)


class Operands(ast.NodeTransformer):
    """An expression with numbers in the place of attributes, and in that of inputs the letters of Map, in order."""

    def __init__(self, call: Call, inputs: dict[str, str]) -> None:
        self.call, self.inputs = call, inputs

    def visit_Call(self, node: ast.Call) -> ast.Call:
        """The function's name stays; its parameters are numbers."""
        values = [parse(ast.unparse(self.visit(k.value))) for k in node.keywords]
        if any(v.kind != "number" for v in values):
            raise ValueError(f"a parameter of {ast.unparse(node)} is computed, expected a number")
        keywords = [ast.keyword(k.arg, literal(float(v.value))) for k, v in zip(node.keywords, values, strict=True)]
        return ast.Call(node.func, [self.visit(a) for a in node.args], keywords)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self.call.args:
            return node
        value = self.call[node.id]
        if isinstance(value, bool | int | float):
            return literal(value)
        letter = self.inputs.setdefault(self.call.tensor(node.id), ascii_lowercase[len(self.inputs)])
        return ast.Name(letter)


def literal(value: float) -> ast.expr:
    """A number in an expression."""
    return ast.parse(repr(value), mode="eval").body


def differs(value: Any, default: Any) -> bool:
    """Whether a value is another than the schema's default."""
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return list(value) != list(default)
    return not (isinstance(value, PLAIN) and value == default)
