"""The integer neuron for what `QLif` leaves out: decay per channel, and no or slow leak, where membranes saturate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from edgec.ops.integer.spiking import IntegerNeuron


@dataclass(frozen=True)
class QLifSaturating(IntegerNeuron):
    """As QLif, with decay int32 [P] as a fifth input, 0 for no leak, and H clamped to +-limit before it is compared.

    The pass that makes one proves that limit + |X| + |threshold| fits int32.
    """

    name: ClassVar[str] = "qlif_saturating"
    examples: ClassVar[tuple[str, ...]] = (
        "int8[1,4,3] t1, int32[3], int32[3], int32[3], int32[3]",
        "int16[1,4,4] t1, int32[2], int32[2], int32[2], int32[2] {membrane=True}",
    )
    vectors: ClassVar[tuple[str, ...]] = ("gain", "bias", "threshold", "decay")
    decay_input: bool = True
    reset: str = "hard"
    strict: bool = False
    delayed_reset: bool = False
    membrane: bool = False
    limit: int = 1 << 29

    def step(self, x: torch.Tensor, v: torch.Tensor, *vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        threshold, decay = vectors
        return self.after(x, v, threshold, decay, self.limit)

    def leaked(self, change: str, channel: str) -> str:
        product = f'T.cast({change}, "int64") * T.cast(decay[{channel}], "int64")'
        return f'T.cast(T.shift_right({product}, T.int64(15)), "int32")'

    def held(self, value: str) -> list[str]:
        clamped = f"T.max(T.min(free, {self.limit}), {-self.limit})"
        return [f"free: T.let[T.int32] = {value}", f"h: T.let[T.int32] = {clamped}"]
