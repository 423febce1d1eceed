"""Per-window standardisation of a time series, and its inverse: RevIN without weights, the StdScaler of TTM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import torch

from edgec.ir.types import DType, TensorType
from edgec.ops.axes import along
from edgec.ops.base import Kernel, Op, Site, need


def statistics_shape(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    """Shape of a window's mean and deviation: one value along the axis they are taken over."""
    return tuple(1 if k == axis else n for k, n in enumerate(shape))


def around(shape: Sequence[int], axis: int) -> tuple[int, int, int]:
    """Extents before, along and after an axis."""
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


@dataclass(frozen=True)
class StdScale(Op):
    """y = (x - loc) / scale over one axis, with loc = mean(x), scale = sqrt(mean((x - loc)^2) + eps).

    x [.., L, ..] -> y of the same shape, loc and scale [.., 1, ..].
    """

    name: ClassVar[str] = "std_scale"
    examples: ClassVar[tuple[str, ...]] = ("float32[2,5,3]",)
    axis: int = 1
    eps: float = 1e-5

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(x.dtype is DType.F32, f"expected float32, found {x.dtype.value}")
        need(0 <= self.axis < len(x.shape), f"axis {self.axis} is not an axis of {x.shape}")
        need(self.eps > 0, f"expected eps above 0, found {self.eps}")
        time = None if x.time_axis == self.axis else x.time_axis
        stats = TensorType(statistics_shape(x.shape, self.axis), DType.F32, None, time)
        return replace(x, quant=None), stats, stats

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        return (
            f"{along(rank, self.axis, 'i')}->{along(rank, self.axis)},{along(rank, self.axis)},{along(rank, self.axis)}"
        )

    def reference(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        (x,) = tensors
        loc = x.mean(self.axis, keepdim=True)
        scale = torch.sqrt((x - loc).square().mean(self.axis, keepdim=True) + self.eps)
        return (x - loc) / scale, loc, scale

    def lower(self, site: Site) -> Kernel:
        """A second pass corrects the mean: one pass in float32 is off by 1e-5 of it, which may be many deviations."""
        outer, n, inner = around(site.inputs[0].shape, self.axis)
        body = f"""for r, i in T.grid({outer}, {inner}):
    scale[r, i] = T.float32(0)
    for k in T.serial({n}):
        scale[r, i] = scale[r, i] + x[r, k, i]
    loc[r, i] = scale[r, i] / T.float32({n})
    scale[r, i] = T.float32(0)
    for k in T.serial({n}):
        scale[r, i] = scale[r, i] + (x[r, k, i] - loc[r, i])
    loc[r, i] = loc[r, i] + scale[r, i] / T.float32({n})
    scale[r, i] = T.float32(0)
    for k in T.serial({n}):
        scale[r, i] = scale[r, i] + (x[r, k, i] - loc[r, i]) * (x[r, k, i] - loc[r, i])
    scale[r, i] = T.call_extern("float32", "edgec_sqrtf", scale[r, i] / T.float32({n}) + T.float32({self.eps!r}))
    for k in T.serial({n}):
        y[r, k, i] = (x[r, k, i] - loc[r, i]) / scale[r, i]"""
        full, stats = (outer, n, inner), (outer, inner)
        names = (("x", full), ("y", full), ("loc", stats), ("scale", stats))
        return Kernel(body, tuple((name, shape, "float32") for name, shape in names))


@dataclass(frozen=True)
class StdUnscale(Op):
    """y = x * scale + loc: a forecast [.., H, ..] back in the units of the window that `std_scale` took apart."""

    name: ClassVar[str] = "std_unscale"
    axes: ClassVar[Any] = "...,...,...->..."
    examples: ClassVar[tuple[str, ...]] = ("float32[2,5,3], float32[2,1,3], float32[2,1,3]",)
    axis: int = 1

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, loc, scale = types
        expected = statistics_shape(x.shape, self.axis)
        need(
            loc.shape == scale.shape == expected,
            f"expected loc and scale of shape {expected}, found {loc.shape}, {scale.shape}",
        )
        need(all(t.dtype is DType.F32 for t in types), f"expected float32, found {[t.dtype.value for t in types]}")
        return (replace(x, quant=None),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, loc, scale = tensors
        return x * scale + loc

    def lower(self, site: Site) -> Kernel:
        outer, n, inner = around(site.inputs[0].shape, self.axis)
        body = f"""for r, k, i in T.grid({outer}, {n}, {inner}):
    y[r, k, i] = x[r, k, i] * scale[r, i] + loc[r, i]"""
        full, stats = (outer, n, inner), (outer, inner)
        names = (("x", full), ("loc", stats), ("scale", stats), ("y", full))
        return Kernel(body, tuple((name, shape, "float32") for name, shape in names))
