"""ONNX files in QDQ form (int8 or uint8), such as onnxruntime's static quantiser writes: an integer graph."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgec.errors import FrontendError, join_problems, option
from edgec.frontends.builder import GraphBuilder
from edgec.frontends.onnx.constants import fold_constants
from edgec.frontends.onnx.layers import probabilities
from edgec.frontends.onnx.model import OnnxModel, OnnxNode, OnnxValue, read_model
from edgec.frontends.onnx.ops import CONVERTERS
from edgec.frontends.onnx.values import Array, Call, Constant, Grid, Pending, Stored, call_of
from edgec.frontends.survey import needed, unsupported
from edgec.ir.graph import Graph
from edgec.ir.types import DType, QuantParams, TensorType

SHOWN = 20
#: what a converter raises on operands and attributes that are not as the standard says
MISFITS = (ValueError, LookupError, ArithmeticError, TypeError, AttributeError, MemoryError)
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
#: operators that leave the numbers as they are: a float input may pass them before it is quantised
MOVES = ("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
FLOAT, UINT8, INT8 = 1, 2, 3  # the standard's numbers of element types
OFFSETS = {"int8": 0, "uint8": 128}  # what a stored element is more than ours
HOW_TO_MAKE = (
    "quantise it: onnxruntime.quantization.quantize_static(..., quant_format=QuantFormat.QDQ, per_channel=True,"
    " weight_type=QuantType.QInt8); a float network can also be compiled from torch, which edgec quantises itself"
)


def load_onnx(path: Path, name: str, time_axis: int | Sequence[int | None] | str | None = "guess") -> Graph:
    """An ONNX QDQ file as an integer Graph. Every QuantizeLinear is one rounding of the exact real result.

    FrontendError lists all operators that cannot be imported.
    """
    if time_axis not in ("guess", None):
        raise FrontendError(
            f"{path}: an .onnx network takes its whole window in one call; no time axis can be named",
            hint=f"leave out {option('time_axis')}, or export the network from torch to stream it",
        )
    model, where = live_part(fold_constants(read_model(path))), str(path)
    unknown = [n for n in model.nodes if n.kind not in CONVERTERS and n.kind not in QUANTIZERS]
    if not any(n.kind == "QuantizeLinear" for n in model.nodes) and not unknown:
        count = len(model.nodes)
        raise FrontendError(f"{where}: a float network: none of its {count} operators quantises", hint=HOW_TO_MAKE)
    walker = Walker(model, GraphBuilder(name))
    problems = walker.walk() if any(n.kind == "QuantizeLinear" for n in model.nodes) else []
    if unknown or problems:
        missing = unsupported((n.kind, n.label) for n in unknown)
        shown = problems[:SHOWN] + ([f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else [])
        hint = f"supported operators: {', '.join(sorted((*CONVERTERS, *QUANTIZERS)))}" if unknown else None
        raise FrontendError(join_problems(f"{where}: operators that cannot be imported:", missing + shown), hint=hint)
    arguments, results = (tuple(v.name for v in found) for found in (model.inputs, model.outputs))
    return replace(walker.build.build(walker.outputs), arguments=arguments, results=results)


def live_part(model: OnnxModel) -> OnnxModel:
    """The model without operators that no output needs, and without inputs that nothing reads: they have no scale."""
    results = [v.name for v in model.outputs]
    kept = needed([(n.inputs, tuple(filter(None, n.outputs))) for n in model.nodes], results)
    nodes = tuple(itertools.compress(model.nodes, kept))
    read = {*results, *(name for n in nodes for name in n.inputs)}
    return replace(model, nodes=nodes, inputs=tuple(v for v in model.inputs if v.name in read))


class Walker:
    """Converts node by node; `outputs` are the graph's names once `walk` has found no problem."""

    def __init__(self, model: OnnxModel, build: GraphBuilder) -> None:
        self.model, self.build = model, build
        self.values: dict[str, Stored | Constant | Pending] = {}
        for name, data in model.consts.items():
            self.values[name] = Constant(data)
        self.outputs: tuple[str, ...] = ()

    def walk(self) -> list[str]:
        """What does not fit, node by node: numbers that no integer holds are told too."""
        with np.errstate(all="ignore", invalid="raise"):
            return self.walked()

    def walked(self) -> list[str]:
        """What does not fit, node by node."""
        problems = []
        for v in self.model.inputs:
            try:
                self.input(v)
            except MISFITS as err:
                problems.append(f"input {v.name}: {str(err) or type(err).__name__}")
        lost = {v.name for v in self.model.inputs if v.name not in self.values}
        for node in self.model.nodes:
            if lost.intersection(node.inputs) or (node.kind not in CONVERTERS and node.kind not in QUANTIZERS):
                lost.update(node.outputs)  # is already reported, or follows what is
                continue
            self.build.source = (node.label,)
            problem = self.convert(node)
            if problem is not None:
                problems.append(f"{node.label}: {problem}")
                lost.update(node.outputs)
        return problems or ([] if lost else self.finish())

    def convert(self, node: OnnxNode) -> str | None:
        try:
            converter = {"QuantizeLinear": quantize, "DequantizeLinear": dequantize}.get(node.kind)
            value = self.call(node).convert(converter or CONVERTERS[node.kind])
            unseen = [o for o in node.outputs[1:] if o and self.readers(o)]
            if unseen:
                return f"its output {unseen[0]} is not supported"
        except MISFITS as err:
            return str(err) or type(err).__name__
        if isinstance(value, Pending) and not value.source:
            value = replace(value, source=(node.label,))
        self.values[node.outputs[0]] = value
        return None

    def call(self, node: OnnxNode) -> Call:
        return call_of(self.model, node, self.build, self.values)

    def readers(self, name: str) -> list[OnnxNode]:
        return [n for n in self.model.nodes if name in n.inputs]

    def input(self, v: OnnxValue) -> None:
        """A graph input, int8 on the grid of its first QuantizeLinear or, of an integer input, DequantizeLinear."""
        name, kind = v.name, "QuantizeLinear" if v.kind == "FLOAT" else "DequantizeLinear"
        readers = self.readers(name)
        for _ in self.model.nodes:  # so often at most, should a damaged file go in circles
            if len(readers) != 1 or readers[0].kind not in MOVES:
                break
            name = readers[0].outputs[0]
            readers = self.readers(name)
        made = [n for n in readers if n.kind == kind]
        if len(made) != len(readers) or not made:
            others = ", ".join(n.label for n in readers if n.kind != kind) or "nothing"
            raise ValueError(f"is read by {others} before a {kind}: expected a quantised input")
        grid = grid_of(self.call(made[0]))
        t = TensorType(v.shape, DType.I8, QuantParams((grid.scale,), grid.zero))
        self.values[v.name] = Stored(self.build.input(v.name, t), v.shape, grid, tuple(range(len(v.shape))))

    def finish(self) -> list[str]:
        """The graph's outputs, axes as in the file; what is not quantised must be a softmax, which gives int16."""
        problems, names = [], []
        for v in self.model.outputs:
            node = next((n for n in self.model.nodes if v.name in n.outputs), None)
            if node is None:
                problems.append(f"output {v.name}: no operator computes it")
                continue
            self.build.source = (node.label,)
            try:
                names.append(self.result(v, self.call(node)))
            except MISFITS as err:
                problems.append(f"{node.label}: output {v.name} {str(err) or type(err).__name__}")
        self.outputs = tuple(names)
        return problems

    def result(self, v: OnnxValue, call: Call) -> str:
        """A graph output's tensor, axes as in the file."""
        value = self.values.get(v.name)
        if isinstance(value, Pending) and call.kind == "Softmax":
            name, shape, order = probabilities(call)()
            value = Stored(name, shape, Grid(1.0, 0), order)
        elif isinstance(value, Pending) and value.exact is not None:
            value = value.on(value.exact, self.build)
        if not isinstance(value, Stored):
            raise ValueError("is not quantised: no QuantizeLinear follows it")
        return call.natural(value)


