"""Target files: what ships, and what each kind of mistake in one says."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgec.errors import TargetError
from edgec.target import list_targets, load_target, parse_target

GOOD = """
summary = "a core"
arch = "arm-m"
cpu = "cortex-m7"
isa = ["generic"]
backend = "c"
devices = ["unicorn"]
clock_hz = 1
flash_bytes = 2
ram_bytes = 3
[zig]
triple = "t"
mcpu = "m"
[memory.code]
origin = 0
length = 16
[memory.ram]
origin = 32
length = 16
"""


def test_every_shipped_target_loads() -> None:
    names = list_targets()
    assert {"cortex-m7", "cortex-m4", "cortex-m0plus", "cortex-m55", "cortex-a53", "host"} <= set(names)
    for name in names:
        target = load_target(name)
        assert target.name == name
        assert target.isa[-1] in ("generic", "cuda")


def test_unknown_name_lists_near_and_all() -> None:
    with pytest.raises(TargetError) as e:
        load_target("cortexm7")
    assert "unknown target 'cortexm7'; known targets: cortex-a53, cortex-m0plus" in str(e.value)
    assert "did you mean cortex-m7" in str(e.value)


def test_a_path_loads_and_a_missing_one_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert load_target(path).name == "mine"
    assert load_target(str(path)).region("ram").origin == 32
    with pytest.raises(TargetError, match=r"other\.toml: no such file"):
        load_target(tmp_path / "other.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('cpu = "cortex-m7"', "", "missing key 'cpu' (string)"),
        ("clock_hz = 1", 'clock_hz = "fast"', "key 'clock_hz': expected int, found string"),
        ("clock_hz = 1", "clock_hz = true", "key 'clock_hz': expected int, found bool"),
        ('cpu = "cortex-m7"', 'cpu = "x"\ncolour = 1', "unknown key 'colour'; allowed keys: summary, arch, cpu"),
        ('mcpu = "m"', 'mcpu = "m"\nfpu = 1', "unknown key 'zig.fpu'; allowed keys: triple, mcpu"),
        ("origin = 32\n", "", "missing key 'memory.ram.origin' (int)"),
        ('backend = "c"', 'backend = "rust"', "key 'backend': 'rust' is not one of c, llvm, cuda"),
        ('isa = ["generic"]', 'isa = ["sse9"]', "key 'isa': 'sse9' found, expected some of generic, scalar, arm_dsp"),
        ('isa = ["generic"]', "isa = [1]", "key 'isa': expected strings, found ints"),
        ("[memory.ram]", "[memory.sram]", "arch 'arm-m' needs the tables [memory.code] and [memory.ram]"),
        ("clock_hz = 1", "clock_hz = ", "not valid TOML"),
        ("clock_hz = 1", "x = " + "[" * 9999, "not valid TOML"),
        ("flash_bytes = 2", "flash_bytes = -2", "key 'flash_bytes': expected 1 to 17,592,186,044,416, found -2"),
        ("ram_bytes = 3", "ram_bytes = 0", "key 'ram_bytes': expected 1 to"),
        ("ram_bytes = 3", "ram_bytes = 99999999999999999999", "found 99,999,999,999,999,999,999"),
        ("ram_bytes = 3", "ram_bytes = 3\nstack_bytes = -1", "key 'stack_bytes': expected 256 to"),
        ("ram_bytes = 3", "ram_bytes = 3\nframe_budget_ms = nan", "key 'frame_budget_ms': expected number, found nan"),
        ("ram_bytes = 3", "ram_bytes = 3\nframe_budget_ms = -1.0", "key 'frame_budget_ms': expected 1e-06 to"),
        ("clock_hz = 1", "clock_hz = 0", "key 'clock_hz': expected 1 to"),
        ("length = 16\n[memory.ram]", "length = 0\n[memory.ram]", "key 'memory.code.length': expected 1 to"),
        ("origin = 32", "origin = -32", "key 'memory.ram.origin': expected 0 to"),
        ("origin = 32", "origin = 8", "keys 'memory.code' and 'memory.ram' overlap"),
        ("origin = 32", "origin = 0xFFFFFFFF", "key 'memory.ram': reaches beyond the last address, 0xffffffff"),
        ("origin = 32", "origin = 32\nspeed = 1", "unknown key 'memory.ram.speed'; allowed keys: origin, length"),
        ("[memory.ram]", '[memory."a b"]\norigin = 99\nlength = 1\n[memory.ram]', "key 'memory.a b': expected a name"),
        ('mcpu = "m"', 'mcpu = "m\\u0000"', "key 'zig.mcpu': expected printable text"),
        ("[memory.code]", "[cost]\nint8 = 1\n[memory.code]", "missing key 'cost.w4a8' (number)"),
        (
            "[memory.code]",
            '[timing]\nsource = ""\nerror = ""\nload = -1\n[memory.code]',
            "key 'timing.load': expected 0",
        ),
        ("[memory.code]", "[[zig2]]\n[memory.code]", "unknown key 'zig2'"),
    ],
)
def test_mistakes_name_file_and_key(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(TargetError) as e:
        parse_target("x", GOOD.replace(old, new), "boards/x.toml")
    assert str(e.value).startswith("boards/x.toml: not ")
    assert message in str(e.value)


def test_all_mistakes_at_once() -> None:
    with pytest.raises(TargetError) as e:
        parse_target("x", GOOD.replace("clock_hz = 1", "clok_hz = 1"), "x.toml")
    assert "unknown key 'clok_hz'" in str(e.value)
    assert "missing key 'clock_hz'" in str(e.value)


def test_unknown_region_lists_the_known() -> None:
    with pytest.raises(TargetError, match="no memory region 'tcm'; it has: code, ram"):
        parse_target("x", GOOD, "x.toml").region("tcm")


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert load_target(path).ram_bytes == 3
    path.write_text(GOOD.replace("ram_bytes = 3", "ram_bytes = 4"))
    assert load_target(path).ram_bytes == 4


def test_import_is_light() -> None:
    code = "import sys, edgec.target; edgec.target.list_targets(); print({'torch', 'tvm', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
