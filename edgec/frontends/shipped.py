"""The models that ship with edgec: the package edgec_models, or the models folder beside the package in a checkout.

A shipped model is a trained checkpoint, models/FAMILY/NAME.pt; its family is the package that builds its network.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from edgec.errors import FrontendError

CHECKPOINTS = (".pt", ".pth")
TORCH_FILES = (*CHECKPOINTS, ".pt2")
GRAPH_FILES = (".tflite", ".onnx")
MODEL_FILES = TORCH_FILES + GRAPH_FILES


def folder() -> Path | None:
    """Where the shipped models are; None when there are none."""
    spec = importlib.util.find_spec("edgec_models")
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    beside = Path(__file__).resolve().parents[2] / "models"
    return beside if beside.is_dir() else None


def families() -> tuple[str, ...]:
    """The packages that build networks: the subfolders with a package."""
    root = folder()
    return () if root is None else tuple(sorted(p.parent.name for p in root.glob("*/__init__.py")))


def checkpoints() -> dict[str, Path]:
    """Every shipped model by name: the trained weights that lie in the families' folders."""
    root = folder()
    files = [p for family in families() if root is not None for p in (root / family).glob("*.pt")]
    return {p.stem: p for p in sorted(files, key=lambda p: p.stem)}


def names() -> tuple[str, ...]:
    """The names `edgec compile` takes."""
    return tuple(checkpoints())


def find(name: str) -> Path | None:
    """The weights of a shipped model, `-` in its name being `_`; None for any other name."""
    return checkpoints().get(name.replace("-", "_"))


def file_of(model: str | Path) -> Path:
    """The file a user means: a path, or the weights of a shipped model."""
    path = Path(model)
    return path if path.is_file() else find(str(model)) or path


def find_file(model: str | Path) -> Path:
    """The same, once it is certain to exist and of a kind edgec reads; FrontendError names what is like it."""
    path = file_of(model)
    if path.is_dir():
        raise FrontendError(f"{path}: expected a model file, found a directory")
    if not path.exists():
        word = str(model).replace("-", "_")
        untrained = word in families()
        near = [p.name for p in siblings(path) if difflib.SequenceMatcher(None, p.name, path.name).ratio() > 0.7]
        near += difflib.get_close_matches(word, names(), n=3, cutoff=0.6)
        hints = [f"did you mean {' or '.join(near[:3])}?"] if near else []
        hints += [f"shipped models: {', '.join(names()) or 'none'}"]
        hints += [f"train it: python -m models.{word}.train"] if untrained else []
        raise FrontendError(
            f"{model}: no such file, and no shipped model of this name" + (" has trained weights" if untrained else ""),
            hint="; ".join(hints),
        )
    if path.suffix.lower() not in MODEL_FILES:
        raise FrontendError(
            f"{path}: unknown kind of model file {path.suffix!r}",
            hint=f"edgec reads {', '.join(MODEL_FILES)}; a module is saved with"
            " torch.export.save(torch.export.export(model, inputs), 'model.pt2')",
        )
    return path


def siblings(path: Path) -> list[Path]:
    """The model files in the folder of a path."""
    try:
        return [p for p in path.parent.iterdir() if p.suffix.lower() in MODEL_FILES]
    except OSError:
        return []


def package(name: str) -> ModuleType:
    """The package of a family, which has `build(config)`. The name is checked: it may come from a file."""
    root = folder()
    if root is None or name not in families():
        raise FrontendError(f"expected one of the shipped models {', '.join(families()) or '(none)'}, found {name!r}")
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
