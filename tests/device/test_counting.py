"""Instruction counts: the block counter against a hook on every instruction, and against QEMU."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.device.base import Counters
from edgec.device.unicorn_device import UnicornDevice
from tests.device.fake_model import frame, start


def it_block(code: bytes, at: int) -> tuple[int, int]:
    """How many instructions the IT at `at` covers and where they end; (0, at) when it is no IT."""
    if code[at + 1] != 0xBF or code[at] & 0xF == 0:
        return 0, at
    count = 4 - ((code[at] & -code[at]) & 0xF).bit_length() + 1
    end = at + 2
    for _ in range(count):
        end += 4 if code[end + 1] >> 3 >= 0x1D else 2
    return count, end


def count_each(device: UnicornDevice, work: Any) -> int:
    """Instructions between entry and return of fake_step, one at a time. The emulator's hook does not see those that an
    IT switches off, though the core spends an instruction on each: an IT counts with all it covers."""
    from unicorn import UC_HOOK_CODE
    from unicorn.arm_const import UC_ARM_REG_LR

    entry = next(s.address for s in device._symbols if s.name == "fake_step")
    state = {"return": -1, "count": 0, "it_start": 0, "it_end": 0}

    def on_instruction(uc: Any, address: int, size: int, user: Any) -> None:
        if address == entry:
            state["return"] = uc.reg_read(UC_ARM_REG_LR) & ~1
        if address == state["return"]:
            state["return"] = -1
        if state["return"] == -1 or state["it_start"] < address < state["it_end"]:
            return
        covered, end = it_block(device._code, address)
        state["it_start"], state["it_end"] = address, end
        state["count"] += 1 + covered

    handle = device._uc.hook_add(UC_HOOK_CODE, on_instruction)
    work()
    device._uc.hook_del(handle)
    return state["count"]


@pytest.mark.parametrize(
    ("target", "toolchain"),
    [("cortex-m7", "zig"), ("cortex-m7", "gcc"), ("cortex-m3", "gcc"), ("cortex-m0plus", "zig")],
)
def test_blocks_add_up_to_instructions(fake: Path, target: str, toolchain: str) -> None:
    with start(fake, "unicorn", target, toolchain, counting=True) as counted:
        assert isinstance(counted, UnicornDevice)
        found = []
        for k in range(5):
            counted.step(frame(k))
            found.append(counted.counters.instructions)
    with start(fake, "unicorn", target, toolchain) as plain:
        assert isinstance(plain, UnicornDevice)
        expected = [count_each(plain, lambda k=k: plain.step(frame(k))) for k in range(5)]
    assert found == expected
    assert counted.counters.how == "counted on the emulated core"


def test_nodes_add_up_and_dumps_do_not_count(fake: Path) -> None:
    with start(fake, "unicorn", "cortex-m7", profile=True, counting=True) as device:
        for k in range(4):
            device.step(frame(k))
        plain = device.counters
        assert sum(plain.per_node.values()) == plain.instructions
        assert set(plain.per_node) == {-1, 0, 1, 2}
        assert min(plain.per_node.values()) >= 0
        device.watch([0, 1, 2])
        device.step(frame(4))
        assert device.counters == plain
        device.flush()
        assert device.counters.per_node[0] == 0


def test_without_counting_nothing_is_claimed(fake: Path) -> None:
    with start(fake, "unicorn", "cortex-m7") as device:
        device.step(frame(1))
        assert device.counters.how == ""


def test_qemu_agrees(fake: Path, tmp_path: Path) -> None:
    """A longer step, so that one tick (40 instructions) is little."""
    folder = tmp_path / "long"
    shutil.copytree(fake, folder)
    text = (folder / "fake.c").read_text().replace(
        "    fake_k0(scaled, x, gain);\n",
        "    for (int n = 0; n < 300; n++) {\n        fake_k0(scaled, x, gain);\n"
        '        __asm__ volatile("" ::: "memory");\n    }\n',
    )  # fmt: skip
    (folder / "fake.c").write_text(text)
    with start(folder, "unicorn", "cortex-m4", counting=True) as device:
        device.step(frame(1))
        exact = device.counters.instructions
    with start(folder, "qemu", "cortex-m4", counting=True) as device:
        device.step(frame(1))
        assert abs(device.counters.instructions - exact) <= 80
        assert device.counters.how == "counted on QEMU (each figure within 40)"
    assert exact > 3000
    with start(folder, "qemu", "cortex-m4", counting=True, profile=True) as device:
        device.step(frame(1))
        assert abs(device.counters.per_node[0] - exact) <= 160
        assert sum(device.counters.per_node.values()) == device.counters.instructions
    np.testing.assert_equal(device.counters.per_node[2], 0)


def counted_on_a53(fake: Path, folder: Path, assembly: str) -> Counters:
    """Cost of a step that also runs this assembly in its first layer, on qemu-aarch64 in a profile build."""
    shutil.copytree(fake, folder)
    text = (folder / "fake.c").read_text()
    call = "    fake_k0(scaled, x, gain);\n"
    assert text.count(call) == 1
    loop = f'    __asm__ volatile("{assembly}" ::: "x9", "cc", "memory");\n'
    (folder / "fake.c").write_text(text.replace(call, call + loop))
    with start(folder, "qemu-aarch64", "cortex-a53", counting=True, profile=True) as device:
        device.step(frame(1))
        return device.counters


def test_a_loop_of_known_length_counts_as_that_under_linux(fake: Path, tmp_path: Path) -> None:
    short = counted_on_a53(fake, tmp_path / "short", "nop")
    long = counted_on_a53(fake, tmp_path / "long", "movz x9, #5000, lsl 16 \\n1: subs x9, x9, #2 \\n b.ne 1b")
    # 1 instruction and 2 in each of 5000 * 65536 / 2 rounds: more than the 24 bits of SysTick
    assert long.instructions - short.instructions == 1 + 5000 * 65536 - 1
    assert long.per_node[0] - short.per_node[0] == 5000 * 65536
    assert long.per_node[1] == short.per_node[1]
    assert long.per_node[2] == short.per_node[2]
    assert sum(long.per_node.values()) == long.instructions
    assert long.how == "counted on QEMU (each figure within 32)"
