"""Calibration statistics as a file: what ships with a model whose calibration data may not be redistributed.

The file is an .npz: scalars of every tensor, the tails of its histogram, and a print of the float graph they belong to.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.errors import InputError
from edgec.ir.graph import Graph, Value
from edgec.ir.text import print_node, print_type
from edgec.ir.types import TensorType
from edgec.passes.judge import check_inputs, doubts
from edgec.passes.quantize.calibrate import BINS, CLIPS, Statistics, calibrate
from edgec.passes.samples import Data, gather
from edgec.signal_math import PCM_SCALE

Array = npt.NDArray[Any]
FORMAT = "edgec-ranges-1"
SCALARS = ("lo", "hi", "mean", "rms", "count", "reach", "pcm")
#: constants of two foldings of the same weights differ in their last bits, those of two trainings by far more
TOLERANCE = 1e-4
SEED = 0
ANEW = "take them anew: edgec calibrate MODEL --calibration data.npz -o FILE"
SYNTHETIC = f"synthetic input: normal values of the calibrated mean and deviation within the range, seed {SEED}"


@dataclass(frozen=True)
class Ranges:
    """Statistics of every tensor of one float graph, and how to know that graph again.

    `text` is a digest of its nodes and types, `consts` holds two figures of every constant, `origin` names the data,
    `doubts` says what in them spoils a scale.
    """

    statistics: Mapping[str, Statistics]
    text: str
    consts: Mapping[str, tuple[float, float]]
    origin: str
    doubts: tuple[str, ...] = ()


def digest(graph: Graph) -> str:
    """Digest of a graph's inputs, constants' types and nodes. Values and source lines are left out, and time axes: they
    say how a network streams, not what it computes."""

    def timeless(t: TensorType) -> TensorType:
        return replace(t, time_axis=None)

    lines = [f"input %{v.name} : {print_type(timeless(v.type))}" for v in graph.inputs]
    lines += [f"const %{name} : {print_type(timeless(const.type))}" for name, const in graph.consts.items()]
    for n in graph.nodes:
        op = replace(n.op, time_axis=None) if hasattr(n.op, "time_axis") else n.op
        lines.append(print_node(replace(n, op=op, source=(), types=tuple(map(timeless, n.types)))))
    lines.append("return " + ", ".join(graph.outputs))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def figures(data: Array) -> tuple[float, float]:
    """Root mean square of a constant and its mean product with a fixed pattern: a retrained weight changes both."""
    flat = data.reshape(-1).astype(np.float64)
    if flat.size == 0:
        return 0.0, 0.0
    pattern = np.cos(np.arange(flat.size) * 1.618)
    return float(np.sqrt(np.mean(flat * flat))), float(np.mean(flat * pattern))


def take_ranges(graph: Graph, data: Data, origin: str) -> Ranges:
    """Statistics of a folded float graph over the data, as `calibrate` takes it."""
    consts = {name: figures(const.data) for name, const in graph.consts.items()}
    samples = gather(graph.inputs, data)
    statistics = calibrate(graph, samples)
    check_inputs(graph.inputs, statistics)
    return Ranges(statistics, digest(graph), consts, origin, doubts(graph, statistics, samples))


def statistics_for(graph: Graph, ranges: Ranges) -> Mapping[str, Statistics]:
    """The statistics, once it is certain that they were taken on this graph; InputError names the first difference."""
    tensors = {v.name for v in graph.inputs} | {o for n in graph.nodes for o in n.outputs}
    compare_names(graph.name, "tensors", tensors, set(ranges.statistics))
    compare_names(graph.name, "constants", set(graph.consts), set(ranges.consts))
    for name, theirs in ranges.consts.items():
        ours = figures(graph.consts[name].data)
        if max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) > TOLERANCE * max(ours[0], theirs[0]):
            raise InputError(
                f"calibration statistics of other weights: %{name} of {graph.name} has root mean square {ours[0]:.6g},"
                f" theirs {theirs[0]:.6g}",
                hint=ANEW,
            )
    if digest(graph) != ranges.text:
        raise InputError(
            f"calibration statistics of another network: tensors and weights are those of {graph.name}, its nodes are"
            " not (another edgec imported it differently, or the config changed)",
            hint=ANEW,
        )
    return ranges.statistics


def compare_names(model: str, what: str, ours: set[str], theirs: set[str]) -> None:
    """InputError with an example of what each side lacks."""
    if ours != theirs:
        lacking, surplus = (f"%{min(a - b)}" if a - b else "nothing" for a, b in ((ours, theirs), (theirs, ours)))
        raise InputError(
            f"calibration statistics of another network: {what} of {model} that they lack: {lacking};"
            f" {what} of theirs that {model} lacks: {surplus}",
            hint=ANEW,
        )


def synthetic_input(v: Value, s: Statistics) -> Array:
    """One input in the place of data that is not at hand, see SYNTHETIC: int16 where the data was PCM, else float32."""
    deviation = np.sqrt(max(0.0, s.rms**2 - s.mean**2))
    values = np.random.default_rng(SEED).normal(s.mean, deviation, v.type.shape).clip(s.lo, s.hi)
    return np.round(values / PCM_SCALE).clip(-32768, 32767).astype(np.int16) if s.pcm else values.astype(np.float32)


def tails(s: Statistics) -> Array:
    """The histogram without what no `clip` can cut: the core's counts lie together in the middle bin."""
    centres = (np.arange(BINS) + 0.5) * (2.0 * s.reach / BINS) - s.reach
    lo, hi = s.extremes()
    core = (centres >= lo * CLIPS.min()) & (centres <= hi * CLIPS.min())
    if not core.any():
        return s.bins
    bins = np.where(core, 0, s.bins)
    bins[int(np.flatnonzero(core)[np.abs(centres[core]).argmin()])] = s.bins[core].sum()
    return bins


