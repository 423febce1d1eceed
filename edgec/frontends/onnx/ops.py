"""ONNX operators between DequantizeLinear and QuantizeLinear to ops of the IR: one converter each, in a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, prod

import numpy as np

from edgec.frontends.onnx.layers import average_pool, batch_norm, convolution, gemm, matmul, max_pool, mean, softmax
from edgec.frontends.onnx.values import Call, Constant, Floats, Grid, Pending, Stored, Value, power
from edgec.frontends.tflite.numbers import quantize_multiplier
from edgec.ops.integer.product import QMul
from edgec.ops.integer.requantize import QAdd
from edgec.ops.shape import Concat, Pad, Reshape


def unary(function: Callable[[Call, Floats], Floats]) -> Callable[[Call], Pending]:
    """An elementwise function of real numbers: a table of the levels, so its rounding is exact."""

    def convert(call: Call) -> Pending:
        x = call.stored(call.first)
        reals = function(call, x.grid.reals())

        def make(grid: Grid, lo: int, hi: int) -> Stored:
            return call.mapped(x, grid, np.clip(grid.levels(reals), lo, hi))

        return Pending(make)

    return convert


def bounded(call: Call, low: float, high: float) -> Pending:
    """Relu and Clip: part of the op before them, or a table of the levels."""
    value = call.value(call.first)
    if isinstance(value, Pending) and value.exact is None:
        return value.within(low, high)
    x = call.stored(call.first)
    return Pending(lambda grid, lo, hi: call.regrid(x, grid, lo, hi), low, high, x.grid)


def clip(call: Call) -> Pending:
    """Bounds that are attributes before operator set 11, inputs since."""
    return bounded(call, call.number("min", -inf), call.number("max", inf))


def operand(call: Call, key: str, like: Stored) -> tuple[str, Grid]:
    """An operand of an elementwise op with its axes as `like` has them: computed, or a constant on one grid."""
    value = call.value(key)
    if not isinstance(value, Constant):
        x = call.stored(key)
        if len(x.shape) != len(like.shape):
            raise ValueError(f"operands of shapes {like.shape} and {x.shape}: only constants may have fewer axes")
        return (x.name if x.axes == like.axes and x.flat == like.flat else call.arranged(x, like.axes)), x.grid
    if value.integers is None or value.scales.size != 1 or like.flat is not None:
        raise ValueError(f"constant {call[key].name} is not quantised with one scale")
    data = value.integers.reshape((1,) * (len(like.shape) - value.integers.ndim) + value.integers.shape)
    (name,) = call.consts(**{f"operand{'AB'.index(key)}": data.transpose(like.axes).astype(np.int8)})
    return name, Grid(float(value.scales[0]), int(value.zeros[0]))


def operands(call: Call) -> tuple[tuple[str, Grid], tuple[str, Grid], Stored, tuple[int, ...]]:
    """Both operands, the one that gives the order of axes, and the result's shape."""
    first, second = "BA" if isinstance(call.value("A"), Constant) else "AB"
    like = call.stored(first)
    other = call.value(second)
    shape = other.real.shape if isinstance(other, Constant) else call.stored(second).shape
    pair = [(like.name, like.grid), operand(call, second, like)]
    return (*pair[:: 1 if first == "A" else -1], like, np.broadcast_shapes(like.shape, shape))  # type: ignore[return-value]


def add(call: Call) -> Pending:
    """Add and Sub in fixed point with as many fraction bits as int32 holds."""
    (a, ga), (b, gb), like, shape = operands(call)
    sign = -1 if call.kind == "Sub" else 1
    full = tuple(shape[axis] for axis in like.axes)
    names = [
        n if (c := call.build.constant(n)) is None else call.build.const(f"{n}_all", np.broadcast_to(c, full))
        for n in (a, b)
    ]

    def make(grid: Grid, lo: int, hi: int) -> Stored:
        factors = (ga.scale / grid.scale, sign * gb.scale / grid.scale)
        shift = min(power(256 * sum(map(abs, factors)) + 2), 24)
        if shift < 1:
            raise ValueError(f"its output scale {grid.scale:g} is too fine for its inputs")
        ma, mb = (round(f * 2.0**shift) for f in factors)
        op = QAdd("int8", grid.scale, grid.zero, ga.zero, gb.zero, ma, mb, shift, lo, hi)
        return replace(like, name=call.emit(op, *names), shape=shape, grid=grid)

    return Pending(make)


