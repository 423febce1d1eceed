"""Sparse linear maps along an axis: resizes, and pools whose windows differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from edgec.ir.types import DType, TensorType
from edgec.ops.base import Array, Cost, Kernel, Op, Site, need
from edgec.ops.gather import check_index, index_lines, within
from edgec.ops.lowering.loops import around
from edgec.ops.relations.axes import LETTERS, along


@dataclass(frozen=True)
class Taps(Op):
    """y[o] = sum_k weights[o, k] * x[index[o, k]] along one axis; index and weights [O,K]."""

    name: ClassVar[str] = "taps"
    examples: ClassVar[tuple[str, ...]] = ("float32[2,3,4], int32[5,2], float32[5,2] {axis=1}",)
    axis: int = 0

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, index, weights = types
        rank = len(x.shape)
        check_index(index)
        need(-rank <= self.axis < rank, f"axis {self.axis} of a tensor of {rank} axes")
        need(x.dtype is weights.dtype is DType.F32, f"expected float32, found {x.dtype.value}, {weights.dtype.value}")
        shapes = len(index.shape) == 2 and index.shape == weights.shape
        need(shapes, f"expected index and weights [O,K], found {index.shape}, {weights.shape}")
        axis = self.axis % rank
        need(x.time_axis != axis, "frames are mixed along the time axis")
        return (replace(x, shape=(*x.shape[:axis], index.shape[0], *x.shape[axis + 1 :])),)

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        own = LETTERS[self.axis % rank]
        return f"{along(rank, self.axis, '({})')},{own}Z,{own}Z->{LETTERS[:rank]}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, index, weights = tensors
        picked = x.movedim(self.axis, -1)[..., within(index, x.shape[self.axis])]  # [..., O, K]
        return (picked * weights).sum(-1).movedim(-1, self.axis)

    def lower(self, site: Site) -> Kernel:
        x, index, _ = site.inputs
        outer, extent, inner = around(x.shape, self.axis % len(x.shape))
        size, taps = index.shape
        lines = "\n            ".join(index_lines("index[o, k]", extent))
        body = f"""for r in T.parallel({outer}):
    for o in T.serial({size}):
        for i in T.serial({inner}):
            y[r, o, i] = T.float32(0)
        for k in T.serial({taps}):
            {lines}
            for i in T.serial({inner}):
                y[r, o, i] = y[r, o, i] + weights[o, k] * x[r, at[0], i]"""
        return Kernel(
            body,
            (
                ("x", (outer, extent, inner), "float32"),
                ("index", (size, taps), index.dtype.storage),
                ("weights", (size, taps), "float32"),
                ("y", (outer, size, inner), "float32"),
            ),
        )

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(outputs[0].size * inputs[1].shape[1])


def adaptive_average(extent: int, size: int) -> tuple[Array, Array]:
    """Index and weights of means over `size` windows that cover an axis, as torch's adaptive pools choose them."""
    first = np.arange(size) * extent // size
    count = -(-(np.arange(size) + 1) * extent // size) - first
    steps = np.arange(count.max())
    inside = steps < count[:, None]
    return (
        np.where(inside, first[:, None] + steps, 0).astype(np.int32),
        np.where(inside, 1 / count[:, None], 0).astype(np.float32),
    )


def linear(extent: int, size: int, align_corners: bool = False, scale: float | None = None) -> tuple[Array, Array]:
    """Index and weights of linear interpolation from `extent` to `size` elements; `scale`: new elements for an old."""
    at = np.arange(size, dtype=np.float64)
    if align_corners:
        at = at * ((extent - 1) / (size - 1) if size > 1 else 0.0)
    else:
        at = np.maximum((at + 0.5) / (scale or size / extent) - 0.5, 0.0)
    low = np.minimum(np.floor(at), extent - 1).astype(np.int32)
    part = at - low
    index = np.stack([low, np.minimum(low + 1, extent - 1)], 1)
    return index.astype(np.int32), np.stack([1 - part, part], 1).astype(np.float32)


def nearest(extent: int, size: int, scale: float | None = None) -> Array:
    """Index of the nearest element below, as torch's `nearest` chooses it: for a Gather."""
    return np.minimum(np.floor(np.arange(size) / (scale or size / extent)), extent - 1).astype(np.int32)


def outside(extent: int, before: int, after: int, mode: str) -> Array:
    """Index of a padding by reflection, by the edge ("edge") or around ("wrap"): for a Gather."""
    at = np.arange(-before, extent + after)
    if mode in ("wrap", "edge"):
        return np.asarray(at % extent if mode == "wrap" else at.clip(0, extent - 1), np.int32)
    period = max(2 * (extent - 1), 1)
    folded = np.abs(at) % period
    return np.asarray(np.minimum(folded, period - folded), np.int32)
