"""What a device is: the frozen Target read from targets/*.toml.

Every key of a target file is checked; an unknown, missing or wrong-typed one is an error naming the file and the key.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from edgec.errors import InputError, TargetError, join_problems
from edgec.files import read_text
from edgec.schema import checked

ARCHS = ("arm-m", "aarch64", "x86_64", "cuda")
BACKENDS = ("c", "llvm", "cuda")
KERNEL_SETS = ("generic", "scalar", "arm_dsp", "helium", "neon", "x86", "cuda")
ORDINARY = ("code", "rodata", "ram")  # memories of every part; all others are faster ones (TCM)
DEVICES = ("host", "unicorn", "qemu", "qemu-aarch64", "cuda")
EMULATOR = "emulator"  # the first device of a target that emulates its core
KINDS = ("host", EMULATOR, *DEVICES[1:])  # what a user may name
MAX_BYTES, MAX_HZ = 1 << 44, 1_000_000_000_000
MAX_ADDRESS = 1 << 32


@dataclass(frozen=True)
class Region:
    """One span of the memory map an image is linked for; `wait_states` of a read at the part's clock."""

    name: str
    origin: int
    length: int
    wait_states: int = 0


@dataclass(frozen=True)
class Timing:
    """Cycles of a core's instructions; docs/timing.md says what each figure means. `board_factor` turns them into those
    of the boards that `board` names, with `board_error` as relative standard deviation; 0: not calibrated."""

    source: str
    error: str
    issue: int = 1
    beats: int = 0
    load: float = 1.0
    overlap: float = 0.0
    load_use: float = 0.0
    store: float = 1.0
    store_indexed: float = 1.0
    many: float = 1.0
    word: float = 1.0
    multiply_use: float = 0.0
    multiply_add: float = 1.0
    multiply_long: float = 1.0
    divide: float = 12.0
    address_stall: float = 0.0
    branch: float = 0.0
    jump: float = 0.0
    float_multiply_add: float = 1.0
    float_divide: float = 14.0
    flash_line: int = 0
    flash_wait: float = 0.0
    board: str = ""
    board_factor: float = 0.0
    board_error: float = 0.0


@dataclass(frozen=True)
class Cost:
    """Instructions per MAC of a 1x1 layer by precision, counted on the emulated core (bench/precisions.py)."""

    int8: float
    w4a8: float
    w4a4: float
    w2a8: float


@dataclass(frozen=True)
class Target:
    """A device edgec can compile for. `regions` is the memory map of the emulated machine, `flash_bytes` and
    `ram_bytes` are what the part on the board has: budgets are checked against the latter."""

    name: str
    summary: str
    arch: str
    cpu: str
    isa: tuple[str, ...]
    backend: str
    devices: tuple[str, ...]
    clock_hz: int
    flash_bytes: int
    ram_bytes: int
    frame_budget_ms: float = 10.0
    zig_triple: str = ""
    zig_mcpu: str = ""
    gcc_flags: tuple[str, ...] = ()
    cflags: tuple[str, ...] = ()
    llvm_triple: str = ""
    llvm_mcpu: str = ""
    llvm_mattr: tuple[str, ...] = ()
    has_fpu: bool = True
    cycle_counter: bool = False
    stack_bytes: int = 32768
    qemu_machine: str = ""
    qemu_cpu: str = ""
    qemu_hz: int = 0
    regions: tuple[Region, ...] = field(default=())
    timing: Timing | None = None
    cost: Cost | None = None

    @property
    def fast_regions(self) -> tuple[Region, ...]:
        """Memories beside those that code, constants and RAM have anyway: their length is the part's."""
        return tuple(r for r in self.regions if r.name not in ORDINARY)

    def region(self, name: str) -> Region:
        for region in self.regions:
            if region.name == name:
                return region
        known = ", ".join(r.name for r in self.regions) or "none"
        raise TargetError(f"target {self.name!r} has no memory region {name!r}; it has: {known}")


