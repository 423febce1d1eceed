"""Mean over the steps so far, all of them or the last few: the any-time readout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def _counts(x: Tensor, time_axis: int, window: int) -> Tensor:
    """1, 2, ... T (at most `window`) along the time axis, to broadcast against x; ValueError for a bad option."""
    if not -x.dim() <= time_axis < x.dim():
        raise ValueError(f"edgec::running_mean: time_axis {time_axis} is not an axis of x, shape {tuple(x.shape)}")
    if window < 0:
        raise ValueError(f"edgec::running_mean: expected a window of 0 (all steps) or more, found {window}")
    shape = [1] * x.dim()
    shape[time_axis] = x.shape[time_axis]
    counts = torch.arange(1, x.shape[time_axis] + 1, dtype=x.dtype, device=x.device)
    return (counts.clamp(max=window) if window else counts).view(shape)


def _window_sums(x: Tensor, time_axis: int, window: int) -> Tensor:
    """Sum of the last `window` steps (0: of all steps) at each step."""
    sums = x.cumsum(time_axis)
    steps = x.shape[time_axis]
    if window == 0 or steps <= window:
        return sums
    late = sums.narrow(time_axis, window, steps - window) - sums.narrow(time_axis, 0, steps - window)
    return torch.cat((sums.narrow(time_axis, 0, window), late), time_axis)


@torch.library.custom_op("edgec::running_mean", mutates_args=())
def running_mean(x: Tensor, time_axis: int, window: int = 0) -> Tensor:
    """Return y[t] = mean(x[0..t]) along the time axis, or the mean of the last `window` steps if window > 0.

    x: [...,T,...] -> same shape; -x.dim() <= time_axis < x.dim(), window >= 0, else ValueError.
    LMUFormer's any-time prediction (arXiv 2402.04882); the window bounds what an endless stream remembers.
    """
    counts = _counts(x, time_axis, window)
    return _window_sums(x, time_axis, window) / counts


@running_mean.register_fake
def _running_mean_fake(x: Tensor, time_axis: int, window: int = 0) -> Tensor:
    _counts(x, time_axis, window)
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _running_mean_setup(ctx: Any, inputs: tuple[Tensor, int, int], output: Tensor) -> None:
    _, ctx.time_axis, ctx.window = inputs


def _running_mean_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    axis: int = ctx.time_axis
    share = grad / _counts(grad, axis, ctx.window)
    return _window_sums(share.flip(axis), axis, ctx.window).flip(axis), None, None


running_mean.register_autograd(_running_mean_backward, setup_context=_running_mean_setup)


class RunningMean(nn.Module):
    """Any-time readout: [B,T,C] -> [B,T,C], step t holding the mean over steps 0..t or the last `window` of them.

    window: steps of the mean, 0 for all so far.
    """

    def __init__(self, window: int = 0) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Return the running mean. x: [B,T,C] -> [B,T,C]."""
        mean: Tensor = running_mean(x, 1, self.window)
        return mean
