"""The hand-written model in fake/, on any device; skips with the reason where a device is not installed."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgec.device import Device, open_device

NEEDS = {"qemu": "qemu-system-arm", "qemu-aarch64": "qemu-aarch64"}


def start(fake: Path, kind: str, target: str, toolchain: str = "zig", **options: bool | int) -> Device:
    if kind == "unicorn":
        pytest.importorskip("unicorn")
    program = "arm-none-eabi-gcc" if toolchain == "gcc" else NEEDS.get(kind)
    if program and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return open_device(kind, fake, None, target, toolchain=toolchain, **options)  # type: ignore[arg-type]


def frame(k: int) -> list[np.ndarray]:
    return [np.array([k, -k, 1000 * k, 7], np.int16), np.array([k - 3], np.int8)]
