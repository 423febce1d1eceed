"""ONNX files, quantised (int8 or uint8, in QDQ or QOperator form, as onnxruntime's static quantiser writes them), in
part or not at all: a float graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from edgec.errors import FrontendError, option
from edgec.frontends.builder import GraphBuilder
from edgec.frontends.onnx.constants import fold_constants
from edgec.frontends.onnx.model import OnnxModel, OnnxNode, OnnxValue, read_model
from edgec.frontends.onnx.ops import CONVERTERS
from edgec.frontends.onnx.qoperators import QOPERATORS, steps
from edgec.frontends.onnx.schema import NEWEST
from edgec.frontends.onnx.values import Array, Call, Constant, Value, call_of, grid_of
from edgec.frontends.survey import needed, refuse, unsupported, walk
from edgec.ir.graph import Graph
from edgec.ir.types import QuantParams, TensorType
from edgec.ops.snap import Snap

FLOAT, UINT8, INT8 = 1, 2, 3  # the standard's numbers of element types
#: what a converter raises on operands and attributes that are not as the standard says
MISFITS = (ValueError, LookupError, ArithmeticError, TypeError, AttributeError, MemoryError)
KNOWN = ("QuantizeLinear", "DequantizeLinear", *CONVERTERS, *QOPERATORS)
#: operators that do the same to the integers of a tensor as to its real numbers
MOVES = ("Concat", "Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
INPUTS = ("FLOAT", "INT8", "UINT8")
OFFSETS = {"int8": 0, "uint8": 128, "int32": 0}  # what a stored element is more than ours


def load_onnx(path: Path, name: str, time_axis: int | Sequence[int | None] | str | None = "guess") -> Graph:
    """An ONNX file as a float Graph, whole window: a QuantizeLinear with its DequantizeLinear is a Snap.

    FrontendError lists all operators that cannot be imported.
    """
    if time_axis not in ("guess", None):
        raise FrontendError(
            f"{path}: an .onnx network takes its whole window in one call; no time axis can be named",
            hint=f"leave out {option('time_axis')}, or export the network from torch to stream it",
        )
    model, where = live_part(fold_constants(read_model(path))), str(path)
    missing = unsupported((n.kind, n.label) for n in model.nodes if n.kind not in KNOWN)
    walker = Walker(model, GraphBuilder(name))
    refuse(where, missing, walker.walk(), KNOWN)
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
        self.values: dict[str, Value] = {name: Constant(data) for name, data in model.consts.items()}
        self.raw: dict[str, str] = {}  # tensors of the file that hold integers: their element types
        self.outputs: tuple[str, ...] = ()

    def walk(self) -> list[str]:
        """What does not fit, node by node: numbers that no integer holds are told too."""
        with np.errstate(all="ignore", invalid="raise"):
            return self.walked()

    def walked(self) -> list[str]:
        """What does not fit, node by node."""
        problems, lost = [], set[str]()
        for v in self.model.inputs:
            try:
                self.input(v)
            except MISFITS as err:
                problems.append(f"input {v.name}: {str(err) or type(err).__name__}")
                lost.add(v.name)
        problems += walk(self.build, self.model.nodes, KNOWN, lost, lambda n: n.label, self.convert)
        return problems or ([] if lost else self.finish())

    def input(self, v: OnnxValue) -> None:
        """A graph input in real numbers; integers are read by a DequantizeLinear, which says what they stand for."""
        if v.kind not in INPUTS:
            raise ValueError(f"holds {v.kind}, expected {', '.join(INPUTS)}")
        self.raw |= {v.name: v.kind.lower()} if v.kind != "FLOAT" else {}
        self.values[v.name] = self.build.input(v.name, TensorType(v.shape))

    def convert(self, node: OnnxNode) -> str | None:
        if node.kind not in QOPERATORS:
            return self.converted(node)
        try:
            parts = steps(node, self.values)
        except MISFITS as err:
            return str(err) or type(err).__name__
        return next(filter(None, map(self.converted, parts)), None)

    def converted(self, node: OnnxNode) -> str | None:
        """One float operator, or a quantiser."""
        integers = {name: self.raw[name] for name in node.inputs if name in self.raw}
        if integers and node.kind in MOVES:
            self.raw |= dict.fromkeys(node.outputs, next(iter(integers.values())))
        elif integers and node.kind not in ("QuantizeLinear", "DequantizeLinear"):
            return f"reads the integers {', '.join(sorted(integers))}: expected a DequantizeLinear before it"
        try:
            value = self.value(node, next(iter(integers.values()), "uint8"))
            unseen = [o for o in node.outputs[1:] if o and any(o in n.inputs for n in self.model.nodes)]
            if unseen:
                return f"its output {unseen[0]} is not supported"
        except MISFITS as err:
            return str(err) or type(err).__name__
        self.values[node.outputs[0]] = value
        return None

    def value(self, node: OnnxNode, kind: str) -> Value:
        """What an operator gives; `kind` is the element type of the integers that a DequantizeLinear reads."""
        row: str | Callable[[Call], Value] = CONVERTERS.get(node.kind, quantize)
        row = partial(dequantize, kind=kind) if node.kind == "DequantizeLinear" else row
        opset = self.model.opset if node.kind in CONVERTERS else NEWEST  # a QLinearConv of set 11 has axes, QDQ not yet
        call = call_of(opset, node, self.build, self.values)
        if node.kind == "QuantizeLinear":
            self.raw[node.outputs[0]] = stored(call)
        value: Value = call.convert(row)
        return value

    def finish(self) -> list[str]:
        """The graph's outputs."""
        found = {v.name: self.values.get(v.name) for v in self.model.outputs}
        self.outputs = tuple(x for x in found.values() if isinstance(x, str))
        return [f"output {name}: no operator computes it" for name, x in found.items() if not isinstance(x, str)]


