"""Tables of the audio front end as its kernels read them: FFT order and twiddles, filter segments, integer scales."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import floor, log, log2

import numpy as np
import numpy.typing as npt

from edgec.signal_math import hann_window, mel_scale

Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]

EMPHASIS = 32767  # the factor 1 of pre-emphasis, as large as a 16-bit lane holds
LOG_SEGMENTS = 64  # straight pieces of log2 per octave: error below 5e-5


def radices(size: int) -> tuple[int, ...]:
    """Radix of each stage of a complex FFT of `size` (a power of two from 8), the first stage first."""
    bits = size.bit_length() - 1
    return (4,) * (bits // 2) + (2,) * (bits % 2)


def positions(size: int) -> Int:
    """Where input n of the FFT has to lie so that the output comes in order: its mixed-radix digits reversed."""
    at, rest, block = np.zeros(size, np.int64), np.arange(size), size
    for radix in reversed(radices(size)):
        block //= radix
        at += (rest % radix) * block
        rest //= radix
    return at


def stage_angles(size: int) -> list[tuple[int, int, Float]]:
    """(radix, span, angles [span/radix, radix-1]) of each stage after the first, whose twiddles are all 1."""
    stages, span = [], 4
    for radix in radices(size)[1:]:
        span *= radix
        j, m = np.arange(span // radix)[:, None], np.arange(1, radix)[None, :]
        stages.append((radix, span, 2.0 * np.pi * j * m / span))
    return stages


def cos_sin(angles: Float) -> Float:
    """Cosine and sine side by side on a new last axis."""
    return np.stack([np.cos(angles), np.sin(angles)], -1)


@dataclass(frozen=True)
class Segments:
    """The mel triangles as segments between neighbouring centres.

    Bin `first + i` lies in the segment that holds i by `bounds` (n_mels + 2 of them). It counts with `rising[i]` for
    the filter whose centre ends the segment and with 1 - rising[i] for the one whose centre starts it.
    """

    first: int
    bounds: tuple[int, ...]
    rising: Float

    @property
    def bins(self) -> int:
        return self.bounds[-1]

    @property
    def of_bin(self) -> Int:
        """Segment of each bin."""
        return np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))


@lru_cache(maxsize=16)
def mel_segments(sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> Segments:
    """The same filters as signal_math.mel_matrix, which has one row per filter."""
    low, high = (float(m) for m in mel_scale(np.array([f_min, f_max], dtype=np.float64)))
    place = (mel_scale(np.arange(n_fft // 2, dtype=np.float64) * (sample_rate / n_fft)) - low) / (
        (high - low) / (n_mels + 1)
    )
    inside = np.flatnonzero((place > 0.0) & (place < n_mels + 1))
    first = int(inside[0]) if len(inside) else 0
    place = place[inside]
    segment = np.floor(place).astype(np.int64)
    bounds = np.searchsorted(segment, np.arange(n_mels + 2))
    return Segments(first, tuple(int(b) for b in bounds), place - segment)


@dataclass(frozen=True)
class Scales:
    """The integer front end's constants; `QLogMel` says where each is used."""

    preemphasis: int  # times EMPHASIS
    mean: int  # (1 - preemphasis) / frame, times EMPHASIS * 2^30
    spectrum: int  # fraction bits of samples and spectrum
    floor: int  # log2 of the floor in units of the mel energies, which have 2 * spectrum - 1 fraction bits; Q15
    multiplier: int
    shift: int
    bias: int

    @property
    def energy(self) -> int:
        return 2 * self.spectrum - 1


def spectrum_bits(frame: int, n_fft: int) -> int:
    """Most fraction bits for which no FFT value leaves int32 and no sum of powers leaves int64, for any input.

    After pre-emphasis |p| <= 2. Twice the spectrum of the even or of the odd samples is the largest value of all; by
    Parseval's theorem the powers of the bins sum to at most (n_fft sum(y^2) + 2 sum(|y|)^2) / 2.
    """
    window = 2.0 * hann_window(frame)
    half = max(window[0::2].sum(), window[1::2].sum(), window.sum() / 2)
    powers = n_fft * float(window @ window) / 2 + float(window.sum()) ** 2
    return min(floor(31 - log2(2.0 * half * 1.01)), floor((63 - log2(powers * 1.02)) / 2), 28)


def scales(
    frame: int, n_fft: int, preemphasis: float, least: float, offset: float, scale: float, out: tuple[float, int]
) -> Scales:
    """Integer constants for a front end; `out` is scale and zero point of the features."""
    pre, bits = round(preemphasis * EMPHASIS), spectrum_bits(frame, n_fft)
    energy = 2 * bits - 1
    slope = log(2.0) / 32768 * scale / out[0]
    shift = 30 - floor(log2(abs(slope)))
    bias = (-(energy * log(2.0) + offset) * scale / out[0] + out[1] + 0.5) * 2.0**shift
    reach = abs(slope) * 2.0**21 + abs(bias) / 2.0**shift  # largest feature before it is clamped
    if not 1 <= shift <= 62 or reach >= 2.0**31 or abs(bias) >= 2.0**62:
        raise ValueError(f"features times {scale} do not fit integers of scale {out[0]}")
    mean = round((EMPHASIS - pre) * 2**30 / frame)
    return Scales(pre, mean, bits, round((log2(least) + energy) * 32768), round(slope * 2.0**shift), shift, round(bias))


def integer_window(window: Float, spectrum: int) -> Int:
    """Window that takes samples with 30 fraction bits, times EMPHASIS / 2^15, to `spectrum` of them by high words."""
    return np.rint(window * (2.0 ** (spectrum + 2) * 32768 / EMPHASIS)).astype(np.int64)


def q31(values: Float) -> Int:
    """Numbers in [-1, 1] with 31 fraction bits; 1 becomes the largest int32."""
    return np.clip(np.rint(values * 2.0**31), -(2.0**31), 2.0**31 - 1).astype(np.int64)


def q15(values: Float) -> Int:
    """Numbers in [0, 1] with 15 fraction bits; 1 becomes the largest int16."""
    return np.clip(np.rint(values * 32768.0), 0, 32767).astype(np.int64)


def log2_table() -> Int:
    """log2(1 + i/64) for i = 0..64, Q15."""
    return q15(np.log2(1.0 + np.arange(LOG_SEGMENTS + 1) / LOG_SEGMENTS))
