"""Converters of the ATen calls that work element by element or only move elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from edgec.frontends.pytorch.call import Call, Constant, Converters, Expanded
from edgec.frontends.pytorch.layers import mean_over
from edgec.ir.types import DType
from edgec.ops.activation import Softmax
from edgec.ops.arithmetic import Add, Div, Mul, Sub
from edgec.ops.elementwise import Clip, Map, Relu, Relu6, Sqrt, function
from edgec.ops.shape import Concat, Slice

#: beyond this beta * x, softplus is x but for the rounding of float32
SOFTPLUS_LIMIT = 17.0


def scalar(call: Call, value: float) -> str:
    """A number as a constant."""
    return call.const(f"{call.name}_scalar", np.array([value]))


def same(call: Call) -> Any:
    """A call that changes nothing at inference: clone, detach, contiguous, ..."""
    return call[call.first]


def dropout(call: Call) -> Any:
    """Nothing at inference."""
    train, p = call["train"], call["p"]
    if train and p:
        raise ValueError("dropout in training mode: call model.eval() before exporting")
    return call["input"]


def binary(op: Any) -> Any:
    """A converter for arithmetic on two operands, one of which may be a number."""

    def convert(call: Call) -> str:
        a, b = (promoted(call, operand(call, key)) for key in ("self", "other"))
        alpha = call.get("alpha", 1)
        if alpha != 1:
            b = call.emit(Mul(), b, scalar(call, alpha))
        return broadcast(call, op, a, b)

    return convert


def promoted(call: Call, x: str) -> str:
    """An operand in the type of the result: torch computes integers and truth values with floats as floats."""
    if call.dtype.is_floating_point and not call.type_of(x).dtype.is_float:
        return call.emit(Map("float(a)"), x)
    return call.emit(Map("int(a)"), x) if call.type_of(x).dtype is DType.BOOL and call.dtype != torch.bool else x


def operand(call: Call, key: str) -> str:
    """An operand that may be a number, or expanded to the shape of the other one."""
    value = call[key]
    if isinstance(value, Expanded):
        return value.tensor
    if isinstance(value, bool | int) and not call.dtype.is_floating_point:
        return call.mask(f"{call.name}_scalar", np.array([value]))
    return scalar(call, float(value)) if isinstance(value, bool | int | float) else call.tensor(key)


def broadcast(call: Call, op: Any, a: str, b: str) -> str:
    """Arithmetic on two operands, expanded ones being stored as they were; ValueError where both of them were."""
    y = call.emit(op, a, b)
    if any(isinstance(v, Expanded) for v in call.args.values()) and call.type_of(y).shape != call.result_shape:
        raise ValueError(f"both operands are expanded to {call.result_shape}; expand the result instead")
    return y


def div(call: Call) -> str:
    """Division, without rounding."""
    if call.get("rounding_mode"):
        raise ValueError("division with a rounding mode")
    return broadcast(call, Div(), operand(call, "self"), operand(call, "other"))


def rsub(call: Call) -> str:
    """other - alpha * self."""
    b = call.tensor("self")
    if call["alpha"] != 1:
        b = call.emit(Mul(), b, scalar(call, call["alpha"]))
    return call.emit(Sub(), operand(call, "other"), b)


def neg(call: Call) -> str:
    """-x, as x * -1."""
    return call.emit(Mul(), call.tensor("self"), scalar(call, -1.0))


def power(call: Call) -> str:
    """x squared as a product, any other power of numbers or tensors."""
    exponent = call["exponent"]
    if exponent == 2 and not isinstance(exponent, str):
        x = call.tensor("self")
        return call.emit(Mul(), x, x)
    return call.map("pow(self, exponent)")


def gelu(call: Call) -> str:
    """The erf form, or the one with tanh."""
    return call.map("gelu_tanh(self)" if call["approximate"] == "tanh" else "gelu(self)")


def prelu(call: Call) -> str:
    """max(x, 0) + slope * min(x, 0), one slope or one a channel."""
    x, slopes = call.tensor("self"), call.constant("weight").reshape(-1)
    if slopes.size == 1:
        return call.emit(function("leaky_relu", slope=float(slopes[0])), x)
    rank = len(call.type_of(x).shape)
    weight = call.const(call.stem("weight", "slope"), slopes.reshape(-1, *[1] * (rank - 2)))
    low = call.emit(Clip(None, 0.0), x)
    return call.emit(Add(), call.emit(Relu(), x), call.emit(Mul(), low, weight))


def softplus(call: Call) -> str:
    """The exact form: torch's threshold only says where it takes x itself, which differs by less than rounding."""
    if float(call["beta"]) * float(call["threshold"]) < SOFTPLUS_LIMIT:
        raise ValueError(f"softplus with a threshold of {call['threshold']}; expected {SOFTPLUS_LIMIT:g} or more")
    return call.map("softplus(self, beta=beta)")


def log_sigmoid(call: Call) -> str:
    """-softplus(-x)."""
    minus = scalar(call, -1.0)
    flipped = call.emit(Mul(), call.tensor("self"), minus)
    return call.emit(Mul(), call.emit(function("softplus"), flipped), minus)


