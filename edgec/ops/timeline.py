"""Ops on the time axis itself: history, delay, running mean. Streaming is made of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import torch

from edgec.ir.graph import Node
from edgec.ir.types import DType, TensorType
from edgec.ops.base import Kernel, Op, Site, ctype, need, with_frames
from edgec.ops.integer.build import Builder
from edgec.ops.integer.numbers import Refusal
from edgec.ops.integer.pool import MEAN_FRAMES, limit_of, mean_ratio
from edgec.ops.integer.spiking import QRunningMean
from edgec.ops.lowering.sums import Sum
from edgec.ops.relations.axes import along


def storage_around(t: TensorType) -> tuple[int, int]:
    """Storage units before and after the time axis of a type, as loop extents."""
    assert t.time_axis is not None
    return prod(t.storage_shape[: t.time_axis]), prod(t.storage_shape[t.time_axis + 1 :])


@dataclass(frozen=True)
class DelayLine(Op):
    """The last `length` frames of x, the newest last. Only in step graphs; the output is the state itself."""

    name: ClassVar[str] = "delay_line"
    examples: ClassVar[tuple[str, ...]] = ("float32[1,2,3] t1 {length=4}", "float32[1,2,1] t0 {length=3,axis=0}")
    output_is_state: ClassVar[bool] = True
    length: int = 1
    axis: int = 1
    fill: float = 0.0

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(x.time_axis == self.axis, f"expected time axis {self.axis}, found {x.time_axis}")
        need((x.frames or 0) <= self.length, f"{x.frames} new frames do not fit a delay line of {self.length}")
        return (with_frames(x, self.length),)

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        return f"{along(rank, self.axis, '({})')}->{along(rank, self.axis)}"

    def state_types(self, types: Sequence[TensorType]) -> tuple[tuple[TensorType, float], ...]:
        return ((replace(self.infer(types)[0], time_axis=None), self.fill),)

    def run(
        self, tensors: Sequence[torch.Tensor], states: Sequence[torch.Tensor] = ()
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        (x,), (line,) = tensors, states
        line = torch.cat([line, x], self.axis).narrow(self.axis, x.shape[self.axis], self.length)
        return (line,), (line,)

    def lower(self, site: Site) -> Kernel:
        (x,), (line,) = site.inputs, site.outputs
        kind = ctype(x.dtype)
        if x.dtype is DType.BIT and x.time_axis == len(x.shape) - 1:
            return self._lower_bit_register(x, line)
        outer, row = storage_around(x)
        new, keep = (x.frames or 0) * row, (self.length - (x.frames or 0)) * row
        body = f"""for r in T.serial({outer}):
    for i in T.serial({keep}):
        line[r, i] = line[r, i + {new}]
    for i in T.serial({new}):
        line[r, i + {keep}] = x[r, i]"""
        return Kernel(body, (("x", (outer, new), kind), ("line", (outer, keep + new), kind)))

    def _lower_bit_register(self, x: TensorType, line: TensorType) -> Kernel:
        """One spike per frame along the packed axis: a shift register, the oldest spike in bit 0 of word 0."""
        need(x.shape[-1] == 1 and x.size == 1, "a packed time axis takes one spike per frame")
        words = line.storage_shape[-1]
        last, bit = words - 1, (self.length - 1) % 32
        body = f"""for i in T.serial({last}):
    line[i] = T.shift_right(line[i], T.uint32(1)) | T.shift_left(line[i + 1], T.uint32(31))
