"""Modelled cycles: Arm's own examples, the rules for two instructions a cycle, and flows against the counts."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("unicorn")
pytest.importorskip("capstone")

from edgec.device import open_device
from edgec.device.base import Flow
from edgec.device.unicorn_device import UnicornDevice
from edgec.errors import TargetError, ToolchainError
from edgec.profile.timing.cores import costs
from edgec.profile.timing.decode import Instruction, decode, kind_of
from edgec.profile.timing.frames import count_frames, how_modelled, how_on_board, timing_obstacle
from edgec.profile.timing.model import CycleModel, board_milliseconds, straight_runs
from edgec.runtime import all_headers, header_text
from edgec.target import Timing, load_target, parse_target
from edgec.toolchain.command import run_command
from edgec.toolchain.compilers import zig_cc, zig_machine
from tests.device.fake_model import frame, start

FAKE = Path(__file__).resolve().parents[2] / "device" / "fake"
#: code, cycles by the manual of the Cortex-M4 (the first four are its examples)
MANUAL = {
    "ldr r0, [r1]; ldr r1, [r2]": 3,
    "ldr r0, [r1, r2]; str r0, [r3, #20]": 3,
    "ldr r0, [r1, r2]; str r1, [r3, r2]": 3,
    "ldr r0, [r1, r5]; ldr r1, [r2]; ldr r2, [r3, #4]": 4,
    "stmia r0!, {r1, r2, r3, r4, r5, r6, r7, r8}": 9,
    "ldmia r0!, {r1, r2, r3}": 4,
    "ldrd r0, r1, [r2]": 3,
    "push {r4, lr}": 3,
    "ldr r0, [r1]; ldr r2, [r0]": 4,
    "add r1, r2, r3; ldr r0, [r1]": 4,
    "str r0, [r1, r2]": 2,
    "str r0, [r1, #4]; str r0, [r1, #8]": 2,
    "smlad r0, r1, r2, r0; smlabt r3, r1, r2, r3; umull r4, r5, r6, r7": 3,
    "sdiv r0, r1, r2": 12,
    "vmla.f32 s0, s1, s2": 3,
    "vdiv.f32 s0, s1, s2; vadd.f32 s3, s4, s5": 15,
    "vldmia r0!, {s0, s1, s2, s3}": 5,
    "cmp r0, r1; it ne; movne r2, r3": 3,
}
#: by the manuals of the Cortex-M3 and M0+, where they differ
OTHERS = {
    ("cortex-m3", "umull r4, r5, r6, r7"): 5,
    ("cortex-m3", "mla r0, r1, r2, r3; mul r4, r5, r6"): 3,
    ("cortex-m3", "ldr r0, [r1]; ldr r2, [r3]; str r4, [r3, r2]"): 5,
    ("cortex-m0plus", "ldr r0, [r1]; ldr r2, [r3]"): 4,
    ("cortex-m0plus", "str r0, [r1, #4]; str r0, [r1, r2]"): 4,
    ("cortex-m0plus", "muls r0, r1, r0; adds r0, r0, r2"): 2,
    ("cortex-m0plus", "ldm r0!, {r1, r2, r3}; push {r4, r5}"): 7,
}
#: the same for two instructions a cycle
PAIRS = {
    "add r0, r1, r2; add r3, r4, r5": 1,
    "add r0, r1, r2; add r3, r0, r5": 2,
    "ldr r0, [r1]; add r2, r3, r4": 1,
    "ldr r0, [r1]; ldr r2, [r3]": 2,
    "ldr r0, [r1]; add r2, r0, r4": 3,
    "mul r0, r1, r2; mul r3, r4, r5": 2,
    "smlad r0, r1, r2, r0; add r3, r4, r5": 1,
    "smlad r0, r1, r2, r0; sxtb16 r3, r4": 2,
    "lsl r0, r1, #3; add r2, r3, r4, lsl #2": 2,
    "ldmia r0!, {r1, r2, r3, r4}; add r5, r6, r7": 3,
}


@pytest.fixture(scope="module")
def assembled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Instruction]]:
    """Every snippet as instructions."""
    from elftools.elf.elffile import ELFFile

    work, target = tmp_path_factory.mktemp("asm"), load_target("cortex-m4")
    texts = [*MANUAL, *PAIRS, *(text for _, text in OTHERS)]
    lines = [".syntax unified", ".text", ".thumb"]
    for k, text in enumerate(texts):
        lines += [f".global f{k}", f".thumb_func\nf{k}:", *text.split("; "), "bx lr"]
    (work / "a.s").write_text("\n".join(lines) + "\n")
    run_command([*zig_cc(), *zig_machine(target), "-c", str(work / "a.s"), "-o", str(work / "a.o")], "assembling")
    with (work / "a.o").open("rb") as f:
        image = ELFFile(f)
        code = image.get_section_by_name(".text").data()
        at = {s.name: s["st_value"] & ~1 for s in image.get_section_by_name(".symtab").iter_symbols()}
    return {text: list(decode(code, 0, at[f"f{k}"]))[:-1] for k, text in enumerate(texts)}


def timing_of(name: str) -> Timing:
    timing = load_target(name).timing
    assert timing is not None
    return timing


@pytest.mark.parametrize("text", MANUAL)
def test_the_manuals_cycles(assembled: dict[str, list[Instruction]], text: str) -> None:
    assert sum(costs(assembled[text], timing_of("cortex-m4"))) == MANUAL[text]


@pytest.mark.parametrize(("core", "text"), OTHERS)
def test_the_manuals_of_other_cores(assembled: dict[str, list[Instruction]], core: str, text: str) -> None:
    assert sum(costs(assembled[text], timing_of(core))) == OTHERS[core, text]


def test_the_cortex_m33_has_the_timings_of_the_cortex_m4() -> None:
    said = {"source": "", "error": "", "board": "", "board_factor": 0.0, "board_error": 0.0}
    assert replace(timing_of("cortex-m33"), **said) == replace(timing_of("cortex-m4"), **said)


@pytest.mark.parametrize("text", PAIRS)
def test_two_instructions_a_cycle(assembled: dict[str, list[Instruction]], text: str) -> None:
    assert sum(costs(assembled[text], timing_of("cortex-m7"))) == PAIRS[text]


def test_kinds() -> None:
    expected = {
        "ldrsb.w": "load", "popne": "load_many", "bne.w": "branch", "bls": "branch", "blx": "jump",
        "smlal": "multiply_long", "smlad": "multiply", "vmsr": "float", "strh": "store", "mls": "multiply_add",
    }  # fmt: skip
    assert {m: kind_of(m) for m in expected} == expected


def test_a_loop() -> None:
    """movs r0, #3; 1: subs r0, #1; bne 1b; bx lr: three times round, left twice to the front and once for good."""
    code = bytes.fromhex("0320 0138 fdd1 7047".replace(" ", ""))
    begun, ended, left = np.zeros((3, 5), np.uint32)
    begun[[0, 1, 3]], ended[[3, 4]], left[[3, 4]] = [1, 2, 1], [3, 1], [2, 1]
    t = Timing("", "", branch=2, jump=3)
    assert CycleModel(t).cycles(Flow(0x100, code, begun, ended, left)) == (1 + 3 + 3 + 1) + 2 * 2 + 3


