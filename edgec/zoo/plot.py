"""The any-time curves of a family as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgec.errors import InputError


def plot_anytime(cards: Sequence[dict[str, Any]], path: Path) -> None:
    """Metric against frames heard, a line for each model and precision, as SVG; equal figures give equal bytes."""
    try:
        import matplotlib
    except ModuleNotFoundError as err:
        raise InputError(f"the plot {path.name} needs matplotlib", hint="pip install 'edgec[plots]'") from err
    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": "edgec", "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(figsize=(7, 4))
        for card in cards:
            for precision, measured in card["compiled"].items():
                if "anytime" in measured:
                    xs, ys = zip(*measured["anytime"], strict=True)
                    axes.plot(xs, ys, marker=".", label=f"{card['name']}, {precision} C")
        axes.set_xlabel("frames heard")
        axes.set_ylabel(f"{cards[0]['metric']} in {cards[0]['unit']}")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
