"""CUDA text: compiled by nvcc where there is one, and run thread by thread on the CPU against the C backend."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgec.backends.c import emit_c
from edgec.backends.cuda import emit_cuda, write_cuda_library
from edgec.backends.emit import name_kernels
from edgec.backends.library import write_library
from edgec.device import default_kind, open_device
from edgec.device.cuda import check_gpu
from edgec.errors import ToolchainError
from edgec.ir.text import parse_graph
from edgec.ops import OPS
from edgec.passes.streaming.make_streaming import MakeStreaming
from edgec.plan import make_plan
from edgec.runtime import runtime_file
from edgec.target import load_target
from edgec.toolchain.shared import build_plain_shared
from tests.backends.kernel_tools import INCLUDES, RUNTIME, Library, build_c, kernel

SHIM = Path(__file__).parent / "cuda_shim.h"
CXX = ["g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", *RUNTIME]
needs_gxx = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")

KERNELS = [
    kernel(  # several top-level statements, a tail block, a nest of parallel loops, one thread for the rest
        """for i in T.parallel(300):
    t[i] = T.cast(x[i], "int32") * 3
count[0] = count[0] + 1
for i in T.serial(300):
    count[0] = count[0] + t[299 - i]
for i in T.parallel(5):
    for j in T.parallel(2, 60):
        y[i, j] = T.cast(T.shift_right(t[i * 60 + j] + count[0], 2), "int8")
count[1] = T.call_extern("int32", "edgec_smmulr", count[0], 1 << 28)""",
        ("x", (300,), "int8"), ("count", (2,), "int32"), ("y", (5, 60), "int8"), ("t", (300,), "int32"),
        writable="count y t", symbol="several",
    ),
    kernel(  # a local at top level: one thread runs everything
        """acc = T.alloc_buffer((1,), "int32")
acc[0] = 0
for i in T.parallel(300):
    acc[0] = acc[0] + T.max(T.cast(x[i], "int32"), 0)
