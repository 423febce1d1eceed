import torch
from hypothesis import given, settings

from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Graph
from edgec.ir.verify import verify
from edgec.ops import Add, Gelu, Relu
from edgec.passes.fuse import Fuse
from tests.graphs import Builder, conv, streaming_nets


@settings(max_examples=60, deadline=None)
@given(streaming_nets())
def test_fusing_changes_no_output(graph: Graph) -> None:
    fused = Fuse().run(graph)
    verify(fused)
    x = {"x": torch.randn(graph.inputs[0].type.shape)}
    assert torch.equal(evaluate(fused, x)[0], evaluate(graph, x)[0])


def test_an_activation_moves_into_its_convolution() -> None:
    b = Builder()
    x = conv(b, b.input("x", 1, 6, 3), 4, 3, (1, 1))
    graph = b.build(b.emit(Relu(), b.emit(Gelu(), x)))
    fused = Fuse().run(graph)
    assert [(n.op.name, getattr(n.op, "activation", None)) for n in fused.nodes] == [("conv1d", "gelu"), ("relu", None)]
    assert fused.nodes[0].source == ("net.py:1", "net.py:2")


def test_a_value_that_is_needed_elsewhere_stays() -> None:
    b = Builder()
    x = conv(b, b.input("x", 1, 6, 3), 4, 3, (1, 1))
    graph = b.build(b.emit(Add(), b.emit(Relu(), x), x))
    assert Fuse().run(graph) == graph
