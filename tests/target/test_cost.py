"""The committed instructions per MAC are those that the bench counts."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from edgec.errors import TargetError
from edgec.target import list_targets, load_target, parse_target

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("precisions", ROOT / "bench" / "precisions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", [n for n in list_targets() if load_target(n).cost is not None])
def test_the_bench_counts_what_is_committed(name: str, bench: ModuleType) -> None:
    if "unicorn" in load_target(name).devices:
        pytest.importorskip("unicorn")
    elif shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed")
    assert bench.measure(load_target(name))[0] == load_target(name).cost


def test_cores_with_the_dsp_extension_gain_from_fewer_bits() -> None:
    for name in ("cortex-m4", "cortex-m7", "cortex-m33"):
        cost = load_target(name).cost
        assert cost is not None
        assert max(cost.w4a4, cost.w2a8) <= 0.6
        assert cost.w4a8 <= 1.25 * cost.int8


def test_an_incomplete_table_is_refused() -> None:
    text = (ROOT / "targets" / "cortex-m3.toml").read_text(encoding="utf-8").replace("w4a4 =", "w4a5 =")
    with pytest.raises(TargetError, match=r"(?s)unknown key 'cost.w4a5'.*missing key 'cost.w4a4' \(number\)"):
        parse_target("cortex-m3", text, "cortex-m3.toml")
