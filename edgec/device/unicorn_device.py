"""A Cortex-M image on the unicorn emulator. The only file that imports unicorn (GPL-2.0, an optional extra)."""

from __future__ import annotations

import atexit
import ctypes
import functools
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from elftools.elf.elffile import ELFFile

from edgec.device.base import Counters, Flow
from edgec.device.protocol import HarnessDevice
from edgec.errors import ToolchainError, option
from edgec.target import Target
from edgec.toolchain.manifest import Manifest
from edgec.toolchain.shared import build_plain_shared
from edgec.toolchain.sizes import Symbol, symbols

_SYS_OPEN, _SYS_WRITE0, _SYS_WRITE, _SYS_READ, _SYS_EXIT_EXTENDED = 0x01, 0x04, 0x05, 0x06, 0x20
_HANDLE_IN, _HANDLE_OUT = 1, 2
_BREAKPOINT = 7  # exception number of BKPT
_SCS = 0xE000E000  # system control space: SysTick, CPACR, fault registers
_DWT, _CYCCNT = 0xE0001000, 4
_NOWHERE = 0xFFFFFFF0


class _Counter(ctypes.Structure):
    """Mirror of `counter` in block_counter.c."""

    _fields_ = [
        ("entries", ctypes.c_uint64 * 2), ("mark", ctypes.c_uint64), ("code_start", ctypes.c_uint64),
        ("code_end", ctypes.c_uint64), ("code", ctypes.c_void_p), ("cache", ctypes.c_void_p),
        ("read_register", ctypes.c_void_p), ("per_node", ctypes.c_void_p), ("total", ctypes.c_uint64),
        ("segment", ctypes.c_uint64), ("return_to", ctypes.c_uint64), ("resume_at", ctypes.c_uint64),
        ("nodes", ctypes.c_int32), ("register_r0", ctypes.c_int32), ("register_lr", ctypes.c_int32),
        ("counting", ctypes.c_int32), ("in_mark", ctypes.c_int32), ("overflow", ctypes.c_int32),
        ("flow", ctypes.c_void_p), ("flows", ctypes.c_void_p), ("flow_size", ctypes.c_uint64),
        ("last_end", ctypes.c_uint64), ("touched", ctypes.c_void_p), ("lines", ctypes.c_void_p),
        ("line_bytes", ctypes.c_uint64), ("new_lines", ctypes.c_uint64), ("marked", ctypes.c_int32),
    ]  # fmt: skip


