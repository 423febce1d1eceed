"""Many rows of int8 (tokens, pixels) times the same weights, for Cortex-M (runtime/cortex_m/edgec_products.h)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from typing import Any

import numpy as np

from edgec.ir.types import DType
from edgec.kernels.cortex_m.zones import Zones, biases_of
from edgec.kernels.lanes import signs_of
from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.integer.conv import QConv2d
from edgec.ops.integer.product import QMatMul
from edgec.ops.integer.requantize import Requantize, accumulator_bounds

ROWS = 3  # of a block
SUM_LIMIT = 1 << 23  # half of the sums are computed times 256
ADDEND_LIMIT = 1 << 30  # the sum with a high word, below 2**30, stays in int32


@dataclass(frozen=True)
class Finish:
    """What becomes of the sums: the suffix of the kernels' names, and (multiplier, addend, shift) per output where
    they are requantised; outputs at an odd place of a pair come second."""

    suffix: str
    size: int  # bytes of an output
    first: Array
    second: Array
    turns: bool  # whether a sum and its multiplier give the same with both signs changed


#: rounding and output type -> suffix, by how many bits the sums of the first and second output are higher
FINISHES = {
    ("single", "int8"): (("i8", 8, 0), ("i8_lift", 8, 8)),
    ("single", "int16"): (("i16_lift", 8, 8),),
    ("up", "int8"): (("i8_lift", 8, 8),),
    ("tflite", "int8"): (("i8_tflite", 1, 1),),
}
SUMS = Finish("i32", 4, np.zeros((0, 0), np.int32), np.zeros((0, 0), np.int32), turns=False)


def roundings_of(op: Requantize) -> tuple[str, ...]:
    """The ways to compute an op's rounding, the cheapest first. TFLite's two roundings differ from halves `up` below
    the zero point only, which a relu hides, and those are one rounding that begins half a step of the first lower."""
    hidden = op.rounding == "tflite" and op.lo >= op.zero_point
    return ("up", "tflite") if hidden else (op.rounding,)


def table_of(
    op: Requantize, rounding: str, same: list[Array], lift: Array, level: Array, constant: Array
) -> Array | None:
    """Rows multiplier, addend, shift for sums that are `lift` bits higher than their values, so that
    (high word of sum * multiplier + addend) >> shift is the value with its zero point; of `tflite` it is twice that.

    An output that is `constant` at `level` whatever its sum needs no product. None where a shift or an addend is out
    of range. With `up` the high words are values of the first rounding times 2**(lift - 1): lift is 2 or more.
    """
    once = rounding != "tflite"
    multiplier = np.where(constant, 0, same[0])
    shift = np.where(constant, int(once), same[1] + lift - 32 - (not once))
    if shift.min() < int(once) or shift.max() > 31:
        return None
    zero = np.where(constant, level, op.zero_point)
    addend = (zero << shift) + (1 << (shift - 1)) if once else (1 + 2 * zero) << shift
    if rounding == "up":  # where TFLite shifts right, the first of its roundings adds half a step of its own
        addend = addend + np.where(constant | (same[1] <= 31), 0, 1 << np.maximum(lift - 2, 0))
    if np.abs(addend).max() > ADDEND_LIMIT:
        return None
    return np.stack([multiplier, addend, shift], 1).astype(np.int32)


def finish_of(op: Requantize, multiplier: Array, shift: Array, low: Array, high: Array) -> Finish | None:
    """The table for accumulators within [low, high] per output; None where 32 bits would not be exact."""
    same = [np.broadcast_to(v.astype(np.int64), low.shape) for v in (multiplier, shift)]
    level = op.levels(low, *same)
    constant = level == op.levels(high, *same)
    size = 1 if op.dtype == "int8" else 2
    for rounding in roundings_of(op):
        for suffix, lift_a, lift_b in FINISHES.get((rounding, op.dtype), ()):
            lifts = (np.full(level.shape, k) for k in (lift_a, lift_b))
            first, second = (table_of(op, rounding, same, lift, level, constant) for lift in lifts)
            if first is not None and second is not None:
                return Finish(suffix, size, first, second, rounding != "tflite")
    return None


@dataclass(frozen=True)
class Run:
    """`pairs` neighbouring pairs of outputs from `first` on, whose weights begin at `word`."""

    word: int
    first: int
    pairs: int
    apart: bool  # both weights have a lane of their own


@dataclass(frozen=True)
class Stream:
    """Packed weights, one run of them per call; deltas of zones pair by pair."""

    words: Array
    quads: int
    runs: tuple[Run, ...]
    zones: Zones | None

    @property
    def tables(self) -> dict[str, Array]:
        return self.zones.tables() if self.zones else {}


def pairs_of(outputs: int) -> tuple[Array, Array]:
    """First and second output of each pair; an odd output pairs with the one before it, which is computed twice."""
    starts = np.array([*range(0, outputs - 1, 2), *([outputs - 2] if outputs % 2 else [])])
    return starts, starts + 1


def lanes_of(v: Array) -> Array:
    """Lanes v [inputs, pairs] of 16 bits as the words of inputs (0, 2) and (1, 3): [pair, quad, 2]."""
    halves = v.T.reshape(v.shape[1], -1, 2, 2).transpose(0, 1, 3, 2)  # [pair, quad, word, lane]
    return np.ascontiguousarray(halves).astype("<i2").view("<i4")[..., 0].astype(np.int32)


def pack_stream(w: Array, bias: Array, finish: Finish, zones: Zones | None = None) -> Stream:
    """w [inputs, outputs], inputs a multiple of 4, in the order of edgec_products.h."""
    a, b = pairs_of(w.shape[1])
    first, second = w.astype(np.int64)[:, a], w.astype(np.int64)[:, b]
    signs = signs_of(first, second)
    alone, four = (signs == 0) | ((signs < 0) & (not finish.turns)), np.arange(len(a)) // 2
    signs = np.where(np.isin(four, four[alone]), 0, signs)  # both pairs of four outputs: a run of int8 begins at a word
    together = lanes_of(np.where(signs == 0, 0, 256 * signs * first + second)).reshape(len(a), -1)
    apart = np.stack([lanes_of(first), lanes_of(second)], -1).reshape(len(a), -1)
    rows = [
        row_of(together[p] if sign else apart[p], bias, finish, int(a[p]), int(sign)) for p, sign in enumerate(signs)
    ]
    starts, runs = np.cumsum([0, *(row.size for row in rows)]), []
    for (sign, _), group in groupby(range(len(a)), lambda p: (abs(int(signs[p])), a[p] - 2 * p)):
        members = list(group)
        runs.append(Run(int(starts[members[0]]), int(a[members[0]]), len(members), apart=sign == 0))
    if zones:
        both = np.stack([np.where(signs == 0, 1, signs), np.ones_like(signs)], 1)
        zones = zones.ordered(np.stack([a, b], 1).reshape(-1), both.reshape(-1))
    return Stream(np.concatenate(rows), w.shape[0] // 4, tuple(runs), zones)


def row_of(body: Array, bias: Array, finish: Finish, first: int, sign: int = 1) -> Array:
    """Biases, weights and table of two outputs; `sign` is the first one's, 0 where both have lanes of their own."""
    a, b = int(bias[first]), int(bias[first + 1])
    head = np.array([256 * sign * a + b if sign else a, b]) & 0xFFFFFFFF
    tail = []
    if finish.first.size:
        above = finish.first[first] * np.array([sign, 1, 1], np.int32) if sign else finish.second[first]
        tail = [above, finish.second[first + 1]]
    return np.concatenate([head.astype(np.uint32).view(np.int32), body, *tail])


