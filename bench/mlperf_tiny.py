"""MLPerf Tiny's int8 networks, one inference each: instructions, flash, RAM and parity beside the peers' figures.

    python bench/mlperf_tiny.py [--models ../shared/data/mlperf_tiny] [--write]
    python bench/mlperf_tiny.py --accuracy [--clips ../shared/data/kws01_mfcc]

--write replaces bench/mlperf_tiny.txt. --accuracy runs the keyword network over all clips, compiled C and LiteRT's
reference kernels side by side, and compares every output byte. Peers' figures and the bars: bench/mlperf_tiny.toml;
published runs on boards: bench/mlperf_boards.toml, edgec's estimates beside them: docs/timing.md.
Flash and RAM are those of the whole linked image, harness included; RAM has the stack's high-water mark in it.
"""

from __future__ import annotations

import argparse
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from edgec.compiled import CompiledModel
from edgec.device import open_device
from edgec.pipeline import compile_model
from edgec.profile.timing.frames import count_frames, how_modelled, how_on_board, timing_obstacle
from edgec.profile.timing.model import board_cycles
from edgec.target import load_target
from edgec.toolchain import image_sizes

HERE = Path(__file__).resolve().parent
COMMITTED = HERE / "mlperf_tiny.txt"
DATA = HERE.parent.parent / "shared" / "data"
PEERS: dict[str, Any] = tomllib.loads((HERE / "mlperf_tiny.toml").read_text(encoding="utf-8"))
BOARDS: list[dict[str, Any]] = tomllib.loads((HERE / "mlperf_boards.toml").read_text(encoding="utf-8"))["board"]
CORES = ("m4", "m7", "m33", "m55")


@dataclass(frozen=True)
class Row:
    """One network on one core; `exact` counts the recorded vectors whose outputs are equal byte for byte."""

    model: str
    core: str
    instructions: int
    cycles: int | None
    flash: int
    ram: int
    exact: int
    vectors: int
    how: str
    how_cycles: str
    goal: str


def measure(model: str, core: str, models: Path, goal: str = "latency") -> Row:
    """Compile, run the recorded vectors on the core's first emulator, read the sizes of the very image that ran."""
    what, target = PEERS["models"][model], load_target(f"cortex-{core}")
    with np.load(models / what["vectors"]) as data:
        pairs = list(zip(data["x_i8"], data["y_i8"], strict=True))
    modelled = timing_obstacle(target) is None
    with tempfile.TemporaryDirectory(prefix="edgec-bench-") as work:
        folder, exact = Path(work) / "out", 0
        compile_model(models / what["file"], target, folder, goal=goal)
        with open_device(target.devices[0], folder, build_dir=work, counting=True, flow=modelled) as device:
            for x, y in pairs:
                (found,) = device.step([x[None]]) or [np.empty(0)]
                exact += int(np.array_equal(found.reshape(-1), y))
            run = count_frames(device, [[x[None]] for x, _ in pairs], target)
            stack, how = device.memory()["stack_bytes"], device.counters.how
        sizes = image_sizes(next(Path(work).glob("*.elf")))
    ram = sizes.ram + stack
    cycles = round(max(run.cycles)) if run.cycles else None
    return Row(
        model, core, max(run.instructions), cycles, sizes.image_flash, ram, exact, len(pairs), how,
        how_modelled(target), goal,
    )  # fmt: skip


def millions(count: float) -> str:
    return f"{count / 1e6:.2f} M"


def counted_table(model: str, rows: list[Row]) -> Table:
    """edgec's rows and the peers', core by core."""
    macs = PEERS["models"][model]["macs"]
    table = Table(
        title=f"{model}: {macs:,} MACs; instructions counted on the emulated core, cycles modelled",
        title_justify="left",
    )
    for column in ("core", "stack", "instructions", "per MAC", "cycles", "flash B", "RAM B", "against LiteRT"):
        table.add_column(column, justify="left" if column in ("core", "stack") else "right")
    for row in rows:
        peers = [p for p in PEERS["counted"] if p["core"] == row.core]
        parity = f"exact on {row.exact} of {row.vectors} vectors"
        lines = [(f"edgec, --goal {row.goal}", vars(row), parity)]
        lines += [] if row.goal == "size" else [(p["stack"], p[model], p["parity"]) for p in peers]
        for stack, f, text in lines:
            ratio = f"{f['instructions'] / macs:.2f}"
            cycles = millions(f["cycles"]) if f.get("cycles") else ""
            sizes = (f"{f['flash']:,}", f"{f['ram']:,}")
            table.add_row(row.core, stack, f"{f['instructions']:,}", ratio, cycles, *sizes, text)
        table.add_section()
    return table


