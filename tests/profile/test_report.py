"""A measurement that fails costs the figure and says so; what is broken in the model stays an error."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgec.device
from edgec.backends.emit import write_folder
from edgec.errors import CodegenError, ToolchainError
from edgec.ir.graph import Graph
from edgec.ops import Relu
from edgec.options import Options
from edgec.passes.streaming.make_streaming import MakeStreaming
from edgec.plan import Plan
from edgec.profile import report, tune
from edgec.target import load_target
from tests.conftest import needs
from tests.graphs import Builder, conv

Compiled = tuple[Path, Plan, Graph]


def build(target: str, compiled: Compiled) -> dict[str, Any]:
    folder, plan, _ = compiled
    data = {"x": np.ones((1, 8, 4), np.float32)}
    return report.build_report(folder, load_target(target), plan, data, {}, Options.of(precision="float32"))


def compiled_for(target: str, folder: Path, convolve: bool = True) -> Compiled:
    b = Builder(seed=1)
    x = b.input("x", 1, 8, 4)
    whole = b.build(b.emit(Relu(), conv(b, x, 4, 3, (1, 1)) if convolve else x))
    return folder, write_folder(MakeStreaming().run(whole), load_target(target), folder), whole


@pytest.fixture(scope="module")
def m4(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compiled_for("cortex-m4", tmp_path_factory.mktemp("m4"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ToolchainError("qemu-system-arm is not on the PATH"), "not counted: qemu-system-arm is not on the PATH"),
        (KeyError("node_ticks"), "not counted: KeyError: 'node_ticks'"),
        (PermissionError(13, "Permission denied"), "not counted: PermissionError: [Errno 13] Permission denied"),
        (AssertionError(), "not counted: AssertionError"),
    ],
)
def test_an_emulator_that_fails_costs_the_counts(
    error: Exception, said: str, m4: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(report, "open_image", broken)
    found = build("cortex-m4", m4)
    assert found["how"]["instructions"] == found["how"]["layers"] == said
    assert found["totals"]["instructions_worst"] is None
    assert found["totals"]["latency_ms"] is None
    assert found["totals"]["flash"] > 0


def test_a_profile_build_that_fails_costs_the_counts_per_layer(m4: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("unicorn")

    def broken(*args: Any, profile: bool = False, **options: Any) -> Any:
        if profile:
            raise ToolchainError("instruction counting lost track of the model")
        return edgec.device.open_image(*args, **options)

    monkeypatch.setattr(report, "open_image", broken)
    found = build("cortex-m4", m4)
    assert found["totals"]["instructions_worst"] > 0
    assert found["how"]["layers"] == "not counted: instruction counting lost track of the model"
    assert [r["instructions"] for r in found["layers"]] == [None, None, None]


@pytest.mark.parametrize("script", ["exit 1", "echo no such machine >&2; exit 3", "cat >/dev/null & exit 0"])
def test_a_qemu_that_dies_costs_the_counts(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bin" / "qemu-system-arm"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "QEMU emulator version 7.2" && exit 0\n{script}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=":")
    folder = tmp_path / "net"
    folder.mkdir()
    found = build("cortex-m55", compiled_for("cortex-m55", folder))
    assert found["how"]["instructions"].startswith("not counted: the image of 'net' under QEMU ended")


def test_a_model_that_overflows_its_stack_is_an_error(m4: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("unicorn")

    def full(self: Any) -> dict[str, int]:
        raise CodegenError("model 'net' overflowed the stack of 64 bytes")

    monkeypatch.setattr("edgec.device.protocol.HarnessDevice.memory", full)
    with pytest.raises(CodegenError, match="overflowed the stack"):
        build("cortex-m4", m4)


def test_a_model_that_does_not_link_is_an_error(m4: Compiled, tmp_path: Path) -> None:
    folder = shutil.copytree(m4[0], tmp_path / "net")
    (folder / "net.c").write_text("int broken(\n")
    with pytest.raises(ToolchainError, match="compiling net"):
        build("cortex-m4", (folder, *m4[1:]))


@needs("qemu-system-arm")
@pytest.mark.parametrize("convolve", [False, True])
def test_the_plugin_follows_one_node_and_a_mark_at_the_end(convolve: bool, tmp_path: Path) -> None:
    found = build("cortex-m55", compiled_for("cortex-m55", tmp_path, convolve))
    assert all(r["instructions"] > 0 for r in found["layers"])
    assert found["how"]["layers"].startswith("instructions")


def test_a_layer_that_cannot_be_measured_keeps_its_first_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("unicorn")
    from tests.profile.test_tune import small_net

    def broken(*args: Any) -> None:
        raise ToolchainError("the emulator died")

    monkeypatch.setattr(tune, "measure", broken)
    target = load_target("cortex-m4")
    tuned = tune.tune_kernels(small_net(), target, tmp_path / "cache.json")
    assert (tuned.measured, tuned.failed) == (0, ("the emulator died",) * 2)
    assert not (tmp_path / "cache.json").exists()
    found: dict[str, Any] = {"how": {}}
    tuned.describe(found)
    assert found["how"]["tune"].endswith("2 not measured: the emulator died")
    plan = write_folder(small_net(), target, tmp_path, choose=tuned.choose)
    assert [c.variant for c in plan.calls] == [c.variant for c in write_folder(small_net(), target, tmp_path).calls]
