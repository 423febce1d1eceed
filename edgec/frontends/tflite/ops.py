"""TFLite operators on int8 to ops of the IR: one converter each, in the literal table at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.frontends import call as calls
from edgec.frontends.builder import GraphBuilder
from edgec.frontends.tflite.model import TfModel, TfOp, TfTensor
from edgec.frontends.tflite.numbers import (
    Floats,
    activation_range,
    float32,
    float_table,
    mean_factor,
    multipliers,
    quantize_multiplier,
    same_padding,
    scaled_twice,
    softmax_table,
)
from edgec.frontends.tflite.schema import Row, takes
from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops.integer.conv import QConv2dRequantize
from edgec.ops.integer.linear import QLinear
from edgec.ops.integer.pool import QMaxPool2d
from edgec.ops.integer.requantize import QLut, Requantize, accumulator_bounds
from edgec.ops.integer.tflite import TfliteAdd, TfliteAvgPool2d, TfliteMean, TfliteMul, TfliteSoftmax
from edgec.ops.shape import Concat, Pad, Permute, Reshape

Array = npt.NDArray[Any]


def int8_type(t: TensorType | TfTensor) -> TensorType:
    """The IR type of an int8 tensor with one scale; ValueError says what else it is."""
    assert isinstance(t, TfTensor)
    if t.kind != "INT8":
        raise ValueError(f"tensor {t.label} is {t.kind}, expected INT8")
    if len(t.scales) != 1 or not 0 < t.scales[0] < float("inf") or not -128 <= t.zeros[0] <= 127:
        raise ValueError(
            f"tensor {t.label} has scales {t.scales[:3]} and zero points {t.zeros[:3]}, expected one of each"
        )
    if not t.shape or min(t.shape) < 1:
        raise ValueError(f"tensor {t.label} has shape {t.shape}, expected at least one element")
    return TensorType(t.shape, DType.I8, QuantParams(t.scales, t.zeros[0]))


@dataclass(frozen=True)
class Call(calls.Call):
    """One operator being converted: the file, and the IR names of the tensors that are already computed."""

    model: TfModel
    outputs: tuple[int, ...]
    names: dict[int, str]

    def record(self, key: str) -> TfTensor:
        """An input's record."""
        number: int = self[key]
        return self.model.tensors[number]

    def activation(self, key: str) -> tuple[str, TfTensor]:
        """An input as an int8 tensor of the graph, constants included: its IR name and its record."""
        return self.stored(self[key])

    def activations(self, key: str) -> list[tuple[str, TfTensor]]:
        """The tensors of a variadic input."""
        return [self.stored(number) for number in self[key]]

    def stored(self, number: int) -> tuple[str, TfTensor]:
        t = self.model.tensors[number]
        int8_type(t)
        if number not in self.names:
            if t.data is None:
                raise ValueError(f"tensor {t.label} is neither computed nor constant")
            self.names[number] = self.build.const(t.label, t.data)
        return self.names[number], t

    def constant(self, key: str, kind: str) -> Array:
        """An input that must be a constant of an element type."""
        t = self.record(key)
        if t.data is None or t.kind != kind:
            found = "computed" if t.data is None else t.kind
            raise ValueError(f"{key} ({t.label}) is {found}, expected a constant of {kind}")
        return t.data

    def limits(self) -> tuple[int, int]:
        """The fused activation as a clamp of the result."""
        return activation_range(self["FusedActivationFunction"], self.result)

    @property
    def result(self) -> TfTensor:
        if len(self.outputs) != 1:
            raise ValueError(f"{len(self.outputs)} outputs, expected one")
        return self.model.tensors[self.outputs[0]]

    def clamped(self, x: str, lo: int, hi: int) -> str:
        """x within [lo, hi]."""
        if (lo, hi) == (-128, 127):
            return x
        return self.mapped(x, np.clip(np.arange(-128, 128), lo, hi))

    def mapped(self, x: str, table: Array) -> str:
        """A function of one element by its 256 values."""
        name = self.build.const(f"{self.name}_table", table.astype(np.int8))
        return self.emit(QLut(self.result.scales[0], self.result.zeros[0]), x, name)


