"""Data from a file (TOML, JSON) as a frozen dataclass: every key and every type is checked, all problems at once.

A dataclass is the schema: its fields are the keys, a field without a default is required. Types: str, int, float, bool,
Any, X | Y | None, tuple[X, ...], Sequence[X], Mapping[str, X], another dataclass. Numbers are finite. A field's
metadata may have `allowed`, the values there are, and `read(text, where)`, which makes a value of a string.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
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
def _fields(kind: Any) -> Mapping[str, tuple[Any, bool, Mapping[str, Any]]]:
    """Type of each key, whether it must be there, and its metadata."""
    hints = typing.get_type_hints(kind)
    none = dataclasses.MISSING
    return {
        f.name: (hints[f.name], f.default is none and f.default_factory is none, f.metadata)
        for f in dataclasses.fields(kind)
        if f.init
    }


def _of(kind: Any, value: Any, path: str, strict: bool, problems: list[str]) -> Any:
    """The value as its type, or None and a problem."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _of_union(kind, value, path, strict, problems)
    if origin in (tuple, Sequence) and isinstance(value, list):
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


def _of_union(kind: Any, value: Any, path: str, strict: bool, problems: list[str]) -> Any:
    """The value as the first of several types that it is."""
    inner = [a for a in typing.get_args(kind) if a is not type(None)]
    if len(inner) == 1:
        return _of(inner[0], value, path, strict, problems)
    for one in inner:
        tried: list[str] = []
        found = _of(one, value, path, strict, tried)
        if not tried:
            return found
    problems.append(f"key '{path}': expected {word_of(kind)}, found {found_word(value)}")
    return None


def _record(kind: Any, value: dict[str, Any], path: str, strict: bool, problems: list[str]) -> Any:
    """A table as a dataclass."""
    fields, prefix, before = _fields(kind), f"{path}." if path else "", len(problems)
    if strict:
        allowed = ", ".join(fields)
        problems += [f"unknown key '{prefix}{key}'; allowed keys: {allowed}" for key in value if key not in fields]
    required = [(name, kind) for name, (kind, needed, _) in fields.items() if needed and name not in value]
    problems += [f"missing key '{prefix}{name}' ({word_of(kind)})" for name, kind in required]
    given = {
        name: _of_field(kind, metadata, value[name], f"{prefix}{name}", strict, problems)
        for name, (kind, _, metadata) in fields.items()
        if name in value
    }
    if len(problems) > before:
        return None
    try:
        return kind(**given)
    except EdgecError as err:  # of a dataclass that checks itself
        problems.append(one_line(err))
        return None


def _of_field(kind: Any, metadata: Mapping[str, Any], value: Any, path: str, strict: bool, problems: list[str]) -> Any:
    """The value of a key as its type, once it is one of those that there are."""
    before, allowed = len(problems), metadata.get("allowed", ())
    if isinstance(value, str) and "read" in metadata:
        try:
            return metadata["read"](value, f"key '{path}'")
        except EdgecError as err:
            problems.append(one_line(err))
            return None
    found, known = _of(kind, value, path, strict, problems), ", ".join(map(str, allowed))
    if allowed and len(problems) > before:
        problems[-1] += f", one of {known}"
    elif allowed and found is not None:
        several = {f"{path}.{k}": v for k, v in found.items()} if isinstance(found, Mapping) else {path: found}
        problems += [f"key '{k}': {v!r} is not one of {known}" for k, v in several.items() if v not in allowed]
    return found


def one_line(err: EdgecError) -> str:
    """An error as one of several problems."""
    return err.message if err.hint is None else f"{err.message}; {err.hint}"


def _fits(kind: Any, value: Any) -> bool:
    if kind is float:
        return type(value) in (int, float) and abs(value) < math.inf
    return type(value) is kind


def word_of(kind: Any) -> str:
    """A type in words: int, string, strings, table, tables."""
    arguments = [a for a in typing.get_args(kind) if a is not type(None)]
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(word_of(a) for a in arguments if a is not Path))
    if origin in (tuple, Sequence):
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
