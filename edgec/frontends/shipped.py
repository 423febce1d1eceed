"""The models that ship with edgec: the package edgec_models, or the models folder beside the package in a checkout."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from edgec.errors import FrontendError


def folder() -> Path | None:
    """Where the shipped models are; None when there are none."""
    spec = importlib.util.find_spec("edgec_models")
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    beside = Path(__file__).resolve().parents[2] / "models"
    return beside if beside.is_dir() else None


def names() -> tuple[str, ...]:
    """The shipped models: the subfolders with a package."""
    root = folder()
    return () if root is None else tuple(sorted(p.parent.name for p in root.glob("*/__init__.py")))


def checkpoint_path(name: str) -> Path:
    """The trained weights of a shipped model."""
    root = folder()
    assert root is not None
    assert name in names()
    path = root / name / f"{name}.pt"
    if not path.is_file():
        raise FrontendError(
            f"the shipped model {name} has no trained weights {path.name}",
            hint=f"train it: python -m models.{name}.train",
        )
    return path


def file_of(model: str | Path) -> Path:
    """The file a user means: a path, or the weights of a shipped model."""
    path = Path(model)
    return checkpoint_path(str(model)) if not path.is_file() and str(model) in names() else path


def package(name: str) -> ModuleType:
    """The package of a shipped model, which has `build(config)`. The name is checked: it may come from a file."""
    root = folder()
    if root is None or name not in names():
        raise FrontendError(f"expected one of the shipped models {', '.join(names()) or '(none)'}, found {name!r}")
    full = f"edgec_models.{name}"
    if full in sys.modules:
        return sys.modules[full]
    if importlib.util.find_spec("edgec_models") is not None:
        return importlib.import_module(full)
    spec = importlib.util.spec_from_file_location(
        full, root / name / "__init__.py", submodule_search_locations=[str(root / name)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full]
        raise
    return module
