"""Errors a user can cause. Each says where, what was expected, what was found and the next step."""

from __future__ import annotations

from collections.abc import Sequence


class EdgecError(Exception):
    """A problem the user can mend: the CLI prints it without a traceback and exits with code 2."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"


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


def join_problems(head: str, problems: Sequence[str]) -> str:
    """One message that lists every problem, not only the first."""
    return "\n".join([head, *(f"  - {p}" for p in problems)])
