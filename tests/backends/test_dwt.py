"""--profile dwt: the step reads the core's cycle counter around each layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgec.backends.emit import write_folder
from edgec.cli import main
from edgec.device import open_device
from edgec.errors import InputError
from edgec.ir.graph import Graph
from edgec.ops import Relu
from edgec.options import Code
from edgec.target import list_targets, load_target
from edgec.toolchain import build_image
from tests.conftest import needs
from tests.graphs import Builder, conv

X = np.linspace(-1, 1, 8 * 12, dtype=np.float32).reshape(1, 8, 12)


def graph() -> Graph:
    b = Builder()
    x = b.emit(Relu(), conv(b, b.input("cycles", 1, 8, 12, time=None), 16, 3, (1, 1)))
    return b.build(conv(b, x, 8, 3, (1, 1)))


def folder_for(target: str, out: Path, cycles: bool = True) -> Path:
    out.mkdir()
    write_folder(graph(), load_target(target), out, Code(profile="dwt" if cycles else None))
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_for("cortex-m4", tmp_path_factory.mktemp("dwt") / "m4")


def test_the_emulators_counter_follows_the_layers(folder: Path) -> None:
    """Its counter gives the instructions of the blocks so far: each layer has those that a profile build counts."""
    pytest.importorskip("unicorn")
    with open_device("unicorn", folder, counting=True) as device:
        first = device.step([X])
        found, total = device.cycles(), device.counters.instructions
        device.reset()
        device.step([X])
        assert device.cycles() == found  # not added up over calls
    assert first is not None
    with open_device("unicorn", folder, profile=True, counting=True) as device:
        device.step([X])
        counted = device.counters.per_node
    assert list(found) == [n for n in counted if n >= 0]
    assert all(abs(found[n] - counted[n]) <= 100 for n in found), (found, counted)  # two builds: not the same code
    assert 0 <= total - sum(found.values()) <= 100


def test_outputs_stay_as_they_are(folder: Path, tmp_path: Path) -> None:
    """And on this computer, which has no such counter, every entry is 0."""
    plain = folder_for("cortex-m4", tmp_path / "plain", cycles=False)
    outputs = []
    for each in (folder, plain):
        with open_device("host", each) as device:
            (y,) = device.step([X]) or [np.empty(0)]
            outputs.append(y)
            if each is folder:
                assert set(device.cycles().values()) == {0}
            else:
                with pytest.raises(InputError, match="compile with profile='dwt'"):
                    device.cycles()
    np.testing.assert_array_equal(*outputs)
    assert "uint32_t cycles" not in (plain / "net.h").read_text()


def test_the_header_names_the_layers(folder: Path) -> None:
    text = (folder / "net.h").read_text()
    assert "#define NET_LAYERS 3u" in text
    assert "/* 1: relu, t1 */" in text
    assert "in_cycles" in text  # an input of that name steps aside


@pytest.mark.parametrize("toolchain", ["zig", pytest.param("gcc", marks=needs("arm-none-eabi-gcc"))])
@pytest.mark.parametrize("target", ["cortex-m33", "cortex-m55"])
def test_compiles_without_warnings(tmp_path: Path, target: str, toolchain: str) -> None:
    build_image(folder_for(target, tmp_path / "f"), load_target(target), tmp_path / "i.elf", toolchain=toolchain)


def test_cores_without_the_counter(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    having = [n for n in list_targets() if load_target(n).cycle_counter]
    assert having == ["cortex-m3", "cortex-m33", "cortex-m4", "cortex-m55", "cortex-m7"]
    out = tmp_path / "o"
    assert main(["compile", "lmuformer", "--target", "cortex-m0plus", "--profile", "dwt", "-o", str(out)]) == 2
    assert "cortex-m0plus has no cycle counter (DWT->CYCCNT)" in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(InputError, match="unknown profile 'etm'"):
        Code(profile="etm")
