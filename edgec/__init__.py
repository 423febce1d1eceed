"""edgec: an edge and neuromorphic deployment compiler.

`compile` and `open` are used with the package's name: `from edgec import *` leaves Python's own alone.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING

from edgec.errors import EdgecError
from edgec.guard import guarded

if TYPE_CHECKING:
    from edgec import nn
    from edgec.compiled import CompiledModel
    from edgec.frontends import load
    from edgec.options import Budget, Options
    from edgec.pipeline import compile_model
    from edgec.profile.verify.compare import verify_model

    compile = compile_model
    verify = verify_model

__version__ = "0.1.0"
__all__ = ["Budget", "CompiledModel", "EdgecError", "Options", "load", "nn", "verify"]

# torch and TVM take seconds to import: `edgec --help` and the text tools never pay for them
_LAZY = {
    "Budget": ("edgec.options", "Budget"),
    "CompiledModel": ("edgec.compiled", "CompiledModel"),
    "compile": ("edgec.pipeline", "compile_model"),
    "load": ("edgec.frontends", "load"),
    "Options": ("edgec.options", "Options"),
    "nn": ("edgec.nn", None),
    "verify": ("edgec.profile.verify.compare", "verify_model"),
}


def open(folder: str) -> CompiledModel:
    """A folder that `compile` wrote."""
    from edgec.compiled import CompiledModel

    return CompiledModel(folder)


def __dir__() -> list[str]:
    return sorted({*__all__, "compile", "open", *(name for name in globals() if name.startswith("__"))})


if not TYPE_CHECKING:  # a type checker would take every name for Any

    def __getattr__(name):
        if name not in _LAZY:
            raise AttributeError(f"module 'edgec' has no attribute {name!r}")
        module, member = _LAZY[name]
        found = importlib.import_module(module)
        if member is not None:
            found = getattr(found, member)
        if inspect.isfunction(found):
            found = guarded(found, name)
        globals()[name] = found
        return found
