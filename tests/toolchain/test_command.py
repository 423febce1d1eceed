"""Compilers that are missing, cannot be run, crash or fail: one ToolchainError that says what was being done."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgec.errors import ToolchainError
from edgec.toolchain.command import run_command


def script(path: Path, text: str, mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_a_program_that_cannot_be_run(tmp_path: Path) -> None:
    for program, message in (
        (str(tmp_path / "none"), r"compiling x\.c: the program .*none' is not installed"),
        (
            script(tmp_path / "plain", "#!/bin/sh\n", 0o644),
            "compiling x.c: the program .*plain' cannot be run: Permission",
        ),
        (script(tmp_path / "empty", "\0\1\2"), "cannot be run: Exec format error"),
        (str(tmp_path), "cannot be run: Permission denied"),
        ("a\0b", "cannot be run: embedded null byte"),
    ):
        with pytest.raises(ToolchainError, match=message):
            run_command([program, "-c", "x.c"], "compiling x.c")


def test_a_program_that_fails_or_crashes(tmp_path: Path) -> None:
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    with pytest.raises(ToolchainError, match=r"compiling x\.c failed with signal SIGSEGV"):
        run_command([sys.executable, "-c", crash], "compiling x.c")
    with pytest.raises(ToolchainError, match=r"(?s)failed with exit code 3.*\| no such thing"):
        run_command([sys.executable, "-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"], "x")
    with pytest.raises(ToolchainError, match="no result after 1 s"):
        run_command([sys.executable, "-c", "import time; time.sleep(30)"], "x", timeout=1)
