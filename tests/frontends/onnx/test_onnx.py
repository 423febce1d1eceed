"""The .onnx frontend: networks of onnxruntime's static quantiser against onnxruntime, and files that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

import onnx

from edgec import frontends
from edgec.backends.emit import write_folder
from edgec.cli import main
from edgec.compiled import CompiledModel, to_real
from edgec.errors import FrontendError, InputError, PassError
from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Graph
from edgec.pipeline import compile_model
from edgec.target import load_target
from tests.frontends.onnx.onnx_models import NETWORKS, Net, normal, onnxruntime, quantised

DATA = Path(__file__).resolve().parents[2] / "data" / "mlperf_tiny"


def integers(graph: Graph, x: np.ndarray) -> np.ndarray:
    """The graph's int8 input for real numbers."""
    q = graph.inputs[0].type.quant
    assert q is not None
    return np.clip(np.rint(x / np.float32(q.scale[0])) + q.zero_point, -128, 127).astype(np.int8)


def differences(path: Path, x: np.ndarray, fused: bool = False) -> np.ndarray:
    """Levels by which the graph's output differs from onnxruntime's."""
    graph = quantised(path)
    with torch.no_grad():
        (found,) = evaluate(graph, {graph.inputs[0].name: torch.from_numpy(integers(graph, x))})
    q = graph.type_of(graph.outputs[0]).quant
    assert q is not None
    levels = np.rint(onnxruntime(path, x, fused) / np.float32(q.scale[0])) + q.zero_point
    assert levels.shape == tuple(found.shape)
    return found.numpy() - levels


def pools(net: Net) -> None:
    net.conv(3, 6, 3, 3, pads=[1] * 4)
    net.node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0], ceil_mode=1)
    net.node("AveragePool", kernel_shape=[2, 2], strides=[1, 1])
    net.node("AveragePool", kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4, count_include_pad=1)


def branches(net: Net) -> None:
    """Concat along channels, Sub, Mul, sequences of moves."""
    x = net.x
    a = net.conv(3, 4, 1, 1)
    net.x = x
    b = net.conv(3, 4, 3, 3, dilations=[2, 2], pads=[2] * 4)
    c = net.node("Sub", a, b)
    d = net.node("Mul", a, b)
    net.node("Concat", c, d, a, axis=1)
    net.node("Transpose", perm=[0, 2, 3, 1])
    net.node("Reshape", net.x, net.const([1, -1, 12], "int64"))
    net.dense_rows(12, 5)


def flattened(net: Net) -> None:
    """An image flattened channels first, then a product."""
    net.conv(3, 5, 3, 3, strides=[2, 2], pads=[1] * 4)
    net.node("Flatten")
    net.dense(5 * 16, 7, relu=True)
    net.dense(7, 4)


def padded(net: Net) -> None:
    net.node("Pad", net.x, net.const([0, 0, 1, 2, 0, 0, 0, 1], "int64"), net.const(0.0))
    net.conv(3, 8, 3, 3, relu="LeakyRelu")
    net.node("Squeeze", net.node("GlobalAveragePool"), net.const([2, 3], "int64"))
    net.node("Unsqueeze", net.x, net.const([2], "int64"))


def gates(net: Net) -> None:
    """A squeeze-and-excitation block."""
    x = net.conv(3, 8, 3, 3, pads=[1] * 4)
    net.node("GlobalAveragePool")
    net.conv(8, 8, 1, 1)
    net.conv(8, 8, 1, 1, relu="Sigmoid")
    net.node("Mul", x, net.x)
    net.node("Tanh")
    net.conv(8, 4, 1, 1, relu="HardSigmoid")
    net.conv(4, 4, 1, 1, relu="")


def sequence(net: Net) -> None:
    """Convolutions over one axis."""
    net.node("Reshape", net.x, net.const([1, 3, 64], "int64"))
    net.conv(3, 8, 5, pads=[2, 2], strides=[2])
    net.conv(8, 8, 3, group=8)
    net.node("ReduceMean", axes=[2], keepdims=1)
    net.node("Flatten")
    net.dense(8, 5)


