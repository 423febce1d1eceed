"""Where constants, state and arena lie, and that it changes no byte of the output."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from edgec.backends.emit import write_folder
from edgec.device import open_image
from edgec.errors import InputError
from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Graph
from edgec.ir.types import DType
from edgec.ops import QLinear
from edgec.options import Code
from edgec.plan.memory import ARENA, STATE, place_memory, region_rows
from edgec.target import Region, Target, load_target
from edgec.toolchain import build_image, image_sizes, read_manifest, symbols
from tests.graphs import Builder


def layers() -> Graph:
    """A small layer over many rows, a large one over one row."""
    b = Builder()
    b.input("x", 1, 40, 8, time=None, dtype=DType.I8)
    b.input("z", 1, 96, time=None, dtype=DType.I8)

    def linear(x: str, inputs: int, outputs: int) -> str:
        w = b.rng.integers(-127, 128, (inputs, outputs))
        return b.emit(QLinear(), x, b.const(w, "int8"), b.const(np.arange(outputs), "int32"))

    hot, cold = linear("x", 8, 12), linear("z", 96, 12)
    return b.build(hot, cold)


def small(length: int) -> Target:
    """The M7 with so much DTCM."""
    target = load_target("cortex-m7")
    regions = [dataclasses.replace(r, length=length) if r.name == "dtcm" else r for r in target.regions]
    return dataclasses.replace(target, regions=tuple(regions))


def test_without_a_policy_constants_stay_in_flash(tmp_path: Path) -> None:
    plan = write_folder(layers(), load_target("cortex-m7"), tmp_path)
    assert plan.homes == {}
    assert "EDGEC_SECTION" not in (tmp_path / "net.c").read_text()
    assert {i.region for i in plan.items} == {"flash", "ram"}


def test_the_constants_used_most_per_byte_go_first_while_they_fit(tmp_path: Path) -> None:
    target = small(600)
    plan = write_folder(layers(), target, tmp_path, Code(place="fast"))
    rows = {r["region"]: r for r in region_rows(plan.items, target)}
    assert rows["dtcm"]["bytes"] <= 600
    inside = {i.name for i in plan.items if i.region == "dtcm"}
    used = {i.name: i.uses for i in plan.items}
    first = next(n for n in plan.consts if n.startswith("c0"))  # the weights that 40 rows share
    last = next(n for n in plan.consts if n.startswith("c2"))
    assert first in inside
    assert last not in inside
    assert used[first] > 10 * used[last]
    listed = [i["uses_per_byte"] for i in rows["dtcm"]["items"]]
    assert listed == sorted(listed, reverse=True)


@pytest.mark.parametrize("toolchain", ["zig", "gcc"])
def test_the_emulated_core_gives_the_same_bytes_from_the_fast_memory(tmp_path: Path, toolchain: str) -> None:
    pytest.importorskip("unicorn")
    if toolchain == "gcc" and shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    graph, target = layers(), load_target("cortex-m7")
    rng = np.random.default_rng(3)
    values = [rng.integers(-128, 128, v.type.shape).astype(np.int8) for v in graph.inputs]
    tensors = {v.name: torch.from_numpy(a.astype(np.int64)) for v, a in zip(graph.inputs, values, strict=True)}
    expected = [t.numpy().reshape(-1).tolist() for t in evaluate(graph, tensors)]
    for policy in ("flash", "fast"):
        folder = tmp_path / policy
        folder.mkdir()
        plan = write_folder(graph, target, folder, Code(place=policy))
        elf = build_image(folder, target, folder / "net.elf", toolchain=toolchain)
        dtcm = target.region("dtcm")
        inside = {s.name for s in symbols(elf) if dtcm.origin <= s.address < dtcm.origin + dtcm.length}
        wanted = {f"c_{n}" for n in plan.homes if n in plan.consts}
        wanted |= {n for k, n in ((ARENA, "edgec_arena"), (STATE, "edgec_states")) if k in plan.homes}
        assert {s for s in inside if s.startswith(("c_", "edgec_arena", "edgec_states"))} == wanted
        assert bool(wanted) == (policy == "fast")
        assert image_sizes(elf).flash >= sum(a.nbytes for a in plan.consts.values()), "the copies' source is flash"
        with open_image("unicorn", elf, read_manifest(folder), target) as device:
            found = device.step(values)
        assert found is not None
        assert [f.reshape(-1).tolist() for f in found] == expected


def test_targets_without_fast_memory_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'cortex-m3' has no fast memory"):
        write_folder(layers(), load_target("cortex-m3"), tmp_path, Code(place="fast"))


def test_the_fastest_memory_is_filled_first(tmp_path: Path) -> None:
    target = load_target("cortex-m7")
    slow = Region("sram2", 0x3000_0000, 1 << 20, 2)
    both = dataclasses.replace(target, regions=(slow, *target.regions))
    plan = write_folder(layers(), target, tmp_path)
    assert {i.region for i in place_memory(plan, both, "fast")} == {"dtcm"}
    tiny = dataclasses.replace(small(64), regions=(slow, *small(64).regions))
    assert {i.region for i in place_memory(plan, tiny, "fast")} >= {"sram2", "dtcm"}
