"""The integer neuron for what `QLif` leaves out: decay per channel, and no or slow leak, where membranes saturate; and
the units of membranes, per channel, so that nothing is multiplied.

A neuron is driven by X = scale * q + shift, q being the integers at hand. With the unit u = |scale| / 2**F the drive
is q * (+-2**F) + shift / u: the gain is a power of two with the sign of the scale (batch norm may be negative), F being
the fraction bits that int32 has room for. Bias and threshold are divided by u and rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from edgec.ops.base import Array
from edgec.ops.integer.numbers import INT32_MAX, Refusal
from edgec.ops.integer.spiking import IntegerNeuron, QLif

FRACTION_BITS = 8
#: bits of the threshold, before fraction bits, of a channel whose input cannot matter
DEAD_BITS = 8
#: a channel may be dead when its whole input range is less than this part of its bias or threshold
DEAD_SHARE = 2.0**-10
#: a saturating membrane's bound
LIMIT = 1 << 29


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
    limit: int = LIMIT

    def step(self, x: torch.Tensor, v: torch.Tensor, *vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        threshold, decay = vectors
        return self.after(x, v, threshold, decay, self.limit)

    def leaked(self, change: str, channel: str) -> str:
        product = f'T.cast({change}, "int64") * T.cast(decay[{channel}], "int64")'
        return f'T.cast(T.shift_right({product}, T.int64(15)), "int32")'

    def held(self, value: str) -> list[str]:
        clamped = f"T.max(T.min(free, {self.limit}), {-self.limit})"
        return [f"free: T.let[T.int32] = {value}", f"h: T.let[T.int32] = {clamped}"]


@dataclass(frozen=True)
class Units:
    """Integer parameters of a layer of neurons; `unit` is the real value of one membrane step."""

    gain: Array
    bias: Array
    threshold: Array
    unit: Array


@dataclass(frozen=True)
class Fits:
    """The proof that membrane arithmetic stays in int32, from |input|, |bias| and |threshold| in membrane units.

    X is at most input + bias. With input decay H lies between V and X, otherwise |H| <= (1 - d) |V| + |X| + 1 with
    d = 1 - beta, so |V| <= (|X| + 1) / d. A delayed subtraction takes one threshold off a membrane above the threshold.
    X - V must fit too. A saturating neuron bounds V itself.
    """

    op: QLif | QLifSaturating
    decay: Array

    def proven(self, inputs: Array, bias: Array, threshold: Array) -> Array:
        """Whether all of X, V and X - V are proven to fit, elementwise."""
        x = inputs + bias + 1
        late = threshold + 1 if self.op.delayed_reset and self.op.reset == "subtract" else 0.0
        if isinstance(self.op, QLifSaturating):
            v = np.full_like(x, LIMIT)
        else:
            v = x if self.op.decay_input else (x + 1) * 2.0**15 / self.decay
        most = LIMIT if isinstance(self.op, QLifSaturating) else INT32_MAX
        fits: Array = (v + x + late < INT32_MAX) & (threshold + 1 < most)
        return fits


def choose_units(scale: Array, shift: Array, threshold: Array, top: Array, fits: Fits) -> Units:
    """The finest membrane units that `fits` proves safe, channel by channel. top: largest |q| of each channel.

    A channel that no unit fits is dead if its whole input is negligible beside its bias or threshold: gain 0.
    """
    scale, shift, threshold, top = (v.copy() for v in np.broadcast_arrays(scale, shift, threshold, top))
    reach, size = np.abs(scale) * top, np.maximum(np.abs(threshold), 1e-30)
    dead = reach <= np.maximum(size, np.abs(shift)) * DEAD_SHARE
    constant = np.maximum(size, np.abs(shift) / 2.0**DEAD_BITS) / 2.0**DEAD_BITS
    unit, gain = np.zeros(shift.shape), np.zeros(shift.shape)
    for largest, steps in ((np.abs(scale), np.sign(scale)), (np.where(dead, constant, 0.0), 0.0 * scale)):
        for fraction in range(FRACTION_BITS, -1, -1):
            u = np.maximum(largest, 1e-60) / 2.0**fraction
            good = fits.proven(top * np.abs(steps) * 2.0**fraction, np.abs(shift) / u, np.abs(threshold) / u)
            good &= (unit == 0.0) & (largest > 0.0)
            unit[good], gain[good] = u[good], (steps * 2.0**fraction)[good]
    if (unit == 0.0).any():
        c = int(np.flatnonzero(unit == 0.0)[0])
        found = f"input up to {reach[c]:g}, bias {shift[c]:g}, threshold {threshold[c]:g}, input step {scale[c]:g}"
        raise Refusal(f"the membrane of channel {c} does not fit int32: {found}")
    bias, level = np.floor(shift / unit + 0.5), np.floor(threshold / unit + 0.5)
    return Units(gain.astype(np.int32), bias.astype(np.int32), level.astype(np.int32), unit)


def integer_neuron(
    decay: Array, modes: tuple[bool, str, bool, bool, bool], drive: tuple[Array, Array, Array, Array]
) -> tuple[QLif | QLifSaturating, Units]:
    """The op and its parameters: saturating only where a bound cannot be proven or channels differ in decay."""
    if np.ptp(decay) == 0 and decay[0] > 0:
        try:
            return (op := QLif(int(decay[0]), *modes)), choose_units(*drive, Fits(op, decay))
        except Refusal:
            pass  # a slow leak: saturate
    return (bounded := QLifSaturating(*modes)), choose_units(*drive, Fits(bounded, decay))


def period_of(vectors: Array) -> int:
    """The least divisor P of C with which vectors [..., C] repeat: neurons of an image differ by channel at most."""
    channels = vectors.shape[-1]
    divisors = [p for p in range(1, channels + 1) if channels % p == 0]
    return next(p for p in divisors if (vectors == np.tile(vectors[:, :p], channels // p)).all())
