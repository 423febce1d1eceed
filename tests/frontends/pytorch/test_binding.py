"""Arguments bind by the schema of their operator: by place, by name or left out, a call is the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgec.errors import FrontendError
from edgec.frontends import load
from edgec.frontends.pytorch import arrays, aten, fake_quantize, layers, masks, own, series, simple
from edgec.frontends.pytorch.aten import CONVERTERS
from edgec.ir.evaluate import evaluate

Forward = Callable[[torch.Tensor], torch.Tensor]
WEIGHT = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, call: Forward) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.call(x)


SPELLINGS: list[tuple[Forward, ...]] = [
    (
        lambda x: F.conv1d(x, WEIGHT),
        lambda x: F.conv1d(x, WEIGHT, None, 1, 0, 1, 1),
        lambda x: F.conv1d(input=x, weight=WEIGHT, dilation=(1,), padding="valid", bias=None),
    ),
    (lambda x: F.max_pool1d(x, 2), lambda x: F.max_pool1d(x, kernel_size=2, stride=2, padding=0, ceil_mode=False)),
    (lambda x: F.avg_pool1d(x, 2, 2, 0), lambda x: F.avg_pool1d(x, kernel_size=(2,), count_include_pad=True)),
    (
        lambda x: torch.softmax(x, 1),
        lambda x: x.softmax(dim=-2),
        lambda x: F.softmax(x, dim=1, dtype=torch.float32),
    ),
    (lambda x: x.mean(2), lambda x: x.mean(dim=[-1], keepdim=False), lambda x: torch.mean(x, (2,), dtype=x.dtype)),
    (lambda x: x.sum(1, True), lambda x: torch.sum(x, keepdim=True, dim=-2)),
    (
        lambda x: x.var(2),
        lambda x: x.var(dim=2, unbiased=True),
        lambda x: torch.var(x, dim=[2], correction=1, keepdim=False),
    ),
    (lambda x: F.gelu(x), lambda x: F.gelu(x, approximate="none")),
    (lambda x: F.gelu(x, approximate="tanh"), lambda x: nn.GELU("tanh")(x)),
    (lambda x: x.clamp(0, 6), lambda x: x.clamp(max=6, min=0), lambda x: F.relu6(x), lambda x: F.hardtanh(x, 0, 6)),
    (lambda x: x.transpose(1, 2), lambda x: x.permute(0, 2, 1), lambda x: torch.transpose(x, dim1=-2, dim0=-1)),
    (lambda x: torch.add(x, x), lambda x: torch.add(x, other=x, alpha=1), lambda x: x + x),
    (lambda x: F.layer_norm(x, (8,)), lambda x: F.layer_norm(x, [8], None, None, eps=1e-5)),
    (lambda x: F.leaky_relu(x), lambda x: F.leaky_relu(x, negative_slope=0.01)),
    (lambda x: F.elu(x), lambda x: F.elu(x, 1.0), lambda x: F.celu(x, alpha=1.0)),
    (
        lambda x: x.flatten(1),
        lambda x: x.reshape(1, -1),
        lambda x: x.view_as(x.mean(0).view(1, -1)),
        lambda x: torch.flatten(x, start_dim=-2, end_dim=-1),
    ),
    (lambda x: x[:, 1:3], lambda x: x.narrow(1, -3, 2), lambda x: torch.ops.aten.slice(x, dim=1, start=1, end=-1)),
    (lambda x: x.clone(memory_format=torch.contiguous_format) * 2, lambda x: x.to("cpu", copy=True) * 2),
]


@pytest.mark.parametrize("forms", SPELLINGS)
def test_the_same_call_in_other_words(forms: tuple[Forward, ...]) -> None:
    x = torch.randn(1, 4, 8)
    graphs = [load(Net(form).eval(), (x,)) for form in forms]
    for form, graph in zip(forms, graphs, strict=True):
        assert [(n.op, n.types) for n in graph.nodes] == [(n.op, n.types) for n in graphs[0].nodes]
        (found,) = evaluate(graph, {graph.inputs[0].name: x})
        torch.testing.assert_close(found, form(x), rtol=1e-5, atol=1e-6)


def test_an_element_type_that_changes_numbers_is_refused() -> None:
    for call in (lambda x: x.sum(1, dtype=torch.int64) * 1.0, lambda x: x.mean() + x.sum(dtype=torch.int32)):
        with pytest.raises(FrontendError, match=r"aten::sum at test_binding.py:\d+: dtype torch.int\d+ is not supp"):
            load(Net(call).eval(), (torch.randn(1, 4),))


def test_an_argument_that_its_converter_forgets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Net(lambda x: F.softplus(x, beta=2, threshold=40)).eval()
    monkeypatch.setitem(CONVERTERS, "aten::softplus", "softplus(self, beta=1)")
    with pytest.raises(FrontendError, match=r"aten::softplus at test_binding.py:\d+: beta 2 is not supp.*: 1"):
        load(module, (torch.randn(1, 4),))


def test_no_call_stands_in_two_tables() -> None:
    tables = [aten.EXPRESSIONS, *(m.CONVERTERS for m in (arrays, fake_quantize, layers, masks, own, series, simple))]
    assert sum(map(len, tables)) == len(CONVERTERS)


def test_a_row_is_an_expression_of_arguments_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """One operand or more, numbers in any place, a function of the table or a Map."""
    module = Net(lambda x: F.softplus(torch.add(x, x.mean(1, True), alpha=-2), beta=3)).eval()
    monkeypatch.setitem(CONVERTERS, "aten::add", "max(self, self + alpha ** 3 * other)")
    monkeypatch.setitem(CONVERTERS, "aten::softplus", "elu(self * self, alpha=1 / beta) + threshold")
    x = torch.randn(1, 4)
    graph = load(module, (x,))
    assert [n.op.name for n in graph.nodes] == ["mean", "reshape", "map", "map"]
    y = torch.maximum(x, x - 8 * x.mean(1, True))
    torch.testing.assert_close(evaluate(graph, {graph.inputs[0].name: x})[0], F.elu(y * y, 1 / 3) + 20)


def test_constants_have_the_element_type_that_was_asked_for() -> None:
    """A mask of ones, an index of zeros."""
    module = Net(lambda x: torch.where(torch.ones_like(x, dtype=torch.bool), 2 * x, torch.full_like(x, 3.0))).eval()
    x = torch.randn(1, 4)
    graph = load(module, (x,))
    torch.testing.assert_close(evaluate(graph, {graph.inputs[0].name: x})[0], 2 * x)
    module = Net(lambda x: x[:, x.new_zeros(2, dtype=torch.long)]).eval()
    graph = load(module, (x,))
    torch.testing.assert_close(evaluate(graph, {graph.inputs[0].name: x})[0], x[:, [0, 0]])
