"""Which passes a model's graph goes through, in the order they run, and the form in which it runs afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from edgec.errors import InputError, option
from edgec.frontends.checkpoint import slides
from edgec.frontends.shipped import file_of
from edgec.ir.graph import Graph, Node
from edgec.ir.text import print_graph
from edgec.ir.verify import verify
from edgec.options import Form, Precision
from edgec.passes.assign_layout import AssignLayout
from edgec.passes.base import Pass
from edgec.passes.canonicalize import Canonicalize
from edgec.passes.channels.drop_constant_channels import savings
from edgec.passes.fold_batchnorm import FoldBatchnorm
from edgec.passes.fold_transpose import FoldTranspose
from edgec.passes.fuse import Fuse
from edgec.passes.fuse_maps import FuseMaps
from edgec.passes.judge import check_inputs
from edgec.passes.own_outputs import OwnOutputs
from edgec.passes.quantize.assign_precision import Assignment
from edgec.passes.quantize.calibrate import Statistics, calibrate
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.ranges import Ranges, statistics_for
from edgec.passes.recognize_eca import RecognizeEca
from edgec.passes.recognize_scaler import RecognizeScaler
from edgec.passes.split_linear import SplitLinear
from edgec.passes.split_quotient import SplitQuotient
from edgec.passes.streaming.compare import check_streaming
from edgec.passes.streaming.make_sliding import MakeSliding
from edgec.passes.streaming.make_streaming import MakeStreaming, mean_readouts

QUANTISED = "quantised"  # the precision of a graph that holds no float tensor: it stays as it is
INT8_SPREAD = 4.0  # of a map's factors that go into int8 weights: two of their bits
WHOLE_WINDOW = "whole window, as no input names a time axis: one call is one inference"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Stages:
    """The graph as the user meant it, whole-sequence and float; the same with all its channels in the form it runs
    in; the graph that runs; what dropping constant channels saved, where that was asked for; the statistics of the
    float graph's tensors, where it was quantised; and for the report, what streaming made of the network and how that
    was checked."""

    reference: Graph
    whole: Graph
    step: Graph
    dropped: Mapping[str, Any] | None = None
    statistics: Mapping[str, Statistics] | None = None
    how: Mapping[str, str] = field(default_factory=dict)


def float_passes(precision: str = "float32") -> list[Pass]:
    """What every graph goes through before it may become integer; their result is what the user's model means, and what
    is calibrated."""
    passes: list[Pass] = [
        Canonicalize(),  # first: the others need not know two ways to write one thing
        RecognizeEca(),  # before the layout is assigned, which cancels the permutes around what is found
        RecognizeScaler(),
        AssignLayout(),  # before batch-norm folding: a permute between convolution and batch norm would hide the pair
        FoldBatchnorm(INT8_SPREAD if precision == "int8" else inf),
        SplitLinear(),  # after the layout, which brings slices and transposes next to the products
        FoldTranspose(),
        Canonicalize(),  # again: in another layout moves meet, and maps in a row may cancel
    ]
    return [*passes, FuseMaps(), SplitQuotient()] if precision == "int8" else passes


def passes_for(
    precision: str, calibration: Any, streaming: Pass | None, drop: Pass | None, assignment: Assignment | None = None
) -> list[Pass]:
    """The passes in the order they run; a graph that comes quantised has only those that keep its meaning to the byte:
    its canonical form, `drop`, which leaves constant channels out, and the one that makes the step."""
    late: list[Pass] = [drop] if drop else []
    late.append(OwnOutputs())  # before the step is made, which aligns the results
    if streaming:
        late.append(streaming)  # last: integer and float graphs stream by the same rules
    if precision == QUANTISED:
        return [Canonicalize(), *late]
    passes = float_passes(precision)
    if precision == "int8":
        # on the whole sequence: calibration data are whole clips
        passes.append(Quantize(calibration, assignment or Assignment()))
    passes.append(Fuse())  # after quantisation, whose rules know layers and activations apart
    return passes + late


def form_of(form: Form, model: Any) -> Form:
    """The form asked for, or the model's own where none is."""
    own = form.streaming and isinstance(model, (str, Path)) and slides(file_of(model))
    return form.settled(own)


