"""Layers on spikes: only the rows of the weights that a spike selects are added (runtime/edgec_event.h).

Two forms of the same kernel: signed weights for cores with DSP instructions, weights + 128 for those without. Where
most inputs spike, the rows of those that do not are taken away from the sum of all (`silent`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.ir.types import DType
from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.integer.conv import QConv1d
from edgec.ops.integer.linear import QLinear
from edgec.ops.integer.requantize import rows_of
from edgec.ops.integer.spiking import QUnpack

BLOCK, SMALL_BLOCK = 16, 4
MAX_ROWS = 32767  # row numbers are int16 and -1 ends a list
UNSIGNED_ROWS = 256  # of bytes up to 255, whose sum fits 16 bits


@dataclass(frozen=True)
class Rows:
    """Where the input's spikes lie: `groups` rows of `words` words, `stride` words apart, of `width` spikes."""

    groups: int
    words: int
    stride: int
    width: int

    @property
    def count(self) -> int:
        return self.groups * self.width


def rows_of_window(op: Op, site: Site) -> Rows | None:
    """The spikes that one row of the output reads; None where they are not packed, or overlap with the next row's."""
    x, w, _ = site.inputs
    if x.dtype is not DType.BIT:
        return None
    words = x.storage_shape[-1]
    if isinstance(op, QLinear):
        found: Rows | None = Rows(1, words, words, x.shape[-1])
    else:
        assert isinstance(op, QConv1d)
        one = x.shape[0] == 1 and site.outputs[0].shape[1] == 1
        plain = op.groups == 1 and op.pad == (0, 0)
        found = Rows(w.shape[0], words, words * op.dilation, x.shape[-1]) if one and plain else None
    if found is None or found.count > MAX_ROWS:
        return None
    if found.width % 32 == 0 and found.stride == found.words:
        return Rows(1, found.words * found.groups, found.words * found.groups, found.count)
    return found


