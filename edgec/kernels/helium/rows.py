"""Layer norm and softmax of rows for cores with Helium (runtime/helium/edgec_mve_norm.h, edgec_mve_softmax.h)."""

from __future__ import annotations

from edgec.kernels.cortex_m.softmax import rows_kernel, words
from edgec.ops.base import Kernel, Op, Site
from edgec.ops.integer.norm import NEAR, SLOPE, QLayerNorm, deviation_bits
from edgec.ops.integer.requantize import rows_of


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
    """Four elements at a time."""
    return rows_kernel(op, site, "edgec_mve_softmax")