def fits(w: Array, bias: Array, low: Array, high: Array) -> bool:
    """Whether the sums are exact: accumulators of 24 bits."""
    reach = max(int(np.abs(low).max()), int(np.abs(high).max()))
    return w.shape[1] > 1 and reach < SUM_LIMIT and int(np.abs(bias).max()) < SUM_LIMIT


def products(
    stream: Stream,
    outputs: int,
    finish: Finish,
    row: str,
    x: str = "scratch.data",
    to: Callable[[int], str] | None = None,
) -> list[str]:
    """Three expanded rows x times all outputs, to y from `row` on, or to where `to` says that an output lies."""

    def call(run: Run) -> str:
        kind = f"{stream.zones.name}_{finish.suffix}" if stream.zones else finish.suffix
        name = f"edgec_rows3_{kind}" + ("_apart" if run.apart else "")
        at = f"{row} * {outputs}" + (f" + {run.first}" if run.first else "")
        y = to(run.first) if to else f"T.address_of(y[{at}])"
        where = f"T.address_of(w[{run.word}]), {x}, {stream.quads}, {run.pairs}, {y}"
        column = run.first + run.first % 2  # of the deltas: where the outputs are odd the last pair has an odd place
        place = f", deltas.data, zones.data, {column}, {row}" if stream.zones else ""
        return f'T.call_extern("void", "{name}", {where}, {outputs * finish.size}{place})'

    return [call(run) for run in stream.runs]