def reciprocal(call: Call) -> str:
    """1 / x."""
    return call.emit(Div(), scalar(call, 1.0), call.tensor("self"))


def rsqrt(call: Call) -> str:
    """1 / sqrt(x)."""
    return call.emit(Div(), scalar(call, 1.0), call.emit(Sqrt(), call.tensor("self")))


def clamp(call: Call) -> str:
    """clamp, hardtanh, clamp_min, clamp_max: relu and relu6 where the bounds are theirs."""
    keys = ("min_val", "max_val") if "min_val" in call.args else ("min", "max")
    low, high = (call.get(k) for k in keys)
    if not all(v is None or isinstance(v, int | float) for v in (low, high)):
        inner = "self" if low is None else f"max(self, {keys[0]})"
        return call.map(inner if high is None else f"min({inner}, {keys[1]})")
    if low == 0 and high is None:
        return call.emit(Relu(), call.tensor("self"))
    if low == 0 and high == 6:
        return call.emit(Relu6(), call.tensor("self"))
    bounds = [None if v is None else float(v) for v in (low, high)]
    return call.emit(Clip(*bounds), call.tensor("self"))


def softmax(call: Call) -> str:
    """Softmax over any axis, moved to the end for it."""
    x = call.tensor("self")
    rank = len(call.type_of(x).shape)
    axis = call.axis("dim", rank)
    if axis == rank - 1:
        return call.emit(Softmax(), x)
    swap = list(range(rank))
    swap[axis], swap[-1] = swap[-1], swap[axis]
    return call.permute(call.emit(Softmax(), call.permute(x, tuple(swap))), tuple(swap))


def reduced_axes(call: Call, rank: int) -> tuple[int, ...]:
    """The axes of a reduction, counted from the front; all of them where none is given."""
    dims = call.get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    return tuple(sorted(d % rank for d in dims)) if dims else tuple(range(rank))


def mean(call: Call) -> str:
    """Mean over some axes."""
    x = call.tensor("self")
    return mean_over(call, x, reduced_axes(call, len(call.type_of(x).shape)), bool(call.get("keepdim")))


def total(call: Call) -> str:
    """A sum is a mean times the number of elements."""
    x = call.tensor("self")
    shape = call.type_of(x).shape
    axes = reduced_axes(call, len(shape))
    count = float(np.prod([shape[k] for k in axes]))
    mean = mean_over(call, x, axes, bool(call.get("keepdim")), of_sum=True)
    return call.emit(Mul(), mean, scalar(call, count))


def transpose(call: Call) -> str:
    """Two axes exchanged; without arguments the last two."""
    x = call.tensor("self")
    rank = len(call.type_of(x).shape)
    perm = list(range(rank))
    a, b = (call.axis("dim0", rank), call.axis("dim1", rank)) if "dim0" in call.args else (rank - 2, rank - 1)
    perm[a], perm[b] = perm[b], perm[a]
    return call.permute(x, tuple(perm))


def permute(call: Call) -> str:
    """The axes in another order."""
    x = call.tensor("self")
    rank = len(call.type_of(x).shape)
    return call.permute(x, tuple(int(d) % rank for d in call["dims"]))


def to_result_shape(call: Call) -> str:
    """view, reshape, flatten, squeeze, unsqueeze: the exported program already says which shape comes out."""
    call.ignore(*call.args)
    return call.reshape(call.tensor("self"), call.result_shape)


def expand(call: Call) -> str | Expanded:
    """Nothing is copied: arithmetic behind an expansion broadcasts, anything else refuses it."""
    call.ignore("size", "other", "implicit")
    x = call.tensor("self")
    if int(np.prod(call.result_shape)) != call.type_of(x).size:
        return Expanded(x, call.result_shape)
    return call.reshape(x, call.result_shape)


def cat(call: Call) -> str:
    """Operands one after another."""
    parts = [call.as_tensor(v) for v in call["tensors"]]
    return call.emit(Concat(axis=call.axis("dim", len(call.result_shape))), *parts)


def stack(call: Call) -> str:
    """Operands one after another along a new axis."""
    axis = call.axis("dim", len(call.result_shape))
    shape = tuple(1 if k == axis else n for k, n in enumerate(call.result_shape))
    parts = [call.reshape(call.as_tensor(v), shape) for v in call["tensors"]]
    return call.emit(Concat(axis=axis), *parts)


def cut(call: Call, x: str, axis: int, start: int, stop: int) -> str:
    """x[start:stop] along an axis."""
    extent = call.type_of(x).shape[axis]
    return x if (start, stop) == (0, extent) else call.emit(Slice(axis, start, stop), x)


def slice_(call: Call) -> str:
    """x[start:end:step]."""
    x = call.tensor("self")
    shape = call.type_of(x).shape
    axis = call.axis("dim", len(shape))
    start, stop, step = slice(call["start"], call["end"], call["step"]).indices(shape[axis])
    return cut(call, x, axis, start, stop) if step == 1 else call.emit(Slice(axis, start, stop, step), x)


