"""Products of few bits, four to a multiplication, for cores with DSP instructions: runtime/cortex_m/edgec_packed.h.

int4 weights times int4, and int2 weights times int8 or int4, over four rows (or pixels) and more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from edgec.ir.types import DType
from edgec.kernels.cortex_m.dense import requantize_call, requantize_table
from edgec.kernels.cortex_m.rows import clamp_lines, is_row_product
from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.integer.conv import QConv2d
from edgec.ops.integer.requantize import Requantize

ROWS, OUTPUTS = 4, 4  # of a block
FIELD = 1 << 13  # a run's sums lie within this, from - FIELD to FIELD - 1
SHIFT = 17  # of the table of edgec_packed_levels
LEAST_RUN = 8  # inputs, on average, below which taking the fields apart costs more than it saves
TILE_BLOCKS, TILE_WORDS = 8, 2048  # blocks of rows that share an expansion of weights, and the scratch they may take

Read = Callable[[str, str], list[str]]  # (row, where to) -> statements that pack four rows from `row` on there


@dataclass(frozen=True)
class Run:
    """Inputs [start, stop) whose sums fit their fields."""

    start: int
    stop: int


def runs_of(w: Array, x_range: tuple[int, int]) -> list[Run]:
    """The inputs of w [inputs, outputs] cut so that no sum of products with x leaves its field."""
    ends = np.stack([w.astype(np.int64) * x for x in x_range])
    top, bottom = np.cumsum(ends.max(0), 0), np.cumsum(ends.min(0), 0)
    before = np.zeros((2, w.shape[1]), np.int64)
    runs: list[Run] = []
    while not runs or runs[-1].stop < len(w):
        start = runs[-1].stop if runs else 0
        fits = ((top - before[0]).max(1) < FIELD) & ((bottom - before[1]).min(1) >= -FIELD)
        stop = start + int(np.argmin(np.append(fits[start:], False)))
        runs.append(Run(start, stop))
        before = np.stack([top[stop - 1], bottom[stop - 1]])
    return runs


def pack_weights(w: Array, dtype: DType) -> Array:
    """w [inputs, outputs], multiples of 4, as [four outputs, words] in the order of edgec_packed_weights4 or 2."""
    inputs, outputs = w.shape
    counted = (w.astype(np.int64) - dtype.range[0]).reshape(inputs, outputs // OUTPUTS, 2, 2)
    pairs = counted.transpose(1, 0, 2, 3).reshape(outputs // OUTPUTS, inputs * 2, 2)  # [four outputs, word, weight]
    turns = np.array([0, 8, 16, 24] if dtype is DType.I4 else [4, 6, 12, 14, 20, 22, 28, 30])
    grouped = pairs.reshape(outputs // OUTPUTS, -1, turns.size, 2)
    words: Array = (grouped << np.stack([turns, (turns + 28) % 32], 1)).sum((2, 3)).astype(np.uint32)
    return words.view(np.int32)


def level_row(op: Requantize, multiplier: int, shift: int, bias: int, low: int, high: int) -> tuple[int, int] | None:
    """Multiplier and addend of edgec_packed_levels for sums within [low, high]; None where none gives every level."""
    sums = np.arange(low, high + 1)
    wanted = op.levels(sums + bias, np.array([multiplier]), np.array([shift]))
    half = 1 << (shift - 1)
    factor = ((multiplier << (16 + SHIFT)) + half) >> shift
    addend = ((((bias - FIELD) * multiplier << SHIFT) + half) >> shift) + (2 * op.zero_point + 1 << (SHIFT - 1))
    for more in (0, 1, -1, 2, -2):
        products = (sums + FIELD) * (factor + more) >> 16
        for further in (0, 1, 2, -1, 3, -2):
            found = products + (addend + further)
            fits = factor + more < 1 << 31 and np.abs(found).max() < 1 << 31 and abs(addend + further) < 1 << 31
            if fits and (np.clip(found >> SHIFT, op.lo, op.hi) == wanted).all():
                return factor + more, addend + further
    return None


def levels_table(op: Requantize, site: Site, w: Array, x_range: tuple[int, int]) -> Array | None:
    """Rows multiplier, addend of every output, for sums without their bias."""
    ends = np.stack([w.astype(np.int64) * x for x in x_range])
    low, high = ends.min(0).sum(0), ends.max(0).sum(0)
    multiplier, shift = (np.broadcast_to(site.consts[k], low.shape) for k in (3, 4))
    rows = [
        level_row(op, *map(int, values))
        for values in zip(multiplier, shift, site.consts[2], low, high, strict=True)
    ]  # fmt: skip
    return None if None in rows else np.array(rows, np.int64).astype(np.int32)


@dataclass(frozen=True)
class Tiles:
    """`rows` rows, `tile` blocks of four to an expansion of the weights of four outputs.

    `w` is what lies in flash, `starts` the first output of each four; `levels` names the function that makes the
    output of a single run, `finish` function and mode that requantise the sums of several.
    """

    w: Array
    starts: list[int]
    dtype: DType
    steps: int
    runs: list[Run]
    outputs: int
    rows: int
    levels: str
    finish: tuple[str, str] = ("", "")

    @property
    def tile(self) -> int:
        """As even as it can be, so that the fewest rows are computed twice."""
        most = min(self.rows // ROWS, TILE_BLOCKS, max(TILE_WORDS // (2 * self.steps), 2))
        return -(-self.rows // (ROWS * -(-self.rows // (ROWS * most))))

    @property
    def weights_at(self) -> int:
        """Where expanded weights lie in scratch; behind them the sums of several runs."""
        return self.tile * 2 * self.steps

    @property
    def scratch(self) -> int:
        """Words."""
        return self.weights_at + 2 * self.steps + (2 * OUTPUTS if self.levels else ROWS * OUTPUTS)

    def lines(self, read: Read, base: str, clamp: Requantize | None) -> list[str]:
        """Everything for one image, whose first row is `base` of the output."""
        count, tile = -(-self.rows // (ROWS * self.tile)), ROWS * self.tile
        first = f"T.min(t * {tile}, {self.rows - tile})" if self.rows % tile else f"t * {tile}"
        lines = [f"for t in T.serial({count}):", f"    f: T.let[T.int32] = {first}"]
        lines += [f"    for b in T.serial({self.tile}):"]
        lines += [f"        {line}" for line in read(f"(f + b * {ROWS})", f"scratch[b * {2 * self.steps}]")]
        whole = self.outputs // OUTPUTS
        lines += [f"    for q in T.serial({whole}):"]
        lines += [f"        {line}" for line in self._four("q", f"q * {OUTPUTS}", base)]
        if len(self.starts) > whole:
            lines += [f"    {line}" for line in self._four(str(whole), str(self.outputs - OUTPUTS), base)]
        return lines + [f"    {line}" for line in clamp_lines(clamp, tile * self.outputs, f"({base}f)", self.outputs)]

    def _four(self, q: str, output: str, base: str) -> list[str]:
        """Four outputs of a tile."""
        bits, expanded = (4, 2) if self.dtype is DType.I4 else (2, 4), f"scratch[{self.weights_at}]"
        tail = 2 * OUTPUTS if self.levels else 0
        weights = f"T.address_of(w[{q} * {self.w.shape[1]}]), {self.steps // bits[1]}, {tail}, T.address_of({expanded})"
        lines = [f'T.call_extern("void", "edgec_packed_weights{bits[0]}", {weights})']
        if self.levels:
            y = f"T.address_of(y[({base}f) * {self.outputs} + {output}])"
            where = f"T.address_of({expanded}), scratch.data, {self.steps}, {self.tile}, {y}, {self.outputs}"
            return [*lines, f'T.call_extern("void", "{self.levels}", {where})']
        sums, (name, mode) = self.weights_at + 2 * self.steps, self.finish
        lines.append(f"for b in T.serial({self.tile}):")
        biases = f"T.address_of(bias[{output}]), T.address_of(scratch[{sums}])"
        lines.append(f'    T.call_extern("void", "edgec_packed_biases", {biases})')
        for run in self.runs:
            w, x = f"scratch[{self.weights_at + 2 * run.start}]", f"scratch[b * {2 * self.steps} + {2 * run.start}]"
            where = f"T.address_of({w}), T.address_of({x}), {run.stop - run.start}, T.address_of(scratch[{sums}])"
            lines.append(f'    T.call_extern("void", "edgec_packed_sums", {where})')
        y = f"T.address_of(y[({base}f + b * {ROWS} + k) * {self.outputs} + {output}])"
        where = f"T.address_of(scratch[{sums} + k * {OUTPUTS}]), T.address_of(table[{output}, 0]), {y}, {mode}"
        return [*lines, f"    for k in T.serial({ROWS}):", f'        T.call_extern("void", "{name}", {where})']


def is_packed(op: Any, site: Site) -> bool:
    """Whether types and sizes are those of these kernels."""
    x, w = site.inputs[:2]
    few = w.dtype is DType.I2 or (w.dtype is x.dtype is DType.I4)
    if not few or x.dtype not in (DType.I4, DType.I8) or not {1, 2, 3, 4} <= set(site.consts):
        return False
    if w.shape[-1] < OUTPUTS or (isinstance(op, QConv2d) and op.groups != 1):
        return False
    return w.dtype is DType.I2 or int(site.consts[1].min()) > w.dtype.range[0]


def product(op: Op, site: Site) -> Kernel | None:
    """QLinearRequantize, and QConv2dRequantize without groups."""
    if not is_packed(op, site):
        return None
    x, shape, last = site.inputs[0], site.inputs[1].shape, op.requantization  # type: ignore[attr-defined]
    inputs, outputs = prod(shape[:-1]), shape[-1]
    images = 1 if is_row_product(op, site) else x.shape[0]
    rows, w = site.outputs[0].size // outputs // images, site.consts[1].reshape(inputs, outputs)
    runs = runs_of(w, x.dtype.range)
    if rows < ROWS or len(runs) * LEAST_RUN > inputs:
        return None
    few = last.dtype == "int8" and DType.I4.range[0] <= last.lo and last.hi <= DType.I4.range[1]
    bounds = (DType.I4 if few else DType(last.dtype)).range
    levels = None
    if len(runs) == 1 and last.dtype == "int8":
        levels = levels_table(replace(last, lo=bounds[0], hi=bounds[1]), site, w, x.dtype.range)
    scales = [np.broadcast_to(site.consts[k], (outputs,)) for k in (3, 4)]
    found = requantize_table(last, *scales)
    if levels is None and found is None:
        return None
    starts = [*range(0, outputs - OUTPUTS + 1, OUTPUTS), *([outputs - OUTPUTS] if outputs % OUTPUTS else [])]
    chosen = (np.array(starts)[:, None] + np.arange(OUTPUTS)).reshape(-1)
    padded = np.zeros((-(-inputs // 4) * 4, chosen.size), np.int8)
    padded[:inputs] = w[:, chosen]
    packed, dtype = pack_weights(padded, site.inputs[1].dtype), site.inputs[1].dtype
    if levels is not None:
        packed = np.concatenate([packed, levels[chosen].reshape(len(starts), -1)], 1)
        name = f"edgec_packed_levels{4 if few else 8}"
        tiles = Tiles(packed, starts, dtype, len(padded), runs, outputs, rows, name)
        return _kernel(op, site, tiles, images, {}, (last.lo, last.hi) != bounds)
    assert found is not None
    finish = requantize_call(last, found[0], OUTPUTS, OUTPUTS)
    tiles = Tiles(packed, starts, dtype, len(padded), runs, outputs, rows, "", finish)
    return _kernel(op, site, tiles, images, {"bias": site.consts[2], "table": found[1]}, False)


def _kernel(op: Any, site: Site, tiles: Tiles, images: int, consts: dict[str, Array], clamp: bool) -> Kernel:
    """Text and parameters; `clamp` where the output is narrower than its bits."""
    x, w, y = site.inputs[0], site.inputs[1].shape, site.outputs[0]
    inputs, words, base = prod(w[:-1]), tiles.scratch, f"n * {tiles.rows} + "
    if is_row_product(op, site):

        def read(row: str, to: str) -> list[str]:
            return [packed_rows([f"x[({row} + {k}) * {inputs}]" for k in range(ROWS)], inputs, to)]

    else:
        consts = {**consts, "window": window_table(op, site)}
        at, each = words, -(-inputs // 4)
        words += ROWS * each

        def read(row: str, to: str) -> list[str]:
            image = f"T.address_of(x[n * {x.size // images}]), window.data, {op.pad_value}"
            buffers = [f"scratch[{at + k * each}]" for k in range(ROWS)]
            windows = [
                f'T.call_extern("void", "edgec_packed_window", {image}, {row} + {k}, T.address_of({buffer}))'
                for k, buffer in enumerate(buffers)
            ]
            return [*windows, packed_rows(buffers, inputs, to)]

    lines = tiles.lines(read, base, op.requantization if clamp else None)
    body = "\n".join([f"for n in T.serial({images}):", *(f"    {line}" for line in lines)])
    tables = [(name, a.shape, "int32") for name, a in consts.items() if name != "bias"]
    bias = [("bias", site.consts[2].shape, "int32")] if "bias" in consts else []
    params = (
        ("x", (x.size,), "int8"), ("w", (tiles.w.size,), "int32"), *bias, *tables, ("y", (y.size,), y.dtype.value),
        ("scratch", (words,), "int32"),
    )  # fmt: skip
    kept = {name: a for name, a in consts.items() if name != "bias"}
    drops = (3, 4) if bias else (2, 3, 4)
    return Kernel(body, params, {"w": tiles.w.reshape(-1), **kept}, drops=drops, scratch=4 * words)


def packed_rows(rows: list[str], inputs: int, to: str) -> str:
    """Four rows, each at an element of a buffer, side by side."""
    where = ", ".join(f"T.address_of({row})" for row in rows)
    return f'T.call_extern("void", "edgec_packed_rows", {where}, {inputs}, T.address_of({to}))'


def window_table(op: QConv2d, site: Site) -> Array:
    """What edgec_packed_window reads."""
    (_, h, v, c), (kh, kw, _, _) = site.inputs[0].shape, site.inputs[1].shape
    place = [h, v, c, kh, kw, *op.stride, *op.dilation, op.pad[0], op.pad[2], site.outputs[0].shape[2]]
    return np.array(place, np.int32)
