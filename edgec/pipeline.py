"""compile(): from a user's model to a folder with a C library, its manifest and its report. Straight down."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgec import frontends
from edgec.backends import emit
from edgec.compiled import CompiledModel
from edgec.errors import EdgecError, InputError
from edgec.frontends.checkpoint import labels_of, slides
from edgec.frontends.shipped import file_of
from edgec.ir.graph import Graph
from edgec.ir.text import print_graph
from edgec.ir.verify import verify
from edgec.passes.assign_layout import AssignLayout
from edgec.passes.assign_precision import Assignment
from edgec.passes.base import Pass
from edgec.passes.drop_constant_channels import DropConstantChannels, savings
from edgec.passes.fold_batchnorm import FoldBatchnorm
from edgec.passes.fold_constants import FoldConstants
from edgec.passes.fold_transpose import FoldTranspose
from edgec.passes.fuse import Fuse
from edgec.passes.fuse_requantize import FuseRequantize
from edgec.passes.make_sliding import MakeSliding
from edgec.passes.make_streaming import MakeStreaming
from edgec.passes.quantize import Quantize
from edgec.passes.ranges import (
    SYNTHETIC,
    Ranges,
    is_ranges,
    read_ranges,
    save_ranges,
    statistics_for,
    synthetic_input,
    take_ranges,
)
from edgec.passes.recognize_eca import RecognizeEca
from edgec.passes.recognize_scaler import RecognizeScaler
from edgec.passes.split_linear import SplitLinear
from edgec.plan import Plan, Tiling
from edgec.profile.budget import Budget, arena_for, check_budget
from edgec.profile.report import CALIBRATION, build_report
from edgec.profile.tune import tune_kernels
from edgec.target import Target, list_targets, load_target

PRECISIONS = ("int8", "float32")
QUANTISED = "quantised"  # the precision of a graph that holds no float tensor: it stays as it is
WHOLE_WINDOW = "whole window, as no input names a time axis: one call is one inference"
EMITS = ("c", "image")
PROFILES = ("dwt",)
GOALS = ("latency", "size")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Stages:
    """The graph as the user meant it, whole-sequence and float; the same with all its channels in the form it runs
    in; and the graph that runs."""

    reference: Graph
    whole: Graph
    step: Graph


@dataclass(frozen=True)
class Extras:
    """What comes with a model file: its own calibration statistics, or calibration.npz, and labels.txt beside it, or
    labels in the checkpoint."""

    calibration: Path | None = None
    labels: tuple[str, ...] = ()


def extras_of(model: Any) -> Extras:
    """The files beside a checkpoint, or beside a shipped model's."""
    if not isinstance(model, (str, Path)):
        return Extras()
    path = file_of(model)
    calibration = next((p for p in (ranges_beside(path), path.parent / "calibration.npz") if p.is_file()), None)
    labels = path.parent / "labels.txt"
    names = tuple(labels.read_text(encoding="utf-8").split()) if labels.is_file() else labels_of(path)
    return Extras(calibration, names)


def ranges_beside(path: Path) -> Path:
    """Where the calibration statistics of a model file lie: net.ranges.npz beside net.pt."""
    return path.with_name(f"{path.stem}.ranges.npz")


def float_passes() -> list[Pass]:
    """What every graph goes through before it may become integer; their result is what the user's model means."""
    return [
        FoldConstants(),
        RecognizeEca(),  # before the layout is assigned, which cancels the permutes around what is found
        RecognizeScaler(),  # after the folding, which drops its mask of ones
        AssignLayout(),  # before batch-norm folding: a permute between convolution and batch norm would hide the pair
        FoldBatchnorm(),
        SplitLinear(),  # after the layout, which brings slices and transposes next to the products
        FoldTranspose(),
    ]


def passes_for(
    precision: str, calibration: Any, streaming: Pass | None, drop: bool = True, assignment: Assignment | None = None
) -> list[Pass]:
    """The passes in the order they run; a graph that comes quantised has only those that keep its meaning to the byte:
    constant channels go if `drop`, and the last pass makes the step."""
    late: list[Pass] = [DropConstantChannels()] if drop else []
    if streaming:
        late.append(streaming)  # last: integer and float graphs stream by the same rules
    if precision == QUANTISED:
        return late
    passes = float_passes()
    if precision == "int8":
        # on the whole sequence: calibration data are whole clips
        passes.append(Quantize(calibration, assignment or Assignment()))
        passes.append(FuseRequantize())
    passes.append(Fuse())  # after quantisation, whose rules know layers and activations apart
    return passes + late


