"""What each command of the CLI does: call the API, print tables."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from edgec.errors import EdgecError, InputError
from edgec.printing import Column, a_call, console, print_report, print_table, spread


def compile_command(a: argparse.Namespace) -> None:
    """`edgec compile`."""
    from edgec.checks import check_request
    from edgec.config import effective, to_toml
    from edgec.flags import given

    start = time.monotonic()
    found = effective(a.config, given(a))
    if a.show_options:
        sys.stdout.write(to_toml(found))
        return
    c = found.config
    if c.model is None:
        raise InputError("no model is given", hint="name one, or write `model = ...` into the file of --config")
    request = check_request(c.model, c.target, c.out, c.options, calibration=c.calibration, dump_ir=a.dump_ir)
    with console.status("starting"):
        stages: list[tuple[float, str]] = []

        def progress(stage: str) -> None:
            now = time.monotonic()
            if stages:
                began, name = stages[-1]
                console.print(f"  {name:<22} {now - began:6.2f} s")
            stages.append((now, stage))

        from edgec.pipeline import build

        compiled = build(request, progress)
        progress("")
    print_report(compiled.report)
    console.print(f"wrote {compiled.folder} in {time.monotonic() - start:.1f} s")


def calibrate_command(a: argparse.Namespace) -> None:
    """`edgec calibrate`."""
    from edgec.checks import check_calibrating
    from edgec.config import effective
    from edgec.flags import given

    chosen = {name: value for name, value in given(a).items() if name not in ("model", "out", "calibration")}
    form, data = effective(a.config, chosen).config.form, a.calibration
    check_calibrating(a.model, data, a.out)
    if a.data is not None:
        from edgec.zoo.family import load_calibration_set

        data = load_calibration_set(a.model, a.data)
    from edgec.pipeline import calibrate_model, read_archive

    path = calibrate_model(a.model, data, a.out, form)
    for doubt in read_archive(path, []).doubts:
        console.print(f"warning: {doubt}", style="yellow", markup=False)
    console.print(f"wrote {path}, {path.stat().st_size:,} bytes; compile takes it with --calibration {path}")


def run_command(a: argparse.Namespace) -> None:
    """`edgec run`."""
    from edgec.compiled import CompiledModel, input_frames
    from edgec.device import COUNTING, device_of
    from edgec.target import load_target

    model = CompiledModel(a.folder)
    x, labels = read_clip(a.clip, model), read_labels(a.labels, model)
    on = device_of(a.on or model.default_device, load_target(model.manifest.target))
    outputs: list[list[np.ndarray[Any, Any]]] = []
    with model.device(on, counting=on in COUNTING) as device:
        counts = []

        def keep(out: list[np.ndarray[Any, Any]] | None) -> bool:
            if out is not None:
                outputs.append(out)
            if out is not None and a.stream:
                console.print(f"{len(outputs) - 1:5d}  {describe_all(out, model, labels)}", markup=False)
            return out is not None

        for frame in input_frames(x, model.manifest.inputs):
            keep(device.step(frame))
            counts.append(device.counters.instructions)
        while keep(device.flush()):
            pass
    if not outputs:
        raise InputError(
            f"{a.clip}: too short, the model gave no output", hint=f"its delay is {model.manifest.delay} frames"
        )
    console.print(f"{len(outputs)} outputs on {on}; the last: {describe_all(outputs[-1], model, labels)}", markup=False)
    if any(counts):
        console.print(f"{spread('instructions', max(counts), float(np.mean(counts)), model.report['per'])} (counted)")


def describe_all(out: list[np.ndarray[Any, Any]], model: Any, labels: list[str]) -> str:
    """The outputs of one frame in real values, by name where there are several."""
    from edgec.compiled import to_real

    specs, ranked = model.manifest.outputs, not model.report.get("sliding", False)  # a forecast has no winner
    texts = [describe(to_real(found, spec).reshape(-1), labels, ranked) for found, spec in zip(out, specs, strict=True)]
    if len(texts) == 1:
        return texts[0]
    return "; ".join(f"{spec.name}: {text}" for spec, text in zip(specs, texts, strict=True))


def describe(scores: np.ndarray[Any, Any], labels: list[str], ranked: bool = True) -> str:
    """The scores, and where they rank classes the winner before them."""
    shown = f"[{' '.join(f'{s:.2f}' for s in scores[:16])}{' ...' if scores.size > 16 else ''}]"
    if not ranked:
        return shown
    best = int(np.argmax(scores))
    return f"{labels[best] if best < len(labels) else best}  {shown}"


def read_clip(path: str, model: Any) -> Any:
    """A wav clip as int16, an array from .npy, a series from .csv, or from .npz an array for each input by name."""
    from edgec.profile.clips import read_input

    spec = model.manifest.inputs[0]
    channels = 1 if spec.time_axis == len(spec.shape) - 1 else spec.shape[-1]
    return read_input(path, model.report.get("sample_rate"), channels, console.print)


def read_labels(path: str | None, model: Any) -> list[str]:
    """Class names from a file, or those the report carries."""
    if path is None:
        return list(model.report.get("labels", []))
    from edgec.files import read_lines

    names = read_lines(path, "class names, one a line,")
    scores = dict.fromkeys(int(np.prod(spec.shape)) for spec in model.manifest.outputs)
    if len(names) not in scores:
        expected = " or ".join(map(str, scores))
        raise InputError(f"{path}: expected {expected} class names, one a line, as the model has, found {len(names)}")
    return list(names)


def profile_command(a: argparse.Namespace) -> None:
    """`edgec profile`."""
    from edgec.compiled import CompiledModel
    from edgec.files import check_file
    from edgec.profile.counts import html_page, profile
    from edgec.profile.timing.frames import counted_calls, marks_cost, worst_of

    if a.html:
        check_file(Path(a.html), "page", "--html")
    model = CompiledModel(a.folder)
    result = profile(model, read_clip(a.clip, model) if a.clip else default_input(model))
    per = model.report["per"]
    title = f"{model.manifest.name}: instructions {a_call(per)}, counted on the emulated core"
    print_table(title, PROFILE_COLUMNS, [profile_row(row) for row in result.rows], "--html FILE writes all")
    console.print(
        f"{spread('instructions', result.worst, result.mean, per)}, over {counted_calls(result.frames, per)};"
        f" {result.how}"
    )
    if result.cycles is not None and result.cycles_worst is not None:
        console.print(
            f"{spread('cycles', result.cycles_worst, result.cycles, per)}, that is {result.ms_worst:.3f} ms;"
            f" {result.how_cycles}"
        )
        if a.clip is None and model.report["totals"]["cycles_mean"]:
            console.print(marks_cost(result.cycles, model.report["totals"]["cycles_mean"]))
    if result.ms_board is not None:
        console.print(f"on a board {worst_of(per)} takes {result.ms_board:.3f} ms; {result.how_board}")
    if a.html:
        try:
            Path(a.html).write_text(html_page(model.manifest.name, result, per), encoding="utf-8")
        except OSError as err:
            raise InputError(f"{a.html} cannot be written: {err.strerror}", hint="give another with --html") from err
        console.print(f"wrote {a.html}")


PROFILE_COLUMNS = (
    Column("layer", is_text=True), Column("op", 4, is_text=True), Column("variant", 1, is_text=True), Column("mean"),
    Column("worst", 3), Column("share"), Column("per MAC", 2), Column("cycles (est.)"), Column("ms (est.)", 5),
)  # fmt: skip


def profile_row(row: Any) -> tuple[str, ...]:
    """The texts of PROFILE_COLUMNS."""
    per_mac = f"{row.mean / row.macs:.2f}" if row.macs else ""
    cycles = ("", "") if row.cycles is None else (f"{row.cycles:,.0f}", f"{row.ms:.3f}")
    counted = (f"{row.mean:,.0f}", f"{row.worst:,}", f"{100 * row.share:.1f} %", per_mac)
    return (row.name, row.op, row.variant, *counted, *cycles)


def verify_command(a: argparse.Namespace) -> None:
    """`edgec verify`."""
    from edgec.compiled import CompiledModel
    from edgec.device import device_of
    from edgec.profile.verify.compare import verify_model
    from edgec.target import load_target

    model = CompiledModel(a.folder)
    on = device_of(a.on or model.default_device, load_target(model.manifest.target))
    x = read_clip(a.clip, model) if a.clip else default_input(model)
    result = verify_model(model, x, on, a.model, a.tolerance)
    rows = [(row.name, row.op, row.device_text, *quantised_cells(row.quantised)) for row in result.rows]
    print_table(f"{model.manifest.name}: {result.how}", VERIFY_COLUMNS, rows, "a wider console shows them")
    for agreement in result.agreements:
        console.print(f"{'ok  ' if agreement.ok else 'FAIL'} {agreement}", markup=False)
    if not result.ok:
        raise EdgecError(result.verdict)
    console.print(result.verdict, markup=False)


VERIFY_COLUMNS = (
    Column("layer", is_text=True), Column("op", 3, is_text=True), Column("device vs reference"),
    Column("vs float: SQNR"), Column("of itself", 1), Column("spikes flipped", 4), Column("by itself", 2),
)  # fmt: skip


def quantised_cells(row: Any) -> tuple[str, str, str, str]:
    """Error of a layer's integers, cumulative and made by the layer alone: decibels, or flipped spikes in percent."""
    from edgec.profile.verify.trained import decibels

    if row is None:
        return "", "", "", ""
    if row.is_spikes:
        return "", "", percent(row.flips), percent(row.own_flips)
    return decibels(row.sqnr), decibels(row.own_sqnr), "", ""


