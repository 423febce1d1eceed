"""ONNX layers to float ops: convolutions, products, pools, means, softmax."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from edgec.frontends.onnx.values import Call, Constant, channels_last
from edgec.frontends.tflite.numbers import same_padding
from edgec.ops.activation import Softmax
from edgec.ops.arithmetic import Affine
from edgec.ops.conv import Conv2d
from edgec.ops.dense import Linear, MatMul
from edgec.ops.lowering.window import ceil_pads
from edgec.ops.pool import AvgPool2d, MaxPool2d, Mean


def image(call: Call) -> tuple[str, tuple[int, ...]]:
    """The first input as [batch, height, width, channels], a sequence with height 1; its name and shape."""
    shape = call.shape(call.first)
    rank = len(shape)
    if rank not in (3, 4):
        raise ValueError(f"input of shape {shape}, expected one or two spatial axes")
    x, last = call.permute(call.tensor(call.first), channels_last(rank)), tuple(shape[a] for a in channels_last(rank))
    wide = last if rank == 4 else (last[0], 1, *last[1:])
    return call.reshape(x, wide), wide


def back(call: Call, x: str) -> str:
    """The result of an image op with its axes as the file has them."""
    rank, shape = len(call.shape(call.first)), call.build.type_of(x).shape
    x = x if rank == 4 else call.reshape(x, (shape[0], *shape[2:]))
    return call.permute(x, (0, rank - 1, *range(1, rank - 1)))


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


def weights(call: Call, w: Constant, key: str | None) -> tuple[str, str]:
    """The weights, outputs last, and the bias, zeros where there is none, as constants of the graph."""
    outputs = w.data.shape[-1]
    bias = call.constant(key) if key and call.has(key) else Constant(np.zeros(outputs))
    if bias.data.shape != (outputs,):
        raise ValueError(f"bias of shape {bias.data.shape}, expected {(outputs,)}")
    return call.part("weights", w), call.part("bias", bias)


def convolution(call: Call) -> str:
    """Conv of images and sequences, with groups."""
    x, shape = image(call)
    w, given = call.constant("W"), call.shape("X")
    rank = len(given)
    if w.data.ndim != rank:
        raise ValueError(f"weights of shape {w.data.shape} for an input of shape {given}")
    place = window(call, shape, w.data.shape[2:])
    w = w.permuted((*range(2, rank), 1, 0))  # [KH, KW, C/groups, O]
    w = w if rank == 4 else w.reshaped((1, *w.data.shape))
    groups = call["group"]
    if shape[3] != w.data.shape[2] * groups:
        raise ValueError(f"weights {w.data.shape} in {groups} groups do not fit {shape[3]} channels")
    op = Conv2d(place["stride"], place["pad"], place["dilation"], groups)
    return back(call, call.emit(op, x, *weights(call, w, "B")))


def gemm(call: Call) -> str:
    """x W + b or x W' + b."""
    for key, value in (("transA", 0), ("alpha", 1.0), ("beta", 1.0)):
        call.only(key, value)
    w = call.constant("B")
    w = w.permuted((1, 0)) if call["transB"] else w
    return call.emit(Linear(), call.tensor("A"), *weights(call, w, "C"))


def matmul(call: Call) -> str:
    """A product; with a constant matrix a linear layer."""
    w = call.value("B")
    if not isinstance(w, Constant):
        return call.emit(MatMul(), call.tensor("A"), call.tensor("B"))
    if w.data.ndim != 2:
        raise ValueError(f"weights of shape {w.data.shape}, expected two axes")
    return call.emit(Linear(), call.tensor("A"), *weights(call, w, None))


def batch_norm(call: Call) -> str:
    """A factor and an offset for each channel, axis 1."""
    if call["training_mode"]:
        raise ValueError("training_mode is not 0: export the model in eval mode")
    call.ignore("momentum")
    shape, keys = call.shape("X"), ("scale", "B", "input_mean", "input_var")
    gamma, beta, center, variance = (call.constant(key).data.astype(np.float64).reshape(-1) for key in keys)
    if len(shape) < 2 or {v.size for v in (gamma, beta, center, variance)} != {shape[1]}:
        raise ValueError(f"{gamma.size} factors for the channels of {shape}")
    factors = gamma / np.sqrt(variance + call["epsilon"])
    if not np.isfinite(factors).all():
        raise ValueError("a channel's variance is not positive")
    numbers = call.part("scale", factors), call.part("shift", beta - center * factors)
    return call.emit(Affine(axis=1), call.tensor("X"), *numbers)


def max_pool(call: Call) -> str:
    """The largest of each window; padding never wins."""
    x, shape = image(call)
    place = window(call, shape, call.integers("kernel_shape"), bool(call["ceil_mode"]))
    call.ignore("storage_order")  # of indices
    if place["dilation"] != (1, 1):
        raise ValueError("dilations and the output of indices are not supported")
    return back(call, call.emit(MaxPool2d(place["kernel"], place["stride"], place["pad"]), x))


def average_pool(call: Call) -> str:
    """A window over the whole image is a mean; padding counts as zeros or not at all."""
    x, shape = image(call)
    place = window(call, shape, call.integers("kernel_shape"), bool(call["ceil_mode"]))
    kernel, sides, inside = place["kernel"], place["pad"], bool(call["count_include_pad"])
    if place["dilation"] != (1, 1):
        raise ValueError("dilations are not supported")
    if kernel == shape[1:3] and not any(sides):
        return reduced(call, tuple(range(2, len(call.shape("X")))), True)
    counted = place["given"] if inside else (0, 0, 0, 0)
    op = AvgPool2d(kernel, place["stride"], sides, None if counted == sides else counted)
    return back(call, call.emit(op, x))


def mean(call: Call) -> str:
    """GlobalAveragePool and ReduceMean."""
    rank = len(call.shape(call.first))
    if call.kind == "GlobalAveragePool":
        return reduced(call, tuple(range(2, rank)), True)
    axes, nothing = call.integers("axes"), call["noop_with_empty_axes"]
    if not axes and nothing:
        raise ValueError("a mean over no axis")
    reduce = tuple(sorted({a % rank for a in axes})) or tuple(range(rank))
    return reduced(call, reduce, bool(call["keepdims"]))


def reduced(call: Call, axes: tuple[int, ...], keep: bool) -> str:
    """Mean over some axes, which lie together before the last one that stays."""
    shape = call.shape(call.first)
    rest = [a for a in range(len(shape)) if a not in axes]
    order = (*rest[:-1], *axes, *rest[-1:])
    sizes = tuple(prod(shape[a] for a in part) for part in (rest[:-1], axes, rest[-1:]))
    y = call.emit(Mean(1), call.reshape(call.permute(call.tensor(call.first), order), sizes))
    kept = tuple(1 if a in axes else n for a, n in enumerate(shape) if keep or a not in axes)
    return call.reshape(y, kept or (1,))


def softmax(call: Call) -> str:
    """Along one axis, the last in the graph."""
    shape = call.shape("input")
    rank = len(shape)
    axis = call["axis"] % rank
    if call.opset < 13 and prod(shape[axis + 1 :]) != 1:
        raise ValueError("a softmax over several axes (operator sets below 13) is not supported")
    order = (*(a for a in range(rank) if a != axis), axis)
    y = call.emit(Softmax(), call.permute(call.tensor("input"), order))
    return call.permute(y, tuple(order.index(a) for a in range(rank)))
