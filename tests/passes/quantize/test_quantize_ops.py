"""The integer ops that quantisation brought: references on small cases, and the C of each equal to its reference."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgec.backends.kernel import NamedKernel
from edgec.ir.types import DType, TensorType
from edgec.ops.base import Op, Site
from edgec.ops.integer.conv import QConv2d
from edgec.ops.integer.elementwise import QAffine
from edgec.ops.integer.neuron import QLifSaturating
from edgec.ops.integer.pool import QAvgPool2d, QMaxPool2d, QMean
from tests.backends.kernel_tools import build_c


def typed(shape: tuple[int, ...], dtype: DType, time: int | None = None) -> TensorType:
    return TensorType(shape, dtype, None, time)


def pack(bits: np.ndarray) -> np.ndarray:
    """Spikes 0/1 [..., C] as words, the lowest channel in bit 0."""
    rows = bits.reshape(-1, bits.shape[-1])
    padded = np.zeros((rows.shape[0], -(-rows.shape[1] // 32) * 32), np.uint64)
    padded[:, : rows.shape[1]] = rows
    words: np.ndarray = padded.reshape(rows.shape[0], -1, 32) << np.arange(32, dtype=np.uint64)
    return np.asarray(words.sum(-1), np.uint32)


def run_both(op: Op, types: list[TensorType], values: list[np.ndarray], tmp_path: Path) -> None:
    """Compile the op's kernel; its outputs and states must equal the reference's."""
    outputs = op.infer(types)
    states = [t for t, _ in op.state_types(types)]
    kernel = op.lower(Site(tuple(types), outputs, tuple(states), dict(enumerate(values))))
    rng = np.random.default_rng(1)
    start = [rng.integers(-3000, 3000, t.shape) for t in states]
    tensors = [torch.from_numpy(v).to(torch.int64) for v in values]
    outs, new = op.run(tensors, [torch.from_numpy(s) for s in start])
    params = [p[0] for p in kernel.params]
    stored = [pack(v) if t.dtype is DType.BIT else v for v, t in zip(values, types, strict=True)]
    arrays: dict[str, Any] = dict(zip(params, [*stored, *start], strict=False))
    rest = params[len(arrays) :]
    arrays |= {n: np.zeros(s, d) for n, s, d in kernel.params if n in rest} | dict(kernel.consts)
    named = NamedKernel("f", kernel, frozenset([*params[len(stored) :]]))
    got = build_c([named], tmp_path)("f", arrays)
    written = [p for p in params[len(stored) :] if p not in kernel.consts]
    expected = dict(zip(written, [*new, *outs], strict=False))
    for (name, tensor), t in zip(expected.items(), [*states, *outputs], strict=True):
        wanted = pack(tensor.numpy()) if t.dtype is DType.BIT else tensor.numpy()
        np.testing.assert_array_equal(got[name].reshape(-1), wanted.reshape(-1), err_msg=name)


@pytest.mark.parametrize("dtype", [DType.I8, DType.I16])
@pytest.mark.parametrize("channels", [1, 5])
def test_affine(dtype: DType, channels: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lo, hi = dtype.range
    x = rng.integers(lo, hi + 1, (1, 7, 5)).astype(dtype.value)
    multiplier = rng.integers(-(2**15), 2**15, channels).astype(np.int32)
    offset = rng.integers(-(2**20), 2**20, channels).astype(np.int32)
    op = QAffine("int8", 0.1, -7, 22 if dtype is DType.I16 else 14, -100, 90)
    vec = typed((channels,), DType.I32)
    run_both(op, [typed(x.shape, dtype, 1), vec, vec], [x, multiplier, offset], tmp_path)


@pytest.mark.parametrize("dtype", [DType.I8, DType.BIT])
@pytest.mark.parametrize("groups", [1, 2])
def test_conv2d(dtype: DType, groups: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lo, hi = dtype.range
    x = rng.integers(lo, hi + 1, (1, 6, 5, 4)).astype(np.int8)
    w = rng.integers(-127, 128, (3, 2, 4 // groups, 6)).astype(np.int8)
    bias = rng.integers(-999, 999, 6).astype(np.int32)
    op = QConv2d((2, 1), (1, 1, 0, 1), (1, 1), groups, 1 if dtype is DType.BIT else -5)
    types = [typed(x.shape, dtype), typed(w.shape, DType.I8), typed((6,), DType.I32)]
    run_both(op, types, [x, w, bias], tmp_path)


@pytest.mark.parametrize(
    "op",
    [
        QMaxPool2d((2, 3), (2, 2), (1, 0, 1, 1)),
        QAvgPool2d((2, 2), (2, 1), (0, 1, 1, 0), 9, 0.1, -3, 9, 21011, 16),
        QAvgPool2d((3, 2), (2, 2), (1, 1, 1, 2), 9, 0.1, -3, 9, 84044, 16, True, (1, 0, 0, 1)),
    ],
)
def test_pool(op: Op, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(-128, 128, (1, 6, 7, 3)).astype(np.int8)
    run_both(op, [typed(x.shape, DType.I8)], [x], tmp_path)


@pytest.mark.parametrize(("dtype", "axis"), [(DType.I8, 1), (DType.I32, 1), (DType.I8, 2)])
def test_mean(dtype: DType, axis: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (1, 9, 4)).astype(dtype.value) * (1 if dtype is DType.I8 else 99)
    channels = 4 if axis == 1 else 1
    multiplier = rng.integers(2**30, 2**31, channels).astype(np.int32)
    shift = rng.integers(31, 38, channels).astype(np.int32)
    vec = typed((channels,), DType.I32)
    run_both(QMean(axis, 0.1, 4, -6), [typed(x.shape, dtype), vec, vec], [x, multiplier, shift], tmp_path)


@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize("reset", ["hard", "subtract", "none"])
def test_saturating_neuron(decay_input: bool, delayed: bool, reset: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    channels = 37
    x = rng.integers(-900, 900, (1, 1, channels)).astype(np.int32)
    gain, bias = (rng.integers(-4, 5, channels).astype(np.int32) for _ in range(2))
    threshold = rng.integers(1, 3000, channels).astype(np.int32)
    decay = rng.integers(0, 2**15 + 1, channels).astype(np.int32)
    op = QLifSaturating(decay_input, reset, delayed, delayed, True, limit=3500)
    types = [typed(x.shape, DType.I32, 1), *[typed((channels,), DType.I32)] * 4]
    run_both(op, types, [x, gain, bias, threshold, decay], tmp_path)


def test_saturation_holds_the_membrane() -> None:
    x = torch.full((1, 50, 1), -1000, dtype=torch.int64)
    one = torch.ones(1, dtype=torch.int64)
    op = QLifSaturating(decay_input=False, membrane=True, limit=7000)
    _, membrane = op.run([x, one, 0 * one, 10 * one, 0 * one])[0]
    assert membrane.min() == -7000


def test_mean_of_a_window_equals_the_running_mean() -> None:
    from edgec.ops.integer.spiking import QRunningMean

    x = torch.from_numpy(np.random.default_rng(0).integers(-9999, 9999, (1, 31, 6)))
    multiplier, shift = torch.full((6,), 1 << 30), torch.full((6,), 38)
    running = QRunningMean(0, 0.1, 5).run([x, multiplier, shift])[0][0]
    assert torch.equal(QMean(1, 0.1, 5).reference(x, multiplier, shift), running[:, -1])
