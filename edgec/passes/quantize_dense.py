"""Quantisation rules of the layers with weights: convolution, linear layer, Legendre memory."""

from __future__ import annotations

from math import prod

import numpy as np

from edgec.ir.graph import Node
from edgec.ops.conv import Conv1d, Conv2d
from edgec.ops.qconv import QConv2d
from edgec.ops.quantized import QConv1d, QLinear, QLmuFir
from edgec.ops.recurrent import LmuMemory
from edgec.passes.quantize_build import Builder, Source
from edgec.passes.quantize_numbers import Array, Refusal, Scale, bounds, quantize_weights


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


def layer(b: Builder, node: Node, x: Source, op: QConv1d | QConv2d | QLinear) -> None:
    """A weighted layer on a stored activation: its accumulators stand for the output."""
    w, bias = constants(b, node)
    q = quantize_weights(w, bias, Scale(float(x.scale[0]), x.zero), b.range_of(x))
    weights = b.const(node.inputs[1], q.w, q.scale)
    offsets = b.const(node.inputs[2], q.bias)
    b.emit(op, (x.tensor, weights, offsets), node.outputs)
    scale = q.scale * x.scale
    b.sources[node.output] = Source(node.output, node.output, scale, q.lo, q.hi, 0, q.rest, q.rest)


def linear(b: Builder, node: Node) -> None:
    """A linear layer."""
    layer(b, node, b.activation(node.inputs[0], terms(b, node)), QLinear())


def conv1d(b: Builder, node: Node) -> None:
    """Padding is the zero point, so that folding it into the bias is exact at the border too."""
    op: Conv1d = node.op
    x = b.activation(node.inputs[0], terms(b, node))
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
    b.emit(QLmuFir(), (u.tensor, name), node.outputs)
    b.sources[node.output] = Source(node.output, node.output, scale * u.scale, lo, hi)


def conv2d(b: Builder, node: Node) -> None:
    """As `conv1d`."""
    op: Conv2d = node.op
    x = b.activation(node.inputs[0], terms(b, node))
    layer(b, node, x, QConv2d(op.stride, op.pad, op.dilation, op.groups, pad_value=x.zero))
