"""The model as a shared library in this process: caller-owned numpy buffers, any number of instances."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from edgec.device.base import OUTPUT, Array, Device
from edgec.errors import ToolchainError
from edgec.toolchain.manifest import Manifest

_ALIGN = 64


class HostDevice(Device):
    """Calls init, step, flush and reset of a library made by build_shared."""

    def __init__(self, library: Path, manifest: Manifest, *, instances: int = 1, profile: bool = False) -> None:
        super().__init__(manifest, instances=instances, profile=profile)
        try:
            self._lib = ctypes.CDLL(str(library))
        except OSError as e:
            raise ToolchainError(f"{library} cannot be loaded: {e}") from e
        for name in ("edgec_state_bytes", "edgec_arena_bytes"):
            getattr(self._lib, name).restype = ctypes.c_size_t
        self._state_bytes = int(self._lib.edgec_state_bytes())
        self._arena_bytes = int(self._lib.edgec_arena_bytes())
        self._states = [_aligned(self._state_bytes) for _ in range(instances)]
        self._arena = _aligned(self._arena_bytes)
        self._inputs = [_aligned(t.bytes) for t in manifest.inputs]
        self._outputs = [_aligned(t.bytes) for t in manifest.outputs]
        self._cycle_array = np.zeros(manifest.cycles, np.uint32)
        self._callback: Any = None
        self._callback_error: Exception | None = None
        if profile:
            self._install_callback()
        for state in self._states:
            self._check(self._call("init", state, []), "init")

    def _step(self, inputs: list[bytes]) -> tuple[int, bytes]:
        for buffer, data in zip(self._inputs, inputs, strict=True):
            buffer[: len(data)] = np.frombuffer(data, np.uint8)
        return self._run("step", [self._arena, *self._inputs, *self._outputs, *self._cycle_arrays])

    def _flush(self) -> tuple[int, bytes]:
        return self._run("flush", [self._arena, *self._outputs, *self._cycle_arrays])

    @property
    def _cycle_arrays(self) -> list[Array]:
        return [self._cycle_array] if self.manifest.cycles else []

    def _cycles(self) -> list[int]:
        return [int(c) for c in self._cycle_array]

    def _reset(self) -> int:
        return self._call("reset", self._states[self._selected], [])

    def _select(self, instance: int) -> None:
        pass

    def _watch(self, ids: frozenset[int]) -> None:
        pass

    def memory(self) -> dict[str, int]:
        return {"state_bytes": self._state_bytes, "arena_bytes": self._arena_bytes}

    def state(self) -> bytes:
        """The selected instance's state, byte for byte."""
        return self._states[self._selected].tobytes()[: self._state_bytes]

    def _run(self, name: str, buffers: list[Array]) -> tuple[int, bytes]:
        rc = self._call(name, self._states[self._selected], buffers)
        if self._callback_error is not None:
            error, self._callback_error = self._callback_error, None
            raise error
        return rc, self._output_bytes() if rc == OUTPUT else b""

    def _call(self, name: str, state: Array, buffers: list[Array]) -> int:
        function = getattr(self._lib, f"{self.manifest.prefix}_{name}")
        return int(function(*(ctypes.c_void_p(b.ctypes.data) for b in [state, *buffers])))

    def _output_bytes(self) -> bytes:
        specs = self.manifest.outputs
        return b"".join(b[: t.bytes].tobytes() for b, t in zip(self._outputs, specs, strict=True))

    def _install_callback(self) -> None:
        def on_mark(node_id: int) -> None:
            if node_id not in self._watched:
                return
            try:  # an exception cannot pass through C
                self._keep_dump(node_id, self._arena.tobytes(), self.state(), self._output_bytes())
            except Exception as e:
                self._callback_error = e

        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_mark)
        self._lib.edgec_set_mark_callback(self._callback)

    def close(self) -> None:
        super().close()
        if self._callback is not None:
            self._lib.edgec_set_mark_callback(None)
            self._callback = None


def _aligned(size: int) -> Array:
    """Zeroed bytes whose address is a multiple of 64; never empty, so that its pointer is not null."""
    raw = np.zeros(max(size, 1) + _ALIGN, np.uint8)
    start = -raw.ctypes.data % _ALIGN
    return raw[start : start + max(size, 1)]
