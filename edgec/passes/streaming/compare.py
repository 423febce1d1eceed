"""Compare a step graph with the whole-sequence graph it came from: every node, frame by frame.

Each node of the step reads what the whole-sequence graph computed for that frame, so one that differs is named itself,
not one that follows it, and a spike within rounding of its threshold does no harm behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite

import torch

from edgec.errors import option
from edgec.ir.evaluate import StepRunner, Tensors, evaluate_all, run_node
from edgec.ir.graph import Graph, Node, Value
from edgec.ir.types import DType, TensorType
from edgec.ops.base import with_frames
from edgec.passes.streaming.make_streaming import MakeStreaming, samples_per_frame

#: float tensors of a step may differ from the whole sequence's by this share of the tensor's largest value: sums are
#: taken in another order. Integers may not differ.
TOLERANCE = 1e-4
FRAMES = 24  # of the sequence that `compile` compares on, beside what the network looks back and ahead


class WrongStep(Exception):
    """The step that edgec derived is another network: edgec's fault, not the user's, so it is no EdgecError."""


@dataclass(frozen=True)
class Difference:
    """A node of the step graph that is not what the whole-sequence graph has at a frame (counted from 0)."""

    node: Node
    name: str
    frame: int
    error: float

    def __str__(self) -> str:
        where = f" ({'; '.join(self.node.source)})" if self.node.source else ""
        off = f"off by {self.error:.3g}" if isfinite(self.error) else "there in one of them only"
        return f"%{self.name} = {self.node.op.name}{where}, frame {self.frame}: {off}"


def whole_at(whole: Graph, values: Tensors, frames: int) -> Tensors:
    """Every tensor without frames as it is where the means over time are taken over the first `frames` frames."""
    found = {name: v for name, v in values.items() if whole.type_of(name).time_axis is None}
    for node in whole.nodes:
        if any(t.time_axis is not None for t in node.types):
            continue
        operands = {
            i: values[i].narrow(t.time_axis, 0, frames)
            for i, t in zip(node.inputs, whole.input_types(node), strict=True)
            if t.time_axis is not None
        }
        scope = found | operands
        run_node(node, scope, None)
        found.update({o: scope[o] for o in node.outputs})
    return found


class Expected:
    """What a whole-sequence graph has for each frame of a stream."""

    def __init__(self, whole: Graph, inputs: Mapping[str, torch.Tensor]) -> None:
        self.whole = whole
        with torch.no_grad():
            self.values = evaluate_all(whole, inputs)
        self.readouts: dict[int, Tensors] = {}

    def at(self, name: str, frame: int, extent: int = 1) -> torch.Tensor | None:
        """A tensor at a frame of its own, `extent` elements along time; None behind the last."""
        t = self.whole.type_of(name)
        if t.time_axis is not None:
            start = frame * extent
            found = self.values[name].shape[t.time_axis]
            return self.values[name].narrow(t.time_axis, start, extent) if start + extent <= found else None
        if frame + 1 not in self.readouts:
            with torch.no_grad():
                self.readouts = {frame + 1: whole_at(self.whole, self.values, frame + 1)}
        return self.readouts[frame + 1][name]


def first_difference(
    whole: Graph, step: Graph, inputs: Mapping[str, torch.Tensor], tolerance: float = TOLERANCE
) -> Difference | None:
    """The first node of the step graph that leaves the whole-sequence graph by more than the tolerance; None where
    all agree on every frame. inputs: whole sequences; tolerance: of floats, relative to a tensor's largest value.

    Tensors that have other channels in the step (constant ones are dropped) are not compared.
    """
    expected = Expected(whole, inputs)
    limits = {name: tolerance * largest(v) if v.is_floating_point() else 0.0 for name, v in expected.values.items()}
    meant = dict(zip(step.outputs, whole.outputs, strict=True))  # of an output that has another name in the step
    found: list[Difference] = []
    seen: dict[str, int] = {}

    def compare(node: Node, values: Tensors) -> None:
        for own, t in zip(node.outputs, node.types, strict=True):
            name = meant.get(own, own)
            if name not in limits or not _same_channels(t, whole.type_of(name)):
                continue
            frame = seen.get(own, -node.op.lag)
            seen[own] = frame + 1
            if frame < 0:
                continue  # an output that is delayed to come with the others
            wanted = expected.at(name, frame, t.frames or 1)
            if wanted is None:
                found.append(Difference(node, name, frame, float("inf")))
                continue
            error = largest_difference(values[own], wanted)
            if not error <= limits[name]:
                found.append(Difference(node, name, frame, error))
            values[own] = wanted

    runner = StepRunner(step, compare)
    for _ in runner.run(inputs):
        if found:
            return found[0]
    return found[0] if found else _missing(whole, step, seen, meant)


def largest(values: torch.Tensor) -> float:
    """The largest magnitude of a tensor's finite elements."""
    return float(torch.nan_to_num(values, 0.0, 0.0, 0.0).abs().max()) if values.numel() else 0.0