@dataclass(frozen=True)
class Levels:
    """What a QuantizeLinear or DequantizeLinear says: a scale and the integer of 0 for each index along `axis`, or one
    of both; of the integers as edgec holds them, in which a uint8 is an int8 `offset` lower."""

    scales: Array
    zeros: Array
    offset: int
    axis: int | None

    def along(self, numbers: Array, rank: int) -> Array:
        """Scales or zeros, to be broadcast over a tensor."""
        return numbers.reshape([-1 if k == self.axis else 1 for k in range(rank)])

    def constant(self, integers: Array) -> Constant:
        """The real numbers of integers."""
        zeros, scales = (self.along(v, integers.ndim) for v in (self.zeros, self.scales.astype(np.float64)))
        zero = int(self.zeros[0]) if self.axis is None else 0
        return Constant((integers - zeros) * scales, QuantParams(tuple(map(float, self.scales)), zero, self.axis))

    def snap(self) -> Snap:
        if self.axis is not None:
            raise ValueError(f"{self.scales.size} scales: expected one for a tensor that is computed")
        return Snap("int8", float(self.scales[0]), int(self.zeros[0]))


def stored(call: Call) -> str:
    """The element type of what a QuantizeLinear gives."""
    if call.has("y_zero_point"):
        return call.constant("y_zero_point").data.dtype.name
    return "int8" if call.only("output_dtype", 0, UINT8, INT8) == INT8 else "uint8"


def levels_of(call: Call, shape: tuple[int, ...], kind: str) -> Levels:
    """The levels for a tensor of a shape; `kind` is the element type where no zero points name it."""
    _, scale, zero = (p.name for p in call.schema[:3])
    call.ignore("saturate")  # of floats of 8 bits
    if call.kind == "QuantizeLinear":
        call.only("precision", 0, FLOAT)
        call.only("output_dtype", 0, UINT8, INT8)
    else:
        call.only("output_dtype", 0, FLOAT)
    scales = call.constant(scale).data.astype(np.float32).reshape(-1)
    zeros = call.constant(zero).data.reshape(-1) if call.has(zero) else np.zeros(scales.size, kind)
    if zeros.dtype.name not in OFFSETS or zeros.size != scales.size:
        raise ValueError(f"{scales.size} scales, {zeros.size} zero points of {zeros.dtype.name}: expected one each")
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise ValueError(f"scale {float(scales.min()):g}, expected a positive number")
    offset = OFFSETS[zeros.dtype.name]
    axis = call["axis"] % max(len(shape), 1)
    axis = None if scales.size == 1 else axis
    if axis is not None and shape[axis : axis + 1] != scales.shape:
        raise ValueError(f"{scales.size} scales for axis {axis} of {shape}")
    return Levels(scales, zeros.astype(np.int64) - offset, offset, axis)


def quantize(call: Call) -> Value:
    """A Snap, but for what already lies on its grid."""
    value, levels = call.value("x"), levels_of(call, call.shape("x"), stored(call))
    if isinstance(value, str):
        return value if grid_of(call.build, value) == levels.snap().grid else call.emit(levels.snap(), value)
    real = value.data.astype(np.float32) / levels.along(levels.scales, value.data.ndim)
    integers = np.rint(real) + levels.along(levels.zeros, value.data.ndim)
    return levels.constant(integers.clip(-128, 127).astype(np.int64))


def dequantize(call: Call, kind: str) -> Value:
    """What a QuantizeLinear gave already is real; the integers of a constant or of a graph input, whose element type is
    `kind`, have a grid."""
    value = call.value("x")
    if isinstance(value, Constant):
        if value.grid is not None:
            call.ignore(*call.args)
            return value
        levels = levels_of(call, value.data.shape, value.data.dtype.name)
        return levels.constant(value.data.astype(np.int64) - levels.offset)
    snap, found = levels_of(call, call.shape("x"), kind).snap(), grid_of(call.build, value)
    if found not in (None, snap.grid):
        raise ValueError("its scale or zero point is not that of the QuantizeLinear before it")
    return value if found == snap.grid else call.emit(snap, value)
