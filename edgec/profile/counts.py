"""Instructions per layer and per frame, counted on the emulated core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.backends.environment import environment
from edgec.compiled import CompiledModel, frames, to_device
from edgec.device import counting_kind
from edgec.errors import TargetError
from edgec.target import load_target


@dataclass(frozen=True)
class Row:
    """One layer. `share` is of all instructions; frames in which the layer does not run count as 0 in the mean."""

    name: str
    op: str
    variant: str
    source: str
    mean: float
    worst: int
    share: float
    macs: int


@dataclass(frozen=True)
class Profile:
    """Counts of a run over one input."""

    rows: tuple[Row, ...]
    mean: float
    worst: int
    frames: int
    how: str


def profile(model: CompiledModel, x: np.ndarray[Any, Any]) -> Profile:
    """Run x frame by frame on the emulator and count. The marks between layers are not part of the counts, nor are the
    frames that only fill a sliding window."""
    spec = model.manifest.inputs[0]
    totals, per_node = [], []
    kind = counting_kind(load_target(model.manifest.target))
    if kind is None:
        raise TargetError(f"no emulator counts instructions for {model.manifest.target}")
    with model.device(kind, profile=True, counting=True) as device:
        for frame in frames(x, spec):
            device.step([to_device(frame, spec)])
            totals.append(device.counters.instructions)
            per_node.append(dict(device.counters.per_node))
        how = device.counters.how
    filling = model.manifest.delay if model.report.get("sliding", False) else 0
    totals, per_node = totals[filling:] or totals, per_node[filling:] or per_node
    layers = {r["id"]: r for r in model.report["layers"]}
    rest = {"name": "(step function)", "op": "", "variant": "", "source": "", "macs": 0}
    rows = []
    for node in [*layers, -1]:
        counts = [c.get(node, 0) for c in per_node]
        r = layers.get(node, rest)
        share = sum(counts) / max(1, sum(totals))
        rows.append(
            Row(r["name"], r["op"], r["variant"], r["source"], float(np.mean(counts)), max(counts), share, r["macs"])
        )
    return Profile(tuple(rows), float(np.mean(totals)), max(totals), len(totals), how)


def html_page(title: str, result: Profile) -> str:
    """The profile as a page of its own."""
    return environment().get_template("profile.html.j2").render(title=title, result=result)
