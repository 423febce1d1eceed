"""Integer ops. Requantisation has its one home here; every reference is exact, on int64 tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops.base import Cost, Op, need
from edgec.ops.conv import out_extent
from edgec.ops.shape import Reshape
from edgec.ops.timeline import HistoryToFeatures, with_frames

ROUNDINGS = ("single", "tflite")
ACTIVATIONS = (DType.I8, DType.I16, DType.BIT)


def accumulator(shape: tuple[int, ...], x: TensorType, w: TensorType) -> TensorType:
    """int32 accumulators; their scale is the product of the operands' scales where both are known."""
    need(x.dtype in ACTIVATIONS, f"expected int8, int16 or bit activations, found {x.dtype.value}")
    need(w.dtype is DType.I8, f"expected int8 weights, found {w.dtype.value}")
    quant = None
    if x.quant and w.quant:
        quant = QuantParams(tuple(x.quant.scale[0] * s for s in w.quant.scale), 0, len(shape) - 1)
    return TensorType(shape, DType.I32, quant, x.time_axis)


def exact(t: torch.Tensor) -> torch.Tensor:
    """Integers in float64, where products and sums below 2**53 are exact and fast."""
    return t.to(torch.float64)


def requantize(x: torch.Tensor, multiplier: torch.Tensor, shift: torch.Tensor, rounding: str) -> torch.Tensor:
    """x * multiplier / 2**shift, rounded. x int32 range, multiplier 0 or in [2**30, 2**31), shift in [1, 62].

    single: floor(x * multiplier / 2**shift + 1/2). tflite: the rounding doubling high multiply, then the rounding shift,
    of gemmlowp (both round half away from zero), as TFLite's reference convolutions do.
    """
    product = x * multiplier
    if rounding == "single":
        return (product + (1 << (shift - 1))) >> shift
    # the left shift of TFLite's form (shift < 31) is applied before the high multiply
    left = torch.clamp(31 - shift, min=0)
    product = (x << left) * multiplier
    nudge = torch.where(product >= 0, 1 << 30, 1 - (1 << 30))
    summed = product + nudge
    high = torch.where(summed >= 0, summed >> 31, -((-summed) >> 31))
    right = torch.clamp(shift - 31, min=0)
    mask = (1 << right) - 1
    remainder = high & mask
    limit = (mask >> 1) + (high < 0).to(torch.int64)
    return (high >> right) + (remainder > limit).to(torch.int64)


