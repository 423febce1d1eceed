"""Kernels for Cortex-M with DSP instructions (M4, M7, M33): runtime/cortex_m/edgec_dense.h holds their inner loops."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm, prod

import numpy as np

from edgec.ir.types import DType
from edgec.kernels.event import cheapest, pad_bias, rows_of_window
from edgec.kernels.generic import is_one_product
from edgec.kernels.lanes import signs_of, terms_of
from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.integer.linear import QLinearRequantize
from edgec.ops.integer.requantize import Requantize, accumulator_bounds
from edgec.ops.integer.spiking import QLif

OUTPUTS, INPUTS = 4, 8  # a block computes four outputs; inputs are padded to a multiple of eight
RESETS = ("none", "hard", "subtract")  # as the loops of edgec_dense.h number them
SUM_LIMIT = 1 << 23  # see edgec_dense.h: half of the outputs are computed times 256


@dataclass(frozen=True)
class Chunk:
    """Inputs [start, stop) whose weighted sums cannot leave 24 bits; their weights begin at `word`."""

    start: int
    stop: int
    word: int = 0


def chunks_of(w: Array) -> list[Chunk]:
    """The inputs of w [inputs, outputs] cut so that no sum of products with int8 reaches SUM_LIMIT."""
    chunks, start = [], 0
    reach = np.cumsum(np.abs(w.astype(np.int64)) * 128, axis=0)
    before = np.zeros_like(reach[0])
    while start < w.shape[0]:
        fits = int(np.searchsorted((reach - before).max(axis=1), SUM_LIMIT))
        stop = w.shape[0] if fits >= w.shape[0] else fits // INPUTS * INPUTS
        chunks.append(Chunk(start, stop))
        before, start = reach[stop - 1], stop
    return chunks


def pack_dense(w: Array) -> Array:
    """w [inputs, outputs] as the words of edgec_dense.h, [block][four inputs][ab02, cd02, ab13, cd13]."""
    inputs, outputs = -(-w.shape[0] // INPUTS) * INPUTS, -(-w.shape[1] // OUTPUTS) * OUTPUTS
    padded = np.zeros((inputs, outputs), np.int64)
    padded[: w.shape[0], : w.shape[1]] = w
    lanes = padded[:, 0::2] * 256 + padded[:, 1::2]  # [inputs, pairs of outputs]
    quads = lanes.reshape(inputs // 4, 2, 2, outputs // OUTPUTS, 2)  # [quad, lane, word, block, pair]
    ordered = quads.transpose(3, 0, 2, 4, 1)  # [block, quad, word, pair, lane]
    return ordered.astype("<i2").reshape(-1).view("<i4").astype(np.int32)


def pack_chunks(w: Array) -> tuple[list[Chunk], Array]:
    """The chunks of w [inputs, outputs] and the words of all; what does not fit a lane comes in further chunks."""
    chunks: list[Chunk] = []
    words = np.zeros(0, np.int32)
    for k, term in enumerate(terms_of(w)):
        used = np.flatnonzero(term.any(1)) if k else np.arange(len(term))
        first = int(used[0]) // INPUTS * INPUTS
        for c in chunks_of(term[first : used[-1] + 1]):
            chunks.append(Chunk(first + c.start, first + c.stop, words.size))
            words = np.concatenate([words, pack_dense(term[chunks[-1].start : chunks[-1].stop])])
    return chunks, words


def dense(op: Op, site: Site) -> Kernel | None:
    """QLinear and QConv1d of one output frame on int8: SMLAD, two outputs to a packed word."""
    x, w, _ = site.inputs
    if x.dtype is not DType.I8 or not is_one_product(op, site):
        return None
    outputs, inputs = w.shape[-1], prod(w.shape[:-1])
    values = site.consts[1].reshape(inputs, outputs)
    rows = prod(site.outputs[0].shape) // outputs
    chunks, packed = pack_chunks(values)
    bias = pad_bias(site.consts[2], -(-outputs // OUTPUTS) * OUTPUTS)
    expanded = -(-inputs // INPUTS) * INPUTS
    expand = f'T.call_extern("void", "edgec_expand_s8", T.address_of(x[r * {inputs}]), {inputs}, wide.data)'
    lines = [f"for r in T.serial({rows}):", f"    {expand}"]
    for k, c in enumerate(chunks):
        lines += _chunk_lines(c, outputs, k == 0)
    params = (
        ("x", (rows * inputs,), "int8"), ("w", packed.shape, "int32"), ("bias", bias.shape, "int32"),
        ("y", (rows * outputs,), "int32"), ("wide", (expanded // 2,), "int32"),
    )  # fmt: skip
    return Kernel("\n".join(lines), params, {"w": packed, "bias": bias}, scratch=2 * expanded)


def dense_spikes(op: Op, site: Site) -> Kernel | None:
    """QLinear and QConv1d of one output frame on spikes, where that is cheapest by their rate (few outputs)."""
    rows = rows_of_window(op, site)
    if rows is None or not {1, 2} <= set(site.consts):
        return None
    outputs = site.inputs[1].shape[-1]
    if cheapest(op, rows, outputs) != "dense":
        return None
    each = -(-rows.width // 4) * 4
    padded = np.zeros((rows.groups, each, outputs), np.int8)
    padded[:, : rows.width] = site.consts[1].reshape(rows.groups, rows.width, outputs)
    values = padded.reshape(-1, outputs)
    products, (chunks, packed) = site.outputs[0].size // outputs, pack_chunks(values)
    bias = pad_bias(site.consts[2], -(-outputs // OUTPUTS) * OUTPUTS)
    words, units = -(-len(values) // INPUTS) * INPUTS // 2, int(np.prod(site.inputs[0].storage_shape))
    where = f"T.address_of(x[r * {units // products}]), {rows.groups}, {rows.stride}, {rows.width}, {words}, wide.data"
    lines = [f"for r in T.serial({products}):", f'    T.call_extern("void", "edgec_spike_lanes", {where})']
    for k, c in enumerate(chunks):
        lines += _chunk_lines(c, outputs, k == 0)
    params = (
        ("x", (units,), "uint32"), ("w", packed.shape, "int32"), ("bias", bias.shape, "int32"),
        ("y", (products * outputs,), "int32"), ("wide", (words,), "int32"),
    )  # fmt: skip
    return Kernel("\n".join(lines), params, {"w": packed, "bias": bias}, scratch=4 * words)


def _chunk_lines(chunk: Chunk, outputs: int, first: bool) -> list[str]:
    """Add the products of one chunk of the inputs to the bias or, of later chunks, to the output itself."""
    inputs = -(-(chunk.stop - chunk.start) // INPUTS) * INPUTS
    words = inputs * OUTPUTS // 4
    full, rest = divmod(outputs, OUTPUTS)

    def call(block: str, count: int) -> str:
        y = f"T.address_of(y[r * {outputs} + {block} * {OUTPUTS}])"
        to = f"T.address_of(bias[{block} * {OUTPUTS}]), {y}" if first else f"{y}, {y}"
        name, tail = "rows4", f"{inputs}, {to}"
        if count < OUTPUTS:
            name, tail = ("block4", f"{inputs}, {count}, {to}") if first else ("add4", f"{inputs}, {count}, {y}")
        return (
            f'T.call_extern("void", "edgec_dense_{name}", T.address_of(w[{chunk.word} + {block} * {words}]), '
            f"T.address_of(wide[{chunk.start // 2}]), {tail})"
        )

    lines = [f"    for b in T.parallel({full}):", f"        {call('b', OUTPUTS)}"] if full else []
    return lines + ([f"    {call(str(full), rest)}"] if rest else [])


def dense_calls(chunks: list[Chunk], outputs: int, accumulators: int) -> list[str]:
    """All outputs (a multiple of 4) of one row, from the widened inputs at scratch[0] to accumulators in scratch."""
    lines = []
    for k, chunk in enumerate(chunks):
        inputs = -(-(chunk.stop - chunk.start) // INPUTS) * INPUTS
        words = inputs * OUTPUTS // 4
        y = f"T.address_of(scratch[{accumulators} + b * {OUTPUTS}])"
        bias = f"T.address_of(bias[b * {OUTPUTS}])" if k == 0 else y
        lines += [
            f"for b in T.serial({outputs // OUTPUTS}):",
            f'    T.call_extern("void", "edgec_dense_rows4", T.address_of(w[{chunk.word} + b * {words}]), '
            f"T.address_of(scratch[{chunk.start // 2}]), {inputs}, {bias}, {y})",
        ]
    return lines


def turned(w: Array, bias: Array, multiplier: Array, shift: Array) -> tuple[Array, Array, Array, Array]:
    """The same layer (int64) with the signs of those outputs changed, multipliers too, that fit lanes only so."""
    outputs = w.shape[1]
    pairs, signs = outputs // 2, np.ones(outputs, np.int64)
    found = signs_of(w[:, : 2 * pairs : 2], w[:, 1::2])
    signs[: 2 * pairs : 2] = np.where(found < 0, -1, 1)
    if found.min(initial=1) >= 0 or accumulator_bounds(w, bias, (-128, 127))[0].min() <= -(1 << 31):
        return w, bias, multiplier, shift
    return w * signs, bias * signs, multiplier * signs, np.broadcast_to(shift, (outputs,))


def dense_requantize(op: Op, site: Site) -> Kernel | None:
    """QLinearRequantize row by row, for few rows and for sums beyond 24 bits."""
    assert isinstance(op, QLinearRequantize)
    if not {1, 2, 3, 4} <= set(site.consts):
        return None
    last, (inputs, outputs), rows = op.requantization, site.consts[1].shape, prod(site.inputs[0].shape[:-1])
    w, sums, multiplier, shift = turned(*(site.consts[k].astype(np.int64) for k in (1, 2, 3, 4)))
    found = requantize_table(last, multiplier, shift)
    if found is None:
        return None
    suffix, table = found
    (chunks, packed), padded = pack_chunks(w), -(-outputs // OUTPUTS) * OUTPUTS
    accumulators = -(-inputs // INPUTS) * INPUTS // 2
    name, mode = requantize_call(last, suffix, outputs, len(table))
    lines = [
        f'T.call_extern("void", "edgec_expand_s8", T.address_of(x[r * {inputs}]), {inputs}, scratch.data)',
        *dense_calls(chunks, padded, accumulators),
        f'T.call_extern("void", "{name}", T.address_of(scratch[{accumulators}]), table.data, '
        f"T.address_of(y[r * {outputs}]), {mode})",
    ]
    body = "\n".join([f"for r in T.serial({rows}):", *(f"    {line}" for line in lines)])
    params = (
        ("x", (rows * inputs,), "int8"), ("w", packed.shape, "int32"), ("bias", (padded,), "int32"),
        ("table", table.shape, "int32"), ("y", (rows * outputs,), op.dtype),
        ("scratch", (accumulators + padded,), "int32"),
    )  # fmt: skip
    consts = {"w": packed, "bias": pad_bias(sums, padded), "table": table}
    return Kernel(body, params, consts, drops=(3, 4), scratch=4 * (accumulators + padded))


def pack_wide(w: Array) -> Array:
    """The same for inputs in their own order, as edgec_dense_wide4 reads int16: [ab01, cd01, ab23, cd23]."""
    order = np.arange(-(-w.shape[0] // INPUTS) * INPUTS).reshape(-1, 4)[:, [0, 2, 1, 3]].reshape(-1)
    padded = np.zeros((order.size, w.shape[1]), w.dtype)
    padded[: w.shape[0]] = w
    return pack_dense(padded[order])


def dense_wide(op: Op, site: Site) -> Kernel | None:
    """QLinear and QConv1d of one output frame on int16."""
    x, w, _ = site.inputs
    if x.dtype is not DType.I16 or not is_one_product(op, site):
        return None
    outputs, inputs = w.shape[-1], prod(w.shape[:-1])
    values = site.consts[1].reshape(inputs, outputs)
    if inputs % INPUTS or outputs % OUTPUTS:
        return None
    terms = [pack_wide(term) for term in terms_of(values)]
    rows, packed = prod(site.outputs[0].shape) // outputs, np.concatenate(terms)
    y, words = f"T.address_of(y[r * {outputs} + b * {OUTPUTS}])", inputs * OUTPUTS // 4
    body = f"for r in T.serial({rows}):"
    for k, term in enumerate(terms):
        bias = y if k else f"T.address_of(bias[b * {OUTPUTS}])"
        body += f"""
    for b in T.parallel({outputs // OUTPUTS}):
        T.call_extern("void", "edgec_dense_wide4", T.address_of(w[{k * term.size} + b * {words}]),
            T.address_of(x[r * {inputs}]), {inputs}, {bias}, {y})"""
    params = (
        ("x", (rows * inputs,), "int16"), ("w", packed.shape, "int32"), ("bias", (outputs,), "int32"),
        ("y", (rows * outputs,), "int32"),
    )  # fmt: skip
    return Kernel(body, params, {"w": packed})


def lif(op: Op, site: Site) -> Kernel | None:
    """One pass over table rows of gain, bias and threshold; spikes are shifted into their word."""
    assert isinstance(op, QLif)
    x = site.inputs[0]
    channels = x.shape[-1]
    if op.delayed_reset or op.membrane or x.size != channels or not {1, 2, 3} <= set(site.consts):
        return None
    length = min(lcm(site.consts[1].size, 32), channels)  # rows of the table: whole words of neurons that repeat
    gain, bias, threshold = (np.resize(site.consts[k].astype(np.int64), length) for k in (1, 2, 3))
    lowest = threshold + int(op.strict)  # the least integer membrane that fires
    if lowest.max() > 2**31 - 1 or (op.strict and op.reset == "subtract") or not 0 < op.decay <= 1 << 15:
        return None
    table = np.stack([gain, bias, lowest], 1).astype(np.int32)
    whole = int(op.decay >= 1 << 14)
    rate = (op.decay - (whole << 15)) << 17
    full, rest = divmod(channels, 32)
    kind = f"i{x.bytes * 8 // x.size}"

    def call(word: str, count: int) -> str:
        first = row = f"{word} * 32"
        if length < channels:
            row = f"{word} * 32 % {length}" if length > 32 else "0"
        pointers = f"T.address_of(x[{first}]), T.address_of(table[{row}, 0]), T.address_of(v[{first}])"
        if count == 32 and op.decay_input and kind != "i8":
            name = f"edgec_lif32_{kind}_{op.reset}_{'x' if whole else 'v'}"
            return f'spikes[{word}] = T.call_extern("uint32", "{name}", {pointers}, {rate})'
        mode = f"{count}, {RESETS.index(op.reset)}, {int(op.decay_input)}, {whole}, {rate}"
        return f'spikes[{word}] = T.call_extern("uint32", "edgec_lif_loop_{kind}", {pointers}, {mode})'

    lines = [f"for word in T.parallel({full}):", f"    {call('word', 32)}"] if full else []
    lines += [call(str(full), rest)] if rest else []
    params = (
        ("x", (channels,), x.dtype.value), ("table", table.shape, "int32"), ("v", (channels,), "int32"),
        ("spikes", (full + bool(rest),), "uint32"),
    )  # fmt: skip
    return Kernel("\n".join(lines), params, {"table": table}, drops=(1, 2, 3))


RAISED = 8  # bits by which edgec_requantize_raise lifts a sum
RAISED_LIMIT = 36  # shifts up to which whatever does not fit 24 bits saturates an int16, its zero point included
RAISED_MARK = 256  # in the shift of a channel that is raised where others are not


def requantize_table(op: Requantize, multiplier: Array, shift: Array) -> tuple[str, Array] | None:
    """Rounding `single` by the high word of the product: a suffix of the functions' names and rows multiplier, addend,
    shift; zero point and rounding are one addend. None where 32 bits are not exact."""
    if op.rounding != "single":
        return None
    top, suffix = shift.astype(np.int64) - 32, ""
    raised = top < 1
    if raised.any():
        suffix = "_raised" if top.max() <= RAISED_LIMIT - 32 else "_mixed"
        top = top + RAISED * (raised | (suffix == "_raised"))
    if top.min() < 1 or top.max() > 30:
        return None
    addend = (1 << (top - 1)) + (np.int64(op.zero_point) << top)
    if np.abs(addend).max() > 1 << 30:
        return None  # the sum with a high word, below 2**30, could overflow
    mark = RAISED_MARK * raised * (suffix == "_mixed")
    return suffix, np.stack([multiplier.astype(np.int64), addend, top + mark], 1).astype(np.int32)


def _kind(dtype: str) -> str:
    """How function names spell an element type."""
    return dtype.replace("int", "i")


def requantize_call(op: Requantize, suffix: str, channels: int, rows: int) -> tuple[str, str]:
    """Function and trailing arguments for `channels` sums and a table of `rows`."""
    kind = _kind(op.dtype) + suffix
    whole = (op.lo, op.hi) == DType(op.dtype).range and rows > 1 and channels % 4 == 0
    if whole and suffix != "_mixed":
        return f"edgec_requantize_{kind}", f"{channels}"
    return f"edgec_requantize_loop_{kind}", f"{channels}, {3 if rows > 1 else 0}, {op.lo}, {op.hi}"


def requantize(op: Op, site: Site) -> Kernel | None:
    """Row by row; integers of 8 and 16 bits are read into the high bits of a word."""
    assert isinstance(op, Requantize)
    x = site.inputs[0]
    if not {1, 2} <= set(site.consts):
        return None
    high = 31 - x.dtype.range[1].bit_length()  # bits above those of x
    found = requantize_table(op, site.consts[1], site.consts[2].astype(np.int64) + high)
    if found is None or (high and found[0]):
        return None
    suffix, table = found
    rows, channels = prod(x.shape[:-1]), x.shape[-1]
    if len(table) == 1:
        rows, channels = 1, x.size
    name, mode = requantize_call(op, suffix, channels, len(table))
    if high:
        name = f"edgec_requantize_{_kind(x.dtype.value)}_to_{_kind(op.dtype)}"
        mode = f"{channels}, {3 * (len(table) > 1)}, {op.lo}, {op.hi}"
    at = f"r * {channels}"
    pointers = f"T.address_of(x[{at}]), table.data, T.address_of(y[{at}])"
    body = f'for r in T.parallel({rows}):\n    T.call_extern("void", "{name}", {pointers}, {mode})'
    params = (("x", (x.size,), x.dtype.value), ("table", table.shape, "int32"), ("y", (x.size,), op.dtype))
    return Kernel(body, params, {"table": table}, drops=(1, 2))
