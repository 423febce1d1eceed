"""Operators of ONNX's QOperator form, which take integers with their scales: each is what the QDQ form spells out."""

from __future__ import annotations

from typing import Any

from edgec.frontends.onnx.model import OnnxNode
from edgec.frontends.onnx.values import Constant, Value
from edgec.ir.types import QuantParams

MS = "com.microsoft."
#: operator -> the float one, and the inputs in order; "..." stands for more of the one before it
QOPERATORS = {
    "QLinearConv": ("Conv", "x weights y bias"),
    "QLinearMatMul": ("MatMul", "a weights y"),
    MS + "QGemm": ("Gemm", "a weights bias y"),
    MS + "QLinearAdd": ("Add", "a b y"),
    MS + "QLinearAveragePool": ("AveragePool", "x y"),
    MS + "QLinearConcat": ("Concat", "y x ..."),
    MS + "QLinearGlobalAveragePool": ("GlobalAveragePool", "x y"),
    MS + "QLinearLeakyRelu": ("LeakyRelu", "x y"),
    MS + "QLinearMul": ("Mul", "a b y"),
    MS + "QLinearSigmoid": ("Sigmoid", "x y"),
    MS + "QLinearSoftmax": ("Softmax", "x y"),
}
#: what stands in an input's place; a bias is int32 at the product of two scales
PARTS = {"y": ("_scale", "_zero_point"), "bias": ("",)}
TENSOR = ("", "_scale", "_zero_point")


def steps(node: OnnxNode, values: dict[str, Value]) -> list[OnnxNode]:
    """The operator as a DequantizeLinear of each operand, the float operator and the QuantizeLinear of its result.

    values: by name; gets what a bias stands for. ValueError for inputs and attributes that do not fit.
    """
    kind, order = QOPERATORS[node.kind]
    given, y = inputs_of(node, order), node.outputs[0]
    attributes = float_attributes(node)
    axes = {"weights": -1 if kind == "MatMul" or (kind == "Gemm" and not attributes.get("transB")) else 0}

    def step(kind: str, inputs: tuple[str, ...], output: str, attributes: dict[str, Any]) -> OnnxNode:
        return OnnxNode(node.index, node.name, kind, inputs, (output,), attributes)

    made, reals = [], []
    for key in (k for k in given if not k.endswith(TENSOR[1:])):
        reals.append(f"{key} of {y}")
        if key == "bias":
            scales = (given[k] for k in ("x_scale", "a_scale", "weights_scale") if k in given)
            values[reals[-1]] = bias(*(values.get(name) for name in (given[key], *scales)))
        else:
            axis = {"axis": axes[key]} if key in axes else {}
            made.append(step("DequantizeLinear", tuple(given[key + part] for part in TENSOR), reals[-1], axis))
    made.append(step(kind, tuple(reals), y, attributes))
    if "y_scale" in given:
        made.append(step("QuantizeLinear", (y, given["y_scale"], given["y_zero_point"]), y, {}))
    return made


def inputs_of(node: OnnxNode, order: str) -> dict[str, str]:
    """The inputs that are given, by name. Not all need a bias, and a QGemm without y gives real numbers."""
    keys = order.split()
    if keys[-1] == "...":
        keys = [keys[0], *(f"{keys[1]}{k}" for k in range(max(1, len(node.inputs) // len(TENSOR))))]
    names = [key + part for key in keys for part in PARTS.get(key, TENSOR)]
    given = {name: x for name, x in zip(names, node.inputs, strict=False) if x}
    optional = {"bias"} if node.kind != MS + "QGemm" or "y_scale" in given else {"bias", "y_scale", "y_zero_point"}
    missing = [name for name in names if name not in given and name not in optional]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    if len(node.inputs) > len(names):
        raise ValueError(f"{len(node.inputs)} inputs, expected {len(names)} at most")
    return given


def float_attributes(node: OnnxNode) -> dict[str, Any]:
    """Those of the float operator."""
    attributes = dict(node.attributes)
    if attributes.pop("channels_last", 0):
        raise ValueError("channels_last 1 is not supported; supported: 0")
    if node.kind == MS + "QLinearSoftmax":
        if (opset := attributes.pop("opset", 13)) < 13:
            raise ValueError(f"opset {opset}, of softmax, is not supported; supported: 13 and more")
        attributes.setdefault("axis", -1)
    return attributes


def bias(integers: Value | None, *scales: Value | None) -> Constant:
    """The real numbers of a bias."""
    parts = [v.data for v in (integers, *scales) if isinstance(v, Constant)]
    if len(parts) != 3 or parts[0].dtype != "int32":
        raise ValueError("bias, or a scale that it needs, is not a constant of int32 and of float32")
    unit = (parts[1].reshape(-1) * parts[2].reshape(-1)).astype("float32")
    exact = unit.astype("float64")
    return Constant(parts[0] * exact, QuantParams(tuple(map(float, exact)), 0, 0 if unit.size > 1 else None))
