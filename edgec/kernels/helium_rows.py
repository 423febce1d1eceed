"""Layer norm and softmax of rows for cores with Helium (runtime/edgec_mve_norm.h, edgec_mve_softmax.h)."""

from __future__ import annotations

import numpy as np

from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.qnorm import NEAR, SLOPE, QLayerNorm, deviation_bits
from edgec.ops.qsoftmax import TERMS, QSoftmax
from edgec.ops.quantized import rows_of


def words(values: list[int]) -> Array:
    """Numbers of 32 bits, with or without sign, as int32."""
    return np.array(values, np.int64).astype(np.uint32).view(np.int32)


def layer_norm(op: Op, site: Site) -> Kernel:
    """A row at a time."""
    assert isinstance(op, QLayerNorm)
    x = site.inputs[0]
    rows, channels = rows_of(x)
    up = deviation_bits(channels) - 15
    eps = [op.eps & 0xFFFFFFFF, op.eps >> 32]
    table = words([channels, up, NEAR, SLOPE, op.shift, op.lo, op.hi, *eps])
    name = f"{x.dtype.value}_to_{op.dtype}".replace("int", "i")
    operands = f"x.data, multiplier.data, offset.data, y.data, {rows}, table.data"
    vec = ((channels,), "int32")
    params = (
        ("x", (x.size,), x.dtype.value), ("multiplier", *vec), ("offset", *vec), ("table", table.shape, "int32"),
        ("y", (x.size,), op.dtype),
    )  # fmt: skip
    return Kernel(f'T.call_extern("void", "edgec_mve_norm_{name}", {operands})', params, {"table": table})


def softmax(op: Op, site: Site) -> Kernel:
    """A row at a time."""
    assert isinstance(op, QSoftmax)
    x = site.inputs[0]
    rows, classes = rows_of(x)
    table = words([classes, op.limit, op.left, op.multiplier, *TERMS[::-1]])
    name = f"edgec_mve_softmax_{x.dtype.value.replace('int', 'i')}"
    body = f'T.call_extern("void", "{name}", x.data, y.data, {rows}, table.data)'
    params = (("x", (x.size,), x.dtype.value), ("table", table.shape, "int32"), ("y", (x.size,), "int16"))
    return Kernel(body, params, {"table": table})
