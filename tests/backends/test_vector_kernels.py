"""Float kernels for NEON and CUDA: against torch on shapes that leave every kind of rest, CUDA against C."""

import itertools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgec.backends.cuda import emit_cuda
from edgec.backends.kernel import NamedKernel
from edgec.kernels import select
from edgec.kernels.neon.float32 import block_for, pack_panels
from edgec.ops import OPS
from edgec.ops.base import Site
from tests.backends.kernel_tools import INCLUDES, RUNTIME, Arrays, Library, build_c
from tests.op_families import f32

SHIM = Path(__file__).parent / "cuda_shim.h"
ACTIVATIONS = ("", "gelu", "relu", "tanh", "relu6", "sigmoid")


def products() -> Iterator[tuple[Any, list[tuple[int, ...]]]]:
    activations = itertools.cycle(ACTIVATIONS)
    for rows, k, n in ((1, 96, 50), (2, 8, 16), (3, 9, 5), (5, 3, 21), (9, 37, 43), (17, 40, 24)):
        yield OPS["linear"](activation=next(activations)), [(1, rows, k), (k, n), (n,)]
    for rows, k, n in ((1, 7, 16), (4, 8, 3), (11, 6, 21)):
        yield OPS["matmul"](), [(2, rows, k), (2, k, n)]
        yield OPS["matmul"](transpose_b=True), [(1, 2, rows, k), (1, 2, n, k)]
    for image, filters, stride in (
        ((1, 16, 24, 3), (4, 4, 3, 20), (4, 4)),
        ((2, 5, 7, 5), (3, 2, 5, 8), (1, 1)),
        ((2, 5, 3, 8), (1, 1, 8, 9), (2, 1)),
    ):
        yield OPS["conv2d"](stride=stride, activation=next(activations)), [image, filters, filters[-1:]]
    yield OPS["conv2d"](stride=(2, 2), pad=(2, 1, 0, 3)), [(2, 6, 5, 3), (4, 4, 3, 9), (9,)]
    yield OPS["conv2d"](pad=(1, 1, 0, 2), dilation=(1, 2), groups=2), [(1, 6, 8, 4), (3, 3, 2, 6), (6,)]


def rows() -> Iterator[tuple[Any, list[tuple[int, ...]]]]:
    for n in (1, 3, 4, 37):
        yield OPS["softmax"](), [(2, 3, n)]
        yield OPS["layer_norm"](eps=1e-6), [(5, n), (n,), (n,)]
        yield OPS["gelu"](), [(n, 7)]


def movement() -> Iterator[tuple[Any, list[tuple[int, ...]]]]:
    yield OPS["permute"](perm=(2, 0, 3, 1)), [(3, 4, 5, 2)]
    yield OPS["concat"](axis=1), [(1, n, 6) for n in (1, 30, 2)]
    yield OPS["slice"](axis=1, start=2, stop=5), [(2, 7, 3)]
    for name in ("add", "sub", "mul", "div"):
        yield OPS[name](), [(2, 5, 9), (5, 1)]


class Cases:
    """Every case with the kernel that `isa` chooses for it and what torch gives."""

    def __init__(self, isa: str) -> None:
        rng = np.random.default_rng(0)
        self.kernels: list[NamedKernel] = []
        self.arrays: dict[str, Arrays] = {}
        self.expected: dict[str, np.ndarray] = {}
        self.variants: set[str] = set()
        for number, (op, shapes) in enumerate([*products(), *rows(), *movement()]):
            values = [rng.normal(size=s).astype(np.float32) for s in shapes]
            weights = dict(enumerate(values)) if op.name in ("linear", "conv2d") else {}
            types = tuple(f32(*s) for s in shapes)
            site = Site(types, op.infer(types), (), {k: v for k, v in weights.items() if k})
            variant, kernel = select(op, site, (isa,))
            self.variants.add(variant)
            with torch.no_grad():
                wanted = op.reference(*map(torch.from_numpy, values)).numpy()
            names = [p[0] for p in kernel.params]
            outputs = frozenset(names[len(values) :])
            symbol = f"f{number}_{op.name}"
            self.arrays[symbol] = dict(zip(names, values, strict=False)) | dict(kernel.consts)
            self.arrays[symbol] |= {n: np.full(s, 7, d) for n, s, d in kernel.params if n in outputs}
            self.kernels.append(NamedKernel(symbol, kernel, outputs))
            self.expected[symbol] = wanted

    def check(self, library: Library) -> dict[str, np.ndarray]:
        """All results, after comparing them with torch's."""
        results = {}
        for symbol, wanted in self.expected.items():
            found = library(symbol, self.arrays[symbol])["y"].reshape(wanted.shape)
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5, err_msg=symbol)
            results[symbol] = found
        return results


def test_neon_kernels_agree_with_torch(tmp_path):
    cases = Cases("neon")
    wanted = {"conv_neon", "gelu_neon", "layer_norm_neon", "linear_neon", "matmul_neon", "softmax_neon", "generic"}
    assert cases.variants == wanted
    cases.check(build_c(cases.kernels, tmp_path))


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_cuda_kernels_give_the_bytes_of_the_generic_c(tmp_path):
    cases, generic = Cases("cuda"), Cases("generic")
    cuda = emit_cuda(cases.kernels)
    counts = {s: max(launch.threads for launch in runs) for s, runs in cuda.launches.items()}
    assert all(counts[s] >= cases.expected[s].size // 64 for s in counts), counts  # no row is longer, none waits
    launchers = "\n".join(cuda.launcher(k) for k in cases.kernels).replace("static void", 'extern "C" void')
    source, out = tmp_path / "kernels.cu", tmp_path / "kernels_cuda.so"
    source.write_text(INCLUDES + cuda.text + launchers, encoding="utf-8")
    head = ["g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*head, *RUNTIME, "-x", "c++", "-include", SHIM, source, "-o", out], check=True)
    found = cases.check(Library(out, cases.kernels))
    wanted = generic.check(build_c(generic.kernels, tmp_path))
    for symbol, values in wanted.items():
        np.testing.assert_array_equal(found[symbol], values, err_msg=symbol)


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 16), (3, 3, 16), (9, 5, 8), (197, 8, 8), (14, 7, 8)])
def test_blocks_fit_the_rows(count, rows, columns):
    block = block_for(count)
    assert (block.rows, block.columns) == (rows, columns)


def test_panels_hold_the_columns_of_a_block_side_by_side():
    packed = pack_panels(np.arange(1, 16, dtype=np.float32).reshape(3, 5), 4)
    assert packed.reshape(2, 3, 4).tolist() == [
        [[1, 2, 3, 4], [6, 7, 8, 9], [11, 12, 13, 14]],
        [[5, 0, 0, 0], [10, 0, 0, 0], [15, 0, 0, 0]],
    ]
