"""Write the clips that ship with the model: clips/ from the test split, calibration.npz from train.

python -m models.lmuformer.samples
"""

from __future__ import annotations

import argparse
import csv
import wave
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .data import LABELS, Split, load_split
from .train import DATA

FOLDER = Path(__file__).parent
CALIBRATION_CLIPS = 64


def first_of_each_class(split: Split, count: int) -> Tensor:
    """Return the indices of the first `count` clips (by path) of every class, class by class."""
    by_path = sorted(range(len(split.paths)), key=lambda index: split.paths[index])
    return torch.tensor(
        [
            index
            for label in range(len(LABELS))
            for index in [i for i in by_path if int(split.labels[i]) == label][:count]
        ]
    )


def write_clips(split: Split, folder: Path) -> None:
    """Write two WAV clips per class and labels.csv."""
    folder.mkdir(exist_ok=True)
    rows = []
    for index in first_of_each_class(split, 2).tolist():
        label = LABELS[int(split.labels[index])]
        name = split.paths[index].replace("/", "_").replace(".flac", ".wav")
        with wave.open(str(folder / name), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", "not compressed"))
            file.writeframes(split.pcm[index].numpy().astype("<i2").tobytes())
        rows.append((name, label, split.paths[index]))
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "label", "source"))
        writer.writerows(rows)


def write_calibration(split: Split, path: Path) -> None:
    """Write clips of all classes as "pcm" [64,16000] int16 and "labels" [64]."""
    per_class = -(-CALIBRATION_CLIPS // len(LABELS))
    chosen = first_of_each_class(split, per_class).view(len(LABELS), per_class).T.flatten()
    chosen = chosen[:CALIBRATION_CLIPS]
    np.savez_compressed(path, pcm=split.pcm[chosen].numpy(), labels=split.labels[chosen].numpy())


def main() -> None:
    """Write both from the dataset."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder with labels.csv and clips_flac.zip")
    options = parser.parse_args()
    write_clips(load_split(options.data, "test"), FOLDER / "clips")
    write_calibration(load_split(options.data, "train"), FOLDER / "calibration.npz")


if __name__ == "__main__":
    main()