def board_table(model: str, rows: list[Row]) -> Table:
    """Cycles on boards: published runs, median time by clock; and what is estimated for edgec on each core's boards."""
    table = Table(title=f"{model}: published runs on boards, and edgec's estimates for them", title_justify="left")
    for column in ("core", "stack", "board", "MHz", "ms", "cycles"):
        table.add_column(column, justify="left" if column in ("core", "stack", "board") else "right")
    for core in dict.fromkeys(p["core"] for p in BOARDS):
        for p in (p for p in BOARDS if p["core"] == core):
            ms = p["ms"][model]
            table.add_row(core, p["stack"], p["board"], f"{p['mhz']}", f"{ms:g}", millions(ms * p["mhz"] * 1e3))
        for row in (r for r in rows if r.core == core and r.goal != "size" and r.cycles):
            target = load_target(f"cortex-{core}")
            estimate = board_cycles(row.cycles or 0, target)
            if estimate is not None and target.timing is not None:
                error = f"+- {100 * target.timing.board_error:.0f} %"
                table.add_row(core, "edgec, estimate", error, "", "", millions(estimate))
        table.add_section()
    return table


def verdicts(rows: list[Row]) -> Table:
    """Every bar that has a figure, and whether it holds."""
    table = Table(title="bars", title_justify="left")
    for column in ("network", "core", "figure", "found", "at most", "verdict"):
        table.add_column(column, justify="right" if column in ("found", "at most") else "left")
    for row in rows:
        if row.goal == "size":
            continue
        for figure, limit in PEERS["bars"][row.model].get(row.core, {}).items():
            found = getattr(row, figure)
            table.add_row(
                row.model, row.core, figure, f"{found:,}", f"{limit:,}", "holds" if found <= limit else "missed"
            )
        exact = "holds" if row.exact == row.vectors else "missed"
        table.add_row(row.model, row.core, "exact vectors", f"{row.exact}", f"of {row.vectors}", exact)
    return table


def interpreter_outputs(path: Path, clips: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Scores int8 [clips, classes] by LiteRT's reference kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for clip in clips:
        interpreter.set_tensor(source["index"], clip.reshape(source["shape"]))
        interpreter.invoke()
        found.append(interpreter.get_tensor(result["index"]).reshape(-1))
    return np.stack(found)


def compiled_outputs(path: Path, clips: np.ndarray[Any, Any], folder: Path) -> np.ndarray[Any, Any]:
    """Scores int8 [clips, classes] by the C for the Cortex-M4, compiled for this computer."""
    model: CompiledModel = compile_model(path, "cortex-m4", folder)
    shape, found = model.manifest.inputs[0].shape, []
    with model.device("host") as device:
        for clip in clips:
            (scores,) = device.step([clip.reshape(shape)]) or [np.empty(0, np.int8)]
            found.append(scores.reshape(-1))
    return np.stack(found)


def accuracy(models: Path, folder: Path) -> str:
    """Both over every clip: how many outputs differ, and who is right how often."""
    path = models / PEERS["models"]["kws"]["file"]
    with np.load(folder / "kws01.npz") as data:
        clips, labels = data["features_int8"], data["labels"]
    with tempfile.TemporaryDirectory(prefix="edgec-bench-") as work:
        ours = compiled_outputs(path, clips, Path(work) / "kws")
    theirs = interpreter_outputs(path, clips)
    differ = int((ours != theirs).any(1).sum())
    shares = [f"{100 * (scores.argmax(1) == labels).mean():.1f} %" for scores in (ours, theirs)]
    return (
        f"kws, {len(clips)} clips: compiled C {shares[0]} right, LiteRT's reference kernels {shares[1]};"
        f" clips with any output byte that differs: {differ} ({ours.size:,} bytes compared)"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--models", type=Path, default=DATA / "mlperf_tiny")
    arguments.add_argument("--clips", type=Path, default=DATA / "kws01_mfcc")
    arguments.add_argument("--accuracy", action="store_true", help="accuracy over all clips instead of the tables")
    arguments.add_argument("--write", action="store_true", help="replace bench/mlperf_tiny.txt")
    a = arguments.parse_args()
    console = Console(width=140, record=a.write, highlight=False)
    if a.accuracy or a.write:
        console.print(accuracy(a.models, a.clips), soft_wrap=True)
    if a.accuracy:
        return
    goals = [(core, goal) for core in CORES for goal in ("size", "latency")]
    rows = [measure(model, core, a.models, goal) for model in PEERS["models"] for core, goal in goals]
    for model in PEERS["models"]:
        console.print(counted_table(model, [r for r in rows if r.model == model]))
        console.print(board_table(model, [r for r in rows if r.model == model]))
    console.print(verdicts(rows))
    for core in CORES:
        row, target = next(r for r in rows if r.core == core), f"cortex-{core}"
        console.print(f"{target}: instructions {row.how}, the most of any vector", soft_wrap=True)
        console.print(f"{target}: cycles {row.how_cycles}", soft_wrap=True)
        console.print(f"{target}: on a board {how_on_board(load_target(target))}", soft_wrap=True)
    if a.write:
        lines = [line.rstrip() for line in console.export_text().splitlines()]
        COMMITTED.write_text("$ python bench/mlperf_tiny.py --write\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
