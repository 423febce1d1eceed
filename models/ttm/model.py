"""Tiny Time Mixer (arXiv 2401.03955): 512 past samples in, a forecast of the next 96 out, each channel on its own.

B batch, L past samples, C channels, P patches, F features of a patch, H forecast samples.
The structure is that of granite-tsfm 0.3.11, `TinyTimeMixerForPrediction` in mode "common_channel".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Config:
    """Sizes of one Tiny Time Mixer; the defaults are those of granite's 512-96 models and of the shipped checkpoint."""

    context: int = 512
    horizon: int = 96
    patch: int = 64  # samples of a patch; patches do not overlap
    dim: int = 192
    levels: int = 3  # adaptive patching: level i splits every patch into 2^i
    layers: int = 2  # mixer layers of a level
    expansion: int = 2
    decoder_dim: int = 128
    decoder_layers: int = 2
    dropout: float = 0.0  # in training: inside the mixers
    head_dropout: float = 0.0  # in training: in the decoder's mixers and before the head

    def __post_init__(self) -> None:
        """ValueError, naming the field, for sizes that are not positive or do not divide."""
        for name, value in vars(self).items():
            if name.endswith("dropout"):
                if not 0.0 <= value < 1.0:
                    raise ValueError(f"{name} must lie in [0,1), found {value!r}")
            elif value < (0 if name == "levels" else 1):
                raise ValueError(f"{name} must be at least {0 if name == 'levels' else 1}, found {value!r}")
        if self.context % self.patch:
            raise ValueError(f"context must be a multiple of patch, found {self.context} and {self.patch}")
        finest = 2 ** max(0, self.levels - 1)
        if self.dim % finest:
            raise ValueError(f"dim must be a multiple of 2^(levels-1) = {finest}, found {self.dim}")

    @property
    def patches(self) -> int:
        """How many patches the past is cut into."""
        return self.context // self.patch


class StdScaler(nn.Module):
    """Shift and scale of a window of its own: mean 0 and variance 1 (biased) along time."""

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scaled window, its mean and its scale. x: [B,L,C] -> [B,L,C], [B,1,C], [B,1,C]."""
        mean = x.mean(1, keepdim=True)
        centred = x - mean
        scale = torch.sqrt(centred.square().mean(1, keepdim=True) + self.eps)
        return centred / scale, mean, scale


class Gated(nn.Module):
    """Multiply by a softmax of a linear map of the same values, along the last axis."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated values. x: [...,size] -> [...,size]."""
        return x * torch.softmax(self.linear(x), -1)


class Mixer(nn.Module):
    """Two linear layers with a GELU (erf form) between, then the gate, along the last axis."""

    def __init__(self, size: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(size, size * expansion), nn.Linear(size * expansion, size)
        self.drop = nn.Dropout(dropout)
        self.gate = Gated(size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed values. x: [...,size] -> [...,size]."""
        hidden = self.drop(functional.gelu(self.fc1(x)))
        y: Tensor = self.gate(self.drop(self.fc2(hidden)))
        return y


class MixerLayer(nn.Module):
    """Mix the patches of a feature, then the features of a patch, each around a shortcut: [B,C,P,F] -> same."""

    def __init__(self, patches: int, features: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.patch_norm, self.patch_mixer = nn.LayerNorm(features), Mixer(patches, expansion, dropout)
        self.feature_norm, self.feature_mixer = nn.LayerNorm(features), Mixer(features, expansion, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed patches. x: [B,C,P,F] -> [B,C,P,F]."""
        x = x + self.patch_mixer(self.patch_norm(x).transpose(2, 3)).transpose(2, 3)
        y: Tensor = x + self.feature_mixer(self.feature_norm(x))
        return y


class Level(nn.Module):
    """Adaptive patching: every patch becomes `split` shorter ones with fewer features, and back after the layers."""

    def __init__(self, config: Config, split: int) -> None:
        super().__init__()
        patches, features = config.patches * split, config.dim // split
        self.shape = (patches, features)
        self.layers = nn.Sequential(
            *(MixerLayer(patches, features, config.expansion, config.dropout) for _ in range(config.layers))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed patches. x: [B,C,P,F] -> [B,C,P,F]."""
        whole = x.shape
        y: Tensor = self.layers(x.reshape(*whole[:2], *self.shape)).reshape(whole)
        return y


class TTM(nn.Module):
    """Scaler, patches, levels from the finest to the coarsest, decoder, head, and the scaler undone."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.scaler = StdScaler()
        self.patcher = nn.Linear(config.patch, config.dim)
        splits = [2**level for level in reversed(range(config.levels))] or [1]
        self.encoder = nn.Sequential(*(Level(config, split) for split in splits))
        self.adapter = nn.Linear(config.dim, config.decoder_dim)
        self.decoder = nn.Sequential(
            *(
                MixerLayer(config.patches, config.decoder_dim, config.expansion, config.head_dropout)
                for _ in range(config.decoder_layers)
            )
        )
        self.drop = nn.Dropout(config.head_dropout)
        self.head = nn.Linear(config.patches * config.decoder_dim, config.horizon)

    def normalised(self, x: Tensor) -> Tensor:
        """Forecast a scaled window, in the window's own units. x: [B,L,C] -> [B,H,C]."""
        patches = x.transpose(1, 2).reshape(x.shape[0], x.shape[2], self.config.patches, self.config.patch)
        h = self.decoder(self.adapter(self.encoder(self.patcher(patches))))
        y: Tensor = self.head(self.drop(h.flatten(2)))
        return y.transpose(1, 2)

    def forward(self, past: Tensor) -> Tensor:
        """Return the forecast, in the units of the past. past: [B,L,C], any unit -> [B,H,C]."""
        x, mean, scale = self.scaler(past)
        return self.normalised(x) * scale + mean
