"""How elementwise arithmetic becomes integers: a description of what is stored, a sum, a product or a table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from edgec.ir.graph import Node
from edgec.ir.types import DType
from edgec.ops.base import LinearMap, site_of
from edgec.ops.integer.build import EVERYTHING, Builder, Source
from edgec.ops.integer.numbers import Refusal, asymmetric, fixed_point, nearest_point, ratio
from edgec.ops.integer.product import QMul
from edgec.ops.integer.requantize import QAdd, QLut


def described(b: Builder, node: Node) -> bool:
    """Whether a node is an affine map, which is then taken care of: by description only where its axis is the last or
    there is one number, so that whatever reads it computes it. What a relu cut off is stored first."""
    m: LinearMap | None = node.op.linear_map(site_of(b.graph, node))
    if m is None:
        return False
    x, last = node.inputs[m.operand], m.axis == len(node.type.shape) - 1 or m.scale.size == m.shift.size == 1
    source = b.sources[x]
    integers = b.is_plain(source) and b.dtype(source) in (DType.I8, DType.I16)
    if not (source.clip == EVERYTHING if last else integers):
        source = b.store(x, *b.plan.stored(x))
    mapped = replace(source, scale=source.scale * m.scale, shift=source.shift * m.scale + m.shift)
    if last:
        b.sources[node.output] = replace(mapped, via=source.via + node.source)
        return True
    dtype, target = b.plan.stored(node.output)
    b.emit_affine(mapped, node.output, dtype, target, m.axis)
    b.hold(node.output, node.output, target)
    return True


def added(b: Builder, node: Node, sign: int, relu: Node | None) -> None:
    """x + sign * y: at the scale of a residual group, else in int8, where the relu behind it becomes the clamp."""
    if node.output in b.plan.residual:
        residual_add(b, node, sign)
    else:
        int8_add(b, node, sign, relu)


def residual_add(b: Builder, node: Node, sign: int) -> None:
    """int16 at the common scale of the residual group: a plain saturating addition."""
    scale = b.plan.residual[node.output]
    x, y = (b.store(i, DType.I16, scale) for i in node.inputs)
    b.emit(QAdd("int16", scale.scale, mb=sign), (x.tensor, y.tensor), node.outputs)
    b.hold(node.output, node.output, scale)


def int8_add(b: Builder, node: Node, sign: int, relu: Node | None) -> None:
    """int8 operands of different scales."""
    name = (relu or node).output
    target = b.plan.int8[name]
    xs = [stored_int8(b, i) for i in node.inputs]
    signs = np.array([1.0, float(sign)])
    factors = signs * [float(x.scale[0]) for x in xs] / target.scale
    top = 256 * float(np.abs(factors).sum()) + 2
    (ma, mb), shift = nearest_point(factors, top) if target.exact else fixed_point(factors, 15)
    lo, hi = (target.quantized(v) for v in (relu.op.bounds if relu else EVERYTHING))
    op = QAdd("int8", target.scale, target.zero, xs[0].zero, xs[1].zero, int(ma), int(mb), shift, lo, hi)
    b.emit(op, (xs[0].tensor, xs[1].tensor), (name,))
    held = replace(b.hold(name, name, target), lo=np.array([lo]), hi=np.array([hi]))
    b.sources[node.output] = b.sources[name] = held


def stored_int8(b: Builder, name: str) -> Source:
    """A tensor in int8; a constant at the scale its own values need."""
    values = b.data(name)
    if values is None:
        return b.store(name, DType.I8, b.plan.int8[name])
    own = asymmetric(min(float(values.min()), 0.0), max(float(values.max()), 0.0))
    return b.given(name) or b.constant(name, DType.I8, own)


def multiplied(b: Builder, node: Node) -> None:
    """int16 factors (int8 where so stored), rounded once to what the reader wants."""
    x, y = (b.operand(i) for i in node.inputs)
    dtype, target = b.plan.stored(node.output)
    multiplier, shift = ratio(target.of(x.scale * y.scale))
    places = (int(multiplier[0]), int(shift[0]))
    op = QMul(dtype.value, target.scale, target.zero, x.zero, y.zero, *places, *dtype.range)
    b.emit(op, (x.tensor, y.tensor), node.outputs)
    b.hold(node.output, node.output, target)


def clamped(b: Builder, node: Node, ends: tuple[float, float]) -> None:
    """A clamp of whatever stores the tensor next. Nothing to do where a sum already applied it."""
    if node.output in b.sources:
        return
    source = b.sources[node.inputs[0]]
    clip = (max(ends[0], source.clip[0]), min(ends[1], source.clip[1]))
    b.sources[node.output] = replace(source, clip=clip, via=source.via + node.source)


def tabulated(b: Builder, node: Node) -> None:
    """A function of one element of one tensor, whose other operands are numbers: 256 results. A level where it is not a
    number has its neighbour's."""
    values = [b.data(i) for i in node.inputs]
    computed = {i for i, v in zip(node.inputs, values, strict=True) if v is None}
    if len(computed) > 1 or any(v is not None and v.size > 1 for v in values) or not node.type.dtype.is_float:
        raise Refusal("no table serves it: it is a function of several numbers, or its result is not float32")
    name, target = computed.pop(), b.plan.int8[node.output]
    x = b.store(name, DType.I8, b.plan.int8[name])
    reals = float(x.scale[0]) * (np.arange(-128, 128) - x.zero)
    given = torch.from_numpy(reals.astype(np.float32) if target.exact else reals)
    operands = (given if v is None else torch.tensor(v.item(), dtype=torch.float32) for v in values)
    levels = node.op.reference(*operands).numpy()
    known = np.flatnonzero(~np.isnan(levels))
    levels = levels[known[np.abs(np.arange(256)[:, None] - known).argmin(1)]]
    table = b.const(f"{node.output}_table", target.levels(levels).astype(np.int8))
    b.emit(QLut(target.scale, target.zero), (x.tensor, table), node.outputs)
    b.hold(node.output, node.output, target)
