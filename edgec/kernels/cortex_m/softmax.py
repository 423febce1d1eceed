"""Softmax of integer rows for Cortex-M cores with DSP instructions (runtime/cortex_m/edgec_softmax.h)."""

from __future__ import annotations

import numpy as np

from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.integer.requantize import rows_of
from edgec.ops.integer.softmax import TERMS, QSoftmax


def words(values: list[int]) -> Array:
    """Numbers of 32 bits, with or without sign, as int32."""
    return np.array(values, np.int64).astype(np.uint32).view(np.int32)


def rows_kernel(op: Op, site: Site, prefix: str) -> Kernel:
    """One call for all rows of a function that is there for every type of input."""
    assert isinstance(op, QSoftmax)
    x = site.inputs[0]
    rows, classes = rows_of(x)
    table = words([classes, op.limit, op.left, op.multiplier, *TERMS[::-1]])
    name = f"{prefix}_{x.dtype.value.replace('int', 'i')}"
    body = f'T.call_extern("void", "{name}", x.data, y.data, {rows}, table.data)'
    params = (("x", (x.size,), x.dtype.value), ("table", table.shape, "int32"), ("y", (x.size,), "int16"))
    return Kernel(body, params, {"table": table})


def softmax(op: Op, site: Site) -> Kernel:
    """Two elements at a time."""
    return rows_kernel(op, site, "edgec_softmax")
