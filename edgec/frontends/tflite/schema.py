"""What a TFLite operator takes, as a literal table: the roles of its inputs and the fields of its options.

Fields that change no number of an int8 operator are left out: what only sets the shape that comes out, which the file
says itself, and what concerns other element types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgec.frontends.call import Parameter, Schema, bind


@dataclass(frozen=True)
class TfSchema:
    """Inputs in their order, the class of the options in TFLite's own schema ("" where nothing is read), its fields."""

    inputs: Schema
    options: str
    fields: Schema


def takes(inputs: str, options: str = "", **fields: Any) -> TfSchema:
    """A row: `bias?` is optional, `values*` are all that follow; fields with the defaults of TFLite's schema."""
    roles = (Parameter(w.rstrip("?*"), None, w[-1] not in "?*", w[-1] == "*") for w in inputs.split())
    return TfSchema(tuple(roles), options, tuple(Parameter(name, value) for name, value in fields.items()))


FUSED = {"FusedActivationFunction": "NONE"}
STRIDES = {"Padding": "SAME", "StrideW": 0, "StrideH": 0, **FUSED}
CONVOLUTION = {**STRIDES, "DilationWFactor": 1, "DilationHFactor": 1}
POOL = {**STRIDES, "FilterWidth": 0, "FilterHeight": 0}

SCHEMAS: dict[str, TfSchema] = {
    "ADD": takes("lhs rhs", "AddOptions", **FUSED),
    "AVERAGE_POOL_2D": takes("input", "Pool2DOptions", **POOL),
    "CONCATENATION": takes("values*", "ConcatenationOptions", Axis=0, **FUSED),
    "CONV_2D": takes("input filter bias?", "Conv2DOptions", **CONVOLUTION),
    "DEPTHWISE_CONV_2D": takes("input filter bias?", "DepthwiseConv2DOptions", **CONVOLUTION),
    "EXPAND_DIMS": takes("input dim"),
    "FULLY_CONNECTED": takes("input filter bias?", "FullyConnectedOptions", WeightsFormat=0, **FUSED),
    "LOGISTIC": takes("input"),
    "MAX_POOL_2D": takes("input", "Pool2DOptions", **POOL),
    "MEAN": takes("input axis"),
    "MUL": takes("lhs rhs", "MulOptions", **FUSED),
    "PAD": takes("input padding"),
    "PADV2": takes("input padding constant_values"),
    "QUANTIZE": takes("input"),
    "RELU": takes("input"),
    "RELU6": takes("input"),
    "RELU_N1_TO_1": takes("input"),
    "RESHAPE": takes("input shape?"),
    "SOFTMAX": takes("input", "SoftmaxOptions", Beta=0.0),
    "SQUEEZE": takes("input"),
    "SUB": takes("lhs rhs", "SubOptions", **FUSED),
    "TANH": takes("input"),
    "TRANSPOSE": takes("input perm"),
}


def bound(kind: str, inputs: tuple[int, ...], options: dict[str, Any]) -> tuple[Schema, dict[str, Any]]:
    """The schema and what an operator is given, by name: numbers of tensors, and values of fields."""
    schema = SCHEMAS[kind]
    tensors = bind(schema.inputs, [None if k < 0 else k for k in inputs], {})
    return schema.inputs + schema.fields, tensors | bind(schema.fields, (), options)
