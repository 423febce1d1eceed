"""Budgets are gates: a model over one is an error that shows who uses what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from edgec.errors import BudgetError, InputError
from edgec.profile.timing.frames import worst_of

_UNITS = {"": 1, "B": 1, "K": 1024, "KB": 1024, "KIB": 1024, "M": 1 << 20, "MB": 1 << 20, "MIB": 1 << 20}
_TIMES = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}
_NUMBER = r"([0-9]{1,18}(?:\.[0-9]{1,18})?)"


@dataclass(frozen=True)
class Budget:
    """Upper bounds: flash and RAM in bytes, slowest call in milliseconds. None: no bound but the part's. InputError for
    a bound that is not above 0.

    ram: of state, arena and stack, what the model needs; ram_with_io: with the caller's input and output buffers too.
    """

    flash: int | None = None
    ram: int | None = None
    latency_ms: float | None = None
    ram_with_io: int | None = None

    def __post_init__(self) -> None:
        for what, bound, kinds in (
            ("flash", self.flash, (int,)),
            ("ram", self.ram, (int,)),
            ("ram_with_io", self.ram_with_io, (int,)),
            ("latency_ms", self.latency_ms, (int, float)),
        ):
            if bound is not None and (not isinstance(bound, kinds) or isinstance(bound, bool) or not bound > 0):
                unit = "bytes above 0" if kinds == (int,) else "milliseconds above 0"
                raise InputError(f"budget {what}: expected {unit}, found {bound!r}", hint="leave it out for no bound")


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


def ram_limits(report: dict[str, Any], budget: Budget) -> list[tuple[str, int, int]]:
    """What is held in RAM, its bytes, and how many are allowed: the part must hold the caller's buffers as well, its
    fast memory included."""
    totals = report["totals"]
    there = int(report["part"]["ram"] + totals["fast"])
    whole = there if budget.ram_with_io is None else min(budget.ram_with_io, there)
    alone = [] if budget.ram is None else [("RAM", int(totals["ram"]), budget.ram)]
    return [*alone, ("RAM with input and output buffers", int(totals["ram_with_io"]), whole)]


def arena_for(report: dict[str, Any], budget: Budget) -> int | None:
    """Bytes the arena may have for RAM to be within the budget; None where it is."""
    over = max(used - allowed for _, used, allowed in ram_limits(report, budget))
    return max(report["totals"]["arena"] - over, 0) if over > 0 else None


def check_budget(report: dict[str, Any], budget: Budget) -> None:
    """BudgetError when the measured totals exceed the budget, or the part's own memory."""
    totals, part = report["totals"], report["part"]
    problems = []
    flash = ("flash", totals["flash"], part["flash"] if budget.flash is None else min(budget.flash, part["flash"]))
    for label, used, limit in (flash, *ram_limits(report, budget)):
        if used > limit:
            least = "; layers run in the steps of rows and strips of columns that need least already"
            tried = label != "flash" and totals.get("in_steps", False)
            problems.append(f"{label}: {used:,} bytes used, {limit:,} allowed{least if tried else ''}")
    if budget.latency_ms is not None:
        if totals["latency_ms"] is None:
            counted = report["how"].get("instructions", "no emulator counts for this target")
            problems.append(f"latency: not known; instructions: {counted}")
        elif totals["latency_ms"] > budget.latency_ms:
            problems.append(
                f"latency: {totals['latency_ms']:.3f} ms estimated for {worst_of(report['per'])},"
                f" {budget.latency_ms:g} ms allowed"
            )
    if problems:
        raise BudgetError("over budget\n  " + "\n  ".join(problems) + "\n" + users_table(report))


def users_table(report: dict[str, Any], rows: int = 8) -> str:
    """The layers that use most flash, as text."""
    layers = sorted(report["layers"], key=lambda r: (-r["flash"], -r["ram"]))[:rows]
    lines = [f"  {'layer':<28} {'flash':>10} {'RAM':>8} {'MACs':>10}"]
    lines += [f"  {r['name'][:28]:<28} {r['flash']:>10,} {r['ram']:>8,} {r['macs']:>10,}" for r in layers]
    totals = report["totals"]
    memory = f"  RAM: state {totals['state']:,} + arena {totals['arena']:,} + stack {totals['stack'] or 0:,}"
    memory += f" + constants copied to fast memory {totals['copied']:,}" if totals["copied"] else ""
    memory += f"; input and output buffers {totals['input_buffers']:,} + {totals['output_buffers']:,}"
    return "\n".join([*lines, memory])
