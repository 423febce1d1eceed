"""ECA-MobileNetV2 (arXiv 1910.03151, on arXiv 1801.04381): an image in, class scores out.

A MobileNetV2 whose 17 inverted residual blocks each end in a channel attention of one to three weights. B batch,
C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

# expansion, output channels at width 1 and number of blocks of each stage; the first block of a stage has its stride
STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
STEM, LAST = 32, 1280
WIDE = 96  # a stage of at least so many channels, before the width multiplier, has attention across 3 channels


@dataclass(frozen=True)
class Config:
    """Sizes of one network; the defaults are those of the shipped checkpoint, for images of 32 x 32."""

    width: float = 0.75
    size: int = 32
    stem_stride: int = 1
    strides: Sequence[int] = (2, 1, 2, 1, 1, 2, 1)  # of the stages
    last: int = 640  # channels of the convolution before pooling
    classes: int = 10
    dropout: float = 0.1

    @classmethod
    def published(cls) -> Config:
        """Return the sizes published for ImageNet (3,504,903 parameters, 31 of them attention)."""
        return cls(
            width=1.0,
            size=224,
            stem_stride=2,
            strides=(1, 2, 2, 2, 1, 2, 1),
            last=LAST,
            classes=1000,
            dropout=0.25,
        )


class Eca(nn.Module):
    """Efficient channel attention: each channel times a gate made from the means of its k nearest channels."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated channels. x: [B,C,H,W] -> [B,C,H,W]."""
        means = self.pool(x).squeeze(-1).transpose(-1, -2)  # [B,1,C]: the convolution runs over the channels
        gate = self.sigmoid(self.conv(means).transpose(-1, -2).unsqueeze(-1))
        return x * gate.expand_as(x)


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch normalisation and ReLU6: [B,in,H,W] -> [B,out,H/stride,W/stride]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(),
        )


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow without activation, attend; added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, kernel: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expand = ConvNorm(inputs, hidden, 1) if expansion != 1 else nn.Identity()
        self.depthwise = ConvNorm(hidden, hidden, 3, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.eca = Eca(kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output. x: [B,inputs,H,W] -> [B,outputs,H/stride,W/stride]."""
        y: Tensor = self.eca(self.norm(self.project(self.depthwise(self.expand(x)))))
        return x + y if self.residual else y


class EcaMobileNetV2(nn.Module):
    """The whole network: image in, scores out."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        if len(config.strides) != len(STAGES):
            raise ValueError(f"strides: expected {len(STAGES)} strides, one for each stage, found {config.strides}")
        channels = int(STEM * config.width)
        if int(STAGES[0][1] * config.width) < 1:
            raise ValueError(f"width {config.width}: the stem and the first stage are left without channels")
        self.stem = ConvNorm(3, channels, 3, config.stem_stride)
        blocks = []
        for (expansion, wide, count), stride in zip(STAGES, config.strides, strict=True):
            outputs = int(wide * config.width)
            for index in range(count):
                kernel = 3 if wide >= WIDE else 1
                blocks.append(InvertedResidual(channels, outputs, stride if index == 0 else 1, expansion, kernel))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = ConvNorm(channels, config.last, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.last, config.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.normal_(self.head.weight, 0.0, 0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores. x: [B,3,H,W] (in [-2,2)) -> [B,classes]."""
        features: Tensor = self.last(self.blocks(self.stem(x)))
        scores: Tensor = self.head(self.dropout(features.mean((2, 3))))
        return scores
