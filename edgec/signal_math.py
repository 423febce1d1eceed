"""Tables of the audio front end in float64 numpy, shared by the torch modules and the kernels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
#: a 16-bit sample in units of full scale: PCM in [-1,1)
PCM_SCALE = 2.0**-15


def hann_window(length: int) -> Float64:
    """Return the symmetric Hann window 0.5 - 0.5 cos(2 pi n / (length - 1)).

    length: L >= 2 -> [L] in [0,1]. ValueError if L < 2. Kaldi feature-window.cc, "hanning".
    """
    if length < 2:
        raise ValueError(f"hann_window: length must be >= 2, found {length}")
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / (length - 1))


def mel_scale(hertz: Float64) -> Float64:
    """Return 1127 ln(1 + f/700). hertz: any shape, >= 0 -> same shape. Kaldi mel-computations.h."""
    return 1127.0 * np.log1p(hertz / 700.0)


def mel_matrix(sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> Float64:
    """Return the triangular mel filters, triangles being straight on the mel axis.

    n_fft: even, n_mels: M >= 1, 0 <= f_min < f_max <= sample_rate/2 -> [M, n_fft/2+1], rows >= 0;
    the Nyquist column is zero. ValueError outside these ranges. Kaldi mel-computations.cc, MelBanks.
    """
    if n_fft < 2 or n_fft % 2:
        raise ValueError(f"mel_matrix: n_fft must be even and >= 2, found {n_fft}")
    if n_mels < 1:
        raise ValueError(f"mel_matrix: n_mels must be >= 1, found {n_mels}")
    if not 0.0 <= f_min < f_max <= sample_rate / 2:
        raise ValueError(
            f"mel_matrix: expected 0 <= f_min < f_max <= {sample_rate / 2}, found f_min={f_min} and f_max={f_max}"
        )
    low, high = mel_scale(np.array([f_min, f_max]))
    step = (high - low) / (n_mels + 1)
    left = low + step * np.arange(n_mels)[:, None]
    mel = mel_scale(np.arange(n_fft // 2, dtype=np.float64) * sample_rate / n_fft)[None, :]
    rising = (mel - left) / step
    falling = (left + 2.0 * step - mel) / step
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return np.pad(triangles, ((0, 0), (0, 1)))
