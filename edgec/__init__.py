"""edgec: an edge and neuromorphic deployment compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgec.compiled import CompiledModel
    from edgec.frontends import load
    from edgec.pipeline import compile_model as compile

__version__ = "0.1.0"
__all__ = ["CompiledModel", "compile", "load", "open"]


def open(folder: str) -> CompiledModel:
    """A folder that `compile` wrote."""
    from edgec.compiled import CompiledModel

    return CompiledModel(folder)


def __getattr__(name: str) -> Any:
    # torch and TVM take seconds to import: `edgec --help` and the text tools never pay for them
    if name == "compile":
        from edgec.pipeline import compile_model

        return compile_model
    if name == "load":
        from edgec.frontends import load

        return load
    if name == "CompiledModel":
        from edgec.compiled import CompiledModel

        return CompiledModel
    raise AttributeError(f"module 'edgec' has no attribute {name!r}")
