"""Networks that return what is no result of their own, compiled, against torch over the whole input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgec
from edgec.passes.own_outputs import OwnOutputs
from edgec.passes.streaming.make_streaming import MakeStreaming
from tests.graphs import Builder, conv

T = 12


class Odd(nn.Module):
    """An input nobody reads, one that is returned, results twice and in two shapes, a slice, constants, and what comes
    a frame later than the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv = nn.Linear(4, 6), nn.Conv1d(4, 4, 3, padding=1)
        self.register_buffer("anchors", torch.arange(6.0).reshape(2, 3))

    def forward(self, x: Tensor, unused: Tensor) -> tuple[Tensor, ...]:
        y, late = self.linear(x), self.conv(x.transpose(1, 2)).transpose(1, 2)
        two = y.reshape(1, T, 2, 3)
        return two, y, y, x, x.reshape(1, T, 2, 2), self.anchors, self.anchors * 2, late, late, x[:, :, 1:3]


class Return(nn.Module):
    """What a function makes of the input, without any layer."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor):
        return self.function(x)


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.rand(1, T, 4, generator=rng) - 0.5, torch.rand(1, T, 3, generator=rng)


def check(net: nn.Module, given: tuple[Tensor, ...], axis: int | None, folder: Path, precision: str) -> None:
    torch.manual_seed(1)
    net = net.eval()
    with torch.no_grad():
        expected = net(*given)
    expected = expected if isinstance(expected, tuple) else (expected,)
    arrays = [x.numpy() for x in given]
    options = {"precision": precision, "example_inputs": given, "time_axis": axis}
    if precision == "int8":
        options["calibration"] = {n: np.concatenate([a, -a]) for n, a in zip(("x", "unused"), arrays, strict=False)}
    with edgec.compile(net, "host", folder / "net", **options) as model:
        names = [spec.name for spec in model.manifest.inputs]
        found = model.run(dict(zip(names, arrays, strict=True)) if len(names) > 1 else arrays[0])
        found = list(found.values()) if isinstance(found, dict) else [found]
        specs = model.manifest.outputs
    for spec, f, e in zip(specs, found, expected, strict=True):
        e, constant = e.numpy(), spec.time_axis is None and axis is not None
        f = f[-1] if constant else f
        bound = 0.03 if spec.dtype == "int8" else 1e-5
        np.testing.assert_allclose(f.reshape(e.shape), e, rtol=0, atol=bound, err_msg=spec.name)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("axis", [None, 1])
def test_results_of_every_odd_kind(
    axis: int | None, precision: str, inputs: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(3)
    check(Odd(), inputs, axis, tmp_path, precision)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x,
        lambda x: x.reshape(1, T, 2, 2),
        lambda x: x.permute(0, 1, 2),
        lambda x: x[:, :, :2],
        lambda x: torch.ones(2, 3),
        lambda x: (x, x),
    ],
    ids=["input", "reshape", "permute", "slice", "constant", "input twice"],
)
def test_networks_without_a_layer(function, precision: str, inputs: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    check(Return(function), inputs[:1], 1, tmp_path, precision)


def test_no_two_results_share_memory_and_others_stay_as_they_are() -> None:
    b = Builder()
    x = b.input("x", 1, 8, 2)
    y = conv(b, x, 2, 3, (1, 1))
    plain = b.build(y)
    assert OwnOutputs().run(plain) is plain
    own = OwnOutputs().run(b.build(y, x, y))
    assert own.outputs == (y, "x_out", f"{y}_out")
    assert OwnOutputs().run(own) is own
    step = MakeStreaming().run(own)
    assert OwnOutputs().run(step) is step
