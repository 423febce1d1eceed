"""The SC12 subset (speaker-disjoint) in RAM, and its augmentation.

B batch, N samples of a clip, T frames, M mel bands.
"""

from __future__ import annotations

import csv
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.nn import functional

LABELS = (
    "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "_unknown_", "_silence_",
)  # fmt: skip
UNKNOWN, SILENCE = LABELS.index("_unknown_"), LABELS.index("_silence_")
CLIP = 16000


@dataclass(frozen=True)
class Split:
    """One split: pcm [clips,CLIP] int16, labels [clips] indices into LABELS, and the file names."""

    pcm: Tensor
    labels: Tensor
    paths: tuple[str, ...]


def load_split(folder: Path, split: str) -> Split:
    """Decode one split (train, val or test) of the dataset; ValueError if it has no clips."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    if not rows:
        raise ValueError(f"{folder / 'labels.csv'}: no clips in split {split!r}")
    pcm = np.zeros((len(rows), CLIP), np.int16)
    with zipfile.ZipFile(folder / "clips_flac.zip") as archive:
        for clip, row in zip(pcm, rows, strict=True):
            samples, _ = soundfile.read(io.BytesIO(archive.read(row["path"])), dtype="int16")
            clip[: len(samples)] = samples[:CLIP]
    labels = torch.tensor([LABELS.index(row["label12"]) for row in rows])
    return Split(torch.from_numpy(pcm), labels, tuple(row["path"] for row in rows))


def to_float(pcm: Tensor) -> Tensor:
    """Scale int16 samples to [-1,1). pcm: any shape -> same shape, float32."""
    return pcm.to(torch.float32) / 32768.0


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, 1, generator=generator)


def _level(pcm: Tensor) -> Tensor:
    """Root mean square of each clip. pcm: [B,N] -> [B,1]."""
    return pcm.square().mean(1, keepdim=True).sqrt()


def _resample(pcm: Tensor, speed: Tensor, shift: Tensor) -> Tensor:
    """Play each clip at its speed, around its middle, and shift it. speed, shift: [B,1]."""
    length = pcm.shape[1]
    centred = torch.arange(length, dtype=torch.float32)[None] - length / 2
    position = centred * speed + length / 2 - shift
    left = position.floor()
    inside = (left >= 0) & (left < length - 1)
    index = left.clamp(0, length - 2).long()
    fraction = position - left
    mixed = torch.lerp(pcm.gather(1, index), pcm.gather(1, index + 1), fraction)
    return mixed * inside


def _coloured_noise(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Noise with power falling as 1/f^k, k in [0,2] drawn per clip, unit level: [count,length]."""
    spectrum = torch.fft.rfft(torch.randn(count, length, generator=generator))
    frequency = torch.arange(spectrum.shape[1]).clamp_min(1)[None]
    shaped = torch.fft.irfft(spectrum * frequency ** (-_uniform(count, 0.0, 1.0, generator)), length)
    noise: Tensor = shaped / _level(shaped)
    return noise


