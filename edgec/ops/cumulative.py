"""Sums and products of all elements so far along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from edgec.ir.types import DType, TensorType
from edgec.ops.base import Kernel, Op, Site, need, with_frames
from edgec.ops.language.operations import wrapped, wrapping
from edgec.ops.lowering.loops import around
from edgec.ops.relations.axes import LETTERS, along

#: what is neutral, and the symbol
KINDS = {"sum": (0, "+"), "prod": (1, "*")}


@dataclass(frozen=True)
class Cumulative(Op):
    """Sum or product of all elements up to each one along an axis, or of those before it (`exclusive`), or backwards.

    Over the time axis it streams, its total being state; in reverse it does not.
    """

    name: ClassVar[str] = "cumulative"
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,3,4] {axis=1}",
        "float32[1,5,3] t1 {axis=1,exclusive=True}",
        "int32[2,6] {kind='prod',axis=-1,reverse=True}",
    )
    kind: str = "sum"
    axis: int = 0
    exclusive: bool = False
    reverse: bool = False

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,), rank = types, len(types[0].shape)
        need(self.kind in KINDS, f"expected sum or prod, found {self.kind!r}")
        need(-rank <= self.axis < rank, f"axis {self.axis} of a tensor of {rank} axes")
        need(x.dtype in (DType.F32, DType.I32) and x.quant is None, f"expected float32 or int32, found {x.dtype.value}")
        need(not (self.reverse and self.over_time(x)), "it runs backwards along the time axis, from frames to come")
        return (x,)

    def over_time(self, x: TensorType) -> bool:
        """Whether the axis is time."""
        return x.time_axis == self.axis % len(x.shape)

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        return f"{along(rank, self.axis, '({})')}->{LETTERS[:rank]}"

    def state_types(self, types: Sequence[TensorType]) -> tuple[tuple[TensorType, float], ...]:
        (x,) = types
        if not self.over_time(x):
            return ()
        return ((replace(with_frames(x, 1), time_axis=None), KINDS[self.kind][0]),)

    def run(
        self, tensors: Sequence[torch.Tensor], states: Sequence[torch.Tensor] = ()
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        x, axis = tensors[0], self.axis
        n, x = x.shape[axis], x.flip(axis) if self.reverse else x
        (before,) = states or (torch.full_like(x.narrow(axis, 0, 1), KINDS[self.kind][0]),)
        function = torch.cumsum if self.kind == "sum" else torch.cumprod
        totals = function(torch.cat([before, x], axis), axis)
        totals = totals if totals.is_floating_point() else wrapped(totals, DType.I32)
        y = totals.narrow(axis, 0 if self.exclusive else 1, n)
        return (y.flip(axis) if self.reverse else y,), (totals.narrow(axis, n, 1),) if states else ()

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.run(tensors)[0][0]

    def lower(self, site: Site) -> Kernel:
        (x,), (neutral, symbol) = site.inputs, KINDS[self.kind]
        outer, n, inner = around(x.shape, self.axis % len(x.shape))
        kind, start = x.dtype.storage, "state[r, i]" if site.states else f"T.{x.dtype.storage}({neutral})"
        at = f"r, {n - 1} - k, i" if self.reverse else "r, k, i"
        more = f"total[0] {symbol} x[{at}]" if x.dtype.is_float else wrapping(symbol).format("total[0]", f"x[{at}]")
        lines = [f"total[0] = {more}", f"y[{at}] = total[0]"]
        body = f"""for r in T.parallel({outer}):
    for i in T.serial({inner}):
        total = T.alloc_buffer((1,), "{kind}")
        total[0] = {start}
        for k in T.serial({n}):
            {lines[self.exclusive]}
            {lines[not self.exclusive]}"""
        body += "\n        state[r, i] = total[0]" * bool(site.states)
        state = (("state", (outer, inner), kind),) if site.states else ()
        return Kernel(body, (("x", (outer, n, inner), kind), *state, ("y", (outer, n, inner), kind)))

    def stream(self, step: Any, x: str) -> str:
        return step.emit(self, x)  # type: ignore[no-any-return]
