"""Quantisation rules of everything without weights: front end, elementwise ops, shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from edgec.ir.graph import Node
from edgec.ir.types import DType
from edgec.ops.base import site_of
from edgec.ops.elementwise import Mul, Relu, Relu6, Sub
from edgec.ops.integer.requantize import QAdd, QLut
from edgec.ops.signal.log_mel import to_integer
from edgec.passes.quantize.build import Builder, Source
from edgec.passes.quantize.numbers import Array, Refusal, Scale, asymmetric, fixed_point
from edgec.passes.quantize.product import product


def log_mel(b: Builder, node: Node) -> None:
    """The integer front end writes int16 features: a spiking network amplifies the rounding of int8 ones."""
    if node.inputs[0] not in {v.name for v in b.inputs}:
        raise Refusal("it reads a computed tensor; the integer front end reads the PCM input")
    scale = b.plan.int16[node.output]
    b.emit(to_integer(node.op, scale.scale, scale.zero, "int16"), node.inputs, node.outputs)
    b.features.add(node.output)
    b.hold(node.output, node.output, scale)


def mapped(b: Builder, name: str, x: str, gain: Array, offset: Array) -> None:
    """name = x * gain + offset, by description only; what a relu cut off is stored first."""
    source = b.sources[x]
    if source.clip != (-np.inf, np.inf):
        source = b.store(x, *b.plan.stored(x))
    assert b.node is not None
    via = source.via + b.node.source
    b.sources[name] = replace(source, scale=source.scale * gain, shift=source.shift * gain + offset, via=via)


def affine(b: Builder, node: Node) -> None:
    """Batch norm: folded into whatever reads it."""
    x, scale, shift = node.inputs
    gain, offset = b.data(scale), b.data(shift)
    if gain is None or offset is None:
        raise Refusal("its scale and shift are computed, not constant")
    linear_map(b, node, x, node.op.axis % len(node.type.shape), gain.astype(np.float64), offset.astype(np.float64))


def linear_map(b: Builder, node: Node, x: str, axis: int, gain: Array, offset: Array) -> None:
    """x * gain + offset along an axis: by description only where the axis is the last or there is one number."""
    if axis == len(node.type.shape) - 1 or gain.size == offset.size == 1:
        return mapped(b, node.output, x, gain, offset)
    source = b.sources[x]
    if not b.is_plain(source) or b.dtype(source) not in (DType.I8, DType.I16):
        source = b.store(x, *b.plan.stored(x))
    dtype, target = b.plan.stored(node.output)
    map_ = replace(source, scale=source.scale * gain, shift=source.shift * gain + offset)
    b.emit_affine(map_, node.output, dtype, target, axis)
    b.hold(node.output, node.output, target)
    return None


def arithmetic(b: Builder, node: Node) -> None:
    """Add, subtract or multiply: by a constant along one axis it is an affine map, otherwise there are integer ops."""
    found = node.op.linear_map(site_of(b.graph, node))
    if found is not None:
        return linear_map(b, node, node.inputs[found.operand], found.axis, found.scale, found.shift)
    if isinstance(node.op, Mul):
        return product(b, node)
    if node.output in b.plan.residual:
        return residual_add(b, node)
    return int8_add(b, node)


def residual_add(b: Builder, node: Node) -> None:
    """int16 at the common scale of the residual group: a plain saturating addition."""
    scale, sign = b.plan.residual[node.output], -1 if isinstance(node.op, Sub) else 1
    x, y = (
        b.store(i, DType.I16, scale) if (c := b.data(i)) is None else b.constant(i, DType.I16, scale, c.shape)
        for i in node.inputs
    )
    b.emit(QAdd("int16", scale.scale, mb=sign), (x.tensor, y.tensor), node.outputs)
    b.hold(node.output, node.output, scale)


def int8_add(b: Builder, node: Node) -> None:
    """int8 operands of different scales; a relu that alone follows becomes the lower clamp."""
    after = b.graph.consumers(node.output)
    fused = len(after) == 1 and isinstance(after[0].op, (Relu, Relu6)) and node.output not in b.graph.outputs
    name = after[0].output if fused else node.output
    target = b.plan.int8[name]
    xs = [stored_int8(b, i) for i in node.inputs]
    signs = np.array([1.0, -1.0 if isinstance(node.op, Sub) else 1.0])
    (ma, mb), shift = fixed_point(signs * [float(x.scale[0]) for x in xs] / target.scale, 15)
    lo, hi = (target.quantized(v) for v in (after[0].op.bounds if fused else (-np.inf, np.inf)))
    op = QAdd("int8", target.scale, target.zero, xs[0].zero, xs[1].zero, int(ma), int(mb), shift, lo, hi)
    b.emit(op, (xs[0].tensor, xs[1].tensor), (name,))
    held = replace(b.hold(name, name, target), lo=np.array([lo]), hi=np.array([hi]))
    b.sources[node.output] = b.sources[name] = held


def stored_int8(b: Builder, name: str) -> Source:
    """A tensor in int8; a constant at the scale its own values need."""
    values = b.data(name)
    if values is None:
        return b.store(name, DType.I8, b.plan.int8[name])
    return b.constant(
        name, DType.I8, asymmetric(min(float(values.min()), 0.0), max(float(values.max()), 0.0)), values.shape
    )


def clamp(b: Builder, node: Node) -> None:
    """Relu and its like: a clamp of whatever stores the tensor next. Nothing to do where an add already applied it."""
    if node.output in b.sources:
        return
    source, (lo, hi) = b.sources[node.inputs[0]], node.op.bounds
    clip = (max(lo, source.clip[0]), min(hi, source.clip[1]))
    b.sources[node.output] = replace(source, clip=clip, via=source.via + node.source)


def table(b: Builder, node: Node) -> None:
    """A function of one element of one tensor, whose other operands are numbers."""
    values = [b.data(i) for i in node.inputs]
    computed = {i for i, v in zip(node.inputs, values, strict=True) if v is None}
    if len(computed) > 1 or any(v is not None and v.size > 1 for v in values) or not node.type.dtype.is_float:
        raise Refusal("no table serves it: it is a function of several numbers, or its result is not float32")
    numbers = [None if v is None else torch.tensor(v.item(), dtype=torch.float32) for v in values]
    tabulate(b, node, computed.pop(), lambda x: node.op.reference(*(x if n is None else n for n in numbers)))


def tabulate(b: Builder, node: Node, name: str, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """A function of one element of a tensor: 256 results. A level where it is not a number has its neighbour's."""
    x = b.store(name, DType.I8, b.plan.int8[name])
    target = b.plan.int8[node.output]
    reals = float(x.scale[0]) * (np.arange(-128, 128) - x.zero)
    values = function(torch.from_numpy(reals)).numpy()
    known = np.flatnonzero(~np.isnan(values))
    values = values[known[np.abs(np.arange(256)[:, None] - known).argmin(1)]]
    entries = np.clip(np.floor(values / target.scale + 0.5) + target.zero, -128, 127).astype(np.int8)
    table = b.const(f"{node.output}_table", entries)
    b.emit(QLut(target.scale, target.zero), (x.tensor, table), node.outputs)
    b.hold(node.output, node.output, target)


