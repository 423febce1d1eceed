"""Where every element of the result of an op that only moves elements comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgec.ir.types import TensorType
from edgec.ops.relations.axes import axes_of

FILL = -1


@lru_cache(maxsize=256)
def _index_map(op: Any, types: tuple[TensorType, ...]) -> npt.NDArray[np.int64]:
    assert op.moves, op.name
    ends = np.cumsum([0, *(prod(t.shape) for t in types)])
    iota = [torch.arange(start, start + prod(t.shape)).reshape(t.shape) for start, t in zip(ends, types, strict=False)]
    here, there = op.reference(*iota), op.reference(*(i + int(ends[-1]) for i in iota))
    found = torch.where(here == there, FILL, here).numpy()  # a fill value is the same whatever the operands are
    found.flags.writeable = False
    return np.asarray(found, np.int64)


def index_map(op: Any, types: Sequence[TensorType]) -> npt.NDArray[np.int64]:
    """The result's elements as flat indices into all operands laid end to end; FILL where it is a fill value."""
    return _index_map(op, tuple(types))


def sources(op: Any, types: Sequence[TensorType], axis: int = -1) -> tuple[npt.NDArray[np.int64], ...] | None:
    """For each operand the index along an axis, counted from the end, that each of the result's along the same comes
    from, -1 where from none; None where elements of several meet in one. Axes that are plain need no elements: they are
    cut to extent 1 before."""
    return _sources(op, tuple(types), axis)


@lru_cache(maxsize=1024)
def _sources(op: Any, types: tuple[TensorType, ...], axis: int) -> tuple[npt.NDArray[np.int64], ...] | None:
    axes, (result,) = axes_of(op, types), op.infer(types)
    assert axes is not None
    letters = (*axes.operands, *axes.results)
    plain = {c for own in axes.operands for c in own if c in axes.results[0]} - {own[axis] for own in letters}
    *small, made = (
        replace(t, shape=tuple(1 if c in plain else n for c, n in zip(own, t.shape, strict=True)))
        for t, own in zip((*types, result), letters, strict=True)
    )
    source = index_map(op.with_shape(made.shape), small)
    to = np.broadcast_to(np.arange(made.shape[axis]).reshape(-1, *(1,) * (-1 - axis)), made.shape)
    found, start = [], 0
    for t in small:
        mine = (source >= start) & (source < start + t.size)
        index = np.unravel_index(source[mine] - start, t.shape)[axis]
        least, most = np.full(made.shape[axis], t.shape[axis]), np.full(made.shape[axis], -1)
        np.minimum.at(least, to[mine], index)
        np.maximum.at(most, to[mine], index)
        if (least < most).any():
            return None
        found.append(most)
        start += t.size
    return tuple(found)
