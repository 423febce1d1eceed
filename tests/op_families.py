"""Float ops with random types, family by family: what tests run their kernels on."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgec.ir.types import DType, TensorType
from edgec.ops import OPS, Map
from edgec.ops.elementwise import UNARY

Cases = Iterator[tuple[Any, list[TensorType]]]
BINARY = ("add", "sub", "mul", "div")


def f32(*shape: int, time: int | None = None) -> TensorType:
    return TensorType(shape, DType.F32, None, time)


def dims(rng: np.random.Generator, count: int, largest: int = 7) -> tuple[int, ...]:
    return tuple(int(n) for n in rng.integers(1, largest, size=count))


def elementwise(rng: np.random.Generator) -> Cases:
    for op in UNARY.values():
        yield op(), [f32(*dims(rng, 3))]
    yield OPS["snap"](scale=float(rng.uniform(0.01, 0.5)), zero=int(rng.integers(-128, 128))), [f32(*dims(rng, 3))]
    for name in BINARY:
        shape = dims(rng, 3)
        other = tuple(n if rng.random() < 0.5 else 1 for n in shape)
        yield OPS[name](), [f32(*shape), f32(*other)]
        yield OPS[name](), [f32(*shape), f32(shape[-1])]
    for axis in (-1, 1):
        shape = dims(rng, 3)
        yield OPS["affine"](axis=axis), [f32(*shape), f32(shape[axis]), f32(shape[axis])]


def maps(rng: np.random.Generator) -> Cases:
    """Expressions over every operation and element type; their operands are broadcast."""
    floats = (
        *("where(a > b, a, 2 * b)", "a % b", "fmod(a, b)", "a // b", "trunc_div(a, b)", "pow(abs(a), b)", "-a / b"),
        *("max(a, b, 0.25)", "round(a * 3) + sign(b)", "ceil(a * 2) - floor(b)", "trunc(a * 5) * b", "a ** -0.5 + b"),
        *("a > b", "(a < b) | isnan(a)", "~(a >= b) & ~isinf(b)", "(a != b) ^ (b <= 0)", "int(a * 100) + int(b)"),
        *("uint8(abs(a * 50)) + int(b)", "bool(a)", "where(bool(round(b)), sin(a) ** 2 + cos(a) ** 2, atan(b))"),
    )
    integers = (
        *("a + b", "a - b", "a * b", "-a", "a // b", "a % b", "trunc_div(a, b)", "fmod(a, b)", "a ** b", "a & b"),
        *("a | b", "a ^ b", "~a", "a << b", "a >> b", "min(a, b)", "max(a, b)", "a > b", "a == b", "float(a) / 3"),
        *("int8(a)", "int16(a * b)", "uint8(a)", "where(a < b, a, 7)", "sign(a) * abs(b)", "bool(a)"),
    )
    bools = ("a & b", "a | b", "a ^ b", "~a", "where(a, 2.5, -1)", "int(a) + int(b)", "a == b", "float(a)")
    kinds = {DType.F32: floats, DType.I32: integers, DType.BOOL: bools}
    for dtype, exprs in (*kinds.items(), (DType.U8, integers), (DType.I16, integers), (DType.I8, integers)):
        for expr in exprs:
            shape = dims(rng, 3)
            other = tuple(n if rng.random() < 0.5 else 1 for n in shape[int(rng.integers(2)) :])
            types = [TensorType(s, dtype) for s in (shape, other)]
            yield Map(expr), types[: 2 if "b" in re.sub(r"\w{2,}", "", expr) else 1]


def products(rng: np.random.Generator) -> Cases:
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


def movement(rng: np.random.Generator) -> Cases:
    shape = dims(rng, 4)
    yield OPS["permute"](perm=tuple(int(p) for p in rng.permutation(4))), [f32(*shape)]
    yield OPS["copy"](), [f32(*shape)]
    yield OPS["concat"](axis=1), [f32(2, n, 3) for n in dims(rng, 3)]
    for axis in range(3):
        yield OPS["mean"](axis=axis), [f32(*dims(rng, 3))]


def stateful(rng: np.random.Generator) -> Cases:
    c, length = dims(rng, 2)
    x = f32(1, 1, c, time=1)
    yield OPS["delay_line"](length=length, axis=1), [x]
    yield OPS["delay"](frames=length, axis=1), [x]
    yield OPS["lmu_memory"](order=c, theta=length + 2, form="recurrent"), [f32(1, 1, 1, time=1)]
    for reset, late, decay in itertools.product(("hard", "subtract", "none"), (False, True), (False, True)):
        membrane = bool(rng.integers(2))
        op = OPS["lif"](reset=reset, delayed_reset=late, decay_input=decay, membrane=membrane, v_reset=0.25)
        yield op, [x, f32(c), f32(1)]


def rows(rng: np.random.Generator) -> Cases:
    n, m, c = (int(v) for v in rng.integers(1, 7, size=3))
    yield OPS["layer_norm"](eps=1e-3), [f32(n, m, c + 1), f32(c + 1), f32(c + 1)]
    yield OPS["softmax"](), [f32(n, m, c)]
    yield OPS["clip"](low=-0.5), [f32(n, m)]
    yield OPS["clip"](low=-0.5, high=0.7), [f32(n, m)]
    yield OPS["slice"](axis=1, start=1, stop=3), [f32(n, 4, c)]
    yield OPS["slice"](axis=2, start=0, stop=c), [f32(n, m, c + 2)]


def pools(rng: np.random.Generator) -> Cases:
    for name, pad in itertools.product(("max_pool2d", "avg_pool2d"), ((0, 0, 0, 0), (1, 0, 0, 1))):
        kernel = tuple(int(k) for k in rng.integers(2, 4, size=2))
        stride = tuple(int(s) for s in rng.integers(1, 3, size=2))
        yield OPS[name](kernel=kernel, stride=stride, pad=pad), [f32(2, 7, 5, 3)]
    yield OPS["avg_pool2d"](kernel=(3, 2), stride=(2, 1), pad=(1, 2, 1, 0), counted=(1, 0, 0, 0)), [f32(1, 6, 7, 3)]


def neurons(rng: np.random.Generator) -> Cases:
    c = int(rng.integers(2, 7))
    x = f32(1, 1, c, time=1)
    back: dict[str, list[TensorType]] = {"none": [], "one_to_one": [f32(c)], "all_to_all": [f32(c, c), f32(c)]}
    for synapse, feedback, late in itertools.product((False, True), back, (False, True)):
        reset = str(rng.choice(["subtract", "zero", "none"]))
        signals = ("spikes", "membrane", "current")[: 2 + synapse]
        op = OPS["snntorch_neuron"](
            outputs=signals, synapse=synapse, feedback=feedback, reset=reset, delayed_reset=late
        )
        yield op, [x, f32(1), f32(c), *[f32(c)] * synapse, *back[feedback]]
    for reset in ("subtract", "zero", "none"):
        op = OPS["alpha_neuron"](outputs=("spikes", "excitatory", "inhibitory", "membrane"), reset=reset)
        yield op, [x, f32(1), f32(c), f32(1), f32(1)]