def save_ranges(path: Path, ranges: Ranges) -> None:
    """Write the file; it is there whole or not at all."""
    stats = list(ranges.statistics.values())
    bins = [tails(s) for s in stats]
    places = [np.flatnonzero(b) for b in bins]
    arrays: dict[str, Any] = {
        "names": _text(ranges.statistics),
        "scalars": np.array([[float(getattr(s, key)) for key in SCALARS] for s in stats]),
        "sizes": np.array([len(p) for p in places], np.int32),
        "steps": np.concatenate([np.diff(p, prepend=0) for p in places]).astype(np.uint16),
        "counts": np.concatenate([b[p] for b, p in zip(bins, places, strict=True)]).astype(np.int64),
        "consts": _text(ranges.consts),
        "figures": np.array(list(ranges.consts.values())).reshape(-1, 2),
        "print": _text([FORMAT, ranges.text, ranges.origin]),
    }
    if ranges.doubts:
        arrays["doubts"] = _text(ranges.doubts)
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(beside, path)
    except OSError as err:
        beside.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {err}") from err


def _text(lines: Any) -> Array:
    return np.frombuffer("\n".join(lines).encode(), np.uint8)


def is_ranges(archive: Mapping[str, Any]) -> bool:
    """Whether an open .npz holds statistics and not model inputs."""
    return "print" in archive and "scalars" in archive


def read_ranges(archive: Mapping[str, Array], where: Path) -> Ranges:
    """Statistics from an open .npz; InputError where it is damaged or of another version."""
    try:
        found, text, origin = _lines(archive["print"])
        if found != FORMAT:
            raise InputError(f"{where}: expected {FORMAT}, found {found[:40]!r}")
        names, consts = _lines(archive["names"]), _lines(archive["consts"])
        scalars = np.asarray(archive["scalars"], np.float64)
        ends = np.cumsum(archive["sizes"], dtype=np.int64)
        steps, counts = np.split(archive["steps"], ends[:-1]), np.split(archive["counts"], ends[:-1])
        statistics = {
            name: _statistics(row, step, count)
            for name, row, step, count in zip(names, scalars, steps, counts, strict=True)
        }
        said = tuple(_lines(archive["doubts"])) if "doubts" in archive else ()
        pairs = {name: (float(a), float(b)) for name, (a, b) in zip(consts, archive["figures"], strict=True)}
    except (KeyError, ValueError, IndexError, TypeError) as err:
        raise InputError(f"{where}: these calibration statistics are damaged: {err}") from err
    return Ranges(statistics, text, pairs, origin, said)


def _lines(data: Array) -> list[str]:
    text = bytes(data).decode()
    return text.split("\n") if text else []


def _statistics(row: Array, steps: Array, counts: Array) -> Statistics:
    lo, hi, mean, rms, count, reach, pcm = map(float, row)
    if not np.isfinite(row).all() or lo > hi or reach <= 0:
        raise ValueError(f"a range from {lo} to {hi}")
    bins = np.zeros(BINS, np.int64)
    bins[np.cumsum(steps, dtype=np.int64)] = counts
    return Statistics(lo, hi, mean, rms, int(count), reach, bins, bool(pcm))
