"""Gather, Scatter, strided Slice, Taps and Cumulative against torch and numpy, their kernels against the references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgec.ir.evaluate import StepRunner, evaluate
from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops import Cumulative, Gather, GatherElements, Reduce, Scatter, Slice, Taps
from edgec.ops.taps import adaptive_average, linear, nearest, outside
from edgec.passes.streaming.make_streaming import MakeStreaming
from tests.backends.kernel_tools import check_family
from tests.graphs import Builder

RNG = np.random.default_rng(0)
X = torch.from_numpy(RNG.normal(size=(3, 5, 4)).astype(np.float32))


def typed(x: torch.Tensor, dtype: DType = DType.F32) -> TensorType:
    return TensorType(tuple(x.shape), dtype)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("shape", [(2,), (2, 3), ()])
def test_gather_is_numpys_take(axis: int, shape: tuple[int, ...]) -> None:
    index = RNG.integers(-X.shape[axis], X.shape[axis], shape)
    found = Gather(axis).reference(X, torch.tensor(index))
    np.testing.assert_array_equal(found.numpy(), np.take(X.numpy(), index, axis))
    assert Gather(axis).infer([typed(X), TensorType(shape, DType.I32)])[0].shape == tuple(found.shape)


def test_an_index_beyond_an_end_is_that_end() -> None:
    assert Gather(0).reference(torch.arange(4), torch.tensor([-9, -4, 3, 4, 99])).tolist() == [0, 0, 3, 3, 3]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_elements_are_gathered_and_scattered_as_torch_does(axis: int) -> None:
    size = [n if k != axis else 2 for k, n in enumerate(X.shape)]
    order = torch.rand(X.shape).argsort(axis).narrow(axis, 0, 2)
    updates = torch.randn(size)
    assert torch.equal(GatherElements(axis).reference(X, order), X.gather(axis, order))
    assert torch.equal(Scatter(axis).reference(X, order, updates), X.scatter(axis, order, updates))
    twice = order.narrow(axis, 0, 1).repeat_interleave(2, axis)
    for kind, name in (("add", "sum"), ("mul", "prod"), ("max", "amax"), ("min", "amin")):
        expected = X.scatter_reduce(axis, twice, updates, name)
        torch.testing.assert_close(Scatter(axis, kind).reference(X, twice, updates), expected)


@pytest.mark.parametrize("cut", [(0, 5, 1), (4, -1, -1), (3, 0, -2), (1, 5, 3), (2, 3, -1), (0, 5, 9)])
def test_strided_slices(cut: tuple[int, int, int]) -> None:
    start, stop, step = cut
    if step < 0 <= stop and start <= stop:
        with pytest.raises(ValueError, match="slice 2:3:-1 of"):
            Slice(1, *cut).infer([typed(X)])
        return
    expected = X.numpy()[:, start : None if stop < 0 else stop : step]
    np.testing.assert_array_equal(Slice(1, *cut).reference(X).numpy(), expected)
    once, again = Slice(1, *cut), Slice(1, 0, len(range(*cut)), 2)
    both = again.following(once, typed(X), True)
    assert both is not None
    np.testing.assert_array_equal(both.reference(X).numpy(), expected[:, ::2])


@pytest.mark.parametrize(("extent", "size"), [(5, 3), (5, 8), (7, 7), (4, 1), (1, 3), (6, 2)])
def test_taps_are_torchs_resizes_and_adaptive_pools(extent: int, size: int) -> None:
    x = torch.randn(2, 3, extent)

    def taps(pair: tuple[np.ndarray, np.ndarray]) -> torch.Tensor:
        return Taps(2).reference(x, *(torch.from_numpy(v) for v in pair))

    torch.testing.assert_close(taps(adaptive_average(extent, size)), F.adaptive_avg_pool1d(x, size))
    for corners in (False, True):
        expected = F.interpolate(x, size=size, mode="linear", align_corners=corners)
        torch.testing.assert_close(taps(linear(extent, size, corners)), expected, rtol=1e-5, atol=1e-6)
    index = torch.from_numpy(nearest(extent, size))
    assert torch.equal(Gather(2).reference(x, index), F.interpolate(x, size=size, mode="nearest"))


@pytest.mark.parametrize(("mode", "name"), [("reflect", "reflect"), ("edge", "replicate"), ("wrap", "circular")])
def test_padding_by_index_is_torchs(mode: str, name: str) -> None:
    index = torch.from_numpy(outside(4, 2, 3, mode))
    assert torch.equal(Gather(2).reference(X, index), F.pad(X, (2, 3), mode=name))


def test_cumulative_is_torchs() -> None:
    for axis in range(3):
        torch.testing.assert_close(Cumulative("sum", axis).reference(X), X.cumsum(axis))
        torch.testing.assert_close(Cumulative("prod", axis).reference(X), X.cumprod(axis))
    x = torch.tensor([[1, 2, 3]])
    found = [Cumulative("sum", 1, e, r).reference(x).tolist()[0] for e in (False, True) for r in (False, True)]
    assert found == [[1, 3, 6], [6, 5, 3], [0, 1, 3], [5, 3, 0]]


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_cumulative_sum_streams(exclusive: bool) -> None:
    b = Builder()
    graph = b.build(b.emit(Cumulative("sum", 1, exclusive), b.input("x", 1, 6, 3)))
    x = torch.randn(graph.inputs[0].type.shape)
    frames = [y[0] for y in StepRunner(MakeStreaming().run(graph)).run({"x": x})]
    torch.testing.assert_close(torch.cat(frames, 1), evaluate(graph, {"x": x})[0])
    with pytest.raises(ValueError, match="backwards along the time axis"):
        Cumulative("sum", 1, reverse=True).infer([graph.inputs[0].type])


def family(rng: np.random.Generator):
    shape = tuple(int(n) for n in rng.integers(2, 6, 3))
    for dtype in (DType.F32, DType.I32, DType.I8, DType.BOOL):
        x = TensorType(shape, dtype)
        for axis in range(3):
            many = tuple(int(rng.integers(1, 5)) if k == axis else n for k, n in enumerate(shape))
            yield Gather(axis), [x, TensorType((2, 3), DType.I32)]
            yield GatherElements(axis), [x, TensorType(many, DType.I8)]
            yield Scatter(axis), [x, TensorType(many, DType.I32), TensorType(many, dtype)]
            yield Slice(axis, shape[axis] - 1, -1, -2), [x]
            if dtype in (DType.F32, DType.I32):
                kinds = [str(k) for k in rng.permutation(["add", "mul", "max", "min"])]
                yield Scatter(axis, kinds[0]), [x, TensorType(many, DType.I32), TensorType(many, dtype)]
                for kind, reverse in (("sum", False), ("prod", True), ("sum", True)):
                    yield Cumulative(kind, axis, bool(rng.integers(2)), reverse), [x]
                    yield Cumulative(kind, axis, bool(rng.integers(2))), [TensorType(shape, dtype, None, axis)]
            if dtype is DType.F32:
                yield Taps(axis), [x, TensorType((4, 3), DType.I32), TensorType((4, 3))]


@pytest.mark.parametrize("seed", range(2))
def test_generated_c_computes_the_reference(seed, tmp_path) -> None:
    check_family(family, seed, tmp_path)


def test_time_is_followed_or_refused() -> None:
    tokens, table = TensorType((1, 8), DType.I32, None, 1), TensorType((10, 4))
    assert Gather(0).infer([table, tokens]) == (TensorType((1, 8, 4), DType.F32, None, 1),)
    x = TensorType((1, 8, 6), DType.F32, None, 1)
    assert Gather(2).infer([x, TensorType((2, 3), DType.I32)])[0] == TensorType((1, 8, 2, 3), DType.F32, None, 1)
    q = QuantParams((0.1,))
    assert Gather(0).infer([TensorType((3,), DType.I8, q), TensorType((), DType.I32)])[0] == TensorType((), DType.I8, q)
    for op, types in (
        (Gather(1), [x, TensorType((2,), DType.I32)]),
        (Taps(1), [x, TensorType((2, 2), DType.I32), TensorType((2, 2))]),
        (Slice(1, 0, 8, 2), [x]),
    ):
        with pytest.raises(ValueError, match="time axis"):
            op.infer(types)


@pytest.mark.parametrize(
    ("op", "types", "message"),
    [
        (Gather(3), [typed(X), TensorType((2,), DType.I32)], "axis 3 of a tensor of 3 axes"),
        (Gather(0), [typed(X), TensorType((2,))], "expected an index of int32, found float32"),
        (GatherElements(1), [typed(X), TensorType((3, 2, 1), DType.I32)], r"an index of \(3, 2, 1\) along axis 1 of"),
        (Scatter(1, "div"), [typed(X)] * 3, "expected an update among set, add"),
        (Cumulative("mean"), [typed(X)], "expected sum or prod, found 'mean'"),
        (Reduce("max", (4,)), [typed(X)], "of a tensor of 3 axes"),
    ],
)
def test_what_does_not_fit_is_told(op, types, message) -> None:
    with pytest.raises(ValueError, match=message):
        op.infer(types)