def broadcast(net: Net) -> None:
    """Sums and differences of an image and what stands for each of its channels, either side."""
    x = net.conv(3, 8, 3, 3, pads=[1] * 4)
    net.node("GlobalAveragePool")
    y = net.conv(8, 8, 1, 1)
    z = net.node("Add", y, x)
    net.node("Concat", z, net.node("Sub", x, y), net.node("Sub", y, x), axis=1)
    net.conv(24, 4, 1, 1)


def constants(net: Net) -> None:
    """Elementwise ops with constants, and one that is the last."""
    net.node("Add", net.x, net.const(net.rng.normal(size=(3, 1, 1))))
    net.node("Mul", net.x, net.const(net.rng.normal(size=(1, 3, 1, 1))))
    net.node("Relu")


def batch_norm(net: Net, channels: int) -> None:
    """One channel is always its offset."""
    gain = net.rng.normal(size=channels) * (np.arange(channels) > 0)
    moments = net.const(net.rng.normal(size=channels)), net.const(net.rng.uniform(0.1, 3, channels))
    net.node("BatchNormalization", net.x, net.const(gain), net.const(net.rng.normal(size=channels)), *moments)


def batch_norms(net: Net) -> None:
    """Before a convolution, between layers, along another axis than the last, and of features."""
    batch_norm(net, 3)
    net.conv(3, 5, 3, 3)
    batch_norm(net, 5)
    net.node("Relu")
    net.node("Transpose", perm=[0, 3, 2, 1])
    batch_norm(net, 6)
    net.node("Flatten")
    batch_norm(net, 180)
    net.dense(180, 7, relu=True)
    batch_norm(net, 7)


def quantised_constants(net: Net) -> None:
    """Operands that come through a DequantizeLinear, of more than one axis, and a product with one."""
    net.node("Add", net.const(net.rng.normal(size=(3, 8, 8))), net.x)
    net.node("Mul", net.x, net.const(net.rng.normal(size=(1, 3, 8, 8))))
    net.node("Concat", net.x, net.const(net.rng.normal(size=(1, 2, 8, 8))), axis=1)
    net.conv(5, 4, 3, 3)


BLOCKS: list[Callable[[Net], None]] = [
    *(pools, branches, flattened, padded, gates, sequence, broadcast, constants, quantised_constants, batch_norms),
]


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: b.__name__)
def test_operators_against_onnxruntime(block: Callable[[Net], None], unsigned: bool, tmp_path: Path) -> None:
    """A level at most, seldom: the only difference is the rounding of exact halves and of the last bits. The float
    graph of the file gives what onnxruntime does."""
    net = Net(1, 3, 8, 8, seed=unsigned)
    block(net)
    path = net.quantized(tmp_path / "net.onnx", unsigned, per_channel=not unsigned)
    inputs = [normal(net.rng, net.shape) for _ in range(4)]
    found = np.concatenate([differences(path, x).reshape(-1) for x in inputs])
    assert np.abs(found).max() <= 1
    assert np.mean(found != 0) < 0.02
    graph = frontends.load(path)
    level = [n.op.scale for n in graph.nodes if n.op.name == "snap"][-1]
    reals = [evaluate(graph, {"input": torch.from_numpy(x)})[0].numpy() - onnxruntime(path, x) for x in inputs]
    assert np.mean(np.abs(reals) > level / 2) < 0.02


