"""Reductions over positions: mean over one axis, pooling over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import torch

from edgec.ir.types import TensorType
from edgec.ops.base import Kernel, Op, Site, need
from edgec.ops.timeline import RunningMean


@dataclass(frozen=True)
class Mean(Op):
    """Mean over one axis, which goes. Over the time axis it streams as a running mean (any-time readout)."""

    name: ClassVar[str] = "mean"
    axis: int = 1

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(0 <= self.axis < len(x.shape), f"axis {self.axis} is not an axis of {x.shape}")
        shape = tuple(n for k, n in enumerate(x.shape) if k != self.axis)
        time = x.time_axis
        if time is not None:
            time = None if time == self.axis else time - (time > self.axis)
        return (replace(x, shape=shape, quant=None, time_axis=time),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0].mean(self.axis)

    def stream(self, step: Any, x: str) -> str:
        t = step.type_of(x)
        if t.time_axis != self.axis:
            return step.emit(self, x)  # type: ignore[no-any-return]
        return step.emit(Mean(self.axis), step.emit(RunningMean(), x))  # type: ignore[no-any-return]

    def lower(self, site: Site) -> Kernel:
        shape = site.inputs[0].shape
        outer, n, inner = prod(shape[: self.axis]), shape[self.axis], prod(shape[self.axis + 1 :])
        body = f"""for i in T.parallel({inner}):
    for r in T.serial({outer}):
        y[r, i] = T.float32(0)
        for k in T.serial({n}):
            y[r, i] = y[r, i] + x[r, k, i]
        y[r, i] = y[r, i] * T.float32({1.0 / n!r})"""
        return Kernel(body, (("x", (outer, n, inner), "float32"), ("y", (outer, inner), "float32")))

    def permuted(self, perm: Sequence[int], types: Sequence[TensorType]) -> Op | None:
        return None
