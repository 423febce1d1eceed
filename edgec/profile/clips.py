"""Reading an input for a compiled model from a file."""

from __future__ import annotations

import csv
import wave
from pathlib import Path
from typing import Any

import numpy as np

from edgec.errors import InputError
from edgec.files import read_array, read_arrays

Array = np.ndarray[Any, np.dtype[Any]]


def read_wav(path: str | Path, rate: int | None) -> Array:
    """Samples of a 16-bit mono PCM wav as int16 [N]; another form or rate is an error that names both."""
    try:
        with wave.open(str(path), "rb") as clip:
            width, channels, found = clip.getsampwidth(), clip.getnchannels(), clip.getframerate()
            data = clip.readframes(clip.getnframes())
    except FileNotFoundError as err:
        raise InputError(f"{path}: no such file") from err
    except (wave.Error, EOFError, OSError) as err:
        raise InputError(
            f"{path} is not a PCM wav file: {err}", hint="convert it: sox IN -r 16000 -c 1 -b 16 OUT.wav"
        ) from err
    if (width, channels) != (2, 1):
        raise InputError(f"{path}: expected 16-bit mono, found {8 * width}-bit with {channels} channels")
    if rate is not None and found != rate:
        raise InputError(
            f"{path}: expected {rate} Hz, found {found} Hz", hint=f"resample it: sox {path} -r {rate} OUT.wav"
        )
    return np.frombuffer(data[: len(data) // 2 * 2], dtype="<i2").astype(np.int16)


def read_series(path: str | Path, columns: int) -> Array:
    """A table of numbers as float32 [rows, columns]: a line a sample, a column a channel, first a line of names if any.

    InputError names the line where a cell is no finite number, or the number of columns is another.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            lines = [(k, row) for k, row in enumerate(csv.reader(file), 1) if row]
    except FileNotFoundError as err:
        raise InputError(f"{path}: no such file") from err
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise InputError(f"{path} cannot be read as a table: {err}") from err
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


def read_input(path: str | Path, rate: int | None, columns: int = 1) -> Array | dict[str, Array]:
    """A .wav clip, a .npy array, a .csv table of so many columns, or an .npz of arrays by input name."""
    if str(path).endswith(".csv"):
        return read_series(path, columns)
    if str(path).endswith(".npz"):
        return read_arrays(path)
    if str(path).endswith(".npy"):
        return read_array(path)
    return read_wav(path, rate)
