"""How far a network in integers keeps to the float network it was made of, on a few inputs; and how often it spikes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from edgec.ir.graph import Graph
from edgec.ir.types import DType, TensorType
from edgec.passes.judge import doubts
from edgec.passes.quantize.calibrate import evaluate_batches
from edgec.passes.quantize.compare import DIVERGED_DB, DIVERGED_FLIPS, Sums, dequantize, quantised_input
from edgec.passes.quantize.ranges import Ranges
from edgec.passes.samples import first_samples
from edgec.stages import Stages

Array = np.ndarray[Any, np.dtype[Any]]
SAMPLES = 8
CALIBRATION = "calibration input 0"  # what a measurement ran on, where it is that


@dataclass(frozen=True)
class Agreement:
    """One output against the float network's: whether they are equal, signal to error in dB (None where they are, or
    where the float output is 0), positions (samples, frames) whose largest score is the same, of how many (0: it holds
    no scores), and the share of flipped spikes (None: it holds none)."""

    name: str
    equal: bool
    sqnr: float | None
    same: int
    positions: int
    flips: float | None

    @property
    def diverged(self) -> bool:
        if self.flips is not None:
            return self.flips > DIVERGED_FLIPS
        return self.sqnr is not None and self.sqnr < DIVERGED_DB

    def describe(self) -> str:
        """In words."""
        text = "equal" if self.equal else "no signal" if self.sqnr is None else f"{self.sqnr:.1f} dB"
        if self.flips is not None:
            text += f", {100 * self.flips:.2f} % of the spikes flipped"
        if self.positions:
            text += f", largest score the same in {self.same} of {self.positions}"
        return f"%{self.name} {text}"


@dataclass(frozen=True)
class Observed:
    """What a run on a few inputs showed: the mean of every spike tensor, and each output's agreement with float."""

    rates: Mapping[str, float]
    outputs: tuple[Agreement, ...] = ()
    inputs: int = 0


def agreement(name: str, t: TensorType, real: torch.Tensor, got: torch.Tensor) -> Agreement:
    """An output of type t in real units [samples, ...] against the float network's."""
    sums, same, positions = Sums(), 0, 0
    sums.add(real, got)
    if t.dtype is not DType.BIT and is_scores(t):
        rows = [x.reshape(-1, x.shape[-1]).argmax(1) for x in (real, got)]
        same, positions = int(torch.eq(*rows).sum()), len(rows[0])
    equal = sums.error == 0.0
    flips = sums.flips / max(1, sums.count) if t.dtype is DType.BIT else None
    return Agreement(name, equal, None if equal or sums.signal == 0.0 else sums.sqnr(), same, positions, flips)


def is_scores(t: TensorType) -> bool:
    """Whether an output holds one score for each class, at every frame if it has a time axis."""
    long = [k for k, n in enumerate(t.shape) if n != 1 and k != t.time_axis]
    return long == [len(t.shape) - 1]


def observe(reference: Graph, whole: Graph, data: Mapping[str, Array] | None, compared: bool) -> Observed:
    """Run the first samples, as `samples.gather` returns them, through the graph that a network became, and where the
    two are to be compared through the float graph it comes from."""
    spiking = [n.outputs[0] for n in whole.nodes if n.types[0].dtype is DType.BIT or n.op.spikes]
    if data is None or not (spiking or compared):
        return Observed({})
    samples = first_samples(whole.inputs, data, SAMPLES)
    integers = {v.name: quantised_input(samples[v.name], v.type) for v in whole.inputs}
    got, rates = _run(whole, integers, spiking)
    found = []
    if compared:
        for wanted, value, name in zip(_run(reference, samples, [])[0], got, whole.outputs, strict=True):
            t = whole.type_of(name)
            found.append(agreement(name, t, wanted.double(), dequantize(value, t).double()))
    first = whole.inputs[0]
    return Observed(rates, tuple(found), len(samples[first.name]) // first.type.shape[0])


def _run(graph: Graph, data: Mapping[str, Any], spiking: Sequence[str]) -> tuple[list[torch.Tensor], dict[str, float]]:
    """The outputs of all samples, and the mean of some tensors."""
    outputs: list[list[torch.Tensor]] = [[] for _ in graph.outputs]
    rates: dict[str, list[float]] = {n: [] for n in spiking}
    for values in evaluate_batches(graph, data):
        for name, kept in zip(graph.outputs, outputs, strict=True):
            kept.append(values[name])
        for name in spiking:
            rates[name].append(float(values[name].float().mean()))
    return [torch.cat(o) for o in outputs], {n: float(np.mean(v)) for n, v in rates.items()}


def judgement(
    stages: Stages, data: Mapping[str, Array] | Ranges | None, seen: Observed, source: str, wide: Mapping[str, str]
) -> dict[str, Any]:
    """What the report says of the quantisation: how the outputs agree with float, which layers keep 8 bits against the
    wish, and warnings: what in the calibration data spoils scales, which outputs lost too much."""
    warnings: list[str] = []
    if isinstance(data, Ranges):
        warnings += data.doubts or doubts(stages.reference, data.statistics)
    elif stages.statistics is not None:
        warnings += doubts(stages.reference, stages.statistics, data)
    on = f"{seen.inputs} calibration inputs" if source == CALIBRATION else source
    warnings += [f"output {a.describe()} against the float network on {on}" for a in seen.outputs if a.diverged]
    warnings += [f"layer %{name} keeps weights of 8 bits: {reason}" for name, reason in wide.items()]
    found: dict[str, Any] = {"warnings": warnings, "kept_8_bits": wide}
    if seen.outputs:
        text = "; ".join(a.describe() for a in seen.outputs)
        found["agreement"] = {"on": on, "outputs": [asdict(a) for a in seen.outputs], "text": text}
    return found
