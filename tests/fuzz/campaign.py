"""Reading damaged files: each ends well or in an EdgecError that is not InternalError, within a time."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from unittest import mock

import numpy as np

from edgec.errors import EdgecError, InternalError
from edgec.guard import guarding
from tests.fuzz.damage import damaged
from tests.fuzz.formats import Format

SECONDS = 20  # for one file


@contextlib.contextmanager
def bounded(seconds: int) -> Iterator[None]:
    """TimeoutError after so long, where the system has alarms."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no end after {seconds} s")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(form: Format, count: int, work: Path, seed: int = 0) -> list[str]:
    """What went wrong with `count` damaged files of a format, a text each: none is as it should be."""
    rng = np.random.default_rng([seed, zlib.crc32(form.name.encode())])
    found = []
    for number in range(count):
        name = sorted(form.seeds)[rng.integers(len(form.seeds))]
        path = work / name
        path.write_bytes(damaged(form.seeds[name], form.kind, rng))
        with tempfile.TemporaryDirectory(dir=work) as reports, mock.patch("tempfile.tempdir", reports):
            problem = outcome(form, path)
        if problem:
            found.append(f"{form.name}, seed {seed}, file {number} ({name}): {problem}")
    return found


def outcome(form: Format, path: Path) -> str:
    """Empty, or why reading a file ended badly."""
    try:
        with bounded(SECONDS), guarding(form.name, {}):
            form.read(path)
    except InternalError as err:
        cause = err.__cause__ or err
        where = traceback.extract_tb(cause.__traceback__)[-1]
        own = [f for f in traceback.extract_tb(cause.__traceback__) if "/edgec/" in f.filename][-1:]
        places = "; ".join(f"{Path(f.filename).name}:{f.lineno} {f.line}" for f in (*own, where))
        return f"{type(cause).__name__}: {str(cause)[:200]} at {places}"
    except EdgecError as err:
        return "" if err.message.strip() else "an error without words"
    return ""
