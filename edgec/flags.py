"""The choices of edgec/options.py and edgec/config.py as options of the command line."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable
from typing import Any

from edgec.config import PLACES
from edgec.options import FIELDS

Field = dataclasses.Field[Any]


def flags_of(f: Field) -> tuple[str, ...]:
    """The option of a choice, a short form before it where there is one."""
    return tuple(f.metadata.get("flags", (f"--{f.name.replace('_', '-')}",)))


def help_of(f: Field) -> str:
    """What it means, and its default where it has one and the text does not say it."""
    text = f.metadata["help"]
    plain = f.default is not None and not isinstance(f.default, bool) and "(default" not in text
    return f"{text} (default: {f.default})" if plain else text


def add_choices(parser: Any, choices: Iterable[Field]) -> None:
    """An option for each choice; what is not given stays None, so that a file's choice or the default counts."""
    for f in choices:
        about, how = f.metadata, dict[str, Any](dest=f.name, help=help_of(f), metavar=f.metadata.get("metavar"))
        if "off" in about and "metavar" in about:  # may stand alone, or with a value
            how |= {"nargs": "?", "const": True}
        elif "off" in about:
            how = {"dest": f.name, "help": how["help"], "action": "store_const", "const": True}
        elif "gather" in about:
            how |= {"action": "append"}
        elif "allowed" in about:
            how |= {"choices": about["allowed"], "type": int if isinstance(f.default, int) else str}
        elif f.type == "int | None" and "read" not in about:
            how |= {"type": int}
        parser.add_argument(*flags_of(f), **how)
        if "off" in about:
            flag, text = about["off"]
            parser.add_argument(flag, dest=f.name, help=text, action="store_const", const=False)


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The choices that the command line makes, by name. InputError for a text that cannot be read as one."""
    found = {}
    for name, f in {**PLACES, **FIELDS}.items():
        value = getattr(arguments, name, None)
        if value is None:
            continue
        if "gather" in f.metadata:
            value = f.metadata["gather"](value)
        elif "read" in f.metadata:
            value = f.metadata["read"](value, flags_of(f)[-1])
        found[name] = value
    return found
