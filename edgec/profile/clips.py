"""Reading an input for a compiled model from a file."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np

from edgec.errors import InputError

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


def read_input(path: str | Path, rate: int | None) -> Array:
    """A .wav clip or a .npy array."""
    if str(path).endswith(".npy"):
        try:
            return np.asarray(np.load(path, allow_pickle=False))
        except (OSError, ValueError, EOFError) as err:
            raise InputError(f"{path} cannot be read as an array: {err}") from err
    return read_wav(path, rate)
