"""What the image classifiers' training scripts share: the loop and its options.

B batch, H and W pixels.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional

from . import training
from .checkpoint import load_checkpoint, save_checkpoint
from .cifar import LABELS, Augment, Split, load_split, soft_targets, to_float
from .training import MovingAverage, Run, schedule

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar10"


def depthwise_in_float32(model: nn.Module) -> None:
    """Run depthwise convolutions with a stride in float32: their bfloat16 gradient is a hundred times slower on CPU."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and module.stride != (1, 1):
            module.forward = _in_float32(module.forward)  # type: ignore[method-assign]


def _in_float32(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def exact(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    return exact


@torch.no_grad()
def evaluate(model: nn.Module, split: Split, batch: int = 250) -> tuple[float, float, Tensor]:
    """Return accuracy, loss and the accuracy of each class [classes] on a split."""
    model.eval()
    device = next(model.parameters()).device
    scores = [model(to_float(pixels).to(device)).float().cpu() for pixels in torch.split(split.pixels, batch)]
    logits = torch.cat(scores)
    right = (logits.argmax(1) == split.labels).float()
    per_class = torch.stack([right[split.labels == label].mean() for label in range(len(LABELS))])
    return float(right.mean()), float(functional.cross_entropy(logits, split.labels)), per_class


class Trainer(Run):
    """A run on CIFAR-10; a subclass names the network and how it is optimised."""

    name: str  # the network's folder under models/
    config: Any  # its Config, a frozen dataclass

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.train = load_split(options.data, "train", options.cache)
        self.val = load_split(options.data, "val", options.cache)
        self.model = self.new_model()
        if options.start:
            self.model.load_state_dict(torch.load(options.start, weights_only=True)["state_dict"])
        self.teacher = self.read_teacher(options.teacher).to(self.device) if options.teacher else None
        self.average = MovingAverage(self.model, options.ema)
        self.optimisers = self.new_optimisers()
        self.rank = distributed.get_rank() if distributed.is_initialized() else 0

    @staticmethod
    @abstractmethod
    def build(config: dict[str, Any]) -> nn.Module:
        """Return an untrained network."""

    @abstractmethod
    def new_optimisers(self) -> list[torch.optim.Optimizer]:
        """Return the optimisers of all parameters; the loop sets their learning rate."""

    @abstractmethod
    def read_teacher(self, path: Path) -> nn.Module:
        """Return the network to learn from."""

    def resize(self, x: Tensor) -> Tensor:
        """Return the pictures at the size that is trained on: as they are, unless a subclass says otherwise."""
        return x

    def new_model(self) -> nn.Module:
        """Return an untrained network where it is trained."""
        model = self.build(asdict(self.config)).to(self.device, memory_format=torch.channels_last)
        if self.device.type == "cpu":
            depthwise_in_float32(model)
        return model

    def run_epoch(self) -> float:
        """Train one epoch; return the mean loss."""
        options = self.options
        seed = self.epoch_seed()
        torch.manual_seed(seed)  # dropout
        augment = Augment(seed, options.strength)
        order = torch.randperm(len(self.train.labels), generator=augment.generator)
        batches = torch.split(order, options.batch)[: len(order) // options.batch]
        total = options.epochs * len(batches)
        start, losses = time.monotonic(), 0.0
        self.model.train()
        for index, batch in enumerate(batches):
            rate = schedule(self.steps, total, int(options.warmup * len(batches)))
            loss = self._loss(augment, self.train.pixels[batch], self.train.labels[batch])
            self.step(loss, rate, options.clip)
            losses += float(loss.detach())
            if (index + 1) % 50 == 0 and self.rank == 0:
                speed = (index + 1) * options.batch / (time.monotonic() - start)
                print(f"  {index + 1}/{len(batches)} loss {losses / (index + 1):.3f} {speed:.0f} images/s", flush=True)
        self.epoch += 1
        return losses / len(batches)

    def _loss(self, augment: Augment, pixels: Tensor, labels: Tensor) -> Tensor:
        options = self.options
        with torch.no_grad():
            x = augment.shift(pixels)
            if options.strength:
                x = augment.cut(augment.zoom(augment.colour(x)))
            x, targets = augment.mix(x, soft_targets(labels, options.smoothing), options.mix)
            own = slice(self.rank, None, self.options.processes)
            x = x[own].to(self.device, memory_format=torch.channels_last)
            targets = targets[own].to(self.device)
            if self.teacher is not None:
                with self.precision():
                    taught = self.teacher(x).float()
                targets = torch.lerp(targets, taught.softmax(1), options.trust)
        with self.precision():
            scores = self.model(self.resize(x))
        return functional.cross_entropy(scores.float(), targets)

    def backward(self, loss: Tensor) -> None:
        """Give every process the mean of all their gradients; batch norm sees the pictures of its own process only."""
        super().backward(loss)
        if self.options.processes == 1:
            return
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.options.processes
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view(gradient.shape))

    def keep(self, work: Path, losses: float) -> str:
        """Write the averaged weights to WORK/average.pt as a checkpoint."""
        model = self.averaged_model()
        with self.precision():
            accuracy, val_loss, _ = evaluate(model, self.val)
        save_checkpoint(work / "average.pt", self.name, self.config, model.state_dict(), LABELS)
        return f"loss {losses:.3f} | val accuracy {accuracy:.4f} loss {val_loss:.3f}"


def parser_of(name: str, doc: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """Return the command line that the training scripts share; each sets its own defaults."""
    parser = training.parser_of(
        name, doc, DATA, "folder with cifar10_jpeg_{train,test}.zip", batch=128, threads=1, **defaults
    )
    parser.add_argument("--cache", type=Path, help="folder to keep the decoded pictures in")
    parser.add_argument("--start", type=Path, help="checkpoint whose weights to start from")
    parser.add_argument("--teacher", type=Path, help="checkpoint of a trained ECA-MobileNetV2 to learn from")
    parser.add_argument("--trust", type=float, default=0.7, help="share of the teacher in the targets")
    parser.add_argument("--warmup", type=float, default=1.0, help="epochs")
    parser.add_argument("--clip", type=float, default=2.0, help="largest norm of the gradient")
    parser.add_argument("--smoothing", type=float, default=0.05)
    parser.add_argument("--strength", type=float, default=0.0, help="of the augmentation beyond mirroring and shifting")
    parser.add_argument("--mix", type=float, default=0.0, help="share of pictures that get a piece of another")
    parser.add_argument("--processes", type=int, default=1, help="that share each batch; faster than threads")
    return parser


def train_together(rank: int, trainer: type[Trainer], options: argparse.Namespace, meeting: str) -> None:
    """Train as one of several processes."""
    torch.set_num_threads(options.threads)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=options.processes)
    trainer(options).fit()
    distributed.destroy_process_group()


def run(trainer: type[Trainer], options: argparse.Namespace) -> None:
    """Train, or with --evaluate print the accuracy of a checkpoint."""
    torch.set_num_threads(options.threads)
    if not options.evaluate:
        if options.processes == 1:
            trainer(options).fit()
        else:
            with tempfile.TemporaryDirectory() as folder:
                arguments = (trainer, options, f"file://{folder}/meeting")
                multiprocessing.spawn(train_together, arguments, nprocs=options.processes)
        return
    split = load_split(options.data, options.split, options.cache)
    accuracy, loss, per_class = evaluate(load_checkpoint(options.checkpoint, trainer.name, trainer.build), split)
    right = round(accuracy * len(split.labels))
    print(f"{options.split} accuracy {100 * accuracy:.2f} % ({right} of {len(split.labels)}), loss {loss:.3f}")
    for label, value in zip(LABELS, per_class.tolist(), strict=True):
        print(f"  {label:10s} {100 * value:6.2f} %")
