"""Converters of the ATen calls that time-series models make: patches of a window, its variance, some channels of it."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from edgec.frontends.pytorch.call import Call, Constant, Converters
from edgec.frontends.pytorch.layers import mean_over
from edgec.frontends.pytorch.simple import cut, reduced_axes, scalar
from edgec.ops.arithmetic import Mul, Sub
from edgec.ops.elementwise import Sqrt
from edgec.ops.shape import Concat


def unfold(call: Call) -> str:
    """Windows of `size` elements every `step` along an axis, their elements last: side by side they are a view."""
    x = call.tensor("self")
    rank = len(call.type_of(x).shape)
    axis, size, step = call.axis("dimension", rank), int(call["size"]), int(call["step"])
    count = call.result_shape[axis]
    if size == step:
        stacked = cut(call, x, axis, 0, count * size)
    else:
        stacked = call.emit(Concat(axis), *(cut(call, x, axis, k * step, k * step + size) for k in range(count)))
    shape = call.type_of(stacked).shape
    parted = call.reshape(stacked, (*shape[:axis], count, size, *shape[axis + 1 :]))
    return call.permute(parted, (*range(axis + 1), *range(axis + 2, rank + 1), axis + 1))


def index(call: Call) -> str:
    """x[..., places, ...] for one list of constant places along one axis: slices, one after another."""
    x = call.tensor("self")
    given = [(axis, v) for axis, v in enumerate(call["indices"]) if v is not None]
    axis, places = given[0]
    kinds = (torch.int32, torch.int64)
    is_list = isinstance(places, Constant) and places.value.ndim == 1 and places.value.dtype in kinds
    if len(given) != 1 or not is_list:
        raise ValueError("indexing by anything but one list of constant places; slice instead")
    extent = call.type_of(x).shape[axis]
    pieces = [cut(call, x, axis, k, k + 1) for k in (int(p) % extent for p in places.value.tolist())]
    return call.emit(Concat(axis), *pieces) if len(pieces) > 1 else pieces[0]


def variance(call: Call) -> str:
    """Mean of the squared distances from the mean, times n / (n - correction)."""
    x = call.tensor("self")
    shape = call.type_of(x).shape
    axes = reduced_axes(call, len(shape))
    count, correction = prod(shape[k] for k in axes), correction_of(call)
    if correction >= count:
        raise ValueError(f"variance of {count} values with correction {correction}")
    away = call.emit(Sub(), x, mean_over(call, x, axes, keepdim=True))
    var = mean_over(call, call.emit(Mul(), away, away), axes, bool(call["keepdim"]))
    return call.emit(Mul(), var, scalar(call, count / (count - correction))) if correction else var


def correction_of(call: Call) -> float:
    """What is taken off the number of values: `correction`, or `unbiased`; 1 where neither is given."""
    if "unbiased" in call.args:
        return float(bool(call["unbiased"]))
    given: Any = call.get("correction")
    return 1.0 if given is None else float(given)


def deviation(call: Call) -> str:
    """The square root of the variance."""
    return call.emit(Sqrt(), variance(call))


CONVERTERS: Converters = {
    "aten::index": index,
    "aten::std": deviation,
    "aten::unfold": unfold,
    "aten::var": variance,
}
