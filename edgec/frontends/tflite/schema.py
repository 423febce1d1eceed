"""A row of the table of TFLite operators: its converter, the roles of its inputs, the fields of its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgec.frontends.call import Parameter, Schema, bind


@dataclass(frozen=True)
class Row:
    """options: the class in TFLite's own schema, "" where nothing is read of them.

    Fields that change no number of an int8 operator are left out: what only sets the shape that comes out, which the
    file says itself, and what concerns other element types.
    """

    convert: Callable[[Any], str]
    inputs: Schema
    options: str
    fields: Schema

    def bound(self, inputs: tuple[int, ...], options: dict[str, Any]) -> dict[str, Any]:
        """What an operator is given, by name: numbers of tensors, and values of fields."""
        tensors = bind(self.inputs, [None if k < 0 else k for k in inputs], {})
        return tensors | bind(self.fields, (), options)


def takes(convert: Callable[[Any], str], inputs: str, options: str = "", **fields: Any) -> Row:
    """A row: `bias?` is optional, `values*` are all that follow; fields with the defaults of TFLite's schema."""
    roles = (Parameter(w.rstrip("?*"), None, w[-1] not in "?*", w[-1] == "*") for w in inputs.split())
    return Row(convert, tuple(roles), options, tuple(Parameter(name, value) for name, value in fields.items()))