def test_what_is_no_code_is_an_error() -> None:
    with pytest.raises(ToolchainError, match="no instruction at 0x00000100: ff ff ff ff"):
        list(decode(b"\xff\xff\xff\xff", 0x100, 0x100))


def test_data_may_follow_a_far_jump() -> None:
    """A Cortex-M0+ jumps beyond 2 KiB by `bl`: what lies behind it need not be code."""
    found = list(decode(bytes.fromhex("0120 00f0 00fa 00c3 0100".replace(" ", "")), 0x100, 0x100))
    assert [i.at for i in found] == [0x100, 0x102]


def test_runs_are_cut_at_targets_and_gaps() -> None:
    code = bytes.fromhex("0320 0138 fdd1 7047".replace(" ", ""))
    found = list(decode(code, 0, 0))
    assert [len(r) for r in straight_runs(found, {i.target for i in found if i.target is not None})] == [1, 3]
    assert [len(r) for r in straight_runs([found[0], found[2]], set())] == [1, 1]


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "fake"
    shutil.copytree(FAKE, folder)
    for name in all_headers():
        (folder / name).write_text(header_text(name))
    return folder


@pytest.mark.parametrize("target", ["cortex-m7", "cortex-m0plus"])
def test_at_one_cycle_each_cycles_are_the_count(fake: Path, target: str) -> None:
    """The flow holds every instruction that was counted, in all and per node (but for the marker's own)."""
    ones = Timing("", "", word=0.0, divide=1.0, float_divide=1.0)
    with start(fake, "unicorn", target, flow=True) as device:
        assert isinstance(device, UnicornDevice)
        for k in range(3):
            device.step(frame(k))
            assert CycleModel(ones).cycles(device.flows[-1]) == device.counters.instructions
    with start(fake, "unicorn", target, profile=True, flow=True) as device:
        assert isinstance(device, UnicornDevice)
        device.step(frame(0))
        for node, count in device.counters.per_node.items():
            assert CycleModel(ones).cycles(device.flows[node]) == count + (node >= 0 and count > 0)


