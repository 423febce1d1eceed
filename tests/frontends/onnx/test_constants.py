"""Operators on constants alone need no converter: what exporters compute shapes and paddings from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

import onnx

from edgec import frontends
from edgec.errors import FrontendError
from edgec.frontends.onnx.constants import fold_constants
from edgec.frontends.onnx.model import OnnxModel, OnnxNode
from tests.frontends.onnx.onnx_models import Net, normal
from tests.frontends.onnx.test_onnx import differences


def paddings(net: Net) -> str:
    """As torch's exporter writes F.pad(x, (2, 1, 1, 0)): from the last axis to the first, made a table and turned."""
    zeros = net.node(
        "ConstantOfShape", net.const([4], "int64"), value=onnx.numpy_helper.from_array(np.zeros(1, "int64"))
    )
    table = net.node(
        "Reshape", net.node("Concat", net.const([2, 1, 1, 0], "int64"), zeros, axis=0), net.const([-1, 2], "int64")
    )
    ends = (net.const([v], "int64") for v in (-1, -(2**63) + 1, 0, -1))
    turned = net.node("Transpose", net.node("Slice", table, *ends), perm=[1, 0])
    return net.node("Cast", net.node("Reshape", turned, net.const([-1], "int64")), to=onnx.TensorProto.INT64)


def test_paddings_and_shapes_that_are_computed(tmp_path: Path) -> None:
    net = Net(1, 3, 6, 5)
    x, net.x = net.x, paddings(net)
    net.node("Pad", x, net.x, net.const(0.0))
    x = net.conv(3, 4, 3, 3)
    extents = net.node("Gather", net.const([1, 4, 30, 7], "int64"), net.const([0, 2], "int64"))
    shape = net.node("Mul", extents, net.const([1, 4], "int64"))
    net.x = x
    net.node("Reshape", x, shape)
    net.dense(120, 5)
    found = differences(net.quantized(tmp_path / "net.onnx"), normal(net.rng, net.shape))
    assert found.shape == (1, 5)
    assert np.abs(found).max() <= 1


def folded(kind: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> OnnxModel:
    consts = {f"c{k}": np.asarray(v) for k, v in enumerate(inputs)}
    node = OnnxNode(0, "", kind, tuple(consts), tuple(f"y{k}" for k in range(outputs)), attributes)
    return fold_constants(OnnxModel((node,), consts, (), (), 17))


def test_what_is_computed_and_what_stays() -> None:
    np.testing.assert_array_equal(folded("Range", 0, 7, 3).consts["y0"], [0, 3, 6])
    split = folded("Split", np.arange(5), np.array([2, 3]), outputs=2, axis=0)
    np.testing.assert_array_equal(split.consts["y1"], [2, 3, 4])
    stay = [
        folded("RandomUniformLike", np.ones(2, np.float32)),  # never the same
        folded("QuantizeLinear", np.ones(2, np.float32), np.float32(0.1), np.int8(0)),  # whose integers count
        folded("ConstantOfShape", np.array([2**20, 2**20])),  # larger than any tensor
        folded("Concat", np.ones(2), np.ones((2, 2)), axis=0),  # shapes that do not fit
        folded("NoSuchOperator", np.ones(2)),
    ]
    assert all(len(m.nodes) == 1 and "y0" not in m.consts for m in stay)


def test_an_operator_that_folds_is_not_missing_and_others_are(tmp_path: Path) -> None:
    net = Net(1, 4)
    net.dense(4, 3)
    path = net.quantized(tmp_path / "net.onnx")
    model = onnx.load(path)
    made = onnx.helper.make_node
    model.graph.node.insert(0, made("Erf", ["one"], ["erf"]))
    model.graph.node.insert(1, made("Floor", [model.graph.input[0].name], ["floor"]))
    model.graph.node.append(made("Mul", ["floor", "erf"], ["y"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, np.float32), "one"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4]))
    onnx.save(model, path)
    with pytest.raises(FrontendError) as caught:
        frontends.load(path)
    assert "Floor is not supported (once" in str(caught.value)
    assert "Erf" not in str(caught.value)
