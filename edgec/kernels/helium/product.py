"""Products of two computed tensors for cores with Helium (runtime/helium/edgec_mve_product.h)."""

from __future__ import annotations

from math import prod

import numpy as np

from edgec.ir.types import DType
from edgec.kernels.helium.image import REACH, SOME, VECTOR
from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.integer.product import QMatMul


def product(op: Op, site: Site) -> Kernel | None:
    """The right factor is packed into scratch, for two rows of the left one and more."""
    assert isinstance(op, QMatMul)
    a, b = site.inputs
    (rows, terms), columns, batch = a.shape[-2:], site.outputs[0].shape[-1], prod(a.shape[:-2])
    size = 2 if a.dtype is DType.I16 else 1
    lanes = VECTOR // size
    if rows < 2 or terms % lanes or columns % SOME or (op.za and not op.transpose_b):
        return None
    words = terms * SOME // 4 + SOME  # of a block
    # where the terms of a column go, from one to the next; where columns go
    of_terms = np.arange(terms) // lanes * SOME * lanes + np.arange(terms) % lanes
    of_columns = np.arange(columns) // SOME * 4 * words + np.arange(columns) % SOME * lanes
    places = of_terms if op.transpose_b else of_columns
    if places.max() >= REACH:
        return None
    inner, major, minor = (SOME, 4 * words, lanes) if op.transpose_b else (lanes, SOME * lanes, 1)
    table = np.array([
        terms * size, columns, terms // lanes, columns, 0, 0, 0, rows, terms, op.za, op.zb, b.shape[-2], b.shape[-1],
        inner, major, minor, words,
    ], np.int32)  # fmt: skip
    stream = columns // SOME * words
    body = f"""for n in T.serial({batch}):
    T.call_extern("void", "edgec_mve_product_i{8 * size}", T.address_of(a[n * {rows * terms}]),
        T.address_of(b[n * {terms * columns}]), T.address_of(y[n * {rows * columns}]), table.data, places.data,
        scratch.data)"""
    params = (
        ("a", (a.size,), a.dtype.value), ("b", (b.size,), "int8"), ("table", table.shape, "int32"),
        ("places", places.shape, "int16"), ("y", (site.outputs[0].size,), "int32"), ("scratch", (stream,), "int32"),
    )  # fmt: skip
    consts: dict[str, Array] = {"table": table, "places": places.astype(np.uint16).view(np.int16)}
    return Kernel(body, params, consts, scratch=4 * stream)
