"""A small residual network on the log-mel image: the teacher from which the spiking network learns.

It is used in training only; its weights are not shipped. B batch, T frames, M mel bands.
"""

from __future__ import annotations

from torch import Tensor, nn

from .model import Config, log_mel_of


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut: [B,in,H,W] -> [B,out,H/stride,W/stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y: Tensor = nn.functional.relu(self.body(x) + self.shortcut(x))
        return y


class Teacher(nn.Module):
    """ResNet of three stages with the front end of the spiking network."""

    def __init__(self, config: Config, width: int = 24) -> None:
        super().__init__()
        self.features = log_mel_of(config)
        self.stem = nn.Sequential(nn.Conv2d(1, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.stages = nn.Sequential(
            Residual(width, width, 1),
            Residual(width, 2 * width, 2),
            Residual(2 * width, 4 * width, 2),
        )
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(4 * width, config.classes))

    def classify(self, features: Tensor) -> Tensor:
        """Return the scores of the clip. features: [B,T,M] -> [B,1,classes]."""
        scores: Tensor = self.head(self.stages(self.stem(features[:, None])).mean((2, 3)))
        return scores[:, None]

    def forward(self, pcm: Tensor) -> Tensor:
        """Return the scores of the clip. pcm: [B,N] -> [B,1,classes]."""
        return self.classify(self.features(pcm))
