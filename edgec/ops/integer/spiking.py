"""Integer ops of spiking networks: spikes as integers, the running mean and the leaky integrate-and-fire neuron.

References are exact, on int64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops.base import Kernel, Op, Site, ctype, need, with_frames
from edgec.ops.integer.requantize import element, rows_of


@dataclass(frozen=True)
class QUnpack(Op):
    """Spikes as integers: y = high where x [..., C] spikes, low elsewhere."""

    name: ClassVar[str] = "qunpack"
    axes: ClassVar[Any] = "...->..."
    examples: ClassVar[tuple[str, ...]] = ("bit[2,3,4] {low=-3,high=5}",)
    dtype: str = "int8"
    scale: float = 1.0
    zero_point: int = 0
    low: int = 0
    high: int = 1

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        least, most = DType(self.dtype).range
        need(x.dtype is DType.BIT, f"expected spikes, found {x.dtype.value}")
        need(all(least <= v <= most for v in (self.low, self.high)), f"{self.low}, {self.high} are no {self.dtype}")
        return (replace(x, dtype=DType(self.dtype), quant=QuantParams((self.scale,), self.zero_point)),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.low + tensors[0] * (self.high - self.low)

    def lower(self, site: Site) -> Kernel:
        (x,), channels = site.inputs, site.inputs[0].shape[-1]
        rows, words = rows_of(x)
        value = f"{self.low} + {element(x, 'r', 'c')} * {self.high - self.low}"
        body = f"""for r in T.parallel({rows}):
    for c in T.serial({channels}):
        y[r, c] = T.cast({value}, "{self.dtype}")"""
        return Kernel(body, (("x", (rows, words), "uint32"), ("y", (rows, channels), self.dtype)))


#: what holds the difference of two values of a type
DIFFERENCE = {DType.BIT: DType.I8, DType.I8: DType.I16, DType.I16: DType.I32, DType.I32: DType.I32}


@dataclass(frozen=True)
class QRunningMean(Op):
    """Mean of integers over all frames so far, or over the last `window`, requantised to int8.

    x [B,T,C] spikes, int8, int16 or int32; multiplier, shift int32 [C] (shift >= 9). With total (of x - x_zero) and
    count over the frames:
    t = (total * multiplier) >> (shift - 8),
    y = clamp(zero_point + floor((t + 128 * count) / (256 * count)), -128, 127).
    Without a window, total and count halve (floor) when count reaches 2**16: neither overflows on an endless stream.
    With a `divisor` (see RunningMean) that is the count, and the total stays within -limit .. limit.
    """

    name: ClassVar[str] = "qrunning_mean"
    is_readout: ClassVar[bool] = True
    axes: ClassVar[Any] = "...(t)c,c,c->...tc"
    examples: ClassVar[tuple[str, ...]] = (
        "int8[1,5,3] t1, int32[3], int32[3]",
        "bit[1,5,3] t1, int32[3], int32[3] {window=2}",
    )
    window: int = 0
    scale: float = 1.0
    zero_point: int = 0
    x_zero: int = 0
    divisor: int = 0
    limit: int = 0

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, multiplier, _ = types
        fits = x.dtype in DIFFERENCE and x.time_axis == len(x.shape) - 2
        need(fits, "expected spikes, int8, int16 or int32 with time on the last but one axis")
        need(multiplier.shape == (x.shape[-1],), f"multiplier {multiplier.shape} does not fit {x.shape}")
        return (replace(x, dtype=DType.I8, quant=QuantParams((self.scale,), self.zero_point)),)

    def state_types(self, types: Sequence[TensorType]) -> tuple[tuple[TensorType, float], ...]:
        x = replace(with_frames(types[0], 1), dtype=DIFFERENCE[types[0].dtype], quant=None, time_axis=None)
        total, count = replace(x, dtype=DType.I64), TensorType((1,), DType.I32)
        if self.divisor:
            return ((total, 0),)
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
            state = self.update(frame - self.x_zero, state)
            t = (state[0] * multiplier) >> (shift - 8)
            count = self.divisor or state[1]
            quotient = torch.div(t + 128 * count, 256 * count, rounding_mode="floor")
            frames.append((quotient + self.zero_point).clamp(-128, 127))
        return (torch.cat(frames, -2),), tuple(state)

    def update(self, frame: torch.Tensor, state: list[torch.Tensor]) -> list[torch.Tensor]:
        """Total (and count, and ring and its position) after one more frame."""
        if self.divisor:
            return [(state[0] + frame).clamp(-self.limit, self.limit)]
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
        value = element(x, "0", "c") + (f" - {self.x_zero}" if self.x_zero else "")
        before, now, after = self._updates(value, DIFFERENCE[x.dtype].value)
        count = str(self.divisor) if self.divisor else "count[0]"
        body = f"""{before}
