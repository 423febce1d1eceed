"""Integer ops with state: the running mean and the leaky integrate-and-fire neuron. References are exact, on int64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops.base import Kernel, Op, Site, need
from edgec.ops.timeline import with_frames


@dataclass(frozen=True)
class QRunningMean(Op):
    """Mean of int32 accumulators over all frames so far, or over the last `window`, requantised to int8.

    x [B,T,C] int32; multiplier, shift int32 [C] (shift >= 9). With total and count over the frames:
    t = (total * multiplier) >> (shift - 8),
    y = clamp(zero_point + floor((t + 128 * count) / (256 * count)), -128, 127).
    Without a window, total and count halve (floor) when count reaches 2**16: neither overflows on an endless stream.
    """

    name: ClassVar[str] = "qrunning_mean"
    window: int = 0
    scale: float = 1.0
    zero_point: int = 0

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, multiplier, _ = types
        fits = x.dtype is DType.I32 and x.time_axis == len(x.shape) - 2
        need(fits, "expected int32 with time on the last but one axis")
        need(multiplier.shape == (x.shape[-1],), f"multiplier {multiplier.shape} does not fit {x.shape}")
        return (replace(x, dtype=DType.I8, quant=QuantParams((self.scale,), self.zero_point)),)

    def state_types(self, types: Sequence[TensorType]) -> tuple[tuple[TensorType, float], ...]:
        x = replace(with_frames(types[0], 1), quant=None, time_axis=None)
        total, count = replace(x, dtype=DType.I64), TensorType((1,), DType.I32)
        if not self.window:
            return (total, 0), (count, 0)
        ring = replace(x, shape=(*x.shape[:-2], self.window, x.shape[-1]))
        return (total, 0), (count, 0), (ring, 0), (TensorType((1,), DType.I32), 0)

    def run(
        self, tensors: Sequence[torch.Tensor], states: Sequence[torch.Tensor] = ()
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        x, multiplier, shift = tensors
        types = [TensorType(tuple(t.shape), DType.I32, None, t.ndim - 2) for t in tensors]
        state = list(states) or [torch.zeros(t.shape, dtype=torch.int64) for t, _ in self.state_types(types)]
        frames = []
        for frame in x.chunk(x.shape[-2], -2):
            state = self.update(frame, state)
            t = (state[0] * multiplier) >> (shift - 8)
            count = state[1]
            quotient = torch.div(t + 128 * count, 256 * count, rounding_mode="floor")
            frames.append((quotient + self.zero_point).clamp(-128, 127))
        return (torch.cat(frames, -2),), tuple(state)

    def update(self, frame: torch.Tensor, state: list[torch.Tensor]) -> list[torch.Tensor]:
        """Total and count (and ring and its position) after one more frame."""
        total, count = state[0] + frame, state[1] + 1
        if not self.window:
            full = bool(count >= 1 << 16)
            return [total >> 1, count >> 1] if full else [total, count]
        ring, at = state[2].clone(), int(state[3])
        total, count = total - ring[..., at : at + 1, :], count.clamp(max=self.window)
        ring[..., at : at + 1, :] = frame
        return [total, count, ring, torch.tensor([(at + 1) % self.window])]

    def lower(self, site: Site) -> Kernel:
        """The quotient needs no 64-bit division: floors nest, and beyond 256 counts it is clamped in the end anyway."""
        x = site.inputs[0]
        n, channels = x.size, x.shape[-1]
        one = site.states != () and x.frames == 1 and n == channels
        need(one, "a running mean is lowered one frame of one sequence at a time")
        before, now, after = self._updates()
        body = f"""{before}