def narrow(call: Call) -> str:
    """x[start:start + length] along an axis."""
    x = call.tensor("self")
    shape = call.type_of(x).shape
    axis = call.axis("dim", len(shape))
    start = call["start"] % shape[axis]
    return cut(call, x, axis, start, start + call["length"])


def select(call: Call) -> str:
    """x[index] along an axis, which goes."""
    x = call.tensor("self")
    shape = call.type_of(x).shape
    axis = call.axis("dim", len(shape))
    index = call["index"] % shape[axis]
    return call.reshape(cut(call, x, axis, index, index + 1), call.result_shape)


def split(call: Call) -> tuple[str, ...]:
    """split and chunk: the exported program says the extents that come out."""
    call.ignore("split_size", "split_sizes", "chunks")
    x = call.tensor("self")
    axis, at, parts = call.axis("dim", len(call.type_of(x).shape)), 0, []
    for shape in call.result_shapes:
        parts.append(cut(call, x, axis, at, at + shape[axis]))
        at += shape[axis]
    return tuple(parts)


def unbind(call: Call) -> tuple[str, ...]:
    """All indices along an axis."""
    x = call.tensor("self")
    axis = call.axis("dim", len(call.type_of(x).shape))
    pieces = (cut(call, x, axis, k, k + 1) for k in range(len(call.result_shapes)))
    return tuple(call.reshape(p, s) for p, s in zip(pieces, call.result_shapes, strict=True))


def filled(call: Call) -> Constant:
    """zeros_like and its kin: a constant of the shape that comes out."""
    call.ignore("self", "size", "dtype")
    value = call["fill_value"] if call.kind == "aten::full_like" else float(call.kind == "aten::ones_like")
    return Constant(call.name, torch.full(call.result_shape, value, dtype=call.dtype))


def getitem(call: Call) -> Any:
    """One of several results."""
    return call["self"][call["index"]]


def cast(call: Call) -> Any:
    """A change of element type: none between floats."""
    call.ignore("dtype", "other")
    if call.dtype.is_complex or (call.dtype not in CASTS and not call.dtype.is_floating_point):
        raise ValueError(f"conversion to {call.dtype}")
    value = call["self"]
    if isinstance(value, Constant):
        return Constant(value.name, value.value.to(torch.float32 if call.dtype.is_floating_point else call.dtype))
    if not isinstance(value, str) or (call.dtype.is_floating_point and call.type_of(value).dtype.is_float):
        return value
    return call.emit(Map(CASTS.get(call.dtype, "float(a)")), value)


#: element types that are not floats, and what converts to them
CASTS = {
    torch.bool: "bool(a)", torch.uint8: "uint8(a)", torch.int8: "int8(a)", torch.int16: "int16(a)",
    torch.int32: "int(a)", torch.int64: "int(a)",
}  # fmt: skip


CONVERTERS: Converters = {
    "_operator::getitem": getitem,
    "aten::_softmax": softmax,
    "aten::_to_copy": cast,
    "aten::_unsafe_view": to_result_shape,
    "aten::add": binary(Add()),
    "aten::alias": same,
    "aten::cat": cat,
    "aten::chunk": split,
    "aten::clamp": clamp,
    "aten::clamp_max": clamp,
    "aten::clamp_min": clamp,
    "aten::clone": same,
    "aten::concat": cat,
    "aten::contiguous": same,
    "aten::detach": same,
    "aten::div": div,
    "aten::dropout": dropout,
    "aten::expand": expand,
    "aten::expand_as": expand,
    "aten::feature_dropout": dropout,
    "aten::flatten": to_result_shape,
    "aten::full_like": filled,
    "aten::gelu": gelu,
    "aten::hardtanh": clamp,
    "aten::lift_fresh_copy": same,
    "aten::log_sigmoid": log_sigmoid,
    "aten::mean": mean,
    "aten::mul": binary(Mul()),
    "aten::narrow": narrow,
    "aten::neg": neg,
    "aten::new_zeros": filled,
    "aten::numpy_T": transpose,
    "aten::ones_like": filled,
    "aten::permute": permute,
    "aten::pow": power,
    "aten::prelu": prelu,
    "aten::reciprocal": reciprocal,
    "aten::reshape": to_result_shape,
    "aten::reshape_as": to_result_shape,
    "aten::rsqrt": rsqrt,
    "aten::rsub": rsub,
    "aten::select": select,
    "aten::slice": slice_,
    "aten::softmax": softmax,
    "aten::softplus": softplus,
    "aten::split": split,
    "aten::split_with_sizes": split,
    "aten::squeeze": to_result_shape,
    "aten::stack": stack,
    "aten::sub": binary(Sub()),
    "aten::sum": total,
    "aten::t": transpose,
    "aten::to": cast,
    "aten::transpose": transpose,
    "aten::unbind": unbind,
    "aten::unflatten": to_result_shape,
    "aten::unsqueeze": to_result_shape,
    "aten::view": to_result_shape,
    "aten::view_as": to_result_shape,
    "aten::zeros_like": filled,
}