def call_of(model: TfModel, op: TfOp, build: GraphBuilder, names: dict[int, str]) -> Call:
    """An operator bound to its schema. ValueError for what does not fit it."""
    row = CONVERTERS[op.kind]
    args = row.bound(op.inputs, op.options)
    label = model.tensors[op.outputs[0]].label if op.outputs else op.kind
    return Call(op.kind, row.inputs + row.fields, args, build, label, model, op.outputs, names)


def folded_bias(call: Call, w: Array, zero: int, outputs: int) -> Array:
    """bias - zero point of x * sum of the weights; w [..., O]. ValueError where an accumulator could leave int32."""
    bias = call.constant("bias", "INT32").astype(np.int64) if call.has("bias") else np.zeros(outputs, np.int64)
    if bias.shape != (outputs,):
        raise ValueError(f"bias of shape {bias.shape}, expected ({outputs},)")
    total = bias - zero * w.astype(np.int64).reshape(-1, outputs).sum(0)
    low, high = accumulator_bounds(w, total, (-128, 127))
    if min(int(low.min()), int(total.min())) < -(2**31) or max(int(high.max()), int(total.max())) >= 2**31:
        raise ValueError("its accumulator can leave the range of int32")
    folded: Array = total.astype(np.int32)
    return folded


def weights(call: Call, dims: int, axis: int) -> tuple[Array, tuple[float, ...]]:
    """int8 weights with zero point 0 and a scale, or one per index along `axis`."""
    w, t = call.constant("filter", "INT8"), call.record("filter")
    if w.ndim != dims or w.size == 0:
        raise ValueError(f"weights of shape {w.shape}, expected {dims} dimensions")
    if any(t.zeros) or not t.scales or min(t.scales) < 0:
        raise ValueError(
            f"weights {t.label} have scales {t.scales[:3]} and zero points {t.zeros[:3]}, expected zeros 0"
        )
    if len(t.scales) not in (1, w.shape[axis]) or (len(t.scales) > 1 and t.axis != axis):
        raise ValueError(f"weights {t.label} have {len(t.scales)} scales along axis {t.axis}, expected axis {axis}")
    return w, t.scales


def window(call: Call, x: TfTensor, kernel: tuple[int, int], dilation: tuple[int, int]) -> dict[str, Any]:
    """stride and pad of a convolution or pool."""
    if len(x.shape) != 4:
        raise ValueError(f"input of shape {x.shape}, expected [batch, height, width, channels]")
    stride = (call["StrideH"], call["StrideW"])
    if min(*stride, *kernel, *dilation) < 1:
        raise ValueError(f"stride {stride}, window {kernel}, dilation {dilation}: expected at least 1")
    if call.only("Padding", "SAME", "VALID") == "VALID":
        return {"stride": stride, "pad": (0, 0, 0, 0)}
    pads = [same_padding(x.shape[1 + k], kernel[k], stride[k], dilation[k]) for k in (0, 1)]
    return {"stride": stride, "pad": (*pads[0], *pads[1])}


