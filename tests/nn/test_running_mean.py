"""The any-time readout."""

from __future__ import annotations

import pytest
import torch

from edgec.nn import RunningMean, running_mean

REGISTRATION = ("test_schema", "test_autograd_registration", "test_faketensor")


def test_each_step_is_the_mean_so_far():
    x = torch.randn(2, 7, 3)
    y = RunningMean()(x)
    for step in range(7):
        torch.testing.assert_close(y[:, step], x[:, : step + 1].mean(1))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gradient(axis):
    x = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: running_mean(v, axis), x)


def test_torch_accepts_the_registration():
    torch.library.opcheck(running_mean, (torch.randn(2, 5, 3, requires_grad=True), 1), test_utils=REGISTRATION)


def test_bad_axis_is_named():
    with pytest.raises(ValueError, match=r"time_axis 3 is not an axis of x, shape \(1, 2, 3\)"):
        running_mean(torch.zeros(1, 2, 3), 3)


@pytest.mark.parametrize("window", [1, 3, 7, 20])
def test_window_is_the_mean_of_the_last_steps(window: int) -> None:
    x = torch.randn(2, 12, 3, dtype=torch.float64, requires_grad=True)
    y = RunningMean(window)(x)
    expected = torch.stack([x[:, max(0, t + 1 - window) : t + 1].mean(1) for t in range(12)], 1)
    torch.testing.assert_close(y, expected)
    weights = torch.randn_like(y)
    (found,) = torch.autograd.grad((y * weights).sum(), x, retain_graph=True)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), x)
    torch.testing.assert_close(found, wanted)


def test_a_negative_window_is_refused() -> None:
    with pytest.raises(ValueError, match="window of 0"):
        RunningMean(-1)(torch.zeros(1, 2, 3))
