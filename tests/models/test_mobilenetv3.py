"""MobileNetV3 as torchvision and timm build it, weights at random: int8 loses in each layer what rounding costs."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgec import frontends
from edgec.ir.evaluate import evaluate
from edgec.ops.integer.requantize import QLut
from edgec.passes.quantize.assign_precision import Assignment
from edgec.passes.quantize.compare import compare
from edgec.stages import make_stages

pytest.importorskip("torchvision")
pytest.importorskip("timm")

import timm
import torchvision

MAKERS: dict[str, Any] = {
    "torchvision": lambda: torchvision.models.mobilenet_v3_small(num_classes=10, width_mult=0.5),
    "timm": lambda: timm.create_model("mobilenetv3_small_050", num_classes=10),
}


@pytest.mark.parametrize("package", MAKERS)
def test_each_layer_loses_what_rounding_costs(package: str) -> None:
    """Over 50 layers of random weights amplify what the layers before them rounded, so the sum says little: it is 29 dB
    once the network is trained."""
    torch.manual_seed(0)
    module = MAKERS[package]().train()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the mean over the batches seen
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(4, 3, 64, 64))
    module.eval()
    data = torch.randn(4, 3, 64, 64)
    graph = frontends.load(module, (data[:1],), time_axis=None)
    stages = make_stages(graph, "int8", data.numpy(), None, None, Assignment(), lambda stage: None, None)
    (name,) = (v.name for v in graph.inputs)
    with torch.no_grad():
        expected = module(data[:1])
    (found,) = evaluate(stages.reference, {name: data[:1]})
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    rows = compare(stages.reference, stages.whole, {name: data.numpy()})
    assert len(rows) > 80
    # what only a table reads is cut off where the function no longer changes
    read = [r for r in rows if not all(isinstance(n.op, QLut) for n in stages.whole.consumers(r.name))]
    assert np.nanmin([r.own_sqnr for r in read]) > 25
    assert rows[-1].sqnr > 10