def convolution(call: Call) -> str:
    """CONV_2D and DEPTHWISE_CONV_2D: rounded twice, as the reference does."""
    (x, tx), y = call.activation("input"), call.result
    depthwise = call.kind == "DEPTHWISE_CONV_2D"
    w, scales = weights(call, 4, 3 if depthwise else 0)
    w = w.transpose(1, 2, 0, 3) if depthwise else w.transpose(1, 2, 3, 0)  # [KH, KW, C/groups, O]
    kernel, inputs, outputs = (w.shape[0], w.shape[1]), w.shape[2], w.shape[3]
    dilation = (call["DilationHFactor"], call["DilationWFactor"])
    place = window(call, tx, kernel, dilation)
    groups = tx.shape[3] // inputs
    if groups * inputs != tx.shape[3] or outputs % groups:
        raise ValueError(f"weights {w.shape} do not fit {tx.shape[3]} channels")
    lo, hi = call.limits()
    bias = folded_bias(call, w, tx.zeros[0], outputs)
    sx, sy = tx.scales[0], y.scales[0]
    factors = multipliers([sx * s / sy for s in (scales if len(scales) > 1 else scales * outputs)])
    constants = zip(("weights", "bias", "multiplier", "shift"), (w, bias, *factors), strict=True)
    names = [call.build.const(f"{y.label}_{part}", value) for part, value in constants]
    requantize = ("int8", sy, y.zeros[0], lo, hi, "tflite")
    op = QConv2dRequantize(place["stride"], place["pad"], dilation, groups, tx.zeros[0], *requantize)
    return call.emit(op, x, *names)


def fully_connected(call: Call) -> str:
    """FULLY_CONNECTED: rounded once."""
    (x, tx), y = call.activation("input"), call.result
    if call["WeightsFormat"]:
        raise ValueError("shuffled weights are not supported")
    w, scales = weights(call, 2, 0)
    outputs, inputs = w.shape
    rows = int(np.prod(tx.shape)) // inputs
    if rows * inputs != np.prod(tx.shape):
        raise ValueError(f"weights {w.shape} do not fit an input of shape {tx.shape}")
    lo, hi = call.limits()
    bias = folded_bias(call, w.T, tx.zeros[0], outputs)
    if len(scales) > 1:
        factors = multipliers([tx.scales[0] * s / y.scales[0] for s in scales])
    else:
        factors = multipliers([float32(tx.scales[0] * scales[0]) / y.scales[0]])
    names = [call.build.const(f"{y.label}_{n}", v) for n, v in (("weights", w.T), ("bias", bias))]
    total = call.build.emit(QLinear(), call.build.emit(Reshape((rows, inputs)), x), *names)
    scale = [call.build.const(f"{y.label}_{n}", v) for n, v in zip(("multiplier", "shift"), factors, strict=True)]
    flat = call.emit(Requantize("int8", y.scales[0], y.zeros[0], lo, hi, "single"), total, *scale)
    return flat if y.shape == (rows, outputs) else call.emit(Reshape(y.shape), flat)


def pool(call: Call) -> str:
    """AVERAGE_POOL_2D and MAX_POOL_2D: scale and zero point stay."""
    (x, tx), y = call.activation("input"), call.result
    kernel = (call["FilterHeight"], call["FilterWidth"])
    place = window(call, tx, kernel, (1, 1))
    same_scale(tx, y)
    kind = QMaxPool2d if call.kind == "MAX_POOL_2D" else TfliteAvgPool2d
    pooled = call.emit(kind(kernel, place["stride"], place["pad"]), x)
    return call.clamped(pooled, *call.limits())


def same_scale(x: TfTensor, y: TfTensor) -> None:
    """ValueError where an operator that only moves elements would have to rescale them."""
    if (x.scales, x.zeros) != (y.scales, y.zeros):
        raise ValueError(f"{x.label} and {y.label} have different scales or zero points, expected the same")


def add(call: Call) -> str:
    """ADD and SUB; a constant that is broadcast is stored so, as kernels take operands of one shape fastest."""
    y = call.result
    operands = [call.activation(key) for key in ("lhs", "rhs")]
    for k, (name, t) in enumerate(operands):
        if t.shape != y.shape and t.data is not None:
            operands[k] = (call.build.const(f"{name}_broadcast", np.broadcast_to(t.data, y.shape)), t)
    (a, ta), (b, tb) = operands
    twice = 2.0 * max(ta.scales[0], tb.scales[0])
    reals = (ta.scales[0] / twice, tb.scales[0] / twice, twice / (2.0**20 * y.scales[0]))
    factors = [quantize_multiplier(r) for r in reals]
    if any(shift < 0 for _, shift in factors):
        raise ValueError(f"its output scale {y.scales[0]:g} is too fine for its inputs")
    (ma, sa), (mb, sb), (my, sy) = factors
    lo, hi = call.limits()
    sign = -1 if call.kind == "SUB" else 1
    zeros = (ta.zeros[0], tb.zeros[0])
    return call.emit(TfliteAdd(y.scales[0], y.zeros[0], *zeros, ma, sa, mb, sb, my, sy, sign, lo, hi), a, b)


