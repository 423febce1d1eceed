"""The console that commands print to, and the report of a compile on it."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

# tables need about 130 columns; a pipe has no width of its own. Names are the user's: they are no markup
console = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 140)


def print_report(report: dict[str, Any]) -> None:
    """What a compile ends with: a table of the layers, what they need, how fast they are."""
    print_layers(report)
    print_memory(report)
    totals = report["totals"]
    console.print(f"{totals['macs']:,} dense-equivalent MACs a frame, delay {totals['delay']} frames")
    print_dropped(report.get("dropped"))
    print_judgement(report)
    if totals["instructions_worst"] is not None:
        print_speed(totals, report["how"])
    for what, how in report["how"].items():
        style = "yellow" if how.startswith("not counted") else "dim"
        console.print(f"  {what}: {how}", style=style)


def print_judgement(report: dict[str, Any]) -> None:
    """How the outputs agree with the float network, and the report's warnings."""
    if agreement := report.get("agreement"):
        console.print(f"against the float network on {agreement['on']}: {agreement['text']}", markup=False)
    for warning in report.get("warnings", ()):
        console.print(f"warning: {warning}", style="yellow", markup=False)


def print_layers(report: dict[str, Any]) -> None:
    """A row for each layer."""
    table = Table(title=f"{report['model']} for {report['target']}, {report['precision']}", title_justify="left")
    for column in ("layer", "op", "variant", "shape", "precision"):
        table.add_column(column, overflow="fold")
    for column in ("MACs", "instr.", "cycles", "flash", "RAM", "spikes"):
        table.add_column(column, justify="right")
    for r in report["layers"]:
        rate = "" if r["spike_rate"] is None else f"{100 * r['spike_rate']:.1f} %"
        rate = rate if r["input_rate"] is None else f"in {100 * r['input_rate']:.1f} %"
        shape = "x".join(map(str, r["shape"]))
        table.add_row(
            r["name"],
            r["op"],
            r["variant"],
            shape,
            r["precision"],
            f"{r['macs']:,}",
            *("" if r[k] is None else f"{r[k]:,}" for k in ("instructions", "cycles")),
            f"{r['flash']:,}",
            f"{r['ram']:,}",
            rate,
        )
    console.print(table)


def print_memory(report: dict[str, Any]) -> None:
    """Flash and RAM, what running in steps costs, and what lies in other memories."""
    t = report["totals"]
    stack = "?" if t["stack"] is None else f"{t['stack']:,}"
    copied = f" + constants copied to fast memory {t['copied']:,}" if t["copied"] else ""
    console.print(f"flash {t['flash']:,} B, of it weights and tables {t['weights']:,} B")
    console.print(
        f"RAM {t['ram']:,} B = state {t['state']:,} + arena {t['arena']:,} + stack {stack}{copied}; the arena is"
        f" {t['arena_gap']:,} B ({t['arena_gap_percent']:.1f} %) above its lower bound"
    )
    for row in report["steps"]:
        strips = f" and {row['strips']} strips of columns" if row["strips"] > 1 else ""
        console.print(
            f"{row['first']} ... {row['last']} in steps of {row['rows']} rows{strips}: {row['macs_again']:+,} MACs,"
            f" about {row['instructions']:,} instructions more"
        )
    for row in (r for r in report["memory"][2:] if r["items"]):
        kept = [i["kind"] for i in row["items"]]
        what = [k for k in ("arena", "state") if k in kept] + [f"{kept.count('weights')} constants"]
        console.print(f"{row['region']} {row['bytes']:,} of {row['length']:,} B: {', '.join(what)}")


def print_speed(t: dict[str, Any], how: dict[str, str]) -> None:
    """Instructions, cycles and time of a frame, from the report's totals."""
    ratio = t["instructions_mean"] / t["macs"] if t["macs"] else float("nan")
    console.print(
        f"{t['instructions_worst']:,} instructions in the worst frame, {t['instructions_mean']:,.0f} in the mean"
        f" ({ratio:.2f} per MAC)"
    )
    if t["cycles_worst"] is not None:
        console.print(f"{t['cycles_worst']:,} cycles in the worst frame, {t['cycles_mean']:,} in the mean (modelled)")
    console.print(f"latency {t['latency_ms']:.3f} ms ({how['latency']})")
    if t["board_ms"] is not None:
        console.print(f"on a board {t['board_ms']:.3f} ms +- {100 * t['board_error']:.0f} % (estimate)")


def print_dropped(dropped: dict[str, Any] | None) -> None:
    """The constant channels that went, layer by layer, and what that saved; nothing where none did."""
    if not dropped or not dropped["layers"]:
        return
    table = Table(title="constant channels dropped, no output byte changes", title_justify="left")
    table.add_column("layer", overflow="fold")
    for column in ("channels", "left", "biases"):
        table.add_column(column, justify="right")
    for r in dropped["layers"]:
        table.add_row(r["name"], str(r["before"]), str(r["after"]), str(dropped["zones"].get(r["name"], 1)))
    console.print(table)
    kept = f"; {dropped['kept']:,} more are constant and stay" if dropped["kept"] else ""
    console.print(
        f"{dropped['channels']:,} channels, {dropped['macs']:,} MACs over the whole input and {dropped['bytes']:,} B of"
        f" constants saved{kept}"
    )