class Augment:
    """Random changes to a training batch; draws only from its own generator."""

    def __init__(self, background: Tensor, seed: int, strength: float) -> None:
        """background: [clips,N] float PCM of the train split's silence clips; strength: in [0,1]."""
        self.strength = strength
        self.generator = torch.Generator().manual_seed(seed)
        self.background = background / _level(background).clamp_min(1e-5)

    def _noise(self, count: int) -> Tensor:
        """Background or coloured noise of unit level: [count,N]."""
        g = self.generator
        length = self.background.shape[1]
        pick = torch.randint(len(self.background), (count,), generator=g)
        offset = torch.randint(length, (count, 1), generator=g)
        recorded = self.background[pick].gather(1, (torch.arange(length)[None] + offset) % length)
        synthetic = _coloured_noise(count, length, g)
        return torch.where(_uniform(count, 0, 1, g) < 0.6, recorded, synthetic)

    def waveform(self, pcm: Tensor, labels: Tensor) -> Tensor:
        """Change speed, position, level and background. pcm: [B,N], labels: [B] -> [B,N]."""
        g, count, strength = self.generator, len(pcm), self.strength
        speed = 1 + strength * _uniform(count, -0.13, 0.15, g)
        shift = (strength * _uniform(count, -1600, 1600, g)).round()
        moved = _resample(pcm, speed, shift)
        backwards = (labels == UNKNOWN)[:, None] & (_uniform(count, 0, 1, g) < 0.3)
        moved = torch.where(backwards, moved.flip(1), moved)
        noise = self._noise(count)
        below = _level(pcm).clamp_min(1e-3) * 10 ** (-_uniform(count, 5.0, 40.0, g) / 20)
        noisy = moved + noise * below * (_uniform(count, 0, 1, g) < 0.6 * strength)
        made_up = (labels == SILENCE)[:, None] & (_uniform(count, 0, 1, g) < 0.5)
        mixed = torch.where(made_up, noise * 10 ** _uniform(count, -4.0, -1.0, g), noisy)
        return (mixed * 10 ** (strength * _uniform(count, -12.0, 8.0, g) / 20)).clamp(-1, 1)

    def features(self, mels: Tensor, scale: float) -> Tensor:
        """Warp and mask log-mel frames. mels: [B,T,M], scale: of the front end -> [B,T,M]."""
        g, strength = self.generator, self.strength
        count, steps, bands = mels.shape
        band = torch.arange(bands, dtype=torch.float32)[None]
        warp = 1 + strength * _uniform(count, -0.08, 0.08, g)
        position = (band * warp).clamp(0, bands - 1.001)
        left = position.floor().long()
        low, high = (side[:, None].expand(-1, steps, -1) for side in (left, left + 1))
        warped = torch.lerp(mels.gather(2, low), mels.gather(2, high), (position - left)[:, None])
        phase = torch.pi * (band + 0.5) / bands
        curve = torch.zeros(count, bands)
        for wave in (1, 2, 3):
            curve += torch.randn(count, 1, generator=g) * torch.cos(wave * phase)
        coloured = warped + 0.4 * strength * scale * curve[:, None]
        keep = torch.ones_like(mels, dtype=torch.bool)
        for _ in range(2):
            keep &= ~self._span(count, bands, 7 * strength)[:, None, :]
            keep &= ~self._span(count, steps, 16 * strength)[:, :, None]
        return torch.where(keep, coloured, coloured.mean((1, 2), keepdim=True))

    def _span(self, count: int, length: int, longest: float) -> Tensor:
        """One random span of at most `longest` positions per clip: [count,length] bool."""
        size = _uniform(count, 0, longest + 1, self.generator).floor()
        start = (_uniform(count, 0, 1, self.generator) * (length - size)).floor()
        position = torch.arange(length)[None]
        return (position >= start) & (position < start + size)

    def mix(self, mels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mixup, keeping 1 - strength u^2/2 of each clip (u uniform). mels: [B,T,M], targets: [B,classes]."""
        g = self.generator
        kept = 1 - 0.5 * self.strength * _uniform(len(mels), 0, 1, g).square()
        other = torch.randperm(len(mels), generator=g)
        return (
            torch.lerp(mels[other], mels, kept[:, :, None]),
            torch.lerp(targets[other], targets, kept),
        )


def epoch_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random order of the clips in which silence comes eight times and unknown 1.5 times."""
    half = (labels == UNKNOWN).nonzero()[:, 0]
    half = half[torch.rand(len(half), generator=generator) < 0.5]
    order = torch.cat((torch.arange(len(labels)), half, (labels == SILENCE).nonzero()[:, 0].repeat(7)))
    return order[torch.randperm(len(order), generator=generator)]


def soft_targets(labels: Tensor, smoothing: float) -> Tensor:
    """One-hot targets with label smoothing. labels: [B] -> [B,classes]."""
    hot = functional.one_hot(labels, len(LABELS)).to(torch.float32)
    return hot * (1 - smoothing) + smoothing / len(LABELS)
