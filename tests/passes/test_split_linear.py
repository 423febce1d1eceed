"""Linear layers read in slices become one layer each, and matrix products read transposed operands as they lie."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgec import frontends
from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Graph
from edgec.ir.verify import verify
from edgec.ops import Linear, MatMul, Permute, Relu, Reshape, Slice
from edgec.passes.assign_layout import AssignLayout
from edgec.passes.fold_transpose import FoldTranspose
from edgec.passes.split_linear import SplitLinear
from tests.graphs import Builder


def linear(b: Builder, x: str, outputs: int) -> str:
    return b.emit(Linear(), x, b.normal(b.types[x].shape[-1], outputs), b.normal(outputs))


def start() -> tuple[Builder, str]:
    b = Builder()
    return b, linear(b, b.input("x", 1, 5, 4), 12)


def names(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes]


def assert_same(before: Graph, after: Graph) -> None:
    verify(after)
    rng = np.random.default_rng(0)
    data = {v.name: torch.from_numpy(rng.normal(size=v.type.shape).astype(np.float32)) for v in before.inputs}
    for a, b in zip(evaluate(before, data), evaluate(after, data), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert [after.type_of(o) for o in after.outputs] == [before.type_of(o) for o in before.outputs]


def cut(b: Builder, y: str, axis: int, spans: list[tuple[int, int]]) -> Graph:
    return b.build(*(b.emit(Slice(axis, *span), y) for span in spans))


@pytest.mark.parametrize("spans", [[(0, 4), (4, 8), (8, 12)], [(0, 9), (9, 12)], [(2, 3), (7, 11)]])
def test_slices_of_the_features(spans: list[tuple[int, int]]) -> None:
    b, y = start()
    graph = cut(b, y, -1, spans)
    after = SplitLinear().run(graph)
    assert names(after) == ["linear"] * len(spans)
    assert [n.type.shape[-1] for n in after.nodes] == [stop - first for first, stop in spans]
    assert_same(graph, after)


@pytest.mark.parametrize(
    ("shape", "axis"), [((1, 5, 3, 2, 2), 2), ((1, 5, 2, 3, 2), 3), ((1, 5, 2, 2, 3), -1), ((5, 3, 4), 1)]
)
def test_slices_of_heads(shape: tuple[int, ...], axis: int) -> None:
    b = Builder()
    y = linear(b, b.input("x", 1, 5, 4, time=None), 12)
    graph = cut(b, b.emit(Reshape(shape), y), axis, [(0, 1), (1, 3)])
    after = SplitLinear().run(graph)
    assert names(after) == ["linear", "reshape"] * 2
    assert_same(graph, after)


def test_the_time_axis_stays() -> None:
    b, y = start()
    graph = cut(b, b.emit(Reshape((1, 5, 3, 4), 1), y), 2, [(0, 1), (1, 2), (2, 3)])
    assert_same(graph, SplitLinear().run(graph))


def unchanged(graph: Graph) -> bool:
    return SplitLinear().run(graph).nodes == graph.nodes


def test_what_must_stay_one_layer() -> None:
    b, y = start()
    assert unchanged(cut(b, y, -1, [(0, 7), (6, 12)]))  # features taken twice
    b, y = start()
    assert unchanged(cut(b, y, -1, [(0, 7)]))  # nothing to gain
    b, y = start()
    assert unchanged(b.build(b.emit(Slice(-1, 0, 4), y), b.emit(Slice(-1, 4, 8), y), b.emit(Relu(), y)))
    b, y = start()
    assert unchanged(b.build(b.emit(Slice(-1, 0, 4), y), b.emit(Slice(-1, 4, 8), y), y))
    b = Builder()
    y = linear(b, b.input("x", 1, 6, 4, time=None), 12)
    assert unchanged(cut(b, b.emit(Reshape((1, 2, 3, 12)), y), 1, [(0, 1), (1, 2)]))  # rows, not features


@pytest.mark.parametrize("transposed", [False, True])
def test_transposed_operands(transposed: bool) -> None:
    b = Builder()
    x, y = b.input("x", 1, 2, 3, 3, time=None), b.input("y", 1, 2, 3, 3, time=None)
    graph = b.build(b.emit(MatMul(transposed), x, b.emit(Permute((0, 1, 3, 2)), b.emit(Relu(), y))))
    after = FoldTranspose().run(graph)
    assert names(after) == ["relu", "matmul"]
    assert after.nodes[1].op.transpose_b is not transposed
    assert_same(graph, after)


def test_only_an_exchange_of_the_last_two_axes_is_folded() -> None:
    b = Builder()
    x, y = b.input("x", 2, 2, 2, time=None), b.input("y", 2, 2, 2, time=None)
    graph = b.build(b.emit(MatMul(), x, b.emit(Permute((1, 0, 2)), y)))
    assert FoldTranspose().run(graph).nodes == graph.nodes


class Attention(nn.Module):
    """As most transformers write it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 18)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(1, 5, 3, 2, 3).permute(2, 0, 3, 1, 4).unbind(0)
        return (q @ k.transpose(-1, -2)).softmax(-1) @ v


def test_attention_as_torch_exports_it() -> None:
    x: Any = torch.randn(1, 5, 6)
    module = Attention().eval()
    graph = AssignLayout().run(frontends.load(module, (x,), time_axis=None))
    after = FoldTranspose().run(SplitLinear().run(graph))
    assert names(after).count("linear") == 3
    assert "slice" not in names(after)
    assert [n.op.transpose_b for n in after.nodes if isinstance(n.op, MatMul)] == [True, False]
    with torch.no_grad():
        torch.testing.assert_close(evaluate(after, {after.inputs[0].name: x})[0], module(x), rtol=1e-5, atol=1e-5)
