"""Mean over all the steps so far: the any-time readout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def _counts(x: Tensor, time_axis: int) -> Tensor:
    """1, 2, ... T along the time axis, shaped to broadcast against x; ValueError for a bad axis."""
    if not -x.dim() <= time_axis < x.dim():
        raise ValueError(f"edgec::running_mean: time_axis {time_axis} is not an axis of x, shape {tuple(x.shape)}")
    shape = [1] * x.dim()
    shape[time_axis] = x.shape[time_axis]
    return torch.arange(1, x.shape[time_axis] + 1, dtype=x.dtype, device=x.device).view(shape)


@torch.library.custom_op("edgec::running_mean", mutates_args=())
def running_mean(x: Tensor, time_axis: int) -> Tensor:
    """Return y[t] = mean(x[0..t]) along the time axis.

    x: [...,T,...] -> same shape; -x.dim() <= time_axis < x.dim(), else ValueError.
    LMUFormer's any-time prediction (arXiv 2402.04882).
    """
    counts = _counts(x, time_axis)
    return x.cumsum(time_axis) / counts


@running_mean.register_fake
def _running_mean_fake(x: Tensor, time_axis: int) -> Tensor:
    _counts(x, time_axis)
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _running_mean_setup(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
    ctx.time_axis = inputs[1]


def _running_mean_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    axis: int = ctx.time_axis
    share = grad / _counts(grad, axis)
    return share.flip(axis).cumsum(axis).flip(axis), None


running_mean.register_autograd(_running_mean_backward, setup_context=_running_mean_setup)


class RunningMean(nn.Module):
    """Any-time readout: [B,T,C] -> [B,T,C], step t holding the mean over steps 0..t."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the running mean. x: [B,T,C] -> [B,T,C]."""
        mean: Tensor = running_mean(x, 1)
        return mean
