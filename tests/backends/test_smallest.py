"""Networks as small as can be, and one with 200 outputs: each compiles, is measured, and gives what torch gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgec
from tests.conftest import needs


class Many(nn.Module):
    """200 outputs of one element."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(x * float(k + 1) for k in range(200))


#: module, shape of its input, time axis
NETS = {
    "linear": (nn.Linear(1, 1), (1, 1), None),
    "image": (nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1, 1)), (1, 1, 1, 1), None),
    "frame": (nn.Conv1d(1, 1, 1), (1, 1, 1), 2),
    "relu": (nn.ReLU(), (1, 1), None),
    "pool": (nn.MaxPool2d(1), (1, 1, 1, 1), None),
    "softmax": (nn.Softmax(-1), (1, 1), None),
    "norm": (nn.LayerNorm(1), (1, 1), None),
}


def check(net: nn.Module, shape: tuple[int, ...], axis: int | None, target: str, precision: str, out: Path) -> None:
    x = torch.full(shape, 0.75)
    options = {} if precision == "float32" else {"calibration": np.stack([x[0].numpy(), -x[0].numpy()])}
    with torch.no_grad():
        expected = net.eval()(x)
    expected = expected if isinstance(expected, tuple) else (expected,)
    with edgec.compile(net, target, out, precision=precision, example_inputs=(x,), time_axis=axis, **options) as model:
        found = model.run(x.numpy())
        counted = model.report["totals"]["instructions_worst"]
    assert target == "host" or counted > 0
    for f, e in zip(found.values() if isinstance(found, dict) else [found], expected, strict=True):
        np.testing.assert_allclose(f.reshape(e.shape), e, atol=1e-5 if precision == "float32" else 0.02)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("name", NETS)
def test_on_the_host(name: str, precision: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    check(*NETS[name], "host", precision, tmp_path / "net")


def test_200_outputs(tmp_path: Path) -> None:
    check(Many(), (1, 1), None, "host", "float32", tmp_path / "net")


@pytest.mark.nightly
@needs("qemu-system-arm")
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m4", "cortex-m55"])
def test_on_a_core(target: str, name: str, precision: str, tmp_path: Path) -> None:
    pytest.importorskip("unicorn")
    check(*NETS[name], target, precision, tmp_path / "net")
