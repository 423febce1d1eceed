"""Matrix products and convolutions for cores with Helium (runtime/edgec_mve*.h)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from edgec.ir.types import DType
from edgec.kernels.cortex_m.rows import clamp_lines, requantization, roundings_of
from edgec.kernels.cortex_m.zones import Zones, biases_of
from edgec.kernels.event import Rows, cheapest, rows_of_window
from edgec.kernels.generic import is_one_product
from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.integer.conv import QConv1d, QConv2d
from edgec.ops.integer.requantize import Requantize, accumulator_bounds

VECTOR = 16  # bytes
SOME, ONE = 4, 8  # outputs of a block of two rows, of a block of one
GROUP_BYTES = 512  # of rows that are copied to scratch at a time
REACH = 65536  # of the places of eight results: 16 bits each


@dataclass(frozen=True)
class Finish:
    """What becomes of the sums: suffix of the kernels' names, right shifts (negative) and multipliers per output, and
    the left shift of all sums before."""

    suffix: str
    multiplier: Array
    shift: Array
    lift: int = 0


def finish_of(op: Requantize | None, multiplier: Array, shift: Array, low: Array, high: Array) -> Finish | None:
    """How sums within [low, high] per output are stored; None where 32 bits would not be exact."""
    none = np.zeros(0, np.int64)
    if op is None:
        return Finish("i32", none, none)
    least = 32 if op.rounding == "single" else 31
    same = [np.broadcast_to(v.astype(np.int64), low.shape) for v in (multiplier, shift)]
    right = np.where(same[0] == 0, np.maximum(same[1], least), same[1])
    lift = max(least - int(right.min()), 0)
    if op.dtype == "int16":
        reach = max(int(np.abs(low).max()), int(np.abs(high).max())) << lift
        fits = (op.rounding, op.zero_point) == ("single", 0) and (op.lo, op.hi) == DType.I16.range
        fits = fits and reach < 1 << 31 and int(right.max()) + lift <= 62
        return Finish("i16", same[0], 31 - right - lift, lift) if fits else None
    if lift:
        return None
    suffix = {"single": "i8", "up": "i8_up", "tflite": "i8_tflite"}[roundings_of(op)[0]]
    return Finish(suffix, same[0], 31 - right)


@dataclass(frozen=True)
class Stream:
    """Packed weights, in words; `last` is where the block of the last outputs lies that repeats some before."""

    words: Array
    vectors: int
    last: int


def pack(w: Array, bias: Array, finish: Finish, lanes: int, block: int) -> Stream:
    """w [inputs, outputs] as edgec_mve_rows.h reads it: `lanes` inputs of each of `block` outputs side by side."""
    inputs, outputs = w.shape
    vectors = -(-inputs // lanes)
    padded = np.zeros((vectors * lanes, outputs), np.int8)
    padded[:inputs] = w
    starts = [*range(0, outputs - block + 1, block), *([outputs - block] if outputs % block else [])]
    rows = []
    for start in starts:
        part = slice(start, start + block)
        weights = np.ascontiguousarray(padded[:, part].reshape(vectors, lanes, block).transpose(0, 2, 1))
        rows.append(weights.reshape(-1).view("<i4").astype(np.int64))
        rows.append(bias[part].astype(np.int64))
        rows += [v[part] for v in (finish.multiplier, finish.shift) if v.size]
    words = np.concatenate(rows).astype(np.int32)
    return Stream(words, vectors, words.size - words.size // len(starts))


def finish_for(op: Op, site: Site) -> Finish | None:
    """How the sums of a layer with constant operands are stored; None where these kernels do not fit."""
    last = requantization(op)
    if site.inputs[1].dtype is not DType.I8 or not set(range(1, 5 if last else 3)) <= set(site.consts):
        return None
    w, bias = site.consts[1], site.consts[2]
    scales = [site.consts[k] for k in (3, 4)] if last else [np.zeros(0)] * 2
    return finish_of(last, scales[0], scales[1], *accumulator_bounds(w, bias, site.inputs[0].dtype.range))


def kernel_of(
    op: Op, site: Site, stream: Stream, name: str, table: list[int], scratch: int, trailing: str = "",
    zones: Zones | None = None,
) -> Kernel:  # fmt: skip
    """One call over x, w, y, table, what zones need, and scratch bytes."""
    x, out = site.inputs[0], site.outputs[0]
    tables = {"table": np.array(table, np.int32), **(zones.tables() if zones else {})}
    operands = "".join(f"{k}.data, " for k in ("x", "w", "y", *tables))
    lines = [f'T.call_extern("void", "edgec_mve_{name}", {operands}{trailing}scratch.data)']
    lines += clamp_lines(requantization(op), out.size, "0", out.size)
    params = (
        ("x", (x.size,), x.dtype.value), ("w", stream.words.shape, "int32"),
        *((k, v.shape, v.dtype.name) for k, v in tables.items()),
        ("y", (out.size,), out.dtype.value), ("scratch", (scratch,), "int8"),
    )  # fmt: skip
    drops = (2, 3, 4) if requantization(op) else (2,)
    return Kernel("\n".join(lines), params, {"w": stream.words, **tables}, drops, scratch, inplace=(0,))


def layer_words(op: Op, stream: Stream, finish: Finish, x_step: int, y_step: int, outputs: int) -> list[int]:
    """The words of edgec_mve_layer."""
    last = requantization(op)
    return [x_step, y_step, stream.vectors, outputs, stream.last, last.zero_point if last else 0, finish.lift]


def linear(op: Op, site: Site) -> Kernel | None:
    """Rows times constant weights: QLinear, QConv1d of one output frame, convolutions of one pixel."""
    x, w = site.inputs[0], site.inputs[1]
    inputs, outputs = prod(w.shape[:-1]), w.shape[-1]
    if x.dtype not in (DType.I8, DType.I16) or not SOME <= outputs < REACH - SOME:
        return None
    if isinstance(op, QConv2d) and (w.shape[:2] != (1, 1) or op.stride != (1, 1) or any(op.pad) or op.groups != 1):
        return None
    if isinstance(op, QConv1d) and not is_one_product(op, site):
        return None
    finish, biases = finish_for(op, site), biases_of(op, site)
    if finish is None or biases is None:
        return None
    (bias, zones), wide, rows = biases, x.dtype is DType.I16, site.outputs[0].size // outputs
    one = rows == 1 and outputs >= ONE and not zones
    lanes, size = (VECTOR // 2, 2) if wide else (VECTOR, 1)
    stream = pack(site.consts[1].reshape(inputs, outputs), bias, finish, lanes, ONE if one else SOME)
    group = min(max(GROUP_BYTES // (inputs * size) // 2 * 2, 2), rows)
    table = [*layer_words(op, stream, finish, inputs * size, outputs, outputs), rows, inputs * size, group]
    name = f"{'one' if one else 'some'}_{'wide_' if wide else ''}{finish.suffix}_linear"
    name = f"{zones.name}_linear_{finish.suffix}" if zones else name
    return kernel_of(op, site, stream, name, table, group * inputs * size + VECTOR, zones=zones)


def spikes_cost(rows: Rows, outputs: int) -> float:
    """Instructions of `spikes`: the expansion, then blocks of outputs; a fit to what QEMU counts."""
    vectors, block = -(-rows.count // VECTOR), ONE if outputs >= ONE else SOME
    once = 120 + 0.5 * rows.count + 120 * (block == SOME) + 60 * (outputs % block > 0)
    return once + -(-outputs // block) * (18 + 18 * vectors)


def spikes(op: Op, site: Site) -> Kernel | None:
    """QLinear and QConv1d of one output frame on spikes, expanded to int8, where that is cheapest by their rate."""
    rows, outputs = rows_of_window(op, site), site.inputs[1].shape[-1]
    if rows is None or not SOME <= outputs < REACH - SOME:
        return None
    finish = finish_for(op, site)
    if finish is None or cheapest(op, rows, outputs, spikes_cost(rows, outputs)) != "dense":
        return None
    x, products = site.inputs[0], site.outputs[0].size // outputs
    name, block = ("one", ONE) if outputs >= ONE else ("some", SOME)
    stream = pack(site.consts[1].reshape(-1, outputs), site.consts[2], finish, VECTOR, block)
    table = np.array([*layer_words(op, stream, finish, rows.count, outputs, outputs), 1, rows.count, 1], np.int32)
    units, wide = int(np.prod(x.storage_shape)), -(-rows.count // VECTOR) * VECTOR + VECTOR
    where = f"T.address_of(x[r * {units // products}]), {rows.groups}, {rows.stride}, {rows.width}, scratch.data"
    operands = f"scratch.data, w.data, T.address_of(y[r * {outputs}]), table.data, T.address_of(scratch[{wide}])"
    body = f"""for r in T.serial({products}):
    T.call_extern("void", "edgec_spike_bytes", {where})
    T.call_extern("void", "edgec_mve_{name}_i32_linear", {operands})"""
    params = (
        ("x", (units,), "uint32"), ("w", stream.words.shape, "int32"), ("table", table.shape, "int32"),
        ("y", (products * outputs,), "int32"), ("scratch", (2 * wide,), "int8"),
    )  # fmt: skip
    return Kernel(body, params, {"w": stream.words, "table": table}, (2,), 2 * wide)


@dataclass(frozen=True)
class Axis:
    """One axis of an image: inputs and outputs, their steps in pixels, kernel, stride, padding before."""

    inputs: int
    step: int
    outputs: int
    out_step: int
    size: int
    stride: int
    before: int


def axes_of(op: QConv2d, site: Site) -> tuple[Axis, Axis]:
    """Down the image and to the right."""
    (_, h, v, _), (kh, kw) = site.inputs[0].shape, site.inputs[1].shape[:2]
    _, oh, ow, _ = site.outputs[0].shape
    return Axis(h, v, oh, ow, kh, op.stride[0], op.pad[0]), Axis(v, 1, ow, 1, kw, op.stride[1], op.pad[2])


def convolution(op: Op, site: Site) -> Kernel | None:
    """Any convolution of one image without groups and dilation; a line of odd length computes a pixel in vain."""
    assert isinstance(op, QConv2d)
    x, (kh, kw, c, outputs) = site.inputs[0], site.inputs[1].shape
    if x.dtype is not DType.I8 or op.groups != 1 or op.dilation != (1, 1) or x.shape[0] != 1 or outputs < SOME:
        return None
    finish, (across, along) = finish_for(op, site), axes_of(op, site)
    biases = biases_of(op, site)
    if finish is None or biases is None or op.pad[0] >= kh or op.pad[2] >= kw or outputs >= REACH - SOME:
        return None
    bias, zones = biases
    weights = site.consts[1].transpose(1, 0, 2, 3)
    in_vain = along.outputs % 2 * across.outputs, across.outputs % 2 * along.outputs
    if in_vain[0] > in_vain[1] and across.out_step * outputs < REACH - SOME:
        across, along, weights = along, across, site.consts[1]
        zones = zones.turned() if zones else None
    stream = pack(weights.reshape(-1, outputs), bias, finish, VECTOR, SOME)
    columns, lines = ((a.outputs - 1) * a.stride + a.size for a in (along, across))
    size = (lines + (columns - 1) * across.size) * c
    table = [
        *layer_words(op, stream, finish, along.stride * across.size * c, along.out_step * outputs, outputs),
        across.inputs, across.step * c, along.inputs, along.step * c, c, across.size, across.stride, across.before,
        along.before, columns, across.outputs, along.outputs, across.out_step * outputs, size,
    ]  # fmt: skip
    scratch = -(-c // VECTOR) * VECTOR + size + VECTOR
    name = f"{zones.name + '_' if zones else ''}image_{finish.suffix}"
    return kernel_of(op, site, stream, name, table, scratch, f"{op.pad_value}, ", zones)
