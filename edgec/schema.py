"""Data from a file (TOML, JSON) as a frozen dataclass: every key and every type is checked, all problems at once.

A dataclass is the schema: its fields are the keys, a field without a default is required. Types: str, int, float, bool,
Any, X | None, tuple[X, ...], Mapping[str, X], another dataclass. Numbers are finite.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from edgec.errors import EdgecError, InputError, join_problems

T = TypeVar("T")
_WORDS = {str: "string", int: "int", float: "number", bool: "bool", dict: "table"}


def checked(
    kind: type[T],
    data: Any,
    head: str,
    *,
    strict: bool = False,
    error: type[EdgecError] = InputError,
    hint: str | None = None,
) -> T:
    """`data` as a dataclass; an error with every problem under the line `head`. strict: unknown keys are problems."""
    problems: list[str] = []
    value = _of(kind, data, "", strict, problems)
    if problems:
        raise error(join_problems(head, problems), hint=hint)
    return value  # type: ignore[no-any-return]


@functools.cache
def _fields(kind: Any) -> Mapping[str, tuple[Any, bool]]:
    """Type of each key, and whether it must be there."""
    hints = typing.get_type_hints(kind)
    none = dataclasses.MISSING
    return {
        f.name: (hints[f.name], f.default is none and f.default_factory is none)
        for f in dataclasses.fields(kind)
        if f.init
    }


def _of(kind: Any, value: Any, path: str, strict: bool, problems: list[str]) -> Any:
    """The value as its type, or None and a problem."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        (inner,) = (a for a in arguments if a is not type(None))
        return None if value is None else _of(inner, value, path, strict, problems)
    if origin is tuple and isinstance(value, list):
        if arguments[0] in (str, int, float) and not all(_fits(arguments[0], v) for v in value):
            problems.append(f"key '{path}': expected {word_of(kind)}, found {found_word(value)}")
            return None
        return tuple(_of(arguments[0], v, f"{path}[{k}]", strict, problems) for k, v in enumerate(value))
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _record(kind, value, path, strict, problems)
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, dict):
        return {k: _of(arguments[1], v, f"{path}.{k}", strict, problems) for k, v in value.items()}
    if not _fits(kind, value):
        expected, where = word_of(kind), f"key '{path}': " if path else ""
        problems.append(f"{where}expected {expected}, found {found_word(value)}")
        return None
    return value


def _record(kind: Any, value: dict[str, Any], path: str, strict: bool, problems: list[str]) -> Any:
    """A table as a dataclass."""
    fields, prefix, before = _fields(kind), f"{path}." if path else "", len(problems)
    if strict:
        allowed = ", ".join(fields)
        problems += [f"unknown key '{prefix}{key}'; allowed keys: {allowed}" for key in value if key not in fields]
    missing = [(name, kind) for name, (kind, required) in fields.items() if required and name not in value]
    problems += [f"missing key '{prefix}{name}' ({word_of(kind)})" for name, kind in missing]
    given = {
        name: _of(kind, value[name], f"{prefix}{name}", strict, problems)
        for name, (kind, _) in fields.items()
        if name in value
    }
    return None if len(problems) > before else kind(**given)


def _fits(kind: Any, value: Any) -> bool:
    if kind is float:
        return type(value) in (int, float) and abs(value) < math.inf
    return type(value) is kind


def word_of(kind: Any) -> str:
    """A type in words: int, string, strings, table, tables."""
    arguments = [a for a in typing.get_args(kind) if a is not type(None)]
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return word_of(arguments[0])
    if origin is tuple:
        return f"{word_of(arguments[0])}s"
    return _WORDS.get(kind, "table")


def found_word(value: Any) -> str:
    """What a value is, in the same words."""
    if isinstance(value, list):
        kinds = {found_word(v) for v in value} or {"string"}
        return f"{kinds.pop()}s" if len(kinds) == 1 else "a list of mixed values"
    if isinstance(value, float) and not abs(value) < math.inf:
        return str(value)
    return "nothing" if value is None else _WORDS.get(type(value), type(value).__name__)