def softmax(call: Call) -> str:
    """SOFTMAX over the last axis."""
    (x, tx), y = call.activation("input"), call.result
    if y.scales != (1 / 256,) or y.zeros != (-128,):
        raise ValueError(f"output scale {y.scales[0]:g}, zero point {y.zeros[0]}: expected 1/256 and -128")
    table = softmax_table(call["Beta"], tx.scales[0])
    return call.emit(TfliteSoftmax(), x, call.build.const(f"{y.label}_exps", table))


def reshape(call: Call) -> str:
    """Whatever keeps the elements in their order; the file says which shape comes out."""
    call.ignore("shape", "dim")
    (x, tx), y = call.activation("input"), call.result
    same_scale(tx, y)
    return call.emit(Reshape(y.shape), x)


def transpose(call: Call) -> str:
    """TRANSPOSE by a constant permutation."""
    (x, tx), y, perm = call.activation("input"), call.result, call.constant("perm", "INT32").reshape(-1)
    same_scale(tx, y)
    return call.emit(Permute(tuple(int(p) % len(tx.shape) for p in perm)), x)


def pad(call: Call) -> str:
    """PAD and PADV2 with the zero point, or with a constant of the same scale."""
    (x, tx), y = call.activation("input"), call.result
    same_scale(tx, y)
    amounts = call.record("padding")
    if amounts.data is None or amounts.data.shape != (len(tx.shape), 2):
        raise ValueError("its amounts are not a constant with a pair for each axis")
    value = tx.zeros[0]
    if call.kind == "PADV2":
        value = int(call.constant("constant_values", "INT8").reshape(-1)[0])
        same_scale(call.record("constant_values"), y)
    return call.emit(Pad(tuple(int(n) for n in amounts.data.reshape(-1)), value), x)


def concat(call: Call) -> str:
    """CONCATENATION of tensors of one scale."""
    y = call.result
    operands = call.activations("values")
    for _, t in operands:
        same_scale(t, y)
    joined = call.emit(Concat(call["Axis"] % len(y.shape)), *(name for name, _ in operands))
    return call.clamped(joined, *call.limits())


def rescale(call: Call) -> str:
    """RELU, RELU6, RELU_N1_TO_1, and QUANTIZE from int8 to int8: one table."""
    (x, tx), y, kind = call.activation("input"), call.result, call.kind
    exact = tx.scales[0] / y.scales[0]
    multiplier, shift = quantize_multiplier(exact if kind == "QUANTIZE" else float32(exact))
    lo, hi = activation_range("NONE" if kind == "QUANTIZE" else kind, y)
    values = [scaled_twice(k - tx.zeros[0], multiplier, shift) + y.zeros[0] for k in range(-128, 128)]
    return call.mapped(x, np.clip(np.array(values), lo, hi))


def multiply(call: Call) -> str:
    """MUL, broadcasting."""
    (a, ta), (b, tb), y = call.activation("lhs"), call.activation("rhs"), call.result
    factors = multipliers([ta.scales[0] * tb.scales[0] / y.scales[0]])
    lo, hi = call.limits()
    numbers = (ta.zeros[0], tb.zeros[0], int(factors[0][0]), int(factors[1][0]), lo, hi)
    return call.emit(TfliteMul(y.scales[0], y.zeros[0], *numbers), a, b)


