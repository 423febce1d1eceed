"""Float whole-sequence graph to integer whole-sequence graph, every op of it: there is no float fallback.

Each op has its rule in its class (`integer`). It either emits integer nodes or only changes how a tensor is described
(an affine map, a relu), see `ops.integer.build.Source`; integer tensors keep the name of the float tensor they stand
for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from edgec.errors import PassError, join_problems, option
from edgec.ir.graph import Graph, Node, Value
from edgec.ir.types import DType
from edgec.ops.base import Reads
from edgec.ops.integer.build import Builder
from edgec.ops.integer.numbers import Refusal, Scale
from edgec.passes.base import Pass
from edgec.passes.quantize.assign_precision import Assignment
from edgec.passes.quantize.calibrate import Statistics, calibrate
from edgec.passes.quantize.clamp_masks import clamp_masks
from edgec.passes.quantize.plan import has_grids, make_plan
from edgec.passes.quantize.ranges import Ranges, statistics_for
from edgec.signal_math import PCM_SCALE


@dataclass(frozen=True)
class Quantize(Pass):
    """Integers throughout: weights int8 per output channel, activations int8, residual streams int16, membranes int32.

    `calibration` is data as `calibrate` takes it, or what `calibrate` or `take_ranges` returned for this graph;
    `assignment` gives layers fewer bits.
    """

    name: ClassVar[str] = "quantize"
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = 0.05
    calibration: Any = field(default=None, repr=False)
    assignment: Assignment = field(default_factory=Assignment)

    def run(self, graph: Graph) -> Graph:
        check_float(graph)
        ranges = self._ranges(graph)
        if ranges:
            graph, ranges = clamp_masks(graph, ranges)
        builder = Builder(graph, make_plan(graph, ranges, self.assignment))
        for v in graph.inputs:
            add_input(builder, graph, v, v.name in ranges and ranges[v.name].pcm)
        problems = [p for node in graph.nodes if (p := apply(builder, node)) is not None]
        if problems:
            raise PassError(join_problems("these nodes cannot be computed in integers:", problems), hint=HINT)
        for name in graph.outputs:
            store_output(builder, graph, name)
        check_scales(builder)
        return builder.finish()

    def _ranges(self, graph: Graph) -> Mapping[str, Statistics]:
        given = self.calibration
        if given is None and not has_grids(graph):
            raise PassError("quantisation needs calibration data, found none", hint="give about 64 typical inputs")
        if given is None:
            return {}
        if isinstance(given, Ranges):
            return statistics_for(graph, given)
        if not (isinstance(given, Mapping) and all(isinstance(s, Statistics) for s in given.values())):
            return calibrate(graph, given)
        missing = [o for n in graph.nodes for o in n.outputs if o not in given]
        if missing:
            hint = "calibrate the graph that is quantised"
            raise PassError(f"%{missing[0]} has no calibration statistics", hint=hint)
        return given


HINT = f"replace these ops in the model, or compile it with {option('precision', 'float32')}"


def check_float(graph: Graph) -> None:
    """PassError for tensors of integers or truth values as data: they have no scale."""
    found = [(v.name, v.type, "") for v in graph.inputs]
    found += [(o, t, "; ".join(n.source)) for n in graph.nodes for o, t in zip(n.outputs, n.types, strict=True)]
    data = [f"%{o} is {t.dtype.value}" + (f" ({at})" if at else "") for o, t, at in found if t.dtype.is_data]
    if data:
        raise PassError(join_problems("these tensors hold data, no real values that have a scale:", data), hint=HINT)


def check_scales(b: Builder) -> None:
    """PassError that lists the tensors for which a scale was asked that neither a file nor data gives."""
    missing, lines = b.plan.int8.missing | b.plan.int16.missing | b.plan.int4.missing, []
    for name in (*(v.name for v in b.graph.inputs), *(o for n in b.graph.nodes for o in n.outputs)):
        if name in missing:
            node = b.graph.producer(name)
            lines.append(f"%{name}" + ("" if node is None else f" = {node.op.name} ({'; '.join(node.source)})"))
    if lines:
        hint = f"quantise them in the file, or give data with {option('calibration')}"
        raise PassError(join_problems("no scale is given for these tensors:", lines), hint=hint)


def add_input(b: Builder, graph: Graph, v: Value, pcm: bool) -> None:
    """What a front end reads, or was calibrated with int16 samples, arrives as int16 PCM, a series that is scaled
    window by window in int16 of its own unit, anything else as int8."""
    if only_reads(graph, v.name, Reads.SERIES):
        b.input(v, DType.I16, b.plan.int16[v.name])
    elif pcm or only_reads(graph, v.name, Reads.PCM):
        b.input(v, DType.I16, Scale(PCM_SCALE))
    else:
        b.input(v, DType.I8, b.plan.int8[v.name])


def only_reads(graph: Graph, name: str, way: Reads) -> bool:
    """Whether whatever reads a tensor reads it so, as it is or with its elements moved."""
    readers = graph.consumers(name)
    return bool(readers) and all(
        n.op.reads is way or (n.op.moves and len(n.inputs) == 1 and only_reads(graph, n.output, way)) for n in readers
    )


def apply(b: Builder, node: Node) -> str | None:
    """One node's rule; the problem where it has none or refuses. Nodes behind a refused one are passed over."""
    rule = node.op.integer
    if rule is not None and any(i not in b.sources and i not in b.graph.consts for i in node.inputs):
        return None
    where = f"%{node.outputs[0]} = {node.op.name}" + (f" ({'; '.join(node.source)})" if node.source else "")
    if rule is None:
        return f"{where}: the op has no integer form"
    b.node = node
    try:
        rule(b, node)
    except Refusal as err:
        return f"{where}: {err}" + (f"; {err.hint}" if err.hint else "")
    return None


def store_output(b: Builder, graph: Graph, name: str) -> None:
    """An output leaves as int8 with its own scale, as spikes, or as a forecast in the int16 of the series; a constant
    as it is."""
    data = b.data(name)
    if data is not None:
        b.output_names[name] = b.const(name, data)
        return
    b.node = graph.producer(name)
    source = b.sources[name]
    spikes = b.dtype(source) is DType.BIT and source.stored_as(Scale(1.0))
    as_it_is = name not in b.plan.int8 and b.is_plain(source) and b.dtype(source) in (DType.I8, DType.I16)
    if not (spikes or as_it_is or name in b.forecasts):
        source = b.labelled(name, b.store(name, DType.I8, b.plan.int8[name]))
    b.output_names[name] = source.tensor