def segment_length(w: Array) -> int:
    """How many rows of w [rows, outputs] may be added in 16 bits: all of them if no choice of rows can overflow."""
    wide = w.astype(np.int64)
    if np.maximum(wide, 0).sum(0).max() <= 32767 and np.minimum(wide, 0).sum(0).min() >= -32768:
        return int(w.shape[0])
    return min(32767 // max(int(wide.max()), 1), 32768 // max(-int(wide.min()), 1))


def blocks_of(outputs: int) -> tuple[int, int]:
    """Blocks of 16 and blocks of 4 (at most one) that hold all outputs."""
    rest = outputs % BLOCK
    return outputs // BLOCK + (rest > SMALL_BLOCK), int(0 < rest <= SMALL_BLOCK)


def pack_rows(w: Array, offset: int) -> Array:
    """w [rows, outputs] int8 as the words [block][row][16 outputs], then [row][4 outputs]; missing outputs are zero."""
    large, small = blocks_of(w.shape[1])
    padded = np.zeros((w.shape[0], large * BLOCK + small * SMALL_BLOCK), np.int64)
    padded[:, : w.shape[1]] = w
    octets = (padded + offset).astype(np.uint8)
    head = octets[:, : large * BLOCK].reshape(w.shape[0], large, BLOCK).transpose(1, 0, 2)
    packed = np.concatenate([head.reshape(-1), octets[:, large * BLOCK :].reshape(-1)])
    return packed.view("<i4").astype(np.int32)


def pad_bias(bias: Array, count: int) -> Array:
    """bias with zeros for the outputs that complete the last block."""
    return np.concatenate([bias.astype(np.int32), np.zeros(count - bias.size, np.int32)])


def event_cost(rows: Rows, outputs: int, rate: float) -> float:
    """Instructions of the signed kernel on an emulated core: start, scan, blocks, then each listed row in each block.

    A fit to bench/kernels.txt; a test compares what is chosen by it with what is counted.
    """
    large, small = blocks_of(outputs)
    once = 15 + 3 * rows.groups * rows.words + 22 * large + 3 * small
    return once + rate * rows.count * (6 + 11.5 * large + 6.3 * small)


def dense_cost(rows: Rows, outputs: int) -> float:
    """The same of the dense kernel of four outputs, on spikes expanded to lanes."""
    inputs, blocks = rows.groups * -(-rows.width // 4) * 4, -(-outputs // SMALL_BLOCK)
    return 1.8 * inputs + blocks * (30 + 3.75 * inputs)


def cheapest(op: Op, rows: Rows, outputs: int, dense: float | None = None) -> str:
    """event, silence or dense: by the spike rate of calibration, event where there was none. `dense` is the cost of a
    dense kernel that is not dense_cost's."""
    rate = getattr(op, "spike_rate", None)
    if rate is None:
        return "event"
    costs = {
        "event": event_cost(rows, outputs, rate),
        "silence": event_cost(rows, outputs, 1.0 - rate),
        "dense": dense_cost(rows, outputs) if dense is None else dense,
    }
    return min(costs, key=lambda name: costs[name])


def _kernel(op: Op, site: Site, unsigned: bool, silent: bool = False) -> Kernel | None:
    rows = rows_of_window(op, site)
    if rows is None or not {1, 2} <= set(site.consts):
        return None
    w, totals = site.consts[1].reshape(-1, site.inputs[1].shape[-1]), site.consts[2]
    if silent:  # what all rows give, less what the silent ones would
        totals = totals + w.sum(0, dtype=np.int64)
        w = -w
    outputs, suffix = w.shape[1], "_u8" if unsigned else ""
    segment = UNSIGNED_ROWS if unsigned else segment_length(w)
    large, small = blocks_of(outputs)
    packed = pack_rows(w, 128 if unsigned else 0)
    bias = pad_bias(totals, large * BLOCK + small * SMALL_BLOCK)
    entries = rows.count + rows.count // segment + 1
    units, products = int(np.prod(site.inputs[0].storage_shape)), site.outputs[0].size // outputs
    x = "x.data" if products == 1 else f"T.address_of(x[r * {units // products}])"
    scan = f"{x}, {rows.groups}, {rows.words}, {rows.stride}, {rows.width}, {segment}"
    name = "edgec_silent_rows" if silent else "edgec_spike_rows"
    lines = [f'n: T.let[T.int32] = T.call_extern("int32", "{name}", {scan}, list.data)']

    def call(kind: int, at: str, weights: str, count: int) -> str:
        simple = count == kind and segment >= rows.count
        name = f"edgec_event_{'rows' if simple else 'block'}{kind}{suffix}"
        mode = "n" if simple else f"n, {segment}, {count}"
        where = f"T.address_of(bias[{at}]), T.address_of(y[r * {outputs} + {at}])"
        return f'T.call_extern("void", "{name}", T.address_of(w[{weights}]), list.data, {mode}, {where})'

    full = outputs // BLOCK
    if full:
        body = call(BLOCK, f"b * {BLOCK}", f"b * {rows.count * BLOCK // 4}", BLOCK)
        lines += [f"for b in T.parallel({full}):", f"    {body}"]
    if outputs % BLOCK:
        kind, first = SMALL_BLOCK if small else BLOCK, full * BLOCK
        lines.append(call(kind, str(first), str(first * rows.count // 4), outputs % BLOCK))
    params = (
        ("x", (units,), "uint32"), ("w", packed.shape, "int32"), ("bias", bias.shape, "int32"),
        ("y", (products * outputs,), "int32"), ("list", (entries,), "int16"),
    )  # fmt: skip
    text = "\n".join([f"for r in T.serial({products}):", *(f"    {line}" for line in lines)])
    return Kernel(text, params, {"w": packed, "bias": bias}, scratch=2 * entries)


def signed(op: Op, site: Site) -> Kernel | None:
    """For cores with SXTAB16: sums of pairs of int16."""
    return _kernel(op, site, unsigned=False)


def silent(op: Op, site: Site) -> Kernel | None:
    """The same on the inputs that do not spike, where those are fewer by calibration."""
    rows = rows_of_window(op, site)
    if rows is None or 1 not in site.consts or cheapest(op, rows, site.inputs[1].shape[-1]) != "silence":
        return None
    return _kernel(op, site, unsigned=False, silent=True) if site.consts[1].min() >= -127 else None


def unsigned(op: Op, site: Site) -> Kernel | None:
    """For cores without: bytes with an offset, four to a word."""
    return _kernel(op, site, unsigned=True)


def unpack(op: Op, site: Site) -> Kernel | None:
    """QUnpack to int8, four spikes to a word."""
    assert isinstance(op, QUnpack)
    x, channels = site.inputs[0], site.inputs[0].shape[-1]
    if op.dtype != "int8":
        return None
    rows, words = rows_of(x)
    where = f"T.address_of(x[r * {words}]), {channels}, {op.low}, {op.high}, T.address_of(y[r * {channels}])"
    body = f'for r in T.parallel({rows}):\n    T.call_extern("void", "edgec_spike_levels", {where})'
    return Kernel(body, (("x", (rows * words,), "uint32"), ("y", (rows * channels,), "int8")))