def clamp_lines(op: Requantize | None, count: int, row: str, outputs: int) -> list[str]:
    """Levels within a narrower range than the type's."""
    if op is None or (op.lo, op.hi) == DType(op.dtype).range:
        return []
    where = f"T.address_of(y[{row} * {outputs}]), {count}, {op.lo}, {op.hi}"
    return [f'T.call_extern("void", "edgec_rows_clamp", {where})']


def block_lines(rows: int, lines: list[str]) -> str:
    """`lines` for each block of three rows; the last block ends with the last row."""
    first = f"T.min(b * {ROWS}, {rows - ROWS})" if rows % ROWS else f"b * {ROWS}"
    head = [f"for b in T.serial({-(-rows // ROWS)}):", f"    r: T.let[T.int32] = {first}"]
    return "\n".join([*head, *(f"    {line}" for line in lines)])


def requantization(op: Op) -> Requantize | None:
    """The op's second half, None where its output are sums."""
    return getattr(op, "requantization", None)


def finish_for(op: Op, site: Site) -> Finish | None:
    """How the sums of a layer with constant operands are stored; None where these kernels do not fit."""
    last = requantization(op)
    if site.inputs[0].dtype not in (DType.I4, DType.I8) or not set(range(1, 5 if last else 3)) <= set(site.consts):
        return None
    w, bias = site.consts[1], site.consts[2]
    low, high = accumulator_bounds(w, bias, (-128, 127))
    if not fits(w.reshape(-1, w.shape[-1]), bias, low, high):
        return None
    if last is None:
        return SUMS
    if last.dtype == "int16" and (last.lo, last.hi) != DType.I16.range:
        return None
    return finish_of(last, site.consts[3], site.consts[4], low, high)


def kernel_of(
    op: Op, site: Site, weights: Array, finish: Finish, body: str, words: int, extra: dict[str, Array]
) -> Kernel:
    """The kernel over x, w, further tables, y and scratch of `words`."""
    out = site.outputs[0]
    tables: list[Any] = [(name, a.shape, a.dtype.name) for name, a in extra.items()]
    params = (
        ("x", (site.inputs[0].size,), "int8"), ("w", weights.shape, "int32"), *tables,
        ("y", (out.size,), out.dtype.value), ("scratch", (words,), "int32"),
    )  # fmt: skip
    drops = (2, 3, 4) if finish.first.size else (2,)
    return Kernel(body, params, {"w": weights, **extra}, drops=drops, scratch=4 * words)


def is_row_product(op: Op, site: Site) -> bool:
    """Whether a layer multiplies the rows (or pixels) of its input, one by one, with all of its weights."""
    if not isinstance(op, QConv2d):
        return True
    return site.inputs[1].shape[:2] == (1, 1) and op.stride == (1, 1) and not any(op.pad) and op.groups == 1


