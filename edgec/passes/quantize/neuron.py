"""Quantisation rule of the spiking neuron: membranes in units of their own per channel, so that nothing is multiplied.

A neuron is driven by X = scale * q + shift, q being the integers at hand. With the unit u = |scale| / 2**F the drive
is q * (+-2**F) + shift / u: the gain is a power of two with the sign of the scale (batch norm may be negative), F being
the fraction bits that int32 has room for. Bias and threshold are divided by u and rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.ir.graph import Node
from edgec.ir.types import DType
from edgec.ops.integer.neuron import QLifSaturating
from edgec.ops.integer.spiking import QLif
from edgec.ops.neurons.lif import Lif
from edgec.passes.quantize.build import EVERYTHING, Builder, Source
from edgec.passes.quantize.numbers import INT32_MAX, Array, Refusal, Scale

FRACTION_BITS = 8
#: bits of the threshold, before fraction bits, of a channel whose input cannot matter
DEAD_BITS = 8
#: a channel may be dead when its whole input range is less than this part of its bias or threshold
DEAD_SHARE = 2.0**-10
#: a saturating membrane's bound
LIMIT = 1 << 29


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

    op: Lif
    decay: Array
    saturating: bool

    def proven(self, inputs: Array, bias: Array, threshold: Array) -> Array:
        """Whether all of X, V and X - V are proven to fit, elementwise."""
        x = inputs + bias + 1
        late = threshold + 1 if self.op.delayed_reset and self.op.reset == "subtract" else 0.0
        if self.saturating:
            v = np.full_like(x, LIMIT)
        else:
            v = x if self.op.decay_input else (x + 1) * 2.0**15 / self.decay
        fits: Array = (v + x + late < INT32_MAX) & (threshold + 1 < (LIMIT if self.saturating else INT32_MAX))
        return fits


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


def integer_neuron(op: Lif, decay: Array, drive: tuple[Array, Array, Array, Array]) -> tuple[Any, Units]:
    """The op and its parameters: saturating only where a bound cannot be proven or channels differ in decay."""
    modes = (op.decay_input, op.reset, op.strict, op.delayed_reset, op.membrane)
    if np.ptp(decay) == 0 and decay[0] > 0:
        try:
            return QLif(int(decay[0]), *modes), choose_units(*drive, Fits(op, decay, False))
        except Refusal:
            pass  # a slow leak: saturate
    return QLifSaturating(*modes, LIMIT), choose_units(*drive, Fits(op, decay, True))


def period_of(vectors: Array) -> int:
    """The least divisor P of C with which vectors [..., C] repeat: neurons of an image differ by channel at most."""
    channels = vectors.shape[-1]
    divisors = [p for p in range(1, channels + 1) if channels % p == 0]
    return next(p for p in divisors if (vectors == np.tile(vectors[:, :p], channels // p)).all())


def lif(b: Builder, node: Node) -> None:
    """A layer of neurons on whatever integers its input is."""
    op: Lif = node.op
    source = drive(b, node.inputs[0])
    channels = b.types[source.tensor].shape[-1]
    beta, threshold = vector(b, node.inputs[1], "decay", channels), vector(b, node.inputs[2], "threshold", channels)
    if op.reset == "subtract" and (threshold <= 0).any():
        raise Refusal("its threshold is not positive, so subtracting it does not bound the membrane")
    shift = np.broadcast_to(source.shift - source.scale * source.zero, (channels,))
    shift, threshold = shifted(op, beta, shift, threshold)
    top = np.maximum(np.abs(source.lo), np.abs(source.hi)).astype(np.float64)
    decay = np.floor((1.0 - beta) * 2.0**15 + 0.5).astype(np.int32)
    quantized, units = integer_neuron(op, decay, (source.scale, shift, threshold, top))
    vectors = {k: getattr(units, k) for k in ("gain", "bias", "threshold")}
    if isinstance(quantized, QLifSaturating):
        vectors["decay"] = decay
    period = period_of(np.stack(list(vectors.values())))
    names = [b.const(f"{node.outputs[0]}_{k}", v[:period]) for k, v in vectors.items()]
    b.emit(quantized, (source.tensor, *names), node.outputs, source.via)
    b.hold(node.outputs[0], node.outputs[0], Scale(1.0))
    if op.membrane:
        back = op.v_reset if op.reset == "hard" else 0.0
        wide = np.full(channels, INT32_MAX, np.int64)
        name = node.outputs[1]
        b.sources[name] = Source(name, name, units.unit, -wide, wide, shift=np.full(channels, back))
