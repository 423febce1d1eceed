"""Train and evaluate the LMUFormer, spiking or not, on the SC12 subset (speaker-disjoint).

python -m models.lmuformer.train --work runs/lmuformer            # train, select on val
python -m models.lmuformer.train --evaluate                       # test split, shipped checkpoint
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from edgec.nn import LIF

from .. import checkpoint
from ..training import MovingAverage, Run, decay_groups, parser_of, schedule
from . import build, network
from .data import LABELS, SILENCE, Augment, Split, epoch_order, load_split, soft_targets, to_float
from .model import Config, LMUFormer
from .teacher import Teacher

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "speech_commands"
CHECKPOINT = Path(__file__).with_name("lmuformer.pt")


class SpikeRates:
    """Mean firing rate of every LIF layer in the latest forward pass, by module name."""

    def __init__(self, model: nn.Module) -> None:
        self.latest: dict[str, Tensor] = {}
        for name, module in model.named_modules():
            if isinstance(module, LIF):
                module.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, spikes: Tensor) -> None:
            self.latest[name] = spikes.mean()

        return keep

    def excess(self, target: float) -> Tensor:
        """Mean over the layers of how far the rate lies above the target (0 without spiking layers)."""
        if not self.latest:
            return torch.zeros(())
        return torch.stack([(rate - target).clamp_min(0) for rate in self.latest.values()]).mean()


def load_checkpoint(path: Path) -> nn.Module:
    """Return a trained LMUFormer, spiking or not, in eval mode."""
    return checkpoint.load_checkpoint(path, "lmuformer", build)


@torch.no_grad()
def evaluate(model: nn.Module, split: Split, batch: int = 128) -> dict[str, Any]:
    """Return accuracy, accuracy per class (mean: balanced), loss, and spike rates on a split."""
    model.eval()
    device = next(model.parameters()).device
    rates = SpikeRates(model)
    scores, sums = [], dict[str, float]()
    for pcm in torch.split(split.pcm, batch):
        scores.append(model(to_float(pcm).to(device))[:, -1].cpu())
        for name, rate in rates.latest.items():
            sums[name] = sums.get(name, 0.0) + float(rate) * len(pcm)
    logits = torch.cat(scores)
    right = (logits.argmax(1) == split.labels).to(torch.float32)
    per_class = {label: float(right[split.labels == index].mean()) for index, label in enumerate(LABELS)}
    return {
        "accuracy": float(right.mean()),
        "balanced": sum(per_class.values()) / len(per_class),
        "loss": float(functional.cross_entropy(logits, split.labels)),
        "per_class": per_class,
        "rates": {name: total / len(split.labels) for name, total in sums.items()},
    }


def with_words_of(train: Split, val: Split) -> Split:
    """The train split and the clips of val that are not silence, which train makes up as it needs."""
    kept = val.labels != SILENCE
    paths = tuple(path for path, keep in zip(val.paths, kept.tolist(), strict=True) if keep)
    pcm, labels = torch.cat((train.pcm, val.pcm[kept])), torch.cat((train.labels, val.labels[kept]))
    return Split(pcm, labels, train.paths + paths)


class OnGrid(nn.Module):
    """Weights as int8 holds them, symmetric per output channel, with the gradient passed straight through.

    A batch norm behind the layer scales whole channels, so weights on this grid are quantised without error later.
    """

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weights. weight: [O,...] -> [O,...]."""
        flat = weight.detach().flatten(1)
        step = (flat.abs().amax(1) / 127).clamp_min(1e-12).view(-1, *[1] * (weight.dim() - 1))
        rounded = (weight.detach() / step).round().clamp(-127, 127) * step
        return weight + (rounded - weight).detach()


