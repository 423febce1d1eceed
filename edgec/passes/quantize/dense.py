"""Quantisation rules of the layers with weights: convolution, linear layer, Legendre memory."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from edgec.bits import Bits
from edgec.ir.graph import Node
from edgec.ir.types import DType
from edgec.ops.conv import Conv1d, Conv2d
from edgec.ops.integer.conv import QConv2d
from edgec.ops.integer.linear import QLinear, QLmuFir
from edgec.ops.integer.requantize import QConv1d
from edgec.ops.recurrent import LmuMemory
from edgec.passes.quantize.build import Builder, Source
from edgec.passes.quantize.numbers import Array, Refusal, Scale, bounds, quantize_weights
from edgec.passes.quantize.plan import is_map


def constants(b: Builder, node: Node) -> tuple[Array, Array]:
    """Weights and bias of a layer."""
    if node.op.activation:
        raise Refusal(f"its {node.op.activation} is already fused into it", "run quantize before fuse")
    w, bias = b.data(node.inputs[1]), b.data(node.inputs[2])
    if w is None or bias is None:
        raise Refusal("its weights are computed, not constant")
    return w, bias


def terms(b: Builder, node: Node) -> int:
    """Products that one output sums up."""
    return prod(b.graph.type_of(node.inputs[1]).shape[:-1])


def read(b: Builder, node: Node) -> Source:
    """The activation a layer reads, in the bits that are asked for."""
    name, bits = node.inputs[0], b.plan.bits.get(node.output, Bits())
    if bits.asked and b.dtype(b.sources[name]) is DType.BIT and bits.weights < 8:
        raise Refusal("it reads spikes, whose weights have 8 bits", "give it w8a8")
    if bits.activations == 4:
        return b.store(name, DType.I4, b.plan.int4[name])
    if bits.asked and bits.weights < 8:
        return b.store(name, DType.I8, b.plan.int8[name])
    return b.activation(name, terms(b, node))


def layer(b: Builder, node: Node, x: Source, op: QConv1d | QConv2d | QLinear) -> None:
    """A weighted layer on a stored activation: its accumulators stand for the output.

    Weights of fewer than 8 bits are for layers that read int8 or int4.
    """
    w, bias = constants(b, node)
    bits = b.plan.bits.get(node.output, Bits()).weights if b.dtype(x) in (DType.I4, DType.I8) else 8
    mapped = any(is_map(b.graph, n) for n in b.graph.consumers(node.output))  # a gain may make much of little
    step = b.plan.int8[node.output].scale if bits == 8 and b.dtype(x) is DType.I8 and not mapped else 0.0
    q = quantize_weights(w, bias, Scale(float(x.scale[0]), x.zero), b.range_of(x), bits, step)
    weights = b.const(node.inputs[1], q.w, q.scale, DType(f"int{bits}"))
    if b.dtype(x) is DType.BIT and isinstance(op, (QConv1d, QLinear)):
        op = replace(op, spike_rate=b.plan.rates[node.inputs[0]])
    offsets = b.const(node.inputs[2], q.bias)
    b.emit(op, (x.tensor, weights, offsets), node.outputs)
    scale = q.scale * x.scale
    b.sources[node.output] = Source(node.output, node.output, scale, q.lo, q.hi, 0, q.rest, q.rest)


def linear(b: Builder, node: Node) -> None:
    """A linear layer."""
    layer(b, node, read(b, node), QLinear())


def conv1d(b: Builder, node: Node) -> None:
    """Padding is the zero point, so that folding it into the bias is exact at the border too. Along an axis that is
    not time it is a convolution of a line, and reads spikes as `conv2d` does."""
    op: Conv1d = node.op
    x = read(b, node)
    if b.types[x.tensor].time_axis != 1:
        x = b.widened(x)
    layer(b, node, x, QConv1d(op.stride, op.pad, op.dilation, op.groups, pad_value=x.zero))


def lmu_memory(b: Builder, node: Node) -> None:
    """The impulse response as int8 taps with one scale per order. Abar itself does not bear quantisation."""
    op: LmuMemory = node.op
    if op.form != "fir":
        raise Refusal(
            "its recurrent form feeds rounding errors back through Abar (8 to 76 % at int8, unstable for long windows)",
            "train or export it with form='fir', which is equal for the first theta frames",
        )
    u = b.activation(node.inputs[0])
    if u.zero:
        raise Refusal("its input has a zero point, so its empty history is not zero")
    taps = op.taps().numpy().astype(np.float64)
    scale = np.maximum(np.abs(taps).max(0), 1e-30) / 127.0
    q = np.floor(taps / scale + 0.5).astype(np.int8)
    lo, hi = bounds(q, np.zeros(op.order, np.int64), b.range_of(u))
    name = b.const(f"{node.output}_taps", q, scale)
    rate = b.plan.rates[node.inputs[0]] if b.dtype(u) is DType.BIT else None
    b.emit(QLmuFir(spike_rate=rate), (u.tensor, name), node.outputs)
    b.sources[node.output] = Source(node.output, node.output, scale * u.scale, lo, hi)


def conv2d(b: Builder, node: Node) -> None:
    """As `conv1d`; spikes are read as int8: no kernel gathers windows of packed ones."""
    op: Conv2d = node.op
    x = b.widened(read(b, node))
    layer(b, node, x, QConv2d(op.stride, op.pad, op.dilation, op.groups, pad_value=x.zero))
