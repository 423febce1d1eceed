"""One model, every device: the same bytes, instances apart, delay, flush, dumps and the errors."""

import gc
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from edgec.device import open_device
from edgec.errors import EdgecError, InputError, ToolchainError
from edgec.target import load_target
from edgec.toolchain import read_manifest
from tests.device.fake_model import frame, start

PLACES = [
    ("host", "host", "zig"),
    ("unicorn", "cortex-m7", "zig"),
    ("unicorn", "cortex-m7", "gcc"),
    ("unicorn", "cortex-m0plus", "zig"),
    ("qemu", "cortex-m7", "zig"),
    ("qemu", "cortex-m3", "gcc"),
    ("qemu", "cortex-m4", "zig"),
    ("qemu", "cortex-m33", "zig"),
    ("qemu", "cortex-m55", "zig"),
    ("qemu-aarch64", "cortex-a53", "zig"),
]


@pytest.mark.parametrize(("kind", "target", "toolchain"), PLACES)
def test_outputs_delay_flush_and_instances(fake: Path, kind: str, target: str, toolchain: str) -> None:
    with start(fake, kind, target, toolchain, instances=2) as device:
        sums = np.cumsum([frame(k)[0].astype(np.int32) * int(frame(k)[1][0]) for k in range(6)], axis=0)
        found = []
        for k in range(6):
            device.select(1)
            device.step([np.full(4, 100, np.int16), np.array([1], np.int8)])
            device.select(0)
            found.append(device.step(frame(k)))
        assert found[:2] == [None, None]
        found = found[2:]
        while (rest := device.flush()) is not None:
            found.append(rest)
        assert len(found) == 6
        for row, output in zip(sums, found, strict=True):
            assert output is not None
            np.testing.assert_array_equal(output[0], row[None])
            np.testing.assert_array_equal(output[1], np.array([row.sum() / 4], np.float32))
        with pytest.raises(EdgecError, match=r"fake_step returned -3 \(EDGEC_E_FLUSHED: step after flush"):
            device.step(frame(0))
        device.reset()
        assert device.step(frame(0)) is None
        device.select(1)
        other = device.step(frame(0))
        assert other is not None
        assert other[0].tolist() == [[500, 500, 500, 500]]


@pytest.mark.parametrize(
    ("kind", "target"),
    [("host", "host"), ("unicorn", "cortex-m7"), ("qemu", "cortex-m55"), ("qemu-aarch64", "cortex-a53")],
)
def test_dump(fake: Path, kind: str, target: str) -> None:
    with start(fake, kind, target, profile=True) as device:
        device.watch([0, 1, 2])
        for k in (1, 2, 3):
            device.step(frame(k))
        assert device.dump(0)[0].tolist() == [[0, 0, 0, 0]]
        assert device.dump(1)[0].tolist() == [[-4, 4, -4000, -21]]
        assert device.dump(2)[0].tolist() == [(-2 + 2 - 2000 - 14) / 4]
        device.watch([0])
        device.step(frame(5))
        assert device.dump(0)[0].tolist() == [[10, -10, 10000, 14]]
        with pytest.raises(InputError, match="node 1 is not watched"):
            device.dump(1)
        device.watch([2])
        device.reset()
        device.step(frame(1))
        with pytest.raises(InputError, match="node 2 did not run in the last step"):
            device.dump(2)
        device.watch(None)
        device.step(frame(1))


@pytest.mark.parametrize(("kind", "target"), [("host", "host"), ("unicorn", "cortex-m7")])
def test_a_product_build_cannot_be_watched(fake: Path, kind: str, target: str) -> None:
    with start(fake, kind, target) as device, pytest.raises(InputError, match="in a profile build only"):
        device.watch([0])


