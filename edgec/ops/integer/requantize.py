"""The one home of requantisation, and what the other integer ops share; references are exact, on int64 tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any, ClassVar

import numpy as np
import torch

from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops.base import Array, Kernel, Op, Param, Site, ctype, need, same_time
from edgec.ops.lowering.loops import broadcast_shape, loop_nest, position
from edgec.ops.lowering.sums import Filter, Window
from edgec.ops.relations.interval import Interval, corners, weighted

ROUNDINGS = ("single", "tflite")
ACTIVATIONS = (DType.I4, DType.I8, DType.I16, DType.BIT)
WEIGHTS = (DType.I2, DType.I4, DType.I8)


def accumulator(shape: tuple[int, ...], x: TensorType, w: TensorType) -> TensorType:
    """int32 accumulators; their scale is the product of the operands' scales where both are known."""
    need(x.dtype in ACTIVATIONS, f"expected int4, int8, int16 or bit activations, found {x.dtype.value}")
    need(w.dtype in WEIGHTS, f"expected int2, int4 or int8 weights, found {w.dtype.value}")
    quant = None
    if x.quant and w.quant:
        quant = QuantParams(tuple(x.quant.scale[0] * s for s in w.quant.scale), 0, len(shape) - 1)
    return TensorType(shape, DType.I32, quant, x.time_axis)


def accumulator_bounds(w: Array, bias: Array, x_range: tuple[int, int], axis: int = -1) -> tuple[Array, Array]:
    """Smallest and largest accumulator of each output (along `axis` of w), int64, for any inputs within `x_range` and
    any bias [..., O].

    It bounds the partial sums too, in whatever order terms are added: the range is widened to contain 0 and the bias.
    """
    lo, hi = min(x_range[0], 0), max(x_range[1], 0)
    weights = np.moveaxis(w.astype(np.int64), axis, -1).reshape(-1, w.shape[axis])
    positive, negative = np.maximum(weights, 0).sum(0), np.minimum(weights, 0).sum(0)
    start = bias.astype(np.int64).reshape(-1, bias.shape[-1])
    low, high = positive * lo + negative * hi, positive * hi + negative * lo
    return start.min(0) + low, start.max(0) + high


def weight(w: TensorType, *index: str) -> str:
    """TVMScript for one weight as int32; narrow ones come packed, see `weight_array`."""
    if not w.dtype.is_narrow:
        return f'T.cast(w[{", ".join(index)}], "int32")'
    flat = index[0]
    for extent, i in zip(w.shape[1:], index[1:], strict=True):
        flat = f"({flat}) * {extent} + {i}"
    bits, least = (4, -8) if w.dtype is DType.I4 else (2, -2)
    each = 8 // bits
    octet = f'T.cast(w[({flat}) // {each}], "int32")'
    return f"((T.shift_right({octet}, ({flat}) % {each} * {bits}) & {(1 << bits) - 1}) - {-least})"