def mul(call: Call) -> Pending:
    """A product of two tensors, one of which may be broadcast."""
    (a, ga), (b, gb), like, shape = operands(call)

    def make(grid: Grid, lo: int, hi: int) -> Stored:
        multiplier, shift = quantize_multiplier(float(np.float32(ga.scale * gb.scale)) / grid.scale)
        op = QMul("int8", grid.scale, grid.zero, ga.zero, gb.zero, multiplier, 31 + shift, lo, hi)
        return replace(like, name=call.emit(op, a, b), shape=shape, grid=grid)

    return Pending(make)


def before_rounding(convert: Callable[[Call], Value]) -> Callable[[Call], Value]:
    """An operator that moves elements or picks some may follow a result that is yet to be rounded: it then moves the
    rounded ones."""

    def converted(call: Call) -> Value:
        value, name = call.value(call.first), call[call.first].name
        if not isinstance(value, Pending) or value.exact is not None:
            return convert(call)

        later = replace(call, seen=set())
        call.ignore(*call.args)

        def make(grid: Grid, lo: int, hi: int) -> Stored:
            values = {**call.values, name: value.make(grid, lo, hi)}
            moved = replace(later, values=values).convert(convert)
            assert isinstance(moved, Stored)
            return moved

        return replace(value, make=make)

    return converted


def same(call: Call) -> Value:
    """Operators that change nothing at inference."""
    return call.value(call.first)


def dropout(call: Call) -> Value:
    """Nothing at inference; in training mode it is random, but for ratio 0."""
    call.ignore("seed", "ratio", "training_mode")
    training = call.value("training_mode") if call.has("training_mode") else Constant(np.zeros(1, bool))
    if not isinstance(training, Constant) or training.real.any():
        ratio = call.value("ratio") if call.has("ratio") else Constant(np.full(1, 0.5))
        if not isinstance(ratio, Constant) or ratio.real.any():
            raise ValueError("training_mode is not a constant false: export the model in eval mode")
    return call.value("data")


def reshaped(call: Call, shape: tuple[int, ...]) -> Value:
    """The elements in their order. An image that is flattened keeps its channels last where it can."""
    value = call.value(call.first)
    if isinstance(value, Constant):
        integers = None if value.integers is None else value.integers.reshape(shape)
        return replace(value, real=value.real.reshape(shape), integers=integers)
    x = call.stored(call.first)
    if prod(shape) != prod(x.shape):
        raise ValueError(f"{x.shape} cannot become {shape}")
    if shape == x.shape:
        return x
    rank, natural = len(x.shape), tuple(range(len(shape)))
    spatial = rank > 2 and x.flat is None and x.axes == (0, *range(2, rank), 1) and prod(x.shape[2:]) > 1
    if spatial and x.shape[1] > 1 and shape == (x.shape[0], prod(x.shape[1:])):
        return Stored(call.emit(Reshape(shape), x.name), shape, x.grid, natural, (x.shape[1], prod(x.shape[2:])))
    return Stored(call.emit(Reshape(shape), call.natural(x)), shape, x.grid, natural)


def shape_of(call: Call) -> tuple[int, ...]:
    """The shape of the first input in the file."""
    value = call.value(call.first)
    return value.real.shape if isinstance(value, Constant) else call.stored(call.first).shape


def reshape(call: Call) -> Value:
    """0 keeps an extent, -1 is what remains."""
    old, wanted = shape_of(call), call.integers("shape")
    if call["allowzero"] and 0 in wanted:
        raise ValueError(f"shape {wanted} has no elements")
    shape = [old[k] if n == 0 else n for k, n in enumerate(wanted)]
    if -1 in shape:
        shape[shape.index(-1)] = prod(old) // max(prod(n for n in shape if n != -1), 1)
    return reshaped(call, tuple(shape))


def flatten(call: Call) -> Value:
    """Two axes: those before `axis` and the others."""
    shape = shape_of(call)
    axis = call["axis"]
    axis += len(shape) if axis < 0 else 0
    return reshaped(call, (prod(shape[:axis]), prod(shape[axis:])))


def squeeze(call: Call) -> Value:
    """Without axes of extent 1: those named, or all."""
    shape = shape_of(call)
    axes = {a % len(shape) for a in call.integers("axes")} or tuple(k for k, n in enumerate(shape) if n == 1)
    return reshaped(call, tuple(n for k, n in enumerate(shape) if k not in axes))


