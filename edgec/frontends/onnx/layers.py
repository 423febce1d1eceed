"""ONNX layers on integers: convolutions, products, pools, means, softmax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from edgec.frontends.onnx.values import Array, Call, Constant, Grid, Pending, Stored, channels_last, power
from edgec.frontends.tflite.numbers import multipliers, same_padding
from edgec.ops.integer.conv import QConv2dRequantize
from edgec.ops.integer.elementwise import QAffine
from edgec.ops.integer.linear import QLinearRequantize
from edgec.ops.integer.pool import QAvgPool2d, QMaxPool2d, QMean
from edgec.ops.integer.requantize import Requantize, accumulator_bounds
from edgec.ops.integer.softmax import PROBABILITY, exponent
from edgec.ops.shape import Reshape
from edgec.ops.window import ceil_pads


def weights(call: Call, key: str, outputs_axis: int) -> tuple[Array, Array]:
    """int8 weights without zero point, and a scale per output."""
    w, name = call.constant(key), call[key].name
    if w.integers is None:
        raise ValueError(f"weights {name} are not quantised")
    outputs = w.real.shape[outputs_axis]
    if w.scales.size not in (1, outputs) or (w.scales.size > 1 and w.axis % w.real.ndim != outputs_axis % w.real.ndim):
        raise ValueError(f"weights have {w.scales.size} scales along axis {w.axis}, expected axis {outputs_axis}")
    shape = [1] * w.real.ndim
    shape[outputs_axis] = w.zeros.size
    centred = w.integers.astype(np.int64) - w.zeros.astype(np.int64).reshape(shape)
    if centred.min(initial=0) < -128 or centred.max(initial=0) > 127:
        raise ValueError(f"weights {name} less their zero point do not fit int8")
    return centred.astype(np.int8), np.broadcast_to(w.scales, (outputs,))


def folded_bias(bias: Constant | None, w: Array, x: Grid, scales: Array) -> Array:
    """bias - zero point of x * sum of the weights, in units of the accumulator; w [..., O].

    An int32 bias with the accumulator's scale is taken as it is, any other is rounded to it. ValueError where an
    accumulator could leave int32.
    """
    unit = np.float32(x.scale) * scales.astype(np.float32)
    total = np.zeros(unit.shape, np.int64)
    if bias is not None:
        if bias.real.shape != unit.shape:
            raise ValueError(f"bias of shape {bias.real.shape}, expected {unit.shape}")
        own = bias.integers is not None and np.allclose(bias.scales, unit, rtol=1e-5, atol=0) and not bias.zeros.any()
        exact = bias.integers if own and bias.integers is not None else np.rint(bias.real / unit.astype(np.float64))
        total = exact.astype(np.int64)
    total = total - x.zero * w.astype(np.int64).reshape(-1, unit.size).sum(0)
    low, high = accumulator_bounds(w, total, (-128, 127))
    if min(int(low.min()), int(total.min())) < -(2**31) or max(int(high.max()), int(total.max())) >= 2**31:
        raise ValueError("its accumulator can leave the range of int32")
    folded: Array = total.astype(np.int32)
    return folded


def rescaling(x: Grid, scales: Array, y: Grid) -> tuple[Array, Array]:
    """Multiplier and shift per output of the float32 factor that onnxruntime computes: exact, as it has 24 bits."""
    factors = (np.float32(x.scale) * scales.astype(np.float32)) / np.float32(y.scale)
    return multipliers([float(f) for f in factors])


def image(call: Call, x: Stored) -> tuple[str, tuple[int, ...]]:
    """The tensor as [batch, height, width, channels], a sequence with height 1; its name and shape."""
    rank = len(x.shape)
    if rank not in (3, 4):
        raise ValueError(f"input of shape {x.shape}, expected one or two spatial axes")
    name, order = call.arranged(x, channels_last(rank)), channels_last(rank)
    shape = tuple(x.shape[a] for a in order)
    if rank == 4:
        return name, shape
    wide = (shape[0], 1, *shape[1:])
    return call.build.emit(Reshape(wide), name), wide


def back(call: Call, name: str, rank: int, grid: Grid) -> Stored:
    """The result of an image op in the file's rank."""
    shape = call.build.type_of(name).shape
    if rank == 3:
        shape = (shape[0], *shape[2:])
        name = call.emit(Reshape(shape), name)
    order = channels_last(rank)
    return Stored(name, tuple(shape[order.index(a)] for a in range(rank)), grid, order)


