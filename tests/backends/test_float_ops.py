"""Every float op with a kernel: the generated C against the op's torch reference, on random shapes and values."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from kernel_tools import build_c, check_family, f32

from edgec.ir.types import TensorType
from edgec.ops import OPS

UNARY = ("relu", "relu6", "gelu", "sigmoid", "tanh")
BINARY = ("add", "sub", "mul", "div")


def dims(rng: np.random.Generator, count: int, largest: int = 7) -> tuple[int, ...]:
    return tuple(int(n) for n in rng.integers(1, largest, size=count))


def elementwise(rng: np.random.Generator) -> Iterator[tuple[Any, list[TensorType]]]:
    for name in UNARY:
        yield OPS[name](), [f32(*dims(rng, 3))]
    for name in BINARY:
        shape = dims(rng, 3)
        other = tuple(n if rng.random() < 0.5 else 1 for n in shape)
        yield OPS[name](), [f32(*shape), f32(*other)]
        yield OPS[name](), [f32(*shape), f32(shape[-1])]
    for axis in (-1, 1):
        shape = dims(rng, 3)
        yield OPS["affine"](axis=axis), [f32(*shape), f32(shape[axis]), f32(shape[axis])]


def products(rng: np.random.Generator) -> Iterator[tuple[Any, list[TensorType]]]:
    b, m, k, n = dims(rng, 4)
    yield OPS["linear"](), [f32(b, m, k), f32(k, n), f32(n)]
    yield OPS["matmul"](), [f32(b, m, k), f32(b, k, n)]
    yield OPS["matmul"](transpose_b=True), [f32(b, m, k), f32(b, n, k)]
    groups = int(rng.integers(1, 3))
    taps, c, o = int(rng.integers(1, 4)), groups * int(rng.integers(1, 3)), groups * int(rng.integers(1, 3))
    pads = tuple(int(p) for p in rng.integers(0, 3, size=4))
    stride, dilation = (int(v) for v in rng.integers(1, 3, size=2))
    conv1d = OPS["conv1d"](stride=stride, pad=pads[:2], dilation=dilation, groups=groups)
    yield conv1d, [f32(b, 9, c), f32(taps, c // groups, o), f32(o)]
    conv2d = OPS["conv2d"](stride=(stride, 1), pad=pads, dilation=(1, dilation), groups=groups)
    yield conv2d, [f32(b, 6, 8, c), f32(taps, 2, c // groups, o), f32(o)]
    theta, order = dims(rng, 2)
    yield OPS["lmu_taps"](order=order), [f32(1, theta, 1), f32(theta, order)]


def movement(rng: np.random.Generator) -> Iterator[tuple[Any, list[TensorType]]]:
    shape = dims(rng, 4)
    yield OPS["permute"](perm=tuple(int(p) for p in rng.permutation(4))), [f32(*shape)]
    yield OPS["concat"](axis=1), [f32(2, n, 3) for n in dims(rng, 3)]
    for axis in range(3):
        yield OPS["mean"](axis=axis), [f32(*dims(rng, 3))]


def stateful(rng: np.random.Generator) -> Iterator[tuple[Any, list[TensorType]]]:
    c, length = dims(rng, 2)
    x = f32(1, 1, c, time=1)
    yield OPS["delay_line"](length=length, axis=1), [x]
    yield OPS["delay"](frames=length, axis=1), [x]
    yield OPS["lmu_memory"](order=c, theta=length + 2, form="recurrent"), [f32(1, 1, 1, time=1)]
    for reset, late, decay in itertools.product(("hard", "subtract", "none"), (False, True), (False, True)):
        membrane = bool(rng.integers(2))
        op = OPS["lif"](reset=reset, delayed_reset=late, decay_input=decay, membrane=membrane, v_reset=0.25)
        yield op, [x, f32(c), f32(1)]


@pytest.mark.parametrize("family", [elementwise, products, movement, stateful])
@pytest.mark.parametrize("seed", range(3))
def test_generated_c_computes_the_reference(family, seed, tmp_path):
    kernels = check_family(family, seed, tmp_path)
    if seed == 0:
        build_c(kernels, tmp_path, cc="zig")
        build_c(kernels, tmp_path, cc="clang")
