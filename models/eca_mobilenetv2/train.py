"""Train and evaluate ECA-MobileNetV2 on CIFAR-10.

python -m models.eca_mobilenetv2.train --work runs/eca_mobilenetv2     # train, watch val
python -m models.eca_mobilenetv2.train --evaluate                      # test split, shipped checkpoint
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import checkpoint, cifar_training, training
from . import build
from .model import Config


class Trainer(cifar_training.Trainer):
    """The first epochs see the pictures shrunk, which takes half the time."""

    name = "eca_mobilenetv2"
    config = Config()
    build = staticmethod(build)

    def new_optimisers(self) -> list[torch.optim.Optimizer]:
        """SGD with Nesterov momentum; batch normalisation and the attention's few weights are not decayed."""
        groups = training.decay_groups(self.model, self.options.weight_decay, (2, 4))
        return [torch.optim.SGD(groups, lr=self.options.lr, momentum=0.9, nesterov=True)]

    def read_teacher(self, path: Path) -> nn.Module:
        """Return the network of another checkpoint."""
        return checkpoint.load_checkpoint(path, self.name, build)

    def resize(self, x: Tensor) -> Tensor:
        """Shrink the pictures of the first epochs. [B,3,H,W] -> [B,3,small,small]."""
        if self.epoch >= self.options.small_epochs:
            return x
        side = [self.options.small, self.options.small]
        return functional.interpolate(x, side, mode="bilinear", antialias=True)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cifar_training.parser_of(Trainer.name, __doc__, epochs=40, lr=0.2, weight_decay=5e-4)
    parser.add_argument("--small", type=int, default=24, help="pixels a side of the pictures at first")
    parser.add_argument("--small-epochs", type=int, default=9, help="for so many epochs")
    return parser.parse_args(arguments)


def main() -> None:
    """Train, or with --evaluate report a checkpoint."""
    cifar_training.run(Trainer, parse())


if __name__ == "__main__":
    main()