frames: T.let[T.int64] = T.cast({count}, "int64")
for c in T.parallel({n}):
{now}
    t: T.let[T.int64] = T.shift_right(total[c] * T.cast(multiplier[c], "int64"), T.cast(shift[c] - 8, "int64"))
    eighth: T.let[T.int64] = T.shift_right(t + T.int64(128) * frames, T.int64(8))
    bounded: T.let[T.int64] = T.max(T.min(eighth, T.int64(256) * frames), T.int64(-256) * frames)
    quotient: T.let[T.int32] = T.truncdiv(T.cast(bounded + T.int64(256) * frames, "int32"), {count}) - 256
    y[c] = T.cast(T.max(T.min(quotient + {self.zero_point}, 127), -128), "int8")
{after}"""
        params: list[tuple[str, tuple[int, ...], str]] = [
            ("x", (1, x.storage_shape[-1]), ctype(x.dtype)), *((k, (n,), "int32") for k in ("multiplier", "shift")),
        ]  # fmt: skip
        params += [("total", (n,), "int64"), ("count", (1,), "int32")][: 1 if self.divisor else 2]
        if self.window:
            params += [("ring", (self.window, n), DIFFERENCE[x.dtype].value), ("position", (1,), "int32")]
        return Kernel(body.strip(), (*params, ("y", (n,), "int8")))

    def _updates(self, value: str, kind: str) -> tuple[str, str, str]:
        """Statements before the loop over the channels, at its start and after it, that add `value`, held as `kind`."""
        if self.window:
            before = f"count[0] = T.min(count[0] + 1, {self.window})\nat: T.let[T.int32] = position[0]"
            now = f"""    total[c] = total[c] + T.cast({value}, "int64") - T.cast(ring[at, c], "int64")
    ring[at, c] = T.cast({value}, "{kind}")"""
            return before, now, f"position[0] = T.if_then_else(at + 1 == {self.window}, 0, at + 1)"
        if self.divisor:
            total = f'total[c] + T.cast({value}, "int64")'
            return "", f"    total[c] = T.max(T.min({total}, T.int64({self.limit})), T.int64({-self.limit}))", ""
        before = """halve: T.let[T.int32] = T.if_then_else(count[0] >= 65535, 1, 0)
