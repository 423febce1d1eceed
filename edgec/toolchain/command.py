"""Run a compiler or an emulator: an argv list in, captured output out, a ToolchainError when it fails."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgec.errors import ToolchainError

_TAIL_ARGS = 12
_TAIL_LINES = 40


def run_command(
    argv: Sequence[str], what: str, *, cwd: Path | None = None, timeout: float = 600.0, ok: Sequence[int] = (0,)
) -> str:
    """Run `argv` and return its stdout; `what` says in errors what was being done."""
    try:
        done = subprocess.run(
            list(argv), cwd=cwd, capture_output=True, text=True, errors="replace", timeout=timeout, check=False
        )
    except FileNotFoundError as e:
        raise ToolchainError(f"{what}: the program {argv[0]!r} is not installed") from e
    except (OSError, ValueError) as e:  # not executable, of another machine, a NUL among the arguments
        reason = e.strerror if isinstance(e, OSError) else str(e)
        raise ToolchainError(f"{what}: the program {argv[0]!r} cannot be run: {reason}") from e
    except subprocess.TimeoutExpired as e:
        raise ToolchainError(f"{what}: no result after {timeout:.0f} s\n  command: {_tail(argv)}") from e
    if done.returncode not in ok:
        lines = (done.stderr or done.stdout).strip().splitlines()
        shown = lines[:_TAIL_LINES] + ([f"... {len(lines) - _TAIL_LINES} more lines"] if lines[_TAIL_LINES:] else [])
        text = "\n".join(f"  | {line}" for line in shown)
        raise ToolchainError(f"{what} failed with {how_ended(done.returncode)}\n  command: {_tail(argv)}\n{text}")
    return done.stdout


def how_ended(code: int) -> str:
    """An exit code in words; a negative one is the signal that ended the program."""
    if code >= 0:
        return f"exit code {code}"
    known = {s.value: s.name for s in signal.Signals}
    return f"signal {known.get(-code, str(-code))}"


def _tail(argv: Sequence[str]) -> str:
    head = [Path(argv[0]).name, "..."] if len(argv) > _TAIL_ARGS else []
    return " ".join([*head, *argv[-_TAIL_ARGS:]])
