"""Float products for 64-bit ARM: linear layers, matrix products and convolutions in blocks of vector registers.

A block is `rows` of the left operand times `columns` of the right one; its sums stay in registers over the whole inner
loop. The right operand lies in panels [block of columns][k][columns], so that a step of the loop reads it in one run:
weights are packed like this at compile time, the operand of an attention product at run time into scratch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from edgec.kernels.neon.rows import LANES, VECTOR_ACTIVATIONS, is_float
from edgec.ops.base import Array, Kernel, Op, Site, indent
from edgec.ops.conv import Conv2d
from edgec.ops.dense import Linear, MatMul
from edgec.ops.elementwise import activation_lines

ROWS = 8  # at most; with 8 columns the sums of a block fill 16 of the 32 registers


@dataclass(frozen=True)
class Block:
    """Shape of the sums that stay in registers."""

    rows: int
    columns: int

    def sums(self, statement: str) -> list[str]:
        """The statement for every vector of sums: row i, columns h * 4 + j."""
        head = [f"for i in T.unroll({self.rows}):", f"    for h in T.unroll({self.columns // LANES}):"]
        return [*head, "        for j in T.vectorized(4):", *indent(statement.splitlines(), 3)]

    @property
    def element(self) -> str:
        return f"acc[i * {self.columns} + h * 4 + j]"


def block_for(rows: int) -> Block:
    """The block that computes so many rows in the fewest instructions; the last one may overlap the one before."""
    if rows < LANES:
        return Block(rows, 4 * LANES)
    # Four steps of k: eight multiplications and a load per row, four loads of weights, the loop's own four.
    candidates = range(LANES, min(rows, ROWS) + 1)
    return Block(min(candidates, key=lambda r: -(-rows // r) * (9 * r + 8)), 2 * LANES)


def pack_panels(w: Array, columns: int) -> Array:
    """w [K,N] as [block of columns][K][columns], zeros completing the last block."""
    k, n = w.shape
    padded = np.zeros((k, -(-n // columns) * columns), w.dtype)
    padded[:, :n] = w
    return padded.reshape(k, -1, columns).transpose(1, 0, 2).reshape(-1)


def multiply(block: Block, count: int, x: Callable[[str, str], str], w: str) -> list[str]:
    """acc += x w over `count` steps of k: x(row, k) is an element, w the place of the panel's first row."""
    columns, steps = block.columns, count // LANES

    def step(k: str, element: str) -> list[str]:
        load = f"ws[h * 4 + j] = w[{w} + ({k}) * {columns} + h * 4 + j]"
        head = [f"for h in T.unroll({columns // LANES}):", "    for j in T.vectorized(4):", f"        {load}"]
        return [*head, *block.sums(f"{block.element} = {block.element} + {element} * ws[h * 4 + j]")]

    lines = []
    if steps:
        lines += [f"for k in T.serial({steps}):", f"    for i in T.unroll({block.rows}):"]
        lines += ["        for j in T.vectorized(4):", f"            xs[i * 4 + j] = {x('i', 'k * 4 + j')}"]
        lines += ["    for u in T.unroll(4):", *indent(step("k * 4 + u", "xs[i * 4 + u]"), 2)]
    for k in range(steps * LANES, count):
        lines += step(str(k), x("i", str(k)))
    return lines


def finish(block: Block, count: int, y: str, activation: str) -> list[str]:
    """Store `count` columns of the sums: y is the place of the block's row i; then the activation."""
    lines = []
    if activation in VECTOR_ACTIVATIONS:
        lines += block.sums(VECTOR_ACTIVATIONS[activation](block.element, block.element))
    if count == block.columns:
        lines += block.sums(f"y[{y} + h * 4 + j] = {block.element}")
    else:
        store = f"        y[{y} + c] = acc[i * {block.columns} + c]"
        lines += [f"for i in T.unroll({block.rows}):", f"    for c in T.unroll({count}):", store]
    if activation and activation not in VECTOR_ACTIVATIONS:
        head = [f"for i in T.serial({block.rows}):", f"    for c in T.serial({count}):"]
        lines += [*head, *indent(activation_lines(activation, f"y[{y} + c]"), 2)]
    return lines


