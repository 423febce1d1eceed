"""edgec.toml: what is compiled and how, for `--config`; what the command line says wins, key by key.

Its keys are the names of Config and Options. TOML has no null: a key that is left out has its default.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from edgec.errors import option
from edgec.files import read_table
from edgec.options import DEFAULTS, FIELDS, GROUP_OF, GROUPS, Budget, Code, Form, Options, Precision, choice
from edgec.schema import checked

WHAT = "options of a compile"


@dataclass(frozen=True)
class Config:
    """What a compile works on, and the choices of Options. In a file, relative paths start at its folder."""

    model: str | None = choice(
        None,
        "a checkpoint (.pt), an exported program (.pt2), an .onnx file, a quantised .tflite file, or a shipped model's"
        " name",
        path="named",
    )
    target: str = choice("cortex-m7", "a name from `edgec targets`, or a target file (.toml)", path="named")
    out: str | None = choice(
        None, "output folder, absent or empty (default: out/MODEL-TARGET)", path="always", flags=("-o", "--out")
    )
    calibration: str | None = choice(
        None,
        ".npz with an array [N, ...] of samples for each input by name (for an only input the first array), or what"
        " `edgec calibrate` wrote (default: MODEL.ranges.npz or calibration.npz beside the model)",
        path="always",
    )
    precision: Precision = DEFAULTS.precision
    form: Form = DEFAULTS.form
    budget: Budget = DEFAULTS.budget
    code: Code = DEFAULTS.code

    @property
    def options(self) -> Options:
        return Options(self.precision, self.form, self.budget, self.code)


PLACES = {f.name: f for f in fields(Config) if f.name not in GROUPS}


@dataclass(frozen=True)
class Effective:
    """The choices that count, and by name where those come from that are no defaults."""

    config: Config
    origins: Mapping[str, str]


def effective(file: str | None, given: Mapping[str, Any]) -> Effective:
    """Defaults, over them a file's choices, over them those of the command line. InputError where one is wrong, or they
    exclude each other."""
    config, said = (Config(), list[str]()) if file is None else read_config(Path(file))
    places = {name: value for name, value in given.items() if name in PLACES}
    choices = {name: value for name, value in given.items() if name in FIELDS}
    options = Options.of(config.options, **choices)
    kept = [n for n in said if n in PLACES or options.value(n) == config.options.value(n)]
    named = dict.fromkeys(kept, "file") | dict.fromkeys(given, "command line")
    return Effective(replace(config, **places, **vars(options)), named)


def read_config(path: Path) -> tuple[Config, list[str]]:
    """A file's choices, and the names of those it makes; InputError with every key that is wrong, of another type, or
    of a value that there is not."""
    data = read_table(path, WHAT, form="TOML")
    hints = [*meant(data), f"edgec compile {option('show_options')} prints every key"]
    config = checked(Config, data, f"{path}: wrong {WHAT}", strict=True, hint="; ".join(hints))
    tables = [table for name, table in data.items() if name in GROUPS]
    given = [name for name in data if name in PLACES] + [name for table in tables for name in table]
    return from_folder(config, path.parent), given


def meant(data: Mapping[str, Any]) -> Iterator[str]:
    """Of keys that stand in the wrong place or are misspelt, what was meant."""
    keys = {name: f"{group}.{name}" for name, group in GROUP_OF.items()} | {name: name for name in PLACES}
    tables = {name: f"[{name}]" for name in GROUPS}
    groups = {name: data[name] for name in GROUPS if isinstance(data.get(name), dict)}
    found = {name: name for name in data if name not in groups}
    found |= {f"{group}.{name}": name for group, table in groups.items() for name in table}
    for place, name in found.items():
        known = tables if isinstance(data.get(place), dict) else keys
        near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
        if near and known[near[0]] != place:
            yield f"{place}: did you mean {known[near[0]]}?"
    bits = groups.get("precision", {}).get("bits")
    if isinstance(bits, dict) and any(isinstance(v, dict) for v in bits.values()):
        yield "a layer's name with dots stands in quotes"


def from_folder(config: Config, folder: Path) -> Config:
    """The same with the paths that are relative taken from a folder; a word alone may be a name."""
    moved: dict[str, Any] = {
        f.name: str(folder / text)
        for f in PLACES.values()
        if (text := getattr(config, f.name)) is not None
        and (f.metadata["path"] == "always" or Path(text).suffix or Path(text).name != text)
    }
    tune = config.code.tune
    if isinstance(tune, str) and not tune.startswith("~"):
        moved_code = replace(config.code, tune=str(folder / tune))
        return replace(config, code=moved_code, **moved)
    return replace(config, **moved)


def to_toml(found: Effective) -> str:
    """A file of the choices that count, each with where it comes from; to be read again by `read_config`."""

    def line(name: str, value: Any, default: Any, allowed: Any = ()) -> str:
        known = f"; one of {', '.join(map(str, allowed))}" if allowed else ""
        if value is None and default is None:
            return f"# {name}: not set{known}"
        return f"{name} = {toml(value)}  # {found.origins.get(name, 'default')}{known}"

    lines = ["# edgec compile --config edgec.toml reads this; the command line wins"]
    lines += [line(f.name, getattr(found.config, f.name), f.default) for f in PLACES.values()]
    for group in GROUPS:
        lines += ["", f"[{group}]"]
        for f in fields(GROUPS[group]):
            lines.append(line(f.name, found.config.options.value(f.name), f.default, f.metadata.get("allowed", ())))
    return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    """A choice in TOML; None is the word none, as on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple) and None not in value:
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, tuple):
        value = "".join(f"{'none' if v is None else v}," for v in value)
    text = "none" if value is None else value
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
