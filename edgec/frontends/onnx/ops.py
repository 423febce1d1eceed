"""ONNX operators to ops of the IR: one row each, in a table."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, prod
from typing import Any

import numpy as np

from edgec.frontends.onnx.layers import average_pool, batch_norm, convolution, gemm, matmul, max_pool, mean, softmax
from edgec.frontends.onnx.values import Call, Constant, Value
from edgec.ops.arithmetic import Add, Mul, Sub
from edgec.ops.elementwise import Clip
from edgec.ops.shape import Concat, Pad


def clip(call: Call) -> str:
    """Bounds that are attributes before operator set 11, inputs since."""
    low, high = call.number("min", -inf), call.number("max", inf)
    return call.emit(Clip(*(None if abs(v) == inf else v for v in (low, high))), call.tensor("input"))


def arithmetic(op: Any) -> Callable[[Call], str]:
    """Elementwise on two tensors that broadcast; only constants may have fewer axes."""

    def convert(call: Call) -> str:
        shapes = {key: call.shape(key) for key in "AB"}
        rank, names = max(map(len, shapes.values())), []
        for k, (key, shape) in enumerate(shapes.items()):
            value = call.value(key)
            if isinstance(value, Constant):
                names.append(call.part(f"operand{k}", value.reshaped((1,) * (rank - len(shape)) + shape)))
            elif len(shape) < rank:
                raise ValueError(f"operands of shapes {shapes}: only constants may have fewer axes")
            else:
                names.append(value)
        return call.emit(op, *names)

    return convert


def same(call: Call) -> Value:
    """Operators that change nothing at inference."""
    return call.value(call.first)


def dropout(call: Call) -> Value:
    """Nothing at inference; in training mode it is random, but for ratio 0."""
    call.ignore("seed", "ratio", "training_mode")
    training = call.value("training_mode") if call.has("training_mode") else Constant(np.zeros(1, bool))
    if not isinstance(training, Constant) or training.data.any():
        ratio = call.value("ratio") if call.has("ratio") else Constant(np.full(1, 0.5))
        if not isinstance(ratio, Constant) or ratio.data.any():
            raise ValueError("training_mode is not a constant false: export the model in eval mode")
    return call.value("data")


def reshaped(call: Call, shape: tuple[int, ...]) -> Value:
    """The elements in their order."""
    value, old = call.value(call.first), call.shape(call.first)
    if prod(shape) != prod(old):
        raise ValueError(f"{old} cannot become {shape}")
    return value.reshaped(shape) if isinstance(value, Constant) else call.reshape(value, shape)


def reshape(call: Call) -> Value:
    """0 keeps an extent, -1 is what remains."""
    old, wanted = call.shape("data"), call.integers("shape")
    if call["allowzero"] and 0 in wanted:
        raise ValueError(f"shape {wanted} has no elements")
    shape = [old[k] if n == 0 else n for k, n in enumerate(wanted)]
    if -1 in shape:
        shape[shape.index(-1)] = prod(old) // max(prod(n for n in shape if n != -1), 1)
    return reshaped(call, tuple(shape))


def flatten(call: Call) -> Value:
    """Two axes: those before `axis` and the others."""
    shape, axis = call.shape("input"), call["axis"]
    axis += len(shape) if axis < 0 else 0
    return reshaped(call, (prod(shape[:axis]), prod(shape[axis:])))


def squeeze(call: Call) -> Value:
    """Without axes of extent 1: those named, or all."""
    shape = call.shape("data")
    axes = {a % len(shape) for a in call.integers("axes")} or tuple(k for k, n in enumerate(shape) if n == 1)
    return reshaped(call, tuple(n for k, n in enumerate(shape) if k not in axes))


def unsqueeze(call: Call) -> Value:
    """With axes of extent 1; they count in the result."""
    shape, axes = list(call.shape("data")), call.integers("axes")
    rank = len(shape) + len(axes)
    for axis in sorted(a % rank for a in axes):
        shape.insert(axis, 1)
    return reshaped(call, tuple(shape))


def transpose(call: Call) -> Value:
    """Axes in another order, by default reversed."""
    perm = call.integers("perm") or tuple(reversed(range(len(call.shape("data")))))
    value = call.value("data")
    return value.permuted(perm) if isinstance(value, Constant) else call.permute(value, perm)


def pad(call: Call) -> str:
    """A constant around the elements."""
    call.only("mode", "constant")
    amounts, rank = call.integers("pads"), len(call.shape("data"))
    axes = [a % rank for a in call.integers("axes")] if call.has("axes") else list(range(rank))
    value = call.number("constant_value", 0.0)
    pairs = {a: (amounts[k], amounts[k + len(axes)]) for k, a in enumerate(axes)}
    return call.emit(Pad(tuple(n for a in range(rank) for n in pairs.get(a, (0, 0))), value), call.tensor("data"))


def concat(call: Call) -> str:
    """Side by side."""
    parts = call.tensors("inputs")
    return call.emit(Concat(call["axis"] % len(call.build.type_of(parts[0]).shape)), *parts)


#: operator -> an expression of its inputs and attributes (`Call.map`), or a converter; QuantizeLinear and
#: DequantizeLinear are the walker's own
CONVERTERS: dict[str, str | Callable[[Call], Value]] = {
    "Add": arithmetic(Add()),
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Clip": clip,
    "Concat": concat,
    "Conv": convolution,
    "Dropout": dropout,
    "Flatten": flatten,
    "Gemm": gemm,
    "GlobalAveragePool": mean,
    "HardSigmoid": "min(max(alpha * X + beta, 0), 1)",
    "HardSwish": "hardswish(X)",
    "Identity": same,
    "LeakyRelu": "leaky_relu(X, slope=alpha)",
    "MatMul": matmul,
    "MaxPool": max_pool,
    "Mul": arithmetic(Mul()),
    "Pad": pad,
    "ReduceMean": mean,
    "Relu": "relu(X)",
    "Reshape": reshape,
    "Sigmoid": "sigmoid(X)",
    "Softmax": softmax,
    "Squeeze": squeeze,
    "Sub": arithmetic(Sub()),
    "Tanh": "tanh(input)",
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
