"""Small float ONNX networks, quantised by onnxruntime's static quantiser, and what onnxruntime computes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from edgec import frontends
from edgec.ir.graph import Graph
from edgec.stages import passes_for, transform

OPSET = 17


class Net:
    """Nodes one after another, channels first; `x` is the newest tensor and `shapes` are known by the caller."""

    def __init__(self, *shape: int, seed: int = 0, opset: int = OPSET) -> None:
        self.rng, self.opset = np.random.default_rng(seed), opset
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.shape, self.x = shape, "input"

    def const(self, data: Any, dtype: str = "float32") -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(data, dtype), name))
        return name

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        names = [f"t{len(self.nodes)}" + (f"_{k}" if k else "") for k in range(outputs)]
        inputs = inputs or (self.x,)
        self.nodes.append(helper.make_node(kind, list(inputs), names, f"{kind.lower()}{len(self.nodes)}", **attributes))
        self.x = names[0]
        return self.x

    def conv(self, inputs: int, outputs: int, *kernel: int, group: int = 1, relu: str = "Relu", **fields: Any) -> str:
        fan = inputs // group * int(np.prod(kernel))
        w = self.const(self.rng.normal(0, 1.6 / np.sqrt(fan), (outputs, inputs // group, *kernel)))
        bias = self.const(self.rng.normal(0, 0.1, outputs))
        self.node("Conv", self.x, w, bias, group=group, **fields)
        return self.node(relu) if relu else self.x

    def dense(self, inputs: int, outputs: int, relu: bool = False) -> str:
        w = self.const(self.rng.normal(0, 1.6 / np.sqrt(inputs), (inputs, outputs)))
        self.node("Gemm", self.x, w, self.const(self.rng.normal(0, 0.1, outputs)))
        return self.node("Relu") if relu else self.x

    def dense_rows(self, inputs: int, outputs: int) -> str:
        """A product with a bias of its own node."""
        w = self.const(self.rng.normal(0, 1.6 / np.sqrt(inputs), (inputs, outputs)))
        self.node("MatMul", self.x, w)
        return self.node("Add", self.x, self.const(self.rng.normal(0, 0.1, outputs)))

    def model(self) -> Any:
        graph = helper.make_graph(
            self.nodes, "net",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, list(self.shape))],
            [helper.make_tensor_value_info(self.x, TensorProto.FLOAT, None)], self.constants,
        )  # fmt: skip
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)
        return onnx.shape_inference.infer_shapes(made)

    def save(self, path: Path) -> Path:
        onnx.save(self.model(), path)
        return path

    def quantized(
        self, path: Path, unsigned: bool = False, per_channel: bool = True, form: Any = QuantFormat.QDQ, **options: Any
    ) -> Path:
        """Calibrated on normal inputs."""
        plain = self.save(path.with_suffix(".float.onnx"))
        kind = QuantType.QUInt8 if unsigned else QuantType.QInt8
        quantize_static(
            plain, path, Reader(self.rng, self.shape), form, activation_type=kind,
            weight_type=QuantType.QInt8, per_channel=per_channel, **options,
        )  # fmt: skip
        return path


class Reader(CalibrationDataReader):
    """A few normal inputs."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
        self.inputs: Iterator[Any] = iter([{"input": normal(rng, shape)} for _ in range(8)])

    def get_next(self) -> Any:
        return next(self.inputs, None)