def test_pools_in_c(tmp_path: Path) -> None:
    """Means that round halves to even: generic C on the host against the reference."""
    net = Net(1, 3, 8, 8)
    pools(net)
    graph = quantised(net.quantized(tmp_path / "net.onnx"))
    (tmp_path / "out").mkdir()
    write_folder(graph, load_target("host"), tmp_path / "out")
    with CompiledModel(tmp_path / "out").device("host") as device:
        for _ in range(8):
            x = integers(graph, normal(net.rng, net.shape))
            found = device.step([x])
            assert found is not None
            expected = evaluate(graph, {graph.inputs[0].name: torch.from_numpy(x)})[0].numpy()
            np.testing.assert_array_equal(found[0].reshape(-1), expected.reshape(-1))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_mlperf_tiny(name: str, tmp_path: Path) -> None:
    """The four structures: near onnxruntime, and the same bytes on the host and on the emulated Cortex-M4."""
    net = NETWORKS[name]()
    path = net.quantized(tmp_path / "net.onnx")
    inputs = [normal(net.rng, net.shape) for _ in range(4)]
    found = np.concatenate([differences(path, x).reshape(-1) for x in inputs])
    assert np.abs(found).max() <= 1
    assert np.mean(found != 0) < 0.05
    compiled = compile_model(path, "cortex-m4", tmp_path / "out")
    graph = quantised(path)
    for kind in ("host", "unicorn"):
        with compiled.device(kind) as device:
            x = integers(graph, inputs[0])
            (y,) = device.step([x]) or [None]
            expected = evaluate(graph, {graph.inputs[0].name: torch.from_numpy(x)})[0].numpy()
            np.testing.assert_array_equal(np.asarray(y).reshape(-1), expected.reshape(-1))


@pytest.mark.parametrize(
    ("name", "vectors", "most"), [("kws_dscnn_qdq", "kws", 2_950_000), ("ic_resnet8_qdq", "ic", 12_100_000)]
)
def test_trained_networks(name: str, vectors: str, most: int, tmp_path: Path) -> None:
    """Their softmax is not quantised: probabilities come out in int16, within a step of onnxruntime's.

    Weights of -128 in every layer cost nothing: no more instructions than the same networks as .tflite.
    """
    path = DATA / f"{name}.onnx"
    assert main(["compile", str(path), "--target", "cortex-m4", "-o", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {layer["variant"] for layer in report["layers"] if layer["macs"]} <= {
        "windows_dsp", "rows_dsp", "depth_dsp", "dense_dsp",
    }  # fmt: skip
    assert report["totals"]["instructions_worst"] <= most
    graph = quantised(path)
    shape, q = graph.inputs[0].type.shape, graph.inputs[0].type.quant
    assert q is not None
    with np.load(DATA / f"{vectors}_vectors.npz") as data:
        images = data["x_i8"]
    with CompiledModel(tmp_path / "out").device("unicorn") as device:
        for k, x in enumerate(images.reshape(-1, *shape)):
            real = (x.astype(np.float32) - q.zero_point) * np.float32(q.scale[0])
            (y,) = evaluate(graph, {graph.inputs[0].name: torch.from_numpy(x)})
            assert np.abs(y.numpy() / 32767 - onnxruntime(path, real)).max() < 2**-15
            if k == 0:
                found = device.step([x])
                assert found is not None
                np.testing.assert_array_equal(found[0].reshape(-1), y.numpy().reshape(-1))


# ---- files that cannot be imported ----


def dropout(path: Path, ratio: float, training: bool | None, computed: bool = False) -> Path:
    """A quantised product of what a Dropout leaves."""
    net = Net(1, 4)
    net.dense(4, 3)
    model = onnx.load(net.quantized(path))
    product = next(n for n in model.graph.node if n.op_type == "Gemm")
    inputs = [product.input[0], "ratio"] + ([] if training is None else ["not_training" if computed else "training"])
    added = [onnx.helper.make_node("Not", ["training"], ["not_training"])] if computed else []
    for node in (*added, onnx.helper.make_node("Dropout", inputs, ["kept"])):
        model.graph.node.insert(list(model.graph.node).index(product), node)
    product.input[0] = "kept"
    values = {"ratio": np.array(ratio, np.float32), "training": np.array(bool(training))}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, name) for name, v in values.items())
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("training", [True, False, None])
@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_dropout(ratio: float, training: bool | None, tmp_path: Path) -> None:
    path = dropout(tmp_path / "net.onnx", ratio, training)
    if training and ratio:
        assert "training_mode is not a constant false" in refused(path)
    else:
        assert not differences(path, normal(np.random.default_rng(0), (1, 4))).any()


