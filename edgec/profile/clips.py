"""Reading an input for a compiled model from a file."""

from __future__ import annotations

import csv
from collections.abc import Callable
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from edgec.errors import InputError
from edgec.files import read_array, read_arrays, read_text, unreadable

Array = np.ndarray[Any, np.dtype[Any]]
Note = Callable[[str], None]
RATES = (1_000, 384_000)  # Hz
LOUDEST = 1.1  # what a codec or a resampling filter makes of full scale
BLOCK = 1 << 16  # samples read at once: what a damaged header promises is not believed


def read_wav(path: str | Path, rate: int | None, note: Note = lambda text: None) -> Array:
    """Samples of a sound file as int16 [N]: .wav of any width, float or extensible, or .flac, .ogg.

    Several channels become their mean, another rate is resampled to `rate` (None: any will do), floats beyond [-1,1]
    are clipped; `note` is told of each.
    InputError names what cannot be read.
    """
    samples, found = decoded(path)
    if samples.dtype != np.int16 or samples.shape[1] > 1 or (rate is not None and found != rate):
        if not np.isfinite(samples).all():
            raise InputError(f"{path}: expected finite samples, found NaN or infinity")
        mono = samples.mean(axis=1, dtype=np.float64) / (32768.0 if samples.dtype == np.int16 else 1.0)
        if samples.shape[1] > 1:
            note(f"{path}: the mean of its {samples.shape[1]} channels is taken")
        if rate is not None and found != rate:
            mono = resampled(mono, found, rate)
            note(f"{path}: resampled from {found:,} to {rate:,} Hz")
        if (peak := float(np.abs(mono).max(initial=0.0))) > LOUDEST:
            note(f"{path}: samples reach {peak:.4g}, and are clipped to [-1, 1], the range of floats in a sound file")
        samples = np.clip(np.round(mono * 32768.0), -32768, 32767).astype(np.int16)[:, None]
    return np.ascontiguousarray(samples[:, 0])


def decoded(path: str | Path) -> tuple[Array, int]:
    """Samples [N, channels] and rate of a sound file: int16 as they are, all others as float64 in [-1,1)."""
    try:
        import soundfile
    except (ImportError, OSError) as err:  # OSError: the package is there, its library libsndfile is not
        raise InputError(f"{path}: soundfile, which reads it, is missing: {err}", hint="pip install soundfile") from err
    try:
        with soundfile.SoundFile(path) as clip:
            if not RATES[0] <= clip.samplerate <= RATES[1]:
                raise InputError(f"{path}: expected {RATES[0]:,} to {RATES[1]:,} Hz, found {clip.samplerate:,} Hz")
            kind = "int16" if clip.subtype == "PCM_16" else "float64"
            blocks = [clip.read(0, dtype=kind, always_2d=True)]
            while len(block := clip.read(BLOCK, dtype=kind, always_2d=True)):
                blocks.append(block)
            return np.concatenate(blocks), int(clip.samplerate)
    except InputError:
        raise
    except Exception as err:  # soundfile raises several kinds, for a missing file too
        there = Path(path)
        cause = err if there.is_file() else IsADirectoryError() if there.is_dir() else FileNotFoundError()
        raise unreadable(path, "a sound file", cause, "convert it: sox IN -r 16000 -c 1 -b 16 OUT.wav") from err


def resampled(x: Array, found: int, rate: int) -> Array:
    """Samples at another rate, by the polyphase filter of scipy."""
    from scipy.signal import resample_poly

    common = gcd(found, rate)
    return np.asarray(resample_poly(x, rate // common, found // common)) if x.size else x


def read_series(path: str | Path, columns: int) -> Array:
    """A table of numbers as float32 [rows, columns]: a line a sample, a column a channel, first a line of names if any.

    InputError names the line where a cell is no finite number, or the number of columns is another.
    """
    try:
        rows = csv.reader(read_text(path, "a table").splitlines())
        lines = [(k, row) for k, row in enumerate(rows, 1) if row]
    except csv.Error as err:
        raise unreadable(path, "a table", err) from err
    if lines and all(number(cell) is None for cell in lines[0][1]):
        lines = lines[1:]
    if not lines:
        raise InputError(f"{path}: expected a line of numbers for each sample, found none")
    for k, row in lines:
        if len(row) != columns:
            raise InputError(
                f"{path}, line {k}: expected {columns} column{'s' * (columns != 1)}, found {len(row)}",
                hint="one column for each channel of the model's input, and none for the time",
            )
        bad = next((cell for cell in row if (v := number(cell)) is None or not np.isfinite(v)), None)
        if bad is not None:
            raise InputError(f"{path}, line {k}: expected finite numbers, found {bad.strip()[:40]!r}")
    return np.array([[number(cell) for cell in row] for _, row in lines], np.float32)


def number(cell: str) -> float | None:
    """A cell as a number; None where it is none."""
    try:
        return float(cell)
    except ValueError:
        return None


def read_input(
    path: str | Path, rate: int | None, columns: int = 1, note: Note = lambda text: None
) -> Array | dict[str, Array]:
    """A sound file (`read_wav`), a .npy array, a .csv table of so many columns, or an .npz of arrays by input name."""
    suffix = Path(path).suffix.lower()
    if suffix == ".csv":
        return read_series(path, columns)
    if suffix == ".npz":
        return read_arrays(path)
    if suffix == ".npy":
        return read_array(path)
    return read_wav(path, rate, note)
