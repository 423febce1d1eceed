"""The console that commands print to, tables that fit it, and the report of a compile on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgec.profile.timing.frames import worst_of

# a pipe has no width of its own. Names are the user's: they are no markup
WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140
console = Console(highlight=False, markup=False, emoji=False, width=WIDTH)

SHORTEST = 12  # what a name is shortened to at most


@dataclass(frozen=True)
class Column:
    """One column of a table. `left_out`: its place in the order in which columns go where the console is too narrow
    for all, 0 for one that stays."""

    head: str
    left_out: int = 0
    is_text: bool = False


def print_table(title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], elsewhere: str) -> None:
    """A row a line: columns that are empty throughout go, then those that the console is too narrow for, which are
    named with the place that has them, then the middle of long names in the first column."""
    cells = {c: [row[k] for row in rows] for k, c in enumerate(columns) if not rows or any(row[k] for row in rows)}
    left_out = []
    for column in sorted((c for c in cells if c.left_out), key=lambda c: c.left_out):
        if width_of(cells) <= console.width:
            break
        left_out.append(column.head)
        del cells[column]
    if (over := width_of(cells) - console.width) > 0 and rows:
        names = next(iter(cells))
        length = max(SHORTEST, max(map(cell_len, cells[names])) - over)
        cells[names] = [shortened(name, length) for name in cells[names]]
    table = Table(title=Text(title) if title else None, title_justify="left")
    for column in cells:
        table.add_column(column.head, overflow="fold", justify="left" if column.is_text else "right")
    for row in zip(*cells.values(), strict=True):
        table.add_row(*map(Text, row))
    console.print(table)
    if left_out:
        console.print(f"left out at {console.width} columns: {', '.join(reversed(left_out))}; {elsewhere}")


def width_of(cells: dict[Column, list[str]]) -> int:
    """Of a table with these columns, its lines included."""
    return sum(max(map(cell_len, [c.head, *texts])) + 3 for c, texts in cells.items()) + 1


def shortened(name: str, length: int) -> str:
    """A name with its middle left out where it is too long: both ends tell layers apart."""
    short, kept = name, length
    while cell_len(short) > length:
        kept -= 1
        short = f"{name[: kept // 3]}…{name[kept // 3 - kept :]}"
    return short


def print_report(report: dict[str, Any]) -> None:
    """What a compile ends with: a table of the layers, what they need, how fast they are."""
    print_layers(report)
    print_memory(report)
    totals, per = report["totals"], report["per"]
    delay = f", delay {totals['delay']} frames" if per == "frame" else ""
    console.print(f"{totals['macs']:,} dense-equivalent MACs {a_call(per)}{delay}")
    print_dropped(report.get("dropped"))
    print_judgement(report)
    if totals["instructions_worst"] is not None:
        print_speed(totals, report["how"], per)
    for what, how in report["how"].items():
        style = "yellow" if how.startswith("not counted") else "dim"
        console.print(f"  {what}: {how}", style=style)


def print_judgement(report: dict[str, Any]) -> None:
    """How the outputs agree with the float network, and the report's warnings."""
    if agreement := report.get("agreement"):
        console.print(f"against the float network on {agreement['on']}: {agreement['text']}", markup=False)
    for warning in report.get("warnings", ()):
        console.print(f"warning: {warning}", style="yellow", markup=False)


def a_call(per: str) -> str:
    """`a frame`, `an inference`."""
    return f"an {per}" if per.startswith(("a", "e", "i", "o", "u")) else f"a {per}"


LAYER_COLUMNS = (
    Column("layer", is_text=True), Column("op", 6, is_text=True), Column("variant", 3, is_text=True),
    Column("shape", 2, is_text=True), Column("precision", 1, is_text=True), Column("MACs", 4), Column("instr."),
    Column("cycles"), Column("flash"), Column("RAM"), Column("spikes", 5),
)  # fmt: skip


def print_layers(report: dict[str, Any]) -> None:
    """A row for each layer."""
    title = f"{report['model']} for {report['target']}, {report['precision']}"
    print_table(title, LAYER_COLUMNS, [layer_row(r) for r in report["layers"]], "report.json has them")