def linear(op: Op, site: Site) -> Kernel | None:
    """QLinear, and convolutions of one pixel, over three rows and more."""
    w = site.inputs[1]
    inputs, outputs = prod(w.shape[:-1]), w.shape[-1]
    rows = site.outputs[0].size // outputs
    if not is_row_product(op, site):
        return None
    finish, biases = finish_for(op, site) if rows >= ROWS else None, biases_of(op, site)
    if finish is None or biases is None:
        return None
    padded = np.zeros((-(-inputs // 4) * 4, outputs), np.int8)
    padded[:inputs] = site.consts[1].reshape(inputs, outputs)
    stream = pack_stream(padded, biases[0], finish, biases[1])
    words = 6 * stream.quads
    lines = [expand("r", inputs, "scratch.data"), *products(stream, outputs, finish, "r")]
    lines += clamp_lines(requantization(op), ROWS * outputs, "r", outputs)
    if rows % ROWS == 0 or inputs != outputs or finish.size != 1:
        body, same = block_lines(rows, lines), rows % ROWS == 0
    else:  # the output may lie where the input does: the last block, which begins in the one before, is read first
        last, spare = str(rows - ROWS), f"T.address_of(scratch[{words}])"
        ends = [
            *products(stream, outputs, finish, last, spare),
            *clamp_lines(requantization(op), ROWS * outputs, last, outputs),
        ]
        body = "\n".join([expand(last, inputs, spare), block_lines(rows - rows % ROWS, lines), *ends])
        words, same = 2 * words, True
    kernel = kernel_of(op, site, stream.words, finish, body, words, stream.tables)
    return replace(kernel, inplace=(0,)) if same else kernel


def expand(row: str, inputs: int, to: str) -> str:
    """Three rows of x from `row` on, expanded."""
    x = ", ".join(f"T.address_of(x[({row} + {k}) * {inputs}])" for k in range(ROWS))
    return f'T.call_extern("void", "edgec_rows_expand", {x}, {inputs}, {to})'


def convolution(op: Op, site: Site) -> Kernel | None:
    """Any convolution of images without groups, over three pixels and more."""
    assert isinstance(op, QConv2d)
    (n, h, v, c), outputs = site.inputs[0].shape, site.inputs[1].shape[3]
    _, oh, ow, _ = site.outputs[0].shape
    finish = finish_for(op, site) if op.groups == 1 and oh * ow >= ROWS else None
    biases = biases_of(op, site)
    if finish is None or biases is None:
        return None
    if c % 4 and op.dilation != (1, 1):
        return None
    stream = pack_stream(window_weights(site.consts[1]), biases[0], finish, biases[1])
    images = images_of(op, site, 6 * stream.quads)
    if (n, h, v, c, op.stride, finish.size) == (1, oh, ow, outputs, (1, 1), 1) and c % 4 == 0:
        return windows_in_place(op, site, stream, finish, images.tables)
    row = f"(n * {oh * ow} + r)"
    lines = [gather(images.image, "r", "scratch.data"), *products(stream, outputs, finish, row)]
    lines += clamp_lines(requantization(op), ROWS * outputs, row, outputs)
    body = [*images.before, *block_lines(oh * ow, lines).splitlines()]
    text = "\n".join([f"for n in T.serial({n}):", *(f"    {line}" for line in body)])
    return kernel_of(op, site, stream.words, finish, text, images.words, images.tables | stream.tables)


def window_weights(w: Array) -> Array:
    """w [KH,KW,C,O] as [inputs, outputs] with zeros that complete the words of each line of a window."""
    kh, kw, c, outputs = w.shape
    padded = np.zeros((kh, -(-kw * c // 4) * 4, outputs), np.int8)
    padded[:, : kw * c] = w.reshape(kh, kw * c, outputs)
    return padded.reshape(-1, outputs)


@dataclass(frozen=True)
class Images:
    """Where windows are gathered from: image n, statements before its first, tables, and all words of scratch."""

    image: str
    before: list[str]
    tables: dict[str, Array]
    words: int


def images_of(op: QConv2d, site: Site, words: int) -> Images:
    """Images whose pixels are not whole words are copied with padding around them, behind `words` of scratch."""
    (_, h, v, c), (kh, kw, _, _) = site.inputs[0].shape, site.inputs[1].shape
    image, before, top, left = f"T.address_of(x[n * {h * v * c}])", [], op.pad[0], op.pad[2]
    tables = {"edge": np.full(kw * c, op.pad_value, np.int8)}
    if c % 4:
        high, wide = h + sum(op.pad[:2]), v + sum(op.pad[2:])
        tables["frame"] = np.array([h, v * c, top, left * c, wide * c, high * wide * c + 3], np.int32)
        copy = f"T.address_of(scratch[{words}])"
        before = [f'T.call_extern("void", "edgec_rows_pad", {image}, frame.data, {op.pad_value}, {copy})']
        image, h, v, top, left = copy, high, wide, 0, 0
        words += -(-(high * wide * c + 3) // 4)
    ow = site.outputs[0].shape[2]
    tables["window"] = np.array([h, v, c, kh, kw, *op.stride, *op.dilation, top, left, ow], np.int32)
    return Images(image, before, tables, words)


def gather(image: str, row: str, to: str) -> str:
    """The windows of three pixels from `row` on, expanded."""
    return f'T.call_extern("void", "edgec_rows_gather", {image}, edge.data, window.data, {row}, {to})'


def windows_in_place(op: QConv2d, site: Site, stream: Stream, finish: Finish, extra: dict[str, Array]) -> Kernel:
    """A convolution whose output may lie where its input does: blocks of it wait in scratch until the windows that
    are still to come have left their place, and the last block, which begins in the one before, is read first."""
    _, h, v, c = site.inputs[0].shape
    pixels, clamp = h * v, requantization(op)
    full, block = pixels // ROWS, ROWS * c // 4
    slots = min(max(-(-(op.pad[0] * v + op.pad[2]) // ROWS), 1), full)
    spare, first = 6 * stream.quads, 12 * stream.quads

    def waiting(b: str, output: int = 0) -> str:
        return f"T.address_of(scratch[{first + output // 4} + {b} % {slots} * {block}])"

    last, ahead = str(pixels - ROWS), f"T.address_of(scratch[{spare}])"

    def settle(b: str) -> list[str]:
        to = f"T.address_of(y[{b} * {ROWS * c}]), {ROWS * c}"
        line = f'T.call_extern("void", "edgec_rows_settle", {waiting(b)}, {to})'
        return [line, *clamp_lines(clamp, ROWS * c, f"{b} * {ROWS}", c)]

    lines = [gather("x.data", last, ahead)] if pixels % ROWS else []
    lines += [f"for b in T.serial({full}):", f"    {gather('x.data', f'b * {ROWS}', 'scratch.data')}"]
    lines += [f"    if b >= {slots}:", *(f"        {line}" for line in settle(f"(b - {slots})"))]
    made = products(stream, c, finish, f"b * {ROWS}", to=lambda output: waiting("b", output))
    lines += [f"    {line}" for line in made]
    lines += [f"for b in T.serial({slots}):", *(f"    {line}" for line in settle(f"(b + {full - slots})"))]
    if pixels % ROWS:
        lines += [*products(stream, c, finish, last, ahead), *clamp_lines(clamp, ROWS * c, last, c)]
    kernel = kernel_of(op, site, stream.words, finish, "\n".join(lines), first + slots * block, extra | stream.tables)
    return replace(kernel, inplace=(0,))


def product(op: Op, site: Site) -> Kernel | None:
    """A product of two computed tensors over three rows and more: the right one is packed into scratch."""
    assert isinstance(op, QMatMul)
    a, b = site.inputs
    (rows, terms), columns, batch = a.shape[-2:], site.outputs[0].shape[-1], prod(a.shape[:-2])
    wide = a.dtype is DType.I16
    if rows < ROWS or terms % 4 or columns % (2 if op.transpose_b else 4) or (wide and op.za):
        return None
    at = terms * columns // 2
    pack = "right_turned" if op.transpose_b else "right"
    right = f"T.address_of(b[n * {terms * columns}]), {terms}, {columns}, {op.zb}, scratch.data"
    left = f"T.address_of(a[(n * {rows} + r) * {terms}]), {terms}" + ("" if wide else f", {op.za}")
    y = f"T.address_of(y[(n * {rows} + r) * {columns}]), {4 * columns}"
    expanded = f"T.address_of(scratch[{at}])"
    lines = [
        f'T.call_extern("void", "edgec_rows_left_{"i16" if wide else "i8"}", {left}, {expanded})',
        f'T.call_extern("void", "edgec_rows3_product", scratch.data, {expanded}, {terms // 4}, {columns // 2}, {y})',
    ]
    body = [f'T.call_extern("void", "edgec_rows_{pack}", {right})', *block_lines(rows, lines).splitlines()]
    text = "\n".join([f"for n in T.serial({batch}):", *(f"    {line}" for line in body)])
    words = at + ROWS * terms // 2
    params = (
        ("a", (a.size,), a.dtype.value), ("b", (b.size,), "int8"), ("y", (site.outputs[0].size,), "int32"),
        ("scratch", (words,), "int32"),
    )  # fmt: skip
    return Kernel(text, params, scratch=4 * words)
