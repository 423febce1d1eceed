"""What a model family says about its data: models/FAMILY/evaluate.py, plain constants and a few functions.

TASK, DATA, LICENCE, METRIC, UNIT, PER    texts for the card; METRIC is in UNIT; one call of the C is one PER
FILES, CALIBRATION_FILES                  what the data folder must hold, to test and to calibrate
calibration_set(folder) -> inputs         some inputs of the train split [N, ...]
test_set(folder) -> inputs, targets       the whole test split: arrays [N, ...]; inputs as the compiled C takes them
metric(outputs, targets) -> float         outputs [N, ...] as the torch module gives them, for a window each
anytime(outputs, targets, delay)          optional: (frames, metric) pairs for networks whose outputs are a stream
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.errors import InputError, join_problems, option
from edgec.frontends import shipped

Array = npt.NDArray[Any]
Curve = Callable[[Array, Array, int], list[tuple[int, float]]]
TEXTS = ("TASK", "DATA", "LICENCE", "METRIC", "UNIT", "PER")


@dataclass(frozen=True)
class Family:
    """The test data and the metric of one family; `texts` holds its constants by lower-case name."""

    name: str
    texts: dict[str, str]
    files: tuple[str, ...]
    calibration_files: tuple[str, ...]
    calibration_set: Callable[[Path], Array]
    test_set: Callable[[Path], tuple[Array, Array]]
    metric: Callable[[Array, Array], float]
    anytime: Curve | None


def checkpoint_of(name: str) -> Path:
    """The weights of a shipped model; InputError lists the names."""
    path = shipped.find(name)
    if path is None:
        known = ", ".join(shipped.names()) or "none"
        raise InputError(f"{name}: expected a shipped model", hint=f"shipped models: {known}")
    return path


def load_family(name: str) -> Family:
    """The evaluate.py of a shipped family; InputError where it has none."""
    package = shipped.package(name)
    try:
        module = importlib.import_module(f"{package.__name__}.evaluate")
    except ModuleNotFoundError as err:
        raise InputError(f"{name}: {err}", hint="pip install 'edgec[train]' brings what its data needs") from err
    texts = {key.lower(): str(getattr(module, key)) for key in TEXTS}
    anytime = getattr(module, "anytime", None)
    files = (tuple(module.FILES), tuple(module.CALIBRATION_FILES))
    return Family(name, texts, *files, module.calibration_set, module.test_set, module.metric, anytime)


def read(family: Family, folder: str | Path, files: tuple[str, ...], reader: Callable[[Path], Any]) -> Any:
    """What a reader makes of the data folder; InputError names what the folder should hold."""
    root = Path(folder)
    missing = [name for name in files if not (root / name).is_file()]
    if missing:
        found = sorted(p.name for p in root.iterdir())[:8] if root.is_dir() else "no such folder"
        head = f"{folder}: expected the data of {family.name} ({family.texts['data']}), found {found}; missing:"
        raise InputError(
            join_problems(head, missing), hint=f"give the folder that holds these files: {option('data', 'DIR')}"
        )
    try:
        return reader(root)
    except (ValueError, KeyError, OSError) as err:
        raise InputError(f"{folder}: the data of {family.name} cannot be read: {err}") from err
    except ModuleNotFoundError as err:
        raise InputError(f"{family.name}: {err}", hint="pip install 'edgec[train]' brings what its data needs") from err


def load_test_set(family: Family, folder: str | Path) -> tuple[Array, Array]:
    """The whole test split: inputs and targets."""
    inputs, targets = read(family, folder, family.files, family.test_set)
    return np.ascontiguousarray(inputs), np.asarray(targets)


def load_calibration_set(name: str, folder: str | Path) -> Array:
    """The inputs that a shipped model is calibrated with."""
    family = load_family(checkpoint_of(name).parent.name)
    return np.ascontiguousarray(read(family, folder, family.calibration_files, family.calibration_set))
