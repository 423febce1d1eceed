"""The same step graph on every shipped target: the bytes of the Cortex-M7's C, whatever the backend and the machine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgec
from edgec.backends import emit
from edgec.compiled import frames
from edgec.device import Device, open_device
from edgec.device.cuda import CudaDevice, check_gpu
from edgec.errors import ToolchainError
from edgec.ir.evaluate import StepRunner
from edgec.ir.graph import Graph
from edgec.passes.streaming.make_streaming import MakeStreaming
from edgec.profile.report import measure
from edgec.profile.verify.compare import verify_model
from edgec.target import list_targets, load_target
from edgec.toolchain import read_manifest
from edgec.toolchain.sizes import machine_of
from tests.conftest import needs, shipped_clips
from tests.models.on_cpu import build_on_cpu

FRAMES = 20
CLIP = shipped_clips()[4][1]  # a spoken word, 100 frames
SPEECH = CLIP[40 * 160 : (40 + FRAMES) * 160]
DEVICES = {
    "host": "host", "cortex-m0plus": "unicorn", "cortex-m3": "unicorn", "cortex-m4": "unicorn", "cortex-m7": "unicorn",
    "cortex-m33": "unicorn", "cortex-m55": "qemu", "cortex-a53": "qemu-aarch64",
}  # fmt: skip
PROGRAMS = {"qemu": "qemu-system-arm", "qemu-aarch64": "qemu-aarch64"}


def stream(device: Device, pcm: np.ndarray) -> np.ndarray:
    """All outputs, flush included [FRAMES, classes]."""
    spec = device.manifest.inputs[0]
    device.reset()
    outs = [device.step([f.astype(spec.dtype).reshape(spec.shape)]) for f in frames(pcm, spec)]
    while (out := device.flush()) is not None:
        outs.append(out)
    return np.stack([o[0].reshape(-1) for o in outs if o is not None])


@pytest.fixture(scope="module")
def step(lmuformer: Path) -> Graph:
    return edgec.CompiledModel(lmuformer).graph("step")


@pytest.fixture(scope="module")
def expected(lmuformer: Path) -> dict[int, np.ndarray]:
    """The outputs of the C that ships for the Cortex-M7, on this computer: of SPEECH and of CLIP, by samples."""
    with open_device("host", lmuformer) as device:
        found = {pcm.size: stream(device, pcm) for pcm in (SPEECH, CLIP)}
    assert [len(f) for f in found.values()] == [FRAMES, 100]
    assert len(np.unique(found[SPEECH.size])) > 5  # not all outputs alike
    return found


def folder_for(graph: Graph, target: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    emit.write_folder(graph, load_target(target), folder)
    return folder


def test_every_shipped_target_is_tested_here() -> None:
    assert {*DEVICES, "cuda-sm90"} == set(list_targets())


@pytest.mark.parametrize("target", DEVICES)
def test_the_bytes_are_those_of_the_cortex_m7(
    target: str, step: Graph, expected: dict[int, np.ndarray], tmp_path: Path
) -> None:
    kind = DEVICES[target]
    if kind == "unicorn":
        pytest.importorskip("unicorn")
    elif kind in PROGRAMS and shutil.which(PROGRAMS[kind]) is None:
        pytest.skip(f"{PROGRAMS[kind]} is not installed")
    pcm = CLIP if kind in ("host", "qemu-aarch64") else SPEECH  # an emulated core is slower
    with open_device(kind, folder_for(step, target, tmp_path)) as device:
        np.testing.assert_array_equal(stream(device, pcm), expected[pcm.size])


# ---- 64-bit ARM: objects by TVM's LLVM ----


@pytest.fixture(scope="module")
def a53(step: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_for(step, "cortex-a53", tmp_path_factory.mktemp("a53"))


def test_an_object_of_another_machine_is_refused_here_and_not_the_default(a53: Path) -> None:
    model = edgec.CompiledModel(a53)
    assert [Path(s).suffix for s in model.manifest.sources] == [".c", ".o"]
    assert model.default_device == "qemu-aarch64"
    with pytest.raises(ToolchainError, match=r"a53 cannot run on this computer: lmuformer_kernels.o holds AArch"):
        model.device("host")
    with pytest.raises(ToolchainError, match="'cortex-a53' is aarch64, not a Cortex-M"):
        model.device("unicorn")


def test_the_report_weighs_the_objects_and_a_linked_executable_is_kept(a53: Path, lmuformer: Path) -> None:
    found = measure(a53, load_target("cortex-a53"), None, "zig", keep_image=True)
    manifest = read_manifest(a53)
    assert {n.symbol for n in manifest.nodes} <= set(found["code"])
    weights = edgec.CompiledModel(lmuformer).report["totals"]["weights"]
    assert 0.9 * weights < found["flash"] < weights + 40_000
    assert found["how"]["flash"] == "text + rodata + data of the model's 2 objects, before linking"
    assert machine_of(a53 / "lmuformer.elf") == "AArch64"


@needs("qemu-aarch64")
def test_float_on_the_cortex_a53_is_within_tolerance(lmuformer: Path, tmp_path: Path) -> None:
    """LLVM may fuse a multiplication with an addition: the last bits differ from the reference's."""
    graph = MakeStreaming().run(edgec.CompiledModel(lmuformer).graph("reference"))
    pcm = SPEECH.astype(np.float32) / 32768
    reference = StepRunner(graph).run({graph.inputs[0].name: torch.from_numpy(pcm).view(1, -1)})
    wanted = torch.cat([o[0] for o in reference], 1).numpy().reshape(FRAMES, -1)
    with open_device("qemu-aarch64", folder_for(graph, "cortex-a53", tmp_path)) as device:
        found = stream(device, pcm)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


