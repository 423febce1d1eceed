"""Quantisation rules of everything without weights: front end, elementwise ops, shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from edgec.ir.graph import Node
from edgec.ir.types import DType
from edgec.ops.elementwise import Clip, Mul, Relu, Relu6, Sub
from edgec.ops.quantized import QAdd, QLut
from edgec.ops.signal import to_integer
from edgec.passes.quantize_build import Builder, Source
from edgec.passes.quantize_numbers import Array, Refusal, Scale, asymmetric, fixed_point, per_channel
from edgec.passes.quantize_product import product


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
    if node.op.axis % len(node.type.shape) != len(node.type.shape) - 1:
        raise Refusal("its channels are not the last axis", "run assign_layout first")
    mapped(b, node.output, x, gain.astype(np.float64), offset.astype(np.float64))


def arithmetic(b: Builder, node: Node) -> None:
    """Add, subtract or multiply: by one constant per channel it is an affine map, otherwise there are integer ops."""
    op, computed = node.op, [i for i in node.inputs if b.data(i) is None]
    values = next((v for v in map(b.data, node.inputs) if v is not None), None)
    vector = None if values is None else per_channel(values, node.type)
    if vector is not None and b.graph.type_of(computed[0]).shape == node.type.shape:
        one, zero = np.ones(1), np.zeros(1)
        if isinstance(op, Mul):
            return mapped(b, node.output, computed[0], vector, zero)
        negated = isinstance(op, Sub) and computed[0] == node.inputs[1]
        offset = -vector if isinstance(op, Sub) and not negated else vector
        return mapped(b, node.output, computed[0], -one if negated else one, offset)
    if isinstance(op, Mul) and values is None:
        return product(b, node)
    if isinstance(op, Mul) and values is not None and vector is None:
        raise Refusal(f"its constant of shape {values.shape} is not one value per channel")
    if isinstance(op, Mul) or any(b.graph.type_of(i).shape != node.type.shape for i in computed):
        raise Refusal("its operands broadcast", "give both operands one shape")
    if node.output in b.plan.residual:
        return residual_add(b, node)
    return int8_add(b, node)


def residual_add(b: Builder, node: Node) -> None:
    """int16 at the common scale of the residual group: a plain saturating addition."""
    scale, sign = b.plan.residual[node.output], -1 if isinstance(node.op, Sub) else 1
    x, y = (
        b.store(i, DType.I16, scale) if b.data(i) is None else b.constant(i, DType.I16, scale, node.type.shape)
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
    xs = [stored_int8(b, i, node.type.shape) for i in node.inputs]
    signs = np.array([1.0, -1.0 if isinstance(node.op, Sub) else 1.0])
    (ma, mb), shift = fixed_point(signs * [float(x.scale[0]) for x in xs] / target.scale, 15)
    lo, hi = (target.quantized(v) for v in (clip_of(after[0].op) if fused else (-np.inf, np.inf)))
    op = QAdd("int8", target.scale, target.zero, xs[0].zero, xs[1].zero, int(ma), int(mb), shift, lo, hi)
    b.emit(op, (xs[0].tensor, xs[1].tensor), (name,))
    held = replace(b.hold(name, name, target), lo=np.array([lo]), hi=np.array([hi]))
    b.sources[node.output] = b.sources[name] = held


def stored_int8(b: Builder, name: str, shape: tuple[int, ...]) -> Source:
    """A tensor in int8; a constant at the scale its own values need."""
    values = b.data(name)
    if values is None:
        return b.store(name, DType.I8, b.plan.int8[name])
    return b.constant(name, DType.I8, asymmetric(min(values.min(), 0.0), max(values.max(), 0.0)), shape)


def clip_of(op: Any) -> tuple[float, float]:
    """Real bounds of a clamping op."""
    if isinstance(op, Clip):
        return -np.inf if op.low is None else op.low, np.inf if op.high is None else op.high
    return 0.0, 6.0 if isinstance(op, Relu6) else np.inf


def clamp(b: Builder, node: Node) -> None:
    """Relu and its like: a clamp of whatever stores the tensor next. Nothing to do where an add already applied it."""
    if node.output in b.sources:
        return
    source, (lo, hi) = b.sources[node.inputs[0]], clip_of(node.op)
    clip = (max(lo, source.clip[0]), min(hi, source.clip[1]))
    b.sources[node.output] = replace(source, clip=clip, via=source.via + node.source)


def table(b: Builder, node: Node) -> None:
    """A function of one element: 256 results."""
    x = b.store(node.inputs[0], DType.I8, b.plan.int8[node.inputs[0]])
    target = b.plan.int8[node.output]
    reals = float(x.scale[0]) * (np.arange(-128, 128) - x.zero)
    values = node.op.reference(torch.from_numpy(reals)).numpy()
    entries = np.clip(np.floor(values / target.scale + 0.5) + target.zero, -128, 127).astype(np.int8)
    name = b.const(f"{node.output}_table", entries)
    b.emit(QLut(target.scale, target.zero), (x.tensor, name), node.outputs)
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
