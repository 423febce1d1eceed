"""Train and evaluate the vision transformer on CIFAR-10.

python -m models.vit.train --work runs/vit     # train, watch val
python -m models.vit.train --evaluate          # test split, shipped checkpoint
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from .. import checkpoint, cifar_training, eca_mobilenetv2
from . import build
from .model import Config


class Trainer(cifar_training.Trainer):
    """The first epochs see a part of the tokens, which takes half the time."""

    name = "vit"
    config = Config()
    build = staticmethod(build)

    def new_optimisers(self) -> list[torch.optim.Optimizer]:
        """Muon for the blocks' matrices; AdamW for the rest, which is not decayed."""
        options, named = self.options, list(self.model.named_parameters())
        matrices = [p for name, p in named if p.dim() == 2 and name.startswith("blocks")]
        rest = [p for name, p in named if p.dim() != 2 or not name.startswith("blocks")]
        decay, like = options.weight_decay, "match_rms_adamw"  # so that one learning rate suits both
        return [
            torch.optim.Muon(matrices, lr=options.lr, weight_decay=decay, adjust_lr_fn=like),
            torch.optim.AdamW(rest, lr=options.lr, weight_decay=0.0),
        ]

    def read_teacher(self, path: Path) -> nn.Module:
        """Return the ECA-MobileNetV2 of a checkpoint."""
        return checkpoint.load_checkpoint(path, "eca_mobilenetv2", eca_mobilenetv2.build)

    def run_epoch(self) -> float:
        """Train one epoch on the share of the tokens that it sees."""
        self.model.keep = self.options.keep if self.epoch < self.options.keep_epochs else 1.0
        return super().run_epoch()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cifar_training.parser_of(Trainer.name, __doc__, epochs=17, lr=3e-3, weight_decay=0.05)
    parser.add_argument("--keep", type=float, default=0.5, help="share of the tokens seen at first")
    parser.add_argument("--keep-epochs", type=int, default=14, help="for so many epochs")
    return parser.parse_args(arguments)


def main() -> None:
    """Train, or with --evaluate report a checkpoint."""
    cifar_training.run(Trainer, parse())


if __name__ == "__main__":
    main()
