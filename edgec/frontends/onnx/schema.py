"""What an ONNX operator takes in an operator set. This is the only module that imports the `onnx` package."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from edgec.frontends.call import Parameter, Schema, bind

NEWEST = 25  # the operator set in whose words converters read
#: what it calls otherwise than older ones; attributes that became inputs kept their names
RENAMED = {("BatchNormalization", "mean"): "input_mean", ("BatchNormalization", "var"): "input_var"}


@dataclass(frozen=True)
class Ref:
    """An input: the name of a tensor of the file."""

    name: str


@cache
def schemas(kind: str, opset: int) -> tuple[Schema, Schema]:
    """Inputs and attributes of an operator, in the words of the newest operator set."""
    import onnx.defs
    from onnx.helper import get_attribute_value

    try:
        schema = onnx.defs.get_schema(kind, opset)
    except onnx.defs.SchemaError as err:
        raise ValueError(f"operator set {opset} has no {kind}") from err
    options = onnx.defs.OpSchema.FormalParameterOption
    inputs = [
        Parameter(RENAMED.get((kind, i.name), i.name), None, i.option == options.Single, i.option == options.Variadic)
        for i in schema.inputs
    ]
    attributes = []
    for a in schema.attributes.values():
        default = get_attribute_value(a.default_value) if a.default_value.name else None
        default = default.decode() if isinstance(default, bytes) else default
        attributes.append(Parameter(a.name, default, a.required))
    return tuple(inputs), tuple(attributes)


def bound(kind: str, opset: int, inputs: tuple[str, ...], attributes: dict[str, Any]) -> tuple[Schema, dict[str, Any]]:
    """The schema and what a node gives, by name: attributes as Python values, inputs as Refs.

    What the operator got in later sets is there too, at its default, so converters need no operator set.
    """
    first, second = schemas(kind, opset)
    args = bind(first, [Ref(name) if name else None for name in inputs], {}) | bind(second, (), attributes)
    later = tuple(p for part in schemas(kind, NEWEST) for p in part if p.name not in args)
    return (*first, *second, *later), {p.name: p.default for p in later} | args
