"""What a device is: the frozen Target read from targets/*.toml.

Every key of a target file is checked; an unknown, missing or wrong-typed one is an error naming the file and the key.
"""

from __future__ import annotations

import difflib
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from edgec.errors import TargetError, join_problems

ARCHS = ("arm-m", "aarch64", "x86_64", "cuda")
BACKENDS = ("c", "llvm", "cuda")
KERNEL_SETS = ("generic", "scalar", "arm_dsp", "helium", "neon", "x86", "cuda")
ORDINARY = ("code", "rodata", "ram")  # memories of every part; all others are faster ones (TCM)
DEVICES = ("host", "unicorn", "qemu", "qemu-aarch64", "cuda")
EMULATOR = "emulator"  # the first device of a target that emulates its core
KINDS = ("host", EMULATOR, *DEVICES[1:])  # what a user may name


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


# key -> (type, required). Tables of the file: the top level, then [zig], [gcc], [llvm], [qemu], [timing],
# [cost] and [memory.<name>].
_TOP: dict[str, tuple[str, bool]] = {
    "summary": ("string", True), "arch": ("string", True), "cpu": ("string", True),
    "isa": ("strings", True), "backend": ("string", True), "devices": ("strings", True),
    "clock_hz": ("int", True), "flash_bytes": ("int", True), "ram_bytes": ("int", True),
    "frame_budget_ms": ("number", False), "has_fpu": ("bool", False), "cycle_counter": ("bool", False),
    "stack_bytes": ("int", False),
    "cflags": ("strings", False), "zig": ("table", False), "gcc": ("table", False), "llvm": ("table", False),
    "qemu": ("table", False), "memory": ("table", False), "timing": ("table", False),
    "cost": ("table", False),
}  # fmt: skip
_SUB: dict[str, dict[str, tuple[str, bool]]] = {
    "zig": {"triple": ("string", True), "mcpu": ("string", True)},
    "gcc": {"flags": ("strings", True)},
    "llvm": {"triple": ("string", True), "mcpu": ("string", True), "mattr": ("strings", False)},
    "qemu": {"machine": ("string", False), "cpu": ("string", False), "hz": ("int", False)},
}
_TIMING: dict[str, tuple[str, bool]] = {
    f.name: ({"int": "int", "float": "number", "str": "string"}[str(f.type)], f.name in ("source", "error"))
    for f in fields(Timing)
}
_COST: dict[str, tuple[str, bool]] = {f.name: ("number", True) for f in fields(Cost)}
_REGION: dict[str, tuple[str, bool]] = {"origin": ("int", True), "length": ("int", True), "wait_states": ("int", False)}
_FLAT = {
    ("zig", "triple"): "zig_triple", ("zig", "mcpu"): "zig_mcpu", ("gcc", "flags"): "gcc_flags",
    ("llvm", "triple"): "llvm_triple", ("llvm", "mcpu"): "llvm_mcpu", ("llvm", "mattr"): "llvm_mattr",
    ("qemu", "machine"): "qemu_machine", ("qemu", "cpu"): "qemu_cpu", ("qemu", "hz"): "qemu_hz",
}  # fmt: skip


def list_targets() -> list[str]:
    """Names of the targets that ship with edgec, sorted."""
    return sorted(_shipped())