frames: T.let[T.int64] = T.cast(count[0], "int64")
for c in T.parallel({n}):
{now}
    t: T.let[T.int64] = T.shift_right(total[c] * T.cast(multiplier[c], "int64"), T.cast(shift[c] - 8, "int64"))
    eighth: T.let[T.int64] = T.shift_right(t + T.int64(128) * frames, T.int64(8))
    bounded: T.let[T.int64] = T.max(T.min(eighth, T.int64(256) * frames), T.int64(-256) * frames)
    quotient: T.let[T.int32] = T.truncdiv(T.cast(bounded + T.int64(256) * frames, "int32"), count[0]) - 256
    y[c] = T.cast(T.max(T.min(quotient + {self.zero_point}, 127), -128), "int8")
{after}"""
        params: list[tuple[str, tuple[int, ...], str]] = [
            (name, (n,), "int32") for name in ("x", "multiplier", "shift")
        ]
        params += [("total", (n,), "int64"), ("count", (1,), "int32")]
        if self.window:
            params += [("ring", (self.window, n), "int32"), ("position", (1,), "int32")]
        return Kernel(body.strip(), (*params, ("y", (n,), "int8")))

    def _updates(self) -> tuple[str, str, str]:
        """Statements before the loop over the channels, at its start and after it."""
        if self.window:
            before = f"count[0] = T.min(count[0] + 1, {self.window})\nat: T.let[T.int32] = position[0]"
            now = """    total[c] = total[c] + T.cast(x[c], "int64") - T.cast(ring[at, c], "int64")
    ring[at, c] = x[c]"""
            return before, now, f"position[0] = T.if_then_else(at + 1 == {self.window}, 0, at + 1)"
        before = """halve: T.let[T.int32] = T.if_then_else(count[0] >= 65535, 1, 0)
count[0] = T.shift_right(count[0] + 1, halve)"""
        return before, '    total[c] = T.shift_right(total[c] + T.cast(x[c], "int64"), T.cast(halve, "int64"))', ""

    def stream(self, step: Any, x: str, multiplier: str, shift: str) -> str:
        return step.emit(self, x, multiplier, shift)  # type: ignore[no-any-return]


def neuron_step(
    op: Any,
    x: torch.Tensor,
    v: torch.Tensor,
    threshold: torch.Tensor,
    decay: int | torch.Tensor,
    limit: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One frame of an integer neuron with the attributes of `op`: spikes, and the membrane (within +-limit)."""

    def fires(h: torch.Tensor) -> torch.Tensor:
        return (h > threshold if op.strict else h >= threshold).to(torch.int64)

    fired = fires(v) if op.delayed_reset else torch.zeros_like(v)
    if op.reset == "hard":
        v = v * (1 - fired)
    h = v + ((x - v) * decay >> 15) if op.decay_input else v - (v * decay >> 15) + x
    if op.reset == "subtract":
        h = h - threshold * fired
    if limit is not None:
        h = h.clamp(-limit, limit)
    s = fires(h)
    if op.delayed_reset or op.reset == "none":
        return s, h
    return s, h * (1 - s) if op.reset == "hard" else h - threshold * s


