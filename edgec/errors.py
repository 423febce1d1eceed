"""Errors a user can cause, and the one that edgec causes. Each says where, what was expected, what was found and the
next step.

What the next step names is an option on the command line and an argument in Python: `option` stands for both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_OPTION = re.compile("\x02([^\x1f]*)\x1f([^\x03]*)\x03")
#: options whose argument is not of the same name and value; {} is the value
_OTHERWISE = {
    "out": ("-o {}", "out={!r}"),
    "emit_kind": ("--emit {}", "emit_kind={!r}"),
    "on": ("--on {}", "device({!r})"),
    "output": ("--output {}", "outputs=[{!r}]"),
    "sliding": ("--sliding", "sliding=True"),
    "whole": ("--whole", "streaming=False"),
}


def option(name: str, value: str | None = None) -> str:
    """A compile option in the text of an error: `--precision float32` on the command line, `precision='float32'` in
    Python; without a value its name alone."""
    shell, python = _OTHERWISE.get(name, (f"--{name.replace('_', '-')} {{}}", f"{name}={{!r}}"))
    if value is None:
        shell, python = shell.removesuffix(" {}"), re.sub(r"[=(]\[?\{!r\}[\])]*", "", python)
    return f"\x02{shell.format(value)}\x1f{python.format(value)}\x03"


def for_shell(text: str) -> str:
    """A text with its options as the command line spells them."""
    return _OPTION.sub(r"\1", text)


def for_python(text: str) -> str:
    """A text with its options as Python spells them."""
    return _OPTION.sub(r"\2", text)


class EdgecError(Exception):
    """A problem the user can mend: the CLI prints it without a traceback and exits with code 2.

    `message`, `hint` and str() name arguments of Python, `for_shell` the options of the command line.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(for_python(message))
        self._text = message if hint is None else f"{message}\n  hint: {hint}"
        self.message = for_python(message)
        self.hint = None if hint is None else for_python(hint)

    def __str__(self) -> str:
        return for_python(self._text)

    def for_shell(self) -> str:
        """The whole text for the command line."""
        return for_shell(self._text)


class FrontendError(EdgecError):
    """The model file or module cannot be imported."""


class VerifyError(EdgecError):
    """A graph breaks an invariant of the IR."""


class PassError(EdgecError):
    """A pass cannot be applied to this graph."""


class BudgetError(EdgecError):
    """The compiled model exceeds a flash, RAM or latency budget."""


class TargetError(EdgecError):
    """A target name or target file is wrong."""


class CodegenError(EdgecError):
    """A graph cannot be turned into code for this target."""


class ToolchainError(EdgecError):
    """A compiler, linker or emulator is missing or failed."""


class InputError(EdgecError):
    """Data handed to the compiler or to a compiled model has the wrong form."""


class MachineError(EdgecError):
    """The computer refuses what is needed: a full disk, no permission, too little memory."""


class InternalError(EdgecError):
    """A fault of edgec's own, raised from the exception that shows it; the CLI exits with code 70. `report` is a file
    with what a bug report needs."""

    def __init__(self, message: str, *, hint: str | None = None, report: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.report = report


def join_problems(head: str, problems: Sequence[str]) -> str:
    """One message that lists every problem, not only the first."""
    return "\n".join([head, *(f"  - {p}" for p in problems)])
