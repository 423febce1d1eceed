"""Tiny Time Mixer for hourly forecasting: `build` makes the network that the checkpoint fits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .model import TTM, Config

#: a forecast needs the whole window: the stream slides it, one sample in and one forecast out
SLIDING = True


def build(config: dict[str, Any]) -> nn.Module:
    """Return an untrained TTM. config: the fields of `Config`; TypeError for another key, ValueError for bad sizes."""
    return TTM(Config(**config))


def example_inputs(config: dict[str, Any]) -> tuple[Tensor, ...]:
    """Return one window of one channel: past [1,context,1]."""
    return (torch.zeros(1, Config(**config).context, 1),)
