"""ECA-MobileNetV2 for images: `build` makes the network that the checkpoint fits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .model import Config, EcaMobileNetV2


def build(config: dict[str, Any]) -> nn.Module:
    """Return an untrained EcaMobileNetV2. config: the fields of `Config`; TypeError for another key."""
    return EcaMobileNetV2(Config(**config))


def example_inputs(config: dict[str, Any]) -> tuple[Tensor, ...]:
    """Return one image of the configured size: ([1,3,H,W],)."""
    size = Config(**config).size
    return (torch.zeros(1, 3, size, size),)