# ---- CUDA ----


@pytest.fixture(scope="module")
def cuda(step: Graph, lmuformer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = folder_for(step, "cuda-sm90", tmp_path_factory.mktemp("cuda"))
    shutil.copytree(lmuformer / "ir", folder / "ir")
    return folder


class OnCpu(edgec.CompiledModel):
    """A CUDA folder whose device is the CPU with the shim."""

    def device(self, kind: str = "", **options: Any) -> Device:
        return CudaDevice(self.library, self.manifest, **options)

    library: Path


@needs("g++")
def test_cuda_on_the_cpu_gives_the_bytes_layer_by_layer(
    cuda: Path, expected: dict[int, np.ndarray], tmp_path: Path
) -> None:
    model = OnCpu(cuda)
    model.library = build_on_cpu(cuda, tmp_path, ["-DEDGEC_PROFILE"])
    with model.device(instances=2) as device:
        device.select(1)
        stream(device, SPEECH[::-1].copy())
        device.select(0)
        for pcm in (CLIP, SPEECH):
            np.testing.assert_array_equal(stream(device, pcm), expected[pcm.size])
    result = verify_model(model, SPEECH)
    assert result.ok, result.verdict
    assert len(result.rows) == len(model.manifest.nodes)
    assert all(r.elements for r in result.rows)


@needs("nvcc")
def test_nvcc_compiles_the_whole_step(cuda: Path) -> None:
    found = measure(cuda, load_target("cuda-sm90"), None, "zig", keep_image=True)
    assert found["how"]["build"] == "compiled and linked by nvcc for sm_90, without warnings"
    assert (cuda / "lmuformer.so").stat().st_size > 300_000


@needs("nvcc")
def test_a_gpu_gives_the_bytes_of_the_cortex_m7(cuda: Path, expected: dict[int, np.ndarray]) -> None:
    try:
        check_gpu(load_target("cuda-sm90"))
    except ToolchainError as err:
        pytest.skip(f"no GPU for cuda-sm90 here: {err.message}")
    with open_device("cuda", cuda) as device:
        np.testing.assert_array_equal(stream(device, CLIP), expected[CLIP.size])
    result = verify_model(edgec.CompiledModel(cuda), SPEECH, "cuda")
    assert result.ok, result.verdict