def mean(call: Call) -> str:
    """MEAN: the axes it reduces lie together before the last one that stays."""
    (x, tx), y, axes = call.activation("input"), call.result, call.constant("axis", "INT32").reshape(-1)
    rank = len(tx.shape)
    reduced = sorted({int(a) % rank for a in axes}) or list(range(rank))
    rest = [a for a in range(rank) if a not in reduced]
    order = (*rest[:-1], *reduced, *rest[-1:])
    sizes = tuple(prod(tx.shape[a] for a in part) for part in (rest[:-1], reduced, rest[-1:]))
    if order != tuple(range(rank)):
        x = call.build.emit(Permute(order), x)
    rows = call.build.emit(Reshape(sizes), x)
    names = zip(("multiplier", "shift"), mean_factor(tx, y, sizes[1]), strict=True)
    scales = [call.build.const(f"{y.label}_{n}", np.array([v], np.int32)) for n, v in names]
    flat = call.emit(TfliteMean(1, y.scales[0], y.zeros[0], tx.zeros[0]), rows, *scales)
    return call.emit(Reshape(y.shape), flat)


def curve(call: Call) -> str:
    """LOGISTIC and TANH: one table."""
    (x, tx), y = call.activation("input"), call.result
    function, fixed = CURVES[call.kind]
    if (y.scales[0], y.zeros[0]) != fixed:
        raise ValueError(f"output scale {y.scales[0]:g}, zero point {y.zeros[0]}: expected {fixed[0]:g} and {fixed[1]}")
    return call.mapped(x, float_table(function, tx, y))


#: operator -> the function of a real number, its result's scale and zero point
CURVES: dict[str, tuple[Callable[[Floats], Floats], tuple[float, int]]] = {
    "LOGISTIC": (lambda x: np.float32(1) / (np.float32(1) + np.exp(-x)), (1 / 256, -128)),
    "TANH": (np.tanh, (1 / 128, 0)),
}
#: fields of options
FUSED = {"FusedActivationFunction": "NONE"}
STRIDES = {"Padding": "SAME", "StrideW": 0, "StrideH": 0, **FUSED}
CONVOLUTION = {**STRIDES, "DilationWFactor": 1, "DilationHFactor": 1}
POOL = {**STRIDES, "FilterWidth": 0, "FilterHeight": 0}

CONVERTERS: dict[str, Row] = {
    "ADD": takes(add, "lhs rhs", "AddOptions", **FUSED),
    "AVERAGE_POOL_2D": takes(pool, "input", "Pool2DOptions", **POOL),
    "CONCATENATION": takes(concat, "values*", "ConcatenationOptions", Axis=0, **FUSED),
    "CONV_2D": takes(convolution, "input filter bias?", "Conv2DOptions", **CONVOLUTION),
    "DEPTHWISE_CONV_2D": takes(convolution, "input filter bias?", "DepthwiseConv2DOptions", **CONVOLUTION),
    "EXPAND_DIMS": takes(reshape, "input dim"),
    "FULLY_CONNECTED": takes(fully_connected, "input filter bias?", "FullyConnectedOptions", WeightsFormat=0, **FUSED),
    "LOGISTIC": takes(curve, "input"),
    "MAX_POOL_2D": takes(pool, "input", "Pool2DOptions", **POOL),
    "MEAN": takes(mean, "input axis"),
    "MUL": takes(multiply, "lhs rhs", "MulOptions", **FUSED),
    "PAD": takes(pad, "input padding"),
    "PADV2": takes(pad, "input padding constant_values"),
    "QUANTIZE": takes(rescale, "input"),
    "RELU": takes(rescale, "input"),
    "RELU6": takes(rescale, "input"),
    "RELU_N1_TO_1": takes(rescale, "input"),
    "RESHAPE": takes(reshape, "input shape?"),
    "SOFTMAX": takes(softmax, "input", "SoftmaxOptions", Beta=0.0),
    "SQUEEZE": takes(reshape, "input"),
    "SUB": takes(add, "lhs rhs", "SubOptions", **FUSED),
    "TANH": takes(curve, "input"),
    "TRANSPOSE": takes(transpose, "input perm"),
}
