"""Integer products and convolutions for 64-bit ARM cores without dot products (runtime/edgec_neon_*.h)."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from edgec.ir.types import DType
from edgec.kernels.cortex_m.rows import requantization
from edgec.kernels.generic import is_one_product
from edgec.kernels.helium.image import Finish, finish_for
from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.integer.conv import QConv1d, QConv2d

VECTOR, HALF = 16, 8  # bytes
BLOCK, ROWS = 4, 4  # outputs and rows of a block
MOST_LINES = 16  # of a depthwise filter


def width_of(inputs: int) -> int:
    """Bytes of a row as kernels read it: vectors, and half of one where that holds the rest."""
    return -(-inputs // HALF) * HALF if inputs % VECTOR <= HALF else -(-inputs // VECTOR) * VECTOR


def starts_of(count: int, block: int) -> list[int]:
    """Where blocks begin that cover so many outputs; the last may lie over some before."""
    return [*range(0, count - block + 1, block), *([count - block] if count % block else [])]


def tables_of(bias: Array, finish: Finish, part: slice) -> list[Array]:
    """What follows the weights of a block."""
    return [v[part].astype(np.int64) for v in (bias, finish.multiplier, finish.shift) if v.size]


def pack(w: Array, bias: Array, finish: Finish) -> tuple[Array, bool]:
    """w [inputs, outputs] as edgec_neon_rows.h reads it, in words; and whether no two weights of -128 share a lane."""
    inputs, outputs = w.shape
    padded = np.zeros((width_of(inputs), outputs), np.int8)
    padded[:inputs] = w
    half = width_of(inputs) % VECTOR
    vectors = padded[half:].reshape(-1, 2, HALF, outputs)
    pairs = not bool((vectors == -128).all(1).any())
    rows = []
    for start in starts_of(outputs, BLOCK):
        part = slice(start, start + BLOCK)
        first = padded[:half, part].T.reshape(-1)
        weights = vectors[..., part].reshape(-1, VECTOR, BLOCK).transpose(0, 2, 1).reshape(-1)
        rows.append(np.concatenate([first, weights]).view("<i4").astype(np.int64))
        rows += tables_of(bias, finish, part)
    return np.concatenate(rows).astype(np.int32), pairs


def layer_words(op: Op, words: int, inputs: int, outputs: int, finish: Finish) -> list[int]:
    """The words of edgec_neon_layer; `words` are those of the stream."""
    last, (blocks, rest), width = requantization(op), divmod(outputs, BLOCK), width_of(inputs)
    again = [outputs - BLOCK, words - words // (blocks + 1)] if rest else [0, 0]
    levels = [last.zero_point, last.lo, last.hi] if last else [0, 0, 0]
    return [width, outputs, width // VECTOR, width % VECTOR // HALF, blocks, *again, *levels, finish.lift]


def kernel_of(op: Op, site: Site, words: Array, name: str, table: list[int], scratch: int, trailing: str) -> Kernel:
    """One call over x, w, y, table and scratch."""
    x, out = site.inputs[0], site.outputs[0]
    body = f'T.call_extern("void", "edgec_neon_{name}", x.data, w.data, y.data, table.data, {trailing}scratch.data)'
    params = (
        ("x", (x.size,), x.dtype.value), ("w", words.shape, "int32"), ("table", (len(table),), "int32"),
        ("y", (out.size,), out.dtype.value), ("scratch", (scratch,), "int8"),
    )  # fmt: skip
    drops = (2, 3, 4) if requantization(op) else (2,)
    return Kernel(body, params, {"w": words, "table": np.array(table, np.int32)}, drops, scratch)


def linear(op: Op, site: Site) -> Kernel | None:
    """Rows times constant weights: QLinear, QConv1d of one output frame, convolutions of one pixel."""
    x, w = site.inputs[0], site.inputs[1]
    inputs, outputs = prod(w.shape[:-1]), w.shape[-1]
    if x.dtype is not DType.I8 or x.size < VECTOR or outputs < BLOCK:
        return None
    if isinstance(op, QConv2d) and (w.shape[:2] != (1, 1) or op.stride != (1, 1) or any(op.pad) or op.groups != 1):
        return None
    if isinstance(op, QConv1d) and not is_one_product(op, site):
        return None
    finish = finish_for(op, site)
    if finish is None:
        return None
    words, pairs = pack(site.consts[1].reshape(inputs, outputs), site.consts[2], finish)
    width, rows = width_of(inputs), site.outputs[0].size // outputs
    table = [*layer_words(op, words.size, inputs, outputs, finish), rows, inputs, int(width != inputs)]
    name = f"{'rows' if pairs else 'least'}_linear_{finish.suffix}"
    return kernel_of(op, site, words, name, table, ROWS * width, "")


def line_words(op: Any, site: Site) -> list[int]:
    """The words of edgec_neon_lines."""
    (_, h, v, c), (kh, _) = site.inputs[0].shape, site.inputs[1].shape[:2]
    _, oh, ow, _ = site.outputs[0].shape
    top, _, left, right = op.pad
    return [h, v * c, c, kh, op.stride[0], top, left * c, (left + v + right) * c, oh, ow, op.stride[1] * c]


def convolution(op: Op, site: Site) -> Kernel | None:
    """Any convolution of int8 images without groups and dilation."""
    assert isinstance(op, QConv2d)
    x, (kh, kw, c, outputs) = site.inputs[0], site.inputs[1].shape
    if x.dtype is not DType.I8 or x.size < VECTOR or op.groups != 1 or op.dilation != (1, 1) or outputs < BLOCK:
        return None
    finish = finish_for(op, site)
    if finish is None:
        return None
    inputs = kh * kw * c
    words, pairs = pack(site.consts[1].reshape(inputs, outputs), site.consts[2], finish)
    lines = line_words(op, site)
    table = [*layer_words(op, words.size, inputs, outputs, finish), *lines, kw * c, x.shape[0]]
    name = f"{'rows' if pairs else 'least'}_image_{finish.suffix}"
    return kernel_of(op, site, words, name, table, kh * lines[7] + ROWS * width_of(inputs), f"{op.pad_value}, ")


def depthwise(op: Op, site: Site) -> Kernel | None:
    """One filter per channel of int8 images of 16 channels or more."""
    assert isinstance(op, QConv2d)
    x, (kh, kw, inside, channels) = site.inputs[0], site.inputs[1].shape
    if op.groups != channels or inside != 1 or x.shape[3] != channels or channels < VECTOR or kh > MOST_LINES:
        return None
    finish = finish_for(op, site)
    if x.dtype is not DType.I8 or op.dilation != (1, 1) or finish is None or site.outputs[0].dtype is not DType.I8:
        return None
    filters, rows = site.consts[1].reshape(kh * kw, channels), []
    for start in starts_of(channels, VECTOR):
        part = slice(start, start + VECTOR)
        rows.append(np.ascontiguousarray(filters[:, part]).reshape(-1).view("<i4").astype(np.int64))
        rows += tables_of(site.consts[2], finish, part)
    words, lines = np.concatenate(rows).astype(np.int32), line_words(op, site)
    three = (kh, kw) == (3, 3) and not bool((filters[:8].reshape(4, 2, channels) == -128).all(1).any())
    table = [
        *layer_words(op, 0, kh * kw, channels, finish), *lines, channels, kw,
        words.size // len(starts_of(channels, VECTOR)), x.shape[0],
    ]  # fmt: skip
    name = f"depth_image_{'three' if three else 'any'}_{finish.suffix}"
    return kernel_of(op, site, words, name, table, kh * lines[7], f"{op.pad_value}, ")
