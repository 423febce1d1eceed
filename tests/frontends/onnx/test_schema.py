"""Operators bind by the names of their schema: the same network in the words of several operator sets is one graph."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

import onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from edgec import frontends
from edgec.errors import FrontendError
from edgec.frontends.onnx.schema import Ref, bound
from tests.frontends.onnx.onnx_models import Net, Reader, normal
from tests.frontends.onnx.test_onnx import differences


def spelled(opset: int) -> Net:
    """Attributes where they became inputs later, and defaults left out where they are the same."""
    net = Net(1, 4, 6, 5, opset=opset)

    def listed(kind: str, since: int, axes: list[int], **fields: Any) -> None:
        if opset < since:
            net.node(kind, axes=axes, **fields)
        else:
            net.node(kind, net.x, net.const(axes, "int64"), **fields)

    if opset < 18:
        net.node("Pad", net.x, net.const([0, 0, 1, 0, 0, 0, 2, 1], "int64"), net.const(0.0))
    else:
        net.node("Pad", net.x, net.const([1, 0, 2, 1], "int64"), net.const(0.0), net.const([2, -1], "int64"))
    net.conv(4, 6, 3, 3, relu="")
    net.node("Clip", net.x, net.const(-0.5), net.const(2.0))
    listed("ReduceMean", 18, [2], **({"keepdims": 1} if opset < 18 else {}))
    listed("Squeeze", 13, [-2])
    listed("Unsqueeze", 13, [2])
    net.node("Flatten", **({} if opset < 13 else {"axis": 1}))
    net.dense(6 * 4, 5)
    net.node("Softmax")
    return net


def layers(path: Path) -> list[object]:
    return [(n.op, n.types) for n in frontends.load(path).nodes]


def test_one_network_in_several_operator_sets(tmp_path: Path) -> None:
    made = {k: spelled(k).quantized(tmp_path / f"{k}.onnx", per_channel=False) for k in (11, 13, 17, 18, 21, 24)}
    x = normal(np.random.default_rng(1), (1, 4, 6, 5))
    for opset, path in made.items():
        assert onnx.load(path).opset_import[0].version == opset
        assert layers(path) == layers(made[11])
        assert np.abs(differences(path, x)).max() <= 1


class Torch(nn.Module):
    """What torch's exporter spells otherwise from one operator set to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 7, 3, stride=2), nn.Conv2d(7, 7, 3, groups=7, padding=1)
        self.pool, self.last = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False), nn.Linear(42, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.clamp(self.first(F.pad(x, (1, 0, 2, 1))), -0.5, 3)
        x = self.pool(F.leaky_relu(F.hardswish(self.second(x)), 0.2))
        x = x * torch.sigmoid(x.mean([2, 3], keepdim=True))
        return F.softmax(self.last(x.flatten(1)).unsqueeze(1).squeeze(1), dim=1)


@pytest.mark.parametrize("opset", [11, 13, 14, 18, 20])
def test_networks_of_torchs_exporter(opset: int, tmp_path: Path) -> None:
    """Paddings come as a computation on constants, whose table is turned and reversed."""
    plain, path, shape = tmp_path / "plain.onnx", tmp_path / "net.onnx", (1, 3, 7, 11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options: dict[str, Any] = {"dynamo": False, "do_constant_folding": False, "input_names": ["input"]}
        torch.onnx.export(Torch().eval(), (torch.randn(shape),), str(plain), opset_version=opset, **options)
    rng = np.random.default_rng(opset)
    quantize_static(
        plain, path, Reader(rng, shape), QuantFormat.QDQ, activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8, per_channel=opset >= 13,
    )  # fmt: skip
    for _ in range(3):
        assert np.abs(differences(path, normal(rng, shape))).max() <= 1


@pytest.mark.parametrize(
    ("kind", "old", "new", "inputs", "attributes"),
    [
        ("Clip", 6, 11, ("x", "low"), {"min": 0.0, "max": 6.0}),
        ("Squeeze", 11, 13, ("x", "axes"), {"axes": [2]}),
        ("Unsqueeze", 1, 13, ("x", "axes"), {"axes": [2]}),
        ("ReduceMean", 13, 18, ("x", "axes"), {"axes": [1], "keepdims": 0}),
        ("ReduceSum", 11, 13, ("x", "axes"), {"axes": [1]}),
        ("Pad", 2, 13, ("x", "pads"), {"pads": [0, 1]}),
        ("Slice", 9, 10, ("x", "from", "to"), {"starts": [0], "ends": [3]}),
        ("Split", 11, 13, ("x", "parts"), {"split": [1, 2]}),
        ("Dropout", 7, 12, ("x", "ratio"), {"ratio": 0.25}),
    ],
)
def test_what_became_an_input_keeps_its_name(
    kind: str, old: int, new: int, inputs: tuple[str, ...], attributes: dict[str, Any]
) -> None:
    moved = [key for key in attributes if key != "keepdims"][: len(inputs) - 1]
    before, after = bound(kind, old, ("x",), attributes)[1], bound(kind, new, inputs, {})[1]
    for key, name in zip(moved, inputs[1:], strict=True):
        assert before[key] == attributes[key]
        assert after[key] == Ref(name)
    assert before.keys() >= after.keys() - {"value"}


def test_defaults_are_those_of_the_operator_set() -> None:
    assert bound("Softmax", 11, ("x",), {})[1]["axis"] == 1
    assert bound("Softmax", 13, ("x",), {})[1]["axis"] == -1
    assert bound("MaxPool", 8, ("x",), {"kernel_shape": [2]})[1]["ceil_mode"] == 0
    for opset in (9, 14, 15):
        args = bound("BatchNormalization", opset, tuple("xsbmv"), {})[1]
        assert (args["input_mean"], args["input_var"], args["training_mode"]) == (Ref("m"), Ref("v"), 0)


@pytest.mark.parametrize(
    ("kind", "opset", "inputs", "attributes", "message"),
    [
        ("Relu", 13, ("x", "y"), {}, "2 inputs, expected 1 at most"),
        ("ReduceMean", 18, ("x",), {"axes": [1]}, None),
        ("Relu", 13, ("x",), {"alpha": 1.0}, "alpha is unknown, expected nothing"),
        ("Conv", 13, ("x", ""), {}, "W is missing"),
        ("Concat", 13, ("x", "y"), {}, "axis is missing"),
        ("HardSwish", 13, ("x",), {}, "operator set 13 has no HardSwish"),
    ],
)
def test_what_the_schema_does_not_have(
    kind: str, opset: int, inputs: tuple[str, ...], attributes: dict[str, Any], message: str | None
) -> None:
    with pytest.raises(ValueError, match=message or "axes is unknown"):
        bound(kind, opset, inputs, attributes)


def changed(path: Path, kind: str, **attributes: Any) -> str:
    """What is said of a network in which all operators of a kind have other attributes."""
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == kind:
            kept = [a for a in node.attribute if a.name not in attributes]
            del node.attribute[:]
            node.attribute.extend(kept + [onnx.helper.make_attribute(k, v) for k, v in attributes.items()])
    onnx.save(model, path.with_name("changed.onnx"))
    with pytest.raises(FrontendError) as caught:
        frontends.load(path.with_name("changed.onnx"))
    return str(caught.value)


def test_what_no_converter_reads_is_refused(tmp_path: Path) -> None:
    net = Net(1, 3, 8, 8, opset=21)
    net.conv(3, 4, 3, 3, relu="")
    net.node("MaxPool", kernel_shape=[2, 2])
    path = net.quantized(tmp_path / "net.onnx", per_channel=False)
    assert "block_size 16 is not supported; supported: 0" in changed(path, "DequantizeLinear", block_size=16)
    assert "kernel_shape (5, 5), expected that of its weights, (3, 3)" in changed(path, "Conv", kernel_shape=[5, 5])
    assert "auto_pad SAME is not supported; supported: NOTSET, VALID" in changed(path, "Conv", auto_pad="SAME")
    assert "relu is unknown, expected" in changed(path, "Conv", relu=1)
    assert "dilations" in changed(path, "MaxPool", dilations=[2, 2])
