"""Arguments of the API against their annotations: one of another type is told by name, before anything runs."""

from __future__ import annotations

import collections.abc
import inspect
import numbers
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from edgec.errors import InputError


def annotations_of(call: Callable[..., Any]) -> dict[str, tuple[str, Any]]:
    """Of each parameter of a function its annotation, as it is written and as a type; a name that its module imports
    for type checkers alone is left out."""
    found = {}
    for name, parameter in inspect.signature(call).parameters.items():
        text = parameter.annotation
        if isinstance(text, str) and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            try:
                found[name] = (text, eval(text, vars(sys.modules[call.__module__])))
            except NameError:
                continue
    return found


def check_types(annotations: Mapping[str, tuple[str, Any]], given: Mapping[str, Any]) -> None:
    """InputError for the first argument that is not what its parameter takes."""
    for name, (text, kind) in annotations.items():
        if name in given and not fits(kind, given[name]):
            raise InputError(f"{name}: expected {text}, found {type(given[name]).__name__}")


def fits(kind: Any, value: Any) -> bool:
    """Whether a value is of a type, as far as that can be told without a look into it: of a sequence or a mapping what
    it holds is left to whoever reads it, and arrays may be whatever numpy makes one of."""
    origin, choices = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(choice, value) for choice in choices)
    kind = origin or kind
    if kind is Any or getattr(kind, "__module__", "") == "numpy":
        return True
    if kind is None or kind is types.NoneType:
        return value is None
    if kind is bool:
        return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
    if kind in (int, float):
        return isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
    if kind in (collections.abc.Sequence, collections.abc.Iterable):
        return isinstance(value, kind) and not isinstance(value, (str, bytes))
    return isinstance(value, kind) if isinstance(kind, type) else True