@dataclass(frozen=True)
class QLinear(Op):
    """acc[..., o] = sum_i x[..., i] w[i, o] + bias[o] in int32; the zero point of x is folded into the bias."""

    name: ClassVar[str] = "qlinear"
    framewise: ClassVar[bool] = True

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, w, bias = types
        need(len(w.shape) == 2 and x.shape[-1] == w.shape[0], f"x [..., {x.shape[-1]}] does not fit w {w.shape}")
        need(bias.shape == (w.shape[1],) and bias.dtype is DType.I32, f"expected int32 bias of shape ({w.shape[1]},)")
        return (accumulator((*x.shape[:-1], w.shape[1]), x, w),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, w, bias = tensors
        return (exact(x) @ exact(w)).to(torch.int64) + bias

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(outputs[0].size * inputs[1].shape[0])


@dataclass(frozen=True)
class QConv1d(Op):
    """Integer Conv1d: x [B,T,C], w [K,C/groups,O], bias int32 [O] -> int32 [B,T',O]; padding is `pad_value`."""

    name: ClassVar[str] = "qconv1d"
    stride: int = 1
    pad: tuple[int, int] = (0, 0)
    dilation: int = 1
    groups: int = 1
    pad_value: int = 0

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, w, bias = types
        need(len(x.shape) == 3 and len(w.shape) == 3, f"expected x [B,T,C] and w [K,C,O], found {x.shape} and {w.shape}")
        need(x.shape[2] == w.shape[1] * self.groups, f"x has {x.shape[2]} channels, w expects {w.shape[1] * self.groups}")
        need(bias.shape == (w.shape[2],) and bias.dtype is DType.I32, f"expected int32 bias of shape ({w.shape[2]},)")
        frames = out_extent(x.shape[1], w.shape[0], self.stride, self.pad, self.dilation)
        return (accumulator((x.shape[0], frames, w.shape[2]), x, w),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, w, bias = tensors
        padded = F.pad(exact(x).transpose(1, 2), self.pad, value=float(self.pad_value))
        y = F.conv1d(padded, exact(w).permute(2, 1, 0), None, self.stride, 0, self.dilation, self.groups)
        return y.transpose(1, 2).to(torch.int64) + bias

    def stream(self, step: Any, x: str, w: str, bias: str) -> str:
        span = self.dilation * (step.type_of(w).shape[0] - 1) + 1
        line = step.delay_line(x, length=span, left=self.pad[0], right=self.pad[1], stride=self.stride, fill=self.pad_value)
        return step.emit(replace(self, pad=(0, 0), stride=1), line, w, bias)  # type: ignore[no-any-return]

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        k, cg, _ = inputs[1].shape
        return Cost(outputs[0].size * k * cg)


@dataclass(frozen=True)
class QLmuFir(Op):
    """FIR form of the LMU memory on integers: u [B,T,1] int8 or bit, taps int8 [theta,order] (oldest first) -> int32."""

    name: ClassVar[str] = "qlmu_fir"

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        u, taps = types
        need(len(u.shape) == 3 and u.shape[2] == 1 and u.time_axis == 1, f"expected u [B,T,1], found {u.shape}")
        return (accumulator((*u.shape[:2], taps.shape[1]), u, taps),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        u, taps = tensors
        padded = F.pad(exact(u).transpose(1, 2), (taps.shape[0] - 1, 0))
        return F.conv1d(padded, exact(taps).T.unsqueeze(1)).transpose(1, 2).to(torch.int64)

    def stream(self, step: Any, u: str, taps: str) -> str:
        """History along the last axis, so that spikes pack 32 frames to a word, then one matrix product."""
        theta, order = step.type_of(taps).shape
        flat = step.emit(Reshape(step.type_of(u).shape[:2], 1), u)
        line = step.delay_line(flat, length=theta, left=theta - 1)
        zero = step.const("lmu_bias", np.zeros(order, np.int32))
        return step.emit(QLinear(), step.emit(HistoryToFeatures(), line), taps, zero)  # type: ignore[no-any-return]

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(outputs[0].size * inputs[1].shape[0])


@dataclass(frozen=True)
class Requantize(Op):
    """int32 accumulators to int8 or int16: clamp(zero_point + x * multiplier / 2**shift, lo, hi); a relu is a tighter lo.

    x [..., C]; multiplier and shift int32 [C] or [1] (see `requantize`).
    """

    name: ClassVar[str] = "requantize"
    framewise: ClassVar[bool] = True
    dtype: str = "int8"
    scale: float = 1.0
    zero_point: int = 0
    lo: int = -128
    hi: int = 127
    rounding: str = "single"

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, multiplier, shift = types
        need(x.dtype in (DType.I32, DType.I16, DType.I8), f"expected integers, found {x.dtype.value}")
        need(self.rounding in ROUNDINGS, f"expected rounding one of {ROUNDINGS}, found {self.rounding!r}")
        need(multiplier.shape == shift.shape and multiplier.shape in ((1,), (x.shape[-1],)), f"multiplier {multiplier.shape} and shift {shift.shape} do not fit {x.shape}")
        return (replace(x, dtype=DType(self.dtype), quant=QuantParams((self.scale,), self.zero_point)),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, multiplier, shift = tensors
        return (requantize(x, multiplier, shift, self.rounding) + self.zero_point).clamp(self.lo, self.hi)


@dataclass(frozen=True)
class QAdd(Op):
    """y = clamp(zero_point + ((a - za) * ma + (b - zb) * mb + 2**(shift-1)) / 2**shift); shift 0 adds as they are."""

    name: ClassVar[str] = "qadd"
    framewise: ClassVar[bool] = True
    dtype: str = "int16"
    scale: float = 1.0
    zero_point: int = 0
    za: int = 0
    zb: int = 0
    ma: int = 1
    mb: int = 1
    shift: int = 0
    lo: int = -32768
    hi: int = 32767

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        a, b = types
        need(a.shape == b.shape and a.time_axis == b.time_axis, f"operands differ: {a.shape}, {b.shape}")
        return (replace(a, dtype=DType(self.dtype), quant=QuantParams((self.scale,), self.zero_point)),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        total = (tensors[0] - self.za) * self.ma + (tensors[1] - self.zb) * self.mb
        if self.shift:
            total = (total + (1 << (self.shift - 1))) >> self.shift
        return (total + self.zero_point).clamp(self.lo, self.hi)


@dataclass(frozen=True)
class QLut(Op):
    """y = table[x + 128]: any function of one int8 element, table int8 [256]."""

    name: ClassVar[str] = "qlut"
    framewise: ClassVar[bool] = True
    scale: float = 1.0
    zero_point: int = 0

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, table = types
        need(x.dtype is DType.I8 and table.shape == (256,), f"expected int8 and a table of 256, found {x.dtype.value} and {table.shape}")
        return (replace(x, quant=QuantParams((self.scale,), self.zero_point)),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[1][tensors[0] + 128]


@dataclass(frozen=True)
class QRunningMean(Op):
    """Mean of int32 accumulators over all frames so far, or over the last `window`, requantised to int8.

    x [B,T,C] int32; multiplier, shift int32 [C] (shift >= 9). With total and count over the frames:
    t = (total * multiplier) >> (shift - 8); y = clamp(zero_point + floor((t + 128 * count) / (256 * count)), -128, 127).
    Without a window, total and count halve (floor) when count reaches 2**16, so that neither overflows on an endless stream.
    """

    name: ClassVar[str] = "qrunning_mean"
    window: int = 0
    scale: float = 1.0
    zero_point: int = 0

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, multiplier, _ = types
        need(x.dtype is DType.I32 and x.time_axis == len(x.shape) - 2, "expected int32 with time on the last but one axis")
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
        for frame in x.split(1, dim=-2):
            state = self.update(frame, state)
            t = (state[0] * multiplier) >> (shift - 8)
            count = state[1]
            frames.append((torch.div(t + 128 * count, 256 * count, rounding_mode="floor") + self.zero_point).clamp(-128, 127))
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

    def stream(self, step: Any, x: str, multiplier: str, shift: str) -> str:
        return step.emit(self, x, multiplier, shift)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class QLif(Op):
    """Integer leaky integrate-and-fire: X = x * gain[c] + bias[c]; H = V + ((X - V) * decay >> 15) when decay_input,
    else H = V - (V * decay >> 15) + X (shifts floor). A spike is H > threshold[c] if strict else >=. Resets as `Lif`, to 0.

    x [B,T,C] int8, int16 or int32; gain, bias, threshold int32 [C]; decay is (1 - beta) * 2**15. The pass that makes one
    proves that X, V and X - V fit int32. Output: packed spikes, and the int32 membrane when `membrane` is set.
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
        for frame in drive.split(1, dim=-2):
            s, v = self.step(frame, v, threshold)
            spikes.append(s)
            membranes.append(v)
        outs = (torch.cat(spikes, -2), torch.cat(membranes, -2))
        return outs if self.membrane else outs[:1], (v,)

    def step(self, x: torch.Tensor, v: torch.Tensor, threshold: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One frame: spikes (0 or 1) and the new membrane."""

        def fires(h: torch.Tensor) -> torch.Tensor:
            return (h > threshold if self.strict else h >= threshold).to(torch.int64)

        fired = fires(v) if self.delayed_reset else torch.zeros_like(v)
        if self.reset == "hard":
            v = v * (1 - fired)
        h = v + ((x - v) * self.decay >> 15) if self.decay_input else v - (v * self.decay >> 15) + x
        if self.reset == "subtract":
            h = h - threshold * fired
        s = fires(h)
        if self.delayed_reset or self.reset == "none":
            return s, h
        return s, h * (1 - s) if self.reset == "hard" else h - threshold * s

    def stream(self, step: Any, x: str, gain: str, bias: str, threshold: str) -> Any:
        return step.emit(self, x, gain, bias, threshold)