def test_dropout_whose_mode_is_computed(tmp_path: Path) -> None:
    """From a constant it is one; from the input it is refused."""
    path = dropout(tmp_path / "net.onnx", 0.5, True, computed=True)
    assert not differences(path, normal(np.random.default_rng(0), (1, 4))).any()
    path = dropout(tmp_path / "net.onnx", 0.5, False, computed=True)
    assert "training_mode is not a constant false" in refused(path)
    model = onnx.load(path)
    mode = next(n for n in model.graph.node if n.op_type == "Not")
    mode.op_type, mode.input[0] = "IsNaN", model.graph.node[0].input[0]
    onnx.save(model, path)
    assert "IsNaN is not supported (once" in refused(path)


def refused(path: Path) -> str:
    with pytest.raises(FrontendError) as err:
        frontends.load(path)
    return str(err.value)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"")
    assert "0 bytes" in refused(path)
    path.write_bytes(b"\xff" * 100)
    assert "not an ONNX model" in refused(path)
    raw = (DATA / "kws_dscnn_qdq.onnx").read_bytes()
    for size in range(100, len(raw), 9973):
        path.write_bytes(raw[:size])
        assert str(path) in refused(path)


def test_a_float_network(tmp_path: Path) -> None:
    """Computes what onnxruntime does, in C too; int8 needs data."""
    net = Net(1, 3, 8, 8)
    gates(net)
    path, x = net.save(tmp_path / "float.onnx"), normal(net.rng, net.shape)
    compiled = compile_model(path, "host", tmp_path / "out", precision="float32")
    np.testing.assert_allclose(compiled.step([x])[0], onnxruntime(path, x)[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="int8 needs calibration data"):
        compile_model(path, "host", tmp_path / "none")


def test_every_unsupported_operator_is_listed(tmp_path: Path) -> None:
    net = Net(1, 4)
    for kind in ("Erf", "Relu", "Floor", "Erf", "Floor", "Erf"):
        net.node(kind)
    message = refused(net.quantized(tmp_path / "ops.onnx"))
    assert "\n  - Erf is not supported (3 times, first at node 0 Erf erf0)\n" in message
    assert "\n  - Floor is not supported (2 times, first at node 2 Floor floor2)\n" in message
    assert "supported operators: Add, AveragePool" in message


def test_problems_of_known_operators_are_listed_beside_unknown_ones(tmp_path: Path) -> None:
    net = Net(1, 3, 8, 8)
    net.conv(3, 4, 3, 3, relu="")
    y = net.node("MaxPool", kernel_shape=[2, 2], dilations=[2, 2])
    net.node("Erf", net.conv(4, 4, 1, 1))
    net.node("Add", net.x, y)
    message = refused(net.quantized(tmp_path / "ops.onnx"))
    assert "Erf is not supported (once, at node" in message
    assert "dilations and the output of indices are not supported" in message


def test_operators_that_no_output_needs_are_left_out(tmp_path: Path) -> None:
    net = Net(1, 4)
    net.dense(4, 3)
    path = net.quantized(tmp_path / "net.onnx")
    expected = [n.op for n in frontends.load(path).nodes]
    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("RandomNormal", [], ["noise"], shape=[1, 4]))
    model.graph.node.append(onnx.helper.make_node("Erf", ["input"], ["unread"]))
    model.graph.node.append(onnx.helper.make_node("Add", ["unread", "noise"], ["unread2"]))
    onnx.save(model, path)
    assert [n.op for n in frontends.load(path).nodes] == expected


