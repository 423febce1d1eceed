"""The Cortex-M55's modelled cycles against llvm-mca's (LLVM 19, whose model of this core is Arm's)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("capstone", minversion="6")

from edgec.device.base import Flow
from edgec.profile.timing import frames
from edgec.profile.timing.cores import costs
from edgec.profile.timing.decode import Instruction, decode, vector_kind_of
from edgec.profile.timing.frames import count_frames, how_modelled
from edgec.profile.timing.model import CycleModel
from edgec.runtime import all_headers, header_text
from edgec.target import Timing, load_target
from edgec.toolchain.command import run_command
from edgec.toolchain.compilers import zig_cc, zig_machine
from tests.device.fake_model import frame, start

FAKE = Path(__file__).resolve().parents[2] / "device" / "fake"
#: code, cycles of a round when it is repeated; by llvm-mca -mcpu=cortex-m55 -iterations=1000, without start and end
ROUNDS = {
    "vldrb.u8 q0, [r1], #16; vmladava.s8 r0, q0, q2": 2,
    "vldrb.u8 q0, [r1], #16; vmladava.s8 r0, q0, q2; vmladava.s8 r2, q0, q3": 4,
    "vldrb.u8 q0, [r1], #16; vldrb.u8 q1, [r3], #16; vmladava.s8 r0, q0, q2; vmladava.s8 r2, q1, q2": 6,
    "vldrw.u32 q0, [r1]; vadd.i32 q1, q0, q2; vmul.i32 q3, q1, q2; vstrw.32 q3, [r2]": 5,
    "vldrw.u32 q0, [r1]; vldrw.u32 q1, [r2]; vadd.i32 q1, q0, q1; vstrw.32 q1, [r3]": 6,
    "vqrdmulh.s32 q0, q0, q1; vrshl.s32 q0, q0, q2; vadd.i32 q0, q0, r3; vqmovnb.s32 q4, q0; vqmovnb.s16 q4, q4;"
    " vstrb.32 q4, [r0], #4": 13,
    "vldrb.u8 q3, [r1, q0]; vadd.i32 q0, q0, r2": 6,
    "vcmp.s32 gt, q0, r1; vpst; vaddt.i32 q2, q3, q4": 3,
    "vdup.32 q0, r0; vmla.i32 q1, q0, r2; vshr.s32 q2, q1, #3": 5,
    "vaddv.s32 r0, q1; add r0, r3": 3,
    "ldr r0, [r1]; adds r0, r0, #1": 2,
    "ldr r0, [r1]; add r2, r5; add r0, r3": 3,
    "mov r0, r1; add r2, r3; mov r5, r6; add r4, r7": 2,
    "uxtb r0, r1; ldrb r2, [r3]; sxth r4, r5; strb r2, [r6]": 3,
    "vadd.f32 s0, s1, s2; vmul.f32 s3, s0, s4": 3,
}
#: what LLVM's model leaves open: a short sum of two registers starts alone, several registers move two a cycle
ALONE = {
    "add.w r0, r1, #5; add.w r2, r3, r4": 2,
    "ldm r0!, {r1, r2, r3, r4}": 2,
    "push {r4, r5, r6, lr}": 2,
}  # fmt: skip


def timing() -> Timing:
    found = load_target("cortex-m55").timing
    assert found is not None
    return found


def assemble(work: Path, texts: list[str]) -> tuple[bytes, dict[str, int]]:
    """Machine code of snippets, each ended by a return, and where each begins."""
    from elftools.elf.elffile import ELFFile

    lines = [".syntax unified", ".text", ".thumb"]
    for k, text in enumerate(texts):
        lines += [f".global f{k}", f".thumb_func\nf{k}:", *text.split("; "), "bx lr"]
    (work / "a.s").write_text("\n".join(lines) + "\n")
    machine = zig_machine(load_target("cortex-m55"))
    run_command([*zig_cc(), *machine, "-c", str(work / "a.s"), "-o", str(work / "a.o")], "assembling")
    with (work / "a.o").open("rb") as f:
        image = ELFFile(f)
        code = image.get_section_by_name(".text").data()
        at = {s.name: s["st_value"] & ~1 for s in image.get_section_by_name(".symtab").iter_symbols()}
    return code, {text: at[f"f{k}"] for k, text in enumerate(texts)}


@pytest.fixture(scope="module")
def assembled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Instruction]]:
    code, at = assemble(tmp_path_factory.mktemp("asm"), [*ROUNDS, *ALONE])
    return {text: list(decode(code, 0, start, True))[:-1] for text, start in at.items()}


@pytest.mark.parametrize("text", [*ROUNDS, *ALONE])
def test_cycles_of_a_round(assembled: dict[str, list[Instruction]], text: str) -> None:
    run, rounds = assembled[text], 8
    found = costs(run * rounds, timing())
    assert sum(found[-len(run) :]) == (ROUNDS | ALONE)[text]


def test_a_low_overhead_loop(tmp_path: Path) -> None:
    """dls, then three rounds of a load and a product: the loop's end costs nothing, a round what it does repeated."""
    code, at = assemble(tmp_path, ["dls lr, r3; 1: vldrb.u8 q0, [r1], #16; vmladava.s8 r0, q0, q2; le lr, 1b"])
    size = len(code) // 2 + 1
    assert list(at.values()) == [0]
    begun, ended, left = np.zeros((3, size), np.uint32)
    begun[[0, 2]], ended[[8, 9]], left[[8, 9]] = [1, 2], [3, 1], [2, 1]  # dls at 0, the body at 2, bx at 8
    begun[8] = 1
    assert CycleModel(timing()).cycles(Flow(0, code, begun, ended, left)) == 1 + 3 * 2 + 1 + timing().jump


