"""What both forms of the audio front end share: framing, streaming, cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from edgec.ir.types import DType, TensorType
from edgec.ops.base import Cost, Op, need
from edgec.ops.signal import tables


@dataclass(frozen=True)
class FrontEnd(Op):
    """What both forms share.

    Frame t is the `frame` samples that end before sample (t + 1) * hop when `padded` (zeros stand before the start),
    else those from sample t * hop on.
    """

    axes: ClassVar[Any] = "b(t)->btm"
    sample_rate: int = 16000
    frame: int = 400
    hop: int = 160
    n_fft: int = 512
    n_mels: int = 40
    f_min: float = 20.0
    f_max: float = 8000.0
    preemphasis: float = 0.97
    floor: float = 1.1920929e-7
    offset: float = 0.0
    scale: float = 1.0
    padded: bool = True

    def check(self, pcm: TensorType, dtype: DType) -> tuple[int, int, int]:
        """Shape of the features, or ValueError."""
        need(pcm.dtype is dtype, f"expected {dtype.value} PCM, found {pcm.dtype.value}")
        axis = "no time axis, as where a window slides" if pcm.time_axis is None else f"time on axis {pcm.time_axis}"
        need(
            len(pcm.shape) == 2 and pcm.time_axis == 1,
            f"expected pcm [B,N] with time on axis 1, found {pcm.shape} with {axis}",
        )
        need(
            0 < self.hop <= self.frame <= self.n_fft,
            f"expected hop <= frame <= n_fft, found {self.hop}, {self.frame}, {self.n_fft}",
        )
        need(
            self.n_fft.bit_count() == 1 and 16 <= self.n_fft <= 4096,
            f"n_fft must be a power of two from 16 to 4096, found {self.n_fft}",
        )
        need(
            self.n_mels >= 1 and 0.0 <= self.f_min < self.f_max <= self.sample_rate / 2,
            "expected mel filters within 0 .. sample_rate / 2",
        )
        need(
            self.floor > 0.0 and self.scale != 0.0,
            f"expected floor > 0 and a scale, found {self.floor} and {self.scale}",
        )
        batch, samples = pcm.shape
        if self.padded:
            need(samples % self.hop == 0, f"expected a multiple of hop={self.hop} samples, found {samples}")
            return batch, samples // self.hop, self.n_mels
        need(samples >= self.frame, f"{samples} samples are fewer than a frame of {self.frame}")
        return batch, (samples - self.frame) // self.hop + 1, self.n_mels

    def framed(self, pcm: torch.Tensor) -> torch.Tensor:
        """pcm [B,N] -> [B,T,frame]."""
        return F.pad(pcm, (self.frame - self.hop if self.padded else 0, 0)).unfold(1, self.frame, self.hop)

    def stream(self, step: Any, pcm: str) -> str:
        """History of one frame, then the front end on it."""
        left = self.frame - self.hop if self.padded else 0
        line = step.delay_line(pcm, length=self.frame, left=left)
        return step.emit(replace(self, padded=False), line)  # type: ignore[no-any-return]

    def segments(self) -> tables.Segments:
        return tables.mel_segments(self.sample_rate, self.n_fft, self.n_mels, self.f_min, self.f_max)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Multiplications per frame, each counted as one multiply-accumulate.

        2 per sample (pre-emphasis, window), 4 per twiddle of the FFT of half size and per pair of bins to split it,
        2 per bin for the power, 1 per bin for the filters.
        """
        half = self.n_fft // 2
        twiddles = sum((radix - 1) * (half // radix) for radix in tables.radices(half)[1:])
        macs = 2 * self.frame + 4 * twiddles + 2 * half + 2 * half + self.segments().bins
        return Cost(macs * outputs[0].size // self.n_mels)


@dataclass(frozen=True)
class IntegerFrontEnd(FrontEnd):
    """What the integer form has beside: the type of its features and their scale."""

    dtype: str = "int8"
    out_scale: float = 1.0
    out_zero_point: int = 0

    def scales(self) -> tables.Scales:
        out = (self.out_scale, self.out_zero_point)
        return tables.scales(self.frame, self.n_fft, self.preemphasis, self.floor, self.offset, self.scale, out)
