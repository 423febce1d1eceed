"""compile(): from a user's model to a folder with a C library, its manifest and its report. Straight down."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Unpack

from edgec import frontends
from edgec.backends import emit
from edgec.checks import (
    Request,
    calibration_beside,
    check_calibrating,
    check_output,
    check_request,
    default_output,
    no_calibration,
    ranges_beside,
)
from edgec.compiled import CompiledModel
from edgec.errors import InputError
from edgec.files import is_zip, read_array, read_arrays, read_lines
from edgec.folder import complete, emptied, made_of, put_in_place
from edgec.frontends.checkpoint import labels_of
from edgec.frontends.shipped import file_of
from edgec.guard import users_own
from edgec.ir.graph import Graph
from edgec.kernels import takes_zones
from edgec.options import DEFAULTS, Budget, Choices, Code, Form, Options, takes_choices
from edgec.passes.channels.drop_constant_channels import DropConstantChannels
from edgec.passes.quantize.assign_precision import kept_wide
from edgec.passes.quantize.plan import has_grids
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
from edgec.plan import Tiling
from edgec.profile.budget import arena_for, check_budget
from edgec.profile.report import build_report
from edgec.profile.tune import Tuned, default_cache, tune_kernels
from edgec.profile.verify.agreement import CALIBRATION, judgement, observe
from edgec.stages import (
    Progress,
    Stages,
    assignment_of,
    form_of,
    kind_of,
    make_stages,
    passes_for,
    step_pass,
    transform,
    window_of,
)
from edgec.target import Target

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


@takes_choices
def compile_model(
    model: Any,
    target: str | Path | Target = "cortex-m7",
    out: str | Path | None = None,
    *,
    calibration: Any = None,
    example_inputs: Any = None,
    options: Options | None = None,
    dump_ir: str | Path | None = None,
    progress: Progress = lambda stage: None,
    **choices: Unpack[Choices],
) -> CompiledModel:
    """Compile a model file, shipped model name, torch module or Graph for a target into the folder `out`.

    calibration: samples of the model's inputs as `passes.samples.gather` takes them (an array [N, ...], a mapping by
    input name, a DataLoader), the path of an .npz with such arrays, or their Ranges; the model's own where it ships
    one. options, choices: the Options, and such of them by name (`goal="size"`) as are to be others; what each means
    stands in docs/options.md. A graph whose inputs name no time axis is compiled as a whole window: one call is one
    inference. dump_ir: a folder for the graph after every pass; progress: is told the name of each stage. Raises an
    EdgecError for anything the user can mend; then `out` is left as it was.
    """
    request = check_request(
        model, target, out, Options.of(options, **choices), calibration=calibration, example_inputs=example_inputs,
        dump_ir=dump_ir,
    )  # fmt: skip
    return build(request, users_own(progress))


def build(request: Request, progress: Progress) -> CompiledModel:
    """What was asked for, straight down: import the model, make the graph that runs, generate code for it, measure
    that, and put the folder in its place."""
    options, part = request.options, request.target
    progress("import")
    form = form_of(options.form, request.model)
    graph = import_model(request, form)
    out = request.out or default_output(graph.name, part)
    check_output(out)
    extras, kind = extras_of(request.model), kind_of(graph, options.precision.precision)
    assignment = assignment_of(kind, options.precision)
    calibration = extras.calibration if request.calibration is None else request.calibration
    data, step = read_calibration(calibration, kind, graph), step_pass(form, graph)
    if form.streaming and step is None:
        progress("whole window")
    drop = dropping(options.code, part)
    stages = make_stages(graph, kind, data, step, drop, assignment, progress, request.dump_ir)
    wide = kept_wide(stages.reference, stages.whole, assignment)
    samples, source = samples_of(stages.reference, data)
    progress("compare")
    seen = observe(stages.reference, stages.whole, samples, compared=kind == "int8")
    first = None if samples is None else first_samples(stages.reference.inputs, samples, 1)
    tuned = tuned_kernels(stages.step, part, options.code, progress)
    names = (graph.arguments or [v.name for v in graph.inputs], graph.results or graph.outputs)
    with tempfile.TemporaryDirectory(prefix="edgec-", ignore_cleanup_errors=True) as work:
        folder = Path(work) / "model"

        def generate(tiling: Tiling) -> dict[str, Any]:
            """Write the folder and measure it."""
            emptied(folder)
            progress("generate code")
            choose = tuned.choose if tuned else None
            plan = emit.write_folder(stages.step, part, folder, options.code, tiling=tiling, choose=choose, names=names)
            progress("measure")
            return build_report(folder, part, plan, first, seen.rates, options, source=source)

        report = fit_ram(generate, options.budget)
        report |= remarks(graph, stages, form, extras.labels, report["how"])
        if tuned is not None:
            tuned.describe(report)
        check_budget(report, options.budget)
        report |= judgement(stages, data, seen, source, wide)
        about = {"options": options.record(), "made_of": made_of(request.model, calibration)}
        complete(folder, stages, report, first, about)
        put_in_place(folder, out)
    return CompiledModel(out)


def import_model(request: Request, form: Form) -> Graph:
    """The graph of a model; of one whose window slides without a time axis."""
    if isinstance(request.model, Graph):
        return request.model
    axis = None if form.sliding else form.time_axis
    return frontends.load(request.model, request.example_inputs, time_axis=axis, outputs=form.outputs)


def dropping(code: Code, part: Target) -> DropConstantChannels | None:
    """The pass that leaves constant channels out, where that is chosen."""
    if not code.drop_constant_channels:
        return None
    return DropConstantChannels(goal=code.goal, zones=takes_zones(part.isa))


def tuned_kernels(step: Graph, part: Target, code: Code, progress: Progress) -> Tuned | None:
    """The kernels that are fastest on the emulator, where that is chosen."""
    if not code.tune:
        return None
    progress("tune")
    return tune_kernels(step, part, default_cache() if code.tune is True else Path(code.tune), code.toolchain)


def remarks(graph: Graph, stages: Stages, form: Form, names: tuple[str, ...], how: Mapping[str, str]) -> dict[str, Any]:
    """What the report says of the model beside what was measured, `how` being what it says of that."""
    window = window_of(form, graph, stages.step)
    labels, left_out = labels_for(stages.step, names)
    hows = {**how, **stages.how, **({} if window is None else {"window": window}), **left_out}
    dropped = {} if stages.dropped is None else {"dropped": stages.dropped}
    rates = [n.op.sample_rate for n in graph.nodes if hasattr(n.op, "sample_rate")]
    rate = rates[0] if rates else None
    return {"how": hows, "sliding": bool(form.sliding), **dropped, "labels": labels, "sample_rate": rate}


def labels_for(step: Graph, names: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The class names that came with a model, where it has as many scores; else none, and what the report says."""
    shape = step.type_of(step.outputs[0]).shape
    if names and len(names) not in (prod(shape), shape[-1] if shape else 1):
        return (), {"labels": f"{len(names)} class names came with it, left out as it has {prod(shape)} scores"}
    return names, {}


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
    model: str | Path, calibration: Any, out: str | Path | None = None, form: Form = DEFAULTS.form
) -> Path:
    """Write the statistics of a model's float graph over inputs, by default where compile finds them.

    calibration: as `compile_model` takes it, but for statistics; form: as in its options.
    """
    check_calibrating(model, calibration, out)
    form = form_of(form, model)
    graph = frontends.load(model, time_axis=None if form.sliding else form.time_axis, outputs=form.outputs)
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
    """Samples of every input of a graph, or their statistics; a graph whose file gives scales may do without."""
    if source is None:
        if precision == "int8" and not has_grids(graph):
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


__all__ = ["CompiledModel", "compile_model"]
