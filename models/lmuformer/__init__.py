"""Spiking LMUFormer for keyword spotting: `build` makes the network that the checkpoint fits."""

from __future__ import annotations

from typing import Any

from torch import nn

from .model import Config, SpikingLMUFormer


def build(config: dict[str, Any]) -> nn.Module:
    """Return an untrained SpikingLMUFormer. config: the fields of `Config`; TypeError for another key."""
    return SpikingLMUFormer(Config(**config))
