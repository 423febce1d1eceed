"""The edge of the API: nothing but an EdgecError leaves it, whatever a user hands in.

What the machine refuses (a full disk, no permission, too long a name) is told as such; everything else that was not
foreseen is a fault of edgec's own, an InternalError raised from the original, with a file for a bug report.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib.metadata
import inspect
import os
import platform
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, ParamSpec, TypeVar

from edgec.arguments import annotations_of, check_types
from edgec.errors import EdgecError, InternalError, MachineError

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)
#: what the operating system may refuse however right edgec is
_REFUSALS = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "EMFILE", "ENFILE", "ENOMEM", "EAGAIN"),
        *("EACCES", "EPERM", "ENAMETOOLONG", "ELOOP"),
    )
    if hasattr(errno, name)
)
_USERS = "__edgec_passes_through__"
_PACKAGES = ("edgec", "numpy", "scipy", "torch", "apache-tvm", "ziglang", "unicorn", "onnx-ir", "tflite", "snntorch")


def guarded(call: Callable[P, R], name: str | None = None) -> Callable[P, R]:
    """The same function, out of which only an EdgecError comes; `name` is what edgec calls it. A call that does not
    fit its signature stays a TypeError, as anywhere in Python; an argument of another type is an InputError."""
    signature, annotations = inspect.signature(call), functools.cache(lambda: annotations_of(call))

    @functools.wraps(call)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs).arguments
        with guarding(call.__qualname__, given):
            check_types(annotations(), given)
            return call(*args, **kwargs)

    if name is not None:  # pickled by this name, as a pool of processes does
        checked.__module__, checked.__name__, checked.__qualname__ = "edgec", name, name
    return checked


def guarded_methods(kind: C) -> C:
    """A class whose public methods and constructor are guarded."""
    for name, member in list(vars(kind).items()):
        if inspect.isfunction(member) and (name == "__init__" or not name.startswith("_")):
            setattr(kind, name, guarded(member))
    return kind


def users_own(call: Callable[P, R]) -> Callable[P, R]:
    """A function of the user's; what it raises passes through as it is."""

    @functools.wraps(call)
    def marking(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except Exception as err:
            setattr(err, _USERS, True)
            raise

    return marking


@contextlib.contextmanager
def guarding(what: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Turn whatever else is raised into an EdgecError; `what` was called with these arguments."""
    try:
        yield
    except (EdgecError, BrokenPipeError):  # whoever read the output has gone: nobody's fault
        raise
    except Exception as err:
        if getattr(err, _USERS, False):
            raise
        raise_as_edgecs(err, what, arguments)


def raise_as_edgecs(err: Exception, what: str, arguments: Mapping[str, Any]) -> NoReturn:
    """Raise what an unforeseen exception means for the user, from that exception."""
    if isinstance(err, MemoryError):
        raise MachineError(f"this computer has too little memory for this: {str(err) or 'MemoryError'}") from err
    if isinstance(err, OSError) and (reason := refusal(err)):
        room = "free some room, or another disk in TMPDIR" if err.errno == errno.ENOSPC else None
        raise MachineError(reason, hint=room) from err
    path = write_report(err, what, arguments)
    kept = f"a bug report needs what is in {path}" if path else "no file for a bug report could be written"
    raise InternalError(
        f"edgec itself failed, by no fault of yours: {type(err).__name__}: {str(err)[:400]}", hint=kept, report=path
    ) from err


def refusal(err: OSError) -> str:
    """What the operating system refused, in words; empty where the fault may be edgec's."""
    if err.errno in _REFUSALS:
        where = "" if err.filename is None else f"{os.fsdecode(err.filename)}: "
        return f"{where}{err.strerror}"
    if "No usable temporary directory" in str(err):  # what tempfile says on a full disk
        return f"{err.strerror}; is the disk full?"
    return ""


def described(value: Any) -> str:
    """An argument without the user's data: plain values and paths as they are, anything else by type and shape."""
    if value is None or isinstance(value, (bool, int, float, str, os.PathLike)):
        return repr(value)
    shape = getattr(value, "shape", None)
    return f"<{type(value).__module__}.{type(value).__qualname__}{'' if shape is None else f' {shape}'}>"


def versions() -> Iterator[str]:
    """What is installed, a line a package."""
    yield f"Python {platform.python_version()} on {platform.platform()}"
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield f"{name} {importlib.metadata.version(name)}"


def write_report(err: BaseException, what: str, arguments: Mapping[str, Any]) -> str | None:
    """Versions, call and traceback in a new file of the temporary folder; its path, None where nothing can be
    written."""
    lines = [*versions(), "", what, *(f"  {name} = {described(value)}" for name, value in arguments.items()), ""]
    text = "\n".join(lines) + "\n" + "".join(traceback.format_exception(err))
    try:
        handle, path = tempfile.mkstemp(prefix="edgec-internal-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return None
    return path
