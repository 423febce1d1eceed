"""TFLite files (.tflite), fully quantised to int8, as a graph: float edges cut off, operators converted, problems
gathered."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgec.errors import FrontendError, option
from edgec.frontends.builder import GraphBuilder
from edgec.frontends.survey import needed, refuse, unsupported, walk
from edgec.frontends.tflite.model import HOW_TO_MAKE, TfModel, TfOp, read_model
from edgec.frontends.tflite.ops import CONVERTERS, call_of, int8_type
from edgec.ir.graph import Graph


def without_float_edges(model: TfModel) -> TfModel:
    """QUANTIZE of a float input and DEQUANTIZE to a float output removed: the graph then starts and ends in int8."""
    kinds = [t.kind for t in model.tensors]
    inputs, outputs, ops = list(model.inputs), list(model.outputs), list(model.ops)
    for op in model.ops:
        if len(op.inputs) != 1 or len(op.outputs) != 1:
            continue
        (x,), (y,) = op.inputs, op.outputs
        readers = [o for o in model.ops if x in o.inputs]
        if op.kind == "QUANTIZE" and x in inputs and kinds[x] == "FLOAT32" and readers == [op]:
            inputs[inputs.index(x)] = y
            ops.remove(op)
        if op.kind == "DEQUANTIZE" and y in outputs and kinds[x] == "INT8":
            outputs[outputs.index(y)] = x
            ops.remove(op)
    return replace(model, ops=tuple(ops), inputs=tuple(inputs), outputs=tuple(outputs))


def live_part(model: TfModel) -> TfModel:
    """The model without operators that no output needs, and without inputs that nothing reads unless they are int8."""
    kept = needed([(op.inputs, op.outputs) for op in model.ops], model.outputs)
    ops = tuple(itertools.compress(model.ops, kept))
    read = {*model.outputs, *(k for op in ops for k in op.inputs)}
    inputs = tuple(k for k in model.inputs if k in read or model.tensors[k].kind == "INT8")
    return replace(model, ops=ops, inputs=inputs)


def check_quantised(model: TfModel, where: str, unknown: bool) -> None:
    """FrontendError for a model whose activations are not int8; a few may belong to `unknown` operators."""
    activations = {k for op in model.ops for k in op.outputs} | set(model.inputs)
    others = [k for k in sorted(activations) if model.tensors[k].kind != "INT8"]
    if not others or (unknown and 2 * len(others) < len(activations)):
        return
    first = model.tensors[others[0]]
    raise FrontendError(
        f"{where}: the model is not int8-quantised: {len(others)} of its {len(activations)} activation tensors are not"
        f" INT8, the first is {first.label} ({first.kind})",
        hint=HOW_TO_MAKE,
    )


def convert_op(model: TfModel, op: TfOp, build: GraphBuilder, names: dict[int, str]) -> str | None:
    """One operator into the builder; what does not fit, or None."""
    try:
        call = call_of(model, op, build, names)
        y = int8_type(call.result)
        name = call.convert(CONVERTERS[op.kind].convert)
    except (ValueError, OverflowError, ZeroDivisionError) as err:
        return str(err)
    if build.type_of(name).shape != y.shape:
        return f"gives shape {build.type_of(name).shape}, the file says {y.shape}"
    names[op.outputs[0]] = name
    return None


def convert(model: TfModel, where: str, name: str) -> Graph:
    """The integer graph. FrontendError lists every operator that cannot be imported."""
    live = live_part(model)
    arguments, results = (tuple(live.tensors[k].label for k in found) for found in (live.inputs, live.outputs))
    model = without_float_edges(live)
    unknown = [op for op in model.ops if op.kind not in CONVERTERS]
    check_quantised(model, where, bool(unknown))
    build, names = GraphBuilder(name), dict[int, str]()
    problems = build_all(model, build, names)
    refuse(where, unsupported((op.kind, source_of(model, op)) for op in unknown), problems, CONVERTERS)
    nowhere = [model.tensors[k].label for k in model.outputs if k not in names]
    if nowhere or not model.inputs:
        raise FrontendError(f"{where}: {'nothing computes ' + nowhere[0] if nowhere else 'the model has no input'}")
    graph = build.build(tuple(names[k] for k in model.outputs))
    return replace(graph, arguments=arguments, results=results)


def source_of(model: TfModel, op: TfOp) -> str:
    """Where the user finds an operator: its number, kind and the name of its output."""
    output = model.tensors[op.outputs[0]].label if op.outputs else "no output"
    return f"operator {op.index} {op.kind} {output}"


def build_all(model: TfModel, build: GraphBuilder, names: dict[int, str]) -> list[str]:
    """Inputs and operators into the builder; what does not fit."""
    problems = []
    for k in model.inputs:
        try:
            names[k] = build.input(model.tensors[k].label, int8_type(model.tensors[k]))
        except ValueError as err:
            problems.append(f"input: {err}")
    place, convert = partial(source_of, model), lambda op: convert_op(model, op, build, names)
    return problems + walk(build, model.ops, CONVERTERS, set(), place, convert)


def load_tflite(path: Path, name: str, time_axis: int | Sequence[int | None] | str | None = "guess") -> Graph:
    """A .tflite file quantised to int8 as an integer Graph, bit for bit what TFLite's reference kernels compute."""
    if time_axis not in ("guess", None):
        raise FrontendError(
            f"{path}: a .tflite network takes its whole window in one call; no time axis can be named",
            hint=f"leave out {option('time_axis')}, or export the network from torch to stream it",
        )
    return convert(read_model(path, CONVERTERS), str(path), name)
