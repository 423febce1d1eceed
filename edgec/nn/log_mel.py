"""Streaming log-mel features: one custom op from PCM to one feature frame per hop."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgec.signal_math import hann_window, mel_matrix


class _FrontEnd(NamedTuple):
    """The non-tensor attributes of edgec::log_mel, in schema order."""

    sample_rate: int
    frame: int
    hop: int
    n_fft: int
    n_mels: int
    f_min: float
    f_max: float
    preemphasis: float
    floor: float
    offset: float
    scale: float


@lru_cache(maxsize=16)
def _tables(front: _FrontEnd) -> tuple[Tensor, Tensor]:
    """The window [frame] and the transposed mel matrix [n_fft/2+1, n_mels], in float64."""
    mel = mel_matrix(front.sample_rate, front.n_fft, front.n_mels, front.f_min, front.f_max)
    return torch.from_numpy(hann_window(front.frame)), torch.from_numpy(mel.T.copy())


def _frames(pcm: Tensor, front: _FrontEnd) -> int:
    """Return the number of frames T, or raise ValueError."""
    if pcm.dim() != 2 or pcm.shape[1] == 0 or pcm.shape[1] % front.hop:
        raise ValueError(
            f"edgec::log_mel: pcm must be [B,N] with N a positive multiple of hop={front.hop}, "
            f"found shape {tuple(pcm.shape)}"
        )
    if not front.hop <= front.frame <= front.n_fft:
        raise ValueError(
            f"edgec::log_mel: expected hop <= frame <= n_fft, found {front.hop}, {front.frame}, {front.n_fft}"
        )
    if front.floor <= 0.0:
        raise ValueError(f"edgec::log_mel: floor must be > 0, found {front.floor}")
    return pcm.shape[1] // front.hop


def _compute(pcm: Tensor, front: _FrontEnd) -> Tensor:
    window, mel = (table.to(pcm) for table in _tables(front))
    frames = functional.pad(pcm, (front.frame - front.hop, 0)).unfold(1, front.frame, front.hop)
    frames = frames - frames.mean(-1, keepdim=True)
    before = torch.cat((frames[..., :1], frames[..., :-1]), -1)
    spectrum = torch.fft.rfft((frames - front.preemphasis * before) * window, front.n_fft)
    power = spectrum.real.square() + spectrum.imag.square()
    level: Tensor = (power @ mel).clamp_min(front.floor).log()
    return (level - front.offset) * front.scale


@torch.library.custom_op("edgec::log_mel", mutates_args=())
def log_mel(
    pcm: Tensor,
    sample_rate: int,
    frame: int,
    hop: int,
    n_fft: int,
    n_mels: int,
    f_min: float,
    f_max: float,
    preemphasis: float,
    floor: float,
    offset: float,
    scale: float,
) -> Tensor:
    """Return (log(max(mel energy, floor)) - offset) * scale, one frame per hop, without look-ahead.

    pcm: [B,N] in [-1,1), N = T*hop -> [B,T,n_mels]. Frame t reads samples [(t+1)hop - frame, (t+1)hop),
    zeros standing before the start; its mean is removed, then pre-emphasis (the first sample is its own
    predecessor), symmetric Hann window, power spectrum over n_fft, Kaldi mel triangles.
    ValueError unless N is a multiple of hop, hop <= frame <= n_fft and floor > 0.
    Kaldi feature-window.cc and feature-fbank.cc with snip_edges replaced by left padding.
    """
    front = _FrontEnd(sample_rate, frame, hop, n_fft, n_mels, f_min, f_max, preemphasis, floor, offset, scale)
    _frames(pcm, front)
    return _compute(pcm, front)


@log_mel.register_fake
def _log_mel_fake(pcm: Tensor, *attributes: Any) -> Tensor:
    front = _FrontEnd(*attributes)
    return pcm.new_empty(pcm.shape[0], _frames(pcm, front), front.n_mels)


def _log_mel_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.front = _FrontEnd(*inputs[1:])
    ctx.save_for_backward(inputs[0])


def _log_mel_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (pcm,) = ctx.saved_tensors
    with torch.enable_grad():
        leaf = pcm.detach().requires_grad_()
        (grad_pcm,) = torch.autograd.grad(_compute(leaf, ctx.front), leaf, grad)
    return (grad_pcm, *(None,) * len(ctx.front))


log_mel.register_autograd(_log_mel_backward, setup_context=_log_mel_setup)


class LogMel(nn.Module):
    """Log-mel front end: [B,N] PCM in [-1,1) -> [B,N/hop,n_mels], a feature frame for each `hop` samples.

    Feature frame t sees the `frame` samples up to (t+1)*hop, zeros before the start: no look-ahead, no delay. N must be
    a multiple of hop. In an integer build the step takes int16 samples, and all of it is integer arithmetic.

    sample_rate: of the PCM, in Hz.
    frame: samples that a feature frame sees, hop <= frame <= n_fft.
    hop: samples between feature frames; what one call of the step takes.
    n_fft: points of the FFT, a power of two from 16 to 4096; zeros fill what `frame` leaves.
    n_mels: triangular filters, equally spaced in mel (Kaldi's), features of a frame.
    f_min: lower end of the first filter, in Hz.
    f_max: upper end of the last filter, in Hz, at most half the sample rate.
    preemphasis: share of the sample before that is taken off each, 0 for none.
    floor: energies below it count as it before the logarithm, > 0; the default is float32's epsilon, as in Kaldi.
    offset: taken off the natural logarithm, with scale to bring features near [-1,1].
    scale: multiplies what is left.
    """

    def __init__(
        self,
        *,
        sample_rate: int = 16000,
        frame: int = 400,
        hop: int = 160,
        n_fft: int = 512,
        n_mels: int = 40,
        f_min: float = 20.0,
        f_max: float = 8000.0,
        preemphasis: float = 0.97,
        floor: float = 1.1920929e-7,
        offset: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.front = _FrontEnd(sample_rate, frame, hop, n_fft, n_mels, f_min, f_max, preemphasis, floor, offset, scale)

    def forward(self, pcm: Tensor) -> Tensor:
        """Return the features. pcm: [B,N] -> [B,N/hop,n_mels]."""
        features: Tensor = log_mel(pcm, *self.front)
        return features

    def extra_repr(self) -> str:
        """Return the attributes shown by print(module)."""
        return ", ".join(f"{name}={value}" for name, value in self.front._asdict().items())