class UnicornDevice(HarnessDevice):
    """Runs an image instruction-exactly and answers its semihosting calls. counting=True counts every instruction
    between the entry and the return of step and flush; without it the emulator runs free of hooks. flow=True keeps
    the flow of each of these calls as well, per node (a profile build) and under -1 for the rest."""

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
    ) -> None:
        super().__init__(manifest, instances=instances, profile=profile)
        if "unicorn" not in target.devices:
            raise ToolchainError(
                f"unicorn cannot run code for {target.name!r} ({', '.join(target.isa)})",
                hint=f"use {option('on', 'qemu')}",
            )
        self._symbols = symbols(elf)
        self._to_image = bytearray()
        self._from_image = bytearray()
        self._console = ""
        self._stop_reason = ""
        self._uc, self._arm, hook_interrupt = _new_core()
        self._counter: _Counter | None = None
        self._pc = self._load(elf, target)
        self._uc.hook_add(hook_interrupt, self._on_interrupt)
        self._counter = self._start_counting() if counting or flow else None
        if self._counter is not None and flow:
            self._start_flow(self._counter, elf, target.timing.flash_line if target.timing else 0)

    # ---- start-up ----

    def _load(self, elf: Path, target: Target) -> int:
        uc = self._uc
        for region in target.regions:
            uc.mem_map(region.origin, region.length)
        uc.mem_map(_SCS, 0x1000)
        if self.manifest.cycles:
            uc.mmio_map(_DWT, 0x1000, self._read_dwt, None, lambda *_: None, None)
        with elf.open("rb") as f:
            segments = [(s["p_paddr"], s.data()) for s in ELFFile(f).iter_segments() if s["p_type"] == "PT_LOAD"]
        for address, data in segments:
            if data:
                uc.mem_write(address, data)
        code = target.region("code")
        self._code_start = code.origin
        ends = [a + len(d) for a, d in segments if code.origin <= a < code.origin + code.length]
        self._code = bytes(uc.mem_read(code.origin, max(ends) - code.origin))
        stack, entry = struct.unpack("<2I", self._code[:8])
        uc.reg_write(self._arm.UC_ARM_REG_SP, stack)
        # The image switches its FPU on through CPACR; this core model is an A-profile one and has other switches.
        access = uc.reg_read(self._arm.UC_ARM_REG_C1_C0_2)
        uc.reg_write(self._arm.UC_ARM_REG_C1_C0_2, access | 0xF << 20)
        uc.reg_write(self._arm.UC_ARM_REG_FPEXC, 1 << 30)
        return int(entry)

    def _read_dwt(self, uc: Any, offset: int, size: int, user: Any) -> int:
        """The emulated core knows no cycles: its counter gives the instructions counted so far."""
        return self._counter.total & 0xFFFFFFFF if offset == _CYCCNT and self._counter is not None else 0

    # ---- bytes in, bytes out ----

    def _send(self, data: bytes) -> None:
        self._to_image += data

    def _receive(self, count: int) -> bytes:
        if len(self._from_image) < count:
            self._run()
        if len(self._from_image) < count:
            raise ToolchainError(
                f"the image of {self.manifest.name!r} {self._stop_reason or 'waits for more input'}: "
                f"{count} bytes expected, {len(self._from_image)} received"
                + (f"\n  console: {self._console.strip()}" if self._console else "")
            )
        data = bytes(self._from_image[:count])
        del self._from_image[:count]
        return data

    def _run(self) -> None:
        """Run until the image wants a command that is not there yet."""
        from unicorn.unicorn_py3 import UcError

        if self._stop_reason:
            return
        try:
            self._uc.emu_start(self._pc | 1, _NOWHERE)
        except UcError as e:
            self._stop_reason = f"crashed ({e}) at {self._where(self._uc.reg_read(self._arm.UC_ARM_REG_PC))}"
        self._pc = self._uc.reg_read(self._arm.UC_ARM_REG_PC)

    def _where(self, address: int) -> str:
        inside: list[Symbol] = [s for s in self._symbols if s.is_function and s.address <= address < s.address + s.size]
        return f"{address:#010x} in {inside[-1].name}" if inside else f"{address:#010x}"

    # ---- semihosting ----

    def _on_interrupt(self, uc: Any, number: int, user: Any) -> None:
        pc = uc.reg_read(self._arm.UC_ARM_REG_PC)
        if number != _BREAKPOINT:
            self._stop_reason = f"raised exception {number} at {self._where(pc)}"
            uc.emu_stop()
            return
        operation, argument = uc.reg_read(self._arm.UC_ARM_REG_R0), uc.reg_read(self._arm.UC_ARM_REG_R1)
        answer = self._semihost(uc, operation, argument)
        if answer is None:
            uc.emu_stop()
            return
        uc.reg_write(self._arm.UC_ARM_REG_R0, answer)
        uc.reg_write(self._arm.UC_ARM_REG_PC, (pc + 2) | 1)

    def _semihost(self, uc: Any, operation: int, argument: int) -> int | None:
        """The value for r0; None stops the emulator with the program counter still at the call."""
        if operation == _SYS_WRITE0:
            self._console += self._text_at(uc, argument)
            return 0
        _, address, length = struct.unpack("<3I", uc.mem_read(argument, 12))
        if operation == _SYS_READ:
            if not self._to_image:
                return None
            data = bytes(self._to_image[:length])
            del self._to_image[:length]
            uc.mem_write(address, data)
            return int(length) - len(data)
        if operation == _SYS_WRITE:
            self._from_image += uc.mem_read(address, length)
            return 0
        if operation == _SYS_OPEN:
            return _HANDLE_IN if address == 1 else _HANDLE_OUT
        ended = operation == _SYS_EXIT_EXTENDED
        self._stop_reason = f"ended with code {address}" if ended else f"made semihosting call {operation:#x}"
        return None

    def _text_at(self, uc: Any, address: int) -> str:
        text = bytearray()
        while (byte := uc.mem_read(address + len(text), 1)[0]) != 0:
            text.append(byte)
        return text.decode("ascii", "replace")

    # ---- counting ----

    def _start_counting(self) -> _Counter:
        from unicorn import unicorn_const
        from unicorn.unicorn_py3.unicorn import uclib

        address = {s.name: s.address for s in self._symbols}
        nodes = max((n.id for n in self.manifest.nodes), default=-1) + 1
        p = self.manifest.prefix
        counter = _Counter(
            entries=(ctypes.c_uint64 * 2)(address[f"{p}_step"], address.get(f"{p}_flush", _NOWHERE)),
            mark=address.get("edgec_mark", _NOWHERE), code_start=self._code_start,
            code_end=self._code_start + len(self._code), nodes=nodes,
            register_r0=self._arm.UC_ARM_REG_R0, register_lr=self._arm.UC_ARM_REG_LR,
        )  # fmt: skip
        self._node_counts = (ctypes.c_uint64 * max(nodes, 1))()
        self._cache = (ctypes.c_uint32 * (len(self._code) // 2 + 1))()
        self._code_copy = ctypes.create_string_buffer(self._code, len(self._code))
        counter.code = ctypes.addressof(self._code_copy)
        counter.cache = ctypes.addressof(self._cache)
        counter.per_node = ctypes.addressof(self._node_counts)
        counter.read_register = ctypes.cast(uclib.uc_reg_read, ctypes.c_void_p).value
        self._add_hook(unicorn_const.UC_HOOK_BLOCK, _counter_library().edgec_count_block, counter, (1, 0))
        return counter

    def _add_hook(self, kind: int, function: Any, counter: _Counter, span: tuple[int, int]) -> None:
        """Let the emulator call a C function; (1, 0) is every address."""
        from unicorn import unicorn_const
        from unicorn.unicorn_py3.unicorn import uclib

        handle = ctypes.c_size_t()
        status = uclib.uc_hook_add(
            self._uc._uch, ctypes.byref(handle), kind, ctypes.cast(function, ctypes.c_void_p), ctypes.byref(counter),
            *map(ctypes.c_uint64, span),
        )  # fmt: skip
        if status != unicorn_const.UC_ERR_OK:
            raise ToolchainError(f"unicorn refused the counting hook (status {status})")

    def _start_flow(self, counter: _Counter, elf: Path, line_bytes: int) -> None:
        """`line_bytes`: of flash, 0 where its lines are not to be counted."""
        from unicorn import unicorn_const

        with elf.open("rb") as f:
            text = ELFFile(f).get_section_by_name(".text")
            assert text is not None, f"{elf} has no code"
            size = (text["sh_addr"] + text["sh_size"] - self._code_start) // 2 + 1
        self._flow = np.zeros((3, size), np.uint32)
        self._flows = np.zeros((counter.nodes + 1, 3, size), np.uint32)
        counter.flow, counter.flows, counter.flow_size = self._flow.ctypes.data, self._flows.ctypes.data, size
        self._lines = np.zeros(counter.nodes + 1, np.uint64)
        counter.lines = self._lines.ctypes.data
        if line_bytes:
            self._touched = np.zeros(len(self._code) // line_bytes + 1, np.uint8)
            counter.touched, counter.line_bytes = self._touched.ctypes.data, line_bytes
            span = (counter.code_start, counter.code_end - 1)
            self._add_hook(unicorn_const.UC_HOOK_MEM_READ, _counter_library().edgec_touch, counter, span)

    def _read_flows(self, counter: _Counter) -> None:
        slots = {n.id: n.id for n in self.manifest.nodes} if self.profile else {}
        for node, slot in [*slots.items(), (-1, counter.nodes)]:
            begun, ended, left = self._flows[slot].copy()
            self.flows[node] = Flow(self._code_start, self._code, begun, ended, left, int(self._lines[slot]))

    def _count(self) -> None:
        if self._counter is None:
            return
        self._run()  # up to the next read: past the return of the model's function
        if self._counter.counting or self._counter.overflow:
            raise ToolchainError("instruction counting lost track of the model: control left the image's code")
        if self._counter.flow:
            self._read_flows(self._counter)
        total = int(self._counter.total)
        per_node = {n.id: int(self._node_counts[n.id]) for n in self.manifest.nodes} if self.profile else {}
        if per_node:
            per_node[-1] = total - sum(per_node.values())
        self.counters = Counters(total, per_node, "counted on the emulated core")

    def close(self) -> None:
        super().close()
        self._stop_reason = "was closed"
        self._uc = None


def _new_core() -> tuple[Any, Any, int]:
    """The emulator, its register names and the number of its interrupt hook."""
    try:
        from unicorn import arm_const, unicorn_const
        from unicorn.unicorn_py3 import Uc
    except ImportError as e:
        raise ToolchainError(
            "the unicorn emulator is not installed",
            hint=f"pip install 'edgec[emulator]', or use {option('on', 'qemu')}",
        ) from e
    uc: Any = Uc(unicorn_const.UC_ARCH_ARM, unicorn_const.UC_MODE_THUMB)
    # unicorn's Cortex-M models trap on FPU instructions; this one runs all of Thumb-2, DSP and VFP.
    uc.ctl_set_cpu_model(arm_const.UC_CPU_ARM_MAX)
    return uc, arm_const, int(unicorn_const.UC_HOOK_INTR)


@functools.cache
def _counter_library() -> ctypes.CDLL:
    """block_counter.c compiled once per process."""
    folder = Path(tempfile.mkdtemp(prefix="edgec-counter-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    source = Path(__file__).with_name("block_counter.c")
    return ctypes.CDLL(str(build_plain_shared(source, folder / "block_counter.so", flags=("-nostdlib",))))