def concat(b: Builder, node: Node) -> None:
    """Spikes stay spikes where whole words join, else become int8 0 and 1; anything else takes the result's scale."""
    sources = [b.sources[i] for i in node.inputs if b.data(i) is None]
    spikes = all(b.dtype(s) is DType.BIT and s.stored_as(Scale(1.0)) for s in sources)
    spikes = spikes and len(sources) == len(node.inputs)
    dtype, target = (DType.I8, Scale(1.0)) if spikes else b.plan.stored(node.output)
    if not spikes or not takes(b, node, sources):
        sources = [
            b.store(i, dtype, target) if b.data(i) is None else b.constant(i, dtype, target, b.graph.type_of(i).shape)
            for i in node.inputs
        ]
    place(b, node, tuple(s.tensor for s in sources))
    held = b.hold(node.output, node.output, target)
    lo, hi = min(b.range_of(s)[0] for s in sources), max(b.range_of(s)[1] for s in sources)
    b.sources[node.output] = replace(held, lo=np.array([lo]), hi=np.array([hi]))


def takes(b: Builder, node: Node, sources: list[Source]) -> bool:
    """Whether the float op itself can move integers of these types; spikes are packed along the last axis."""
    try:
        node.op.infer([b.types[s.tensor] for s in sources])
    except ValueError:
        return False
    return True


def place(b: Builder, node: Node, inputs: tuple[str, ...]) -> None:
    """The float op itself on integers; Refusal where the integer type cannot be moved so."""
    try:
        b.emit(node.op, inputs, node.outputs)
    except ValueError as err:
        raise Refusal(str(err)) from err


def moved(b: Builder, node: Node) -> None:
    """Reshape, permute, slice: the same integers elsewhere."""
    name, source = node.inputs[0], b.sources[node.inputs[0]]
    if not b.is_plain(source) or b.dtype(source) is DType.I32:
        source = b.store(name, *b.plan.stored(name))
    if b.dtype(source) is DType.BIT and not takes(b, node, [source]):
        source = b.store(name, DType.I8, Scale(1.0))
    place(b, node, (source.tensor,))
    if name in b.features:
        b.features.add(node.output)
    held = b.hold(node.output, node.output, Scale(float(source.scale[0]), source.zero))
    b.sources[node.output] = replace(held, lo=source.lo, hi=source.hi)
