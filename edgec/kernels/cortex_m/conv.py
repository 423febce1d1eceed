"""Convolutions of int8 images for Cortex-M with DSP instructions; their loops are in runtime/cortex_m/edgec_conv.h.

A window is gathered once and widened to int16, every four outputs are one dense product, then a pixel is requantised.
"""

from __future__ import annotations

from math import prod

import numpy as np

from edgec.ir.types import DType
from edgec.kernels.cortex_m.dense import INPUTS, OUTPUTS, dense_calls, pack_chunks
from edgec.kernels.event import pad_bias
from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.integer.conv import QConv2dRequantize
from edgec.ops.integer.requantize import accumulator_bounds

MAX_TAPS, TAPS = 51, 3  # of edgec_conv_depthwise: at most, and a multiple of
ACCUMULATOR_LIMIT = 1 << 30  # of edgec_conv_level


def tflite_table(op: QConv2dRequantize, site: Site) -> Array | None:
    """A row (multiplier, right shift less one) per output; None where edgec_conv_level would not be exact."""
    if site.inputs[0].dtype is not DType.I8 or op.dtype != "int8" or op.rounding != "tflite":
        return None
    if not {1, 2, 3, 4} <= set(site.consts):
        return None
    w, bias, multiplier, shift = (site.consts[k] for k in (1, 2, 3, 4))
    low, high = accumulator_bounds(w, bias, (-128, 127))
    if max(int(np.abs(low).max()), int(np.abs(high).max())) >= ACCUMULATOR_LIMIT:
        return None
    less = shift.astype(np.int64) - 32
    if less.min() < 0 or less.max() > 30:
        return None
    outputs = w.shape[-1]
    columns = [np.broadcast_to(v.astype(np.int64), (outputs,)) for v in (multiplier, less)]
    return np.stack(columns, 1).astype(np.int32)


def window_table(op: QConv2dRequantize, site: Site) -> Array:
    """The words of edgec_window."""
    _, h, v, c = site.inputs[0].shape
    kh, kw = site.inputs[1].shape[:2]
    return np.array([h, v, c, kh, kw, *op.stride, *op.dilation, op.pad[0], op.pad[2]], np.int32)


def kernel_text(op: QConv2dRequantize, site: Site, lines: list[str], accumulators: int) -> str:
    """The loops over pixels: `lines` compute the accumulators of (n, i, j), which are then requantised."""
    b, oh, ow, o = site.outputs[0].shape
    name, mode = "edgec_conv_requantize", f"{o}, {1 + 2 * op.zero_point}, {op.lo}, {op.hi}"
    if (op.lo, op.hi) == (-128, 127) and o % 4 == 0:
        name, mode = "edgec_conv_requantize4", f"{o}, {1 + 2 * op.zero_point}"
    finish = (
        f'T.call_extern("void", "{name}", T.address_of(scratch[{accumulators}]), table.data, '
        f"T.address_of(y[((n * {oh} + i) * {ow} + j) * {o}]), {mode})"
    )
    return "\n".join([f"for n, i, j in T.grid({b}, {oh}, {ow}):", *(f"    {line}" for line in [*lines, finish])])


def convolution(op: Op, site: Site) -> Kernel | None:
    """Any convolution without groups."""
    assert isinstance(op, QConv2dRequantize)
    table = tflite_table(op, site) if op.groups == 1 else None
    if table is None:
        return None
    x, shape = site.inputs[0], site.inputs[1].shape
    values = site.consts[1].reshape(-1, shape[3])
    size, padded = values.shape[0], -(-shape[3] // OUTPUTS) * OUTPUTS
    chunks, packed = pack_chunks(values)
    accumulators = -(-size // INPUTS) * INPUTS // 2  # words of the widened window come first
    copy = accumulators + padded
    words = copy + (-(-size // 4) if x.shape[3] % 4 else 1)
    image = prod(x.shape[1:])
    window = window_table(op, site)
    if shape[:2] == (1, 1) and op.stride == (1, 1) and not any(op.pad):
        pixel = f"T.address_of(x[n * {image} + (i * {x.shape[2]} + j) * {x.shape[3]}])"
        gather = f'T.call_extern("void", "edgec_expand_s8", {pixel}, {size}, scratch.data)'
    else:
        where = f"T.address_of(x[n * {image}]), window.data, i, j, {op.pad_value}"
        gather = f'T.call_extern("void", "edgec_conv_gather", {where}, scratch.data, T.address_of(scratch[{copy}]))'
    body = kernel_text(op, site, [gather, *dense_calls(chunks, padded, accumulators)], accumulators)
    bias = pad_bias(site.consts[2], padded)
    params = (
        ("x", (x.size,), "int8"), ("w", packed.shape, "int32"), ("bias", bias.shape, "int32"),
        ("table", table.shape, "int32"), ("window", window.shape, "int32"),
        ("y", (site.outputs[0].size,), "int8"), ("scratch", (words,), "int32"),
    )  # fmt: skip
    consts = {"w": packed, "bias": bias, "table": table, "window": window}
    return Kernel(body, params, consts, drops=(3, 4), scratch=4 * words)


def pack_filters(w: Array) -> Array:
    """w [taps, channels] as the words [4 channels][tap], with zeros up to a multiple of TAPS."""
    taps, channels = w.shape
    padded = np.zeros((-(-taps // TAPS) * TAPS, channels), np.int8)
    padded[:taps] = w
    octets = np.ascontiguousarray(padded.reshape(-1, channels // 4, 4).transpose(1, 0, 2))
    return octets.reshape(-1).view("<i4").astype(np.int32)


def depthwise(op: Op, site: Site) -> Kernel | None:
    """One filter per channel."""
    assert isinstance(op, QConv2dRequantize)
    x, w = site.inputs[0], site.inputs[1]
    channels, taps = x.shape[3], w.shape[0] * w.shape[1]
    if op.groups != channels or w.shape[2:] != (1, channels) or channels % 4 or taps > MAX_TAPS:
        return None
    table = tflite_table(op, site)
    if table is None:
        return None
    window, edge = window_table(op, site), np.full(channels, op.pad_value, np.int8)
    packed = pack_filters(site.consts[1].reshape(taps, channels))
    taps = packed.size * 4 // channels
    where = f"T.address_of(x[n * {prod(x.shape[1:])}]), edge.data, window.data, i, j"
    call = f'T.call_extern("void", "edgec_conv_depthwise", {where}, w.data, bias.data, scratch.data, {taps})'
    params = (
        ("x", (x.size,), "int8"), ("w", packed.shape, "int32"), ("bias", (channels,), "int32"),
        ("table", table.shape, "int32"), ("window", window.shape, "int32"), ("edge", edge.shape, "int8"),
        ("y", (site.outputs[0].size,), "int8"), ("scratch", (channels,), "int32"),
    )  # fmt: skip
    consts = {"w": packed, "table": table, "window": window, "edge": edge}
    return Kernel(kernel_text(op, site, [call], 0), params, consts, drops=(3, 4), scratch=4 * channels)
