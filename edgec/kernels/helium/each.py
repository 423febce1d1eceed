"""Layers computed element by element, for cores with Helium (runtime/helium/edgec_mve_each.h)."""

from __future__ import annotations

from math import prod

import numpy as np

from edgec.ir.types import DType
from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.integer.pool import QPool2d
from edgec.ops.integer.product import QMul
from edgec.ops.integer.requantize import QLut, Requantize
from edgec.ops.integer.tflite import LEFT_SHIFT, TfliteAdd, TfliteMul
from edgec.ops.lowering.sums import nest

TAPS = 64  # of windows that compilers copy tap by tap, and then make vectors of outputs by themselves


def half_up(x: Array, multiplier: int, shift: int) -> Array:
    """x scaled with halves rounded up."""
    high = (x * multiplier + (1 << 30)) >> 31
    return (high + ((1 << shift) >> 1)) >> shift


def rounds_half_up(op: TfliteAdd) -> bool:
    """Whether rounding halves up instead of away from zero gives the same bytes for every pair of operands."""
    every = np.arange(-128, 128, dtype=np.int64)
    a = half_up((every[:, None] - op.za) << LEFT_SHIFT, op.ma, op.sa)
    b = half_up((every[None] - op.zb) << LEFT_SHIFT, op.mb, op.sb)
    found = np.clip(half_up(a + op.sign * b, op.my, op.sy) + op.zero_point, op.lo, op.hi)
    return bool((found == op.levels(every[:, None], every[None])).all())


def add(op: Op, site: Site) -> Kernel | None:
    """Two tensors of one shape, four elements at a time."""
    assert isinstance(op, TfliteAdd)
    (a, b), n = site.inputs, site.outputs[0].size
    if a.shape != b.shape:
        return None
    terms: Array = np.array([
        -op.za << LEFT_SHIFT, op.ma, -op.sa, -op.zb << LEFT_SHIFT, op.mb, -op.sb, op.my, -op.sy, op.zero_point,
        op.lo, op.hi,
    ], np.int32)  # fmt: skip
    name = ("add" if op.sign > 0 else "sub") + ("_up" if rounds_half_up(op) else "")
    body = f'T.call_extern("void", "edgec_mve_each_{name}", a.data, b.data, y.data, {n}, terms.data)'
    params = (("a", (n,), "int8"), ("b", (n,), "int8"), ("terms", terms.shape, "int32"), ("y", (n,), "int8"))
    return Kernel(body, params, {"terms": terms})


def mul(op: Op, site: Site) -> Kernel | None:
    """Two tensors of one shape, four or eight elements at a time; None where 32 bits would not be exact."""
    assert isinstance(op, QMul | TfliteMul)
    (a, b), n = site.inputs, site.outputs[0].size
    tflite = isinstance(op, TfliteMul)
    dtype = "int8" if isinstance(op, TfliteMul) else op.dtype
    lift = max((31 if tflite else 32) - op.shift, 0)
    reach = prod(max(z - t.dtype.range[0], t.dtype.range[1] - z) for t, z in ((a, op.za), (b, op.zb)))
    if a.shape != b.shape or reach << lift >= 1 << 31 or op.shift + lift > 62:
        return None
    factors: Array = np.array(
        [-op.za, -op.zb, lift, op.multiplier, 31 - op.shift - lift, op.zero_point, op.lo, op.hi], np.int32
    )
    kinds = f"{a.dtype.value}_{b.dtype.value}_to_{dtype}".replace("int", "i")
    plain = not (op.za or op.zb or op.zero_point or lift) and (op.lo, op.hi) == DType.I16.range
    name = "tflite" if tflite else "plain" if plain and kinds == "i16_i16_to_i16" else kinds
    body = f'T.call_extern("void", "edgec_mve_each_mul_{name}", a.data, b.data, y.data, {n}, factors.data)'
    params = (
        ("a", (n,), a.dtype.value), ("b", (n,), b.dtype.value), ("factors", factors.shape, "int32"), ("y", (n,), dtype),
    )  # fmt: skip
    return Kernel(body, params, {"factors": factors})


def pool(op: Op, site: Site) -> Kernel | None:
    """Large windows on no padding: sums of all channels in memory, of which the compiler makes vectors."""
    assert isinstance(op, QPool2d)
    window = op.window(site)
    if window.clipped or prod(op.kernel) <= TAPS or getattr(op, "counted", None):
        return None
    lines = nest(window.positions, op.sums(window).in_memory(window.channels, "total"), 0, "serial")
    total = ("total", (window.channels,), "int32")
    return Kernel("\n".join(lines), (*op.params(site), total), scratch=4 * window.channels)


def requantize(op: Op, site: Site) -> Kernel | None:
    """Row by row with the scales of channels, or all at once; rounded once."""
    assert isinstance(op, Requantize)
    x, n = site.inputs[0], site.outputs[0].size
    if op.rounding != "single" or not {1, 2} <= set(site.consts):
        return None
    multiplier, right = (site.consts[k].astype(np.int64) for k in (1, 2))
    right = np.where(multiplier == 0, np.maximum(right, 32), right)
    lift = max(32 - int(right.min()), 0)
    if lift > 31 - x.dtype.range[1].bit_length() or right.max() + lift > 62:
        return None
    table = np.concatenate([multiplier, 31 - right - lift]).astype(np.int32)
    channels = x.shape[-1] if multiplier.size > 1 else n
    levels = np.array([channels, lift, op.zero_point, op.lo, op.hi], np.int32)
    kinds = f"{x.dtype.value}_to_{op.dtype}".replace("int", "i")
    name = f"edgec_mve_each_{'' if multiplier.size > 1 else 'all_'}{kinds}"
    at = f"r * {channels}"
    body = f"""for r in T.parallel({prod(x.shape) // channels}):
    T.call_extern("void", "{name}", T.address_of(x[{at}]), table.data, T.address_of(y[{at}]), levels.data)"""
    params = (
        ("x", (n,), x.dtype.value), ("table", table.shape, "int32"), ("levels", levels.shape, "int32"),
        ("y", (n,), op.dtype),
    )  # fmt: skip
    return Kernel(body, params, {"table": table, "levels": levels}, drops=(1, 2))


def lut(op: Op, site: Site) -> Kernel | None:
    """Sixteen bytes at a time, the table in the order of their bits."""
    assert isinstance(op, QLut)
    if 1 not in site.consts:
        return None
    n = site.inputs[0].size
    body = f'T.call_extern("void", "edgec_mve_each_lut", x.data, table.data, y.data, {n})'
    params = (("x", (n,), "int8"), ("table", (256,), "int8"), ("y", (n,), "int8"))
    return Kernel(body, params, {"table": np.roll(site.consts[1].astype(np.int8), -128)})
