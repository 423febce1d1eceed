import numpy as np
import pytest
import torch

from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Graph
from edgec.ir.types import DType
from edgec.ir.verify import verify
from edgec.ops import QAdd, QConv2d, QLinear, Requantize
from edgec.passes.fuse import Fuse
from tests.graphs import Builder


def scales(b: Builder, channels: int) -> tuple[str, str]:
    multiplier = b.rng.integers(1 << 30, 1 << 31, channels)
    return b.const(multiplier, "int32"), b.const(np.full(channels, 40), "int32")


def layer(b: Builder, x: str, op: QConv2d | QLinear, *shape: int) -> str:
    w = b.const(b.rng.integers(-127, 128, shape), "int8")
    return b.emit(op, x, w, b.const(b.rng.integers(-99, 99, shape[-1]), "int32"))


def net(dtype: DType) -> Graph:
    """A convolution, a linear layer and what reads their sums."""
    b = Builder()
    sums = layer(b, b.input("x", 1, 5, 4, 6, dtype=dtype, time=None), QConv2d(pad=(1, 1, 1, 1)), 3, 3, 6, 8)
    narrow = b.emit(Requantize("int8", 1.0, 3, -100, 100), sums, *scales(b, 8))
    out = b.emit(Requantize("int16", 1.0, 0, -32768, 32767), layer(b, narrow, QLinear(), 8, 5), *scales(b, 1))
    return b.build(out)


def test_pairs_become_one_node_with_the_same_output() -> None:
    graph = net(DType.I8)
    fused = Fuse().run(graph)
    verify(fused)
    assert [n.op.name for n in fused.nodes] == ["qconv2d_requantize", "qlinear_requantize"]
    assert fused.nodes[0].source == ("net.py:1", "net.py:2")
    x = {"x": torch.randint(-128, 128, graph.inputs[0].type.shape)}
    assert torch.equal(evaluate(fused, x)[0], evaluate(graph, x)[0])


def test_sums_that_something_else_reads_stay() -> None:
    b = Builder()
    sums = layer(b, b.input("x", 1, 4, 6, dtype=DType.I8, time=None), QLinear(), 6, 8)
    narrow = b.emit(Requantize("int16", 1.0, 0, -32768, 32767), sums, *scales(b, 8))
    graph = b.build(b.emit(QAdd(), narrow, sums))
    assert Fuse().run(graph) == graph


@pytest.mark.parametrize("dtype", [DType.BIT, DType.I16])
def test_spikes_and_int16_keep_their_own_kernels(dtype: DType) -> None:
    b = Builder()
    sums = layer(b, b.input("x", 1, 4, 6, dtype=dtype, time=None), QLinear(), 6, 8)
    graph = b.build(b.emit(Requantize(), sums, *scales(b, 8)))
    assert Fuse().run(graph) == graph
