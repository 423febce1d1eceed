"""int4 weights times int8 (or int4 in bytes) for cores with DSP instructions: runtime/cortex_m/edgec_narrow.h.

Over many rows the weights of some outputs are expanded for several blocks of rows, which the kernels of rows_dsp then
multiply; a single row is multiplied from the nibbles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from edgec.ir.types import DType
from edgec.kernels.cortex_m import rows as rows_dsp
from edgec.kernels.cortex_m.dense import INPUTS, OUTPUTS, requantize_call, requantize_table
from edgec.kernels.cortex_m.rows import ROWS, Finish, finish_for, requantization
from edgec.kernels.event import pad_bias
from edgec.kernels.generic import is_one_product
from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.integer.conv import QConv2d
from edgec.ops.integer.linear import QLinearRequantize
from edgec.ops.integer.requantize import Requantize

TILE_BLOCKS, TILE_WORDS = 8, 1024  # blocks of rows that share an expansion, and the scratch they may take
GROUP_WORDS = 256  # of expanded weights
SUM_LIMIT = 1 << 19  # one of the sums is computed times 4096

Read = Callable[[str, str], str]  # (row, where to) -> the call that lays three rows from `row` on there


@dataclass(frozen=True)
class Tiles:
    """`rows` rows in blocks of three, `tile` blocks to an expansion of the weights of `group` pairs of outputs.

    `packed` [pair, words] is what edgec_narrow_pairs reads.
    """

    op: Op
    finish: Finish
    packed: Array
    quads: int
    outputs: int
    rows: int

    @property
    def blocks(self) -> int:
        return -(-self.rows // ROWS)

    @property
    def tile(self) -> int:
        """As even as it can be, so that the fewest blocks are computed twice."""
        most = min(self.blocks, TILE_BLOCKS, max(TILE_WORDS // self.block_words, 2))
        return -(-self.blocks // -(-self.blocks // most))

    @property
    def block_words(self) -> int:
        return 2 * ROWS * self.quads

    @property
    def pair_words(self) -> int:
        """Of an expanded pair."""
        return int(self.packed.shape[1]) + self.quads

    @property
    def group(self) -> int:
        return min(max(GROUP_WORDS // self.pair_words, 1), self.outputs // 2)

    @property
    def scratch(self) -> int:
        """Words."""
        return self.tile * self.block_words + self.group * self.pair_words

    def lines(self, read: Read, base: str = "") -> list[str]:
        """Everything for one image, whose first row is `base` of the output."""
        first = f"T.min(t * {self.tile}, {self.blocks - self.tile})" if self.blocks % self.tile else f"t * {self.tile}"
        clamp = rows_dsp.clamp_lines(requantization(self.op), ROWS * self.outputs, f"({base}r)", self.outputs)
        full, pairs = divmod(self.outputs // 2, self.group)
        body = self._each_block([read("r", f"T.address_of(scratch[b * {self.block_words}])")])
        products = self._group(f"g * {self.group}", self.group, f"g * {2 * self.group}", base)
        body += [f"for g in T.serial({full}):", *(f"    {line}" for line in products)]
        if pairs:
            body += self._group(f"{full * self.group}", pairs, f"{2 * full * self.group}", base)
        if self.outputs % 2:
            body += self._group(f"{self.outputs // 2}", 1, f"{self.outputs - 2}", base)
        body += self._each_block(clamp) if clamp else []
        head = [f"for t in T.serial({-(-self.blocks // self.tile)}):", f"    f: T.let[T.int32] = {first}"]
        return [*head, *(f"    {line}" for line in body)]

    def _each_block(self, lines: list[str]) -> list[str]:
        row = f"(f + b) * {ROWS}"
        row = f"T.min({row}, {self.rows - ROWS})" if self.rows % ROWS else row
        head = [f"for b in T.serial({self.tile}):", f"    r: T.let[T.int32] = {row}"]
        return [*head, *(f"    {line}" for line in lines)]

    def _group(self, pair: str, pairs: int, output: str, base: str) -> list[str]:
        """The products of `pairs` pairs of outputs."""
        tail, expanded = 6 * bool(self.finish.first.size), f"T.address_of(scratch[{self.tile * self.block_words}])"
        weights = f"T.address_of(w[({pair}) * {self.packed.shape[1]}]), {self.quads}, {pairs}, {tail}, {expanded}"
        x, y = (
            f"T.address_of(scratch[b * {self.block_words}])",
            f"T.address_of(y[({base}r) * {self.outputs} + {output}])",
        )
        where = f"{expanded}, {x}, {self.quads}, {pairs}, {y}, {self.outputs * self.finish.size}"
        product = f'T.call_extern("void", "edgec_rows3_{self.finish.suffix}", {where})'
        return [f'T.call_extern("void", "edgec_narrow_pairs", {weights})', *self._each_block([product])]


def pack_pairs(w: Array, bias: Array, finish: Finish) -> Array:
    """w [inputs, outputs], inputs a multiple of 4, as edgec_narrow_pairs reads it: [pair, words]."""
    inputs, outputs = w.shape
    (a, b), counted = rows_dsp.pairs_of(outputs), w.astype(np.int64) + 8
    lanes = (counted[:, a] << 8 | counted[:, b]).T.reshape(len(a), inputs // 4, 2, 2)  # [pair, quad, lane, word]
    halves = lanes[..., 0] | lanes[..., 1] << 4
    words = (halves[..., 0] | halves[..., 1] << 16).astype(np.uint32).view(np.int32)
    return np.stack([rows_dsp.row_of(body, bias, finish, int(first)) for body, first in zip(words, a, strict=True)])


def rows(op: Op, site: Site) -> Kernel | None:
    """Linear layers and convolutions without groups over three rows (or pixels) and more."""
    w, direct = site.inputs[1], rows_dsp.is_row_product(op, site)
    if w.dtype is not DType.I4 or (isinstance(op, QConv2d) and op.groups != 1):
        return None
    if isinstance(op, QConv2d) and w.shape[2] % 4 and op.dilation != (1, 1):
        return None
    outputs, images = w.shape[-1], 1 if direct else site.outputs[0].shape[0]
    pixels = site.outputs[0].size // outputs // images
    finish = finish_for(op, site) if pixels >= ROWS else None
    if finish is None:
        return None
    values = site.consts[1] if not direct else site.consts[1].reshape(1, 1, -1, outputs)
    padded = rows_dsp.window_weights(values)
    tiles = Tiles(op, finish, pack_pairs(padded, site.consts[2], finish), len(padded) // 4, outputs, pixels)
    weights = tiles.packed.reshape(-1)
    if direct:
        lines = tiles.lines(lambda row, to: rows_dsp.expand(row, values.shape[2], to))
        kernel = rows_dsp.kernel_of(op, site, weights, finish, "\n".join(lines), tiles.scratch, {})
        once = pixels % (ROWS * tiles.tile) == 0 and site.inputs[0].dtype is site.outputs[0].dtype
        return replace(kernel, inplace=(0,)) if once else kernel
    assert isinstance(op, QConv2d)
    windows = rows_dsp.images_of(op, site, tiles.scratch)
    lines = tiles.lines(lambda row, to: rows_dsp.gather(windows.image, row, to), f"n * {pixels} + ")
    lines = [f"for n in T.serial({images}):", *(f"    {line}" for line in [*windows.before, *lines])]
    return rows_dsp.kernel_of(op, site, weights, finish, "\n".join(lines), windows.words, windows.tables)


def pack_single(w: Array) -> Array:
    """w [inputs, outputs] as the words of edgec_narrow_rows4, [block][four inputs][word (0, 2), word (1, 3)]."""
    inputs, outputs = -(-w.shape[0] // INPUTS) * INPUTS, -(-w.shape[1] // OUTPUTS) * OUTPUTS
    padded = np.zeros((inputs, outputs), np.int64)
    padded[: w.shape[0], : w.shape[1]] = w
    blocks = padded.reshape(inputs, -1, OUTPUTS)
    lanes = blocks[..., 0] * 4096 + ((blocks[..., 1:] + 8) << np.array([8, 4, 0])).sum(-1)  # [inputs, block]
    quads = lanes.reshape(inputs // 4, 2, 2, -1).transpose(3, 0, 2, 1)  # [block, quad, word, lane]
    return np.ascontiguousarray(quads).astype("<i2").reshape(-1).view("<i4").astype(np.int32)


@dataclass(frozen=True)
class Row:
    """One row of int8 times packed nibbles."""

    packed: Array
    inputs: int
    outputs: int

    def call(self, block: str, count: int, y: str) -> str:
        """`count` outputs of a block; scratch begins with the expanded inputs."""
        padded = -(-self.inputs // INPUTS) * INPUTS
        name, mode = ("rows4", f"{padded}") if count == OUTPUTS else ("block4", f"{padded}, {count}")
        return (
            f'T.call_extern("void", "edgec_narrow_{name}", T.address_of(w[{block} * {padded // 2}]), '
            f"T.address_of(scratch[0]), {mode}, offset, T.address_of(bias[{block} * {OUTPUTS}]), {y})"
        )

    def lines(self, row: str, y: str) -> list[str]:
        """All outputs; `y` is where those of block {b} go."""
        x = f"T.address_of(x[{row} * {self.inputs}]), {self.inputs}"
        full, rest = divmod(self.outputs, OUTPUTS)
        lines = [
            f'T.call_extern("void", "edgec_expand_s8", {x}, scratch.data)',
            f'offset: T.let[T.int32] = T.call_extern("int32", "edgec_narrow_offset", {x})',
        ]
        if full:
            lines += [f"for b in T.serial({full}):", f"    {self.call('b', OUTPUTS, y.format(b='b'))}"]
        return [*lines, self.call(str(full), rest, y.format(b=full))] if rest else lines


def row_of(w: Array) -> Row | None:
    """None where a sum could leave its field."""
    if np.abs(w.astype(np.int64)).sum(0).max() * 128 >= SUM_LIMIT:
        return None
    return Row(pack_single(w), *w.shape)


def dense(op: Op, site: Site) -> Kernel | None:
    """QLinear and QConv1d of one output frame, row by row."""
    w = site.inputs[1]
    if w.dtype is not DType.I4 or site.inputs[0].dtype not in (DType.I4, DType.I8) or not is_one_product(op, site):
        return None
    row = row_of(site.consts[1].reshape(-1, w.shape[-1]))
    if row is None:
        return None
    count, words = site.outputs[0].size // row.outputs, -(-row.inputs // INPUTS) * INPUTS // 2
    lines = row.lines("r", f"T.address_of(y[r * {row.outputs} + {{b}} * {OUTPUTS}])")
    body = "\n".join([f"for r in T.serial({count}):", *(f"    {line}" for line in lines)])
    bias = pad_bias(site.consts[2], -(-row.outputs // OUTPUTS) * OUTPUTS)
    params = (
        ("x", (count * row.inputs,), "int8"), ("w", row.packed.shape, "int32"), ("bias", bias.shape, "int32"),
        ("y", (count * row.outputs,), "int32"), ("scratch", (words,), "int32"),
    )  # fmt: skip
    return Kernel(body, params, {"w": row.packed, "bias": bias}, scratch=4 * words)


def dense_requantize(op: Op, site: Site) -> Kernel | None:
    """QLinearRequantize row by row."""
    assert isinstance(op, QLinearRequantize)
    if site.inputs[1].dtype is not DType.I4 or not {1, 2, 3, 4} <= set(site.consts):
        return None
    last: Requantize = op.requantization
    row, found = row_of(site.consts[1]), requantize_table(last, site.consts[3], site.consts[4])
    if row is None or found is None:
        return None
    suffix, table = found
    count, padded = prod(site.inputs[0].shape[:-1]), -(-row.outputs // OUTPUTS) * OUTPUTS
    sums = -(-row.inputs // INPUTS) * INPUTS // 2
    name, mode = requantize_call(last, suffix, row.outputs, len(table))
    lines = row.lines("r", f"T.address_of(scratch[{sums} + {{b}} * {OUTPUTS}])")
    lines.append(
        f'T.call_extern("void", "{name}", T.address_of(scratch[{sums}]), table.data, '
        f"T.address_of(y[r * {row.outputs}]), {mode})"
    )
    body = "\n".join([f"for r in T.serial({count}):", *(f"    {line}" for line in lines)])
    params = (
        ("x", (count * row.inputs,), "int8"), ("w", row.packed.shape, "int32"), ("bias", (padded,), "int32"),
        ("table", table.shape, "int32"), ("y", (count * row.outputs,), op.dtype),
        ("scratch", (sums + padded,), "int32"),
    )  # fmt: skip
    consts = {"w": row.packed, "bias": pad_bias(site.consts[2], padded), "table": table}
    return Kernel(body, params, consts, drops=(3, 4), scratch=4 * (sums + padded))
