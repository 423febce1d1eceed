"""Spiking neurons. One op covers spikingjelly's, snnTorch's and NIR's leaky integrate-and-fire by its attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from edgec.ir.graph import Node
from edgec.ir.types import DType, TensorType
from edgec.ops.base import Array, Kernel, Op, Reads, Site, need
from edgec.ops.integer.build import EVERYTHING, Builder, Source
from edgec.ops.integer.neuron import QLifSaturating, integer_neuron, period_of
from edgec.ops.integer.numbers import INT32_MAX, Refusal, Scale

RESETS = ("hard", "subtract", "none")


def frames_of(x: torch.Tensor, axis: int) -> tuple[torch.Tensor, ...]:
    """The frames of a sequence, in order, each keeping its time axis."""
    return x.chunk(x.shape[axis], axis)


@dataclass(frozen=True)
class Lif(Op):
    """Leaky integrate-and-fire over the time axis of x; channels are the last axis.

    x [B,T,C]; beta and threshold [1] or [C] -> spikes [B,T,C] of 0.0/1.0, and the membrane when `membrane` is set.
    decay_input: H = V + (X - V) * (1 - beta); otherwise H = beta * V + X. A spike is H > threshold if strict else
    H >= threshold. Reset hard: V = v_reset at a spike; subtract: V = H - threshold * S; none: V = H. delayed_reset
    applies the reset at the next frame, from the old membrane (snnTorch). See docs/neurons.md.
    """

    name: ClassVar[str] = "lif"
    reads: ClassVar[Reads] = Reads.FINE
    spikes: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,5,3] t1, float32[3], float32[1]",
        "float32[2,5,3] t1, float32[1], float32[3] {membrane=True,reset='subtract',delayed_reset=True}",
    )
    decay_input: bool = True
    reset: str = "hard"
    v_reset: float = 0.0
    strict: bool = False
    delayed_reset: bool = False
    membrane: bool = False

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, beta, threshold = types
        need(self.reset in RESETS, f"expected reset one of {RESETS}, found {self.reset!r}")
        need(x.time_axis is not None, "the neuron's input has no time axis")
        need(x.time_axis == len(x.shape) - 2, "the neuron's time axis must be the last but one, before the channels")
        for label, t in (("beta", beta), ("threshold", threshold)):
            need(
                t.shape in ((1,), (x.shape[-1],)),
                f"expected {label} of shape (1,) or ({x.shape[-1]},), found {t.shape}",
            )
        return (x, x) if self.membrane else (x,)

    def axes(self, types: Sequence[TensorType]) -> str:
        return "...(t)c,c,c->...tc" + ",...tc" * self.membrane

    def state_types(self, types: Sequence[TensorType]) -> tuple[tuple[TensorType, float], ...]:
        x = types[0]
        start = self.v_reset if self.reset == "hard" and not self.delayed_reset else 0.0
        return (
            (
                replace(x, shape=tuple(1 if k == x.time_axis else n for k, n in enumerate(x.shape)), time_axis=None),
                start,
            ),
        )

    def run(
        self, tensors: Sequence[torch.Tensor], states: Sequence[torch.Tensor] = ()
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        x, beta, threshold = tensors
        axis = x.ndim - 2
        v = states[0] if states else torch.full_like(x.narrow(axis, 0, 1), self.state_start())
        spikes, membranes = [], []
        for frame in frames_of(x, axis):
            s, v = self.step(frame, v, beta, threshold)
            spikes.append(s)
            membranes.append(v)
        outs = (torch.cat(spikes, axis), torch.cat(membranes, axis))
        return outs if self.membrane else outs[:1], (v,)

    def state_start(self) -> float:
        return self.v_reset if self.reset == "hard" and not self.delayed_reset else 0.0

    def step(
        self, x: torch.Tensor, v: torch.Tensor, beta: torch.Tensor, threshold: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One frame: spikes and the new state."""
        fired = (v > threshold if self.strict else v >= threshold) if self.delayed_reset else None
        if fired is not None and self.reset == "hard":
            v = torch.where(fired, torch.full_like(v, self.v_reset), v)
        h = v + (x - v) * (1 - beta) if self.decay_input else beta * v + x
        if fired is not None:
            if self.reset == "subtract":
                h = h - threshold * fired
            return (h > threshold if self.strict else h >= threshold).to(x.dtype), h
        s = h > threshold if self.strict else h >= threshold
        if self.reset == "hard":
            h = torch.where(s, torch.full_like(h, self.v_reset), h)
        elif self.reset == "subtract":
            h = h - threshold * s
        return s.to(x.dtype), h

    def lower(self, site: Site) -> Kernel:
        x, beta, threshold = site.inputs
        c, rows = x.shape[-1], x.size // x.shape[-1]
        need(site.states != () and rows == 1, "a neuron is lowered one frame at a time: make the graph streaming first")
        b, th = ("beta[0]" if beta.size == 1 else "beta[i]"), ("th[0]" if threshold.size == 1 else "th[i]")
        above = ">" if self.strict else ">="
        lines = [f"for i in T.parallel({c}):"]
        old = "v[i]"
        if self.delayed_reset and self.reset == "hard":
            old = f"T.if_then_else(v[i] {above} {th}, T.float32({self.v_reset!r}), v[i])"
        decay = f"{old} + (x[i] - {old}) * (T.float32(1) - {b})" if self.decay_input else f"{b} * {old} + x[i]"
        if self.delayed_reset and self.reset == "subtract":
            decay = f"{decay} - T.if_then_else(v[i] {above} {th}, {th}, T.float32(0))"
        lines += [f"    v[i] = {decay}", f"    s[i] = T.if_then_else(v[i] {above} {th}, T.float32(1), T.float32(0))"]
        if not self.delayed_reset and self.reset != "none":
            new = f"T.float32({self.v_reset!r})" if self.reset == "hard" else f"v[i] - {th}"
            lines.append(f"    v[i] = T.if_then_else(s[i] > T.float32(0), {new}, v[i])")
        if self.membrane:
            lines.append("    m[i] = v[i]")
        f32 = "float32"
        params = [
            ("x", (c,), f32),
            ("beta", beta.shape, f32),
            ("th", threshold.shape, f32),
            ("v", (c,), f32),
            ("s", (c,), f32),
        ]
        return Kernel("\n".join(lines), tuple(params + [("m", (c,), f32)] * self.membrane))

    def stream(self, step: Any, x: str, beta: str, threshold: str) -> Any:
        return step.emit(self, x, beta, threshold)

    def integer(self, b: Builder, node: Node) -> None:
        """A layer of neurons on whatever integers its input is."""
        source = drive(b, node.inputs[0])
        channels = b.types[source.tensor].shape[-1]
        beta, threshold = vector(b, node.inputs[1], "decay", channels), vector(b, node.inputs[2], "threshold", channels)
        if self.reset == "subtract" and (threshold <= 0).any():
            raise Refusal("its threshold is not positive, so subtracting it does not bound the membrane")
        shift = np.broadcast_to(source.shift - source.scale * source.zero, (channels,))
        shift, threshold = shifted(self, beta, shift, threshold)
        top = np.maximum(np.abs(source.lo), np.abs(source.hi)).astype(np.float64)
        decay = np.floor((1.0 - beta) * 2.0**15 + 0.5).astype(np.int32)
        modes = self.decay_input, self.reset, self.strict, self.delayed_reset, self.membrane
        quantized, units = integer_neuron(decay, modes, (source.scale, shift, threshold, top))
        vectors = {k: getattr(units, k) for k in ("gain", "bias", "threshold")}
        if isinstance(quantized, QLifSaturating):
            vectors["decay"] = decay
        period = period_of(np.stack(list(vectors.values())))
        names = [b.const(f"{node.outputs[0]}_{k}", v[:period]) for k, v in vectors.items()]
        b.emit(quantized, (source.tensor, *names), node.outputs, source.via)
        b.hold(node.outputs[0], node.outputs[0], Scale(1.0))
        if self.membrane:
            back = self.v_reset if self.reset == "hard" else 0.0
            wide = np.full(channels, INT32_MAX, np.int64)
            name = node.outputs[1]
            b.sources[name] = Source(name, name, units.unit, -wide, wide, shift=np.full(channels, back))


def drive(b: Builder, name: str) -> Source:
    """What drives the neurons: accumulators or stored integers, any affine map folded in."""
    source = b.sources[name]
    if source.clip != EVERYTHING:
        source = b.store(name, DType.I8, b.plan.int8[name])
    return b.widened(source)


def vector(b: Builder, name: str, what: str, channels: int) -> Array:
    """A constant of the neuron, one value per channel."""
    data = b.data(name)
    if data is None:
        raise Refusal(f"its {what} is computed, not constant")
    return np.broadcast_to(data.astype(np.float64).reshape(-1), (channels,))


def shifted(op: Lif, beta: Array, shift: Array, threshold: Array) -> tuple[Array, Array]:
    """Drive and threshold in coordinates where the reset value is 0."""
    if op.reset != "hard" or op.v_reset == 0.0:
        return shift, threshold
    if op.delayed_reset:
        raise Refusal(
            f"it starts at 0 but resets to {op.v_reset}, so its membrane cannot be measured from the reset value",
            "use v_reset=0 or the reset in the same step",
        )
    return shift - op.v_reset * (1.0 if op.decay_input else 1.0 - beta), threshold - op.v_reset
