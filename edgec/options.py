"""Everything a user chooses about a compile, as one frozen record: Options, made of four groups.

A field is the one place where a choice is declared: its name is the keyword of `compile` and the key of edgec.toml, its
metadata are what the command line, the pages and the checks need:

help, metavar   what the command line and docs/options.md say of it
allowed         the values there are; `what` names the choice in the error for another, if not the field's name
flags, off      the options of the command line where they are not the field's name; that of False, and its help
read            makes a value of a string: `read(text, where)`; `gather` makes one of an option that may be repeated

A record that exists is valid: the groups check themselves, so nobody after them does.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import numbers
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

from edgec.arguments import annotations_of, check_types
from edgec.bits import PRECISIONS, WEIGHTS, check_bits, read_bits
from edgec.errors import InputError, option

C = TypeVar("C", bound=Callable[..., Any])
_UNITS = {"": 1, "B": 1, "K": 1024, "KB": 1024, "KIB": 1024, "M": 1 << 20, "MB": 1 << 20, "MIB": 1 << 20}
_TIMES = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}
_NUMBER = r"([0-9]{1,18}(?:\.[0-9]{1,18})?)"


def parse_size(text: str, what: str = "size") -> int:
    """`1M`, `128K`, `65536` in bytes (1K is 1024); `what` names it in the InputError for anything else, or for 0."""
    match = re.fullmatch(rf"{_NUMBER} *([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise InputError(f"{what}: {text!r} is not a size", hint="write bytes, or a number with K or M, such as 512K")
    found = int(Decimal(match[1]) * _UNITS[match[2].upper()])
    if found <= 0:
        raise InputError(f"{what}: {text!r} is no size above 0", hint="leave it out for no bound but the part's")
    return found


def parse_latency(text: str, what: str = "time") -> float:
    """`10ms`, `500us`, `0.01s` in milliseconds; `what` names it in the InputError for anything else, or for 0."""
    match = re.fullmatch(rf"{_NUMBER} *(ns|us|ms|s)", text.strip())
    if match is None:
        raise InputError(f"{what}: {text!r} is not a time", hint="write a number with us, ms or s, such as 10ms")
    found = float(match[1]) * _TIMES[match[2]]
    if found <= 0:
        raise InputError(f"{what}: {text!r} is no time above 0", hint="leave it out for no bound")
    return found


def parse_axis(text: str, what: str = "axis") -> int | tuple[int | None, ...] | str | None:
    """`guess`, `none`, an axis, or one for each input (`1,none`); `what` names it in the InputError."""
    words = [word.strip() for word in text.removesuffix(",").split(",")]
    if words == ["guess"]:
        return "guess"
    if not all(word == "none" or re.fullmatch(r"-?[0-9]{1,9}", word) for word in words):
        raise InputError(f"{what}: {text!r} is no axis", hint="a number, none, guess, or one for each input: 1,none")
    axes = tuple(None if word == "none" else int(word) for word in words)
    return axes if "," in text else axes[0]


def choice(default: Any, help: str, **more: Any) -> Any:
    """A field of a group; `more`: see the head of this file."""
    return field(default=default, metadata={"help": help, **more})


def plain(value: Any) -> Any:
    """A choice as TOML, JSON and `==` have it: numpy's numbers as Python's, a path as its text, lists as tuples."""
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Sequence):
        return tuple(plain(v) for v in value)
    if value is None or type(value).__name__ in ("bool", "bool_"):
        return value if value is None else bool(value)
    return int(value) if isinstance(value, numbers.Integral) else float(value)


class Group:
    """Choices that check themselves when they are made: InputError for one of another type, or that there is not."""

    def __post_init__(self) -> None:
        check_types(annotations_of(type(self)), vars(self))
        for f in fields(self):  # type: ignore[arg-type]  # every group is a dataclass
            value, allowed = plain(getattr(self, f.name)), f.metadata.get("allowed", ())
            object.__setattr__(self, f.name, value)
            if allowed and value is not None and not isinstance(value, Mapping) and value not in allowed:
                what, known = f.metadata.get("what", f.name), ", ".join(map(str, allowed))
                raise InputError(f"unknown {what} {value!r}", hint=f"one of {known}")


@dataclass(frozen=True)
class Precision(Group):
    """In which numbers the network computes."""

    precision: str = choice("int8", "of weights and activations", allowed=("int8", "float32"))
    weights: int = choice(
        8,
        "bits of the weights of every linear layer and convolution without groups that reads int8",
        allowed=WEIGHTS,
    )
    bits: Mapping[str, str] | None = choice(
        None,
        f"bits of one layer's weights and of what it reads: {', '.join(PRECISIONS)}; or a .toml or .json file with such"
        " pairs; may be repeated",
        allowed=tuple(PRECISIONS),
        metavar="LAYER=PRECISION",
        gather=read_bits,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bits(self.weights, self.bits or {})


@dataclass(frozen=True)
class Form(Group):
    """What one call takes and returns: a frame of a stream, new frames of a window that slides, or a whole window."""

    time_axis: int | Sequence[int | None] | str | None = choice(
        "guess",
        "input axis that counts frames, none, or one for each input as in 1,none (default: 1 if the model has ops on"
        " sequences)",
        read=parse_axis,
        metavar="AXIS",
    )
    streaming: bool = choice(
        True,
        "one call takes one frame, where the network works frame by frame (default)",
        off=("--whole", "one call takes the whole window: no streaming step (as without a time axis)"),
    )
    sliding: bool | None = choice(
        None,
        "a call takes new frames and runs the network on its whole window of the last ones (default for models that ask"
        " for it, such as ttm)",
        off=("--no-sliding", "the window does not slide, whatever the model asks for"),
    )
    hop: int | None = choice(None, "frames a call takes when the window slides (default: 1)")
    outputs: Sequence[str] | None = choice(
        None,
        "a result to return, by field or place; may be repeated (default: all, of a record its first field)",
        flags=("--output",),
        metavar="NAME",
        gather=tuple,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.time_axis, str) and self.time_axis != "guess":
            raise InputError(f"time_axis: expected an axis, None or 'guess', found {self.time_axis!r}")
        if self.sliding and not self.streaming:
            raise InputError(
                "a whole window a call and a sliding window exclude each other", hint=f"leave out {option('whole')}"
            )
        if self.hop is not None and self.sliding is False:
            raise InputError("a hop is for a window that slides", hint=f"add {option('sliding')}")
        if self.hop is not None and self.hop < 1:
            raise InputError(f"expected a hop of at least 1 frame, found {self.hop}")

    def settled(self, slides: bool) -> Form:
        """The same where it is left to the model whether its window slides, and the model has said so."""
        return self if self.sliding is not None else replace(self, sliding=slides)


@dataclass(frozen=True)
class Budget:
    """Upper bounds: flash and RAM in bytes, slowest call in milliseconds. None: no bound but the part's.

    InputError for a bound that is not above 0.
    ram: of state, arena and stack, what the model needs; ram_with_io: with the caller's input and output buffers too.
    """

    flash: int | None = choice(None, "most flash allowed, such as 1M", read=parse_size, metavar="SIZE")
    ram: int | None = choice(
        None,
        "most RAM allowed (state + arena + stack), such as 128K; convolutions that need more run in patches",
        read=parse_size,
        metavar="SIZE",
    )
    latency_ms: float | None = choice(
        None,
        "longest call allowed (a frame, or an inference), such as 10ms",
        read=parse_latency,
        flags=("--latency",),
        metavar="TIME",
    )
    ram_with_io: int | None = choice(
        None, "the same as --ram with the caller's input and output buffers", read=parse_size, metavar="SIZE"
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            bound, kinds = getattr(self, f.name), (int, float) if f.name == "latency_ms" else (int,)
            fits = isinstance(bound, kinds) and not isinstance(bound, bool) and 0 < bound < math.inf
            if bound is not None and not fits:
                unit = "milliseconds above 0" if float in kinds else "bytes above 0"
                raise InputError(f"budget {f.name}: expected {unit}, found {bound!r}", hint="leave it out for no bound")


@dataclass(frozen=True)
class Code(Group):
    """How the code is chosen, and what is written."""

    emit_kind: str = choice(
        "c", "image: keep the linked image as well", allowed=("c", "image"), what="output kind", flags=("--emit",)
    )
    toolchain: str = choice("zig", "the C compiler", allowed=("zig", "gcc"))
    goal: str = choice(
        "latency",
        "size: layers share kernels that take their shapes from a table, and the C is compiled with -Os (default: a"
        " kernel of exact shape for each layer, -O2)",
        allowed=("latency", "size"),
    )
    place: str = choice(
        "flash",
        "fast: what is used most per byte of constants, state and arena lies in the target's fast memories (TCM) while"
        " it fits (default: constants in flash, the rest in RAM)",
        allowed=("flash", "fast"),
    )
    drop_constant_channels: bool = choice(
        True,
        "leave out channels that are the same for every input (default; the output bytes are the same)",
        off=("--no-drop-constant-channels", "compute them too"),
    )
    tune: bool | str | Path | None = choice(  # noqa: RUF009  of no mutable default
        False,
        "run every kernel variant that fits a layer on the emulator and keep the fastest; measurements are kept in a"
        " file (default: edgec/tune.json in the user's cache folder)",
        off=("--no-tune", "keep the first variant that fits (default)"),
        metavar="CACHE",
    )
    profile: str | None = choice(
        None,
        "dwt: the step reads the core's cycle counter (DWT->CYCCNT) around each layer into its last argument, an array"
        " of the caller's",
        allowed=("dwt",),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "tune", self.tune or False)


@dataclass(frozen=True)
class Options:
    """All choices of a compile: `Options.of(weights=4, goal="size")`, or its groups."""

    precision: Precision = Precision()
    form: Form = Form()
    budget: Budget = Budget()
    code: Code = Code()

    def __post_init__(self) -> None:
        check_types(annotations_of(type(self)), vars(self))

    @classmethod
    def of(cls, base: Options | None = None, **choices: Unpack[Choices]) -> Options:
        """Choices by name, the others as in `base`, by default as in a plain compile; what they exclude there goes.

        `budget` is given as a whole, or each bound by its name. TypeError for a name that is no choice, InputError for
        a value that there is not, or for two that exclude each other."""
        said: dict[str, Any] = {**choices}
        for name, value, others in EXCLUDES:
            if name in said and said[name] == value:
                said = others | said
        base, given = base or cls(), dict[str, dict[str, Any]]()
        for name, value in said.items():
            if name == "budget":
                base = replace(base, budget=Budget() if value is None else value)
            elif name in GROUP_OF:
                given.setdefault(GROUP_OF[name], {})[name] = value
            else:
                raise TypeError(f"got an unexpected keyword argument {name!r}")
        return replace(base, **{group: replace(getattr(base, group), **of) for group, of in given.items()})

    def value(self, name: str) -> Any:
        """The choice of this name."""
        return getattr(getattr(self, GROUP_OF[name]), name)

    def record(self) -> dict[str, dict[str, Any]]:
        """What manifest.json keeps: every choice, and no path of this computer: of --tune whether, not the cache."""
        found = dataclasses.asdict(self)
        found["code"]["tune"] = bool(self.code.tune)
        return found


DEFAULTS = Options()
#: a choice and its value, and of which others it is the contrary: given by name, it sets those to what goes with it
EXCLUDES: tuple[tuple[str, Any, dict[str, Any]], ...] = (
    ("streaming", False, {"sliding": None, "hop": None}),
    ("sliding", False, {"hop": None}),
    ("sliding", True, {"streaming": True}),
)
#: the groups by the name they have in Options and edgec.toml; all fields by name; the group of each
GROUPS: Mapping[str, type] = {"precision": Precision, "form": Form, "budget": Budget, "code": Code}
FIELDS: Mapping[str, dataclasses.Field[Any]] = {f.name: f for group in GROUPS.values() for f in fields(group)}
GROUP_OF: Mapping[str, str] = {f.name: name for name, group in GROUPS.items() for f in fields(group)}


class Choices(TypedDict, total=False):
    """The choices as a type checker sees them among the keywords of a function; the budget is one of them."""

    precision: str
    weights: int
    bits: Mapping[str, str] | None
    time_axis: int | Sequence[int | None] | str | None
    streaming: bool
    sliding: bool | None
    hop: int | None
    outputs: Sequence[str] | None
    budget: Budget | None
    emit_kind: str
    toolchain: str
    goal: str
    place: str
    drop_constant_channels: bool
    tune: bool | str | Path | None
    profile: str | None


def takes_choices(call: C) -> C:
    """A function whose last parameter is `**choices: Unpack[Choices]`, with a signature that names each of them."""
    own = inspect.signature(call)
    named = {n: (f.type, f.default) for n, f in FIELDS.items() if GROUP_OF[n] != "budget"} | {
        "budget": ("Budget | None", None)
    }
    parameters = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD] + [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=text)
        for n, (text, default) in named.items()
    ]
    vars(call)["__signature__"] = own.replace(parameters=parameters)
    return call