@dataclass(frozen=True)
class Form:
    """How a model runs: streaming frame by frame, sliding over its last frames by `hop`, or one window a call."""

    streaming: bool = True
    sliding: bool | None = None
    hop: int | None = None

    def of(self, model: Any) -> Form:
        """The same with the model's own way where none is asked for; InputError where the options contradict."""
        if self.sliding and not self.streaming:
            raise InputError("a whole window a call and a sliding window exclude each other", hint="leave out --whole")
        own = self.streaming and isinstance(model, (str, Path)) and slides(file_of(model))
        sliding = own if self.sliding is None else self.sliding
        if self.hop is not None and not sliding:
            raise InputError("a hop is for a window that slides", hint="add --sliding")
        return Form(self.streaming, sliding, self.hop)

    def make(self, graph: Graph, axis: int | str | None) -> Pass | None:
        """The pass that makes the step; None for a window a call."""
        if self.sliding:
            if any(v.type.time_axis is not None for v in graph.inputs):
                raise InputError(f"{graph.name}: a graph whose inputs name a time axis streams without sliding")
            return MakeSliding(axis if isinstance(axis, int) else 1, 1 if self.hop is None else self.hop)
        timeless = all(v.type.time_axis is None for v in graph.inputs)
        return MakeStreaming() if self.streaming and not timeless else None

    def window(self, graph: Graph, step: Graph) -> str | None:
        """How a call relates to the window, in words; None for a network that works frame by frame."""
        if self.sliding:
            return (
                f"sliding: a call takes {self.hop or 1} new frames and runs the network on the last ones;"
                f" the first {step.delay} calls fill the window and give no output"
            )
        return WHOLE_WINDOW if all(v.type.time_axis is None for v in graph.inputs) else None


def kind_of(graph: Graph, precision: str) -> str:
    """The precision asked for, or QUANTISED for a graph without float tensors."""
    types = [v.type for v in graph.inputs] + [t for n in graph.nodes for t in n.types]
    if any(t.dtype.is_float for t in types):
        return precision
    if precision != "int8":
        raise InputError(
            f"{graph.name} comes quantised to int8, so {precision} cannot be had", hint="leave out --precision"
        )
    return QUANTISED


def transform(graph: Graph, passes: Sequence[Pass], progress: Progress, dump: Path | None = None) -> list[Graph]:
    """The graph after each pass, verified; written to `dump` as text when asked for."""
    graphs = [graph]
    for number, step in enumerate(passes, 1):
        progress(step.name)
        graphs.append(step.run(graphs[-1]))
        verify(graphs[-1])
        if dump is not None:
            dump.mkdir(parents=True, exist_ok=True)
            (dump / f"{number:02d}_{step.name}.ir").write_text(print_graph(graphs[-1], consts=False), encoding="utf-8")
    return graphs


def check_output(out: Path) -> None:
    """The output folder must be absent or empty, and its parent writable."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"output folder {out} is not empty", hint="give another folder with -o, or remove this one")
    parent = next(p for p in [out, *out.resolve().parents] if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(
            f"output folder {out} cannot be written: {parent} is not a writable folder", hint="give another with -o"
        )


def check_profile(profile: str | None, target: Target) -> None:
    """A profile must be known, and the target's core must have what it reads."""
    if profile not in (None, *PROFILES):
        raise InputError(f"unknown profile {profile!r}", hint=f"one of {', '.join(PROFILES)}")
    if profile == "dwt" and not target.cycle_counter:
        having = ", ".join(n for n in list_targets() if load_target(n).cycle_counter)
        raise InputError(
            f"{target.name} has no cycle counter (DWT->CYCCNT) to profile with; cores that have one: {having}",
            hint="leave out --profile; `edgec profile` counts on the emulated core",
        )


