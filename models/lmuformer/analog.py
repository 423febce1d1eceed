"""The parts of the LMUFormer without neurons: activations are real numbers throughout.

B batch, T frames, D = dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgec.nn import LMUMemory, RunningMean

from .model import Config, LMUFormer, Norm, TemporalConv


class AnalogEmbedding(nn.Module):
    """Four times convolution, ReLU and batch norm, in this order, then a relative-position convolution."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, causal = config.dim, config.causal
        self.conv0, self.norm0 = TemporalConv(config.n_mels, dim, causal), Norm(dim)
        self.conv1, self.norm1 = TemporalConv(dim, dim, causal), Norm(dim)
        self.conv2, self.norm2 = TemporalConv(dim, dim, causal), Norm(dim)
        self.conv3, self.norm3 = TemporalConv(dim, dim, causal), Norm(dim)
        self.rpe_conv = TemporalConv(dim, dim, causal)

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual stream. x: [B,T,n_mels] -> [B,T,D]."""
        h = self.norm0(functional.relu(self.conv0(x)))
        h = self.norm1(functional.relu(self.conv1(h)))
        h = self.norm2(functional.relu(self.conv2(h)))
        h = self.norm3(functional.relu(self.conv3(h)))
        y: Tensor = h + self.rpe_conv(h)
        return y


class AnalogMixer(nn.Module):
    """LMU: the token mixer; one non-negative scalar per frame drives the Legendre memory."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, order = config.dim, config.order
        self.u = nn.Linear(dim, 1)
        self.memory = LMUMemory(order, config.theta, config.form)
        self.h = nn.Linear(order + dim, dim)
        self.proj, self.proj_norm = nn.Linear(dim, dim), Norm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to the residual stream. x: [B,T,D] -> [B,T,D]."""
        m = self.memory(functional.relu(self.u(x)))
        h = functional.relu(self.h(torch.cat((m, x), dim=2)))
        y: Tensor = self.proj_norm(self.proj(h))
        return y


class AnalogFeedForward(nn.Module):
    """ConvFFN: the channel mixer; GELU after the first layer, ReLU after the second."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, hidden = config.dim, config.dim * config.mlp_ratio
        self.fc1, self.norm1 = nn.Linear(dim, hidden), Norm(hidden)
        self.fc2, self.norm2 = nn.Linear(hidden, dim), Norm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to the residual stream. x: [B,T,D] -> [B,T,D]."""
        h = functional.gelu(self.norm1(self.fc1(x)))
        return functional.relu(self.norm2(self.fc2(h)))


class AnalogHead(nn.Module):
    """One linear layer per frame, and the mean over the frames so far or the last `readout_window` of them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.linear = nn.Linear(config.dim, config.classes)
        self.mean = RunningMean(config.readout_window)

    def forward(self, x: Tensor) -> Tensor:
        """Return any-time scores. x: [B,T,D] -> [B,T,classes]."""
        scores: Tensor = self.mean(self.linear(x))
        return scores


class AnalogLMUFormer(LMUFormer):
    """The LMUFormer without neurons."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            config, AnalogEmbedding(config), AnalogMixer(config), AnalogFeedForward(config), AnalogHead(config)
        )