@dataclass(frozen=True)
class _Zig:
    triple: str
    mcpu: str


@dataclass(frozen=True)
class _Gcc:
    flags: tuple[str, ...]


@dataclass(frozen=True)
class _Llvm:
    triple: str
    mcpu: str
    mattr: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Qemu:
    machine: str = ""
    cpu: str = ""
    hz: int = 0


@dataclass(frozen=True)
class _Memory:
    origin: int
    length: int
    wait_states: int = 0


@dataclass(frozen=True)
class _File:
    """A target file: its keys and tables, those without a default being required."""

    summary: str
    arch: str
    cpu: str
    isa: tuple[str, ...]
    backend: str
    devices: tuple[str, ...]
    clock_hz: int
    flash_bytes: int
    ram_bytes: int
    frame_budget_ms: float = 10.0
    has_fpu: bool = True
    cycle_counter: bool = False
    stack_bytes: int = 32768
    cflags: tuple[str, ...] = ()
    zig: _Zig | None = None
    gcc: _Gcc | None = None
    llvm: _Llvm | None = None
    qemu: _Qemu = _Qemu()
    memory: Mapping[str, _Memory] = field(default_factory=dict)
    timing: Timing | None = None
    cost: Cost | None = None


def list_targets() -> list[str]:
    """Names of the targets that ship with edgec, sorted."""
    return sorted(_shipped())


def load_target(name_or_path: str | Path) -> Target:
    """The target of that name, or of that .toml file."""
    text = os.fspath(name_or_path) if isinstance(name_or_path, (str, Path)) else repr(name_or_path)
    if text.endswith(".toml"):
        try:
            return parse_target(Path(text).stem, read_text(text, "a target file"), text)
        except InputError as err:
            raise TargetError(f"target file {err.message}", hint="edgec targets lists the shipped ones") from err
    return _load_shipped(text)


@functools.cache
def _load_shipped(name: str) -> Target:
    """A shipped target by its name."""
    shipped = _shipped()
    if name not in shipped:
        near = difflib.get_close_matches(name, shipped, n=3, cutoff=0.5)
        known = ", ".join(sorted(shipped))
        hint = f"did you mean {' or '.join(near)}?" if near else "or pass the path of a .toml file"
        raise TargetError(f"unknown target {name!r}; known targets: {known}", hint=hint)
    return parse_target(name, shipped[name], f"{name}.toml")


@functools.cache
def _shipped() -> Mapping[str, str]:
    """Name -> text of every shipped target file: the installed package, or targets/ of a source checkout."""
    checkout = Path(__file__).resolve().parent.parent / "targets"
    try:
        entries = list(resources.files("edgec_targets").iterdir())
    except ModuleNotFoundError as e:
        if not checkout.is_dir():
            raise TargetError(
                "the target files are missing: no package edgec_targets and no targets/ folder", hint="reinstall edgec"
            ) from e
        return {p.stem: p.read_text(encoding="utf-8") for p in checkout.glob("*.toml")}
    return {e.name.removesuffix(".toml"): e.read_text(encoding="utf-8") for e in entries if e.name.endswith(".toml")}


def parse_target(name: str, text: str, where: str) -> Target:
    """Build a Target from the text of a target file; `where` names the file in errors."""
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as e:
        raise TargetError(f"{where}: not valid TOML: {e}") from e
    head = f"{where}: not a valid target"
    file = checked(_File, data, head, strict=True, error=TargetError)
    problems = [*_choice_problems(file), *_number_problems(file), *_text_problems(data, "")]
    if file.arch == "arm-m":
        problems += _memory_problems(file.memory)
        if file.zig is None:
            problems.append("arch 'arm-m' needs the table [zig] with triple and mcpu")
    if problems:
        raise TargetError(join_problems(head, problems))
    tables = ("zig", "gcc", "llvm", "qemu", "memory")
    flat = {f.name: getattr(file, f.name) for f in fields(file) if f.name not in tables}
    for table in tables[:4]:
        part = getattr(file, table)
        flat |= {} if part is None else {f"{table}_{f.name}": getattr(part, f.name) for f in fields(part)}
    regions = tuple(Region(name, m.origin, m.length, m.wait_states) for name, m in file.memory.items())
    return Target(name=name, regions=regions, **flat)