def window(call: Call, x: tuple[int, ...], kernel: tuple[int, ...], ceiling: bool = False) -> dict[str, Any]:
    """kernel, stride, pad and dilation over two axes; those of a sequence lie along the second. `given` is the padding
    without what `ceiling` adds to it."""

    def two(values: tuple[int, ...], other: int) -> tuple[int, int]:
        return (other, values[0]) if len(values) == 1 else (values[0], values[1])

    n = len(kernel)
    if (call.integers("kernel_shape") or kernel) != kernel:
        raise ValueError(f"kernel_shape {call['kernel_shape']}, expected that of its weights, {kernel}")
    size, stride = two(kernel, 1), two(call.integers("strides") or (1,) * n, 1)
    dilation = two(call.integers("dilations") or (1,) * n, 1)
    auto = call.only("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    pads = (call.integers("pads") if auto == "NOTSET" else ()) or (0,) * (2 * n)
    if min(*size, *stride, *dilation) < 1 or min(pads, default=0) < 0:
        raise ValueError(f"window {kernel}, strides {stride}, dilations {dilation}, pads {pads} are out of range")
    sides = list(zip(two(pads[:n], 0), two(pads[n:], 0), strict=True))
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        sides = [same_padding(x[1 + k], size[k], stride[k], dilation[k]) for k in (0, 1)]
        sides = [s[::-1] if auto == "SAME_LOWER" else s for s in sides]
    given = (*sides[0], *sides[1])
    if ceiling:
        spans = (d * (n - 1) + 1 for n, d in zip(size, dilation, strict=True))
        sides = [ceil_pads(*side) for side in zip(x[1:3], spans, stride, sides, strict=True)]
    return {"kernel": size, "stride": stride, "pad": (*sides[0], *sides[1]), "dilation": dilation, "given": given}


def convolution(call: Call) -> Pending:
    """Conv of images and sequences, with groups; one rounding, half up of the exact product."""
    x = call.stored("X")
    name, shape = image(call, x)
    w, scales = weights(call, "W", 0)
    if w.ndim != len(x.shape):
        raise ValueError(f"weights of shape {w.shape} for an input of shape {x.shape}")
    place = window(call, shape, w.shape[2:])
    w = (w if w.ndim == 4 else w[:, :, None]).transpose(2, 3, 1, 0)  # [KH, KW, C/groups, O]
    groups = call["group"]
    if shape[3] != w.shape[2] * groups:
        raise ValueError(f"weights {w.shape} in {groups} groups do not fit {shape[3]} channels")
    bias = folded_bias(call.constant("B") if call.has("B") else None, w, x.grid, scales)

    def make(grid: Grid, lo: int, hi: int) -> Stored:
        multiplier, shift = rescaling(x.grid, scales, grid)
        names = call.consts(weights=w, bias=bias, multiplier=multiplier, shift=shift)
        where = (place["stride"], place["pad"], place["dilation"], groups, x.grid.zero)
        op = QConv2dRequantize(*where, "int8", grid.scale, grid.zero, lo, hi, "single")
        return back(call, call.emit(op, name, *names), len(x.shape), grid)

    return Pending(make)


def product(call: Call, w: Array, scales: Array, bias: Array, x: Stored, name: str) -> Pending:
    """Rows of x, the tensor `name`, times w [I, O]."""
    rows, outputs = prod(x.shape[:-1]), w.shape[1]
    shape = (*x.shape[:-1], outputs)

    def make(grid: Grid, lo: int, hi: int) -> Stored:
        multiplier, shift = rescaling(x.grid, scales, grid)
        names = call.consts(weights=w, bias=bias, multiplier=multiplier, shift=shift)
        flat = name if len(shape) == 2 else call.build.emit(Reshape((rows, w.shape[0])), name)
        y = call.emit(QLinearRequantize("int8", grid.scale, grid.zero, lo, hi, "single"), flat, *names)
        y = y if len(shape) == 2 else call.emit(Reshape(shape), y)
        return Stored(y, shape, grid, tuple(range(len(shape))))

    return Pending(make)


def rows_of(call: Call, x: Stored, w: Array) -> tuple[str, Array]:
    """The name of x and the weights [I, O] in the order of its elements: those of a flattened image are moved."""
    if w.shape[0] != x.shape[-1]:
        raise ValueError(f"weights for {w.shape[0]} inputs, found {x.shape[-1]}")
    if x.flat is None:
        return call.natural(x), w
    channels, positions = x.flat
    return x.name, np.ascontiguousarray(w.reshape(channels, positions, -1).swapaxes(0, 1).reshape(w.shape))


def gemm(call: Call) -> Pending:
    """x W + b or x W' + b."""
    for key, value in (("transA", 0), ("alpha", 1.0), ("beta", 1.0)):
        call.only(key, value)
    x, turned = call.stored("A"), call["transB"]
    w, scales = weights(call, "B", 0 if turned else 1)
    name, rows = rows_of(call, x, w.T if turned else w)
    bias = folded_bias(call.constant("C") if call.has("C") else None, rows, x.grid, scales)
    return product(call, rows, scales, bias, x, name)


def matmul(call: Call) -> Pending:
    """x times a constant matrix."""
    if not isinstance(call.value("B"), Constant):
        raise ValueError("a product of two computed tensors is not supported; supported: a constant right side")
    x, (w, scales) = call.stored("A"), weights(call, "B", -1)
    if w.ndim != 2:
        raise ValueError(f"weights of shape {w.shape}, expected two axes")
    name, rows = rows_of(call, x, w)
    return product(call, rows, scales, folded_bias(None, rows, x.grid, scales), x, name)


def batch_norm(call: Call) -> Pending:
    """A factor and an offset for each channel, axis 1; one rounding, of a fixed-point sum with as many bits as int32
    holds."""
    if call["training_mode"]:
        raise ValueError("training_mode is not 0: export the model in eval mode")
    call.ignore("momentum")
    x, keys = call.stored("X"), ("scale", "B", "input_mean", "input_var")
    gamma, beta, center, variance = (call.constant(key).real.astype(np.float64).reshape(-1) for key in keys)
    channels = x.shape[1] if len(x.shape) > 1 else 1
    if {v.size for v in (gamma, beta, center, variance)} != {channels}:
        raise ValueError(f"{gamma.size} factors for {channels} channels")
    factors = gamma / np.sqrt(variance + call["epsilon"])
    if not np.isfinite(factors).all():
        raise ValueError("a channel's variance is not positive")
    x = x if x.flat is None else Stored(call.natural(x), x.shape, x.grid, tuple(range(len(x.shape))))

    def make(grid: Grid, lo: int, hi: int) -> Stored:
        gain = factors * x.grid.scale / grid.scale
        offset = (beta - center * factors) / grid.scale - gain * x.grid.zero
        shift = min(power(float((np.abs(gain) * 128 + np.abs(offset)).max()) + 2), 24)
        if shift < 1:
            raise ValueError(f"its output scale {grid.scale:g} is too fine for its input")
        numbers = (np.rint(v * 2.0**shift).astype(np.int32) for v in (gain, offset))
        names = call.consts(**dict(zip(("multiplier", "offset"), numbers, strict=True)))
        op = QAffine("int8", grid.scale, grid.zero, shift, lo, hi, x.axes.index(1))
        return replace(x, name=call.emit(op, x.name, *names), grid=grid)

    return Pending(make)


def max_pool(call: Call) -> Stored:
    """The grid stays; padding never wins."""
    x = call.stored("X")
    name, shape = image(call, x)
    place = window(call, shape, call.integers("kernel_shape"), bool(call["ceil_mode"]))
    call.ignore("storage_order")  # of indices
    if place["dilation"] != (1, 1):
        raise ValueError("dilations and the output of indices are not supported")
    op = QMaxPool2d(place["kernel"], place["stride"], place["pad"], -128)
    return back(call, call.emit(op, name), len(x.shape), x.grid)


def average_pool(call: Call) -> Pending:
    """A window over the whole image is a mean; padding counts as zeros or not at all."""
    x = call.stored("X")
    name, shape = image(call, x)
    place = window(call, shape, call.integers("kernel_shape"), bool(call["ceil_mode"]))
    inside = bool(call["count_include_pad"])
    kernel, stride, sides = place["kernel"], place["stride"], place["pad"]
    if place["dilation"] != (1, 1):
        raise ValueError("dilations are not supported")
    if kernel == shape[1:3] and not any(sides):
        return reduced(call, x, tuple(range(2, len(x.shape))), True)
    counted = place["given"] if inside else (0, 0, 0, 0)

    def make(grid: Grid, lo: int, hi: int) -> Stored:
        n = prod(kernel)
        factor = x.grid.scale / (grid.scale * (n if counted == sides else 1))
        shift = min(power(x.grid.scale / grid.scale * 255 + 2), 24)
        if shift < 1:
            raise ValueError(f"its output scale {grid.scale:g} is too fine")
        numbers = (grid.scale, grid.zero, x.grid.zero, round(factor * 2.0**shift), shift, True)
        op = QAvgPool2d(kernel, stride, sides, x.grid.zero, *numbers, None if counted == sides else counted)
        return call.clamped(back(call, call.emit(op, name), len(x.shape), grid), lo, hi)

    return Pending(make)


def mean(call: Call) -> Pending:
    """GlobalAveragePool and ReduceMean."""
    x = call.stored(call.first)
    rank = len(x.shape)
    if call.kind == "GlobalAveragePool":
        return reduced(call, x, tuple(range(2, rank)), True)
    axes, nothing = call.integers("axes"), call["noop_with_empty_axes"]
    if not axes and nothing:
        raise ValueError("a mean over no axis")
    reduce = tuple(sorted({a % rank for a in axes})) or tuple(range(rank))
    return reduced(call, x, reduce, bool(call["keepdims"]))


def reduced(call: Call, x: Stored, axes: tuple[int, ...], keep: bool) -> Pending:
    """Mean over some axes, which lie together before the last one that stays."""
    rest = [a for a in range(len(x.shape)) if a not in axes]
    order = (*rest[:-1], *axes, *rest[-1:])
    sizes = [prod(x.shape[a] for a in part) for part in (rest[:-1], axes, rest[-1:])]
    name = call.build.emit(Reshape(tuple(sizes)), call.arranged(x, order))
    shape = tuple(1 if a in axes else n for a, n in enumerate(x.shape) if keep or a not in axes) or (1,)

    def make(grid: Grid, lo: int, hi: int) -> Stored:
        factor = float(np.float32(x.grid.scale) / np.float32(grid.scale))
        multiplier, shift = multipliers([factor])
        scales = call.consts(multiplier=multiplier, shift=shift)
        y = call.build.emit(QMean(1, grid.scale, grid.zero, x.grid.zero), name, *scales)
        y = call.emit(Reshape(shape), y)
        return call.clamped(Stored(y, shape, grid, tuple(range(len(shape)))), lo, hi)

    return Pending(make)


def probabilities(call: Call) -> Callable[[], tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Emits a softmax in int16 with 15 fraction bits; its name, the file's shape and the order of its axes."""
    x = call.stored("input")
    rank = len(x.shape)
    axis = call["axis"] % rank
    if call.opset < 13 and prod(x.shape[axis + 1 :]) != 1:
        raise ValueError("a softmax over several axes (operator sets below 13) is not supported")
    order = (*(a for a in range(rank) if a != axis), axis)
    return lambda: (call.emit(exponent(x.grid.scale), call.arranged(x, order)), x.shape, order)


def softmax(call: Call) -> Pending:
    """Rounded to the result's grid from 15 fraction bits."""
    emit = probabilities(call)

    def make(grid: Grid, lo: int, hi: int) -> Stored:
        name, shape, order = emit()
        multiplier, shift = multipliers([PROBABILITY / grid.scale])
        scales = call.consts(multiplier=multiplier, shift=shift)
        y = call.emit(Requantize("int8", grid.scale, grid.zero, lo, hi, "single"), name, *scales)
        return Stored(y, shape, grid, order)

    return Pending(make)
