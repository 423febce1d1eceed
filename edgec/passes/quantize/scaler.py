"""Quantisation rules of the per-window scaler: the sensor's int16 in, forecasts in the same int16 out."""

from __future__ import annotations

from math import floor, log2

from edgec.ir.graph import Graph, Node
from edgec.ir.types import DType
from edgec.ops.integer.scaler import LONGEST, QStdScale, QStdUnscale, fraction_bits
from edgec.ops.scaler import StdScale, StdUnscale
from edgec.ops.shape import Permute, Reshape, Slice
from edgec.passes.quantize.build import Builder, Source
from edgec.passes.quantize.numbers import Refusal, Scale

EPS_LIMIT = 2**60
MULTIPLIER_BITS = 15
SHIFT_LIMIT = 46


def feeds_scaler(graph: Graph, name: str) -> bool:
    """Whether everything that reads the tensor is a scaler, or only moves it for one."""
    readers = graph.consumers(name)
    return bool(readers) and all(
        isinstance(n.op, StdScale) or (isinstance(n.op, (Permute, Reshape, Slice)) and feeds_scaler(graph, n.output))
        for n in readers
    )


def is_series(graph: Graph, name: str) -> bool:
    """Whether the tensor is a forecast in the units of the window it was made from."""
    node = graph.producer(name)
    while node is not None and isinstance(node.op, (Permute, Reshape, Slice)):
        node = graph.producer(node.inputs[0])
    return node is not None and isinstance(node.op, StdUnscale)


def integer_scale(op: StdScale, length: int, unit: float, target: float) -> QStdScale:
    """The integer form of a scaler over windows of int16 at scale `unit`; y in int16 at scale `target`."""
    if length > LONGEST:
        raise Refusal(f"its window of {length} values is longer than {LONGEST}")
    ones = 1 << fraction_bits(length)
    eps = max(1, round(op.eps * (length * ones / unit) ** 2))
    if eps > EPS_LIMIT:
        raise Refusal(f"its eps of {op.eps:g} hides windows in units of {unit:g}", "give the series in smaller units")
    shift = 30 - floor(log2(ones / target))
    factor = min(round(ones / target * 2.0**shift), 2**31 - 1)
    return QStdScale(op.axis, "int16", target, eps, factor, shift)


def integer_unscale(op: StdUnscale, length: int, unit: float, scale: float) -> QStdUnscale:
    """The integer form of its inverse for a forecast stored at `scale`; its factor has 15 bits."""
    ratio = scale / (length << fraction_bits(length))
    shift = min(MULTIPLIER_BITS - 1 - floor(log2(ratio)), SHIFT_LIMIT)
    multiplier = min(round(ratio * 2.0**shift), 2**MULTIPLIER_BITS - 1)
    return QStdUnscale(op.axis, unit, multiplier, round(2.0**shift / length), shift)


def std_scale(b: Builder, node: Node) -> None:
    """int16 in and out: a layer reads it in int16 where its sums bear that, as it does a front end's features."""
    (name,) = node.inputs
    x, target = b.store(name, DType.I16, b.plan.int16[name]), b.plan.int16[node.outputs[0]]
    length, unit = b.graph.type_of(name).shape[node.op.axis], float(x.scale[0])
    b.emit(integer_scale(node.op, length, unit, target.scale), (x.tensor,), node.outputs)
    b.features.add(node.outputs[0])
    b.hold(node.outputs[0], node.outputs[0], target)
    for kept, bits in zip(node.outputs[1:], (0, fraction_bits(length)), strict=True):
        b.hold(kept, kept, Scale(unit / length / 2**bits))


def std_unscale(b: Builder, node: Node) -> None:
    """The forecast as it is stored, else in int16; out in the units of the window."""
    name, *kept = node.inputs
    statistics = tuple(b.sources[i].tensor for i in kept)
    window = next((n for n in b.nodes if isinstance(n.op, QStdScale) and n.outputs[1:] == statistics), None)
    if window is None:
        raise Refusal("its mean and deviation are not those of one window")
    series, x = b.types[window.inputs[0]], centred(b, name)
    assert series.quant is not None
    length, unit = series.shape[window.op.axis], series.quant.scale[0]
    op = integer_unscale(node.op, length, unit, float(x.scale[0]))
    b.emit(op, (x.tensor, *statistics), node.outputs)
    b.hold(node.output, node.output, Scale(unit))


def centred(b: Builder, name: str) -> Source:
    """A tensor in integers without a zero point."""
    x = b.operand(name)
    return x if x.zero == 0 else b.store(name, DType.I16, b.plan.int16[name])