@functools.cache
def load_target(name_or_path: str | Path) -> Target:
    """The target of that name, or of that .toml file."""
    text = str(name_or_path)
    if text.endswith(".toml"):
        path = Path(text)
        if not path.is_file():
            raise TargetError(f"target file {text!r} does not exist", hint="edgec targets lists the shipped ones")
        return parse_target(path.stem, path.read_text(encoding="utf-8"), text)
    shipped = _shipped()
    if text not in shipped:
        near = difflib.get_close_matches(text, shipped, n=3, cutoff=0.5)
        known = ", ".join(sorted(shipped))
        hint = f"did you mean {' or '.join(near)}?" if near else "or pass the path of a .toml file"
        raise TargetError(f"unknown target {text!r}; known targets: {known}", hint=hint)
    return parse_target(text, shipped[text], f"{text}.toml")


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
    except tomllib.TOMLDecodeError as e:
        raise TargetError(f"{where}: not valid TOML: {e}") from e
    problems = _check_table(data, _TOP, "")
    parsed: dict[str, Any] = {"name": name}
    regions: list[Region] = []
    for key, value in data.items():
        if key in _SUB and isinstance(value, dict):
            problems += _check_table(value, _SUB[key], f"{key}.")
            parsed |= {_FLAT[key, k]: _freeze(v) for k, v in value.items() if (key, k) in _FLAT}
        elif key == "memory" and isinstance(value, dict):
            regions, found = _read_regions(value)
            problems += found
        elif key == "timing" and isinstance(value, dict):
            found = _check_table(value, _TIMING, "timing.")
            problems += found
            parsed["timing"] = None if found else Timing(**value)
        elif key == "cost" and isinstance(value, dict):
            found = _check_table(value, _COST, "cost.")
            problems += found
            parsed["cost"] = None if found else Cost(**value)
        elif key in _TOP:
            parsed[key] = _freeze(value)
    if not problems:
        problems = _check_values(parsed, regions)
    if problems:
        raise TargetError(join_problems(f"{where}: not a valid target", problems))
    return Target(regions=tuple(regions), **parsed)


def _freeze(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _read_regions(table: dict[str, Any]) -> tuple[list[Region], list[str]]:
    regions: list[Region] = []
    problems: list[str] = []
    for name, value in table.items():
        if not isinstance(value, dict):
            problems.append(f"key 'memory.{name}': expected a table with origin and length, found {_type_of(value)}")
            continue
        found = _check_table(value, _REGION, f"memory.{name}.")
        problems += found
        if not found:
            regions.append(Region(name, **value))
    return regions, problems


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, list):
        return "strings" if all(isinstance(v, str) for v in value) else "a list of mixed values"
    return {str: "string", int: "int", float: "number", dict: "table"}.get(type(value), type(value).__name__)


def _check_table(table: Mapping[str, Any], schema: Mapping[str, tuple[str, bool]], prefix: str) -> list[str]:
    allowed = ", ".join(schema)
    problems = [f"unknown key '{prefix}{key}'; allowed keys: {allowed}" for key in table if key not in schema]
    for key, (expected, required) in schema.items():
        if key not in table:
            if required:
                problems.append(f"missing key '{prefix}{key}' ({expected})")
            continue
        found = _type_of(table[key])
        if found != expected and not (expected == "number" and found == "int"):
            problems.append(f"key '{prefix}{key}': expected {expected}, found {found}")
    return problems


def _check_values(fields: Mapping[str, Any], regions: list[Region]) -> list[str]:
    problems = []
    singles: list[tuple[str, tuple[str, ...]]] = [("arch", ARCHS), ("backend", BACKENDS)]
    for key, allowed in singles:
        if fields[key] not in allowed:
            problems.append(f"key '{key}': {fields[key]!r} is not one of {', '.join(allowed)}")
    lists: list[tuple[str, tuple[str, ...]]] = [("isa", KERNEL_SETS), ("devices", DEVICES)]
    for key, allowed in lists:
        bad = [v for v in fields[key] if v not in allowed]
        if bad or not fields[key]:
            found = ", ".join(repr(v) for v in bad) or "an empty list"
            problems.append(f"key '{key}': {found} found, expected some of {', '.join(allowed)}")
    if fields["arch"] == "arm-m" and not {"code", "ram"} <= {r.name for r in regions}:
        problems.append("arch 'arm-m' needs the tables [memory.code] and [memory.ram]")
    if fields["arch"] == "arm-m" and "zig_triple" not in fields:
        problems.append("arch 'arm-m' needs the table [zig] with triple and mcpu")
    return problems
