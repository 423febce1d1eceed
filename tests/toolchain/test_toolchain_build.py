"""Building images and libraries: sizes, symbols, determinism and what failures say."""

import shutil
import sys
from pathlib import Path

import pytest

from edgec.errors import InputError, ToolchainError
from edgec.runtime import all_headers, header_text, runtime_file
from edgec.target import list_targets, load_target
from edgec.toolchain import build_aarch64, build_image, build_shared, image_sizes, read_manifest, symbols
from edgec.toolchain.command import run_command
from edgec.toolchain.generate import linker_script

FAKE = Path(__file__).parent.parent / "device" / "fake"
CORES = [name for name in list_targets() if load_target(name).arch == "arm-m"]


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    folder = tmp_path / "fake"
    shutil.copytree(FAKE, folder)
    for name in all_headers():
        (folder / name).write_text(header_text(name))
    return folder


@pytest.mark.parametrize("toolchain", ["zig", "gcc"])
@pytest.mark.parametrize("core", CORES)
def test_every_core_builds_with_both_toolchains(fake: Path, tmp_path: Path, core: str, toolchain: str) -> None:
    if toolchain == "gcc" and shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    elf = build_image(fake, load_target(core), tmp_path / "a.elf", toolchain=toolchain, profile=True, instances=2)
    sizes = image_sizes(elf)
    assert 300 < sizes.text < 4000
    assert (sizes.data, sizes.bss) == (0, 0), "a model has no globals"
    assert sizes.harness_flash > 500
    assert sizes.harness_ram >= 2 * 56 + 64
    assert sizes.image_flash == sizes.flash + sizes.harness_flash
    by_name = {s.name: s for s in symbols(elf)}
    assert by_name["fake_step"].is_function
    assert by_name["fake_step"].section == ".text"
    assert by_name["edgec_harness"].section == ".harness"
    assert sum(s.size for s in by_name.values() if s.section == ".text") <= sizes.text


def test_images_are_deterministic(fake: Path, tmp_path: Path) -> None:
    target = load_target("cortex-m7")
    first = build_image(fake, target, tmp_path / "1.elf").read_bytes()
    assert build_image(fake, target, tmp_path / "2.elf").read_bytes() == first


def test_a_product_image_has_no_marks(fake: Path, tmp_path: Path) -> None:
    elf = build_image(fake, load_target("cortex-m7"), tmp_path / "a.elf")
    assert "edgec_mark" not in {s.name for s in symbols(elf)}


def test_image_for_the_wrong_kind_of_target(fake: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="'host' is x86_64, not a Cortex-M"):
        build_image(fake, load_target("host"), tmp_path / "a.elf")
    with pytest.raises(ToolchainError, match="'cortex-m7' is arm-m, not 64-bit ARM Linux"):
        build_aarch64(fake, load_target("cortex-m7"), tmp_path / "a.elf")


def test_compiler_errors_are_shown(fake: Path, tmp_path: Path) -> None:
    (fake / "fake.c").write_text("int fake_init(void) { int unused; return 0.5; }\n")
    with pytest.raises(ToolchainError) as e:
        build_image(fake, load_target("cortex-m7"), tmp_path / "a.elf")
    message = str(e.value)
    assert message.startswith("compiling fake.c for host failed with exit code 1\n  command: ")
    assert "| " in message
    assert "unused" in message


def test_bad_arguments(fake: Path, tmp_path: Path) -> None:
    target = load_target("cortex-m7")
    with pytest.raises(ToolchainError, match="unknown toolchain 'armcc'; allowed: zig, gcc"):
        build_image(fake, target, tmp_path / "a.elf", toolchain="armcc")
    with pytest.raises(ToolchainError, match="unknown optimisation level '-O9'"):
        build_image(fake, target, tmp_path / "a.elf", opt="-O9")
    with pytest.raises(ToolchainError, match="C compiler 'nosuchcc' is not on the PATH"):
        build_shared(fake, tmp_path / "a.so", cc="nosuchcc")
    with pytest.raises(InputError, match=r"not a compiled model \(no manifest.json\)"):
        read_manifest(tmp_path)
    with pytest.raises(ToolchainError, match="no-such-program' is not installed"):
        run_command(["no-such-program"], "testing")


def test_a_listed_source_must_exist(fake: Path, tmp_path: Path) -> None:
    text = (fake / "manifest.json").read_text()
    (fake / "manifest.json").write_text(text.replace('"fake.c"', '"fake.c", "gone.c"'))
    with pytest.raises(ToolchainError, match=r"lists 'gone\.c', which is not there"):
        build_shared(fake, tmp_path / "a.so")


def test_objects_are_linked_as_they_are(fake: Path, tmp_path: Path) -> None:
    head = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        "thumb-freestanding-eabihf",
        "-mcpu=cortex_m7+fp_armv8d16",
    ]
    run_command([*head, "-O2", "-fno-sanitize=all", "-I", str(fake), "-c", str(fake / "fake.c"), "-o",
                 str(fake / "fake_kernels.o")], "compiling")  # fmt: skip
    (fake / "manifest.json").write_text((fake / "manifest.json").read_text().replace('"fake.c"', '"fake_kernels.o"'))
    elf = build_image(fake, load_target("cortex-m7"), tmp_path / "a.elf")
    assert "fake_step" in {s.name for s in symbols(elf)}


def test_linker_script_follows_the_memory_map() -> None:
    script = linker_script(load_target("cortex-m55"))
    assert "RODATA (rx) : ORIGIN = 0x11000000, LENGTH = 0x200000" in script
    assert "edgec_stack_top = 0x30080000" in script


def test_memory_routines(tmp_path: Path) -> None:
    """memcpy and its kin, under other names on the host, against Python's."""
    import ctypes
    import random

    from edgec.toolchain import build_plain_shared

    text = runtime_file("port_memory.c").read_text()
    for name in ("memcpy", "memmove", "memset", "memcmp"):
        text = text.replace(f"{name}(", f"t_{name}(")
    (tmp_path / "m.c").write_text(text)
    flags = ("-fno-builtin", "-D__ARM_FEATURE_UNALIGNED")
    lib = ctypes.CDLL(str(build_plain_shared(tmp_path / "m.c", tmp_path / "m.so", flags=flags)))
    rng = random.Random(1)
    for _ in range(2000):
        data = bytearray(rng.randbytes(96))
        a, b, n = rng.randrange(32), rng.randrange(32), rng.randrange(64)
        buffer = (ctypes.c_char * 96).from_buffer(data)
        base = ctypes.addressof(buffer)
        expected = bytearray(data)
        choice = rng.choice(["move", "set", "copy"])
        if choice == "copy" and abs(a - b) >= n:
            expected[a : a + n] = expected[b : b + n]
            lib.t_memcpy(ctypes.c_void_p(base + a), ctypes.c_void_p(base + b), ctypes.c_size_t(n))
        elif choice == "move":
            expected[a : a + n] = expected[b : b + n]
            lib.t_memmove(ctypes.c_void_p(base + a), ctypes.c_void_p(base + b), ctypes.c_size_t(n))
        else:
            expected[a : a + n] = bytes([b]) * n
            lib.t_memset(ctypes.c_void_p(base + a), b, ctypes.c_size_t(n))
        assert bytes(data) == bytes(expected), (choice, a, b, n)