def product(
    head: list[str], block: Block, outputs: int, first: str, inner: Callable[[str], list[str]], y: str, activation: str
) -> list[str]:
    """Every block of columns, and in it the loops of `head` over the rows' blocks.

    first: initial value of a sum; inner(b): the lines that add to the sums of column block b; y as in `finish`, without
    the block's first column.
    """
    full, rest = divmod(outputs, block.columns)
    lines = []
    for b, count in ([("b", block.columns)] if full else []) + ([(str(full), rest)] if rest else []):
        at = f"{b} * {block.columns}"
        body = [
            f'acc = T.alloc_buffer(({block.rows * block.columns},), "float32")',
            f'xs = T.alloc_buffer(({block.rows * LANES},), "float32")',
            f'ws = T.alloc_buffer(({block.columns},), "float32")',
            *block.sums(f"{block.element} = {first.format(at=at)}"),
            *inner(b),
            *finish(block, count, f"{y} + {at}", activation),
        ]
        nest = head + indent(body, sum(line.endswith(":") for line in head))
        lines += [f"for b in T.serial({full}):", *indent(nest)] if b == "b" else nest
    return lines


def row_blocks(rows: int, block: Block, name: str = "r", depth: int = 0) -> list[str]:
    """A loop over blocks of rows, `name` being the first row; the last block overlaps the one before where it must."""
    start = f"{name}: T.let[T.int32] = T.min({name}b * {block.rows}, {rows - block.rows})"
    return indent([f"for {name}b in T.serial({-(-rows // block.rows)}):", f"    {start}"], depth)


def padded_bias(bias: Array, columns: int) -> Array:
    """The bias with zeros that complete the last block of columns."""
    return np.concatenate([bias, np.zeros(-bias.size % columns, bias.dtype)])


def linear(op: Op, site: Site) -> Kernel | None:
    """A linear layer with constant weights, on any number of rows."""
    assert isinstance(op, Linear)
    x, _, _ = site.inputs
    if not is_float(site) or not {1, 2} <= set(site.consts):
        return None
    inputs, outputs = site.consts[1].shape
    rows = x.size // inputs
    block = block_for(rows)
    w, bias = pack_panels(site.consts[1], block.columns), padded_bias(site.consts[2], block.columns)

    def inner(b: str) -> list[str]:
        return multiply(block, inputs, lambda i, k: f"x[(r + {i}) * {inputs} + {k}]", f"{b} * {inputs * block.columns}")

    first = "bias[{at} + h * 4 + j]"
    lines = product(row_blocks(rows, block), block, outputs, first, inner, f"(r + i) * {outputs}", op.activation)
    params = (
        ("x", (x.size,), "float32"), ("w", w.shape, "float32"), ("bias", bias.shape, "float32"),
        ("y", (rows * outputs,), "float32"),
    )  # fmt: skip
    return Kernel("\n".join(lines), params, {"w": w, "bias": bias})


