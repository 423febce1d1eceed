"""Reductions against torch's own, and their kernels against the references."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops import Reduce
from edgec.ops.reduce import KINDS
from tests.backends.kernel_tools import Case, build_c, check_family, prepare

TORCH = {
    "sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin, "log_sum_exp": torch.logsumexp,
    "l1": lambda x, a, keepdim: torch.linalg.vector_norm(x, 1, a, keepdim),
    "l2": lambda x, a, keepdim: torch.linalg.vector_norm(x, 2, a, keepdim),
    "sum_square": lambda x, a, keepdim: x.square().sum(a, keepdim),
    "log_sum": lambda x, a, keepdim: x.sum(a, keepdim).log(),
    "argmax": lambda x, a, keepdim: x.argmax(a[0], keepdim), "argmin": lambda x, a, keepdim: x.argmin(a[0], keepdim),
    "any": lambda x, a, keepdim: torch.any(x, a, keepdim), "all": lambda x, a, keepdim: torch.all(x, a, keepdim),
}  # fmt: skip


def subsets(rank: int) -> list[tuple[int, ...]]:
    return [c for n in range(1, rank + 1) for c in combinations(range(rank), n)]


@pytest.mark.parametrize("kind", TORCH)
def test_a_reduction_is_torchs(kind: str) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32))
    x = x > 0 if kind in ("any", "all") else x
    dtype = DType.BOOL if kind in ("any", "all") else DType.F32
    for axes in subsets(3):
        if kind.startswith("arg") and len(axes) > 1:
            continue
        for keep in (True, False):
            op = Reduce(kind, axes, keep)
            expected = TORCH[kind](x, axes, keepdim=keep)
            found = op.reference(x)
            torch.testing.assert_close(found.to(expected.dtype), expected, equal_nan=True)
            assert op.infer([TensorType((2, 3, 4), dtype)])[0].shape == found.shape


def test_the_last_of_equals() -> None:
    x = torch.tensor([[1.0, 3.0, 3.0, 0.0, 0.0]])
    found = [Reduce(k, (1,), False).reference(x).item() for k in ("argmax", "argmax_last", "argmin", "argmin_last")]
    assert found == [1, 2, 3, 4]


def family(rng: np.random.Generator):
    for kind, rule in KINDS.items():
        for dtype in rule.takes:
            shape = tuple(int(n) for n in rng.integers(1, 6, 4))
            axes = tuple(
                int(a) for a in rng.choice(4, 1 if kind.startswith("arg") else rng.integers(1, 5), replace=False)
            )
            yield Reduce(kind, axes, bool(rng.integers(2))), [TensorType(shape, dtype)]


@pytest.mark.parametrize("seed", range(2))
def test_generated_c_computes_the_reference(seed, tmp_path) -> None:
    check_family(family, seed, tmp_path)


def test_infinite_elements_in_c(tmp_path) -> None:
    x, inf = np.zeros((4, 3), np.float32), np.inf
    x[1], x[2, 1], x[3, 0] = -inf, inf, -inf
    case = prepare(Case("f", Reduce("log_sum_exp", (1,), False), [TensorType((4, 3))], [x]), np.random.default_rng(0))
    found = build_c([case.named], tmp_path)("f", case.arrays)["y"]
    np.testing.assert_allclose(found, torch.from_numpy(x).logsumexp(1).numpy(), rtol=1e-6)


def test_types_and_time() -> None:
    x = TensorType((1, 8, 3), DType.F32, None, 1)
    assert Reduce("max", (2,)).infer([x]) == (TensorType((1, 8, 1), DType.F32, None, 1),)
    assert Reduce("max", (0,), False).infer([x]) == (TensorType((8, 3), DType.F32, None, 0),)
    assert Reduce("argmax", (-1,), False).infer([x]) == (TensorType((1, 8), DType.I32, None, 1),)
    q = QuantParams((0.1,), 3)
    assert Reduce("min", (1,)).infer([TensorType((2, 3), DType.I8, q)]) == (TensorType((2, 1), DType.I8, q),)


@pytest.mark.parametrize(
    ("op", "dtype", "message"),
    [
        (Reduce("mode", (0,)), DType.F32, "expected a reduction among sum, mean"),
        (Reduce("sum", ()), DType.F32, r"axes \(\) of a tensor of 2 axes"),
        (Reduce("sum", (2,)), DType.F32, r"axes \(2,\) of a tensor of 2 axes"),
        (Reduce("argmax", (0, 1)), DType.F32, "argmax is along one axis"),
        (Reduce("mean", (0,)), DType.I32, "mean takes float32; found int32"),
    ],
)
def test_what_does_not_fit_is_told(op, dtype, message) -> None:
    with pytest.raises(ValueError, match=message):
        op.infer([TensorType((2, 3), dtype)])
