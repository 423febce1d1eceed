"""Converters of the ATen calls that carry weights or mix channels: convolution, linear, norms, products, pooling."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from edgec.frontends.pytorch.call import Call, Converters, Padded
from edgec.frontends.pytorch.masks import attention_mask
from edgec.ops.activation import Softmax
from edgec.ops.arithmetic import Affine, Mul
from edgec.ops.conv import Conv1d, Conv2d
from edgec.ops.dense import Linear, MatMul
from edgec.ops.lowering.window import ceil_pads
from edgec.ops.norm import LayerNorm
from edgec.ops.pool import AvgPool2d, MaxPool2d, Mean
from edgec.ops.taps import Taps, adaptive_average

Pads = tuple[tuple[int, int], ...]


def spread(value: Any, rank: int) -> tuple[int, ...]:
    """An int or a list of ints as one int per spatial axis."""
    values = [value] if isinstance(value, int) else [int(v) for v in value]
    return tuple(values * rank if len(values) == 1 else values)


def to_last(rank: int) -> tuple[int, ...]:
    """The permutation from channels second to channels last, for `rank` spatial axes."""
    return (0, *range(2, rank + 2), 1)


def to_second(rank: int) -> tuple[int, ...]:
    """The permutation from channels last back to channels second."""
    return (0, rank + 1, *range(1, rank + 1))


def channels_last(call: Call, x: str, rank: int) -> str:
    """x [B,C,...] with its channels last; ValueError when x is not batched or its channel axis is time."""
    t = call.type_of(x)
    if len(t.shape) != rank + 2:
        raise ValueError(f"expected an input of rank {rank + 2} with a batch axis, found shape {t.shape}")
    if t.time_axis == 1:
        raise ValueError("the time axis of the input is used as the channel axis")
    return call.permute(x, to_last(rank))


def conv_pads(padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...], stride: tuple[int, ...]) -> Pads:
    """(before, after) per spatial axis, from a number, a list, "valid" or "same"."""
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        if any(s != 1 for s in stride):
            raise ValueError("padding 'same' needs stride 1")
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((n // 2, n - n // 2) for n in totals)
    return tuple((p, p) for p in spread(padding, len(kernel)))


def padded_operand(call: Call, key: str, pads: Pads) -> tuple[str, Pads]:
    """The operand and its padding, where a zero padding before it is taken over."""
    value = call[key]
    if not isinstance(value, Padded):
        return call.tensor(key), pads
    if any(p != (0, 0) for p in value.pads[: -len(pads)]):
        raise ValueError("padding of the batch or channel axis before a convolution")
    joined = zip(value.pads[-len(pads) :], pads, strict=True)
    return value.tensor, tuple((a + c, b + d) for (a, b), (c, d) in joined)


def convolution(call: Call) -> str:
    """Convolution of [B,C,L] and [B,C,H,W]."""
    w = call.constant("weight")
    rank = w.ndim - 2
    stride, dilation = spread(call["stride"], rank), spread(call["dilation"], rank)
    x, pads = padded_operand(call, "input", conv_pads(call["padding"], w.shape[2:], dilation, stride))
    x = channels_last(call, x, rank)
    weight = call.weight("weight", *range(2, rank + 2), 1, 0)
    bias = bias_of(call, w.shape[0])
    groups = int(call["groups"])
    if rank == 1:
        y = call.emit(Conv1d(stride[0], pads[0], dilation[0], groups), x, weight, bias)
    else:
        sides = (*pads[0], *pads[1])
        y = call.emit(Conv2d((stride[0], stride[1]), sides, (dilation[0], dilation[1]), groups), x, weight, bias)
    return call.permute(y, to_second(rank))


def bias_of(call: Call, channels: int) -> str:
    """The bias operand, zeros where there is none."""
    if call["bias"] is not None:
        return call.weight("bias")
    stem = call.stem("weight", "weight")
    stem = stem[: -len("weight")] + "bias" if stem.endswith("weight") else f"{stem}_bias"
    return call.const(stem, np.zeros(channels, np.float32))


def linear(call: Call) -> str:
    """A linear layer with constant weights [O,I]."""
    w = call.constant("weight")
    weight = call.weight("weight", 1, 0)
    return call.emit(Linear(), call.tensor("input"), weight, bias_of(call, w.shape[0]))


def addmm(call: Call) -> str:
    """input + mat1 @ mat2, a linear layer whose weight is already [I,O]."""
    for key in ("alpha", "beta"):
        call.only(key, 1)
    w, bias = call.constant("mat2"), call.constant("self")
    weight = call.weight("mat2")
    bias_name = call.const(call.stem("self", "bias"), np.broadcast_to(bias, (w.shape[1],)).copy())
    return call.emit(Linear(), call.tensor("mat1"), weight, bias_name)


def matmul(call: Call) -> str:
    """A product: a linear layer where the second operand is a constant matrix."""
    second = "mat2" if "mat2" in call.args else "other"
    a = call.tensor("self")
    if call.is_constant(second) and call.constant(second).ndim == 2:
        w = call.constant(second)
        bias = call.const(f"{call.stem(second, 'weight')}_bias", np.zeros(w.shape[1], np.float32))
        return call.emit(Linear(), a, call.weight(second), bias)
    return call.emit(MatMul(), a, call.tensor(second))


def attention(call: Call) -> str:
    """softmax(q k^T * scale + mask) v."""
    if call["dropout_p"] or call["enable_gqa"]:
        raise ValueError("attention with dropout or grouped queries")
    q, k, v = (call.tensor(key) for key in ("query", "key", "value"))
    scale = call["scale"] if call["scale"] is not None else call.type_of(q).shape[-1] ** -0.5
    factor = call.const(f"{call.name}_scale", np.array([scale]))
    scores = call.emit(Mul(), call.emit(MatMul(transpose_b=True), q, k), factor)
    return call.emit(MatMul(), call.emit(Softmax(), attention_mask(call, scores)), v)


def batch_norm(call: Call) -> Any:
    """Inference: one affine map per channel, computed in float32 in torch's order."""
    if call.get("training"):
        raise ValueError("batch norm in training mode: call model.eval() before exporting")
    if call["running_mean"] is None:
        raise ValueError("batch norm without running statistics (track_running_stats=False)")
    mean, var = call.constant("running_mean"), call.constant("running_var")
    inverse = (1 / np.sqrt(var + np.float32(call["eps"]), dtype=np.float32)).astype(np.float32)
    scale = inverse if call["weight"] is None else inverse * call.constant("weight")
    shift = -mean * scale
    if call["bias"] is not None:
        shift = call.constant("bias") - mean * scale
    stem = call.stem("running_mean", "norm").removesuffix(".running_mean")
    x = call.tensor("input")
    y = call.emit(Affine(axis=1), x, call.const(f"{stem}.scale", scale), call.const(f"{stem}.shift", shift))
    return (y,) if "native" in call.kind else y


