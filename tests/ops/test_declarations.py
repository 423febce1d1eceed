"""What ops declare about their axes, and that they only move elements, against their own references."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from edgec.ir.evaluate import as_tensor
from edgec.ir.types import DType, TensorType
from edgec.ops import OPS
from edgec.ops.relations.axes import axes_of, is_framewise, parse, permuted
from edgec.ops.relations.interval import Interval, corners
from edgec.ops.relations.moves import FILL, index_map, sources

Types = tuple[TensorType, ...]
SAMPLES = [(op, types) for kind in OPS.values() for op, types in kind.samples()]
MULTIPLIER, SHIFT = (1 << 30, 1 << 31), (33, 44)
#: values of int32 operands by how many of them there are at the end; others are small
SCALED = {
    **dict.fromkeys(("requantize", "qconv2d_requantize", "qlinear_requantize", "tflite_mean"), (MULTIPLIER, SHIFT)),
    **dict.fromkeys(("qmean", "qrunning_mean"), (MULTIPLIER, (25, 32))),
    "qlayer_norm": ((1 << 20, 1 << 22), (-99, 99)),
    "qstd_unscale": ((-999, 999), (1, 99)),
}


def values(op: Any, types: Types, seed: int) -> list[torch.Tensor]:
    """Random operands that the op takes."""
    rng, found = np.random.default_rng(seed), []
    for k, t in enumerate(types):
        if t.dtype.is_float:
            normal = torch.from_numpy(rng.normal(size=t.shape).astype(np.float32))
            found.append(normal.abs() + 0.1 if op.name in ("log", "sqrt") else normal)
            continue
        lo, hi = (-999, 999) if t.dtype is DType.I32 else (t.dtype.range[0], t.dtype.range[1] + 1)
        last = k - len(types) + len(SCALED.get(op.name, ()))
        if last >= 0 and op.name in SCALED:
            lo, hi = SCALED[op.name][last]
        found.append(as_tensor(rng.integers(lo, hi, t.shape), t))
    return found


def results(op: Any, types: Types, operands: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    kinds = op.state_types(types)
    states = [torch.full(t.shape, v, dtype=torch.float32 if t.dtype.is_float else torch.int64) for t, v in kinds]
    return op.run(operands, states)[0]


def name_of(sample: Any) -> str:
    return getattr(sample, "name", "")


def touched(old: torch.Tensor, new: torch.Tensor, axis: int) -> list[int]:
    """The indices along an axis at which two tensors differ."""
    differs = (old != new) & ((old == old) | (new == new))  # what is not a number stays so
    return torch.nonzero(differs.movedim(axis, 0).reshape(old.shape[axis], -1).any(1)).flatten().tolist()


def test_every_op_has_samples() -> None:
    assert {op.name for op, _ in SAMPLES} == set(OPS)


@pytest.mark.parametrize(("op", "types"), SAMPLES, ids=name_of)
def test_an_element_changes_only_what_the_axes_allow(op: Any, types: Types) -> None:
    axes = axes_of(op, types)
    assert axes is not None
    assert [len(r) for r in axes.results] == [len(t.shape) for t in op.infer(types)]
    operands = values(op, types, 0)
    before = results(op, types, operands)
    for k, t in enumerate(types):
        other = values(op, types, 1)[k]
        plain = [(a, c) for a, c in enumerate(axes.operands[k]) if t.shape[a] > 1]
        for a, c in plain:
            for i in range(min(t.shape[a], 12)):
                changed = operands[k].clone()
                changed.select(a, i).copy_(other.select(a, i))
                after = results(op, types, [*operands[:k], changed, *operands[k + 1 :]])
                for own, old, new in zip(axes.results, before, after, strict=True):
                    assert c not in own or set(touched(old, new, own.index(c))) <= {i}


@pytest.mark.parametrize(("op", "types"), SAMPLES, ids=name_of)
def test_a_plain_axis_can_be_permuted(op: Any, types: Types) -> None:
    axes = axes_of(op, types)
    assert axes is not None
    operands = values(op, types, 2)
    before = results(op, types, operands)
    letters = {c for o in axes.operands for c in o if all(c in r for r in axes.results) and axes.is_plain(c)}
    for c in letters:
        extent = max(t.shape[o.index(c)] for o, t in zip(axes.operands, types, strict=True) if c in o)
        order = torch.arange(extent).flip(0)

        def permuted(value: torch.Tensor, own: tuple[str, ...], c: str = c, order: torch.Tensor = order) -> Any:
            return value.index_select(own.index(c), order) if c in own and value.shape[own.index(c)] > 1 else value

        after = results(op, types, [permuted(v, o) for v, o in zip(operands, axes.operands, strict=True)])
        for old, new, own in zip(before, after, axes.results, strict=True):
            torch.testing.assert_close(new, permuted(old, own), equal_nan=True)


@pytest.mark.parametrize(("op", "types"), SAMPLES, ids=name_of)
def test_an_op_in_another_layout_computes_the_same(op: Any, types: Types) -> None:
    rank = max(len(t.shape) for t in types)
    perm = (*range(1, rank), 0)
    timeless = [replace(t, time_axis=None) for t in types]
    found = permuted(op, timeless, perm) if not op.state_types(types) else None
    if found is None:
        return
    other, moving, left = found
    operands = values(op, types, 7)
    (expected,) = results(op, types, operands)
    back = [int(k) for k in np.argsort(perm)]
    for k in moving:
        operands[k] = operands[k][(None,) * (rank - operands[k].ndim)].permute(back)
    (y,) = other.run(operands)[0]
    torch.testing.assert_close(y.permute(left), expected, equal_nan=True)


def test_what_has_no_other_layout() -> None:
    free = {op.name for op, types in SAMPLES if permuted(op, types, tuple(range(max(len(t.shape) for t in types))))}
    assert free >= {"add", "affine", "concat", "mean", "relu", "slice"}
    assert not free & {"conv1d", "conv2d", "layer_norm", "linear", "matmul", "max_pool2d", "softmax", "lif"}


@pytest.mark.parametrize(("op", "types"), [s for s in SAMPLES if s[0].moves], ids=name_of)
def test_a_move_is_its_index_map(op: Any, types: Types) -> None:
    operands = values(op, types, 3)
    source = torch.from_numpy(index_map(op, types).copy())
    flat = torch.cat([v.flatten() for v in operands])
    (expected,) = results(op, types, operands)
    assert torch.equal(torch.where(source == FILL, expected, flat[source.clamp(min=0)]), expected)
    filled = expected[source == FILL]
    assert filled.numel() == 0 or bool((filled == op.value).all())
    for axis in range(-min(len(t.shape) for t in (*types, *op.infer(types))), 0):
        found = sources(op, types, axis)
        for k, t in enumerate(types):
            start = sum(other.size for other in types[:k])
            own = (source >= start) & (source < start + t.size)
            from_ = np.unravel_index(source[own].numpy() - start, t.shape)[axis]
            pairs = set(zip(torch.nonzero(own)[:, axis].tolist(), from_.tolist(), strict=True))
            if found is not None:
                assert pairs == {(q, int(p)) for q, p in enumerate(found[k]) if p >= 0}
            elif len(types) == 1:
                assert len({q for q, _ in pairs}) < len(pairs)


@pytest.mark.parametrize(("op", "types"), [s for s in SAMPLES if s[0].monotone or s[0].interval], ids=name_of)
def test_results_stay_within_their_interval(op: Any, types: Types) -> None:
    """Of operands between two random tensors; those after the first are known where the op needs that."""
    types = tuple(replace(t, time_axis=None) for t in types)
    pairs = list(zip(values(op, types, 4), values(op, types, 5), strict=True))
    free = len(types) if op.monotone and op.name not in SCALED else 1
    boxes = [
        Interval(torch.minimum(a, b), torch.maximum(a, b)) if k < free else Interval(a, a)
        for k, (a, b) in enumerate(pairs)
    ]
    found = corners(op, boxes) if op.interval is None else op.interval(types, boxes)
    assert found is not None
    rng = torch.Generator().manual_seed(6)
    for _ in range(20):
        picks = [torch.rand(box.lo.shape, generator=rng) < 0.5 for box in boxes]
        y = op.reference(*(torch.where(p, box.lo, box.hi) for p, box in zip(picks, boxes, strict=True)))
        assert bool((found.lo <= y).all())
        assert bool((y <= found.hi).all())


def test_letters_are_parsed() -> None:
    axes = parse("b(t)i,...io,o->bto", [3, 3, 1])
    assert axes.operands == (("b", "(t)", "i"), ("...0", "i", "o"), ("o",))
    assert axes.results == (("b", "t", "o"),)
    assert [axes.follow(0, k) for k in range(3)] == [0, None, None]
    assert axes.follow(1, 2) == 2
    assert not axes.is_plain("t")
    assert parse("...,...->...", [3, 1]).operands == (("...2", "...1", "...0"), ("...0",))


def test_frames_that_do_not_mix() -> None:
    def timed(axis: int | None, *shape: int) -> TensorType:
        return TensorType(shape, DType.F32, None, axis)

    assert is_framewise(OPS["softmax"](), [timed(1, 2, 5, 3)])
    assert not is_framewise(OPS["mean"](axis=1), [timed(1, 2, 5, 3)])
    assert is_framewise(OPS["mean"](axis=2), [timed(1, 2, 5, 3)])
    assert is_framewise(OPS["matmul"](), [timed(1, 2, 5, 3), timed(None, 2, 3, 4)])
    assert not is_framewise(OPS["matmul"](transpose_b=True), [timed(1, 2, 5, 3), timed(1, 2, 5, 3)])
    assert is_framewise(OPS["permute"](perm=(1, 0, 2)), [timed(1, 2, 5, 3)])
    assert is_framewise(OPS["reshape"](shape=(5, 2, 3), time_axis=0), [timed(1, 1, 5, 6)])
    assert not is_framewise(OPS["reshape"](shape=(5, 2, 3), time_axis=0), [timed(1, 2, 5, 3)])


@pytest.mark.parametrize(("op", "types"), [s for s in SAMPLES if s[1][0].dtype.is_float], ids=name_of)
def test_a_result_is_what_quantisation_is_told(op: Any, types: Types) -> None:
    operands = [10 * v for v in values(op, types, 5)]
    y = results(op, types, operands)[0]
    if op.spikes:
        assert set(y.unique().tolist()) <= {0.0, 1.0}
    if op.shares:
        torch.testing.assert_close(y.sum(-1), torch.ones(y.shape[:-1]))
    if op.fixed_range:
        assert op.fixed_range[0] <= float(y.min()) <= float(y.max()) <= op.fixed_range[1]
    if op.picks:
        assert set(y.unique().tolist()) <= set(operands[0].unique().tolist())
    low, high = op.varies
    for end, beyond in ((low, -1e3), (high, 1e3)):
        if np.isfinite(end):
            constant = [results(op, types, [torch.full(types[0].shape, at)])[0] for at in (end, end + beyond)]
            torch.testing.assert_close(*constant)


@pytest.mark.parametrize(
    ("fact", "ops"),
    [
        ("spikes", {"lif"}),
        ("shares", {"softmax"}),
        ("picks", {"gather", "gather_elements", "max_pool2d", "reduce"}),
        ("fixed_range", {"sigmoid", "tanh", "softmax"}),
    ],
)
def test_of_which_ops_quantisation_is_told(fact: str, ops: set[str]) -> None:
    assert {op.name for op, _ in SAMPLES if getattr(op, fact)} == ops
