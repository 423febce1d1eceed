"""The model on a CUDA GPU: the shared library that nvcc made, called from this process."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

from edgec.device.host import HostDevice
from edgec.errors import ToolchainError
from edgec.target import Target
from edgec.toolchain.manifest import Manifest

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_HINT = "run on a computer with an NVIDIA GPU and its driver"


class CudaDevice(HostDevice):
    """Calls the library's C API as HostDevice does; each instance holds memory of the GPU until close()."""

    def __init__(self, library: Path, manifest: Manifest, *, instances: int = 1, profile: bool = False) -> None:
        self._open = False
        super().__init__(library, manifest, instances=instances, profile=profile)
        self._open = True

    def close(self) -> None:
        if self._open:
            self._open = False
            free = getattr(self._lib, f"{self.manifest.prefix}_free")
            free.restype = None
            for state in self._states:
                free(ctypes.c_void_p(state.ctypes.data))
        super().close()


def compute_capability() -> tuple[int, int]:
    """Of this computer's first GPU. ToolchainError when there is none."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError as e:
        raise ToolchainError(f"no CUDA GPU: the driver {_DRIVER} is not installed", hint=_HINT) from e
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    status = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0)
    status = status or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    status = status or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    if status:
        raise ToolchainError(f"no CUDA GPU: the driver answers with error {status}", hint=_HINT)
    return major.value, minor.value


def check_gpu(target: Target) -> None:
    """ToolchainError unless this computer has a GPU that runs code for `target`."""
    found = compute_capability()
    wanted = re.fullmatch(r"sm_(\d+)(\d)[a-z]?", target.cpu)
    if wanted is None:
        raise ToolchainError(f"target {target.name!r}: cpu {target.cpu!r} is no CUDA architecture such as sm_90")
    if found < (int(wanted[1]), int(wanted[2])):
        raise ToolchainError(
            f"target {target.name!r} needs a GPU of compute capability {wanted[1]}.{wanted[2]} or later, "
            f"this computer's has {found[0]}.{found[1]}"
        )