def layer_norm(call: Call) -> str:
    """Layer norm over the last axis."""
    shape = tuple(call["normalized_shape"])
    if len(shape) != 1:
        raise ValueError(f"layer norm over {len(shape)} axes; only the last axis is supported")
    weight = call.constant("weight") if call["weight"] is not None else np.ones(shape, np.float32)
    bias = call.constant("bias") if call["bias"] is not None else np.zeros(shape, np.float32)
    scale, shift = call.const(call.stem("weight", "scale"), weight), call.const(call.stem("bias", "shift"), bias)
    return call.emit(LayerNorm(eps=float(call["eps"])), call.tensor("input"), scale, shift)


def pool(call: Call) -> str:
    """Windows of [B,C,L] and [B,C,H,W], largest or mean; one-dimensional pooling is two-dimensional with width 1."""
    rank, largest = int(call.kind[-2]), "max" in call.kind
    kernel = spread(call["kernel_size"], rank)
    stride = spread(call["stride"], rank) if call["stride"] else kernel
    if largest and any(d != 1 for d in spread(call["dilation"], rank)):
        raise ValueError("max pooling with dilation")
    given: Pads = tuple((p, p) for p in spread(call["padding"], rank))
    x = channels_last(call, call.tensor("self"), rank)
    t = call.type_of(x)
    if rank == 1:
        kernel, stride, given = (*kernel, 1), (*stride, 1), (*given, (0, 0))
        x = call.reshape(x, (*t.shape[:2], 1, t.shape[2]))
    pads = given
    if call["ceil_mode"]:
        extents = call.type_of(x).shape[1:3]
        pads = tuple(ceil_pads(*window) for window in zip(extents, kernel, stride, given, strict=True))
        if pads != given and call.type_of(x).time_axis == 1:
            raise ValueError("pooling with ceil_mode along time, whose last window is cut short")
    place = ((kernel[0], kernel[1]), (stride[0], stride[1]), (*pads[0], *pads[1]))
    if largest:
        y = call.emit(MaxPool2d(*place), x)
    else:
        override = call.get("divisor_override")
        counted = (*given[0], *given[1]) if call["count_include_pad"] else (0, 0, 0, 0)
        y = call.emit(AvgPool2d(*place, None if override or counted == place[2] else counted), x)
        if override:
            y = call.emit(Mul(), y, call.const(f"{call.name}_divisor", np.array([prod(kernel) / override])))
    if rank == 1:
        shape = call.type_of(y).shape
        y = call.reshape(y, (shape[0], shape[1], shape[3]))
    return call.permute(y, to_second(rank))


