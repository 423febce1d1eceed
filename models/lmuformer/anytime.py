"""Any-time readout: accuracy against the frames heard so far, of torch scores or of compiled C.

python -m models.lmuformer.anytime                                # the test split through a checkpoint
python -m models.lmuformer.anytime --compiled FOLDER              # ... and through the C of a compiled folder

Q clips, T frames of a clip, K classes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgec.compiled import CompiledModel

from .data import Split, load_split, to_float
from .train import CHECKPOINT, DATA, load_checkpoint


@dataclass(frozen=True)
class Point:
    """Accuracy, in [0,1], of the decision a listener has after `frames` frames of a clip."""

    frames: int
    accuracy: float


def curve(scores: np.ndarray, labels: np.ndarray, delay: int, every: int = 5) -> tuple[Point, ...]:
    """Accuracy after every `every` frames, as a stream gives it.

    scores: [Q,T,K] in any unit (argmax decides), frame t as the whole-sequence network has it; labels: [Q]. What has
    been heard after n frames is scores[n - 1 - delay]; at the clip's end the delayed frames are flushed, so the last
    point is scores[T - 1]. ValueError for other shapes, every < 1, or a delay that leaves nothing.
    """
    if scores.ndim != 3 or labels.shape != scores.shape[:1]:
        raise ValueError(f"expected scores [Q,T,K] and labels [Q], found {scores.shape} and {labels.shape}")
    steps = scores.shape[1]
    if every < 1 or not 0 <= delay < steps:
        raise ValueError(f"expected every >= 1 and 0 <= delay < {steps} frames, found {every} and {delay}")
    heard = [n for n in range(every, steps, every) if n > delay] + [steps]
    shown = [n - 1 - delay for n in heard[:-1]] + [steps - 1]
    right = scores[:, shown].argmax(2) == labels[:, None]
    return tuple(Point(n, float(share)) for n, share in zip(heard, right.mean(0), strict=True))


@torch.no_grad()
def torch_scores(model: nn.Module, pcm: Tensor, batch: int = 64) -> np.ndarray:
    """Scores of every frame by the torch module. pcm: [Q,N] int16 -> [Q,T,K]."""
    model.eval()
    return np.concatenate([model(to_float(part)).numpy() for part in torch.split(pcm, batch)])


def compiled_scores(model: CompiledModel, pcm: Tensor) -> np.ndarray:
    """Scores of every frame by the compiled C, streamed and flushed. pcm: [Q,N] int16 -> [Q,T,K]."""
    outs = np.stack([model.run(clip) for clip in pcm.numpy()])
    return outs.reshape(*outs.shape[:2], -1)


def show(name: str, points: tuple[Point, ...]) -> None:
    """Print a curve, one line a point."""
    print(f"{name}: frames heard, accuracy")
    for point in points:
        print(f"  {point.frames:4d} {100 * point.accuracy:6.2f} %")


def main() -> None:
    """Print the curves of a checkpoint and of a compiled folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder with labels.csv and clips_flac.zip")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--compiled", type=Path, help="a folder that edgec compile wrote")
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--delay", type=int, default=5, help="of the network, in frames")
    options = parser.parse_args()
    split: Split = load_split(options.data, options.split)
    labels = split.labels.numpy()
    scores = torch_scores(load_checkpoint(options.checkpoint), split.pcm)
    show(options.checkpoint.name, curve(scores, labels, options.delay))
    if options.compiled:
        model = CompiledModel(options.compiled)
        show(str(options.compiled), curve(compiled_scores(model, split.pcm), labels, model.manifest.delay))
        model.close()


if __name__ == "__main__":
    main()
