"""What every training script shares: averaged weights, the learning rate's course, and a run that can be resumed."""

from __future__ import annotations

import argparse
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class MovingAverage:
    """Exponential moving average of the parameters and buffers of a model."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.clone() for name, value in model.state_dict().items()}

    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the model; the first steps count more, so the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)


def schedule(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, then a half cosine down to 1 % of the peak."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def decay_groups(model: nn.Module, decay: float, dims: Collection[int] = (2, 3, 4)) -> list[dict[str, Any]]:
    """Return an optimiser's two groups: the weights of so many dimensions, which are decayed, and the rest."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.dim() in dims], "weight_decay": decay},
        {"params": [p for p in parameters if p.dim() not in dims], "weight_decay": 0.0},
    ]


class Run(ABC):
    """What a training run carries from epoch to epoch; a subclass says what an epoch is and what is kept of it."""

    model: nn.Module
    average: MovingAverage
    optimisers: list[torch.optim.Optimizer]
    counters: ClassVar[tuple[str, ...]] = ("steps", "epoch")  # the attributes that `save` writes as they are
    rank = 0  # of this process among those that train together: the first one keeps and prints

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(options.seed)
        self.options = options
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.steps = 0
        self.epoch = 0

    @abstractmethod
    def new_model(self) -> nn.Module:
        """Return an untrained network where it is trained."""

    @abstractmethod
    def run_epoch(self) -> Any:
        """Train one epoch; return its mean losses."""

    @abstractmethod
    def keep(self, work: Path, losses: Any) -> str:
        """Validate after an epoch and write what is to be kept; return the epoch in words."""

    def precision(self) -> AbstractContextManager[Any]:
        """Matrix products in bfloat16, where the options say so."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bfloat16)

    def epoch_seed(self) -> int:
        """Return the seed of the epoch's random numbers, the same after --resume."""
        return int(self.options.seed * 100003 + self.epoch)

    def step(self, loss: Tensor, rate: float, clip: float) -> None:
        """Take one step down the loss. rate: share of the peak learning rate; clip: largest norm of the gradient."""
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.options.lr * rate
        self.model.zero_grad(set_to_none=True)
        self.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        for optimiser in self.optimisers:
            optimiser.step()
        self.steps += 1
        self.average.update(self.model, self.steps)

    def backward(self, loss: Tensor) -> None:
        """Give every parameter its gradient."""
        loss.backward()

    def averaged_model(self) -> nn.Module:
        """Return a copy of the model with the averaged weights."""
        model = self.new_model()
        model.load_state_dict(self.average.state)
        return model

    def save(self, path: Path) -> None:
        """Write everything --resume needs; the file is complete or the old one."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            **{name: getattr(self, name) for name in self.counters},
        }
        partial = path.with_name(path.name + ".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Continue a run written by `save`."""
        saved = torch.load(path, weights_only=True, map_location=self.device)
        self.model.load_state_dict(saved["model"])
        self.average.state = saved["average"]
        for optimiser, state in zip(self.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        for name in self.counters:
            setattr(self, name, saved[name])

    def fit(self) -> None:
        """Train to the last epoch; WORK/last.pt is what --resume continues from."""
        work: Path = self.options.work
        work.mkdir(parents=True, exist_ok=True)
        if self.options.resume:
            self.resume(work / "last.pt")
        while self.epoch < self.options.epochs:
            start = time.monotonic()
            losses = self.run_epoch()
            if self.rank != 0:
                continue
            line = self.keep(work, losses)
            self.save(work / "last.pt")
            seconds = time.monotonic() - start
            print(f"epoch {self.epoch}/{self.options.epochs} {line} ({seconds:.1f} s)", flush=True)


def parser_of(name: str, doc: str | None, data: Path, files: str, **defaults: Any) -> argparse.ArgumentParser:
    """Return the command line that all training scripts share. files: what `data` is; defaults: of its options."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=data, help=files)
    parser.add_argument("--evaluate", action="store_true", help="report a checkpoint, do not train")
    parser.add_argument("--split", default="test", choices=("val", "test"), help="for --evaluate")
    parser.add_argument("--checkpoint", type=Path, default=Path(__file__).parent / name / f"{name}.pt",
                        help="for --evaluate")  # fmt: skip
    parser.add_argument("--work", type=Path, default=Path("runs") / name, help="run folder")
    parser.add_argument("--resume", action="store_true", help="continue from WORK/last.pt")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--lr", type=float, help="its peak")
    parser.add_argument("--weight-decay", type=float)
    parser.add_argument("--ema", type=float, default=0.995, help="share of the averaged weights that a step keeps")
    parser.add_argument("--bfloat16", action=argparse.BooleanOptionalAction, default=True,
                        help="multiply matrices in bfloat16")  # fmt: skip
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.set_defaults(**defaults)
    return parser
