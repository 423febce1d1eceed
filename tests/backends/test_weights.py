"""Weights of large models: a binary file and an assembler source that every toolchain takes; small models stay text."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgec.backends.emit import write_folder
from edgec.backends.weights import LARGE_CONST, LARGE_MODEL, binary_consts, weight_files
from edgec.device import open_device
from edgec.errors import CodegenError
from edgec.ir.text import parse_graph
from edgec.ops import OPS
from edgec.target import load_target
from edgec.toolchain import build_image, read_manifest
from edgec.toolchain.compilers import zig_cc

NET = """graph net
input %x : float32[1,{i}]
const %w : float32[{i},{o}] = ...
const %b : float32[{o}] = ...
%y = linear(%x, %w, %b) : float32[1,{o}]
return %y
"""
LARGE = (1024, 520)  # 2.03 MiB of weights


def folder_of(shape: tuple[int, int], target: str, folder: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A compiled linear layer, its weights and its bias."""
    i, o = shape
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=shape).astype(np.float32), rng.normal(size=o).astype(np.float32)
    graph = parse_graph(NET.format(i=i, o=o), OPS, {"w": w, "b": b})
    folder.mkdir()
    write_folder(graph, load_target(target), folder)
    return folder, w, b


def test_a_small_model_is_c_text_alone(tmp_path):
    folder, _, _ = folder_of((1024, 500), "host", tmp_path / "small")
    assert read_manifest(folder).sources == ("net.c",)
    assert not list(folder.glob("*weights*"))


@pytest.mark.parametrize("cc", ["gcc", "zig"])
def test_a_large_model_computes_the_same(cc, tmp_path):
    if cc == "gcc" and shutil.which(cc) is None:
        pytest.skip(f"{cc} is not installed")
    folder, w, b = folder_of(LARGE, "host", tmp_path / "large")
    assert read_manifest(folder).sources == ("net.c", "net_weights.S")
    text = (folder / "net.c").read_text(encoding="utf-8")
    assert f"extern const float net_c_w[{w.size}]; /* in net_weights.S */" in text
    assert "static const float c_b[520]" in text  # too small to be worth a symbol of its own
    assert (folder / "net_weights.bin").read_bytes() == w.tobytes()
    x = np.random.default_rng(1).normal(size=(1, LARGE[0])).astype(np.float32)
    with open_device("host", folder, cc=cc) as device:
        np.testing.assert_allclose(device.step([x])[0], x @ w + b, atol=1e-3)


def test_the_same_model_gives_the_same_files(tmp_path):
    first, _, _ = folder_of(LARGE, "host", tmp_path / "a")
    second, _, _ = folder_of(LARGE, "host", tmp_path / "b")
    for path in sorted(first.iterdir()):
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_it_links_for_a_cortex_m(tmp_path):
    folder, _, _ = folder_of(LARGE, "cortex-m7", tmp_path / "m7")
    image = build_image(folder, load_target("cortex-m7"), tmp_path / "net.elf")
    assert image.stat().st_size > LARGE_MODEL


@pytest.mark.parametrize("triple", ["aarch64-linux-musl", "x86_64-windows-gnu", "aarch64-macos"])
def test_zig_assembles_it_for_every_object_format(triple, tmp_path):
    data = np.arange(LARGE_MODEL // 4, dtype=np.float32)
    for name, content in weight_files("net", "0", {"w": data}, {"w": "net_c_w"}).items():
        (tmp_path / name).write_bytes(content)
    argv = [*zig_cc(), "-target", triple, "-I", tmp_path, "-c", tmp_path / "net_weights.S", "-o", tmp_path / "net.o"]
    subprocess.run(argv, check=True)
    assert data.tobytes() in (tmp_path / "net.o").read_bytes()


def test_constants_lie_aligned_one_after_the_other():
    consts = {
        "big": np.zeros(LARGE_MODEL, np.int8), "odd": np.arange(LARGE_CONST + 3, dtype=np.uint8),
        "small": np.zeros(7, np.float32), "words": np.arange(LARGE_CONST, dtype=np.int32),
    }  # fmt: skip
    assert binary_consts(consts) == {"big", "odd", "words"}
    files = weight_files("net", "0", consts, {name: f"net_{name}" for name in consts})
    source, data = files["net_weights.S"].decode(), files["net_weights.bin"]
    at = LARGE_MODEL + LARGE_CONST + 64
    assert f'.incbin "net_weights.bin", {LARGE_MODEL}, {LARGE_CONST + 3}' in source
    assert f'.incbin "net_weights.bin", {at}, {4 * LARGE_CONST}' in source
    assert data[at : at + 4 * LARGE_CONST] == consts["words"].astype("<i4").tobytes()


def test_a_value_that_is_not_finite_is_an_error():
    data = np.zeros(LARGE_MODEL // 4, np.float32)
    data[5] = np.nan
    with pytest.raises(CodegenError, match="constant w holds a value that is not finite"):
        weight_files("net", "0", {"w": data}, {"w": "net_c_w"})
