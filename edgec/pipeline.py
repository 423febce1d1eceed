"""compile(): from a user's model to a folder with a C library, its manifest and its report. Straight down."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgec import frontends
from edgec.backends import emit
from edgec.checks import (
    calibration_beside,
    check_calibrating,
    check_form,
    check_output,
    check_request,
    default_output,
    no_calibration,
    ranges_beside,
)
from edgec.compiled import CompiledModel
from edgec.errors import InputError, option
from edgec.files import is_zip, read_array, read_arrays, read_lines
from edgec.frontends.checkpoint import labels_of
from edgec.frontends.shipped import file_of
from edgec.guard import users_own
from edgec.ir.graph import Graph
from edgec.ir.text import print_graph
from edgec.kernels import takes_zones
from edgec.passes.channels.drop_constant_channels import DropConstantChannels
from edgec.passes.quantize.assign_precision import kept_wide
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.ranges import (
    SYNTHETIC,
    Ranges,
    is_ranges,
    read_ranges,
    save_ranges,
    statistics_for,
    synthetic_input,
    take_ranges,
)
from edgec.passes.samples import Array, first_samples, gather
from edgec.plan import Plan, Tiling
from edgec.profile.budget import Budget, arena_for, check_budget
from edgec.profile.report import build_report
from edgec.profile.tune import tune_kernels
from edgec.profile.verify.agreement import CALIBRATION, judgement, observe
from edgec.stages import Form, Progress, Stages, assignment_of, kind_of, make_stages, passes_for, transform
from edgec.target import Target
from edgec.toolchain import read_manifest
from edgec.toolchain.checksums import write_sums
from edgec.toolchain.manifest import MANIFEST

Samples = Mapping[str, Array]


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
    labels = path.parent / "labels.txt"
    names = read_lines(labels, "class names, one a line,") if labels.is_file() else labels_of(path)
    return Extras(calibration_beside(path), names)


def compile_model(
    model: Any,
    target: str | Path | Target = "cortex-m7",
    out: str | Path | None = None,
    *,
    precision: str = "int8",
    calibration: Any = None,
    budget: Budget | None = None,
    emit_kind: str = "c",
    example_inputs: Any = None,
    time_axis: int | Sequence[int | None] | str | None = "guess",
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
    calibration: samples of the model's inputs as `passes.samples.gather` takes them (an array [N, ...], a mapping by
    input name, a DataLoader), the path of an .npz with such arrays, or their Ranges; the model's own where it ships
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
    progress = users_own(progress)
    part = check_request(
        model, target, out, precision=precision, calibration=calibration, budget=budget, emit_kind=emit_kind,
        goal=goal, place=place, toolchain=toolchain, profile=profile, dump_ir=dump_ir, streaming=streaming,
        sliding=sliding, hop=hop, weights=weights, bits=bits,
    )  # fmt: skip
    progress("import")
    form = Form(streaming, sliding, hop).of(model)
    check_form(form.streaming, form.sliding, form.hop)
    axis = None if form.sliding else time_axis
    graph = (
        model if isinstance(model, Graph) else frontends.load(model, example_inputs, time_axis=axis, outputs=outputs)
    )
    out = Path(out) if out is not None else default_output(graph.name, part)
    check_output(out)
    extras, kind = extras_of(model), kind_of(graph, precision)
    assignment = assignment_of(kind, precision, weights, bits)
    data = read_calibration(calibration if calibration is not None else extras.calibration, kind, graph)
    stepper = form.make(graph, time_axis)
    if streaming and stepper is None:
        progress("whole window")
    names = (graph.arguments or [v.name for v in graph.inputs], graph.results or graph.outputs)
    dump = None if dump_ir is None else Path(dump_ir)
    drop = DropConstantChannels(goal=goal, zones=takes_zones(part.isa)) if drop_constant_channels else None
    stages = make_stages(graph, kind, data, stepper, drop, assignment, progress, dump)
    wide = kept_wide(stages.reference, stages.whole, assignment)
    samples, source = samples_of(stages.reference, data)
    progress("compare")
    seen = observe(stages.reference, stages.whole, samples, compared=kind == "int8")
    first = None if samples is None else first_samples(stages.reference.inputs, samples, 1)
    tuned = None
    if tune is not None:
        progress("tune")
        tuned = tune_kernels(stages.step, part, Path(tune), toolchain)
    with tempfile.TemporaryDirectory(prefix="edgec-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "model"
        folder.mkdir()

        def generate(tiling: Tiling) -> dict[str, Any]:
            """Write the folder and measure it."""
            for file in folder.iterdir():
                file.unlink()
            progress("generate code")
            plan = emit.write_folder(
                stages.step, part, folder, place, tiling, cycles=profile == "dwt", goal=goal,
                choose=tuned.choose if tuned else None, names=names,
            )  # fmt: skip
            progress("measure")
            return build_report(
                folder, part, plan, first, seen.rates, source=source, precision=precision, toolchain=toolchain,
                keep_image=emit_kind == "image",
            )  # fmt: skip

        report = fit_ram(generate, budget or Budget())
        report["how"].update(stages.how)
        if (window := form.window(graph, stages.step)) is not None:
            report["how"]["window"] = window
        if tuned is not None:
            tuned.describe(report)
        check_budget(report, budget or Budget())
        _write_graphs(stages, folder)
        labels = labels_for(stages.step, extras.labels, report)
        report |= remarks(graph, stages, form, labels) | judgement(stages, data, seen, source, wide)
        _write_json(folder / "report.json", report)
        if first is not None:
            _write_sample(folder, first)
        write_sums(folder)
        _move(folder, out)
    return CompiledModel(out)


def remarks(graph: Graph, stages: Stages, form: Form, names: tuple[str, ...]) -> dict[str, Any]:
    """What the report says of the model beside what was measured."""
    dropped = {} if stages.dropped is None else {"dropped": stages.dropped}
    rates = [n.op.sample_rate for n in graph.nodes if hasattr(n.op, "sample_rate")]
    labels = {"labels": names, "sample_rate": rates[0] if rates else None}
    return {"sliding": bool(form.sliding), **dropped, **labels}


def labels_for(step: Graph, names: tuple[str, ...], report: dict[str, Any]) -> tuple[str, ...]:
    """The class names that came with a model, where it has as many scores; else none, which the report says."""
    shape = step.type_of(step.outputs[0]).shape
    if names and len(names) not in (prod(shape), shape[-1] if shape else 1):
        report["how"]["labels"] = f"{len(names)} class names came with it, left out as it has {prod(shape)} scores"
        return ()
    return names


def fit_ram(generate: Callable[[Tiling], dict[str, Any]], budget: Budget) -> dict[str, Any]:
    """The report of the plan that costs least; where that needs too much RAM, of one with an arena as small as asked.
    A third attempt makes up for a stack that grew in the second."""
    report = generate(Tiling())
    untiled = report["totals"]["arena"]
    for _ in range(2):
        arena = arena_for(report, budget)
        if arena is None or report["totals"]["arena"] == 0:
            break
        report = generate(Tiling(arena))
        report["totals"]["in_steps"] = report["totals"]["arena"] < untiled
        if report["totals"]["arena"] > arena:
            break
    return report


def samples_of(reference: Graph, data: Samples | Ranges | None) -> tuple[Samples | None, str]:
    """Samples of each input to measure on, and what they are: statistics hold none, so synthetic inputs stand in."""
    if isinstance(data, Ranges):
        found = statistics_for(reference, data)
        return {v.name: synthetic_input(v, found[v.name]) for v in reference.inputs}, SYNTHETIC
    return data, CALIBRATION


def calibrate_model(
    model: str | Path, calibration: Any, out: str | Path | None = None, time_axis: int | str | None = "guess"
) -> Path:
    """Write the statistics of a model's float graph over inputs, by default where compile finds them.

    calibration: as `compile_model` takes it, but for statistics.
    """
    check_calibrating(model, calibration, out)
    graph = frontends.load(model, time_axis=None if Form().of(model).sliding else time_axis)
    data = read_calibration(calibration, kind_of(graph, "int8"), graph)
    if data is None or isinstance(data, Ranges):
        raise InputError(f"{calibration}: expected model inputs, found calibration statistics or nothing")
    before = itertools.takewhile(lambda p: not isinstance(p, Quantize), passes_for("int8", None, None, None))
    folded = transform(graph, list(before), lambda stage: None)[-1]
    path = Path(out) if out is not None else ranges_beside(file_of(model))
    count = len(data[graph.inputs[0].name]) // graph.inputs[0].type.shape[0]
    save_ranges(path, take_ranges(folded, data, f"{count} inputs"))
    return path


def read_calibration(source: Any, precision: str, graph: Graph) -> Samples | Ranges | None:
    """Samples of every input of a graph, or their statistics; a graph that comes quantised needs none."""
    if source is None:
        if precision == "int8":
            raise no_calibration()
        return None
    if isinstance(source, (str, Path)):
        source = read_archive(Path(source), [v.name for v in graph.inputs])
    return source if isinstance(source, Ranges) else gather(graph.inputs, source)


def read_archive(path: Path, names: Sequence[str]) -> Any:
    """Calibration data from an .npz: arrays by input name, of an only input the first array; or statistics."""
    hint = "expected an .npz written by numpy.savez"
    if not is_zip(path):
        return read_array(path, hint)
    arrays = read_arrays(path, hint)
    if is_ranges(arrays):
        return read_ranges(arrays, path)
    if len(names) == 1 and names[0] not in arrays:
        return next(iter(arrays.values()))
    return arrays


def _write_sample(folder: Path, sample: Samples) -> None:
    """The inputs that `edgec profile` and `edgec verify` run unless told otherwise, by their names."""
    specs = read_manifest(folder).inputs
    write_arrays(folder / "sample.npz", {s.name: x for s, x in zip(specs, sample.values(), strict=True)})


def _write_graphs(stages: Stages, folder: Path) -> None:
    """The graphs that `edgec verify` compares the device with."""
    (folder / "ir").mkdir()
    for name, graph in (("reference", stages.reference), ("whole", stages.whole), ("step", stages.step)):
        (folder / "ir" / f"{name}.ir").write_text(print_graph(graph, consts=False), encoding="utf-8")
        write_arrays(folder / "ir" / f"{name}.npz", {n: c.data for n, c in graph.consts.items()})


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """An .npz of arrays of any names; numpy.savez takes none called `file`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _move(folder: Path, out: Path) -> None:
    """Put the finished folder in place in one step, so that nothing half-written is ever seen; of two compiles into the
    same folder, the second ends in an InputError."""
    place = out.resolve()  # a symbolic link stays one
    try:
        if place.is_dir():
            _fill(folder, place)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            _place(folder, place)
    except OSError as err:
        if err.errno in (errno.ENOTEMPTY, errno.EEXIST):
            reason = "it was filled while this compile ran, as another one into the same folder would"
        else:
            reason = err.strerror or str(err.args[0][0][2]).partition(": ")[0]  # copytree's are a list, the first tells
            reason = reason.rpartition("] ")[2]  # without its number
        raise InputError(
            f"output folder {out} cannot be written: {reason}", hint=f"give another with {option('out')}"
        ) from err


def _place(folder: Path, place: Path) -> None:
    """A new folder."""
    beside = Path(tempfile.mkdtemp(prefix=".edgec-", dir=place.parent))
    try:
        shutil.copytree(folder, beside / "new")
        (beside / "new").rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _fill(folder: Path, place: Path) -> None:
    """An empty folder that is there keeps its owner and mode, and may be a mount point or where a shell stands; a name
    that is claimed shuts out another compile, and what makes it a compiled model comes last."""
    claimed, moved = place / ".edgec-new", list[Path]()
    claimed.mkdir()
    try:
        if any(p != claimed for p in place.iterdir()):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        shutil.copytree(folder, claimed, dirs_exist_ok=True)
        for file in sorted(claimed.iterdir(), key=lambda p: p.name == MANIFEST):
            moved.append(place / file.name)
            file.rename(moved[-1])
    except BaseException:
        for path in moved:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(claimed, ignore_errors=True)


__all__ = ["CompiledModel", "Plan", "compile_model"]
