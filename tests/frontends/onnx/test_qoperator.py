"""Files in QOperator form (QLinearConv, QGemm ...): against onnxruntime, and the same network in QDQ form."""

from __future__ import annotations

from collections.abc import Callable
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
from onnxruntime.quantization import QuantFormat

from edgec import frontends
from edgec.errors import FrontendError
from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Graph
from edgec.pipeline import compile_model
from tests.frontends.onnx.onnx_models import Net, normal, quantised
from tests.frontends.onnx.test_onnx import branches, differences, gates, integers, sequence

INT8, UINT8, FLOAT = TensorProto.INT8, TensorProto.UINT8, TensorProto.FLOAT
MS = "com.microsoft"


def residual(net: Net) -> None:
    """Odd channels, a residual sum, pools, a product and a softmax."""
    x = net.conv(3, 7, 3, 3, pads=[1] * 4)
    net.node("Add", x, net.conv(7, 7, 3, 3, pads=[1] * 4, relu=""))
    net.node("Relu")
    net.node("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    net.conv(7, 5, 1, 1, relu="LeakyRelu")
    net.node("GlobalAveragePool")
    net.node("Flatten")
    net.dense(5, 3)
    net.node("Softmax", axis=-1)


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("block", [residual, branches, gates, sequence])
def test_networks_against_onnxruntime(block: Callable[[Net], None], unsigned: bool, tmp_path: Path) -> None:
    """A level at most; weights have a scale per channel where activations are signed."""
    net = Net(1, 3, 8, 8, seed=unsigned)
    block(net)
    path = net.quantized(tmp_path / "net.onnx", unsigned, not unsigned, QuantFormat.QOperator)
    assert any(n.op_type.startswith(("QLinear", "QGemm")) for n in onnx.load(path).graph.node)
    found = np.concatenate([differences(path, normal(net.rng, net.shape)).reshape(-1) for _ in range(3)])
    assert np.abs(found).max() <= 1
    assert np.mean(found != 0) < 0.02


def contents(graph: Graph) -> Any:
    """Ops, types and constants, whatever they are called."""
    consts = sorted((str(c.type), c.data.tobytes()) for c in graph.consts.values())
    return [(n.op, n.types) for n in graph.nodes], [v.type for v in graph.inputs], consts


def plain(net: Net) -> None:
    """What the quantiser gives the same scales in both forms: no average pool and no softmax."""
    x = net.conv(3, 7, 3, 3, pads=[1] * 4)
    net.node("Add", x, net.conv(7, 7, 3, 3, pads=[1] * 4, relu=""))
    net.conv(7, 5, 3, 3, relu="LeakyRelu")
    net.node("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    net.node("Flatten")
    net.dense(45, 3)


@pytest.mark.parametrize("unsigned", [False, True])
def test_both_forms_give_the_same_integers(unsigned: bool, tmp_path: Path) -> None:
    graphs = []
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        net = Net(1, 3, 8, 8)
        plain(net)
        graphs.append(quantised(net.quantized(tmp_path / "net.onnx", unsigned, True, form)))
    assert contents(graphs[0]) == contents(graphs[1])


def test_in_c(tmp_path: Path) -> None:
    """The host's code gives the graph's integers, which are onnxruntime's."""
    net = Net(1, 3, 8, 8)
    residual(net)
    path = net.quantized(tmp_path / "net.onnx", form=QuantFormat.QOperator)
    graph, compiled = quantised(path), compile_model(path, "host", tmp_path / "out")
    with compiled.device("host") as device:
        for _ in range(4):
            x = integers(graph, normal(net.rng, net.shape))
            found = device.step([x])
            assert found is not None
            (wanted,) = evaluate(graph, {"input": torch.from_numpy(x)})
            np.testing.assert_array_equal(found[0].reshape(-1), wanted.numpy().reshape(-1))


class File:
    """Operators by hand; a name that ends in `#` stands for a tensor, its scale and its zero point."""

    def __init__(self, opset: int = 17) -> None:
        self.opset, self.nodes, self.consts = opset, list[Any](), dict[str, np.ndarray]()

    def grid(self, x: str, scale: Any, zero: Any) -> None:
        self.consts |= {f"{x}_s": np.asarray(scale, np.float32), f"{x}_z": np.asarray(zero)}

    def node(self, kind: str, inputs: str, y: str, **attributes: Any) -> None:
        names = [n for i in inputs.split() for n in ([i[:-1], f"{i[:-1]}_s", f"{i[:-1]}_z"] if i[-1] == "#" else [i])]
        domain = "" if kind in ("QLinearConv", "QLinearMatMul") else MS
        self.nodes.append(helper.make_node(kind, names, [y], f"{kind}_{y}", domain=domain, **attributes))

    def save(self, path: Path, inputs: dict[str, tuple[int, ...]], kind: int, y: str, result: int) -> Path:
        graph = helper.make_graph(
            self.nodes, "net", [helper.make_tensor_value_info(n, kind, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(y, result, None)],
            [numpy_helper.from_array(a, n) for n, a in self.consts.items()],
        )  # fmt: skip
        sets = [helper.make_opsetid("", self.opset), helper.make_opsetid(MS, 1)]
        onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), path)
        return path


def check(path: Path, rng: np.random.Generator) -> None:
    """Inputs and outputs of integers, a level at most from onnxruntime's; uint8 is 128 lower."""
    graph, session = quantised(path), ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for _ in range(4):
        given, ours = {}, {}
        for i in session.get_inputs():
            q = rng.integers(-128, 128, i.shape)
            unsigned = i.type == "tensor(uint8)"
            given[i.name] = (q + 128).astype(np.uint8) if unsigned else q.astype(np.int8)
            ours[i.name] = torch.from_numpy(q.astype(np.int8))
        (wanted,), (found,) = session.run(None, given), evaluate(graph, ours)
        t = graph.type_of(graph.outputs[0])
        assert t.quant is not None
        if wanted.dtype == np.float32:
            np.testing.assert_allclose((found.numpy() - t.quant.zero_point) * t.quant.scale[0], wanted, rtol=1e-5)
        else:
            lower = 128 if wanted.dtype == np.uint8 else 0
            assert np.abs(found.numpy() - (wanted.astype(int) - lower)).max() <= 1


def test_uint8_weights_and_scales_of_channels_in_an_old_operator_set(tmp_path: Path) -> None:
    """Operator set 11 has a QLinearConv with scales of channels; its DequantizeLinear has none."""
    rng, f = np.random.default_rng(0), File(opset=11)
    f.consts = {
        "w": rng.integers(1, 256, (5, 3, 3, 3)).astype(np.uint8),
        "b": rng.integers(-900, 900, 5).astype(np.int32),
    }
    f.grid("x", 0.04, np.uint8(121))
    f.grid("w", [0.01, 0.02, 0.005, 0.03, 0.01], np.full(5, 128, np.uint8))
    f.grid("y", 0.2, np.uint8(100))
    f.node("QLinearConv", "x# w# y_s y_z b", "y", strides=[2, 1], pads=[1, 0, 1, 2])
    check(f.save(tmp_path / "net.onnx", {"x": (1, 3, 8, 7)}, UINT8, "y", UINT8), rng)


def test_products(tmp_path: Path) -> None:
    """Of two computed tensors, with columns of their own scales, and a transposed matrix with a bias."""
    rng, f = np.random.default_rng(1), File()
    f.consts = {n: rng.integers(-128, 128, shape).astype(np.int8) for n, shape in (("w", (5, 7)), ("v", (3, 7)))}
    f.consts["b"] = rng.integers(-900, 900, 3).astype(np.int32)
    for name, scale, zero in (("x", 0.03, 4), ("z", 0.05, -9), ("m", 0.4, 7), ("n", 0.9, -3), ("y", 0.7, 1)):
        f.grid(name, scale, np.int8(zero))
    f.grid("w", rng.uniform(0.01, 0.02, 7), np.zeros(7, np.int8))
    f.grid("v", rng.uniform(0.01, 0.02, 3), np.zeros(3, np.int8))
    f.node("QLinearMatMul", "x# z# m_s m_z", "m")
    f.node("QLinearMatMul", "m# w# n_s n_z", "n")
    f.node("QGemm", "n# v# b y_s y_z", "y", transB=1)
    check(f.save(tmp_path / "net.onnx", {"x": (4, 6), "z": (6, 5)}, INT8, "y", INT8), rng)


def test_elementwise_with_one_input_twice_and_parts_of_several_scales(tmp_path: Path) -> None:
    rng, f = np.random.default_rng(2), File()
    for name, scale, zero in (("x", 0.03, 4), ("s", 0.05, -9), ("p", 0.02, 7), ("g", 1 / 256, -128), ("y", 0.06, 1)):
        f.grid(name, scale, np.int8(zero))
    f.node("QLinearAdd", "x# x# s_s s_z", "s")
    f.node("QLinearMul", "x# s# p_s p_z", "p")
    f.node("QLinearSigmoid", "p# g_s g_z", "g")
    f.node("QLinearConcat", "y_s y_z s# p# g#", "y", axis=1)
    check(f.save(tmp_path / "net.onnx", {"x": (1, 5, 3)}, INT8, "y", INT8), rng)


def test_sequences_in_groups_and_weights_with_a_zero_point(tmp_path: Path) -> None:
    """Without a bias; then a pool whose padding does not count, and a softmax over channels."""
    rng, f = np.random.default_rng(4), File()
    f.consts = {"w": rng.integers(-100, 100, (6, 2, 3)).astype(np.int8)}
    for name, scale, zero in (("x", 0.03, 4), ("c", 0.2, 130), ("p", 0.19, 120), ("y", 1 / 256, 0)):
        f.grid(name, scale, np.uint8(zero))
    f.grid("w", 0.02, np.int8(5))
    f.node("QLinearConv", "x# w# c_s c_z", "c", group=3, auto_pad="SAME_UPPER", strides=[2])
    f.node("QLinearAveragePool", "c# p_s p_z", "p", kernel_shape=[3], pads=[1, 1], strides=[2])
    f.node("QLinearSoftmax", "p# y_s y_z", "y", opset=13, axis=1)
    check(f.save(tmp_path / "net.onnx", {"x": (1, 6, 19)}, UINT8, "y", UINT8), rng)


def refused(f: File, path: Path, match: str, shape: tuple[int, ...] = (1, 4, 3, 3)) -> None:
    f.grid("x", 0.03, np.int8(4))
    f.grid("y", 0.05, np.int8(4))
    with pytest.raises(FrontendError, match=match):
        frontends.load(f.save(path, {"x": shape}, INT8, "y", INT8))


def test_what_does_not_fit_is_refused_by_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    f = File()
    f.node("QLinearGlobalAveragePool", "x# y_s y_z", "y", channels_last=1)
    refused(f, path, r"node 0 com\.microsoft\.QLinearGlobalAveragePool .*: channels_last 1 is not supported")
    f = File()
    f.node("QLinearSoftmax", "x# y_s y_z", "y", opset=12)
    refused(f, path, r"QLinearSoftmax.*: opset 12, of softmax, is not supported")
    f = File()
    f.node("QLinearLeakyRelu", "x# y_s", "y", alpha=0.2)
    refused(f, path, r"QLinearLeakyRelu.*: y_zero_point is missing")
    f = File()
    f.consts["w"] = np.ones((2, 4, 1, 1), np.int8)
    f.grid("w", 0.1, np.int8(0))
    f.consts["b"] = np.ones(2, np.float32)
    f.node("QLinearConv", "x# w# y_s y_z b", "y")
    refused(f, path, r"node 0 QLinearConv .*: bias, or a scale that it needs, is not a constant of int32")
    f = File()
    f.node("QLinearReduceMean", "x# y_s y_z", "y")
    refused(f, path, r"com\.microsoft\.QLinearReduceMean is not supported \(once, at node 0")
