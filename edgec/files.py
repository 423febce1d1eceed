"""Reading what a user hands in: text, lines, tables (TOML, JSON), arrays (.npy, .npz).

One reader for each kind; whatever is wrong with a file is an InputError that names it. Nothing in a file is unpickled.
"""

from __future__ import annotations

import json
import os
import tomllib
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgec.errors import EdgecError, InputError
from edgec.schema import checked

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]
    T = TypeVar("T")


def unreadable(path: str | Path, what: str, err: Exception, hint: str | None = None) -> InputError:
    """The error for a file that was to be read as `what`, such as "a table"."""
    if isinstance(err, FileNotFoundError):
        return InputError(f"{path}: no such file", hint=hint)
    if isinstance(err, IsADirectoryError):
        return InputError(f"{path}: expected {what}, found a folder", hint=hint)
    if isinstance(err, UnicodeDecodeError):
        return InputError(f"{path}: expected {what} in UTF-8, found byte 0x{err.object[err.start]:02x}", hint=hint)
    reason = (err.strerror if isinstance(err, OSError) else None) or str(err) or type(err).__name__
    return InputError(f"{path} cannot be read as {what}: {reason[:400]}", hint=hint)


def read_text(path: str | Path, what: str = "text", hint: str | None = None) -> str:
    """A text file in UTF-8, with or without a byte order mark."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as err:
        raise unreadable(path, what, err, hint) from err


def read_lines(path: str | Path, what: str) -> tuple[str, ...]:
    """The lines of a text file without the blanks around them; empty ones are left out."""
    return tuple(line.strip() for line in read_text(path, what).splitlines() if line.strip())


def read_table(path: str | Path, what: str, hint: str | None = None, form: str | None = None) -> Any:
    """What a file holds, its types unchecked. form: TOML or JSON, by default as its name ends."""
    text, form = read_text(path, what, hint), form or ("TOML" if str(path).endswith(".toml") else "JSON")
    try:
        return tomllib.loads(text) if form == "TOML" else json.loads(text)
    except (ValueError, RecursionError) as err:
        raise unreadable(path, f"{what} ({form})", err, hint) from err


def read_as(kind: type[T], path: str | Path, what: str, hint: str | None = None) -> T:
    """A .toml or .json file as a dataclass; the InputError lists every key that is wrong."""
    return checked(kind, read_table(path, what, hint), f"{path}: not {what}", hint=hint)


def read_array(path: str | Path, hint: str | None = None) -> Array:
    """The array of a .npy file, in this computer's byte order."""
    import numpy as np

    def load() -> list[tuple[str, Array]]:
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise InputError(f"{path}: expected a .npy array, found an archive of arrays (.npz)", hint=hint)
        return [("", array)]

    return _loaded(path, "a .npy array", load, hint)[""]


def read_arrays(path: str | Path, hint: str | None = None, least: int = 1) -> dict[str, Array]:
    """The arrays of an .npz file by name, in their order; at least so many."""
    import numpy as np

    def load() -> list[tuple[str, Array]]:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(f"{path}: expected an .npz archive of arrays, found one array", hint=hint)
        with archive:
            return [(name, archive[name]) for name in archive.files]

    found = _loaded(path, "an .npz archive of arrays", load, hint)
    if len(found) < least:
        raise InputError(f"{path}: expected an .npz archive of arrays, found none", hint=hint)
    return found


def _loaded(path: str | Path, what: str, load: Any, hint: str | None) -> dict[str, Array]:
    """What numpy reads, of numbers or text alone: numpy raises many kinds of exceptions for damaged files."""
    import numpy as np

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arrays = {name: np.asarray(array) for name, array in load()}
    except EdgecError:
        raise
    except Exception as err:
        raise unreadable(path, what, err, hint) from err
    for name, array in arrays.items():
        if array.dtype.kind not in "biufcU":
            where = f"{path}: {name}" if name else str(path)
            raise InputError(f"{where}: expected an array of numbers, found the type {array.dtype}", hint=hint)
    return {name: array.astype(array.dtype.newbyteorder("="), copy=False) for name, array in arrays.items()}


def as_array(given: Any, what: str) -> Array:
    """An array from one, a tensor of torch's (detached), or nested lists, half precision as float32; InputError, which
    begins with `what`, for anything else. Of which numbers is left to who reads it."""
    import numpy as np

    try:
        if hasattr(given, "detach"):
            tensor = given.detach().cpu()
            given = (tensor.float() if str(tensor.dtype) in ("torch.float16", "torch.bfloat16") else tensor).numpy()
        array = np.asarray(given)
    except Exception as err:
        raise InputError(f"{what}: expected an array, found {type(given).__name__}: {str(err)[:400]}") from err
    if array.dtype.kind == "O":
        raise InputError(f"{what}: expected an array, found {type(given).__name__}")
    return array.astype(np.float32) if array.dtype == np.float16 else array


def is_zip(path: str | Path) -> bool:
    """Whether a file is a zip archive, by its directory."""
    try:
        return zipfile.is_zipfile(path)
    except (OSError, zipfile.BadZipFile):  # a directory that says what no archive of one file has
        return False


def parent_of(path: Path) -> Path:
    """The folder that exists, in which a path would be made."""
    return next(p for p in path.resolve().parents if p.exists())


def check_file(path: Path, what: str, option: str) -> None:
    """InputError unless a file of this path can be written: see `check_writable`."""
    if path.is_dir():
        raise InputError(f"{what} {path} cannot be written: it is a folder", hint=f"give another with {option}")
    check_writable(path, what, option)


def check_writable(path: Path, what: str, option: str) -> None:
    """InputError unless a file or folder of this path can be made: its name is one that the disk takes, and the nearest
    folder that exists, itself or above it, can be written."""
    try:
        path.resolve().lstat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else str(err)
        raise InputError(f"{what} {path} cannot be written: {reason}", hint=f"give another with {option}") from err
    parent = path if path.is_dir() else parent_of(path)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(
            f"{what} {path} cannot be written: {parent} is not a writable folder", hint=f"give another with {option}"
        )
