"""The integer neuron for what `QLif` leaves out: decay per channel, and no or slow leak, where membranes saturate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops.base import Kernel, Op, Site, need
from edgec.ops.qspiking import neuron_step
from edgec.ops.timeline import with_frames


@dataclass(frozen=True)
class QLifSaturating(Op):
    """As QLif, with decay int32 [C] as a fifth input, 0 for no leak, and H clamped to +-limit before it is compared.

    The pass that makes one proves that limit + |X| + |threshold| fits int32.
    """

    name: ClassVar[str] = "qlif_saturating"
    decay_input: bool = True
    reset: str = "hard"
    strict: bool = False
    delayed_reset: bool = False
    membrane: bool = False
    limit: int = 1 << 29

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, *vectors = types
        need(x.dtype in (DType.I8, DType.I16, DType.I32), f"expected integers, found {x.dtype.value}")
        need(x.time_axis is not None and x.time_axis == len(x.shape) - 2, "expected a time axis before the channels")
        for label, t in zip(("gain", "bias", "threshold", "decay"), vectors, strict=True):
            need(t.shape == (x.shape[-1],), f"expected {label} of shape ({x.shape[-1]},), found {t.shape}")
        spikes = TensorType(x.shape, DType.BIT, QuantParams((1.0,)), x.time_axis)
        return (spikes, TensorType(x.shape, DType.I32, None, x.time_axis)) if self.membrane else (spikes,)

    def state_types(self, types: Sequence[TensorType]) -> tuple[tuple[TensorType, float], ...]:
        return ((replace(with_frames(types[0], 1), dtype=DType.I32, quant=None, time_axis=None), 0),)

    def run(
        self, tensors: Sequence[torch.Tensor], states: Sequence[torch.Tensor] = ()
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        x, gain, bias, threshold, decay = tensors
        drive = x * gain + bias
        v = states[0] if states else torch.zeros_like(drive.narrow(-2, 0, 1))
        spikes, membranes = [], []
        for t in range(drive.shape[-2]):
            s, v = self.step(drive.narrow(-2, t, 1), v, threshold, decay)
            spikes.append(s)
            membranes.append(v)
        outs = (torch.cat(spikes, -2), torch.cat(membranes, -2))
        return outs if self.membrane else outs[:1], (v,)

    def step(
        self, x: torch.Tensor, v: torch.Tensor, threshold: torch.Tensor, decay: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One frame: spikes (0 or 1) and the new membrane."""
        return neuron_step(self, x, v, threshold, decay, self.limit)

    def lower(self, site: Site) -> Kernel:
        x = site.inputs[0]
        channels = x.shape[-1]
        rows, words = x.size // channels, -(-channels // 32)
        need(site.states != () and x.frames == 1, "a neuron is lowered one frame at a time")
        inner = "\n".join(f"            {line}" for line in self._step_lines())
        body = f"""for word in T.parallel({words}):
    for r in T.serial({rows}):
        spikes[r, word] = T.uint32(0)
        for bit in T.serial(T.min(32, {channels} - word * 32)):
            c: T.let[T.int32] = word * 32 + bit
{inner}"""
        params: list[tuple[str, tuple[int, ...], str]] = [("x", (rows, channels), x.dtype.value)]
        params += [(name, (channels,), "int32") for name in ("gain", "bias", "threshold", "decay")]
        params += [("v", (rows, channels), "int32"), ("spikes", (rows, words), "uint32")]
        params += [("membrane", (rows, channels), "int32")] * self.membrane
        return Kernel(body, tuple(params))

    def _step_lines(self) -> list[str]:
        """TVMScript for one neuron of one frame; the same steps as `step`."""
        compare, old = ">" if self.strict else ">=", "v[r, c]"
        lines = ['drive: T.let[T.int32] = T.cast(x[r, c], "int32") * gain[c] + bias[c]']
        if self.delayed_reset and self.reset != "none":
            lines.append(f"fired: T.let[T.bool] = v[r, c] {compare} threshold[c]")
        if self.delayed_reset and self.reset == "hard":
            lines.append("old: T.let[T.int32] = T.if_then_else(fired, 0, v[r, c])")
            old = "old"
        change, base = (f"(drive - {old})", old) if self.decay_input else (old, f"{old} + drive")
        product = f'T.cast({change}, "int64") * T.cast(decay[c], "int64")'
        scaled = f'T.cast(T.shift_right({product}, T.int64(15)), "int32")'
        value = f"{base} {'+' if self.decay_input else '-'} {scaled}"
        if self.delayed_reset and self.reset == "subtract":
            value += " - T.if_then_else(fired, threshold[c], 0)"
        lines.append(f"free: T.let[T.int32] = {value}")
        lines.append(f"h: T.let[T.int32] = T.max(T.min(free, {self.limit}), {-self.limit})")
        lines.append(f"spike: T.let[T.bool] = h {compare} threshold[c]")
        bit = 'T.shift_left(T.cast(spike, "uint32"), T.cast(bit, "uint32"))'
        lines.append(f"spikes[r, word] = spikes[r, word] | {bit}")
        kept = "h"
        if not self.delayed_reset and self.reset != "none":
            kept = f"T.if_then_else(spike, {'0' if self.reset == 'hard' else 'h - threshold[c]'}, h)"
        return [*lines, f"v[r, c] = {kept}", *(["membrane[r, c] = v[r, c]"] if self.membrane else [])]

    def stream(self, step: Any, x: str, *vectors: str) -> Any:
        return step.emit(self, x, *vectors)
