"""Images on QEMU: a whole Cortex-M board, or a 64-bit ARM Linux program. The harness's bytes go through pipes."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
import time
import weakref
from contextlib import ExitStack
from pathlib import Path

from edgec.device.base import Counters
from edgec.device.plugin import BoardFlows, build_plugin
from edgec.device.protocol import HarnessDevice
from edgec.errors import ToolchainError, option
from edgec.target import Target
from edgec.toolchain.manifest import Manifest

_TIMEOUT_S = 120.0
_AROUND_A_CALL = 32  # instructions at most between two reads of a count around nothing, in port and harness


class _PipeDevice(HarnessDevice):
    """A QEMU process with one descriptor to write commands to and one to read replies from. The image's ticks are
    `per_tick` instructions each, known to `within` instructions; 0 where nothing is counted."""

    def __init__(self, manifest: Manifest, *, instances: int, profile: bool, timeout: float) -> None:
        super().__init__(manifest, instances=instances, profile=profile)
        self._timeout = timeout
        self._per_tick = 0.0
        self._within = 0
        self._work = Path(tempfile.mkdtemp(prefix="edgec-qemu-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._write_fd = -1
        self._read_fd = -1
        self._held = ExitStack()
        self._held.callback(shutil.rmtree, self._work, True)
        self._release = weakref.finalize(self, self._held.close)  # also when nobody closes it, and when Python ends

    def _hold(self) -> None:
        """Have the pipes and the process, once they are there, end with the device."""
        assert self._process is not None
        for fd in (self._write_fd, self._read_fd):
            self._held.callback(os.close, fd)
        self._held.callback(_stop, self._process)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._write_fd, view) :]
        except (BrokenPipeError, OSError) as e:
            raise self._died("did not take a command") from e

    def _receive(self, count: int) -> bytes:
        chunks: list[bytes] = []
        left = count
        deadline = time.monotonic() + self._timeout
        while left:
            ready, _, _ = select.select([self._read_fd], [], [], 0.2)
            data = os.read(self._read_fd, left) if ready else b""
            if data:
                chunks.append(data)
                left -= len(data)
            elif self._process is None or self._process.poll() is not None:
                raise self._died("ended")
            elif time.monotonic() > deadline:
                raise self._died(f"gave no reply within {self._timeout:.0f} s")
        return b"".join(chunks)

    def _died(self, what: str) -> ToolchainError:
        assert self._process is not None
        self._process.kill()
        code = self._process.wait()
        log = (self._work / "log").read_text(encoding="utf-8", errors="replace").strip()
        shown = "\n".join(f"  | {line}" for line in log.splitlines()[:40])
        return ToolchainError(f"the image of {self.manifest.name!r} under QEMU {what} (exit code {code})\n{shown}")

    def _count(self) -> None:
        if not self._per_tick:
            return
        total = round(self.ticks() * self._per_tick)
        per_node: dict[int, int] = {}
        if self.profile:
            per_node = {k: round(t * self._per_tick) for k, t in self.node_ticks().items()}
            per_node[-1] = total - sum(per_node.values())
        self.counters = Counters(total, per_node, f"counted on QEMU (each figure within {self._within})")

    def close(self) -> None:
        super().close()
        self._release()
        self._process = None
        self._write_fd = self._read_fd = -1


class QemuDevice(_PipeDevice):
    """A Cortex-M image on a qemu-system-arm board. counting=True makes one instruction one nanosecond of the board's
    time and reads SysTick: exact to one tick (40 instructions on most boards). flow=True counts exactly instead, with
    a plugin, and keeps the flow of each step and flush, per node (a profile build) and under -1 for the rest."""

    def __init__(
        self,
        elf: Path,
        manifest: Manifest,
        target: Target,
        *,
        instances: int = 1,
        profile: bool = False,
        counting: bool = False,
        flow: bool = False,
        timeout: float = _TIMEOUT_S,
    ) -> None:
        program = _find("qemu-system-arm", "the QEMU system emulator for ARM")
        if not target.qemu_machine:
            raise ToolchainError(f"target {target.name!r} names no QEMU machine")
        super().__init__(manifest, instances=instances, profile=profile, timeout=timeout)
        self._flows = BoardFlows(program, self._work, Path(elf), manifest, profile) if flow else None
        if counting and not flow:
            self._per_tick = 1e9 / target.qemu_hz  # -icount makes an instruction one nanosecond of the board's time
            self._within = round(self._per_tick)
        for name in ("edgec.in", "edgec.out"):
            os.mkfifo(self._work / name)
        # Opened for reading too: neither end must wait for the other, and QEMU's own opening must not block.
        self._write_fd = os.open(self._work / "edgec.in", os.O_RDWR)
        self._read_fd = os.open(self._work / "edgec.out", os.O_RDWR)
        argv = [program, "-M", target.qemu_machine, "-display", "none", "-monitor", "none", "-serial", "none"]
        argv += ["-semihosting-config", "enable=on,target=native", "-kernel", str(Path(elf).resolve())]
        argv += ["-icount", "shift=0"] if self._per_tick else []
        argv += self._flows.options if self._flows is not None else []
        with (self._work / "log").open("wb") as log:
            self._process = subprocess.Popen(
                argv, cwd=self._work, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self._hold()

    def _count(self) -> None:
        if self._flows is None:
            super()._count()
            return
        if self.profile:
            self.flows, per_node = self._flows.read(n.id for n in self.manifest.nodes)
        else:
            self.flows, per_node = self._flows.read(())
        self.counters = Counters(sum(per_node.values()), per_node if self.profile else {}, "counted on QEMU")


class QemuUserDevice(_PipeDevice):
    """A static 64-bit ARM Linux executable under qemu-aarch64. counting=True counts with a plugin of QEMU."""

    def __init__(
        self,
        elf: Path,
        manifest: Manifest,
        target: Target,
        *,
        instances: int = 1,
        profile: bool = False,
        counting: bool = False,
        timeout: float = _TIMEOUT_S,
    ) -> None:
        program = _find("qemu-aarch64", "the QEMU user emulator for 64-bit ARM")
        super().__init__(manifest, instances=instances, profile=profile, timeout=timeout)
        options, environment = _counter(program, self._work) if counting else ([], {})
        if counting:
            self._per_tick, self._within = 1.0, _AROUND_A_CALL
        image_stdin, self._write_fd = os.pipe()
        self._read_fd, image_stdout = os.pipe()
        cpu = ["-cpu", target.qemu_cpu] if target.qemu_cpu else []
        with (self._work / "log").open("wb") as log:
            argv = [program, *cpu, *options, str(Path(elf).resolve())]
            self._process = subprocess.Popen(
                argv, stdin=image_stdin, stdout=image_stdout, stderr=log, env=os.environ | environment
            )
        os.close(image_stdin)
        os.close(image_stdout)
        self._hold()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _counter(program: str, work: Path) -> tuple[list[str], dict[str, str]]:
    """Options of QEMU that load the counter, and the image's environment that names the file with its count."""
    count, plugin = work / "count", work / "counter.so"
    count.write_bytes(bytes(8))
    build_plugin(program, "user_counter.c", plugin)
    return ["-plugin", f"{plugin},counter={count}"], {"EDGEC_COUNTER": str(count)}


def _find(program: str, what: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise ToolchainError(
            f"{program} is not on the PATH",
            hint=f"install {what}, or use {option('on', 'unicorn')} or {option('on', 'host')}",
        )
    return found
