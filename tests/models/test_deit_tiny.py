"""Vision transformers in float32 on this computer, ARM CPUs and CUDA: timm's DeiT-Tiny unchanged, and the nano size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edgec import frontends
from edgec.backends import emit
from edgec.device import Device, open_device
from edgec.device.cuda import CudaDevice
from edgec.ir.graph import Graph
from edgec.ir.types import DType
from edgec.stages import passes_for, transform
from edgec.target import load_target
from edgec.toolchain import build_cuda, read_manifest
from models.vit.model import Config, VisionTransformer
from tests.conftest import needs
from tests.models.on_cpu import build_on_cpu

PARAMETERS = 5_717_416
TOLERANCE = 1e-4


def module(**options: int) -> torch.nn.Module:
    """The module with random weights, as timm makes it."""
    torch.manual_seed(0)
    timm = pytest.importorskip("timm")
    made: torch.nn.Module = timm.create_model("deit_tiny_patch16_224", pretrained=False, **options)
    return made.eval()


def image(size: int = 224) -> torch.Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))


def lowered(model: torch.nn.Module, x: torch.Tensor) -> Graph:
    graph = frontends.load(model, (x,), name="deit")
    return transform(graph, passes_for("float32", None, None, None), lambda stage: None)[-1]


def folder_for(graph: Graph, target: str, folder: Path) -> Path:
    folder.mkdir()
    emit.write_folder(graph, load_target(target), folder)
    return folder


def check(device: Device, model: torch.nn.Module, x: torch.Tensor) -> None:
    """The device's scores are the module's."""
    with device:
        (found,) = device.step([x.numpy()])
    with torch.no_grad():
        np.testing.assert_allclose(found, model(x).numpy(), atol=TOLERANCE)


@pytest.fixture(scope="module")
def short() -> torch.nn.Module:
    """Two of the twelve blocks, for the slow devices."""
    return module(depth=2)


@pytest.fixture(scope="module")
def graph(short: torch.nn.Module) -> Graph:
    return lowered(short, image())


def test_the_whole_model_on_this_computer(tmp_path: Path) -> None:
    model = module()
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS
    graph = lowered(model, image())
    assert all(t.dtype is DType.F32 for n in graph.nodes for t in n.types)
    folder = folder_for(graph, "host", tmp_path / "host")
    weights = (folder / "deit_weights.bin").stat().st_size
    assert 0.99 * 4 * PARAMETERS < weights < 4 * PARAMETERS  # vectors below 4 KiB are C text
    assert (folder / "deit.c").stat().st_size < 1_000_000  # no literals for the compiler to read
    check(open_device("host", folder), model, image())


@needs("qemu-aarch64")
def test_on_the_cortex_a53(short: torch.nn.Module, graph: Graph, tmp_path: Path) -> None:
    folder = folder_for(graph, "cortex-a53", tmp_path / "a53")
    variants = {n["variant"] for n in json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["nodes"]}
    assert variants >= {"conv_neon", "linear_neon", "matmul_neon", "softmax_neon", "layer_norm_neon"}
    check(open_device("qemu-aarch64", folder), short, image())


@needs("qemu-aarch64")
@needs("g++")
def test_the_nano_size_on_both(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VisionTransformer(Config()).eval()
    graph = lowered(model, image(Config().size))
    folder = folder_for(graph, "cortex-a53", tmp_path / "a53")
    check(open_device("qemu-aarch64", folder), model, image(Config().size))
    folder = folder_for(graph, "cuda-sm90", tmp_path / "cuda")
    check(CudaDevice(build_on_cpu(folder, tmp_path), read_manifest(folder)), model, image(Config().size))


@pytest.fixture(scope="module")
def cuda(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_for(graph, "cuda-sm90", tmp_path_factory.mktemp("cuda") / "deit")


@needs("g++")
def test_cuda_on_the_cpu(short: torch.nn.Module, cuda: Path, tmp_path: Path) -> None:
    check(CudaDevice(build_on_cpu(cuda, tmp_path), read_manifest(cuda)), short, image())


@needs("nvcc")
def test_nvcc_compiles_and_links_it(cuda: Path, tmp_path: Path) -> None:
    library = build_cuda(cuda, load_target("cuda-sm90"), tmp_path / "deit.so")
    assert library.stat().st_size > (cuda / "deit_weights.bin").stat().st_size