line[{last}] = T.shift_right(line[{last}], T.uint32(1)) | T.shift_left(x[0] & T.uint32(1), T.uint32({bit}))"""
        return Kernel(body, (("x", (1,), "uint32"), ("line", (words,), "uint32")))


@dataclass(frozen=True)
class HistoryToFeatures(Op):
    """A delay line [B,L] read as one frame of L features [B,1,L]. Only in step graphs; a view."""

    name: ClassVar[str] = "history_to_features"
    axes: ClassVar[Any] = "bl->btl"
    moves: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = ("float32[1,4] t1",)
    is_view: ClassVar[bool] = True

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(len(x.shape) == 2 and x.time_axis == 1, f"expected [B,L] with time on axis 1, found {x.shape}")
        return (replace(x, shape=(x.shape[0], 1, x.shape[1])),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0].unsqueeze(1)


@dataclass(frozen=True)
class Window(Op):
    """A delay line read as one whole window: its time axis counts no frames any more. Only in step graphs; a view."""

    name: ClassVar[str] = "window"
    axes: ClassVar[Any] = "...->..."
    moves: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = ("float32[1,4,3] t1",)
    is_view: ClassVar[bool] = True

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(x.time_axis is not None, "a window is read from a tensor with a time axis")
        return (replace(x, time_axis=None),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0]


@dataclass(frozen=True)
class Delay(Op):
    """x as it was `frames` frames ago; aligns branches of different delay. Only in step graphs."""

    name: ClassVar[str] = "delay"
    examples: ClassVar[tuple[str, ...]] = ("float32[1,3,2] t1 {frames=1}",)
    frames: int = 1
    axis: int = 1

    @property
    def lag(self) -> int:
        return self.frames

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(x.time_axis == self.axis and self.frames >= 1, f"expected time axis {self.axis} and at least one frame")
        return (x,)

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        return f"{along(rank, self.axis, '({})')}->{along(rank, self.axis)}"

    def state_types(self, types: Sequence[TensorType]) -> tuple[tuple[TensorType, float], ...]:
        (x,) = types
        return ((replace(with_frames(x, self.frames * (x.frames or 1)), time_axis=None), 0.0),)

    def run(
        self, tensors: Sequence[torch.Tensor], states: Sequence[torch.Tensor] = ()
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        (x,), (line,) = tensors, states
        both, new = torch.cat([line, x], self.axis), x.shape[self.axis]
        return (both.narrow(self.axis, 0, new),), (both.narrow(self.axis, new, line.shape[self.axis]),)

    def lower(self, site: Site) -> Kernel:
        (x,) = site.inputs
        outer, row = storage_around(x)
        new = (x.frames or 0) * row
        keep, kind = (self.frames - 1) * new, ctype(x.dtype)
        body = f"""for r in T.serial({outer}):
    for i in T.serial({new}):
        y[r, i] = line[r, i]
    for i in T.serial({keep}):
        line[r, i] = line[r, i + {new}]
    for i in T.serial({new}):
        line[r, i + {keep}] = x[r, i]"""
        return Kernel(body, (("x", (outer, new), kind), ("line", (outer, keep + new), kind), ("y", (outer, new), kind)))


@dataclass(frozen=True)
class RunningMean(Op):
    """Mean over all frames so far, or over the last `window` of them (any-time readout): x [B,T,C] -> [B,T,C].

    With a `divisor` it is the sum of all frames so far over that many.
    """

    name: ClassVar[str] = "running_mean"
    is_readout: ClassVar[bool] = True
    axes: ClassVar[Any] = "...(t)c->...tc"
    examples: ClassVar[tuple[str, ...]] = (
        "float32[1,5,3] t1",
        "float32[1,5,3] t1 {window=2}",
        "float32[1,5,3] t1 {divisor=3}",
    )
    window: int = 0
    divisor: int = 0

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(x.time_axis is not None, "a running mean needs a time axis")
        need(x.time_axis == len(x.shape) - 2, "a running mean's time axis is the last but one")
        need(self.window >= 0, f"expected a window of 0 (all frames) or more, found {self.window}")
        need(self.divisor == 0 or self.divisor > 0 == self.window, "a divisor is for the sum of all frames")
        return (x,)

    def state_types(self, types: Sequence[TensorType]) -> tuple[tuple[TensorType, float], ...]:
        one = replace(with_frames(types[0], 1), time_axis=None)
        if self.divisor:
            return ((one, 0.0),)
        if not self.window:
            return (one, 0.0), (TensorType((1,)), 0.0)
        ring = replace(one, shape=(*one.shape[:-2], self.window, one.shape[-1]))
        return (ring, 0.0), (TensorType((1,)), 0.0), (TensorType((1,), DType.I32), 0)

    def run(
        self, tensors: Sequence[torch.Tensor], states: Sequence[torch.Tensor] = ()
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        (x,) = tensors
        if self.window:
            return self._run_window(x, states)
        if self.divisor:
            (total,) = states or (torch.zeros_like(x.narrow(-2, 0, 1)),)
            sums = torch.cumsum(torch.cat([total, x], -2), -2).narrow(-2, 1, x.shape[-2])
            return (sums / self.divisor,), (sums.narrow(-2, x.shape[-2] - 1, 1),)
        total, count = states if states else (torch.zeros_like(x.narrow(-2, 0, 1)), torch.zeros(1))
        sums = torch.cumsum(torch.cat([total, x], -2), -2).narrow(-2, 1, x.shape[-2])
        counts = count + torch.arange(1, x.shape[-2] + 1, dtype=x.dtype)
        return (sums / counts.view(-1, 1),), (sums.narrow(-2, x.shape[-2] - 1, 1), counts[-1:])

    def _run_window(
        self, x: torch.Tensor, states: Sequence[torch.Tensor]
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """The ring is summed anew every frame: a difference of running sums would drift on an endless stream."""
        empty = torch.zeros((*x.shape[:-2], self.window, x.shape[-1]), dtype=x.dtype)
        ring, count, position = states if states else (empty, torch.zeros(1), torch.zeros(1, dtype=torch.int64))
        means = []
        for frame in x.chunk(x.shape[-2], -2):
            ring, at = ring.clone(), int(position)
            ring[..., at : at + 1, :] = frame
            count, position = (count + 1).clamp(max=self.window), torch.tensor([(at + 1) % self.window])
            means.append(ring.sum(-2, keepdim=True) / count)
        return (torch.cat(means, -2),), (ring, count, position)

    def lower(self, site: Site) -> Kernel:
        n = site.inputs[0].size
        need(site.states != () and site.inputs[0].frames == 1, "a running mean is lowered one frame at a time")
        f32 = "float32"
        if self.window:
            loops = [("k", str(self.window))]
            sums = Sum(f32, "T.float32(0)", "{acc} + ring[k, {o}]", "y[{o}] = {acc} / count[0]", loops)
            means = "\n".join(sums.blocks(n))
            body = f"""count[0] = T.min(count[0] + T.float32(1), T.float32({self.window}))
