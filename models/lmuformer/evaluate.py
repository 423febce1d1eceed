"""What `edgec card` measures of both LMUFormers: 12 keywords, the test split of the SC12 subset (speaker-disjoint)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .anytime import curve
from .data import load_split

TASK = "12 keywords from a 16 kHz stream"
DATA = "SC12 subset (speaker-disjoint) of Speech Commands v0.02, test split: 490 one-second clips"
LICENCE = "CC BY 4.0, Pete Warden / Google"
METRIC = "accuracy"
UNIT = "%"
PER = "frame of 10 ms"
FILES = ("labels.csv", "clips_flac.zip")
CALIBRATION_FILES = FILES


def calibration_set(folder: Path) -> np.ndarray:
    """Return the clips of calibration.npz, which ships: PCM [64,16000] int16 of the train split."""
    with np.load(Path(__file__).with_name("calibration.npz")) as data:
        return data["pcm"]


def test_set(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return PCM [490,16000] int16 and class numbers [490]."""
    split = load_split(folder, "test")
    return split.pcm.numpy(), split.labels.numpy()


def metric(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the accuracy in percent of the scores after the last frame. outputs: [N,T,12], targets: [N]."""
    return 100.0 * float((outputs[:, -1].argmax(-1) == targets).mean())


def anytime(outputs: np.ndarray, targets: np.ndarray, delay: int) -> list[tuple[int, float]]:
    """Return (frames heard, accuracy in percent) of a stream whose outputs come `delay` frames late."""
    return [(point.frames, 100.0 * point.accuracy) for point in curve(outputs, targets, delay, every=10)]
