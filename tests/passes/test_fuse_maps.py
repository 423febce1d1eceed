"""Truth values between real ones become part of one expression, and that a table of int8."""

import numpy as np
import pytest
import torch
from torch import nn

from edgec.frontends.modules import from_module
from edgec.ir.evaluate import evaluate
from edgec.ir.verify import verify
from edgec.ops import Map
from edgec.passes.fuse_maps import FuseMaps
from tests.frontends.pytorch.test_torch_export import Call
from tests.passes.quantize.quantize_tools import quantized, samples

LEAKY = {
    "where": lambda y: torch.where(y > 0, y, 0.1 * y),
    "mask": lambda y: y * (y > 0) + 0.1 * (y * (y <= 0).float()),
    "bands": lambda y: torch.where((y > -1) & ~(y > 1), y, torch.sign(y)),
    "steps": lambda y: (y * 4).int().float() / 4,
}


@pytest.mark.parametrize("name", LEAKY)
def test_a_function_by_hand_is_one_table(name: str) -> None:
    layer = nn.Linear(6, 5)
    graph = from_module(Call(lambda x, *_: LEAKY[name](layer(x))).eval(), (torch.randn(1, 6),), "net")
    fused = FuseMaps().run(graph)
    verify(fused)
    assert all(t.dtype.is_float for n in fused.nodes for t in n.types)
    x = {graph.inputs[0].name: torch.randn(1, 6)}
    torch.testing.assert_close(evaluate(fused, x)[0], evaluate(graph, x)[0])
    if name in ("where", "bands"):
        assert [n.op.name for n in fused.nodes] == ["linear", "map"]
        assert quantized(fused, samples(fused)).nodes


def test_an_expression_of_two_tensors_and_what_it_is_made_of() -> None:
    module = Call(lambda x, y: torch.where((x > y) | (x > 2), x, y)).eval()
    graph = from_module(module, (torch.randn(1, 4), torch.randn(1, 4)), "net")
    (node,) = FuseMaps().run(graph).nodes
    assert isinstance(node.op, Map)
    x, y = torch.tensor([1.0, 3.0, -1.0]), torch.tensor([2.0, 4.0, -2.0])
    np.testing.assert_array_equal(node.op.reference(x, y), [2, 3, -1])