def compile_model(
    model: Any,
    target: str | Target = "cortex-m7",
    out: str | Path | None = None,
    *,
    precision: str = "int8",
    calibration: Any = None,
    budget: Budget | None = None,
    emit_kind: str = "c",
    example_inputs: Any = None,
    time_axis: int | str | None = "guess",
    toolchain: str = "zig",
    streaming: bool = True,
    sliding: bool | None = None,
    hop: int | None = None,
    outputs: Sequence[str] | None = None,
    place: str = "flash",
    drop_constant_channels: bool = True,
    dump_ir: str | Path | None = None,
    weights: int = 8,
    bits: Mapping[str, str] | None = None,
    profile: str | None = None,
    goal: str = "latency",
    tune: str | Path | None = None,
    progress: Progress = lambda stage: None,
) -> CompiledModel:
    """Compile a model file, shipped model name, torch module or Graph for a target into the folder `out`.

    time_axis: the input axis that counts frames; by default axis 1 where the model has ops on sequences.
    calibration: path of an .npz, an array [N, ...] of model inputs, or their Ranges; the model's own where it ships
    one. A graph whose inputs name no time axis is compiled as a whole window: one call is one inference. sliding: a
    call takes `hop` new frames (1) of the time axis (1) and runs the network on its whole window of the last ones; by
    default as the model's package says. outputs: which results, as `frontends.load` takes it. place: `fast` moves
    what is used most per byte to the target's fast memories. drop_constant_channels: leave out what is the same for
    every input; no output byte changes. weights, bits: of every layer that reads int8, and of layers by name
    (`assign_precision`). profile: `dwt` lets the step read the core's cycle counter around each layer. goal: `size`
    shares kernels between layers and has the C compiled for size. tune: a cache file; of every layer each variant that
    fits is run on the emulator, and the fastest kept. Raises an EdgecError for anything the user can mend; then `out`
    is left as it was.
    """
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}", hint=f"one of {', '.join(PRECISIONS)}")
    if emit_kind not in EMITS:
        raise InputError(f"unknown output kind {emit_kind!r}", hint=f"one of {', '.join(EMITS)}")
    part = load_target(target) if isinstance(target, str) else target
    check_profile(profile, part)
    if goal not in GOALS:
        raise InputError(f"unknown goal {goal!r}", hint=f"one of {', '.join(GOALS)}")
    progress("import")
    form = Form(streaming, sliding, hop).of(model)
    axis = None if form.sliding else time_axis
    graph = (
        model if isinstance(model, Graph) else frontends.load(model, example_inputs, time_axis=axis, outputs=outputs)
    )
    out = Path(out) if out is not None else Path("out") / f"{graph.name}-{part.name}"
    check_output(out)
    extras = extras_of(model)
    kind, assignment = kind_of(graph, precision), Assignment(weights, bits or {})
    if assignment.changes and kind != "int8":
        found = "the model comes quantised" if kind == QUANTISED else f"--precision {precision}"
        raise InputError(f"bits of layers can be chosen where edgec quantises, found {found}", hint="leave them out")
    data = read_calibration(calibration if calibration is not None else extras.calibration, kind)
    stepper = form.make(graph, time_axis)
    if streaming and stepper is None:
        progress("whole window")
    passes = passes_for(kind, data, stepper, drop_constant_channels, assignment)
    graphs = transform(graph, passes, progress, None if dump_ir is None else Path(dump_ir))
    reference = graphs[0 if kind == QUANTISED else len(float_passes())]
    first_late = len(passes) - (stepper is not None) - drop_constant_channels
    stages = Stages(reference, graphs[first_late], graphs[-1])
    folder = Path(tempfile.mkdtemp(prefix="edgec-"))
    try:
        samples, source = samples_of(stages.reference, data)
        tuned = None
        if tune is not None:
            progress("tune")
            tuned = tune_kernels(stages.step, part, Path(tune), toolchain)

        def generate(tiling: Tiling) -> dict[str, Any]:
            """Write the folder and measure it."""
            for file in folder.iterdir():
                file.unlink()
            progress("generate code")
            plan = emit.write_folder(
                stages.step, part, folder, place, tiling, cycles=profile == "dwt", goal=goal,
                choose=tuned.choose if tuned else None,
            )  # fmt: skip
            progress("measure")
            return build_report(
                folder, part, plan, stages.whole, samples, source=source, precision=precision, toolchain=toolchain,
                keep_image=emit_kind == "image",
            )  # fmt: skip

        report = fit_ram(generate, budget or Budget())
        _write_graphs(stages, folder)
        if (window := form.window(graph, stages.step)) is not None:
            report["how"]["window"] = window
        if tuned is not None:
            tuned.describe(report)
        report["sliding"] = bool(form.sliding)
        if drop_constant_channels:
            report["dropped"] = savings(graphs[first_late], graphs[first_late + 1])
        check_budget(report, budget or Budget())
        rates = [n.op.sample_rate for n in graph.nodes if hasattr(n.op, "sample_rate")]
        _write_json(
            folder / "report.json", report | {"labels": extras.labels, "sample_rate": rates[0] if rates else None}
        )
        if samples is not None:
            np.save(folder / "sample.npy", samples[0])
        _move(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return CompiledModel(out)


def fit_ram(generate: Callable[[Tiling], dict[str, Any]], budget: Budget) -> dict[str, Any]:
    """The report of the plan that costs least; where that needs too much RAM, of one with an arena as small as asked.
    A third attempt makes up for a stack that grew in the second."""
    report = generate(Tiling())
    for _ in range(2):
        arena = arena_for(report, budget)
        if arena is None or report["totals"]["arena"] == 0:
            break
        report = generate(Tiling(arena))
        report["totals"]["arena_asked"] = arena
        if report["totals"]["arena"] > arena:
            break
    return report


def samples_of(reference: Graph, data: np.ndarray[Any, Any] | Ranges | None) -> tuple[np.ndarray[Any, Any] | None, str]:
    """Inputs to measure on [N, ...], and what they are: statistics hold none, so a synthetic input stands in."""
    if isinstance(data, Ranges):
        v = reference.inputs[0]
        return synthetic_input(v, statistics_for(reference, data)[v.name]), SYNTHETIC
    return data, CALIBRATION


def calibrate_model(
    model: str | Path, calibration: Any, out: str | Path | None = None, time_axis: int | str | None = "guess"
) -> Path:
    """Write the statistics of a model's float graph over inputs, by default where compile finds them.

    calibration: path of an .npz, or an array [N, ...].
    """
    graph = frontends.load(model, time_axis=None if Form().of(model).sliding else time_axis)
    data = read_calibration(calibration, kind_of(graph, "int8"))
    if data is None or isinstance(data, Ranges):
        raise InputError(f"{calibration}: expected model inputs, found calibration statistics or nothing")
    before = itertools.takewhile(lambda p: not isinstance(p, Quantize), passes_for("int8", None, None))
    folded = transform(graph, list(before), lambda stage: None)[-1]
    path = Path(out) if out is not None else ranges_beside(file_of(model))
    save_ranges(path, take_ranges(folded, data, f"{len(data)} inputs"))
    return path


def read_calibration(source: Any, precision: str) -> np.ndarray[Any, Any] | Ranges | None:
    """Calibration inputs as one array [N, ...], or their statistics; a graph that comes quantised needs none."""
    if source is None:
        if precision == "int8":
            raise InputError(
                "int8 needs calibration data and the model ships none",
                hint="--calibration data.npz, its first array [N, ...] being model inputs, or --precision float32",
            )
        return None
    if isinstance(source, Ranges):
        return source
    if not isinstance(source, (str, Path)):
        return np.asarray(source)
    path = Path(source)
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not getattr(archive, "files", None):
                raise InputError(f"{path}: expected an .npz whose first array holds model inputs [N, ...]")
            return read_ranges(archive, path) if is_ranges(archive) else np.asarray(archive[archive.files[0]])
    except EdgecError:
        raise
    except Exception as err:  # numpy raises many kinds for files that are not archives
        raise InputError(
            f"calibration file {path} cannot be read: {err}", hint="expected an .npz written by numpy.savez"
        ) from err


def _write_graphs(stages: Stages, folder: Path) -> None:
    """The graphs that `edgec verify` compares the device with."""
    (folder / "ir").mkdir()
    for name, graph in (("reference", stages.reference), ("whole", stages.whole), ("step", stages.step)):
        (folder / "ir" / f"{name}.ir").write_text(print_graph(graph, consts=False), encoding="utf-8")
        consts: dict[str, Any] = {n: c.data for n, c in graph.consts.items()}
        np.savez_compressed(folder / "ir" / f"{name}.npz", **consts)


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _move(folder: Path, out: Path) -> None:
    """Put the finished folder in place in one step, so that nothing half-written is ever seen."""
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        shutil.copytree(folder, beside / "new")
        if out.exists():
            out.rmdir()
        (beside / "new").rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


__all__ = ["CompiledModel", "Plan", "compile_model"]
