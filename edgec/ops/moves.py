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
from edgec.ops.axes import axes_of

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


def axis_map(op: Any, types: Sequence[TensorType], axis: int = -1) -> list[npt.NDArray[np.bool_]]:
    """For each operand which of its indices along an axis, counted from the end, reach which of the result's along the
    same: masks [operand's, result's]. Axes that are plain need no elements: they are cut to extent 1 before."""
    axes, (result,) = axes_of(op, types), op.infer(types)
    ends = {o[axis] for o in (*axes.operands, *axes.results) if o} if axes else set()
    plain = {c for o in axes.operands for c in o if c in axes.results[0]} - ends if axes else set()
    cut = [
        replace(t, shape=tuple(1 if c in plain else n for c, n in zip(letters, t.shape, strict=True)))
        for t, letters in zip((*types, result), (*axes.operands, *axes.results), strict=True)
    ] if axes else [*types, result]  # fmt: skip
    *small, made = cut
    source = index_map(op.with_shape(made.shape), small)
    to = np.broadcast_to(np.arange(made.shape[axis]).reshape(-1, *(1,) * (-1 - axis)), made.shape)
    found, start = [], 0
    for t in small:
        mine = (source >= start) & (source < start + t.size)
        mask = np.zeros((t.shape[axis], made.shape[axis]), bool)
        mask[np.unravel_index(source[mine] - start, t.shape)[axis], to[mine]] = True
        found.append(mask)
        start += t.size
    return found
