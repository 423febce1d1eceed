"""The text of a card: figures as Markdown tables, each with the command that gives it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Card = dict[str, Any]
HEAD = "<!-- written by `edgec card` from the .card.json files and about.md: edit those -->\n"


OVERVIEW = ("model", "task", "params", "MACs", "metric", "torch", "int8 C", "flash", "RAM", "instructions")
OVERVIEW_NOTE = (
    "Flash, RAM (state, arena, stack) and instructions of the int8 C alone on a Cortex-M7; how each was measured: its"
    " card.md"
)
WORDS = ("model", "task", "metric")  # its columns that are no numbers


def overview(card: Card) -> list[str]:
    """One row of the table of all models, a text for each of OVERVIEW; shorter where there is no card."""
    if "params" not in card:
        return [card["name"], f"no card yet: edgec card {card['name']}"]
    int8 = card["compiled"].get("int8")
    rows = [r for r in card["targets"] if (r["target"], r["precision"]) == ("cortex-m7", "int8") and "flash" in r]
    sizes = [f"{rows[0][k]:,.0f}" for k in ("flash", "ram", "mean")] if rows else ["", "", ""]
    values = [figure(card, card["float"]["value"]), figure(card, int8["value"]) if int8 else ""]
    counts = [f"{card['params']:,}", f"{card['macs']:,} per {card['per']}"]
    return [card["name"], card["task"], *counts, card["metric"], *values, *sizes]


def family_page(cards: Sequence[Card], about: str) -> str:
    """card.md: a section of figures for each model, then the prose of about.md, whose first line is the title."""
    title, _, rest = about.partition("\n")
    sections = [section(card) for card in cards]
    return "\n".join([HEAD + (title or f"# {cards[0]['family']}"), *sections, rest.strip("\n")]).rstrip("\n") + "\n"


def section(card: Card) -> str:
    """One model's figures."""
    parts = [f"\n## {card['name']}\n", facts(card), quality(card), costs(card)]
    if curves := {p: c["anytime"] for p, c in card["compiled"].items() if "anytime" in c}:
        parts.append(anytime(card, curves))
    return "\n".join(parts)


def facts(card: Card) -> str:
    """What the model is."""
    rows = {
        "task": card["task"],
        "test data": card["data"],
        "licence of the data": card["licence"],
        "parameters": f"{card['params']:,}",
        "checkpoint": f"`{card['checkpoint']}`, float32, {card['bytes']:,} bytes",
        f"dense multiply-accumulates per {card['per']}": f"{card['macs']:,}",
        "delay": f"{card['delay']:,} calls" if card["delay"] else "none",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items())]) + "\n"


def quality(card: Card) -> str:
    """The metric of torch and of the compiled C, side by side."""
    columns = {"torch, float32": card["float"], **{f"C, {p}": c for p, c in card["compiled"].items()}}
    head = f"| {card['metric']}, all {card['inputs']:,} test inputs | " + " | ".join(columns) + " |"
    values = "| | " + " | ".join(figure(card, c["value"]) for c in columns.values()) + " |"
    how = "; ".join(f"{name}: {c['how']}" for name, c in columns.items())
    return f"{head}\n|---|{'---:|' * len(columns)}\n{values}\n\n{how}. Command: `{card['command']}`.\n"


def figure(card: Card, value: float) -> str:
    """A metric with its unit."""
    return f"{value:.2f} %" if card["unit"] == "%" else f"{value:.4f}{' ' * bool(card['unit'])}{card['unit']}"


def costs(card: Card) -> str:
    """Flash, RAM and instructions on every target, or the budget that is exceeded."""
    head = ("target", "precision", "flash", "RAM = state + arena + stack", "instructions, mean", "worst")
    lines = ["| " + " | ".join(head) + " |", "|---|---|---:|---:|---:|---:|"]
    for row in card["targets"]:
        start = f"| {row['target']} | {row['precision']} |"
        if "exceeds" in row:
            lines.append(f"{start} does not fit: {'; '.join(row['exceeds'])} | | | |")
            continue
        stack = "?" if row["stack"] is None else f"{row['stack']:,}"
        ram = f"{row['ram']:,} = {row['state']:,} + {row['arena']:,} + {stack}"
        counts = [" " if row[k] is None else f"{row[k]:,.0f}" for k in ("mean", "worst")]
        lines.append(f"{start} {row['flash']:,} | {ram} | {counts[0]} | {counts[1]} |")
    hows: dict[str, list[str]] = {}
    for row in card["targets"]:
        if "how" in row:
            hows.setdefault(row["how"], []).append(f"{row['target']} {row['precision']}")
    notes = "; ".join(f"{how} ({', '.join(rows)})" for how, rows in hows.items())
    return (
        "\n".join(lines)
        + f"\n\nIn bytes; flash is that of the model in the linked image, stack the high-water mark. Instructions per"
        f" {card['per']}: {notes}. Command: `edgec compile {card['name']} --target TARGET --precision PRECISION`.\n"
    )


def anytime(card: Card, curves: dict[str, list[tuple[int, float]]]) -> str:
    """Metric against frames seen."""
    frames = [f for f, _ in next(iter(curves.values()))]
    lines = ["| frames heard | " + " | ".join(map(str, frames)) + " |", "|---|" + "---:|" * len(frames)]
    for precision, points in curves.items():
        lines.append(f"| C, {precision}: % | " + " | ".join(f"{v:.1f}" for _, v in points) + " |")
    what = f"{card['metric']} of the decision after so many frames ({card['per']} each), streamed through the C"
    plot = f"![{card['metric']} against frames heard](anytime.svg)"
    return f"Any-time readout: {what}. Command: `{card['command']}`.\n\n" + "\n".join(lines) + f"\n\n{plot}\n"
