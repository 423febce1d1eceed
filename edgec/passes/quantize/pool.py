"""Quantisation rules of reductions over positions: pooling, mean over an axis, running mean."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2, prod

import numpy as np

from edgec.ir.graph import Node
from edgec.ir.types import DType
from edgec.ops.integer.pool import QAvgPool2d, QMaxPool2d, QMean
from edgec.ops.integer.spiking import QRunningMean
from edgec.ops.pool import Mean
from edgec.ops.shape import Permute
from edgec.passes.quantize.build import EVERYTHING, Builder, Source
from edgec.passes.quantize.numbers import Array, Refusal, Scale, fixed_point, ratio

#: frames after which QRunningMean halves its total
MEAN_FRAMES = 2**16


def int8(b: Builder, name: str) -> Source:
    """A tensor in int8 at its own scale."""
    return b.store(name, DType.I8, b.plan.int8[name])


def max_pool2d(b: Builder, node: Node) -> None:
    """The order of integers is that of the reals, so the scale stays."""
    x = int8(b, node.inputs[0])
    b.emit(QMaxPool2d(node.op.kernel, node.op.stride, node.op.pad), (x.tensor,), node.outputs)
    b.hold(node.output, node.output, Scale(float(x.scale[0]), x.zero))


def avg_pool2d(b: Builder, node: Node) -> None:
    """Sums in int32 and one fixed-point factor."""
    x, target = int8(b, node.inputs[0]), b.plan.int8[node.output]
    n = prod(node.op.kernel)
    if n > 2**14:
        raise Refusal(f"its window of {n} positions is too large for int32 sums")
    counted = node.op.counted
    factor = np.array([float(x.scale[0]) / ((1 if counted else n) * target.scale)])
    multiplier, shift = fixed_point(factor, min(15, 29 - ceil(log2(255 * n))))
    shape = (node.op.kernel, node.op.stride, node.op.pad, x.zero)
    op = QAvgPool2d(*shape, target.scale, target.zero, x.zero, int(multiplier[0]), shift, counted=counted)
    b.emit(op, (x.tensor,), node.outputs)
    b.hold(node.output, node.output, target)


def largest(source: Source) -> Array:
    """The largest magnitude of what a mean adds up, by channel or of all."""
    return np.asarray(np.maximum(np.abs(source.lo - source.zero), np.abs(source.hi - source.zero)), np.float64)


def limit_of(source: Source, divisor: int) -> int:
    """The largest total of a sum over time: that of MEAN_FRAMES frames, or of as many as it was trained on."""
    return int(largest(source).max()) * max(MEAN_FRAMES, divisor) if divisor else 0


def mean_ratio(source: Source, target: Scale, channels: int, frames: int, limit: int = 0) -> tuple[Array, Array]:
    """multiplier and shift of a mean over `frames`: as many bits as total * multiplier leaves in int64."""
    multiplier, shift = ratio(np.broadcast_to(source.scale / target.scale, (channels,)))
    top = np.asarray(limit / frames) if limit else largest(source)
    drop = np.maximum(np.ceil(np.log2(np.maximum(top * frames * 2.0**31, 1.0))) - 62, 0).astype(np.int32)
    multiplier, shift = multiplier >> drop, shift - drop
    if (shift < 9).any() or (drop > 16).any():
        raise Refusal("the scale of its output is too fine for its accumulators")
    return multiplier, shift


def running_mean(b: Builder, node: Node) -> None:
    """Means of accumulators, spikes or activations: what is added is not rounded first."""
    if node.type.time_axis != len(node.type.shape) - 2:
        raise Refusal("its time axis is not the last but one")
    x, target = b.summand(node.inputs[0]), b.plan.int8[node.output]
    window, divisor, limit = node.op.window, node.op.divisor, limit_of(x, node.op.divisor)
    frames = window + 1 if window else max(MEAN_FRAMES, divisor)
    multiplier, shift = mean_ratio(x, target, node.type.shape[-1], frames, limit)
    names = (b.const(f"{node.output}_multiplier", multiplier), b.const(f"{node.output}_shift", shift))
    op = QRunningMean(window, target.scale, target.zero, x.zero, divisor, limit)
    b.emit(op, (x.tensor, *names), node.outputs)
    b.hold(node.output, node.output, target)


def mean(b: Builder, node: Node) -> None:
    """Over time it reads what its streaming form does; over another axis accumulators or int8."""
    op: Mean = node.op
    t, target, axis = b.graph.type_of(node.inputs[0]), b.plan.int8[node.output], op.axis
    shape, over_time = t.shape, t.time_axis == axis
    source, last = b.sources[node.inputs[0]], axis == len(shape) - 1
    summed = b.dtype(source) is DType.I32 and source.clip == EVERYTHING and not source.is_mapped and not last
    if shape[axis] > MEAN_FRAMES:
        raise Refusal(f"its axis has {shape[axis]} positions, more than {MEAN_FRAMES}")
    if over_time and axis != len(shape) - 2:
        source, axis = frames_before_channels(b, node), len(shape) - 2
    elif over_time:
        source = b.summand(node.inputs[0])
    elif not summed:
        source = int8(b, node.inputs[0])
    frames = MEAN_FRAMES if over_time else shape[axis]
    per_channel = over_time or not (last or t.time_axis == len(shape) - 1)  # along the last axis of what is left
    channels = node.type.shape[-1] if per_channel else 1
    limit = limit_of(source, op.divisor) if over_time else 0
    multiplier, shift = mean_ratio(source, target, channels, frames, limit)
    names = (b.const(f"{node.output}_multiplier", multiplier), b.const(f"{node.output}_shift", shift))
    mean = QMean(axis, target.scale, target.zero, source.zero, op.divisor, limit)
    b.emit(mean, (source.tensor, *names), node.outputs)
    b.hold(node.output, node.output, target)


def frames_before_channels(b: Builder, node: Node) -> Source:
    """What a mean over time reads in int8, its time axis moved to where a running mean has it: the last but one."""
    source, rank = int8(b, node.inputs[0]), len(b.graph.type_of(node.inputs[0]).shape)
    if rank < 2:
        raise Refusal("it has no axis beside time")
    rest = [k for k in range(rank) if k != node.op.axis]
    moved = b.fresh(node.output, "frames")
    b.emit(Permute((*rest[:-1], node.op.axis, rest[-1])), (source.tensor,), (moved,))
    return replace(source, tensor=moved)