def unsqueeze(call: Call) -> Value:
    """With axes of extent 1; they count in the result."""
    shape, axes = list(shape_of(call)), call.integers("axes")
    rank = len(shape) + len(axes)
    for axis in sorted(a % rank for a in axes):
        shape.insert(axis, 1)
    return reshaped(call, tuple(shape))


def transpose(call: Call) -> Value:
    """Bookkeeping."""
    perm = call.integers("perm") or tuple(reversed(range(len(shape_of(call)))))
    value = call.value("data")
    if isinstance(value, Constant):
        integers = None if value.integers is None else value.integers.transpose(perm)
        return replace(value, real=value.real.transpose(perm), integers=integers, axis=perm.index(value.axis))
    x = call.stored("data")
    name = x.name if x.flat is None else call.natural(x)
    return Stored(name, tuple(x.shape[p] for p in perm), x.grid, tuple(perm.index(a) for a in x.axes))


def pad(call: Call) -> Stored:
    """A constant around the elements, rounded to the tensor's grid."""
    x = call.stored("data")
    call.only("mode", "constant")
    amounts, rank = call.integers("pads"), len(x.shape)
    axes = [a % rank for a in call.integers("axes")] if call.has("axes") else list(range(rank))
    value = call.number("constant_value", 0.0)
    pairs = {a: (amounts[k], amounts[k + len(axes)]) for k, a in enumerate(axes)}
    shape = tuple(n + sum(pairs.get(k, (0, 0))) for k, n in enumerate(x.shape))
    name = x.name if x.flat is None else call.natural(x)
    flat = tuple(n for axis in x.axes for n in pairs.get(axis, (0, 0)))
    return Stored(call.emit(Pad(flat, x.grid.level(value)), name), shape, x.grid, x.axes)


def concat(call: Call) -> Pending:
    """Each operand on the result's grid, then side by side."""
    parts = call.all_stored("inputs")
    axis = call["axis"] % len(parts[0].shape)
    axes = parts[0].axes
    grids = {p.grid for p in parts}

    def make(grid: Grid, lo: int, hi: int) -> Stored:
        moved = [call.arranged(call.regrid(p, grid, lo, hi), axes) for p in parts]
        shape = list(parts[0].shape)
        shape[axis] = sum(p.shape[axis] for p in parts)
        return Stored(call.emit(Concat(axes.index(axis)), *moved), tuple(shape), grid, axes)

    return Pending(make, exact=parts[0].grid if len(grids) == 1 else None)


def sigmoid(call: Call, x: Floats) -> Floats:
    """1 / (1 + exp(-x))."""
    y: Floats = (1 / (1 + np.exp(-x))).astype(np.float32)
    return y


def hard_sigmoid(call: Call, x: Floats) -> Floats:
    """alpha x + beta within [0, 1]."""
    y: Floats = np.float32(call["alpha"]) * x + np.float32(call["beta"])
    return y.clip(0, 1)


def leaky(call: Call, x: Floats) -> Floats:
    """alpha x below 0."""
    y: Floats = np.where(x < 0, np.float32(call["alpha"]) * x, x).astype(np.float32)
    return y


#: operator -> converter; QuantizeLinear and DequantizeLinear are the walker's own
CONVERTERS: dict[str, Callable[[Call], Value]] = {
    "Add": add,
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Clip": clip,
    "Concat": concat,
    "Conv": convolution,
    "Dropout": dropout,
    "Flatten": before_rounding(flatten),
    "Gemm": gemm,
    "GlobalAveragePool": mean,
    "HardSigmoid": unary(hard_sigmoid),
    "HardSwish": unary(lambda call, x: (x * np.clip(x / 6 + 0.5, 0, 1)).astype(np.float32)),
    "Identity": same,
    "LeakyRelu": unary(leaky),
    "MatMul": matmul,
    "MaxPool": before_rounding(max_pool),
    "Mul": mul,
    "Pad": pad,
    "ReduceMean": mean,
    "Relu": lambda call: bounded(call, 0.0, inf),
    "Reshape": before_rounding(reshape),
    "Sigmoid": unary(sigmoid),
    "Softmax": softmax,
    "Squeeze": before_rounding(squeeze),
    "Sub": add,
    "Tanh": unary(lambda call, x: np.tanh(x)),
    "Transpose": before_rounding(transpose),
    "Unsqueeze": before_rounding(unsqueeze),
}