def adaptive_avg_pool(call: Call) -> str:
    """Down to one position per channel, to windows of one size, or to windows that differ along each axis."""
    x = call.tensor("self")
    shape = call.type_of(x).shape
    rank = len(shape) - 2
    size = spread(call["output_size"], rank)
    if all(n == 1 for n in size):
        return mean_over(call, x, tuple(range(2, rank + 2)), keepdim=True)
    kernel = tuple(extent // n for extent, n in zip(shape[2:], size, strict=True))
    if all(k * n == extent for extent, k, n in zip(shape[2:], kernel, size, strict=True)):
        y = channels_last(call, x, rank)
        window = (kernel[0], kernel[1] if rank == 2 else 1)
        y = call.reshape(y, (*call.type_of(y).shape[:2], 1, shape[1])) if rank == 1 else y
        y = call.emit(AvgPool2d(window, window), y)
        return call.permute(call.reshape(y, (shape[0], *size, shape[1])), to_second(rank))
    for axis, n in enumerate(size, 2):
        index, weights = adaptive_average(shape[axis], n)
        taps = call.build.const(f"{call.name}_index", index), call.const(f"{call.name}_weights", weights)
        x = call.emit(Taps(axis), x, *taps)
    return x


def mean_over(call: Call, x: str, axes: tuple[int, ...], keepdim: bool, of_sum: bool = False) -> str:
    """Mean over some axes, or that of a sum. All spatial axes together are one mean over positions, channels last."""
    shape = call.type_of(x).shape
    kept = tuple(1 if k in axes else n for k, n in enumerate(shape))
    rank = len(shape) - 2
    if rank >= 1 and axes == tuple(range(2, rank + 2)) and call.type_of(x).time_axis in (None, 0):
        y = channels_last(call, x, rank)
        y = call.emit(Mean(1, prod(shape[2:]) if of_sum else 0), call.reshape(y, (shape[0], prod(shape[2:]), shape[1])))
    else:
        y = x
        for axis in sorted(axes, reverse=True):
            y = call.emit(Mean(axis, shape[axis] if of_sum else 0), y)
    return call.reshape(y, kept if keepdim else call.type_of(y).shape)


CONVERTERS: Converters = {
    "aten::_native_batch_norm_legit_no_training": batch_norm,
    "aten::adaptive_avg_pool1d": adaptive_avg_pool,
    "aten::adaptive_avg_pool2d": adaptive_avg_pool,
    "aten::addmm": addmm,
    "aten::avg_pool1d": pool,
    "aten::avg_pool2d": pool,
    "aten::batch_norm": batch_norm,
    "aten::bmm": matmul,
    "aten::conv1d": convolution,
    "aten::conv2d": convolution,
    "aten::layer_norm": layer_norm,
    "aten::linear": linear,
    "aten::matmul": matmul,
    "aten::max_pool1d": pool,
    "aten::max_pool2d": pool,
    "aten::mm": matmul,
    "aten::scaled_dot_product_attention": attention,
}