@pytest.mark.parametrize(("kind", "target"), [("host", "host"), ("unicorn", "cortex-m4"), ("qemu", "cortex-m7")])
def test_memory(fake: Path, kind: str, target: str) -> None:
    with start(fake, kind, target) as device:
        device.step(frame(1))
        found = device.memory()
    manifest = read_manifest(fake)
    assert found["state_bytes"] == manifest.state_bytes
    assert found["arena_bytes"] == manifest.arena_bytes
    if kind != "host":
        assert 50 < found["stack_bytes"] < 600 < found["stack_limit"]


def test_wrong_inputs(fake: Path) -> None:
    with start(fake, "host", "host") as device:
        with pytest.raises(InputError, match=r"step takes 2 inputs \(x, gain\), found 1"):
            device.step([np.zeros(4, np.int16)])
        with pytest.raises(InputError) as e:
            device.step([np.zeros(4, np.int32), np.zeros(2, np.int8)])
        assert "input 'x': expected int16[1, 4], found int32[4]" in str(e.value)
        assert "input 'gain': expected int8[1], found int8[2]" in str(e.value)
        with pytest.raises(InputError, match="instance 1 does not exist: the device has 1"):
            device.select(1)
        with pytest.raises(InputError, match=r"has no node 9; ids are 0\.\.2"):
            device.manifest.node(9)


def test_unknown_device_and_unfit_target(fake: Path) -> None:
    with pytest.raises(
        ToolchainError, match="unknown device 'fpga'; known devices: host, emulator, unicorn, qemu, qemu-aarch64"
    ):
        open_device("fpga", fake)
    pytest.importorskip("unicorn")
    with pytest.raises(ToolchainError, match=r"unicorn cannot run code for 'cortex-m55' \(helium, arm_dsp, generic\)"):
        open_device("unicorn", fake, None, "cortex-m55")


def test_qemu_missing_says_what_to_do(fake: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from edgec.device import open_image

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match="qemu-system-arm is not on the PATH") as e:
        open_image("qemu", tmp_path / "a.elf", read_manifest(fake), load_target("cortex-m7"))
    assert "hint: install the QEMU system emulator" in str(e.value)


CRASHES = {
    "wild": ("*(volatile int32_t *)0x90000000u = 1;", "crashed", "CFSR="),
    "undefined": ('__asm__ volatile(".inst.n 0xde00");', "crashed", "CFSR="),
}


@pytest.mark.parametrize("crash", CRASHES)
@pytest.mark.parametrize(("kind", "which"), [("unicorn", 1), ("qemu", 2)])
def test_a_crash_is_reported(fake: Path, tmp_path: Path, kind: str, which: int, crash: str) -> None:
    folder = tmp_path / "crash"
    shutil.copytree(fake, folder)
    text = (folder / "fake.c").read_text().replace("    fake_k0(", f"    {CRASHES[crash][0]}\n    fake_k0(")
    (folder / "fake.c").write_text(text)
    with start(folder, kind, "cortex-m7") as device:
        with pytest.raises(ToolchainError) as e:
            device.step(frame(1))
        assert CRASHES[crash][which] in str(e.value)
        if kind == "unicorn":
            assert "fake_step" in str(e.value)


@pytest.mark.parametrize(("kind", "target", "toolchain"), [p for p in PLACES if p[2] == "zig"][::2])
def test_a_forgotten_device_leaves_nothing(
    kind: str, target: str, toolchain: str, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    forgotten = start(fake, kind, target, toolchain=toolchain)
    forgotten.step(frame(1))
    process = getattr(forgotten, "_process", None)
    del forgotten
    gc.collect()
    assert not list(tmp_path.glob("edgec-device-*")) + list(tmp_path.glob("edgec-qemu-*"))
    assert process is None or process.poll() is not None


def test_a_temporary_build_is_removed_and_a_named_one_stays(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with start(fake, "host", "host"):
        (kept,) = tmp_path.glob("edgec-device-*")
        assert kept.is_dir()
    assert not kept.exists()
    with open_device("host", fake, target="host", build_dir=tmp_path / "out"):
        pass
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["fake-host.so"]
