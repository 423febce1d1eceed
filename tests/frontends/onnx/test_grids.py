"""Grids of a file: where its QuantizeLinear and DequantizeLinear may stand, against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edgec import frontends
from edgec.errors import FrontendError, InputError, PassError
from edgec.ir.evaluate import evaluate
from edgec.passes.quantize.compare import dequantize
from edgec.pipeline import compile_model
from tests.frontends.onnx.onnx_models import Net, normal, onnxruntime, quantised
from tests.frontends.onnx.test_onnx import branches, gates, integers, padded

FLOAT, INT8, UINT8 = TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8
Tensors = Sequence[tuple[str, int, Sequence[int] | None]]


def quantize(x: str, y: str, grid: str) -> Any:
    return helper.make_node("QuantizeLinear", [x, f"{grid}s", f"{grid}z"], [y])


def dequantize_node(x: str, y: str, grid: str, **attributes: int) -> Any:
    return helper.make_node("DequantizeLinear", [x, f"{grid}s", f"{grid}z"], [y], **attributes)


def file(path: Path, nodes: list[Any], consts: dict[str, Any], inputs: Tensors, outputs: Tensors) -> Path:
    """A model; a grid is given as (scales, zero points of their type)."""
    arrays = {}
    for name, value in consts.items():
        if isinstance(value, tuple):
            arrays |= {f"{name}s": np.asarray(value[0], np.float32), f"{name}z": np.asarray(value[1])}
        else:
            arrays[name] = value
    given, results = ([helper.make_tensor_value_info(*t) for t in tensors] for tensors in (inputs, outputs))
    graph = helper.make_graph(nodes, "net", given, results, [numpy_helper.from_array(a, n) for n, a in arrays.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def same_levels(path: Path, inputs: list[np.ndarray], most: float = 0.5) -> None:
    """The integer graph gives onnxruntime's levels, and the file's float graph its numbers."""
    graph, reals = quantised(path), frontends.load(path)
    t = graph.type_of(graph.outputs[0])
    assert t.quant is not None
    for x in inputs:
        wanted = onnxruntime(path, x)
        (y,) = evaluate(graph, {"x": torch.from_numpy(integers(graph, x))})
        assert np.abs(dequantize(y, t).numpy() - wanted).max() <= most * t.quant.scale[0]
        (y,) = evaluate(reals, {"x": torch.from_numpy(x)})
        assert np.abs(y.numpy() - wanted).max() <= most * t.quant.scale[0]


def test_integers_come_and_go(tmp_path: Path) -> None:
    """A uint8 input, int8 results, uint8 weights with a scale each, and one convolution that two quantisers read."""
    rng = np.random.default_rng(0)
    nodes = [
        dequantize_node("x", "xr", "in"),
        dequantize_node("w", "wr", "weight", axis=0),
        helper.make_node("Conv", ["xr", "wr", "bias"], ["c"]),
        quantize("c", "q1", "first"),
        helper.make_node("Relu", ["c"], ["r"]),
        quantize("r", "q2", "second"),
        dequantize_node("q2", "d2", "second"),
        helper.make_node("Flatten", ["d2"], ["f"]),
        quantize("f", "q3", "second"),
    ]
    consts = {
        "w": rng.integers(0, 256, (4, 3, 3, 3)).astype(np.uint8), "bias": rng.normal(size=4).astype(np.float32),
        "in": (0.05, np.uint8(120)), "first": (0.1, np.int8(3)), "second": (0.25, np.int8(-20)),
        "weight": ([0.01, 0.02, 0.005, 0.03], np.full(4, 128, np.uint8)),
    }  # fmt: skip
    results = [("q1", INT8, None), ("q3", INT8, None)]
    path = file(tmp_path / "net.onnx", nodes, consts, [("x", UINT8, (1, 3, 6, 6))], results)
    graph, x = quantised(path), rng.integers(0, 256, (1, 3, 6, 6)).astype(np.uint8)
    wanted = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    found = evaluate(graph, {"x": torch.from_numpy((x.astype(np.int64) - 128).astype(np.int8))})
    for y, levels in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(y.numpy(), levels)


@pytest.mark.parametrize(("kind", "zero"), [(INT8, 0), (UINT8, -128)])
def test_an_input_without_a_zero_point(kind: int, zero: int, tmp_path: Path) -> None:
    """0 of the input's own element type, also behind a move."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("DequantizeLinear", ["f", "gs"], ["d"]),
        helper.make_node("Relu", ["d"], ["r"]), quantize("r", "q", "g"), dequantize_node("q", "y", "g"),
    ]  # fmt: skip
    path = file(tmp_path / "net.onnx", nodes, {"g": (0.05, np.int8(5))}, [("x", kind, (1, 2, 2))], [("y", FLOAT, None)])
    x = np.array([[[1, 100], [-100 % 256 if kind == UINT8 else -100, 3]]], np.uint8 if kind == UINT8 else np.int8)
    real = torch.from_numpy(x.astype(np.float32) * np.float32(0.05))
    (y,) = evaluate(frontends.load(path), {"x": real})
    np.testing.assert_allclose(y.numpy(), onnxruntime(path, x), rtol=1e-6)
    assert frontends.load(path).nodes[1].op.zero == zero


