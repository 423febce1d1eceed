"""What `edgec card` measures of the Tiny Time Mixer: the test months of ETTh1, every window of every channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .data import load_series, windows
from .model import Config

TASK = "forecast of the next 96 hours from the last 512"
DATA = "ETTh1, test split (months 17 to 20 of the usual 12/4/4): 2,785 windows of 7 channels"
LICENCE = "CC BY-ND 4.0 (Zhou et al. 2021); no row is part of edgec"
METRIC = "mean square error, standardised"
UNIT = ""
PER = "forecast of one channel"
FILES = ("ETTh1.csv",)
CALIBRATION_FILES = FILES
CALIBRATION_WINDOWS = 512


def calibration_set(folder: Path) -> np.ndarray:
    """Return windows evenly spread over the train months and the channels: [512,512,1]."""
    context = Config().context
    rows = load_series(folder / FILES[0]).split("train", context)
    pieces = windows(rows, context).permute(0, 2, 1).flatten(0, 1)[:, :, None].numpy()
    return pieces[np.linspace(0, len(pieces) - 1, CALIBRATION_WINDOWS).round().astype(int)]


def test_set(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return pasts [2785*7,512,1] and futures [2785*7,96,1], standardised with the train split's mean and deviation."""
    config = Config()
    rows = load_series(folder / FILES[0]).split("test", config.context)
    pieces = windows(rows, config.context + config.horizon).permute(0, 2, 1).flatten(0, 1)[:, :, None].numpy()
    return pieces[:, : config.context], pieces[:, config.context :]


def metric(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean square error over windows, channels and hours. outputs, targets: [N,96,1]."""
    return float(np.square(outputs.astype(np.float64) - targets).mean())