def percent(share: float) -> str:
    """A share as a percentage; empty where it is not known."""
    return "" if np.isnan(share) else f"{100 * share:.2f} %"


def default_input(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The inputs that compile() kept for profiling, by name."""
    from edgec.files import read_arrays

    path = model.folder / "sample.npz"
    if not path.is_file():
        raise InputError(f"{model.folder} holds no sample input", hint="give one with --clip")
    return read_arrays(path, hint="give another input with --clip")


def models_command(a: argparse.Namespace) -> None:
    """`edgec models`."""
    import json

    from edgec.zoo.cards import all_cards
    from edgec.zoo.page import OVERVIEW, OVERVIEW_NOTE, WORDS, overview

    cards = all_cards()
    if a.json:
        print(json.dumps(cards, indent=1))
        return
    order = {"task": 1, "MACs": 2, "params": 3, "metric": 4, "torch": 5}
    columns = [Column(head, order.get(head, 0), head in WORDS) for head in OVERVIEW]
    rows = [[*overview(card), *[""] * len(OVERVIEW)][: len(OVERVIEW)] for card in cards]
    print_table("", columns, rows, "--json has them")
    console.print(OVERVIEW_NOTE)


def card_command(a: argparse.Namespace) -> None:
    """`edgec card`."""
    from edgec.options import Options
    from edgec.zoo.family import checkpoint_of

    precisions = a.precision.split(",")
    for precision in precisions:
        Options.of(precision=precision)  # which checks it
    if a.targets_only and a.quick:
        raise InputError("--quick measures on test inputs, --targets-only without them", hint="leave one of them out")
    checkpoint_of(a.name)
    from edgec.zoo.card import make_card, renew_targets
    from edgec.zoo.page import section

    with console.status("starting") as status:
        if a.targets_only:
            card = renew_targets(a.name, precisions, status.update)
        else:
            card = make_card(a.name, a.data, precisions, a.quick, status.update)
    print(section(card))
    if a.quick:
        console.print(f"measured on the first {card['inputs']} test inputs only; nothing was written")


def targets_command(a: argparse.Namespace) -> None:
    """`edgec targets`."""
    from edgec.target import list_targets, load_target

    heads = {"target": 0, "core": 3, "backend": 1, "kernels": 2, "flash": 0, "RAM": 0, "clock": 4, "devices": 0}
    numbers = ("flash", "RAM", "clock")
    rows = []
    for t in map(load_target, list_targets()):
        sizes = (f"{t.flash_bytes >> 10:,} K", f"{t.ram_bytes >> 10:,} K", f"{t.clock_hz / 1e6:g} MHz")
        rows.append((t.name, t.cpu, t.backend, " ".join(t.isa), *sizes, " ".join(t.devices)))
    columns = [Column(head, left_out, head not in numbers) for head, left_out in heads.items()]
    print_table("", columns, rows, "docs/targets.md has them")


def ops_command(a: argparse.Namespace) -> None:
    """`edgec ops`."""
    from edgec.ops import OPS
    from edgec.ops.relations.axes import can_stream

    table = Table()
    for column in ("op", "what", "streams", "kernel"):
        table.add_column(column, overflow="fold")
    for name, op in sorted(OPS.items()):
        streams = "yes" if can_stream(op) else "no"
        table.add_row(
            name,
            (op.__doc__ or "").splitlines()[0],
            streams,
            "generic" if op.lower is not None else "view" if op.is_view else "no",
        )
    console.print(table)


def opt_command(a: argparse.Namespace) -> None:
    """`edgec opt`."""
    from edgec.files import read_text
    from edgec.ir.text import parse_graph, print_graph
    from edgec.ir.verify import verify
    from edgec.ops import OPS
    from edgec.passes import PASSES

    text = sys.stdin.buffer.read().decode("utf-8", "replace") if a.file == "-" else read_text(a.file, "a graph")
    graph = parse_graph(text, OPS)
    verify(graph)
    for name in filter(None, a.passes.split(",")):
        if name not in PASSES:
            raise InputError(f"unknown pass {name!r}", hint=f"one of {', '.join(PASSES)}")
        graph = PASSES[name]().run(graph)
        verify(graph)
    sys.stdout.write(print_graph(graph))
