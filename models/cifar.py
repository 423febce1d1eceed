"""CIFAR-10 in RAM, and its augmentation.

B batch, N images. The images are not part of edgec: DATA is a folder with cifar10_jpeg_train.zip and
cifar10_jpeg_test.zip, each with 32 x 32 pictures under CLASS/NUMBER.jpg.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIZE = 32
HELD_OUT = 500  # the last pictures of each class of the train archive are the val split


@dataclass(frozen=True)
class Split:
    """One split: pixels [N,3,SIZE,SIZE] uint8, labels [N] indices into LABELS."""

    pixels: Tensor
    labels: Tensor


def read_archive(path: Path) -> Split:
    """Decode an archive, class after class, in order of number; ValueError for a picture of another size."""
    import numpy as np
    from PIL import Image

    pixels, labels = [], []
    with zipfile.ZipFile(path) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".jpg")):
            label = name.split("/")[-2]
            if label not in LABELS:
                raise ValueError(f"{path}: {name}: expected a folder named {', '.join(LABELS)}")
            with Image.open(io.BytesIO(archive.read(name))) as image:
                picture = np.asarray(image.convert("RGB"))
            if picture.shape != (SIZE, SIZE, 3):
                raise ValueError(f"{path}: {name}: expected {SIZE} x {SIZE} pixels, found {picture.shape[:2]}")
            pixels.append(picture)
            labels.append(LABELS.index(label))
    if not pixels:
        raise ValueError(f"{path}: expected pictures CLASS/NUMBER.jpg, found none")
    return Split(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels))


def load_split(folder: Path, split: str, cache: Path | None = None) -> Split:
    """Return train (45,000 pictures), val (5,000) or test (10,000). cache: folder for the decoded pixels."""
    archive = "test" if split == "test" else "train"
    kept = None if cache is None else cache / f"cifar10_{archive}.pt"
    if kept is not None and kept.is_file():
        whole = Split(**torch.load(kept, weights_only=True))
    else:
        whole = read_archive(folder / f"cifar10_jpeg_{archive}.zip")
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"pixels": whole.pixels, "labels": whole.labels}, kept)
    if split == "test":
        return whole
    held_out = torch.zeros(len(whole.labels), dtype=torch.bool)
    for label in range(len(LABELS)):
        held_out[(whole.labels == label).nonzero()[-HELD_OUT:, 0]] = True
    chosen = held_out if split == "val" else ~held_out
    return Split(whole.pixels[chosen], whole.labels[chosen])


def to_float(pixels: Tensor) -> Tensor:
    """Scale uint8 pixels to [-2,2): int8 with a step of 1/64 holds the result exactly. Any shape, same shape."""
    return (pixels.to(torch.float32) - 128.0) / 64.0


class Augment:
    """Random changes to a training batch; draws only from its own generator."""

    def __init__(self, seed: int, strength: float) -> None:
        """strength: in [0,1]; 0 leaves mirroring and shifting."""
        self.strength = strength
        self.generator = torch.Generator().manual_seed(seed)

    def _uniform(self, count: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=self.generator)

    def shift(self, pixels: Tensor, most: int = 4) -> Tensor:
        """Mirror half of the pictures and move each by up to `most` pixels, its edge mirrored. [B,3,H,W]."""
        g, (count, _, height, width) = self.generator, pixels.shape
        padded = functional.pad(to_float(pixels), (most,) * 4, mode="reflect")
        top, left = torch.randint(2 * most + 1, (2, count, 1), generator=g)
        rows = top + torch.arange(height)
        columns = left + torch.arange(width)
        backwards = torch.rand(count, 1, generator=g) < 0.5
        columns = torch.where(backwards, columns.flip(1), columns)
        picture = torch.arange(count)[:, None, None]
        return padded.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def colour(self, x: Tensor) -> Tensor:
        """Change brightness, contrast and colour of a share of the pictures. [B,3,H,W]."""
        count, strength = len(x), self.strength
        grey = x.mean(1, keepdim=True)
        coloured = torch.lerp(grey, x, 1 + strength * self._uniform(count, -0.6, 0.6))
        level = coloured.mean((1, 2, 3), keepdim=True)
        contrast = torch.lerp(level, coloured, 1 + strength * self._uniform(count, -0.5, 0.5))
        changed = contrast + strength * self._uniform(count, -0.5, 0.5)
        return torch.where(self._uniform(count, 0, 1) < 0.8, changed, x).clamp(-2, 127 / 64)

    def zoom(self, x: Tensor) -> Tensor:
        """Turn, stretch and shear a share of the pictures about their middle. [B,3,H,W]."""
        count, strength = len(x), self.strength
        angle = strength * self._uniform(count, -0.35, 0.35)[:, 0, 0, 0]
        wide, high, shear = (strength * self._uniform(count, -0.25, 0.25)[:, 0, 0, 0] for _ in range(3))
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(count)
        first = torch.stack((cos * (1 + wide), -sin + shear, zero), 1)
        second = torch.stack((sin, cos * (1 + high), zero), 1)
        grid = functional.affine_grid(torch.stack((first, second), 1), list(x.shape), align_corners=False)
        moved = functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
        return torch.where(self._uniform(count, 0, 1) < 0.5, moved, x)

    def _box(self, count: int, area: Tensor) -> Tensor:
        """One square of a share of the picture for each, cut at the edges: [B,1,SIZE,SIZE] bool."""
        side = (area.sqrt() * SIZE).flatten()[:, None]
        middle = torch.rand(2, count, 1, generator=self.generator) * SIZE
        inside = (torch.arange(SIZE) + 0.5 - middle).abs() < side / 2
        return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]

    def cut(self, x: Tensor) -> Tensor:
        """Blank a square of up to a quarter of the picture, in a share of them. [B,3,H,W]."""
        area = 0.25 * self.strength * self._uniform(len(x), 0, 1)
        return x.masked_fill(self._box(len(x), area), 0.0)

    def mix(self, x: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Paste a square of another picture into a share of them, and mix the targets. targets: [B,classes]."""
        g, count = self.generator, len(x)
        area = self._uniform(count, 0, 1) * (self._uniform(count, 0, 1) < share)
        box = self._box(count, area)
        other = torch.randperm(count, generator=g)
        pasted = box.float().mean((1, 2, 3))[:, None]
        return torch.where(box, x[other], x), torch.lerp(targets, targets[other], pasted)


def soft_targets(labels: Tensor, smoothing: float) -> Tensor:
    """One-hot targets with label smoothing. labels: [B] -> [B,classes]."""
    hot = functional.one_hot(labels, len(LABELS)).to(torch.float32)
    return hot * (1 - smoothing) + smoothing / len(LABELS)
