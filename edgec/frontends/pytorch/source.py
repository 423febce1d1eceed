"""Where in the user's own code a node of an exported program comes from."""

from __future__ import annotations

import re
from typing import Any

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
#: Code that is not the user's: libraries, and the modules edgec offers.
_LIBRARY = re.compile(
    r"[/\\](site|dist)-packages[/\\](torch|snntorch|spikingjelly|edgec)[/\\]|[/\\]edgec[/\\](nn|frontends)[/\\]"
)


def source_line(stack_trace: str | None) -> str | None:
    """`model.py:41`: the innermost frame in user code; None where there is none."""
    frames = _FRAME.findall(stack_trace or "")
    own = [frame for frame in frames if not _LIBRARY.search(frame[0])]
    if not own:
        return None
    file, line = own[-1]
    name = re.split(r"[/\\]", file)[-1]
    return f"{name}:{line}"


def module_path(stack: Any, prefix: str = "") -> str:
    """`embed.norm0`: the path of the innermost module that was running, without the prefix."""
    path = str(list(stack.values())[-1][0]) if stack else ""
    path = f"{path}.".removeprefix(prefix).rstrip(".")
    return re.sub(r"@\d+", "", path)  # torch numbers the calls of a module that is called more than once


def source_of(meta: Any, fallback: str, prefix: str = "") -> tuple[str, ...]:
    """What `Node.source` gets: source line and module path."""
    line, path = source_line(meta.get("stack_trace")), module_path(meta.get("nn_module_stack"), prefix)
    text = " ".join(part for part in (line, path) if part)
    return (text or fallback,)