def two_inputs(path: Path) -> tuple[Path, list[np.ndarray], list[np.ndarray]]:
    """A quantised network with two inputs and two outputs, four of each input, and what onnxruntime gives for them."""
    net, shapes = Net(seed=5), {"x": (1, 3, 9, 7), "h.0": (1, 6)}
    net.x = "x"
    image = net.node("GlobalAveragePool", net.conv(3, 10, 3, 3))
    flat = net.node("Flatten", image)
    net.x = "h.0"
    joined = net.node("Add", net.dense(6, 10), flat)
    outputs = [net.dense(10, 4), joined]
    graph = helper.make_graph(
        net.nodes, "net", [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in shapes.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs], net.constants,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.save(onnx.shape_inference.infer_shapes(made), path.with_suffix(".float.onnx"))
    reader = Reader(net.rng, ())
    reader.inputs = iter([{n: normal(net.rng, s) for n, s in shapes.items()} for _ in range(8)])
    quantize_static(
        path.with_suffix(".float.onnx"), path, reader, QuantFormat.QDQ, activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8, per_channel=True,
    )  # fmt: skip
    given = {n: np.stack([normal(net.rng, s) for _ in range(4)]) for n, s in shapes.items()}
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = [session.run(None, {n: x[k] for n, x in given.items()}) for k in range(4)]
    return path, list(given.values()), [np.stack(column) for column in zip(*found, strict=True)]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def quantised(path: Path, calibration: Any = None) -> Graph:
    """The integer graph of a file."""
    return transform(frontends.load(path), passes_for("int8", calibration, None, None), lambda stage: None)[-1]


def onnxruntime(path: Path, x: np.ndarray, fused: bool = False) -> np.ndarray:
    """The first output; without fusing every operator is computed in float32 between its quantisers."""
    options = ort.SessionOptions()
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if fused else level.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def keyword_spotting() -> Net:
    """MLPerf Tiny's DS-CNN on 49 x 10 features, narrower."""
    net = Net(1, 1, 49, 10)
    net.conv(1, 16, 10, 4, strides=[2, 2], pads=[4, 1, 5, 1])
    for _ in range(2):
        net.conv(16, 16, 3, 3, group=16, pads=[1] * 4)
        net.conv(16, 16, 1, 1)
    net.node("AveragePool", kernel_shape=[25, 5], strides=[25, 5])
    net.node("Flatten")
    net.dense(16, 12)
    net.node("Softmax", axis=-1)
    return net


def image_classification() -> Net:
    """ResNet8's blocks on 16 x 16 images."""
    net = Net(1, 3, 16, 16, seed=1)
    x = net.conv(3, 8, 3, 3, pads=[1] * 4)
    net.conv(8, 8, 3, 3, pads=[1] * 4)
    net.node("Add", x, net.conv(8, 8, 3, 3, pads=[1] * 4, relu=""))
    x = net.node("Relu")
    net.conv(8, 16, 3, 3, strides=[2, 2], pads=[0, 0, 1, 1])
    y, net.x = net.conv(16, 16, 3, 3, pads=[1] * 4, relu=""), x
    net.node("Add", net.conv(8, 16, 1, 1, strides=[2, 2], relu=""), y)
    net.node("Relu")
    net.node("GlobalAveragePool")
    net.node("Flatten")
    net.dense(16, 10)
    net.node("Softmax", axis=-1)
    return net


def visual_wake_words() -> Net:
    """MobileNetV1 of width 1/4 on 32 x 32 images, its first blocks; Clip stands for ReLU6."""
    net = Net(1, 3, 32, 32, seed=2)

    def clipped(*layer: int, **attributes: Any) -> None:
        net.conv(*layer, relu="", **attributes)
        net.node("Clip", net.x, net.const(0.0), net.const(6.0))

    clipped(3, 8, 3, 3, strides=[2, 2], auto_pad="SAME_UPPER")
    channels = 8
    for stride, outputs in ((1, 16), (2, 32), (1, 32), (2, 64), (2, 64)):
        clipped(channels, channels, 3, 3, group=channels, strides=[stride] * 2, auto_pad="SAME_UPPER")
        clipped(channels, outputs, 1, 1)
        channels = outputs
    net.node("ReduceMean", axes=[2, 3], keepdims=0)
    net.dense(64, 2)
    net.node("Softmax", axis=-1)
    return net


def anomaly_detection() -> Net:
    """The autoencoder of 640 features: ten dense layers around a bottleneck of 8, as MatMul and Add."""
    net = Net(1, 640, seed=3)
    widths = [640, 128, 128, 8, 128, 128, 640]
    for inputs, outputs in itertools.pairwise(widths):
        net.dense(inputs, outputs, relu=outputs != 640)
    return net


NETWORKS = {
    "kws": keyword_spotting,
    "ic": image_classification,
    "vww": visual_wake_words,
    "ad": anomaly_detection,
}
