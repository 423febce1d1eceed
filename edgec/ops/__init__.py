"""Every op of the IR, by the name it has in the text form: each class with a name in the files of FAMILIES. A new op of
one of these families touches its file alone; `from edgec.ops import Relu` finds all of them.
"""

from __future__ import annotations

from importlib import import_module

from edgec.ops.base import Op

FAMILIES = (
    "activation", "arithmetic", "conv", "cumulative", "dense", "eca", "elementwise", "gather", "norm", "pool",
    "recurrent", "reduce", "scaler", "shape", "snap", "taps", "timeline",
    "neurons.lif", "neurons.snntorch", "signal.log_mel",
    "integer.conv", "integer.elementwise", "integer.linear", "integer.neuron", "integer.norm", "integer.pool",
    "integer.product", "integer.requantize", "integer.scaler", "integer.softmax", "integer.spiking", "integer.tflite",
)  # fmt: skip

OPS: dict[str, type[Op]] = {
    op.name: op
    for module in (import_module(f"edgec.ops.{family}") for family in FAMILIES)
    for op in vars(module).values()
    if isinstance(op, type) and issubclass(op, Op) and op.__module__ == module.__name__ and hasattr(op, "name")
}

globals().update({op.__name__: op for op in OPS.values()})
