"""Makes PyPI's torchvision importable beside a CPU build of torch, in the environment that runs this file.

That torchvision is built against torch with CUDA. Beside a CPU torch its binary operators do not load, and importing it
fails at the two operators that it describes for tracing without asking whether they exist. Declaring them is enough:
only detectors call them. Where the import fails, the environment gets this file and a .pth line that hooks the import.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

FAILS_IN = "torchvision._meta_registrations"  # imported right after the binary was looked for
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
LIBRARIES: list[Any] = []  # a declaration lives as long as its library


class Declaring:
    """A finder that finds nothing: it declares the operators that torchvision's binary did not bring."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == FAILS_IN and not LIBRARIES:
            import torch

            if not torch._C._dispatch_has_kernel("torchvision::nms"):
                LIBRARIES.append(torch.library.Library("torchvision", "FRAGMENT"))
                for schema in SCHEMAS:
                    LIBRARIES[0].define(schema)
        return None


def install() -> None:
    """Put this file and its .pth line into the environment where torchvision is there and does not import."""
    if importlib.util.find_spec("torchvision") is None:
        return
    attempt = [sys.executable, "-c", "import torchvision"]
    if subprocess.run(attempt, capture_output=True, check=False).returncode == 0:
        return
    site = Path(sysconfig.get_paths()["purelib"])
    shutil.copyfile(__file__, site / "torchvision_on_cpu.py")
    (site / "torchvision_on_cpu.pth").write_text("import torchvision_on_cpu\n", encoding="utf-8")
    subprocess.run(attempt, check=True)


if __name__ == "__main__":
    install()
else:
    sys.meta_path.insert(0, Declaring())