def layer_row(r: dict[str, Any]) -> tuple[str, ...]:
    """The texts of LAYER_COLUMNS; empty where nothing was measured."""
    rate = "" if r["spike_rate"] is None else f"{100 * r['spike_rate']:.1f} %"
    rate = rate if r["input_rate"] is None else f"in {100 * r['input_rate']:.1f} %"
    measured = ("" if r[k] is None else f"{r[k]:,}" for k in ("instructions", "cycles"))
    shape = "x".join(map(str, r["shape"]))
    figures = (f"{r['macs']:,}", *measured, f"{r['flash']:,}", f"{r['ram']:,}", rate)
    return r["name"], r["op"], r["variant"], shape, r["precision"], *figures


def print_memory(report: dict[str, Any]) -> None:
    """Flash and RAM, of the model and of the image that ran, what running in steps costs, and what lies in other
    memories."""
    t = report["totals"]
    stack = "?" if t["stack"] is None else f"{t['stack']:,}"
    copied = f" + constants copied to fast memory {t['copied']:,}" if t["copied"] else ""
    console.print(f"flash {t['flash']:,} B, of it weights and tables {t['weights']:,} B")
    console.print(f"RAM {t['ram']:,} B = state {t['state']:,} + arena {t['arena']:,} + stack {stack}{copied}")
    console.print(
        f"RAM with the caller's buffers {t['ram_with_io']:,} B: input {t['input_buffers']:,}, output"
        f" {t['output_buffers']:,}"
    )
    if t["image_ram"] is not None:
        console.print(
            f"the whole image that was measured: flash {t['image_flash']:,} B, of it harness and vector table"
            f" {t['image_flash'] - t['flash']:,} B; RAM {t['image_ram']:,} B, of it harness"
            f" {t['image_ram'] - t['ram_with_io']:,} B"
        )
    console.print(f"the arena is {t['arena_gap']:,} B ({t['arena_gap_percent']:.1f} %) above its lower bound")
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


def print_speed(t: dict[str, Any], how: dict[str, str], per: str) -> None:
    """Instructions, cycles and time of a call, from the report's totals."""
    ratio = f" ({t['instructions_mean'] / t['macs']:.2f} per MAC)" if t["macs"] else ""
    console.print(f"{spread('instructions', t['instructions_worst'], t['instructions_mean'], per)}{ratio}")
    if t["cycles_worst"] is not None:
        console.print(f"{spread('cycles', t['cycles_worst'], t['cycles_mean'], per)} (modelled)")
    console.print(f"latency {t['latency_ms']:.3f} ms ({how['latency']})")
    if t["board_ms"] is not None:
        console.print(f"on a board {t['board_ms']:.3f} ms +- {100 * t['board_error']:.0f} % (estimate)")


def spread(what: str, worst: float, mean: float, per: str) -> str:
    """Worst and mean of what a call takes; one figure for an inference."""
    if per == "inference":
        return f"{mean:,.0f} {what} {a_call(per)}"
    return f"{worst:,.0f} {what} in {worst_of(per)}, {mean:,.0f} in the mean"


def print_dropped(dropped: dict[str, Any] | None) -> None:
    """The constant channels that went, layer by layer, and what that saved; nothing where none did."""
    if not dropped or not dropped["layers"]:
        return
    columns = (Column("layer", is_text=True), Column("channels"), Column("left"), Column("biases"))
    zones = dropped["zones"]
    rows = [(r["name"], str(r["before"]), str(r["after"]), str(zones.get(r["name"], 1))) for r in dropped["layers"]]
    print_table("constant channels dropped, no output byte changes", columns, rows, "report.json has them")
    kept = f"; {dropped['kept']:,} more are constant and stay" if dropped["kept"] else ""
    console.print(
        f"{dropped['channels']:,} channels, {dropped['macs']:,} MACs over the whole input and {dropped['bytes']:,} B of"
        f" constants saved{kept}"
    )
