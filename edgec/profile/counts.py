"""Instructions per layer and per frame, counted on the emulated core."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.backends.environment import environment
from edgec.compiled import CompiledModel, Inputs, input_frames
from edgec.device import counting_kind
from edgec.errors import TargetError
from edgec.profile.timing.frames import Frames, count_frames, how_modelled, how_on_board, timing_obstacle
from edgec.profile.timing.model import board_milliseconds, milliseconds
from edgec.target import Target, load_target
from edgec.toolchain.checksums import as_changed


@dataclass(frozen=True)
class Row:
    """One layer. `share` is of all instructions; frames in which the layer does not run count as 0 in the mean. Cycles
    and milliseconds are means of modelled cycles, None where the core has no timing model."""

    name: str
    op: str
    variant: str
    source: str
    mean: float
    worst: int
    share: float
    macs: int
    cycles: float | None
    ms: float | None


@dataclass(frozen=True)
class Profile:
    """Counts of a run over one input."""

    rows: tuple[Row, ...]
    mean: float
    worst: int
    frames: int
    how: str
    cycles: float | None
    cycles_worst: float | None
    ms_worst: float
    how_cycles: str
    ms_board: float | None
    how_board: str


def profile(model: CompiledModel, x: Inputs) -> Profile:
    """Run x, as `CompiledModel.run` takes it, frame by frame on the emulator and count. The marks between layers are
    not part of the counts, nor are the frames that only fill a sliding window."""
    with as_changed(model.folder):
        return _profile(model, x)


def _profile(model: CompiledModel, x: Inputs) -> Profile:
    """`profile` on a folder whose files fit each other."""
    target = load_target(model.manifest.target)
    kind, modelled = counting_kind(target), timing_obstacle(target) is None
    if kind is None:
        raise TargetError(f"no emulator counts instructions for {target.name}")
    with model.device(kind, profile=True, counting=True, flow=modelled) as device:
        inputs = list(input_frames(x, model.manifest.inputs))
        filling = model.manifest.delay if model.report.get("sliding", False) else 0
        found = count_frames(device, inputs, target, filling)
        how = device.counters.how
    slowest = max(found.cycles) if found.cycles else max(found.instructions)
    return Profile(
        tuple(_rows(model, found, target)), float(np.mean(found.instructions)), max(found.instructions),
        len(found.instructions), how, float(np.mean(found.cycles)) if found.cycles else None,
        max(found.cycles) if found.cycles else None, milliseconds(slowest, target), how_modelled(target),
        board_milliseconds(slowest, target) if found.cycles else None, how_on_board(target),
    )  # fmt: skip


def _rows(model: CompiledModel, found: Frames, target: Target) -> list[Row]:
    layers = {r["id"]: r for r in model.report["layers"]}
    rest = {"name": "(step function)", "op": "", "variant": "", "source": "", "macs": 0}
    rows = []
    for node in [*layers, -1]:
        counts = [c.get(node, 0) for c in found.per_node]
        r, share = layers.get(node, rest), sum(counts) / max(1, sum(found.instructions))
        cycles = float(np.mean([c.get(node, 0.0) for c in found.node_cycles])) if found.node_cycles else None
        ms = None if cycles is None else milliseconds(cycles, target)
        names = (r["name"], r["op"], r["variant"], r["source"])
        rows.append(Row(*names, float(np.mean(counts)), max(counts), share, r["macs"], cycles, ms))
    return rows


def html_page(title: str, result: Profile, per: str) -> str:
    """The profile as a page of its own; `per` is what a call is."""
    return environment().get_template("profile.html.j2").render(title=title, result=result, per=per)
