"""The audio front end against a frame-by-frame computation in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgec.nn import LogMel, log_mel
from edgec.signal_math import hann_window, mel_matrix

REGISTRATION = ("test_schema", "test_autograd_registration", "test_faketensor")

PUBLISHED = {"n_mels": 128, "offset": -6.845978, "scale": 1 / (2 * 5.5654526)}


def mel_energies(power: np.ndarray, n_mels: int, n_fft: int) -> np.ndarray:
    """Kaldi's filters one by one, by the frequency of each bin."""
    low, high = (1127 * np.log(1 + hertz / 700) for hertz in (20.0, 8000.0))
    energies = np.zeros(n_mels)
    for band in range(n_mels):
        left, centre, right = (low + (band + k) * (high - low) / (n_mels + 1) for k in range(3))
        for bin_, value in enumerate(power[: n_fft // 2]):
            mel = 1127 * np.log(1 + bin_ * 16000 / n_fft / 700)
            if left < mel <= centre:
                energies[band] += value * (mel - left) / (centre - left)
            elif centre < mel < right:
                energies[band] += value * (right - mel) / (right - centre)
    return energies


def frame_by_frame(pcm: np.ndarray, n_mels: int, offset: float, scale: float) -> np.ndarray:
    """Each frame cut, windowed and transformed by the definition of the DFT."""
    samples = np.concatenate((np.zeros(240), pcm))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
    dft = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
    rows = []
    for start in range(0, len(pcm), 160):
        frame = samples[start : start + 400]
        frame = frame - frame.mean()
        emphasised = frame - 0.97 * np.concatenate((frame[:1], frame[:-1]))
        power = np.abs(dft @ (emphasised * window)) ** 2
        energies = np.maximum(mel_energies(power, n_mels, 512), 1.1920929e-7)
        rows.append((np.log(energies) - offset) * scale)
    return np.array(rows)


@pytest.mark.parametrize("options", [{"n_mels": 40, "offset": -8.0, "scale": 0.125}, PUBLISHED])
def test_equals_the_frame_by_frame_computation(options):
    rng = np.random.default_rng(0)
    pcm = rng.normal(0, 0.1, 1600) * np.linspace(0, 1, 1600) + 0.3
    expected = frame_by_frame(pcm, **options)
    found = LogMel(**options)(torch.from_numpy(pcm)[None])[0]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    single = LogMel(**options)(torch.from_numpy(pcm).float()[None])[0]
    np.testing.assert_allclose(single, expected, atol=2e-3)


def test_published_tables():
    """Facts of the published front end: one empty filter, 504 weights, the value of silence."""
    mel = mel_matrix(16000, 512, 128, 20.0, 8000.0)
    assert np.count_nonzero(mel) == 504
    assert np.flatnonzero(~mel.any(axis=1)).size == 1
    silence = LogMel(**PUBLISHED)(torch.zeros(1, 320))
    torch.testing.assert_close(silence, torch.full_like(silence, -0.8172), atol=1e-4, rtol=0)


def test_window_is_torchs_symmetric_hann():
    expected = torch.hann_window(400, periodic=False, dtype=torch.float64)
    np.testing.assert_allclose(hann_window(400), expected, atol=1e-15)


def test_a_frame_never_looks_ahead():
    torch.manual_seed(0)
    pcm = torch.randn(2, 3200) * 0.1
    features = LogMel()(pcm)
    changed = pcm.clone()
    changed[:, 1600:] = 0.5
    assert torch.equal(LogMel()(changed)[:, :10], features[:, :10])
    assert not torch.equal(LogMel()(changed)[:, 10:], features[:, 10:])
    torch.testing.assert_close(LogMel()(pcm[:, :1600]), features[:, :10])


def test_a_frame_reaches_back_one_frame_length():
    torch.manual_seed(0)
    pcm = torch.randn(1, 3200) * 0.1
    late = LogMel()(pcm[:, -480:])
    torch.testing.assert_close(late[:, 2:], LogMel()(pcm)[:, -1:])


def test_gradient():
    front = (16000, 20, 8, 32, 4, 20.0, 8000.0, 0.97, 1e-7, -3.0, 0.2)
    pcm = torch.randn(2, 32, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: log_mel(x, *front), pcm)
    torch.library.opcheck(log_mel, (torch.randn(2, 32, requires_grad=True), *front), test_utils=REGISTRATION)


@pytest.mark.parametrize(
    ("options", "samples", "message"),
    [
        ({}, 161, "N a positive multiple of hop=160"),
        ({"n_fft": 256}, 160, "expected hop <= frame <= n_fft, found 160, 400, 256"),
        ({"floor": 0.0}, 160, "floor must be > 0"),
        ({"f_max": 9000.0}, 160, "0 <= f_min < f_max <= 8000.0"),
        ({"n_mels": 0}, 160, "n_mels must be >= 1"),
    ],
)
def test_bad_arguments_are_named(options, samples, message):
    with pytest.raises(ValueError, match=message):
        LogMel(**options)(torch.zeros(1, samples))
