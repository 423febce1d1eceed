"""Quantisation rules of products of two computed tensors."""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Node
from edgec.ir.types import DType
from edgec.ops.activation import Softmax
from edgec.ops.integer.product import QMatMul, QMul
from edgec.passes.quantize.build import Builder, Source
from edgec.passes.quantize.numbers import INT32_MAX, Refusal, ratio, symmetric


def matmul(b: Builder, node: Node) -> None:
    """int8 by int8, or attention weights in int16 by int8: accumulators of one scale stand for the output."""
    left, right = node.inputs
    x = b.operand(left) if is_softmax(b, left) else factor(b, left)
    y = factor(b, right)
    terms = b.graph.type_of(left).shape[-1]
    # one operand's zero point is taken off its elements, the other's off the sum: both partial sums are bounded so
    most = row_sum(b, left, x, terms) * 2 * max(abs(v) for v in (*b.range_of(y), y.zero))
    if most > INT32_MAX:
        raise Refusal(f"its accumulator can reach {most}, above int32's {INT32_MAX}", "fewer terms to a sum")
    scale = x.scale * y.scale
    b.emit(QMatMul(node.op.transpose_b, x.zero, y.zero, float(scale[0])), (x.tensor, y.tensor), node.outputs)
    b.sources[node.output] = Source(node.output, node.output, scale, np.array([-most]), np.array([most]))


def is_softmax(b: Builder, name: str) -> bool:
    """Whether the tensor comes from a softmax, whose rows sum to 1."""
    producer = b.graph.producer(name)
    return producer is not None and isinstance(producer.op, Softmax)


def row_sum(b: Builder, name: str, x: Source, terms: int) -> int:
    """Bound of the sum of magnitudes of a row; each of a softmax's elements is at most one unit above its share."""
    if is_softmax(b, name) and b.dtype(x) is DType.I16:
        return 2**15 + 2 * terms
    lo, hi = b.range_of(x)
    return terms * max(abs(lo - x.zero), abs(hi - x.zero))


def factor(b: Builder, name: str) -> Source:
    """An operand in int8: as it is stored, at whatever scale, else at its own."""
    values = b.data(name)
    if values is not None:
        return b.constant(name, DType.I8, symmetric(float(np.abs(values).max(initial=0.0)), 127), values.shape)
    source = b.sources[name]
    if b.is_plain(source) and b.dtype(source) is DType.I8:
        return source
    return b.store(name, DType.I8, b.plan.int8[name])


def product(b: Builder, node: Node) -> None:
    """int16 factors (int8 where so stored), rounded once to what the reader wants."""
    x, y = (b.operand(i) for i in node.inputs)
    dtype, target = b.plan.stored(node.output)
    multiplier, shift = ratio(x.scale * y.scale / target.scale)
    places = (int(multiplier[0]), int(shift[0]))
    op = QMul(dtype.value, target.scale, target.zero, x.zero, y.zero, *places, *dtype.range)
    b.emit(op, (x.tensor, y.tensor), node.outputs)
    b.hold(node.output, node.output, target)