def part_quantised(path: Path) -> Path:
    """A network without the quantisers of its result and of one tensor between its layers."""
    net = Net(1, 4)
    net.dense(4, 3, relu=True)
    net.dense(3, 3)
    model = onnx.load(net.quantized(path))
    quantizers = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    for made in quantizers[1:]:
        back = next(n for n in model.graph.node if n.input and n.input[0] == made.output[0])
        for node in (made, back):
            model.graph.node.remove(node)
        for node in model.graph.node:
            node.input[:] = [made.input[0] if i == back.output[0] else i for i in node.input]
        if model.graph.output[0].name == back.output[0]:
            model.graph.output[0].name = made.input[0]
    onnx.save(model, path)
    return path


def test_tensors_without_a_scale_are_listed(tmp_path: Path) -> None:
    path = part_quantised(tmp_path / "part.onnx")
    with pytest.raises(PassError) as err:
        compile_model(path, "host", tmp_path / "out")
    assert "no scale is given for these tensors:\n  - %" in str(err.value)
    assert str(err.value).count("Gemm gemm") == 2
    assert "calibration" in str(err.value)


def test_data_gives_the_scales_that_a_file_does_not(tmp_path: Path) -> None:
    """The scales that are in the file stay, and the result is near onnxruntime's."""
    path, rng = part_quantised(tmp_path / "part.onnx"), np.random.default_rng(7)
    data = rng.normal(size=(64, 4)).astype(np.float32)
    compiled = compile_model(path, "host", tmp_path / "out", calibration=data)
    given = next(n.op for n in frontends.load(path).nodes if n.op.name == "snap")
    spec = compiled.manifest.inputs[0]
    assert (spec.scale, spec.zero_point) == (given.scale, given.zero)
    found = np.stack([to_real(compiled.step([x[None]])[0], compiled.manifest.outputs[0]) for x in data])
    wanted = np.concatenate([onnxruntime(path, x[None]) for x in data])
    assert np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()


def test_extents_must_be_numbers(tmp_path: Path) -> None:
    path = NETWORKS["ad"]().quantized(tmp_path / "net.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(model, path)
    message = refused(path)
    assert "input input has shape (-1, 640)" in message
    assert "make_dynamic_shape_fixed" in message


def test_operator_sets_and_lost_external_data(tmp_path: Path) -> None:
    path = NETWORKS["ad"]().quantized(tmp_path / "net.onnx")
    model = onnx.load(path)
    onnx.save(model, tmp_path / "ext.onnx", save_as_external_data=True, location="ext.bin", size_threshold=64)
    assert [n.op.name for n in quantised(tmp_path / "ext.onnx").nodes] == ["qlinear_requantize"] * 6
    (tmp_path / "ext.bin").unlink()
    assert "external data must lie beside" in refused(tmp_path / "ext.onnx")
    model.opset_import[0].version = 9
    onnx.save(model, path)
    assert "operator set 9, expected 11 to 25" in refused(path)


def test_time_axes_are_refused() -> None:
    path = DATA / "kws_dscnn_qdq.onnx"
    with pytest.raises(FrontendError, match="takes its whole window"):
        frontends.load(path, time_axis=1)


@pytest.mark.parametrize("block", [gates, pools], ids=lambda b: b.__name__)
def test_a_float_build_of_a_quantised_file(block: Callable[[Net], None], tmp_path: Path) -> None:
    """Every QuantizeLinear rounds in float C, half to even: the numbers of onnxruntime."""
    net = Net(1, 3, 8, 8)
    block(net)
    path, x = net.quantized(tmp_path / "net.onnx"), normal(net.rng, net.shape)
    compiled = compile_model(path, "host", tmp_path / "out", precision="float32")
    wanted, step = onnxruntime(path, x), [n.op.scale for n in frontends.load(path).nodes if n.op.name == "snap"][-1]
    found = np.asarray(compiled.step([x])[0]).reshape(wanted.shape)
    assert np.mean(np.abs(found - wanted) > step / 2) < 0.02