def test_kinds_of_vector_instructions() -> None:
    expected = {
        "vldrb.u8": "vector_load", "vstrbt.16": "vector_store", "vmlava.s8": "vector_multiply",
        "vmlav.s8": "vector_multiply", "vmlalvax.s16": "vector_multiply", "vqrdmulh.s32": "vector_multiply",
        "vaddv.s32": "vector_multiply", "vcmp.s8": "vector_compare", "vadd.f32": "vector_compare",
        "vadd.i32": "vector_add", "vaddt.i32": "vector_add", "vmax.s8": "vector_add", "vshl.i32": "vector_add",
        "vidup.u8": "vector_add", "vmov": "vector_add", "vmov.i32": "vector_multiply", "vmaxv.s8": "vector_narrow",
        "vqmovnb.s32": "vector_narrow", "vrshl.s32": "vector_shift", "vctp.8": "vector_predicate",
        "vpst": "vector_predicate", "vpush": "store_many",
    }  # fmt: skip
    assert {m: vector_kind_of(m) for m in expected} == expected


def test_a_model_on_qemu_has_cycles(tmp_path: Path) -> None:
    """Per node they add up to those of the whole step, but for the runs that the marks cut."""
    shutil.copytree(FAKE, tmp_path / "fake")
    for name in all_headers():
        (tmp_path / "fake" / name).write_text(header_text(name))
    target = load_target("cortex-m55")
    with start(tmp_path / "fake", "qemu", "cortex-m55", flow=True) as device:
        whole = count_frames(device, [frame(k) for k in range(3)], target)
    with start(tmp_path / "fake", "qemu", "cortex-m55", profile=True, flow=True) as device:
        layers = count_frames(device, [frame(k) for k in range(3)], target)
    for instructions, cycles, nodes in zip(whole.instructions, whole.cycles, layers.node_cycles, strict=True):
        assert instructions / 2 <= cycles <= 4 * instructions
        assert set(nodes) == {0, 1, 2, -1}
        assert sum(nodes.values()) == pytest.approx(cycles, rel=0.25)


def test_the_estimate_is_labelled_and_needs_a_disassembler_that_knows_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    target = load_target("cortex-m55")
    assert how_modelled(target).startswith("estimate")
    assert timing().error in how_modelled(target)
    monkeypatch.setattr(frames, "knows_vectors", lambda: False)
    assert "from version 6 on" in how_modelled(target)
