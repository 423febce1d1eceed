"""Kernels in plain TVMScript for any core: four outputs at a time in registers, weights packed in that order."""

from __future__ import annotations

from math import prod

import numpy as np

from edgec.ir.types import DType
from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.quantized import QConv1d

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


def dense(op: Op, site: Site) -> Kernel | None:
    """QLinear and QConv1d of one output frame on int8 or int16."""
    x, w, _ = site.inputs
    if x.dtype is DType.BIT or not is_one_product(op, site):
        return None
    outputs, inputs = w.shape[-1], prod(w.shape[:-1])
    rows, packed = prod(site.outputs[0].shape) // outputs, pack_columns(site.consts[1].reshape(inputs, outputs))
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
            *(f"y[r, {first} + {j}] = {a}[0]" for j, a in enumerate(names)),
        ]

    lines = [f"for b in T.parallel({full}):", *(f"    {line}" for line in block("b", OUTPUTS))] if full else []
    lines += block(str(full), rest) if rest else []
    body = "\n".join([f"for r in T.serial({rows}):", *(f"    {line}" for line in lines)])
    params = (
        ("x", (rows, inputs), x.dtype.value), ("w", packed.shape, "int8"), ("bias", (outputs,), "int32"),
        ("y", (rows, outputs), "int32"),
    )  # fmt: skip
    return Kernel(body, params, {"w": packed})