def grid_of(call: Call) -> Grid:
    """The grid of a QuantizeLinear or DequantizeLinear of activations."""
    scale, zero = scale_and_zero(call, np.uint8)
    call.ignore("axis")  # of one scale
    kind = zero.dtype.name
    if scale.size != 1 or zero.size != 1 or kind not in OFFSETS:
        raise ValueError(f"{scale.size} scales, {zero.size} zero points of {kind}: expected one each of int8 or uint8")
    if not 0 < float(scale.reshape(())) < float("inf"):
        raise ValueError(f"scale {float(scale.reshape(())):g}, expected a positive number")
    return Grid(float(scale.reshape(())), int(zero.reshape(())) - OFFSETS[kind])


def scale_and_zero(call: Call, absent: type) -> tuple[Array, Array]:
    """The scales and zero points of a QuantizeLinear or DequantizeLinear; zeros of type `absent` where it has none."""
    _, scale, zero = (p.name for p in call.schema[:3])
    call.ignore("saturate")  # of floats of 8 bits
    scales = call.constant(scale).real.astype(np.float32)
    if call.kind == "QuantizeLinear":
        call.only("precision", 0, FLOAT)
        absent = np.int8 if call.only("output_dtype", 0, UINT8, INT8) == INT8 else absent
    else:
        call.only("output_dtype", 0, FLOAT)
    return scales, call.constant(zero).real if call.has(zero) else np.zeros(scales.size, absent)


def quantize(call: Call) -> Stored | Constant:
    """The rounding of what is pending; a table where integers change their grid."""
    value, grid = call.value("x"), grid_of(call)
    if isinstance(value, Constant):
        return Constant(value.real, grid.levels(value.real.astype(np.float32)))
    if isinstance(value, Pending):
        return value.on(grid, call.build)
    return value if value.grid == grid else call.regrid(value, grid)


def dequantize(call: Call) -> Stored | Constant:
    """The same integers; of a constant its real numbers."""
    value = call.value("x")
    if isinstance(value, Constant):
        return dequantized(call, value)
    x = call.stored("x")
    if grid_of(call) != x.grid:
        raise ValueError("its scale or zero point is not that of the QuantizeLinear before it")
    return x


def dequantized(call: Call, value: Constant) -> Constant:
    """A constant's integers with their scales."""
    scales, zeros = (v.reshape(-1) for v in scale_and_zero(call, np.int8))
    stored = value.real if value.integers is None else value.integers
    offset = OFFSETS.get(stored.dtype.name, 0) if value.integers is None else 0
    if stored.dtype.name not in (*OFFSETS, "int32") or scales.size != zeros.size:
        raise ValueError(f"a constant of {stored.dtype.name} with {scales.size} scales and {zeros.size} zero points")
    integers = stored.astype(np.int64) - offset
    levels = zeros.astype(np.int64) - OFFSETS.get(zeros.dtype.name, 0) * (stored.dtype.name != "int32")
    axis = call["axis"] % max(stored.ndim, 1)
    if scales.size > 1 and stored.shape[axis] != scales.size:
        raise ValueError(f"{scales.size} scales for axis {axis} of {stored.shape}")
    shape = [scales.size if k == axis and scales.size > 1 else 1 for k in range(stored.ndim)]
    real = ((integers - levels.reshape(shape)) * scales.reshape(shape)).astype(np.float32)
    return Constant(real, integers, scales, levels, axis)
