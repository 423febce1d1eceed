"""Compile the shipped spiking LMUFormer for a Cortex-M7 and stream speech through the firmware on the emulated core.

    python examples/keyword_spotting.py [--clips N] [--on emulator|host]

Every clip goes in 10 ms at a time, as a microphone would deliver it. While a clip plays, the running scores are shown;
at its end the detected word stands beside the true one, and the instructions that the core executed per frame beside
the 10 ms of real time it has.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

import edgec
from edgec.compiled import CompiledModel, frames, to_device, to_real
from edgec.device import Device
from edgec.profile.clips import read_wav

MODEL = Path(__file__).resolve().parent.parent / "models" / "lmuformer"
console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def bars(scores: np.ndarray, labels: list[str], title: str) -> Table:
    """The class scores as a small bar chart, the best marked."""
    table = Table(title=title, show_header=False, box=None, title_justify="left")
    low, high = float(scores.min()), float(scores.max())
    for k, name in enumerate(labels):
        width = round(30 * (scores[k] - low) / (high - low)) if high > low else 0
        table.add_row("*" if k == int(scores.argmax()) else " ", name, f"{scores[k]:6.2f}", "#" * width)
    return table


def stream_clip(
    device: Device, model: CompiledModel, pcm: np.ndarray, labels: list[str], title: str
) -> tuple[int, list[int]]:
    """Feed one clip frame by frame, showing the running scores; the class and the instructions of every frame."""
    spec, out_spec = model.manifest.inputs[0], model.manifest.outputs[0]
    device.reset()
    counts: list[int] = []
    trail: list[str] = []
    scores = np.zeros(len(labels), np.float32)
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        for t, frame in enumerate(frames(pcm, spec)):
            out = device.step([to_device(frame, spec)])
            counts.append(device.counters.instructions)
            if out is not None:
                scores = to_real(out[0], out_spec).reshape(-1)
            if t % 10 == 9:
                live.update(bars(scores, labels, f"{title}, {10 * (t + 1)} ms"))
            if t % 25 == 24:
                trail.append(f"{10 * (t + 1)} ms {labels[int(scores.argmax())]} {scores.max():.2f}")
        while (out := device.flush()) is not None:
            scores = to_real(out[0], out_spec).reshape(-1)
    console.print(f"     {title:<28} " + ", ".join(trail), style="dim")
    return int(scores.argmax()), counts


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--clips", type=int, default=24, help="how many of the shipped clips")
    arguments.add_argument("--on", default="emulator", choices=("emulator", "host"))
    a = arguments.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "lmuformer-m7"
        command = [
            sys.executable,
            "-m",
            "edgec",
            "compile",
            str(MODEL / "lmuformer.pt"),
            "--target",
            "cortex-m7",
            "-o",
            str(folder),
        ]
        console.print("$ edgec " + " ".join(command[3:]))
        subprocess.run(command, check=True)
        model = edgec.open(str(folder))
        labels = model.report["labels"]
        part = model.report["part"]
        with (MODEL / "clips" / "labels.csv").open(newline="", encoding="utf-8") as f:
            rows = list(csv.DictReader(f))[: a.clips]
        right, every = 0, []
        with model.device(a.on, counting=a.on == "emulator") as device:
            for row in rows:
                found, counts = stream_clip(
                    device, model, read_wav(MODEL / "clips" / row["file"], 16000), labels, row["file"]
                )
                every += counts
                right += labels[found] == row["label"]
                mark = "ok " if labels[found] == row["label"] else "MISS"
                heard = f"heard {labels[found]:<12} true {row['label']:<12}"
                cost = f"worst {max(counts):>8,} mean {np.mean(counts):>9,.0f} instructions a frame"
                console.print(f"{mark:4} {row['file']:<28} {heard} {cost}")
    budget = part["clock_hz"] * part["budget_ms"] / 1e3
    console.print(f"\n{right} of {len(rows)} clips right; delay {model.manifest.delay} frames of 10 ms")
    if any(every):
        console.print(
            f"instructions a frame, counted on the emulated core: {max(every):,} worst, {np.mean(every):,.0f} mean"
        )
        real_time = f"{part['budget_ms']:g} ms at {part['clock_hz'] / 1e6:g} MHz are {budget:,.0f} cycles"
        console.print(
            f"{real_time}: the worst frame takes {100 * max(every) / budget:.1f} % at one instruction per cycle"
        )


if __name__ == "__main__":
    main()
