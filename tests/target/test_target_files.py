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


def test_import_is_light() -> None:
    code = "import sys, edgec.target; edgec.target.list_targets(); print({'torch', 'tvm', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