def largest_difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """NaN where only one of them is none; a network may well give NaN on random numbers, then both do."""
    same = (found == wanted) | ((found != found) & (wanted != wanted))
    return float((found.double() - wanted.double()).abs().masked_fill(same, 0).max()) if wanted.numel() else 0.0


def _same_channels(t: TensorType, whole: TensorType) -> bool:
    return t.shape == (whole.shape if t.frames is None else with_frames(whole, t.frames).shape)


def _missing(whole: Graph, step: Graph, seen: Mapping[str, int], meant: Mapping[str, str]) -> Difference | None:
    """A tensor of which the step gives fewer frames than the whole sequence has."""
    for node in step.nodes:
        for own, t in zip(node.outputs, node.types, strict=True):
            if own not in seen or t.frames is None:
                continue
            name = meant.get(own, own)
            if seen[own] * t.frames < (whole.type_of(name).frames or 0):
                return Difference(node, name, seen[own], float("inf"))
    return None


def shortened(graph: Graph, frames: int) -> Graph | None:
    """The same whole-sequence graph on so many elements along time; None where they are too few for it."""
    inputs = tuple(Value(v.name, with_frames(v.type, frames)) for v in graph.inputs)
    types = {v.name: v.type for v in inputs} | {name: c.type for name, c in graph.consts.items()}
    nodes = []
    for node in graph.nodes:
        op, operands, t = node.op, [types[i] for i in node.inputs], node.types[0]
        if t.time_axis is not None:
            op = op.with_shape(with_frames(t, operands[0].frames or 1).shape)
        try:
            found = op.infer(operands)
        except ValueError:
            return None
        types.update(zip(node.outputs, found, strict=True))
        nodes.append(replace(node, op=op, types=found))
    return replace(graph, inputs=inputs, nodes=tuple(nodes))


def random_inputs(graph: Graph, seed: int = 0) -> Tensors:
    """Normal numbers, or integers over the whole range of their type, for every input."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for v in graph.inputs:
        if v.type.dtype is DType.F32:
            found[v.name] = torch.randn(v.type.shape, generator=generator)
        else:
            lo, hi = v.type.dtype.range
            found[v.name] = torch.randint(lo, hi + 1, v.type.shape, generator=generator)
    return found


def check_streaming(whole: Graph) -> str:
    """Derive the step and compare it on a short random sequence; in words, what was compared. PassError where the
    network cannot stream, WrongStep where the step is another network."""
    step = MakeStreaming().run(whole)
    length, hop = whole.inputs[0].type.frames or 1, samples_per_frame(whole)
    memory = max(((n.types[0].frames or 0) * n.when.period for n in step.nodes if n.op.output_is_state), default=0)
    wanted = (FRAMES + 2 * step.delay) * hop + memory
    excess = max(length - wanted, 0) // hop * hop
    short = shortened(whole, length - excess) if excess else None
    whole = whole if short is None else short
    difference = first_difference(whole, step, random_inputs(whole))
    if difference is not None:
        raise WrongStep(
            f"the step it derived is not the network over its whole sequence: {difference};"
            f" {option('whole')} compiles the whole window meanwhile"
        )
    frames = (whole.inputs[0].type.frames or hop) // hop
    return (
        f"each node of the step agrees with the whole sequence on {frames} random frames, on the references in"
        f" {'float' if whole.inputs[0].type.dtype.is_float else 'integers'}: floats within {TOLERANCE:g} of a tensor's"
        " largest value, integers exactly"
    )