def test_attention(tmp_path: Path) -> None:
    """Products of two computed tensors around a softmax."""
    nodes = [
        quantize("x", "xq", "x"),
        dequantize_node("xq", "xd", "x"),
        helper.make_node("Transpose", ["xd"], ["xt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["xd", "xt"], ["m"]),
        quantize("m", "mq", "m"),
        dequantize_node("mq", "md", "m"),
        helper.make_node("Softmax", ["md"], ["s"]),
        quantize("s", "sq", "s"),
        dequantize_node("sq", "sd", "s"),
        helper.make_node("MatMul", ["sd", "xd"], ["o"]),
        quantize("o", "oq", "x"),
        dequantize_node("oq", "y", "x"),
    ]
    consts = {"x": (0.03, np.int8(0)), "m": (0.2, np.int8(-50)), "s": (1 / 256, np.int8(-128))}
    path = file(tmp_path / "net.onnx", nodes, consts, [("x", FLOAT, (1, 6, 8))], [("y", FLOAT, None)])
    rng = np.random.default_rng(1)
    same_levels(path, [normal(rng, (1, 6, 8)) for _ in range(4)])


def product(path: Path, weights: np.ndarray, grid: tuple[float, Any], bias: np.ndarray, step: float) -> Path:
    """A quantised product whose bias has the scale of its sums."""
    nodes = [
        quantize("x", "xq", "x"),
        dequantize_node("xq", "xd", "x"),
        dequantize_node("w", "wd", "w"),
        dequantize_node("b", "bd", "b"),
        helper.make_node("Gemm", ["xd", "wd", "bd"], ["m"]),
        quantize("m", "mq", "y"),
        dequantize_node("mq", "y", "y"),
    ]
    unit = np.float32(0.03) * np.float32(grid[0])
    consts = {
        "w": weights, "ws": np.float32(grid[0]), "wz": grid[1], "b": bias, "bs": unit, "bz": np.int32(0),
        "x": (0.03, np.int8(0)), "y": (step, np.int8(0)),
    }  # fmt: skip
    return file(path, nodes, consts, [("x", FLOAT, (1, len(weights)))], [("y", FLOAT, None)])


def test_weights_of_minus_128_and_biases_of_32_bits_are_kept(tmp_path: Path) -> None:
    rng, bias = np.random.default_rng(2), np.array([123456789, -98765431, 7], np.int32)
    weights = np.where(rng.random((5, 3)) < 0.5, -128, rng.integers(-128, 128, (5, 3))).astype(np.int8)
    path = product(tmp_path / "net.onnx", weights, (1e-6, np.int8(0)), bias, 0.05)
    consts = {n: c.data for n, c in quantised(path).consts.items()}
    np.testing.assert_array_equal(consts["m_weights"], weights)
    np.testing.assert_array_equal(consts["m_bias"], bias)
    same_levels(path, [normal(rng, (1, 5)) for _ in range(4)])


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    weights = np.arange(0, 250, 10, np.uint8).reshape(5, 5)
    path = product(tmp_path / "net.onnx", weights, (0.01, np.uint8(3)), np.zeros(5, np.int32), 0.05)
    with pytest.raises(PassError, match=r"(?s)less their zero point do not fit int8.*weight_type=QuantType\.QInt8"):
        quantised(path)


def test_operators_on_raw_integers_are_refused(tmp_path: Path) -> None:
    """A Relu of integers cuts off at the integer 0, not at the real one."""
    nodes = [
        dequantize_node("x", "xr", "g"), quantize("xr", "q", "g"), helper.make_node("Relu", ["q"], ["r"]),
        dequantize_node("r", "y", "g"),
    ]  # fmt: skip
    path = file(tmp_path / "net.onnx", nodes, {"g": (0.05, np.int8(5))}, [("x", INT8, (1, 4))], [("y", FLOAT, None)])
    with pytest.raises(FrontendError, match="reads the integers q: expected a DequantizeLinear before it"):
        frontends.load(path)


def without_quantisers(path: Path, kept: Callable[[int], bool]) -> Path:
    """The model with only those of its QuantizeLinears, counted in order, that are kept."""
    model = onnx.load(path)
    for k, made in enumerate([n for n in model.graph.node if n.op_type == "QuantizeLinear"]):
        backs = [n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == made.output[0]]
        for back in backs if not kept(k) else []:
            for node in model.graph.node:
                node.input[:] = [made.input[0] if i == back.output[0] else i for i in node.input]
            for result in model.graph.output:
                result.name = made.input[0] if result.name == back.output[0] else result.name
            model.graph.node.remove(back)
        if not kept(k):
            model.graph.node.remove(made)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("least", [-2.0, 0.5])
def test_a_batch_norm_before_the_quantiser_goes_into_the_layer(least: float, tmp_path: Path) -> None:
    """The weights keep the integers of the file where all factors are positive; no data is needed."""
    net = Net(1, 3, 8, 8)
    net.conv(3, 5, 3, 3, relu="")
    ranges = ((least, 2.0), (-1.0, 1.0), (-1.0, 1.0), (0.1, 3.0))
    net.node("BatchNormalization", net.x, *(net.const(net.rng.uniform(*ends, 5)) for ends in ranges))
    net.node("Relu")
    net.conv(5, 4, 1, 1)
    path = net.quantized(tmp_path / "net.onnx")
    weights = quantised(path).consts["t0_weights"].data
    without_quantisers(path, lambda k: k != 1)
    graph = quantised(path)
    assert [n.op.name for n in graph.nodes] == ["permute", "qconv2d_requantize", "qconv2d_requantize", "permute"]
    assert np.array_equal(graph.consts["t0_weights"].data, weights) == (least > 0)
    for x in (normal(net.rng, net.shape) for _ in range(3)):
        (y,) = evaluate(graph, {"input": torch.from_numpy(integers(graph, x))})
        t = graph.type_of(graph.outputs[0])
        assert t.quant is not None
        assert np.abs(dequantize(y, t).numpy() - onnxruntime(path, x)).max() <= 1.5 * t.quant.scale[0]


@pytest.mark.parametrize("block", [branches, gates, padded], ids=lambda b: b.__name__)
def test_half_a_file_is_calibrated(block: Callable[[Net], None], tmp_path: Path) -> None:
    """Every second tensor has the scale of the file, the others what data says: near onnxruntime on the same file."""
    net = Net(1, 3, 8, 8)
    block(net)
    path = without_quantisers(net.quantized(tmp_path / "net.onnx"), lambda k: k % 2 == 0)
    graph = quantised(path, np.concatenate([normal(net.rng, net.shape) for _ in range(32)]))
    given = {(n.op.scale, n.op.zero) for n in frontends.load(path).nodes if n.op.name == "snap"}
    scales = {(t.quant.scale[0], t.quant.zero_point) for n in graph.nodes for t in n.types if t.quant}
    assert len(given & scales) > 1
    t = graph.type_of(graph.outputs[0])
    for _ in range(3):
        x = normal(net.rng, net.shape)
        (y,) = evaluate(graph, {"input": torch.from_numpy(integers(graph, x))})
        wanted = onnxruntime(path, x)
        assert np.abs(dequantize(y, t).numpy() - wanted).max() < 0.04 * np.abs(wanted).max()
    with pytest.raises(PassError, match="no scale is given for these tensors"):
        quantised(path)


def test_weights_that_come_quantised_keep_their_bits(tmp_path: Path) -> None:
    weights = np.arange(-12, 13, dtype=np.int8).reshape(5, 5)
    path = product(tmp_path / "net.onnx", weights, (0.01, np.int8(0)), np.zeros(5, np.int32), 0.05)
    with pytest.raises(InputError, match=r"(?s)no layer can have them:.*%m: its weights come quantised to 8 bits"):
        compile_model(path, "host", tmp_path / "out", weights=4)
    with pytest.raises(InputError, match=r"no layer 'm' to choose bits for"):
        compile_model(path, "host", tmp_path / "out", bits={"m": "w4a8"})
