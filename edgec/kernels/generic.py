"""Kernels in plain TVMScript for any core: four outputs at a time in registers, weights packed in that order."""

from __future__ import annotations

from math import prod

import numpy as np

from edgec.ir.types import DType
from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.integer.conv import QConv1d
from edgec.ops.integer.linear import QLinearRequantize

OUTPUTS = 4


def is_one_product(op: Op, site: Site) -> bool:
    """Whether a QLinear or QConv1d is a product of whole rows of x with all of w, both known where they must be."""
    x, outs = site.inputs[0], site.outputs[0]
    if not {1, 2} <= set(site.consts):
        return False
    if not isinstance(op, QConv1d):
        return True
    one = x.shape[0] == 1 and outs.shape[1] == 1
    return one and op.groups == 1 and op.pad == (0, 0) and op.dilation == 1


def pack_columns(w: Array) -> Array:
    """w [inputs, outputs] as [block of 4 outputs][input][4]; outputs that complete the last block are zero."""
    padded = np.zeros((w.shape[0], -(-w.shape[1] // OUTPUTS) * OUTPUTS), w.dtype)
    padded[:, : w.shape[1]] = w
    return padded.reshape(w.shape[0], -1, OUTPUTS).transpose(1, 0, 2).reshape(-1)


def row_lines(inputs: int, outputs: int, y: str) -> list[str]:
    """TVMScript for all outputs of row r of x; `y` is where output {o} goes."""
    full, rest = divmod(outputs, OUTPUTS)

    def block(b: str, count: int) -> list[str]:
        names = [f"acc{j}" for j in range(count)]
        first = f"{b} * {OUTPUTS}"
        return [
            *(f'{a} = T.alloc_buffer((1,), "int32")' for a in names),
            *(f"{a}[0] = bias[{first} + {j}]" for j, a in enumerate(names)),
            f"for i in T.serial({inputs}):",
            '    xi: T.let[T.int32] = T.cast(x[r, i], "int32")',
            *(
                f'    {a}[0] = {a}[0] + xi * T.cast(w[({b} * {inputs} + i) * {OUTPUTS} + {j}], "int32")'
                for j, a in enumerate(names)
            ),
            *(f"{y.format(o=f'{first} + {j}')} = {a}[0]" for j, a in enumerate(names)),
        ]

    lines = [f"for b in T.parallel({full}):", *(f"    {line}" for line in block("b", OUTPUTS))] if full else []
    return lines + (block(str(full), rest) if rest else [])


def dense(op: Op, site: Site) -> Kernel | None:
    """QLinear and QConv1d of one output frame on int8 or int16."""
    x, w, _ = site.inputs
    if x.dtype is DType.BIT or not is_one_product(op, site):
        return None
    outputs, inputs = w.shape[-1], prod(w.shape[:-1])
    rows, packed = prod(site.outputs[0].shape) // outputs, pack_columns(site.consts[1].reshape(inputs, outputs))
    lines = row_lines(inputs, outputs, "y[r, {o}]")
    body = "\n".join([f"for r in T.serial({rows}):", *(f"    {line}" for line in lines)])
    params = (
        ("x", (rows, inputs), x.dtype.value), ("w", packed.shape, "int8"), ("bias", (outputs,), "int32"),
        ("y", (rows, outputs), "int32"),
    )  # fmt: skip
    return Kernel(body, params, {"w": packed})


def dense_requantize(op: Op, site: Site) -> Kernel | None:
    """QLinearRequantize: the sums of one row lie in scratch."""
    assert isinstance(op, QLinearRequantize)
    if 1 not in site.consts:
        return None
    x, w, multiplier = site.inputs[0], site.consts[1], site.inputs[3]
    (inputs, outputs), rows = w.shape, prod(x.shape[:-1])
    packed = pack_columns(w)
    finish = op.requantization.element_lines("total[o]", "o" if multiplier.size > 1 else "0", "y[r, o]")
    lines = [*row_lines(inputs, outputs, "total[{o}]"), f"for o in T.serial({outputs}):"]
    lines += [f"    {line}" for line in finish]
    body = "\n".join([f"for r in T.serial({rows}):", *(f"    {line}" for line in lines)])
    params = (
        ("x", (rows, inputs), "int8"), ("w", packed.shape, "int8"), ("bias", (outputs,), "int32"),
        *((name, multiplier.shape, "int32") for name in ("multiplier", "shift")),
        ("y", (rows, outputs), op.dtype), ("total", (outputs,), "int32"),
    )  # fmt: skip
    return Kernel(body, params, {"w": packed}, scratch=4 * outputs)
