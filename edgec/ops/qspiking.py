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


class IntegerNeuron(Op):
    """What the integer neurons share: X = x * gain[c] + bias[c], a leak, a threshold and the resets of `Lif`, to 0.

    x [B,T,C] int8, int16 or int32, and `vectors`, int32 [C]. Output: packed spikes, and the int32 membrane when
    `membrane` is set.
    """

    vectors: ClassVar[tuple[str, ...]] = ("gain", "bias", "threshold")
    # fields of the subclasses
    decay_input: bool
    reset: str
    strict: bool
    delayed_reset: bool
    membrane: bool

    def step(self, x: torch.Tensor, v: torch.Tensor, *vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One frame: spikes (0 or 1) and the new membrane. x: X of the frame; vectors: from the threshold on."""
        raise NotImplementedError

    def leaked(self, change: str) -> str:
        """TVMScript for change * decay >> 15."""
        raise NotImplementedError

    def held(self, value: str) -> list[str]:
        """TVMScript that binds `h`, the membrane that is compared."""
        raise NotImplementedError

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, *vectors = types
        need(x.dtype in (DType.I8, DType.I16, DType.I32), f"expected integers, found {x.dtype.value}")
        need(x.time_axis is not None and x.time_axis == len(x.shape) - 2, "expected a time axis before the channels")
        for label, t in zip(self.vectors, vectors, strict=True):
            need(t.shape == (x.shape[-1],), f"expected {label} of shape ({x.shape[-1]},), found {t.shape}")
        spikes = TensorType(x.shape, DType.BIT, QuantParams((1.0,)), x.time_axis)
        return (spikes, TensorType(x.shape, DType.I32, None, x.time_axis)) if self.membrane else (spikes,)

    def state_types(self, types: Sequence[TensorType]) -> tuple[tuple[TensorType, float], ...]:
        return ((replace(with_frames(types[0], 1), dtype=DType.I32, quant=None, time_axis=None), 0),)

    def run(
        self, tensors: Sequence[torch.Tensor], states: Sequence[torch.Tensor] = ()
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        x, gain, bias, *vectors = tensors
        drive = x * gain + bias
        v = states[0] if states else torch.zeros_like(drive.narrow(-2, 0, 1))
        spikes, membranes = [], []
        for frame in drive.chunk(drive.shape[-2], -2):
            s, v = self.step(frame, v, *vectors)
            spikes.append(s)
            membranes.append(v)
        outs = (torch.cat(spikes, -2), torch.cat(membranes, -2))
        return outs if self.membrane else outs[:1], (v,)

    def after(
        self, x: torch.Tensor, v: torch.Tensor, threshold: torch.Tensor, decay: int | torch.Tensor,
        limit: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """One frame with a given decay: spikes, and the membrane (within +-limit)."""

        def fires(h: torch.Tensor) -> torch.Tensor:
            return (h > threshold if self.strict else h >= threshold).to(torch.int64)

        fired = fires(v) if self.delayed_reset else torch.zeros_like(v)
        if self.reset == "hard":
            v = v * (1 - fired)
        h = v + ((x - v) * decay >> 15) if self.decay_input else v - (v * decay >> 15) + x
        if self.reset == "subtract":
            h = h - threshold * fired
        if limit is not None:
            h = h.clamp(-limit, limit)
        s = fires(h)
        if self.delayed_reset or self.reset == "none":
            return s, h
        return s, h * (1 - s) if self.reset == "hard" else h - threshold * s

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
        params = [("x", (rows, channels), x.dtype.value), *((name, *vector) for name in self.vectors)]
        params += [("v", *frame), ("spikes", (rows, words), "uint32")]
        return Kernel(body, (*params, ("membrane", *frame)) if self.membrane else tuple(params))

    def _step_lines(self) -> list[str]:
        """TVMScript for one neuron of one frame; the same steps as `after`."""
        compare, old = ">" if self.strict else ">=", "v[r, c]"
        lines = ['drive: T.let[T.int32] = T.cast(x[r, c], "int32") * gain[c] + bias[c]']
        if self.delayed_reset and self.reset != "none":
            lines.append(f"fired: T.let[T.bool] = v[r, c] {compare} threshold[c]")
        if self.delayed_reset and self.reset == "hard":
            lines.append("old: T.let[T.int32] = T.if_then_else(fired, 0, v[r, c])")
            old = "old"
        change, base = (f"(drive - {old})", old) if self.decay_input else (old, f"{old} + drive")
        value = f"{base} {'+' if self.decay_input else '-'} {self.leaked(change)}"
        if self.delayed_reset and self.reset == "subtract":
            value += " - T.if_then_else(fired, threshold[c], 0)"
        lines += [*self.held(value), f"spike: T.let[T.bool] = h {compare} threshold[c]"]
        lines.append('spikes[r, word] = spikes[r, word] | T.shift_left(T.cast(spike, "uint32"), T.cast(bit, "uint32"))')
        kept = "h"
        if not self.delayed_reset and self.reset != "none":
            kept = f"T.if_then_else(spike, {'0' if self.reset == 'hard' else 'h - threshold[c]'}, h)"
        return [*lines, f"v[r, c] = {kept}", *(["membrane[r, c] = v[r, c]"] if self.membrane else [])]

    def stream(self, step: Any, x: str, *vectors: str) -> Any:
        return step.emit(self, x, *vectors)


@dataclass(frozen=True)
class QLif(IntegerNeuron):
    """Integer leaky integrate-and-fire of X = x * gain[c] + bias[c], with one decay, (1 - beta) * 2**15, for all c.

    H = V + ((X - V) * decay >> 15) when decay_input, else H = V - (V * decay >> 15) + X (shifts floor). A spike is
    H > threshold[c] if strict, else >=. The pass that makes one proves that X, V and X - V fit int32.
    """

    name: ClassVar[str] = "qlif"
    decay: int = 1 << 14
    decay_input: bool = True
    reset: str = "hard"
    strict: bool = False
    delayed_reset: bool = False
    membrane: bool = False

    def step(self, x: torch.Tensor, v: torch.Tensor, *vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (threshold,) = vectors
        return self.after(x, v, threshold, self.decay)

    def leaked(self, change: str) -> str:
        if self.decay == 1 << 14:
            return f"T.shift_right({change}, 1)"
        product = f'T.cast({change}, "int64") * T.int64({self.decay})'
        return f'T.cast(T.shift_right({product}, T.int64(15)), "int32")'

    def held(self, value: str) -> list[str]:
        return [f"h: T.let[T.int32] = {value}"]