count[0] = T.shift_right(count[0] + 1, halve)"""
        now = f'    total[c] = T.shift_right(total[c] + T.cast({value}, "int64"), T.cast(halve, "int64"))'
        return before, now, ""

    def stream(self, step: Any, x: str, multiplier: str, shift: str) -> str:
        return step.emit(self, x, multiplier, shift)  # type: ignore[no-any-return]


def channel_of(period: int, channels: int) -> str:
    """TVMScript for where the parameters of channel c lie."""
    return "c" if period == channels else "0" if period == 1 else f"c % {period}"


class IntegerNeuron(Op):
    """What the integer neurons share: X = x * gain[c] + bias[c], a leak, a threshold and the resets of `Lif`, to 0.

    x [B,T,C] int8, int16 or int32, and `vectors`, int32 [P]: P divides C, and channel c has element c % P. Output:
    packed spikes, and the int32 membrane when `membrane` is set.
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

    def leaked(self, change: str, channel: str) -> str:
        """TVMScript for change * decay >> 15; `channel` indexes the vectors."""
        raise NotImplementedError

    def held(self, value: str) -> list[str]:
        """TVMScript that binds `h`, the membrane that is compared."""
        raise NotImplementedError

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, *vectors = types
        need(x.dtype in (DType.I8, DType.I16, DType.I32), f"expected integers, found {x.dtype.value}")
        need(x.time_axis is not None and x.time_axis == len(x.shape) - 2, "expected a time axis before the channels")
        for label, t in zip(self.vectors, vectors, strict=True):
            fits = len(t.shape) == 1 and x.shape[-1] % t.size == 0
            need(fits, f"expected {label} of shape ({x.shape[-1]},) or a divisor of it, found {t.shape}")
            need(t.shape == vectors[0].shape, f"{label} is not as long as {self.vectors[0]}")
        spikes = TensorType(x.shape, DType.BIT, QuantParams((1.0,)), x.time_axis)
        return (spikes, TensorType(x.shape, DType.I32, None, x.time_axis)) if self.membrane else (spikes,)

    def axes(self, types: Sequence[TensorType]) -> str:
        own = types[1].size in (1, types[0].shape[-1])  # else a channel's parameters are those of c % P
        x, vector = ("c", ",c") if own else ("(c)", ",p")
        return f"...(t){x}{vector * len(self.vectors)}->...tc" + ",...tc" * self.membrane

    def state_types(self, types: Sequence[TensorType]) -> tuple[tuple[TensorType, float], ...]:
        return ((replace(with_frames(types[0], 1), dtype=DType.I32, quant=None, time_axis=None), 0),)

    def run(
        self, tensors: Sequence[torch.Tensor], states: Sequence[torch.Tensor] = ()
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        x, gain, bias, *vectors = [tensors[0], *(v.repeat(tensors[0].shape[-1] // len(v)) for v in tensors[1:])]
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
        period = site.inputs[1].size
        inner = "\n".join(f"            {line}" for line in self._step_lines(channel_of(period, channels)))
        extent = "32" if channels % 32 == 0 else f"T.min(32, {channels} - word * 32)"
        body = f"""for word in T.parallel({words}):
    for r in T.serial({rows}):
        spikes[r, word] = T.uint32(0)
        for bit in T.serial({extent}):
            c: T.let[T.int32] = word * 32 + bit
{inner}"""
        vector, frame = ((period,), "int32"), ((rows, channels), "int32")
        params = [("x", (rows, channels), x.dtype.value), *((name, *vector) for name in self.vectors)]
        params += [("v", *frame), ("spikes", (rows, words), "uint32")]
        return Kernel(body, (*params, ("membrane", *frame)) if self.membrane else tuple(params))

    def _step_lines(self, k: str) -> list[str]:
        """TVMScript for neuron c of one frame, whose parameters are at `k`; the same steps as `after`."""
        compare, old = ">" if self.strict else ">=", "v[r, c]"
        lines = [f'drive: T.let[T.int32] = T.cast(x[r, c], "int32") * gain[{k}] + bias[{k}]']
        if self.delayed_reset and self.reset != "none":
            lines.append(f"fired: T.let[T.bool] = v[r, c] {compare} threshold[{k}]")
        if self.delayed_reset and self.reset == "hard":
            lines.append("old: T.let[T.int32] = T.if_then_else(fired, 0, v[r, c])")
            old = "old"
        change, base = (f"(drive - {old})", old) if self.decay_input else (old, f"{old} + drive")
        value = f"{base} {'+' if self.decay_input else '-'} {self.leaked(change, k)}"
        if self.delayed_reset and self.reset == "subtract":
            value += f" - T.if_then_else(fired, threshold[{k}], 0)"
        lines += [*self.held(value), f"spike: T.let[T.bool] = h {compare} threshold[{k}]"]
        lines.append('spikes[r, word] = spikes[r, word] | T.shift_left(T.cast(spike, "uint32"), T.cast(bit, "uint32"))')
        kept = "h"
        if not self.delayed_reset and self.reset != "none":
            kept = f"T.if_then_else(spike, {'0' if self.reset == 'hard' else f'h - threshold[{k}]'}, h)"
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
    examples: ClassVar[tuple[str, ...]] = (
        "int8[1,4,3] t1, int32[3], int32[3], int32[3]",
        "int16[1,4,4] t1, int32[2], int32[2], int32[2] {membrane=True}",
        "int8[1,4,4] t1, int32[1], int32[1], int32[1]",
    )
    decay: int = 1 << 14
    decay_input: bool = True
    reset: str = "hard"
    strict: bool = False
    delayed_reset: bool = False
    membrane: bool = False

    def step(self, x: torch.Tensor, v: torch.Tensor, *vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (threshold,) = vectors
        return self.after(x, v, threshold, self.decay)

    def leaked(self, change: str, channel: str) -> str:
        if self.decay == 1 << 14:
            return f"T.shift_right({change}, 1)"
        product = f'T.cast({change}, "int64") * T.int64({self.decay})'
        return f'T.cast(T.shift_right({product}, T.int64(15)), "int32")'

    def held(self, value: str) -> list[str]:
        return [f"h: T.let[T.int32] = {value}"]
