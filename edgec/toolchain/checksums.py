"""SHA256SUMS of a compiled folder, in the form of `sha256sum`: what compile wrote is known again.

The host device runs a folder's C in this process, where damaged code could do anything: so it is not compiled at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from edgec.errors import EdgecError, InputError
from edgec.files import read_text, unreadable

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_sums(folder: Path) -> None:
    """A line for every file of the folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SUMS)
    lines = [f"{digest(p)}  {p.relative_to(folder).as_posix()}\n" for p in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def check_sums(folder: Path) -> None:
    """InputError where a file is not the one that compile wrote; a folder without sums, or a file that is missing, is
    for those who read it."""
    if not (folder / SUMS).exists():
        return
    for line in read_text(folder / SUMS, "checksums").splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise InputError(
                f"{folder / SUMS}: expected a line `sha256  file`, found {line[:80]!r}", hint="compile again"
            )
        path = folder / match[2]
        if path.is_file() and digest(path) != match[1]:
            raise InputError(
                f"{path} is not as compile wrote it: damaged, or changed",
                hint=f"compile again; where the change is yours, delete {folder / SUMS}: the folder is then taken as it"
                " is, and its C is run in this process",
            )


@contextlib.contextmanager
def as_changed(folder: Path) -> Iterator[None]:
    """A folder without sums may be damaged, or changed by hand: what fails on it unforeseen is told as that."""
    try:
        yield
    except (EdgecError, OSError, MemoryError):
        raise
    except Exception as err:
        if (folder / SUMS).exists():
            raise
        raise InputError(
            f"{folder} was changed, and its files do not fit each other any more: {type(err).__name__}:"
            f" {str(err)[:400]}",
            hint=f"compile again; whether a folder is as compile wrote it is known where {SUMS} lies in it",
        ) from err


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise unreadable(path, "a file of a compiled model", err) from err