@pytest.mark.parametrize("profile", [False, True])
def test_flows_of_qemu_are_those_of_unicorn(fake: Path, profile: bool) -> None:
    """The same image, blocks cut differently: equal counts, and equal cycles in all and per node."""
    found = []
    for kind in ("unicorn", "qemu"):
        with start(fake, kind, "cortex-m4", profile=profile, flow=True) as device:
            model = CycleModel(timing_of("cortex-m4"))
            for k in range(3):
                device.step(frame(k))
                cycles = {node: model.cycles(flow) for node, flow in device.flows.items()}
                found.append((device.counters.instructions, dict(device.counters.per_node), cycles))
    assert found[:3] == found[3:]
    assert set(found[0][2]) == ({0, 1, 2, -1} if profile else {-1})


def test_lines_of_flash(fake: Path) -> None:
    """A frame waits for each line it reads: no more than the image has, and as many in every equal frame."""
    target = load_target("cortex-m7")
    dry = replace(target, timing=replace(timing_of("cortex-m7"), flash_wait=0.0))
    with open_device("unicorn", fake, target=target, counting=True, flow=True) as device:
        assert isinstance(device, UnicornDevice)
        found = count_frames(device, [frame(k) for k in range(4)], target)
        lines = device.flows[-1].lines
        executed = np.cumsum(device.flows[-1].begun.astype(int) - device.flows[-1].ended)
        code = len(set(np.flatnonzero(executed) // 16))
        assert code <= lines <= len(device.flows[-1].code) // 32 + 1
        device.reset()
        without = count_frames(device, [frame(k) for k in range(4)], dry)
        assert found.cycles[-1] - without.cycles[-1] == 20 * lines
        assert len(count_frames(device, [frame(k) for k in range(4)], dry, filling=3).cycles) == 1
        assert len(count_frames(device, [frame(k) for k in range(4)], dry, filling=9).cycles) == 4


def test_every_estimate_is_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cortex-m4", "cortex-m7", "cortex-m33", "cortex-m3", "cortex-m0plus"):
        assert how_modelled(load_target(name)).startswith("estimate")
        assert timing_of(name).error in how_modelled(load_target(name))
    assert how_modelled(load_target("cortex-a53")).startswith("not modelled: the target file of cortex-a53 has no")
    assert how_on_board(load_target("cortex-m4")).startswith("estimate: 1.25 times the modelled cycles, fitted to two")
    for name in ("cortex-m3", "cortex-m0plus", "cortex-m55"):
        assert how_on_board(load_target(name)).startswith("not estimated: no published run")
        assert board_milliseconds(1e6, load_target(name)) is None
    emulated_nowhere = replace(load_target("cortex-m4"), devices=("host",))
    assert "no emulator follows" in str(timing_obstacle(emulated_nowhere))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "capstone" else found(name))
    assert "capstone is not installed" in how_modelled(load_target("cortex-m4"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("load = 2", "lode = 2", "unknown key 'timing.lode'"),
        ("load = 2", 'load = "two"', "key 'timing.load': expected number, found string"),
    ],
)
def test_mistakes_in_a_timing_table(old: str, new: str, message: str) -> None:
    text = (Path(__file__).resolve().parents[3] / "targets" / "cortex-m4.toml").read_text()
    assert old in text
    with pytest.raises(TargetError, match=message):
        parse_target("x", text.replace(old, new), "x.toml")
