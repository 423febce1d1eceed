"""How a layer with constant weights becomes integers: what convolutions and linear layers share."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from edgec.bits import Bits
from edgec.ir.graph import Node
from edgec.ir.types import DType
from edgec.ops.base import Array, site_of
from edgec.ops.integer.build import Builder, Source
from edgec.ops.integer.numbers import Refusal, Scale, given_weights, quantize_weights


def constants(b: Builder, node: Node) -> tuple[Array, Array]:
    """Weights and bias of a layer."""
    if node.op.activation:
        raise Refusal(f"its {node.op.activation} is already fused into it", "run quantize before fuse")
    w, bias = b.data(node.inputs[1]), b.data(node.inputs[2])
    if w is None or bias is None:
        raise Refusal("its weights are computed, not constant")
    return w, bias


def read(b: Builder, node: Node) -> Source:
    """The activation a layer reads, in the bits that are asked for."""
    name, bits = node.inputs[0], b.plan.bits.get(node.output, Bits())
    if bits.asked and b.dtype(b.sources[name]) is DType.BIT and bits.weights < 8:
        raise Refusal("it reads spikes, whose weights have 8 bits", "give it w8a8")
    if bits.activations == 4:
        return b.store(name, DType.I4, b.plan.int4[name])
    if bits.asked and bits.weights < 8:
        return b.store(name, DType.I8, b.plan.int8[name])
    terms = prod(b.graph.type_of(node.inputs[1]).shape[:-1])  # products that one output sums up
    return b.activation(name, terms)


def layer(b: Builder, node: Node, x: Source, op: Any) -> None:
    """A weighted layer on a stored activation: its accumulators stand for the output.

    Weights of fewer than 8 bits are for layers that read int8 or int4.
    """
    w, bias = constants(b, node)
    bits = b.plan.bits.get(node.output, Bits()).weights if b.dtype(x) in (DType.I4, DType.I8) else 8
    x_scale, x_range = Scale(float(x.scale[0]), x.zero), b.range_of(x)
    # a gain may make much of little
    mapped = any(n.op.linear_map(site_of(b.graph, n)) for n in b.graph.consumers(node.output))
    fine = bits == 8 and b.dtype(x) is DType.I8 and not mapped and node.output in b.plan.int8
    given = [b.graph.consts[i].type.quant for i in node.inputs[1:]]
    if given[0] is not None:
        q = given_weights(w, given[0], bias, given[1], x_scale, x_range)
    else:
        q = quantize_weights(w, bias, x_scale, x_range, bits, b.plan.int8[node.output].scale if fine else 0.0)
    weights = b.const(node.inputs[1], q.w, q.scale, DType(f"int{bits}"))
    if b.dtype(x) is DType.BIT:
        op = replace(op, spike_rate=b.plan.rates[node.inputs[0]])
    offsets = b.const(node.inputs[2], q.bias)
    b.emit(op, (x.tensor, weights, offsets), node.outputs)
    scale = q.scale * x.scale
    b.sources[node.output] = Source(node.output, node.output, scale, q.lo, q.hi, 0, q.rest, q.rest)