y[0] = acc[0]""",
        ("x", (300,), "int8"), ("y", (1,), "int32"), writable="y", symbol="local",
    ),
]  # fmt: skip


def emulate(text: str, folder: Path, name: str) -> Path:
    source, out = folder / f"{name}.cu", folder / f"{name}_cuda.so"
    source.write_text(text, encoding="utf-8")
    subprocess.run([*CXX, "-x", "c++", "-include", SHIM, source, "-o", out], check=True)
    return out


@needs_gxx
def test_kernels_give_the_bytes_of_the_c_backend(tmp_path):
    cuda = emit_cuda(KERNELS)
    threads = {symbol: [launch.threads for launch in launches] for symbol, launches in cuda.launches.items()}
    assert threads == {"several": [300, 1, 290, 1], "local": [1]}
    launchers = "\n".join(cuda.launcher(k) for k in KERNELS).replace("static void", 'extern "C" void')
    got = Library(emulate(INCLUDES + cuda.text + launchers, tmp_path, "kernels"), KERNELS)
    expected = build_c(KERNELS, tmp_path)
    rng = np.random.default_rng(0)
    for k in KERNELS:
        arrays = {n: rng.integers(-100, 100, size=shape) for n, shape, _ in k.kernel.params}
        ours, theirs = got(k.symbol, arrays), expected(k.symbol, arrays)
        for name in arrays:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=f"{k.symbol} {name}")


NET = """graph net
input %x : float32[1,20,6] t1
const %w : float32[3,6,8] = ...
const %b : float32[8] = ...
const %beta : float32[8] = ...
const %th : float32[1] = [0.1]
const %v : float32[8,5] = ...
const %c : float32[5] = ...
%h = conv1d(%x, %w, %b) {pad=(1, 1)} : float32[1,20,8] t1
%s = lif(%h, %beta, %th) : float32[1,20,8] t1
%y = linear(%s, %v, %c) : float32[1,20,5] t1
%z = sigmoid(%y) : float32[1,20,5] t1
%m = mean(%z) : float32[1,5]
return %m
"""


def net():
    """A small streaming network with padding, delay, state and an any-time readout."""
    rng = np.random.default_rng(3)
    text = NET
    for size in (144, 8, 8, 40, 5):
        text = text.replace("...", str(rng.normal(size=size).astype(np.float32).tolist()), 1)
    graph = MakeStreaming().run(parse_graph(text, OPS))
    plan = make_plan(graph, lambda op, site: ("generic", op.lower(site)))
    return plan, *name_kernels(plan.calls)


def outputs_of(library: ctypes.CDLL, frames: np.ndarray) -> np.ndarray:
    """Codes and outputs of two passes over the frames, flush included, with a reset between them."""
    state, arena, out = (ctypes.c_uint64 * 4096)(), (ctypes.c_uint64 * 4096)(), np.zeros(5, np.float32)
    rows = []
    assert library.net_init(state) == 0
    for _ in range(2):
        for frame in frames:
            code = library.net_step(state, arena, ctypes.c_void_p(frame.ctypes.data), ctypes.c_void_p(out.ctypes.data))
            rows.append([code, *out])
        for _ in range(3):
            rows.append([library.net_flush(state, arena, ctypes.c_void_p(out.ctypes.data)), *out])
        assert library.net_reset(state) == 0
    return np.array(rows, np.float32)


@needs_gxx
def test_the_library_gives_the_bytes_of_the_c_library(tmp_path):
    plan, symbols, kernels = net()
    frames = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    results = []
    for kind in ("c", "cuda"):
        folder = tmp_path / kind
        folder.mkdir()
        if kind == "cuda":
            write_cuda_library(plan, symbols, kernels, load_target("cuda-sm90"), folder)
            path = emulate((folder / "net.cu").read_text(encoding="utf-8"), folder, "net")
        else:
            headers = ("edgec_simd.h", "edgec_math.h")
            files = write_library(plan, emit_c(kernels), symbols, summary="", target="host", headers=headers)
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8")
            path = build_plain_shared(folder / "net.c", folder / "net.so", flags=RUNTIME)
        results.append(outputs_of(ctypes.CDLL(str(path)), frames))
    np.testing.assert_array_equal(results[0], results[1])
    assert set(results[0][:, 0]) == {0.0, 1.0}


def net_folder(folder: Path) -> Path:
    plan, symbols, kernels = net()
    write_cuda_library(plan, symbols, kernels, load_target("cuda-sm90"), folder)
    return folder


@needs_nvcc
def test_nvcc_compiles_kernels_and_library(tmp_path):
    net_folder(tmp_path)
    shutil.copy(runtime_file("edgec_map.h"), tmp_path)
    head = (tmp_path / "net.cu").read_text(encoding="utf-8").split("#define MAGIC")[0]
    cuda = emit_cuda(KERNELS)
    launchers = "\n".join(cuda.launcher(k) for k in KERNELS).replace("static void", "void")
    (tmp_path / "kernels.cu").write_text(head + INCLUDES + cuda.text + launchers, encoding="utf-8")
    for source in ("net.cu", "kernels.cu"):
        argv = ["nvcc", "-arch=sm_90", "-fmad=false", "-Werror", "all-warnings", "-DEDGEC_PROFILE", "-c", source]
        done = subprocess.run([*argv, "-o", f"{source}.o"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_without_a_gpu_the_error_says_so_before_anything_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr("edgec.device.cuda._DRIVER", "libno-such-driver.so")
    with pytest.raises(ToolchainError, match=r"no CUDA GPU: the driver libno-such-driver.so is not installed"):
        open_device("cuda", net_folder(tmp_path))
    assert default_kind(tmp_path) == "cuda"
    with pytest.raises(ToolchainError, match=r"cuda-sm90 cannot run on this computer: net.cu is for a CUDA GPU"):
        open_device("host", tmp_path)


def test_without_nvcc_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("edgec.device.cuda.compute_capability", lambda: (9, 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match="nvcc is not on the PATH"):
        open_device("cuda", net_folder(tmp_path))


@pytest.mark.parametrize(("found", "fits"), [((8, 9), False), ((9, 0), True), ((10, 3), True)])
def test_the_gpu_must_be_new_enough(found, fits, monkeypatch):
    monkeypatch.setattr("edgec.device.cuda.compute_capability", lambda: found)
    if fits:
        check_gpu(load_target("cuda-sm90"))
        return
    with pytest.raises(ToolchainError, match=r"needs a GPU of compute capability 9.0 or later, this .* has 8.9"):
        check_gpu(load_target("cuda-sm90"))


def test_a_target_that_is_no_gpu_is_refused(tmp_path):
    with pytest.raises(ToolchainError, match="target 'cortex-m7' is arm-m, not a CUDA GPU"):
        open_device("cuda", net_folder(tmp_path), target="cortex-m7")
