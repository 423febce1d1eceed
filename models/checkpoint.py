"""The checkpoint that the training scripts write and edgec reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Build = Callable[[dict[str, Any]], nn.Module]


def save_checkpoint(path: Path, name: str, config: Any, state: dict[str, Tensor], labels: Sequence[str] = ()) -> None:
    """Write the shipped format, loadable with weights_only=True; the file is complete or the old one."""
    content = {
        "format": "edgec-checkpoint-1",
        "model": name,
        "config": {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()},
        "labels": list(labels),
        "state_dict": {key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
                       for key, value in state.items()},
    }  # fmt: skip
    partial = path.with_name(path.name + ".partial")
    torch.save(content, partial)
    partial.replace(path)


def load_checkpoint(path: Path, name: str, build: Build) -> nn.Module:
    """Return the trained model of a checkpoint, in eval mode; ValueError for another format or model."""
    saved = torch.load(path, weights_only=True)
    found = saved.get("format"), saved.get("model")
    if found != ("edgec-checkpoint-1", name):
        raise ValueError(f"{path}: expected format edgec-checkpoint-1 of {name}, found {found[0]!r} of {found[1]!r}")
    model = build(saved["config"])
    model.load_state_dict(saved["state_dict"])
    return model.eval()
