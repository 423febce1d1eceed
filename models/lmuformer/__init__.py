"""LMUFormer for keyword spotting, spiking or not: `build` makes the network that a checkpoint fits."""

from __future__ import annotations

from typing import Any

from torch import nn

from .analog import AnalogLMUFormer
from .model import Config, LMUFormer, SpikingLMUFormer


def network(config: Config) -> LMUFormer:
    """Return the untrained network of a configuration."""
    return SpikingLMUFormer(config) if config.spiking else AnalogLMUFormer(config)


def build(config: dict[str, Any]) -> nn.Module:
    """Return an untrained LMUFormer. config: the fields of `Config`; TypeError for another key."""
    return network(Config(**config))