def _choice_problems(file: _File) -> Iterator[str]:
    """Words that must be some of those edgec knows."""
    one: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        ("arch", file.arch, ARCHS),
        ("backend", file.backend, BACKENDS),
    )
    for key, found, known in one:
        if found not in known:
            yield f"key '{key}': {found!r} is not one of {', '.join(known)}"
    some: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
        ("isa", file.isa, KERNEL_SETS),
        ("devices", file.devices, DEVICES),
    )
    for key, several, known in some:
        bad = [v for v in several if v not in known]
        if bad or not several:
            shown = ", ".join(repr(v) for v in bad) or "an empty list"
            yield f"key '{key}': {shown} found, expected some of {', '.join(known)}"


def _number_problems(file: _File) -> Iterator[str]:
    """Sizes, clocks and cycles that no part has."""
    for key, found, low, high in (
        ("clock_hz", file.clock_hz, 1, MAX_HZ),
        ("flash_bytes", file.flash_bytes, 1, MAX_BYTES),
        ("ram_bytes", file.ram_bytes, 1, MAX_BYTES),
        ("stack_bytes", file.stack_bytes, 256, MAX_BYTES),
        ("frame_budget_ms", file.frame_budget_ms, 1e-6, 1e9),
        ("qemu.hz", file.qemu.hz, 0, MAX_HZ),
        *((f"memory.{n}.origin", m.origin, 0, MAX_ADDRESS) for n, m in file.memory.items()),
        *((f"memory.{n}.length", m.length, 1, MAX_ADDRESS) for n, m in file.memory.items()),
        *((f"memory.{n}.wait_states", m.wait_states, 0, 1000) for n, m in file.memory.items()),
        *((f"timing.{k}", v, 1 if k == "issue" else 0, 1e6) for k, v in _numbers(file.timing)),
        *((f"cost.{k}", v, 0, 1e6) for k, v in _numbers(file.cost)),
    ):
        if not low <= found <= high:
            yield f"key '{key}': expected {low:,} to {high:,}, found {found:,}"


def _numbers(table: Timing | Cost | None) -> list[tuple[str, float]]:
    pairs = [] if table is None else [(f.name, getattr(table, f.name)) for f in fields(table)]
    return [(name, value) for name, value in pairs if not isinstance(value, str)]


def _text_problems(value: Any, path: str) -> Iterator[str]:
    """Texts that a command line or a linker script cannot hold."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _text_problems(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _text_problems(inner, path)
    elif isinstance(value, str) and not value.isprintable():
        yield f"key '{path}': expected printable text, found {value[:40]!r}"


def _memory_problems(memory: Mapping[str, _Memory]) -> Iterator[str]:
    """What no linker script can lay out."""
    if not {"code", "ram"} <= memory.keys():
        yield "arch 'arm-m' needs the tables [memory.code] and [memory.ram]"
    for name in memory:
        if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,30}", name) is None:
            yield f"key 'memory.{name}': expected a name of letters, digits and _"
    spans = sorted((m.origin, m.origin + m.length, name) for name, m in memory.items())
    if spans and spans[-1][1] > MAX_ADDRESS:
        yield f"key 'memory.{spans[-1][2]}': reaches beyond the last address, {MAX_ADDRESS - 1:#x}"
    for (_, end, name), (start, _, following) in itertools.pairwise(spans):
        if start < end:
            yield f"keys 'memory.{name}' and 'memory.{following}' overlap"