at: T.let[T.int32] = position[0]
for i in T.parallel({n}):
    ring[at, i] = x[i]
{means}
position[0] = T.if_then_else(at + 1 == {self.window}, 0, at + 1)"""
            params = (
                ("x", (n,), f32),
                ("ring", (self.window, n), f32),
                ("count", (1,), f32),
                ("position", (1,), "int32"),
            )
            return Kernel(body, (*params, ("y", (n,), f32)))
        if self.divisor:
            body = f"""for i in T.parallel({n}):
    total[i] = total[i] + x[i]
    y[i] = total[i] / T.float32({self.divisor})"""
            return Kernel(body, (("x", (n,), f32), ("total", (n,), f32), ("y", (n,), f32)))
        body = f"""count[0] = count[0] + T.float32(1)
for i in T.parallel({n}):
    total[i] = total[i] + x[i]
    y[i] = total[i] / count[0]"""
        return Kernel(body, (("x", (n,), f32), ("total", (n,), f32), ("count", (1,), f32), ("y", (n,), f32)))

    def stream(self, step: Any, x: str) -> str:
        return step.emit(self, x)  # type: ignore[no-any-return]

    def integer(self, b: Builder, node: Node) -> None:
        """Means of accumulators, spikes or activations: what is added is not rounded first."""
        if node.type.time_axis != len(node.type.shape) - 2:
            raise Refusal("its time axis is not the last but one")
        x, target = b.summand(node.inputs[0]), b.plan.int8[node.output]
        window, divisor, limit = self.window, self.divisor, limit_of(x, self.divisor)
        frames = window + 1 if window else max(MEAN_FRAMES, divisor)
        multiplier, shift = mean_ratio(x, target, node.type.shape[-1], frames, limit)
        names = (b.const(f"{node.output}_multiplier", multiplier), b.const(f"{node.output}_shift", shift))
        op = QRunningMean(window, target.scale, target.zero, x.zero, divisor, limit)
        b.emit(op, (x.tensor, *names), node.outputs)
        b.hold(node.output, node.output, target)