@dataclass(frozen=True)
class QLif(Op):
    """Integer leaky integrate-and-fire: X = x * gain[c] + bias[c]; H = V + ((X - V) * decay >> 15) when decay_input,
    else H = V - (V * decay >> 15) + X (shifts floor). A spike is H > threshold[c] if strict, else >=. Resets as `Lif`,
    to 0.

    x [B,T,C] int8, int16 or int32; gain, bias, threshold int32 [C]; decay is (1 - beta) * 2**15. The pass that makes
    one proves that X, V and X - V fit int32. Output: packed spikes, and the int32 membrane when `membrane` is set.
    """

    name: ClassVar[str] = "qlif"
    decay: int = 1 << 14
    decay_input: bool = True
    reset: str = "hard"
    strict: bool = False
    delayed_reset: bool = False
    membrane: bool = False

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, gain, bias, threshold = types
        need(x.dtype in (DType.I8, DType.I16, DType.I32), f"expected integers, found {x.dtype.value}")
        need(x.time_axis is not None and x.time_axis != len(x.shape) - 1, "expected a time axis before the channels")
        for label, t in (("gain", gain), ("bias", bias), ("threshold", threshold)):
            need(t.shape == (x.shape[-1],), f"expected {label} of shape ({x.shape[-1]},), found {t.shape}")
        spikes = TensorType(x.shape, DType.BIT, QuantParams((1.0,)), x.time_axis)
        return (spikes, TensorType(x.shape, DType.I32, None, x.time_axis)) if self.membrane else (spikes,)

    def state_types(self, types: Sequence[TensorType]) -> tuple[tuple[TensorType, float], ...]:
        return ((replace(with_frames(types[0], 1), dtype=DType.I32, quant=None, time_axis=None), 0),)

    def run(
        self, tensors: Sequence[torch.Tensor], states: Sequence[torch.Tensor] = ()
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        x, gain, bias, threshold = tensors
        drive = x * gain + bias
        v = states[0] if states else torch.zeros_like(drive.narrow(-2, 0, 1))
        spikes, membranes = [], []
        for frame in drive.chunk(drive.shape[-2], -2):
            s, v = self.step(frame, v, threshold)
            spikes.append(s)
            membranes.append(v)
        outs = (torch.cat(spikes, -2), torch.cat(membranes, -2))
        return outs if self.membrane else outs[:1], (v,)

    def step(self, x: torch.Tensor, v: torch.Tensor, threshold: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One frame: spikes (0 or 1) and the new membrane."""
        return neuron_step(self, x, v, threshold, self.decay)

    def lower(self, site: Site) -> Kernel:
        x = site.inputs[0]
        channels = x.shape[-1]
        rows, words = x.size // channels, -(-channels // 32)
        need(site.states != () and x.frames == 1, "a neuron is lowered one frame at a time")
        inner = "\n".join(f"            {line}" for line in self._step_lines())
        extent = "32" if channels % 32 == 0 else f"T.min(32, {channels} - word * 32)"
        body = f"""for word in T.parallel({words}):
    for r in T.serial({rows}):
        spikes[r, word] = T.uint32(0)
        for bit in T.serial({extent}):
            c: T.let[T.int32] = word * 32 + bit
{inner}"""
        vector, frame = ((channels,), "int32"), ((rows, channels), "int32")
        params = [("x", (rows, channels), x.dtype.value), ("gain", *vector), ("bias", *vector), ("threshold", *vector)]
        params += [("v", *frame), ("spikes", (rows, words), "uint32")]
        return Kernel(body, (*params, ("membrane", *frame)) if self.membrane else tuple(params))

    def _step_lines(self) -> list[str]:
        """TVMScript for one neuron of one frame; the same steps as `step`."""
        compare = ">" if self.strict else ">="
        old = "v[r, c]"
        lines = ['drive: T.let[T.int32] = T.cast(x[r, c], "int32") * gain[c] + bias[c]']
        if self.delayed_reset and self.reset != "none":
            lines.append(f"fired: T.let[T.bool] = v[r, c] {compare} threshold[c]")
        if self.delayed_reset and self.reset == "hard":
            lines.append("old: T.let[T.int32] = T.if_then_else(fired, 0, v[r, c])")
            old = "old"
        change, base = (f"(drive - {old})", old) if self.decay_input else (old, f"{old} + drive")
        if self.decay == 1 << 14:
            scaled = f"T.shift_right({change}, 1)"
        else:
            product = f'T.cast({change}, "int64") * T.int64({self.decay})'
            scaled = f'T.cast(T.shift_right({product}, T.int64(15)), "int32")'
        value = f"{base} {'+' if self.decay_input else '-'} {scaled}"
        if self.delayed_reset and self.reset == "subtract":
            value += " - T.if_then_else(fired, threshold[c], 0)"
        lines += [f"h: T.let[T.int32] = {value}", f"spike: T.let[T.bool] = h {compare} threshold[c]"]
        lines.append('spikes[r, word] = spikes[r, word] | T.shift_left(T.cast(spike, "uint32"), T.cast(bit, "uint32"))')
        if self.delayed_reset or self.reset == "none":
            kept = "h"
        else:
            kept = f"T.if_then_else(spike, {'0' if self.reset == 'hard' else 'h - threshold[c]'}, h)"
        lines.append(f"v[r, c] = {kept}")
        return lines + (["membrane[r, c] = v[r, c]"] if self.membrane else [])

    def stream(self, step: Any, x: str, gain: str, bias: str, threshold: str) -> Any:
        return step.emit(self, x, gain, bias, threshold)