def put_on_grid(model: nn.Module) -> None:
    """Keep the weights of every convolution and linear layer on the int8 grid while training."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Linear):
            parametrize.register_parametrization(module, "weight", OnGrid())


def plain_state(state: dict[str, Tensor], grid: bool) -> dict[str, Tensor]:
    """The state of a model as `build` makes it: rounded weights under their own names."""
    suffix = ".parametrizations.weight.original"
    rounded = {name: OnGrid()(value) if grid and name.endswith(suffix) else value for name, value in state.items()}
    return {name.replace(suffix, ".weight"): value for name, value in rounded.items()}


class Trainer(Run):
    """A run on the train split's clips."""

    counters = ("steps", "epoch", "best")

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.train, self.val = load_split(options.data, "train"), load_split(options.data, "val")
        if options.with_val:
            self.train = with_words_of(self.train, self.val)
        self.config = Config(causal=options.causal, spiking=options.spiking)
        self.model = self.new_model()
        if options.start:
            self.model.load_state_dict(torch.load(options.start, weights_only=True)["state_dict"])
        if options.grid:
            put_on_grid(self.model)
        self.teacher = self.load_teacher(options.teacher) if options.teacher else None
        self.rates = SpikeRates(self.model)
        self.average = MovingAverage(self.model, options.ema)
        self.optimisers = [torch.optim.AdamW(decay_groups(self.model, options.weight_decay), lr=options.lr)]
        self.best = -1.0

    def run_epoch(self) -> tuple[float, float]:
        """Train one epoch; return the mean loss and the mean excess spike rate."""
        options = self.options
        seed = self.epoch_seed()
        generator = torch.Generator().manual_seed(seed)
        strength = options.strength * (0.5 + 0.5 * self.epoch / options.epochs)
        silence = self.train.pcm[self.train.labels == SILENCE]
        augment = Augment(to_float(silence), seed, strength)
        batches = torch.split(epoch_order(self.train.labels, generator), options.batch)
        if len(batches[-1]) < options.batch:
            batches = batches[:-1]
        total = options.epochs * len(batches)
        losses, excesses = 0.0, 0.0
        self.model.train()
        for batch in batches:
            loss, excess = self._loss(augment, self.train.pcm[batch], self.train.labels[batch])
            self.step(loss + options.rate_weight * excess, schedule(self.steps, total, 2 * len(batches)), 2.0)
            losses += float(loss.detach()) / len(batches)
            excesses += float(excess.detach()) / len(batches)
        self.epoch += 1
        return losses, excesses

    def _loss(self, augment: Augment, pcm: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        options = self.options
        with torch.no_grad():
            waveform = augment.waveform(to_float(pcm), labels)
            mels = augment.features(self.model.features(waveform), self.config.scale)
            mels, targets = augment.mix(mels, soft_targets(labels, options.smoothing))
            mels, targets = mels.to(self.device), targets.to(self.device)
            if self.teacher is not None:
                with self.precision():
                    taught = self.teacher.classify(mels)[:, -1]
                targets = torch.lerp(targets, taught.float().softmax(1), options.trust)
        with self.precision():
            scores = self.model.classify(mels)[:, -1]
        loss = functional.cross_entropy(scores.float(), targets)
        return loss, self.rates.excess(options.rate_target)

    def new_model(self) -> LMUFormer | Teacher:
        """Return an untrained network of the kind being trained."""
        model = Teacher(self.config) if self.options.network == "teacher" else network(self.config)
        return model.to(self.device)

    def load_teacher(self, path: Path) -> Teacher:
        """Return the teacher of a run folder's best.pt, in eval mode."""
        teacher = Teacher(self.config).to(self.device)
        teacher.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
        return teacher.eval()

    def averaged_model(self) -> nn.Module:
        """Return a copy of the model with the averaged weights."""
        model = self.new_model()
        model.load_state_dict(plain_state(self.average.state, self.options.grid))
        return model

    def keep(self, work: Path, losses: tuple[float, float]) -> str:
        """Write the averaged weights to WORK/best.pt where they do better on the val split than before."""
        options, (loss, excess) = self.options, losses
        line = f"loss {loss:.3f} excess {excess:.4f}"
        if self.epoch % options.validate_every and self.epoch < options.epochs:
            return line
        result = evaluate(self.averaged_model(), self.val)
        mean_rate = sum(result["rates"].values()) / max(1, len(result["rates"]))
        line += (
            f" | val accuracy {result['accuracy']:.4f} balanced {result['balanced']:.4f}"
            f" loss {result['loss']:.3f} rate {mean_rate:.3f}"
        )
        if options.with_val or result["balanced"] > self.best:  # with val seen, the last weights are kept
            self.best = result["balanced"]
            state = self.averaged_model().state_dict()
            checkpoint.save_checkpoint(work / "best.pt", options.network, self.config, state, LABELS)
            line += " *"
        return line


def report(model: nn.Module, split: Split) -> None:
    """Print accuracy, accuracy per class and spike rates."""
    result = evaluate(model, split)
    right = round(result["accuracy"] * len(split.labels))
    print(f"accuracy {100 * result['accuracy']:.2f} % ({right} of {len(split.labels)} clips)")
    print(f"balanced accuracy {100 * result['balanced']:.2f} %, loss {result['loss']:.3f}")
    for label, accuracy in result["per_class"].items():
        print(f"  {label:10s} {100 * accuracy:6.2f} %")
    for name, rate in result["rates"].items():
        print(f"  spike rate {name:15s} {100 * rate:6.2f} %")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    files = "folder with labels.csv and clips_flac.zip"
    parser = parser_of("lmuformer", __doc__, DATA, files, epochs=60, batch=32, lr=5e-3, weight_decay=0.03)
    parser.add_argument("--start", type=Path, help="checkpoint whose weights to start from")
    parser.add_argument("--network", default="lmuformer", choices=("lmuformer", "teacher"))
    parser.add_argument(
        "--spiking", action=argparse.BooleanOptionalAction, default=True, help="of the two LMUFormers, the one to train"
    )
    parser.add_argument("--teacher", type=Path, help="best.pt of a --network teacher run, to learn from")
    parser.add_argument("--trust", type=float, default=0.7, help="share of the teacher in the targets")
    parser.add_argument("--smoothing", type=float, default=0.05)
    parser.add_argument("--rate-target", type=float, default=0.15)
    parser.add_argument("--rate-weight", type=float, default=0.3)
    parser.add_argument(
        "--strength", type=float, default=0.6, help="of the augmentation at the end (half at the start)"
    )
    parser.add_argument("--with-val", action="store_true", help="last stage: train on val's words too, select nothing")
    parser.add_argument("--grid", action="store_true", help="keep the weights on the int8 grid (quantisation-aware)")
    parser.add_argument("--causal", action="store_true", help="convolutions without look-ahead")
    parser.add_argument("--validate-every", type=int, default=1, help="epochs between validations")
    return parser.parse_args(arguments)


def main() -> None:
    """Train, or with --evaluate report a checkpoint."""
    options = parse()
    torch.set_num_threads(options.threads)
    if options.evaluate:
        report(load_checkpoint(options.checkpoint), load_split(options.data, options.split))
    else:
        Trainer(options).fit()


if __name__ == "__main__":
    main()
