"""Nearly dead channels: their integers stay in what fast kernels hold, and their outputs stay right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgec.frontends import load
from edgec.ir.evaluate import evaluate
from edgec.ops.integer.conv import QConv2dRequantize
from edgec.ops.integer.linear import QLinearRequantize
from edgec.ops.integer.requantize import accumulator_bounds
from edgec.passes.quantize.assign_precision import Assignment
from edgec.stages import make_stages

ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "relu6": nn.ReLU6}
LAYERS = {
    "conv": (lambda: nn.Conv2d(16, 12, 3, padding=1), (16, 7, 7)),
    "depthwise": (lambda: nn.Conv2d(12, 12, 3, groups=12), (12, 7, 7)),
    "pointwise": (lambda: nn.Conv2d(16, 12, 1), (16, 5, 5)),
    "linear": (lambda: nn.Linear(40, 12), (5, 40)),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_nearly_dead_channel_is_right_and_fits(kind: str, activation: str) -> None:
    """Weights of a few outputs times 1e-2 to 1e-9, and biases of all sizes: torch's outputs to 0.6 of a step, sums of
    24 bits, shifts that every kernel takes."""
    make, shape = LAYERS[kind]
    torch.manual_seed(4)
    layer = make()
    with torch.no_grad():
        for output, (factor, bias) in enumerate(((1e-2, 0.0137), (1e-3, -0.4), (1e-4, 0.9), (1e-6, 0.0), (1e-9, 1e-5))):
            layer.weight[2 * output] *= factor
            layer.bias[2 * output] = bias
    module, rng = nn.Sequential(layer, ACTIVATIONS[activation]()).eval(), np.random.default_rng(0)
    data = rng.normal(size=(24, *shape)).astype(np.float32)
    graph = load(module, (torch.from_numpy(data[:1]),), time_axis=None)
    stages = make_stages(graph, "int8", data, None, None, Assignment(), lambda stage: None, None)
    (node,) = (n for n in stages.whole.nodes if isinstance(n.op, (QConv2dRequantize, QLinearRequantize)))
    w, bias, _, shift = (stages.whole.consts[i].data for i in node.inputs[1:])
    low, high = accumulator_bounds(w, bias, (-128, 127))
    assert max(int(abs(low).max()), int(abs(high).max())) < 1 << 23
    assert shift.max() <= 47
    (v,), (name,) = stages.whole.inputs, stages.whole.outputs
    scale, zero = v.type.quant.scale[0], v.type.quant.zero_point
    q = np.clip(np.floor(data[:1] / scale + 0.5) + zero, -128, 127)
    with torch.no_grad():
        expected = module(torch.from_numpy(((q - zero) * scale).astype(np.float32))).numpy()
    found, t = (
        evaluate(stages.whole, {v.name: torch.from_numpy(q.astype(np.int64))})[0].numpy(),
        stages.whole.type_of(name).quant,
    )
    channels = 1 if kind != "linear" else 2
    steps = np.abs((found - t.zero_point) - expected / t.scale[0])
    inside = (found > -128) & (found < 127)
    dead = np.moveaxis(np.where(inside, steps, 0), channels, 0)[0:10:2]
    assert dead.max() < 0.6, dead.reshape(5, -1).max(1)
