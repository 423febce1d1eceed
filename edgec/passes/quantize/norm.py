"""Quantisation rule of layer norm."""

from __future__ import annotations

from math import ceil, floor, log2, sqrt

import numpy as np

from edgec.ir.graph import Node
from edgec.ops.integer.norm import MAX_CHANNELS, QLayerNorm, deviation_bits
from edgec.passes.quantize.build import Builder
from edgec.passes.quantize.numbers import INT32_MAX, Array, Refusal, Scale

EPS_LIMIT = 2**61 - 1


def layer_norm(b: Builder, node: Node) -> None:
    """int16 (or stored int8) in, int8 out, or int16 where the sum it enters or its readers want that."""
    gamma, beta = b.data(node.inputs[1]), b.data(node.inputs[2])
    if gamma is None or beta is None:
        raise Refusal("its scale and shift are computed, not constant")
    channels = node.type.shape[-1]
    if channels >= MAX_CHANNELS:
        raise Refusal(f"its rows of {channels} elements are too long for exact sums")
    x, (dtype, target) = b.operand(node.inputs[0]), b.plan.stored(node.output)
    eps = min(max(1, round(node.op.eps * (channels / float(x.scale[0])) ** 2)), EPS_LIMIT)
    multiplier, offset, shift = channel_maps(gamma.astype(np.float64), beta.astype(np.float64), target)
    names = (b.const(node.inputs[1], multiplier), b.const(node.inputs[2], offset))
    op = QLayerNorm(dtype.value, target.scale, target.zero, eps, shift, *dtype.range)
    b.emit(op, (x.tensor, *names), node.outputs)
    b.hold(node.output, node.output, target)


def channel_maps(gamma: Array, beta: Array, target: Scale) -> tuple[Array, Array, int]:
    """Multiplier, offset and shift of a QLayerNorm with as many bits as int32 bears, rounding and zero point included.

    |n| is at most sqrt(channels), so its product by the multiplier is known to fit.
    """
    bits = deviation_bits(len(gamma)) - 2
    gain, level = gamma / target.scale, beta / target.scale + target.zero + 0.5
    largest = float(np.abs(gain).max())
    places = min(30 - floor(log2(largest)) if largest > 0 else 62, 62 - bits)
    while places + bits > 32:
        shift = places + bits - 32
        multiplier, offset = np.floor(gain * 2.0**places + 0.5), np.floor(level * 2.0**shift + 0.5)
        product = np.ceil(np.abs(multiplier) * ceil(sqrt(len(gamma))) * 2.0 ** (bits - 32)) + 1
        if np.abs(multiplier).max() <= INT32_MAX and (product + np.abs(offset)).max() <= INT32_MAX:
            return multiplier.astype(np.int32), offset.astype(np.int32), shift
        places -= 1
    raise Refusal(f"its gain {float(np.abs(gamma).max()):g} is too large for the scale {target.scale:g} of its output")
