"""timm and torchvision beside a CPU build of torch.

The torchvision of PyPI is built against torch with CUDA. Beside a CPU torch its binary operators do not load, and
importing it fails at the two operators that it describes for tracing without asking whether they exist. Declaring them
is enough: no vision transformer calls them.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import pytest
import torch

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
LIBRARIES: list[torch.library.Library] = []  # a declaration lives as long as its library


def declare_operators() -> None:
    """Declare the operators that torchvision describes and its binary did not bring; may be called again."""
    for name, schema in SCHEMAS.items():
        if not torch._C._dispatch_has_kernel(f"torchvision::{name}") and not hasattr(torch.ops.torchvision, name):
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(schema)
            LIBRARIES.append(library)


def import_timm() -> ModuleType:
    """Return timm; skips the calling test where it is not installed."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    if importlib.util.find_spec("torchvision") is not None:
        declare_operators()
    return importlib.import_module("timm")
