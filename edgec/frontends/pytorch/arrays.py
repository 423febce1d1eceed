"""Converters of the ATen calls that pick, pad, reduce and resample along axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.frontends.pytorch.call import Call, Converters, Padded
from edgec.ops.arithmetic import Mul, Sub
from edgec.ops.cumulative import Cumulative
from edgec.ops.elementwise import function
from edgec.ops.gather import Gather, GatherElements, Scatter
from edgec.ops.reduce import Reduce
from edgec.ops.shape import Pad, Slice
from edgec.ops.taps import Taps, linear, nearest, outside

Pads = tuple[tuple[int, int], ...]  # before and after, axis by axis


def reduction(kind: str) -> Any:
    """A converter for a reduction over the axes of `dim`, all of them where none is given."""

    def convert(call: Call) -> str:
        x, dims = call.tensor("self"), call.get("dim")
        rank, keep = len(call.type_of(x).shape), bool(call.get("keepdim"))
        given = [dims] if isinstance(dims, int) else dims
        axes = tuple(sorted(int(d) % rank for d in given)) if given else tuple(range(rank))
        if kind.startswith("arg") and not given:
            flat = call.reshape(x, (int(np.prod(call.type_of(x).shape)),))
            return call.emit(Reduce(kind, (0,), False), flat)
        return call.emit(Reduce(kind, axes, keep), x)

    return convert


def extreme(kind: str) -> Any:
    """max and min: over all axes, or along one with their places."""

    def convert(call: Call) -> Any:
        if "other" in call.args:
            return call.map(f"{kind}(self, other)")
        largest = reduction(kind)(call)
        if "dim" not in call.args:
            return largest
        return largest, reduction(f"arg{kind}")(call)

    return convert


def embedding(call: Call) -> str:
    """The row of a table for every index."""
    call.ignore("padding_idx", "scale_grad_by_freq", "sparse")  # of training
    return call.emit(Gather(0), call.tensor("weight"), call.tensor("indices"))


def index_select(call: Call) -> str:
    """Elements along an axis by their index."""
    x = call.tensor("self")
    return call.emit(Gather(call.axis("dim", len(call.type_of(x).shape))), x, call.tensor("index"))


def gather(call: Call) -> str:
    """An element along an axis for every place of the index."""
    call.ignore("sparse_grad")
    x = call.tensor("self")
    return call.emit(GatherElements(call.axis("dim", len(call.type_of(x).shape))), x, call.tensor("index"))


def scatter(call: Call) -> str:
    """Elements put along an axis: set, or added."""
    x, source = call.tensor("self"), call["src"] if "src" in call.args else call["value"]
    if isinstance(source, bool | int | float):
        shape, dtype = call.type_of(call.tensor("index")).shape, call.type_of(x).dtype.storage
        source = call.mask(f"{call.name}_values", np.full(shape, source, dtype))
    kind = "add" if call.kind == "aten::scatter_add" else "set"
    axis = call.axis("dim", len(call.type_of(x).shape))
    return call.emit(Scatter(axis, kind), x, call.tensor("index"), call.as_tensor(source))


def flip(call: Call) -> str:
    """Some axes backwards."""
    x = call.tensor("self")
    shape = call.type_of(x).shape
    for axis in sorted({int(d) % len(shape) for d in call["dims"]}):
        x = call.emit(Slice(axis, shape[axis] - 1, -1, -1), x) if shape[axis] > 1 else x
    return x


def log_softmax(call: Call) -> str:
    """x less the logarithm of the sum of exponentials."""
    x = call.tensor("self")
    axis = call.axis("dim", len(call.type_of(x).shape))
    return call.emit(Sub(), x, call.emit(Reduce("log_sum_exp", (axis,)), x))


def glu(call: Call) -> str:
    """One half along an axis times the sigmoid of the other."""
    x = call.tensor("self")
    shape = call.type_of(x).shape
    axis = call.axis("dim", len(shape))
    half = shape[axis] // 2
    gate = call.emit(function("sigmoid"), call.emit(Slice(axis, half, 2 * half), x))
    return call.emit(Mul(), call.emit(Slice(axis, 0, half), x), gate)


def picked(call: Call, x: str, axis: int, index: npt.NDArray[Any]) -> str:
    """Elements along an axis by a constant index."""
    return call.emit(Gather(axis), x, call.build.const(f"{call.name}_index", index.astype(np.int32)))


def roll(call: Call) -> str:
    """Some axes turned around."""
    x = call.tensor("self")
    shape = call.type_of(x).shape
    if not call["dims"]:
        raise ValueError("roll of a flattened tensor; give the axes")
    for shift, dim in zip(call["shifts"], call["dims"], strict=True):
        axis = int(dim) % len(shape)
        x = picked(call, x, axis, (np.arange(shape[axis]) - int(shift)) % shape[axis])
    return x


def repeat(call: Call) -> str:
    """Some axes several times, one after another."""
    call.ignore("repeats", "dims")  # the exported program says which shape comes out
    x, shape = call.tensor("self"), call.result_shape
    own = call.type_of(x).shape
    x = call.reshape(x, (1,) * (len(shape) - len(own)) + own)
    for axis, n in enumerate(shape):
        extent = call.type_of(x).shape[axis]
        x = picked(call, x, axis, np.arange(n) % extent) if n != extent else x
    return x


def cumulative(kind: str) -> Any:
    """A converter for a sum or product so far along an axis."""

    def convert(call: Call) -> str:
        x = call.tensor("self")
        return call.emit(Cumulative(kind, call.axis("dim", len(call.type_of(x).shape))), x)

    return convert


def upsample(call: Call) -> str:
    """Nearest and linear resizing of the axes behind the channels."""
    call.ignore("output_size", "scale_factors")  # the exported program says which shape comes out
    x, shape = call.tensor("self" if "self" in call.args else "input"), call.result_shape
    scales = resize_scales(call, len(shape) - 2)
    corners = bool(call.get("align_corners"))
    for axis, scale in zip(range(2, len(shape)), scales, strict=True):
        extent, size = call.type_of(x).shape[axis], shape[axis]
        if "nearest" in call.kind:
            x = call.emit(Gather(axis), x, call.build.const(f"{call.name}_index", nearest(extent, size, scale)))
        else:
            index, weights = linear(extent, size, corners, scale)
            x = call.emit(Taps(axis), x, call.build.const(f"{call.name}_index", index), weight(call, weights))
    return x


def weight(call: Call, values: npt.NDArray[Any]) -> str:
    """Weights of taps as a constant."""
    return call.const(f"{call.name}_weights", values)


def resize_scales(call: Call, count: int) -> list[float | None]:
    """How many new elements there are for an old one along each axis, where the caller said so; else None."""
    given = call.get("scale_factors") or [call.get(k) for k in ("scales_h", "scales_w", "scales")]
    found = [None if s is None else float(s) for s in given if s is not None]
    return found if len(found) == count else [None] * count


def pad(call: Call) -> Any:
    """Zero padding waits for the convolution behind it; any other picks elements, or puts a constant around them."""
    mode, value = call.get("mode", "constant"), call.get("value") or 0
    widths = [int(p) for p in call["pad"]]
    x = call.tensor("self")
    if not any(widths):
        return x
    if any(p < 0 for p in widths):
        raise ValueError("negative padding; slice instead")
    shape = call.type_of(x).shape
    pairs = [(widths[2 * k], widths[2 * k + 1]) for k in range(len(widths) // 2)]
    every = ((0, 0),) * (len(shape) - len(pairs)) + tuple(reversed(pairs))
    if mode != "constant":
        return padded(call, x, every, mode)
    if value == 0:
        return Padded(x, every)
    return call.emit(Pad(tuple(n for pair in every for n in pair), float(value)), x)


#: modes of torch's padding, and what `taps.outside` calls them
MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def padded(call: Call, x: str, pairs: Pads, mode: str) -> str:
    """Padding with elements of the tensor itself, axis by axis."""
    for axis, (before, after) in enumerate(pairs):
        if before or after:
            index = outside(call.type_of(x).shape[axis], before, after, MODES[mode])
            x = call.emit(Gather(axis), x, call.build.const(f"{call.name}_index", index))
    return x


def padding(mode: str) -> Any:
    """A converter for a padding in one mode, of the last axes."""

    def convert(call: Call) -> str:
        x, widths = call.tensor("self"), [int(p) for p in call["padding"]]
        pairs = [(widths[2 * k], widths[2 * k + 1]) for k in range(len(widths) // 2)]
        rank = len(call.type_of(x).shape)
        return padded(call, x, ((0, 0),) * (rank - len(pairs)) + tuple(reversed(pairs)), mode)

    return convert


CONVERTERS: Converters = {
    "aten::all": reduction("all"),
    "aten::amax": reduction("max"),
    "aten::amin": reduction("min"),
    "aten::any": reduction("any"),
    "aten::argmax": reduction("argmax"),
    "aten::argmin": reduction("argmin"),
    "aten::constant_pad_nd": pad,
    "aten::cumprod": cumulative("prod"),
    "aten::cumsum": cumulative("sum"),
    "aten::embedding": embedding,
    "aten::flip": flip,
    "aten::gather": gather,
    "aten::glu": glu,
    "aten::index_select": index_select,
    "aten::_log_softmax": log_softmax,
    "aten::log_softmax": log_softmax,
    "aten::logsumexp": reduction("log_sum_exp"),
    "aten::max": extreme("max"),
    "aten::min": extreme("min"),
    "aten::pad": pad,
    "aten::prod": reduction("prod"),
    **{f"aten::reflection_pad{n}d": padding("reflect") for n in (1, 2)},
    **{f"aten::replication_pad{n}d": padding("replicate") for n in (1, 2)},
    "aten::repeat": repeat,
    "aten::roll": roll,
    "aten::scatter": scatter,
    "aten::scatter_add": scatter,
    "aten::tile": repeat,
    "aten::upsample_bilinear2d": upsample,
    "aten::upsample_linear1d": upsample,
    "aten::upsample_nearest1d": upsample,
    "aten::upsample_nearest2d": upsample,
}
