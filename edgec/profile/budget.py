"""Budgets are gates: a model over one is an error that shows who uses what."""

from __future__ import annotations

from typing import Any

from edgec.errors import BudgetError
from edgec.options import Budget
from edgec.profile.timing.frames import worst_of


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
