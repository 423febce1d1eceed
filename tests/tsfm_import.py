"""granite-tsfm and transformers: the packages whose own time-series modules the compiler is tested with.

Packages: transformers 4.57 (which needs huggingface-hub below 1.0, and datasets below 5 for the same reason),
granite-tsfm 0.3.11. Their imports warn about things that are no concern of ours, and warnings are errors in this suite.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from types import ModuleType

import pytest


def import_quietly(package: str, module: str) -> ModuleType:
    """Return a module of an optional package, without its import warnings; skips the test where it is not installed."""
    for needed in ("transformers", package):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


def import_tinytimemixer() -> ModuleType:
    """Return granite's module with TinyTimeMixerConfig and TinyTimeMixerForPrediction."""
    return import_quietly("tsfm_public", "tsfm_public.models.tinytimemixer")


def import_patchtsmixer() -> ModuleType:
    """Return transformers' module with PatchTSMixerConfig and PatchTSMixerForPrediction."""
    return import_quietly("transformers", "transformers.models.patchtsmixer")