def weight_array(site: Site) -> tuple[tuple[str, tuple[int, ...], str], dict[str, Array]]:
    """The kernel parameter `w` of operand 1 and its constants: narrow weights lie in octets, lowest bits first,
    counted from their least value."""
    w = site.inputs[1]
    if not w.dtype.is_narrow:
        return ("w", w.shape, "int8"), {}
    need(1 in site.consts, f"{w.dtype.value} weights are computed, not constant")
    bits = 4 if w.dtype is DType.I4 else 2
    values = site.consts[1].astype(np.int64).reshape(-1) - w.dtype.range[0]
    lanes = np.concatenate([values, np.zeros(-values.size % (8 // bits), np.int64)]).reshape(-1, 8 // bits)
    packed = (lanes << (bits * np.arange(8 // bits))).sum(1).astype(np.uint8)
    return ("w", packed.shape, "uint8"), {"w": packed}


def to_an_octet(w: TensorType) -> int:
    """How many weights share a byte: kernels that compute so many outputs at a time know where in it each lies."""
    return {DType.I4: 2, DType.I2: 4}.get(w.dtype, 1)


def element(x: TensorType, row: str, index: str) -> str:
    """TVMScript for one input element as int32; a spike is a bit of its row's words."""
    if x.dtype is not DType.BIT:
        return f'T.cast(x[{row}, {index}], "int32")'
    word = f"x[{row}, ({index}) // 32]"
    return f'T.cast(T.shift_right({word}, T.cast(({index}) % 32, "uint32")) & T.uint32(1), "int32")'


def rows_of(t: TensorType) -> tuple[int, int]:
    """A tensor's storage as (rows, units per row)."""
    return prod(t.storage_shape[:-1]), t.storage_shape[-1]


def clamped(value: str, lo: int, hi: int, dtype: DType, wide: str) -> str:
    """TVMScript for a value of type `wide` clamped and stored in a narrower integer type."""
    return f'T.cast(T.max(T.min({value}, T.{wide}({hi})), T.{wide}({lo})), "{dtype.value}")'


def exact(t: torch.Tensor) -> torch.Tensor:
    """Integers in float64, where products and sums below 2**53 are exact and fast."""
    return t.to(torch.float64)


def requantize(x: torch.Tensor, multiplier: torch.Tensor, shift: torch.Tensor, rounding: str) -> torch.Tensor:
    """x * multiplier / 2**shift, rounded. x int32 range, multiplier 0 or in [2**30, 2**31), shift in [1, 62].

    single: floor(x * multiplier / 2**shift + 1/2). tflite: the rounding doubling high multiply, then the rounding
    shift, of gemmlowp (both round half away from zero), as TFLite's reference convolutions do.
    """
    product = x * multiplier
    if rounding == "single":
        return (product + (1 << (shift - 1))) >> shift
    # the left shift of TFLite's form (shift < 31) is applied before the high multiply
    left = torch.clamp(31 - shift, min=0)
    product = (x << left) * multiplier
    nudge = torch.where(product >= 0, 1 << 30, 1 - (1 << 30))
    summed = product + nudge
    high = torch.where(summed >= 0, summed >> 31, -((-summed) >> 31))
    right = torch.clamp(shift - 31, min=0)
    mask = (1 << right) - 1
    remainder = high & mask
    limit = (mask >> 1) + (high < 0).to(torch.int64)
    return (high >> right) + (remainder > limit).to(torch.int64)


def within(op: Any) -> bool:
    """Whether the bounds of an op's output are those of its type or tighter."""
    low, high = DType(op.dtype).range
    return bool(low <= op.lo <= op.hi <= high)


# `scaled` is an int64 in both; see `requantize`
_SINGLE = """shift_by: T.let[T.int64] = T.cast({s}, "int64")
rounded: T.let[T.int64] = T.cast({x}, "int64") * T.cast({m}, "int64") + T.shift_left(T.int64(1), shift_by - T.int64(1))
scaled: T.let[T.int64] = T.shift_right(rounded, shift_by)"""
_TFLITE = """left: T.let[T.int64] = T.cast(T.max(31 - {s}, 0), "int64")
right: T.let[T.int64] = T.cast(T.max({s} - 31, 0), "int64")
summed = T.alloc_buffer((1,), "int64")
high = T.alloc_buffer((1,), "int64")
mask = T.alloc_buffer((1,), "int64")
summed[0] = T.shift_left(T.cast({x}, "int64"), left) * T.cast({m}, "int64")
summed[0] = summed[0] + T.if_then_else(summed[0] >= T.int64(0), T.int64(1 << 30), T.int64(1 - (1 << 30)))
high[0] = T.shift_right(summed[0], T.int64(31))
if summed[0] < T.int64(0):
    high[0] = T.int64(0) - T.shift_right(T.int64(0) - summed[0], T.int64(31))
mask[0] = T.shift_left(T.int64(1), right) - T.int64(1)
half: T.let[T.int64] = T.shift_right(mask[0], T.int64(1))
limit: T.let[T.int64] = half + T.if_then_else(high[0] < T.int64(0), T.int64(1), T.int64(0))
carry: T.let[T.int64] = T.if_then_else((high[0] & mask[0]) > limit, T.int64(1), T.int64(0))
scaled: T.let[T.int64] = T.shift_right(high[0], right) + carry"""


def scaled_lines(rounding: str, x: str, multiplier: str, shift: str) -> list[str]:
    """TVMScript that binds `scaled`, an int64, to `requantize` of int32 expressions."""
    return (_SINGLE if rounding == "single" else _TFLITE).format(x=x, m=multiplier, s=shift).splitlines()


def integer_filter(
    site: Site, window: Window, groups: int, pad_value: int
) -> tuple[Filter, tuple[Param, ...], dict[str, Array]]:
    """Sums of a convolution of integers with operands x, w, bias [..., O], its parameters for them, and constants.

    Inputs count from the padding's value, which then adds nothing; what that takes from each sum is in the bias. No sum
    leaves the range that it has for some inputs, so none overflows.
    """
    x, w, bias = site.inputs[:3]
    *kernel, inputs, outputs = w.shape
    kh, kw = (1, *kernel)[-2:]
    packed = x.dtype is DType.BIT
    value = element(x, "{row}", f"{{col}} * {window.channels} + {{c}}")
    if packed:
        value = element(x, f"({{row}}) * {window.cols.extent} + {{col}}", "{c}")
    weights, consts = weight_array(site)
    if not w.dtype.is_narrow:
        weights = ("w", (kh, kw * inputs, outputs), "int8")
    if window.clipped and pad_value:
        need({1, 2} <= set(site.consts), f"padding of {pad_value} around weights that are computed, not constant")
        value = f"({value} - {pad_value})"
        sums = site.consts[1].astype(np.int64).reshape(-1, outputs).sum(0)
        consts = consts | {"bias": (site.consts[2] + pad_value * sums).astype(np.int32)}
    factor = weight(replace(w, shape=(kh, kw * inputs, outputs)), "p", "{k}", "{o}")
    products = Filter(window, (kh, kw, inputs, outputs), groups, value, factor, not packed, to_an_octet(w))
    shape = rows_of(x) if packed else window.x_shape
    return products, (("x", shape, ctype(x.dtype)), weights, ("bias", bias.shape, "int32")), consts


class IntegerLayer(Op):
    """A layer of integers; its sums are exact."""

    is_layer: ClassVar[bool] = True
    #: the op that requantises its sums too
    requantizing: ClassVar[Any] = None

    def taking(self, after: Op, types: Sequence[TensorType]) -> Op | None:
        """Sums of int8 are requantised where they are made: the tensor of int32 sums then never exists. Those of spikes
        have kernels of their own."""
        if self.requantizing is None or not isinstance(after, Requantize) or types[0].dtype not in (DType.I4, DType.I8):
            return None
        both = {f.name: getattr(op, f.name) for op in (self, after) for f in fields(op)}
        op: Op = self.requantizing(**both)
        return op

    def sums(self, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """The accumulators, whatever becomes of them."""
        raise NotImplementedError

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.sums(*tensors)

    def interval(self, types: Sequence[TensorType], operands: Sequence[Interval]) -> Interval | None:
        x, w, bias = operands
        return weighted(self.sums, x, w, bias)


@dataclass(frozen=True)
class Levels(Op):
    """How int32 accumulators are stored: clamped to lo..hi, as `dtype` with one scale and zero point."""

    dtype: str = "int8"
    scale: float = 1.0
    zero_point: int = 0
    lo: int = -128
    hi: int = 127
    rounding: str = "single"


@dataclass(frozen=True)
class Requantize(Levels):
    """int32 accumulators to int8 or int16: clamp(zero_point + x * multiplier / 2**shift, lo, hi).

    A relu is a tighter lo. x [..., C]; multiplier and shift int32 [C] or [1] (see `requantize`).
    """

    name: ClassVar[str] = "requantize"
    axes: ClassVar[Any] = "...c,c,c->...c"
    monotone: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "int32[2,3,4], int32[4], int32[4]",
        "int32[2,4], int32[1], int32[1] {rounding='tflite',lo=-5}",
    )

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, multiplier, shift = types
        need(x.dtype in (DType.I32, DType.I16, DType.I8), f"expected integers, found {x.dtype.value}")
        need(self.rounding in ROUNDINGS, f"expected rounding one of {ROUNDINGS}, found {self.rounding!r}")
        fits = multiplier.shape == shift.shape and multiplier.shape in ((1,), (x.shape[-1],))
        need(fits, f"multiplier {multiplier.shape} and shift {shift.shape} do not fit {x.shape}")
        need(within(self), f"{self.lo} to {self.hi} is more than {self.dtype} holds")
        return (replace(x, dtype=DType(self.dtype), quant=QuantParams((self.scale,), self.zero_point)),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, multiplier, shift = tensors
        return (requantize(x, multiplier, shift, self.rounding) + self.zero_point).clamp(self.lo, self.hi)

    def levels(self, x: Array, multiplier: Array, shift: Array) -> Array:
        """The reference on arrays."""
        tensors = (torch.from_numpy(a.astype(np.int64)) for a in (x, multiplier, shift))
        return np.asarray(self.reference(*tensors).numpy())

    def element_lines(self, x: str, channel: str, y: str) -> list[str]:
        """TVMScript for one element: y from x with the multiplier and shift of a channel."""
        lines = scaled_lines(self.rounding, x, f"multiplier[{channel}]", f"shift[{channel}]")
        value = f"scaled + T.int64({self.zero_point})"
        return [*lines, f"{y} = {clamped(value, self.lo, self.hi, DType(self.dtype), 'int64')}"]

    def lower(self, site: Site) -> Kernel:
        x, multiplier, _ = site.inputs
        rows, channels = rows_of(x)
        lines = self.element_lines("x[r, c]", "c" if multiplier.size > 1 else "0", "y[r, c]")
        inner = "\n".join(f"        {line}" for line in lines)
        body = f"for r in T.parallel({rows}):\n    for c in T.parallel({channels}):\n{inner}"
        scales = tuple((name, multiplier.shape, "int32") for name in ("multiplier", "shift"))
        params = (("x", (rows, channels), x.dtype.value), *scales)
        return Kernel(body, (*params, ("y", (rows, channels), self.dtype)))


@dataclass(frozen=True)
class Requantizing(Levels):
    """Mixin before a layer with int32 accumulators: it requantises them; operands multiplier and shift come last."""

    requantizing: ClassVar[Any] = None

    @property
    def requantization(self) -> Requantize:
        """The second half as an op of its own."""
        return Requantize(self.dtype, self.scale, self.zero_point, self.lo, self.hi, self.rounding)

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        *operands, multiplier, shift = types
        (total,) = super().infer(operands)
        return self.requantization.infer((total, multiplier, shift))

    def axes(self, types: Sequence[TensorType]) -> str:
        sums = super().axes
        operands, result = (sums if isinstance(sums, str) else sums(types[:-2])).split("->")
        return f"{operands},{result[-1]},{result[-1]}->{result}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        *operands, multiplier, shift = tensors
        return self.requantization.reference(super().reference(*operands), multiplier, shift)

    def interval(self, types: Sequence[TensorType], operands: Sequence[Interval]) -> Interval | None:
        *others, multiplier, shift = operands
        sums = super().interval(types[:-2], others)
        return None if sums is None else corners(self.requantization, (sums, multiplier, shift))


@dataclass(frozen=True)
class QAdd(Op):
    """y = clamp(zero_point + ((a - za) * ma + (b - zb) * mb + 2**(shift-1)) / 2**shift), broadcasting.

    shift 0 adds as they are.
    """

    name: ClassVar[str] = "qadd"
    axes: ClassVar[Any] = "...,...->..."
    monotone: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "int16[2,3,4], int16[2,3,4]",
        "int8[2,3,4], int8[4] {za=1,zb=-2,ma=300,mb=-200,shift=3}",
    )
    inplace: ClassVar[tuple[int, ...]] = (0, 1)
    dtype: str = "int16"
    scale: float = 1.0
    zero_point: int = 0
    za: int = 0
    zb: int = 0
    ma: int = 1
    mb: int = 1
    shift: int = 0
    lo: int = -32768
    hi: int = 32767

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        shape, quant = broadcast_shape(*types), QuantParams((self.scale,), self.zero_point)
        return (TensorType(shape, DType(self.dtype), quant, same_time(types)),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        total = (tensors[0] - self.za) * self.ma + (tensors[1] - self.zb) * self.mb
        if self.shift:
            total = (total + (1 << (self.shift - 1))) >> self.shift
        return (total + self.zero_point).clamp(self.lo, self.hi)

    def lower(self, site: Site) -> Kernel:
        """In 32 bits where the operands' types prove that nothing overflows, else in 64."""
        (a, b), (y,) = site.inputs, site.outputs
        shape = (y.size,) if a.size == b.size == y.size else y.shape
        at = {v: position(t.shape if t.size != y.size else shape, shape) for v, t in (("a", a), ("b", b), ("y", y))}
        terms = [(a, self.za, self.ma), (b, self.zb, self.mb)]
        reach = sum((abs(t.dtype.range[0]) + abs(z)) * max(abs(m), 1) for t, z, m in terms)
        wide = "int32" if reach + (1 << self.shift) + abs(self.zero_point) < 1 << 31 else "int64"
        total = " + ".join(
            f'(T.cast({v}[{at[v]}], "{wide}") - T.{wide}({z})) * T.{wide}({m})'
            for v, (_, z, m) in zip("ab", terms, strict=True)
        )
        if self.shift:
            total = f"T.shift_right({total} + T.{wide}({1 << (self.shift - 1)}), T.{wide}({self.shift}))"
        value = clamped(f"{total} + T.{wide}({self.zero_point})", self.lo, self.hi, DType(self.dtype), wide)
        body, _ = loop_nest(shape, f"y[{at['y']}] = {value}")
        params = (("a", (a.size,), a.dtype.value), ("b", (b.size,), b.dtype.value), ("y", (y.size,), self.dtype))
        return Kernel(body, params)


@dataclass(frozen=True)
class QLut(Op):
    """y = table[x + 128]: any function of one int8 element, table int8 [256]."""

    name: ClassVar[str] = "qlut"
    axes: ClassVar[Any] = "...,t->..."
    examples: ClassVar[tuple[str, ...]] = ("int8[2,3,4], int8[256]",)
    inplace: ClassVar[tuple[int, ...]] = (0,)
    scale: float = 1.0
    zero_point: int = 0

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, table = types
        fits = x.dtype is DType.I8 and table.shape == (256,)
        need(fits, f"expected int8 and a table of 256, found {x.dtype.value} and {table.shape}")
        return (replace(x, quant=QuantParams((self.scale,), self.zero_point)),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[1][tensors[0] + 128]

    def interval(self, types: Sequence[TensorType], operands: Sequence[Interval]) -> Interval | None:
        """The extremes of the table between two entries."""
        values, table = operands[0], operands[1].lo
        if not operands[1].known.all():
            return None
        before = torch.ones(256, 256, dtype=torch.bool).tril(-1)  # [first, last]: only last >= first counts
        least = torch.cummin(table.expand(256, 256).masked_fill(before, 128), 1).values
        most = torch.cummax(table.expand(256, 256).masked_fill(before, -129), 1).values
        lo, hi = values.lo + 128, values.hi + 128
        return Interval(least[lo, hi], most[lo, hi])

    def lower(self, site: Site) -> Kernel:
        n = site.inputs[0].size
        body = f"""for i in T.parallel({n}):
    y[i] = table[T.cast(x[i], "int32") + 128]"""
        return Kernel(body, (("x", (n,), "int8"), ("table", (256,), "int8"), ("y", (n,), "int8")))
