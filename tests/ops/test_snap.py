"""The grid of a tensor against the definition of QuantizeLinear and DequantizeLinear, as onnx's reference has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgec.ops.snap import Snap

ENDS = [0.0, -0.0, 1e-30, -1e-30, 1e6, -1e6]  # the reference itself overflows beyond


def inputs(scale: float) -> np.ndarray:
    """Every tie between two levels of int8, their float32 neighbours, and numbers far off."""
    ties = (np.arange(-300, 300) + 0.5).astype(np.float32) * np.float32(scale)
    around = [np.nextafter(ties, np.float32(side)) for side in (-np.inf, np.inf)]
    return np.concatenate([ties, *around, np.asarray(ENDS, np.float32)])


@pytest.mark.parametrize(("scale", "zero"), [(0.25, 0), (0.1, -128), (0.0123, 127), (3.0, 5)])
def test_levels_are_those_of_onnx(scale: float, zero: int) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    x = inputs(scale)
    names = ["x", "scale", "zero"]
    nodes = [
        onnx.helper.make_node("QuantizeLinear", names, ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", *names[1:]], ["y"]),
    ]
    kinds = [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT, onnx.TensorProto.INT8]
    given = [onnx.helper.make_tensor_value_info(n, k, None) for n, k in zip(names, kinds, strict=True)]
    wanted = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(nodes, "pair", given, [wanted])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)])
    feeds = {"x": x, "scale": np.float32(scale), "zero": np.int8(zero)}
    with np.errstate(all="ignore"):
        (expected,) = ReferenceEvaluator(model).run(None, feeds)
    op = Snap("int8", float(np.float32(scale)), zero)
    found = op.reference(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(op.reference(torch.from_numpy(found)).numpy(), found)


def test_what_no_grid_is() -> None:
    with pytest.raises(ValueError, match="expected int8 or int16, found int4"):
        Snap("int4").infer([])
    with pytest.raises(ValueError, match="scale 0 and zero 0 are out of range"):
        Snap("int8", 0.0).infer([])
    with pytest.raises(ValueError, match="zero 128 are out of range"):
        Snap("int8", 1.0, 128).infer([])
