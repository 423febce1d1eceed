"""LMUFormer (arXiv 2402.04882), spiking or not: PCM in, any-time class scores out.

The sequence axis is the time axis of the neurons. B batch, N samples, T = N/hop frames, D = dim. The parts of the
spiking network are here, those of the other one in `analog.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgec.nn import LIF, LMUMemory, LogMel, RunningMean
from edgec.nn.lmu import Form


@dataclass(frozen=True)
class Config:
    """Sizes and front end of one LMUFormer; the defaults are those of the shipped checkpoints."""

    n_mels: int = 40
    dim: int = 128
    order: int = 128
    theta: int = 128
    form: Form = "fir"
    mlp_ratio: int = 2
    classes: int = 12
    causal: bool = False  # convolutions padded by 2 on the left (no delay) instead of 1 on each side
    sample_rate: int = 16000
    frame: int = 400
    hop: int = 160
    n_fft: int = 512
    f_min: float = 20.0
    f_max: float = 8000.0
    preemphasis: float = 0.97
    readout_window: int = 100  # frames the scores are a mean of; 0: all so far, as published
    floor: float = 1.1920929e-7
    offset: float = -8.0  # close to the mean of the train split's log-mel values
    scale: float = 0.125
    spiking: bool = True  # the "membrane shortcut" variant; False: the network without neurons

    @classmethod
    def published(cls, spiking: bool = True) -> Config:
        """Return the sizes published for Speech Commands, 35 classes (1,689,894 parameters; not spiking 1,621,796)."""
        return cls(
            n_mels=128,
            dim=256,
            order=512 if spiking else 256,
            theta=128,
            mlp_ratio=4,
            classes=35,
            readout_window=0,
            offset=-6.845978,
            scale=1.0 / (2.0 * 5.5654526),
            spiking=spiking,
        )


def log_mel_of(config: Config) -> LogMel:
    """Return the audio front end of a configuration."""
    return LogMel(
        sample_rate=config.sample_rate,
        frame=config.frame,
        hop=config.hop,
        n_fft=config.n_fft,
        n_mels=config.n_mels,
        f_min=config.f_min,
        f_max=config.f_max,
        preemphasis=config.preemphasis,
        floor=config.floor,
        offset=config.offset,
        scale=config.scale,
    )


def lif(threshold: float = 1.0) -> LIF:
    """Return the neuron used everywhere: tau 2, input decay, hard reset to 0, fires at H >= threshold."""
    return LIF(tau=2.0, threshold=threshold, decay_input=True, reset="hard")


class TemporalConv(nn.Module):
    """Convolution of width 3 over time, without bias: [B,T,in] -> [B,T,out]."""

    def __init__(self, inputs: int, outputs: int, causal: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, 3, bias=False)
        self.padding = (2, 0) if causal else (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution. x: [B,T,in] -> [B,T,out]."""
        y: Tensor = self.conv(functional.pad(x.transpose(1, 2), self.padding))
        return y.transpose(1, 2)


class Norm(nn.BatchNorm1d):
    """Batch normalisation of the channels of a sequence: [B,T,C] -> [B,T,C]."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised sequence. x: [B,T,C] -> [B,T,C]."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class PatchEmbedding(nn.Module):
    """Conv1d4EBMs: four convolutions, then a spiking relative-position branch around a shortcut."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, causal = config.dim, config.causal
        self.conv0 = TemporalConv(config.n_mels, dim, causal)
        self.norm0, self.lif0 = Norm(dim), lif()
        self.conv1 = TemporalConv(dim, dim, causal)
        self.norm1, self.lif1 = Norm(dim), lif()
        self.conv2 = TemporalConv(dim, dim, causal)
        self.norm2, self.lif2 = Norm(dim), lif()
        self.conv3 = TemporalConv(dim, dim, causal)
        self.norm3, self.lif3 = Norm(dim), lif()
        self.rpe_conv = TemporalConv(dim, dim, causal)

    def forward(self, x: Tensor) -> Tensor:
        """Return the real-valued residual stream. x: [B,T,n_mels] -> [B,T,D]."""
        h = self.lif0(self.norm0(self.conv0(x)))
        h = self.lif1(self.norm1(self.conv1(h)))
        h = self.lif2(self.norm2(self.conv2(h)))
        z: Tensor = self.conv3(h)
        branch: Tensor = self.rpe_conv(self.lif3(self.norm3(z)))
        return z + branch


class MemoryMixer(nn.Module):
    """SLMUMs: the token mixer; one binary scalar per frame drives the Legendre memory."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, order = config.dim, config.order
        self.prev_norm, self.prev_lif = Norm(dim), lif(threshold=0.5)
        self.u, self.u_norm, self.u_lif = nn.Linear(dim, 1), Norm(1), lif()
        self.memory = LMUMemory(order, config.theta, config.form)
        self.m_norm, self.m_lif = Norm(order), lif()
        self.h, self.h_norm, self.h_lif = nn.Linear(order + dim, dim), Norm(dim), lif()
        self.proj, self.proj_norm = nn.Linear(dim, dim), Norm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to the residual stream. x: [B,T,D] -> [B,T,D]."""
        s = self.prev_lif(self.prev_norm(x))
        m = self.memory(self.u_lif(self.u_norm(self.u(s))))
        p = self.m_lif(self.m_norm(m))
        h = self.h_lif(self.h_norm(self.h(torch.cat((p, s), dim=2))))
        y: Tensor = self.proj_norm(self.proj(h))
        return y


class FeedForward(nn.Module):
    """ConvFFNMs: the channel mixer, two layers applied to each frame."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, hidden = config.dim, config.dim * config.mlp_ratio
        self.norm1, self.lif1, self.fc1 = Norm(dim), lif(), nn.Linear(dim, hidden)
        self.norm2, self.lif2, self.fc2 = Norm(hidden), lif(), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to the residual stream. x: [B,T,D] -> [B,T,D]."""
        h = self.fc1(self.lif1(self.norm1(x)))
        y: Tensor = self.fc2(self.lif2(self.norm2(h)))
        return y


class Head(nn.Module):
    """Spikes, one linear layer per frame, and the mean over the frames so far or the last `readout_window` of them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm, self.lif = Norm(config.dim), lif()
        self.linear = nn.Linear(config.dim, config.classes)
        self.mean = RunningMean(config.readout_window)

    def forward(self, x: Tensor) -> Tensor:
        """Return any-time scores. x: [B,T,D] -> [B,T,classes]."""
        scores: Tensor = self.mean(self.linear(self.lif(self.norm(x))))
        return scores


class LMUFormer(nn.Module):
    """Log-mel front end, patch embedding, one block of token and channel mixer, any-time head."""

    def __init__(self, config: Config, embed: nn.Module, mixer: nn.Module, ffn: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.features = log_mel_of(config)
        self.embed, self.mixer, self.ffn, self.head = embed, mixer, ffn, head

    def classify(self, features: Tensor) -> Tensor:
        """Return any-time scores from log-mel features. features: [B,T,n_mels] -> [B,T,classes]."""
        x = self.embed(features)
        x = x + self.mixer(x)
        x = x + self.ffn(x)
        scores: Tensor = self.head(x)
        return scores

    def forward(self, pcm: Tensor) -> Tensor:
        """Return scores whose last frame is the mean over the whole clip.

        pcm: [B,N] in [-1,1), N a multiple of hop -> [B,T,classes].
        """
        return self.classify(self.features(pcm))


class SpikingLMUFormer(LMUFormer):
    """The spiking network."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, PatchEmbedding(config), MemoryMixer(config), FeedForward(config), Head(config))