def conv2d(op: Op, site: Site) -> Kernel | None:
    """A convolution without groups and dilation: the rows of a window are runs of the image, padded if need be."""
    assert isinstance(op, Conv2d)
    x, w, _ = site.inputs
    if not is_float(site) or not {1, 2} <= set(site.consts) or op.groups != 1 or op.dilation != (1, 1):
        return None
    (n, height, width, channels), (kh, kw, _, outputs) = x.shape, w.shape
    _, oh, ow, _ = site.outputs[0].shape
    block, run = block_for(ow), kw * channels
    image, before, scratch = "x", [], 0
    if any(op.pad):
        image, before = "padded", pad_image(x.shape, op.pad)
        height, width = height + op.pad[0] + op.pad[1], width + op.pad[2] + op.pad[3]
        scratch = n * height * width * channels
    packed = pack_panels(site.consts[1].reshape(kh * run, outputs), block.columns)
    bias = padded_bias(site.consts[2], block.columns)
    line = f"(n * {height} + q * {op.stride[0]} + p) * {width * channels}"

    def element(i: str, k: str) -> str:
        return f"{image}[{line} + (r + {i}) * {op.stride[1] * channels} + {k}]"

    def inner(b: str) -> list[str]:
        at = f"({b} * {kh} + p) * {run * block.columns}"
        return [f"for p in T.serial({kh}):", *indent(multiply(block, run, element, at))]

    head = [f"for n, q in T.grid({n}, {oh}):", *row_blocks(ow, block, depth=1)]
    y = f"((n * {oh} + q) * {ow} + r + i) * {outputs}"
    lines = product(head, block, outputs, "bias[{at} + h * 4 + j]", inner, y, op.activation)
    params = [
        ("x", (x.size,), "float32"), ("w", packed.shape, "float32"), ("bias", bias.shape, "float32"),
        ("y", (site.outputs[0].size,), "float32"),
    ]  # fmt: skip
    params += [("padded", (scratch,), "float32")] if scratch else []
    return Kernel("\n".join([*before, *lines]), tuple(params), {"w": packed, "bias": bias}, scratch=4 * scratch)


def pad_image(shape: tuple[int, ...], pad: tuple[int, int, int, int]) -> list[str]:
    """Copy x [N,H,W,C] into `padded`, with zeros around it: top, bottom, left, right."""
    n, height, width, channels = shape
    (top, bottom, left, right), row = pad, width * channels
    high, wide, first = top + height + bottom, (left + width + right) * channels, left * channels
    inside = f"i >= {top} and i < {top + height} and j >= {first} and j < {first + row}"
    element = f"x[(n * {height} + i - {top}) * {row} + j - {first}]"
    return [
        f"for n, i, j in T.grid({n}, {high}, {wide}):",
        f"    padded[(n * {high} + i) * {wide} + j] = T.if_then_else({inside}, {element}, T.float32(0))",
    ]


def matmul(op: Op, site: Site) -> Kernel | None:
    """A product of two activations: the right one is packed into scratch, one matrix of the batch at a time."""
    assert isinstance(op, MatMul)
    a, b = site.inputs
    if not is_float(site):
        return None
    m, k, n = a.shape[-2], a.shape[-1], site.outputs[0].shape[-1]
    batch, block = prod(a.shape[:-2]), block_for(m)
    panels = -(-n // block.columns)
    column = f"c * {block.columns} + j"
    element = f"b[(g * {n} + {column}) * {k} + i]" if op.transpose_b else f"b[(g * {k} + i) * {n} + {column}]"
    inside = element if n % block.columns == 0 else f"T.if_then_else({column} < {n}, {element}, T.float32(0))"
    pack = [
        f"for c, i in T.grid({panels}, {k}):",
        f"    for j in T.serial({block.columns}):",
        f"        w[(c * {k} + i) * {block.columns} + j] = {inside}",
    ]

    def inner(b: str) -> list[str]:
        return multiply(block, k, lambda i, k_: f"a[(g * {m} + r + {i}) * {k} + {k_}]", f"{b} * {k * block.columns}")

    lines = product(row_blocks(m, block), block, n, "T.float32(0)", inner, f"(g * {m} + r + i) * {n}", "")
    params = (
        ("a", (a.size,), "float32"), ("b", (b.size,), "float32"), ("y", (site.outputs[0].size,), "float32"),
        ("w", (panels * k * block.columns,), "float32"),
    )  # fmt: skip
    body = "\n".join([f"for g in T.serial({batch}):", *indent([*pack, *lines])])
    return Kernel(body, params, scratch=4 * panels * k * block.columns)
