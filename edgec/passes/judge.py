"""What calibration data is worth: inputs that show nothing are refused, what spoils a scale is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.errors import InputError
from edgec.ir.graph import Graph, Node, Value
from edgec.passes.quantize.calibrate import BINS, Statistics

Array = npt.NDArray[Any]

#: times the rest of a tensor, or the typical sample, that are too far: of 256 levels little more than two are left
FAR = 100.0
#: share of a tensor's values that may lie far out before they count as part of the rest
FEW = 1e-3


def check_inputs(inputs: Sequence[Value], statistics: Mapping[str, Statistics]) -> None:
    """InputError for an input that is the same everywhere: no scale can be had from it."""
    for v in inputs:
        s = statistics[v.name]
        if s.lo == s.hi:
            raise InputError(
                f"calibration: input %{v.name} is {s.lo:g} everywhere, so its range is not known",
                hint="give typical inputs; what never changes belongs into the model as a constant",
            )


def doubts(
    graph: Graph, statistics: Mapping[str, Statistics], samples: Mapping[str, Array] | None = None
) -> tuple[str, ...]:
    """Sentences about tensors of a float graph whose statistics spoil their scale: constant ones, and those in which
    few values reach FAR times the rest. Without the samples, of statistics read from a file, only constant ones show.

    What a tensor has from what it is computed of is not said again.
    """
    found: list[str] = []
    constant: set[str] = set()
    far: set[str] = set()
    for v in graph.inputs if samples is not None else ():
        said = outlier(statistics[v.name]) or odd_sample(v, samples[v.name] if samples else np.zeros(0))
        if said:
            far.add(v.name)
            found.append(f"calibration input %{v.name}: {said}")
    for node in graph.nodes:
        computed = [i for i in node.inputs if i not in graph.consts]
        if not computed:
            constant.update(node.outputs)
            continue
        for name in node.outputs:
            s = statistics[name]
            if s.lo == s.hi:
                if not constant.intersection(computed):
                    found.append(f"%{name}{where(node)} is {s.lo:g} everywhere on the calibration data")
                constant.add(name)
            elif far.intersection(computed):
                far.add(name)
            elif samples is not None and node.op.fixed_range is None and (said := outlier(s)):
                far.add(name)
                found.append(f"%{name}{where(node)}: {said} on the calibration data")
    return tuple(found)


def where(node: Node) -> str:
    """The user's line of a node."""
    return f" ({'; '.join(node.source)})" if node.source else ""


def outlier(s: Statistics) -> str:
    """How far few values reach beyond the rest, zeros aside; empty where they do not."""
    half = BINS // 2
    counts = s.bins[half:] + s.bins[half - 1 :: -1]  # by magnitude, in steps of reach / half
    counts[0] -= s.zeros
    allowed = max(1, int(FEW * counts.sum()))
    beyond = counts.sum() - np.cumsum(counts)  # values above each magnitude
    at = int(np.argmax(beyond <= allowed))
    rest, peak = (at + 1) * s.reach / half, max(-s.lo, s.hi)
    if counts[: at + 1].sum() == 0 or peak < FAR * rest:
        return ""
    what = "one value reaches" if beyond[at] == 1 else f"{beyond[at]} values reach up to"
    return f"{what} {peak:.3g}, more than {FAR:g} times the other {counts.sum() - beyond[at]:,}"


def odd_sample(v: Value, data: Array) -> str:
    """The sample that reaches far beyond the typical one; empty where none does."""
    peaks = np.abs(data.reshape(len(data) // v.type.shape[0], -1).astype(np.float64)).max(1)
    typical, most = float(np.median(peaks)), float(peaks.max())
    if typical == 0.0 or most < FAR * typical:
        return ""
    return f"sample {int(peaks.argmax())} reaches {most:.3g}, the typical sample {typical:.3g}"
