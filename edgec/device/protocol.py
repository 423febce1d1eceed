"""The harness's command stream (edgec/runtime/port/harness.c), spoken over whatever carries bytes."""

from __future__ import annotations

import struct
from abc import abstractmethod

from edgec.device.base import OUTPUT, Device
from edgec.errors import CodegenError
from edgec.toolchain.manifest import Manifest

_DUMP_MAGIC = 0x504D5544
_DUMP_NONE, _DUMP_ALL = -1, -2


class HarnessDevice(Device):
    """A model inside an image that contains the harness; children carry the bytes."""

    def __init__(self, manifest: Manifest, *, instances: int = 1, profile: bool = False) -> None:
        super().__init__(manifest, instances=instances, profile=profile)
        self._sizes: tuple[int, int] | None = None

    @abstractmethod
    def _send(self, data: bytes) -> None: ...

    @abstractmethod
    def _receive(self, count: int) -> bytes: ...

    def _count(self) -> None:
        """Called after each step and flush: fill self.counters if the device counts."""

    def _step(self, inputs: list[bytes]) -> tuple[int, bytes]:
        self._send(b"S" + b"".join(inputs))
        return self._reply()

    def _flush(self) -> tuple[int, bytes]:
        self._send(b"F")
        return self._reply()

    def _reset(self) -> int:
        return self._command(b"R")

    def _select(self, instance: int) -> None:
        self._check(self._command(b"I" + struct.pack("<I", instance)), "select")

    def _watch(self, ids: frozenset[int]) -> None:
        if not self.profile:
            return
        request = _DUMP_NONE if not ids else next(iter(ids)) if len(ids) == 1 else _DUMP_ALL
        self._layout()
        self._check(self._command(b"D" + struct.pack("<i", request)), "dump")

    def memory(self) -> dict[str, int]:
        self._check(self._command(b"M"), "memory")
        used, size, state, arena = struct.unpack("<4I", self._receive(16))
        found = {"state_bytes": state, "arena_bytes": arena}
        if size:
            if used >= size:
                raise CodegenError(
                    f"model {self.manifest.name!r} overflowed the stack of {size} bytes",
                    hint="raise stack_bytes in the target file",
                )
            found |= {"stack_bytes": used, "stack_limit": size}
        return found

    def ticks(self) -> int:
        """Ticks of the image's own counter during the last step or flush; 0 where it has none."""
        self._check(self._command(b"T"), "ticks")
        return int(struct.unpack("<I", self._receive(4))[0])

    def node_ticks(self) -> dict[int, int]:
        """The same per node, in a profile build."""
        self._check(self._command(b"N"), "ticks")
        count = max((n.id for n in self.manifest.nodes), default=0) + 1
        ticks = struct.unpack(f"<{count}I", self._receive(4 * count))
        return {n.id: int(ticks[n.id]) for n in self.manifest.nodes}

    def _cycles(self) -> tuple[int, ...]:
        self._check(self._command(b"C"), "cycles")
        return struct.unpack(f"<{self.manifest.cycles}I", self._receive(4 * self.manifest.cycles))

    def _layout(self) -> tuple[int, int]:
        if self._sizes is None:
            found = self.memory()
            self._sizes = (found["state_bytes"], found["arena_bytes"])
        return self._sizes

    def _command(self, data: bytes) -> int:
        self._send(data)
        return int(struct.unpack("<i", self._receive(4))[0])

    def _reply(self) -> tuple[int, bytes]:
        rc = int(struct.unpack("<i", self._receive(4))[0])
        while rc == _DUMP_MAGIC:
            self._read_dump()
            rc = int(struct.unpack("<i", self._receive(4))[0])
        data = self._receive(self.manifest.output_bytes) if rc == OUTPUT else b""
        self._count()
        return rc, data

    def _read_dump(self) -> None:
        state_bytes, arena_bytes = self._layout()
        node_id = int(struct.unpack("<i", self._receive(4))[0])
        arena, state = self._receive(arena_bytes), self._receive(state_bytes)
        output = self._receive(self.manifest.output_bytes)
        if node_id in self._watched:
            self._keep_dump(node_id, arena, state, output)