def step_pass(form: Form, graph: Graph) -> Pass | None:
    """The pass that makes the step; None for a window a call."""
    timeless = all(v.type.time_axis is None for v in graph.inputs)
    if form.sliding:
        if not timeless:
            raise InputError(f"{graph.name}: a graph whose inputs name a time axis streams without sliding")
        return MakeSliding(form.time_axis if isinstance(form.time_axis, int) else 1, form.hop or 1)
    return MakeStreaming() if form.streaming and not timeless else None


def window_of(form: Form, graph: Graph, step: Graph) -> str | None:
    """How a call relates to the window, in words; None for a network that works frame by frame."""
    if form.sliding:
        return (
            f"sliding: a call takes {form.hop or 1} new frames and runs the network on the last ones;"
            f" the first {step.delay} calls fill the window and give no output"
        )
    return WHOLE_WINDOW if all(v.type.time_axis is None for v in graph.inputs) else None


def kind_of(graph: Graph, precision: str) -> str:
    """The precision asked for, or QUANTISED for a graph without float tensors."""
    types = [v.type for v in graph.inputs] + [t for n in graph.nodes for t in n.types]
    if any(t.dtype.is_float for t in types):
        return precision
    if precision != "int8":
        raise InputError(
            f"{graph.name} comes quantised to int8, so {precision} cannot be had",
            hint=f"leave out {option('precision')}",
        )
    return QUANTISED


def assignment_of(kind: str, asked: Precision) -> Assignment:
    """The bits asked for; InputError where edgec does not quantise."""
    assignment = Assignment(asked.weights, asked.bits or {})
    if assignment.changes and kind != "int8":
        found = "the model comes quantised" if kind == QUANTISED else option("precision", asked.precision)
        raise InputError(f"bits of layers can be chosen where edgec quantises, found {found}", hint="leave them out")
    return assignment


def transform(
    graph: Graph, passes: Sequence[Pass], progress: Progress, dump: Path | None = None, first: int = 1
) -> list[Graph]:
    """The graph after each pass, verified; written to `dump` as text when asked for, numbered from `first` on."""
    graphs = [graph]
    for number, step in enumerate(passes, first):
        progress(step.name)
        graphs.append(step.run(graphs[-1]))
        verify(graphs[-1])
        if dump is not None:
            dump.mkdir(parents=True, exist_ok=True)
            (dump / f"{number:02d}_{step.name}.ir").write_text(print_graph(graphs[-1], consts=False), encoding="utf-8")
    return graphs


def make_stages(
    graph: Graph, kind: str, calibration: Any, streaming: Pass | None, drop: Pass | None, assignment: Assignment,
    progress: Progress, dump: Path | None,
) -> Stages:  # fmt: skip
    """Run the passes of `passes_for`; each graph is written to `dump` as text when asked for. A network that streams is
    compared with its whole sequence before it is quantised."""
    early = [Canonicalize()] if kind == QUANTISED else float_passes(kind)
    graphs = transform(graph, early, progress, dump)
    reference, statistics, how = graphs[-1], None, {}
    if isinstance(streaming, MakeStreaming):
        progress("check_streaming")
        how["streaming"] = check_streaming(OwnOutputs().run(reference))
    if kind == "int8" and calibration is not None:
        progress("calibrate")
        statistics = statistics_of(reference, calibration)
        check_inputs(reference.inputs, statistics)
    passes = passes_for(kind, statistics, streaming, drop, assignment)[len(early) :]
    graphs = transform(reference, passes, progress, dump, len(early) + 1)
    if readouts := mean_readouts(graphs[-1]):
        how["readout"] = "; ".join(map(describe_readout, readouts))
    first_late = len(passes) - 1 - (streaming is not None) - (drop is not None)
    dropped = savings(graphs[first_late], graphs[first_late + 1]) if drop else None
    return Stages(reference, graphs[first_late], graphs[-1], dropped, statistics, how)


def statistics_of(reference: Graph, calibration: Any) -> Mapping[str, Statistics]:
    """Of a folded float graph: taken on data, or read from a file."""
    return (
        statistics_for(reference, calibration) if isinstance(calibration, Ranges) else calibrate(reference, calibration)
    )


def describe_readout(node: Node) -> str:
    """What a frame of a running mean holds, in words."""
    where = f" ({'; '.join(node.source)})" if node.source else ""
    frames = f"last {node.op.window} frames" if node.op.window else "frames so far"
    if node.op.divisor:
        return f"frame t of what %{node.outputs[0]}{where} is part of holds the sum of the {frames}"
    return f"frame t of %{node.outputs[0]}{where} holds the mean of the {frames}, not of the whole sequence"
