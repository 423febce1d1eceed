"""Train and evaluate the Tiny Time Mixer on ETTh1 (512 hours in, 96 out).

python -m models.ttm.train --work runs/ttm     # train, select on val
python -m models.ttm.train --evaluate          # test split, shipped checkpoint
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import checkpoint
from ..training import MovingAverage, Run, decay_groups, parser_of, schedule
from . import build
from .data import CHANNELS, Series, load_series, windows
from .model import TTM, Config

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "ett" / "ETTh1.csv"
CHECKPOINT = Path(__file__).with_name("ttm.pt")


def load_checkpoint(path: Path) -> nn.Module:
    """Return a trained Tiny Time Mixer in eval mode."""
    return checkpoint.load_checkpoint(path, "ttm", build)


@torch.no_grad()
def evaluate(model: nn.Module, rows: Tensor, config: Config, stride: int = 1, batch: int = 256) -> dict[str, Any]:
    """Return MSE and MAE over all windows, hours and channels, and MSE per channel, in standardised units."""
    model.eval()
    device = next(model.parameters()).device
    pieces = windows(rows, config.context + config.horizon, stride)
    squared, absolute = torch.zeros(rows.shape[1], dtype=torch.float64), 0.0
    for piece in torch.split(pieces, batch):
        past, future = piece[:, : config.context], piece[:, config.context :]
        error = (model(past.to(device)).cpu() - future).double()
        squared += error.square().mean(1).sum(0)
        absolute += float(error.abs().mean((1, 2)).sum())
    per_channel = squared / len(pieces)
    return {"mse": float(per_channel.mean()), "mae": absolute / len(pieces), "per_channel": per_channel.tolist()}


class Batches:
    """Random windows of single channels of the train split, and their augmentation."""

    def __init__(self, rows: Tensor, length: int, mix: float, bands: float) -> None:
        """mix, bands: shares of the windows that become sums of two, or lose frequencies."""
        self.pieces = windows(rows, length).permute(0, 2, 1).reshape(-1, length)
        self.mix, self.bands = mix, bands

    def epoch(self, batch: int, steps: int, generator: torch.Generator) -> Any:
        """Yield `steps` batches [batch,length,1]."""
        order = torch.randperm(len(self.pieces), generator=generator)
        for step in range(steps):
            picked = order[torch.arange(step * batch, (step + 1) * batch) % len(order)]
            yield self._augment(self.pieces[picked], generator)[:, :, None]

    def _augment(self, x: Tensor, g: torch.Generator) -> Tensor:
        """A sum of two series is a plausible series too, and so is one with some frequencies missing. x: [B,length]."""
        count, length = x.shape
        share = torch.rand(count, 1, generator=g) * (torch.rand(count, 1, generator=g) < self.mix)
        sign = 1.0 - 2.0 * (torch.rand(count, 1, generator=g) < 0.5)
        x = (1 - share) * x + share * sign * self.pieces[torch.randint(len(self.pieces), (count,), generator=g)]
        spectrum = torch.fft.rfft(x)
        kept = torch.rand(spectrum.shape, generator=g) >= 0.2
        kept |= torch.rand(count, 1, generator=g) >= self.bands
        kept[:, 0] = True
        return torch.fft.irfft(spectrum * kept, length)


class Trainer(Run):
    """A run on random windows of single channels of the train split."""

    counters = ("steps", "epoch", "best")

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.config = Config(dropout=options.dropout, head_dropout=options.head_dropout)
        series: Series = load_series(options.data)
        self.val = series.split("val", self.config.context)
        train = series.split("train", self.config.context)
        length = self.config.context + self.config.horizon
        self.batches = Batches(train, length, options.mix, options.bands)
        self.model = self.new_model()
        self.average = MovingAverage(self.model, options.ema)
        self.optimisers = [torch.optim.AdamW(decay_groups(self.model, options.weight_decay), lr=options.lr)]
        self.best = math.inf

    def new_model(self) -> nn.Module:
        """Return an untrained network where it is trained."""
        return TTM(self.config).to(self.device)

    def run_epoch(self) -> float:
        """Train one epoch; return the mean loss."""
        options = self.options
        seed = self.epoch_seed()
        torch.manual_seed(seed)  # dropout
        generator = torch.Generator().manual_seed(seed)
        total = options.epochs * options.steps
        losses = 0.0
        self.model.train()
        for piece in self.batches.epoch(options.batch, options.steps, generator):
            past, future = piece[:, : self.config.context], piece[:, self.config.context :]
            with self.precision():
                forecast = self.model(past.to(self.device))
            loss = functional.mse_loss(forecast.float(), future.to(self.device))
            self.step(loss, schedule(self.steps, total, options.steps), 1.0)
            losses += float(loss.detach()) / options.steps
        self.epoch += 1
        return losses

    def keep(self, work: Path, losses: float) -> str:
        """Write the averaged weights to WORK/best.pt where they do better on the val split than before."""
        result = evaluate(self.averaged_model(), self.val, self.config, self.options.val_stride)
        line = f"loss {losses:.4f} val mse {result['mse']:.4f}"
        if result["mse"] < self.best:
            self.best = result["mse"]
            checkpoint.save_checkpoint(work / "best.pt", "ttm", self.config, self.average.state)
            line += " *"
        return line


def report(model: nn.Module, series: Series, split: str) -> None:
    """Print MSE and MAE over one split, and the MSE of each channel."""
    config = model.config
    assert isinstance(config, Config)
    rows = series.split(split, config.context)
    result = evaluate(model, rows, config)
    count = len(rows) - config.context - config.horizon + 1
    print(f"{split}: MSE {result['mse']:.4f}, MAE {result['mae']:.4f} ({count} windows x {len(CHANNELS)} channels)")
    for name, value in zip(CHANNELS, result["per_channel"], strict=True):
        print(f"  {name:5s} MSE {value:.4f}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = parser_of(
        "ttm", __doc__, DATA, "ETTh1.csv", epochs=10, batch=128, lr=5e-4, weight_decay=0.05, ema=0.99, bfloat16=False
    )
    parser.add_argument("--steps", type=int, default=80, help="of an epoch")
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--head-dropout", type=float, default=0.6)
    parser.add_argument("--mix", type=float, default=0.5, help="share of windows that are a sum of two")
    parser.add_argument(
        "--bands", type=float, default=0.3, help="share of windows that lose 20 %% of their frequencies"
    )
    parser.add_argument("--val-stride", type=int, default=8, help="every n-th window of val, while training")
    return parser.parse_args(arguments)


def main() -> None:
    """Train, or with --evaluate report a checkpoint."""
    options = parse()
    torch.set_num_threads(options.threads)
    if options.evaluate:
        report(load_checkpoint(options.checkpoint), load_series(options.data), options.split)
    else:
        Trainer(options).fit()


if __name__ == "__main__":
    main()
