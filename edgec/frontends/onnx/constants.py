"""Operators of an ONNX file that read nothing but constants, computed by onnx's own reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgec.frontends.builder import check_size
from edgec.frontends.onnx.model import OnnxModel, OnnxNode
from edgec.ir.types import DType, TensorType

Array = np.ndarray
#: stay: quantisers, as weights are their integers, and what is random
STAY = frozenset(
    """QuantizeLinear DequantizeLinear Dropout Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike""".split()  # noqa: SIM905
)
PLAIN = (int, float, str, list, tuple, np.ndarray)  # attributes that are no graphs


def fold_constants(model: OnnxModel) -> OnnxModel:
    """The model without the operators whose inputs are all constants: their results are constants."""
    consts, nodes = dict(model.consts), []
    for node in model.nodes:
        known = all(name in consts for name in node.inputs if name) and any(node.inputs)
        values = computed(node, consts, model.opset) if known and node.kind not in STAY else None
        if values is None:
            nodes.append(node)
        else:
            consts |= {name: value for name, value in zip(node.outputs, values, strict=False) if name}
    return replace(model, nodes=tuple(nodes), consts=consts)


def computed(node: OnnxNode, consts: dict[str, Array], opset: int) -> list[Array] | None:
    """What an operator gives; None where the reference cannot say, or where no tensor is as large."""
    from onnx import defs, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator
    from onnx.shape_inference import infer_node_outputs

    if not all(isinstance(v, PLAIN) for v in node.attributes.values()):
        return None
    feeds = {name: consts[name] for name in node.inputs if name}
    try:
        tensors = {name: numpy_helper.from_array(value, name) for name, value in feeds.items()}
        types = {name: helper.make_tensor_type_proto(t.data_type, t.dims) for name, t in tensors.items()}
        attributes = {k: numpy_helper.from_array(v) if isinstance(v, Array) else v for k, v in node.attributes.items()}
        made = helper.make_node(node.kind, node.inputs, node.outputs, **attributes)
        opsets = [helper.make_opsetid("", opset)]
        found = infer_node_outputs(defs.get_schema(node.kind, opset), made, types, tensors, opset_imports=opsets)
        for t in found.values():
            check_size(TensorType(tuple(d.dim_value for d in t.tensor_type.shape.dim), DType.F32))
        with np.errstate(all="ignore"):
            return [np.asarray(v) for v in ReferenceEvaluator(made, opsets={"": opset}).run(None, feeds)]
    except Exception:  # of many kinds; the operator stays and is reported by its name, or converted
        return None
