"""Sound files as users have them, against what was written into them."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgec.errors import InputError
from edgec.profile.clips import read_input, read_wav

X = np.round(12000 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)).astype(np.int16)


def write(path: Path, x: np.ndarray, rate: int = 16000, **options: str) -> Path:
    soundfile.write(path, x, rate, **options)
    return path


@pytest.mark.parametrize(
    ("form", "kind"),
    [("WAV", "PCM_16"), ("WAVEX", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"),
     ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("RF64", "PCM_16"), ("AIFF", "PCM_16")],
)  # fmt: skip
def test_every_width_holds_the_same_samples(form: str, kind: str, tmp_path: Path) -> None:
    notes: list[str] = []
    samples = X / 32768.0 if kind in ("FLOAT", "DOUBLE") else X
    found = read_wav(write(tmp_path / "x.wav", samples, format=form, subtype=kind), 16000, notes.append)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, X)
    assert not notes


def test_a_wav_of_pythons_own_writer(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", "not compressed"))
        file.writeframes(X.astype("<i2").tobytes())
    np.testing.assert_array_equal(read_wav(tmp_path / "x.wav", 16000), X)


def test_channels_are_mixed_down_with_a_note(tmp_path: Path) -> None:
    notes: list[str] = []
    both = np.stack([X, X // 3], axis=1)
    found = read_wav(write(tmp_path / "x.wav", both), 16000, notes.append)
    assert np.abs(found - both.astype(np.float64).mean(axis=1)).max() <= 0.5
    assert notes == [f"{tmp_path / 'x.wav'}: the mean of its 2 channels is taken"]


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_another_rate_is_resampled_with_a_note(rate: int, tmp_path: Path) -> None:
    """A tone of 440 Hz written at another rate is the same tone at the model's, but for the ends."""
    tone = 12000 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    notes: list[str] = []
    found = read_wav(write(tmp_path / "x.wav", np.round(tone).astype(np.int16), rate), 16000, notes.append)
    assert found.size == 16000
    assert np.abs(found[500:-500].astype(float) - X[500:-500]).max() < 60
    assert notes == [f"{tmp_path / 'x.wav'}: resampled from {rate:,} to 16,000 Hz"]


def test_loud_floats_are_clipped_and_silence_of_no_length_is_read(tmp_path: Path) -> None:
    loud = write(tmp_path / "x.wav", np.array([1.5, -1.5, 0.0], np.float32), subtype="FLOAT")
    assert read_wav(loud, None).tolist() == [32767, -32768, 0]
    assert read_wav(write(tmp_path / "y.wav", X[:0], 8000), 16000).size == 0


def test_what_is_no_sound(tmp_path: Path) -> None:
    text = tmp_path / "x.wav"
    text.write_bytes(b"RIFFnothing")
    for path, message in (
        (text, "cannot be read as a sound file"),
        (tmp_path / "none.wav", "no such file"),
        (tmp_path, "expected a sound file, found a folder"),
        (write(tmp_path / "slow.wav", X, 100), "expected 1,000 to 384,000 Hz, found 100 Hz"),
        (write(tmp_path / "nan.wav", np.full(9, np.nan, np.float32), subtype="FLOAT"), "expected finite samples"),
    ):
        with pytest.raises(InputError, match=message):
            read_wav(path, 16000)


def test_floats_beyond_full_scale_are_clipped_with_a_note(tmp_path: Path) -> None:
    """As where somebody wrote int16 values as floats; a little beyond it is what a codec does, and not told."""
    for peak, told in ((8000.0, True), (1.05, False)):
        notes: list[str] = []
        path = tmp_path / f"{peak}.wav"
        soundfile.write(path, np.linspace(-peak, peak, 100), 16000, subtype="FLOAT")
        found = read_wav(path, 16000, notes.append)
        assert (found.min(), found.max()) == (-32768, 32767)
        assert bool(notes) == told
        assert all(f"samples reach {peak:g}, and are clipped to [-1, 1]" in note for note in notes)


def test_a_suffix_in_capitals(tmp_path: Path) -> None:
    np.save(tmp_path / "x", np.ones(5, np.float32))
    (tmp_path / "x.npy").rename(tmp_path / "X.NPY")
    np.testing.assert_array_equal(read_input(tmp_path / "X.NPY", 16000), np.ones(5, np.float32))
