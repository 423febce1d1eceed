"""What `edgec card` measures of a network for CIFAR-10: the test split. The families' evaluate.py take it over."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .cifar import load_split, to_float

TASK = "10 classes of images of 32 x 32 pixels"
DATA = "CIFAR-10, test split: 10,000 images, stored as JPEG (lossy; trained on the same)"
LICENCE = "none stated (Krizhevsky 2009); no image is part of edgec"
METRIC = "accuracy"
UNIT = "%"
PER = "image"
FILES = ("cifar10_jpeg_test.zip",)
CALIBRATION_FILES = ("cifar10_jpeg_train.zip",)
CALIBRATION_IMAGES = 512


def calibration_set(folder: Path) -> np.ndarray:
    """Return images evenly spread over the train split and its classes: [512,3,32,32] float32."""
    pixels = load_split(folder, "train").pixels
    return to_float(pixels[np.linspace(0, len(pixels) - 1, CALIBRATION_IMAGES).round().astype(int)]).numpy()


def test_set(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images [10000,3,32,32] float32 in [-2,2) and class numbers [10000]."""
    split = load_split(folder, "test")
    return to_float(split.pixels).numpy(), split.labels.numpy()


def metric(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the accuracy in percent. outputs: [N,10], targets: [N]."""
    return 100.0 * float((outputs.argmax(-1) == targets).mean())
