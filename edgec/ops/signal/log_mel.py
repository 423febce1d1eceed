"""The audio front end: PCM to log-mel features, in float and in integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import ClassVar

import torch
import torch.nn.functional as F

from edgec.ir.graph import Node
from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops.base import Kernel, Reads, Site, need
from edgec.ops.integer.build import Builder
from edgec.ops.integer.numbers import Refusal
from edgec.ops.signal import tables
from edgec.ops.signal.front_end import FrontEnd, IntegerFrontEnd
from edgec.ops.signal.text import float_kernel
from edgec.ops.signal.text_int import integer_kernel
from edgec.signal_math import PCM_SCALE, hann_window, mel_matrix

CHUNK = 512  # frames the reference computes at a time, to bound its memory
Complex = tuple[torch.Tensor, torch.Tensor]


@lru_cache(maxsize=16)
def _float_tables(op: FrontEnd) -> tuple[torch.Tensor, torch.Tensor]:
    mel = mel_matrix(op.sample_rate, op.n_fft, op.n_mels, op.f_min, op.f_max)
    return torch.from_numpy(hann_window(op.frame)), torch.from_numpy(mel.T.copy())


@dataclass(frozen=True)
class LogMel(FrontEnd):
    """pcm float32 [B,N] in [-1,1) -> (ln(max(mel energy, floor)) - offset) * scale, [B,T,n_mels].

    Of each frame: mean removed, pre-emphasis (the first sample is its own predecessor), symmetric Hann window, power
    spectrum over n_fft samples, Kaldi's mel triangles. Without padding, left or right, there is no delay.
    """

    name: ClassVar[str] = "log_mel"
    reads: ClassVar[Reads] = Reads.PCM

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (pcm,) = types
        return (TensorType(self.check(pcm, DType.F32), DType.F32, None, 1),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        window, mel = (t.to(tensors[0]) for t in _float_tables(self))
        x = self.framed(tensors[0])
        x = x - x.mean(-1, keepdim=True)
        x = x - self.preemphasis * torch.cat([x[..., :1], x[..., :-1]], -1)
        spectrum = torch.fft.rfft(x * window, self.n_fft)
        power = spectrum.real.square() + spectrum.imag.square()
        features: torch.Tensor = ((power @ mel).clamp_min(self.floor).log() - self.offset) * self.scale
        return features

    def lower(self, site: Site) -> Kernel:
        return float_kernel(self, site.inputs[0], site.outputs[0])

    def integer(self, b: Builder, node: Node) -> None:
        """The integer front end writes int16 features: a spiking network amplifies the rounding of int8 ones."""
        if node.inputs[0] not in {v.name for v in b.inputs}:
            raise Refusal("it reads a computed tensor; the integer front end reads the PCM input")
        scale = b.plan.int16[node.output]
        b.emit(to_integer(self, scale.scale, scale.zero, "int16"), node.inputs, node.outputs)
        b.features.add(node.output)
        b.hold(node.output, node.output, scale)

    @classmethod
    def samples(cls) -> list[tuple[LogMel, tuple[TensorType, ...]]]:
        return [(op, (TensorType((1, n), DType.F32, None, 1),)) for op, n in _SAMPLES]


_SAMPLES = [
    (LogMel(), 480),
    (LogMel(n_mels=128, padded=False), 400),
    (LogMel(sample_rate=8000, frame=255, hop=80, n_fft=256, n_mels=20, f_max=3800.0, offset=-4.0, scale=0.25), 240),
]


def high(product: torch.Tensor) -> torch.Tensor:
    """The high word of a 64-bit product, rounded: SMMULR."""
    return (product + (1 << 31)) >> 32


def turn_half(x: Complex, cs: torch.Tensor) -> Complex:
    """Half of x * (cos - i sin), cs [..., 2] being Q31."""
    (re, im), c, s = x, cs[..., 0], cs[..., 1]
    return high(re * c) + high(im * s), high(im * c) - high(re * s)


def _stack(parts: list[Complex]) -> Complex:
    """Outputs of a butterfly on the axis before the last."""
    return torch.stack([p[0] for p in parts], -2), torch.stack([p[1] for p in parts], -2)


def _part(x: Complex, k: int) -> Complex:
    return x[0].select(-2, k), x[1].select(-2, k)


def _plus(a: Complex, b: Complex, gain: int = 1) -> Complex:
    return a[0] + gain * b[0], a[1] + gain * b[1]


def _butterfly4(parts: list[Complex], gain: int) -> Complex:
    """Radix-4 butterfly; all parts but the first come divided by `gain`."""
    a, b, c, d = parts
    t0, t1, t2, (re, im) = _plus(a, c, gain), _plus(a, c, -gain), _plus(b, d), _plus(b, d, -1)
    t3 = im, -re
    return _stack([_plus(t0, t2, gain), _plus(t1, t3, gain), _plus(t0, t2, -gain), _plus(t1, t3, -gain)])


def fft_integer(x: Complex) -> Complex:
    """Complex FFT of int32 values [..., M], exactly as the kernel does it."""
    size, lead = x[0].shape[-1], x[0].shape[:-1]
    quarter = size // 4
    first = _butterfly4([(x[0][..., k : k + quarter], x[1][..., k : k + quarter]) for k in range(0, size, quarter)], 1)
    at = torch.from_numpy(tables.positions(size).argsort()[::4].copy())  # of each four neighbours, the first's input
    z = first[0][..., at].transpose(-1, -2), first[1][..., at].transpose(-1, -2)
    for radix, span, angles in tables.stage_angles(size):
        cs = torch.from_numpy(tables.q31(tables.cos_sin(angles)))
        z = (z[0].reshape(*lead, -1, radix, span // radix), z[1].reshape(*lead, -1, radix, span // radix))
        parts = [_part(z, 0), *(turn_half(_part(z, m), cs[:, m - 1]) for m in range(1, radix))]
        if radix == 4:
            z = _butterfly4(parts, gain=2)
        else:
            z = _stack([_plus(parts[0], parts[1], 2), _plus(parts[0], parts[1], -2)])
    return z[0].reshape(*lead, size), z[1].reshape(*lead, size)


def power_integer(z: Complex) -> torch.Tensor:
    """|X[k]|^2 for k = 0 .. M-1 of 2M real samples from the FFT of the M complex ones they form; X[0] is left 0."""
    size = z[0].shape[-1]
    k = torch.arange(1, size // 2)
    (ar, br), (ai, bi) = ((part[..., k], part[..., size - k]) for part in z)
    cs = torch.from_numpy(tables.q31(tables.cos_sin(torch.pi * k.numpy() / size)))
    tr, ti = turn_half((ai + bi, br - ar), cs)
    er, ei = (ar + br) >> 1, (ai - bi) >> 1
    power = torch.zeros_like(z[0])
    power[..., k] = (er + tr) ** 2 + (ei + ti) ** 2
    power[..., size - k] = (er - tr) ** 2 + (ei - ti) ** 2
    power[..., size // 2] = z[0][..., size // 2] ** 2 + z[1][..., size // 2] ** 2
    return power


def bit_length(x: torch.Tensor) -> torch.Tensor:
    """Bits of 0 <= x < 2**63 without leading zeros; float64 may have rounded up to a power of two."""
    length = torch.frexp(x.double())[1].to(torch.int64)
    return length - ((x > 0) & ((x >> (length - 1).clamp(min=0)) == 0)).to(torch.int64)


def log2_integer(energy: torch.Tensor) -> torch.Tensor:
    """log2 of 1 <= energy < 2**63 with 15 fraction bits: leading zeros, then 64 straight pieces per octave."""
    exponent = bit_length(energy) - 1
    mantissa = (energy >> (exponent - 31).clamp(min=0)) << (31 - exponent).clamp(min=0)
    table = torch.from_numpy(tables.log2_table())
    index, rest = (mantissa >> 25) & 63, (mantissa >> 9) & 0xFFFF
    low = table[index]
    return (exponent << 15) + low + (((table[index + 1] - low) * rest + 0x8000) >> 16)


@dataclass(frozen=True)
class QLogMel(IntegerFrontEnd):
    """LogMel on integers: pcm int16 [B,N] (scale 2^-15) -> int8 or int16 features [B,T,n_mels].

    With R(x) = floor(x / 2^32 + 1/2), which is SMMULR of the two factors, and the constants of `scales()`:
    - e = 15 - most bits of x[n] (of ~x[n] where negative): the frame's block exponent. s = sum of the frame.
      M = floor((s * mean + 2^29) / 2^30); p[n] = 2^e (32767 x[n] - preemphasis * x[n-1] - M), x[-1] = x[0]:
      mean removal and pre-emphasis of 2^e x with 30 fraction bits, times 32767 / 32768. It fits int32.
    - y[n] = R(p[n] * integer_window[n]) has `spectrum` fraction bits.
    - z[n] = y[2n] + i y[2n+1], then its FFT of M = n_fft/2 points, decimation in time: radix 4, the last stage radix 2
      where needed. A twiddle is Q31; a product is halved, R(re c) + R(im s) and R(im c) - R(re s), and doubled again
      where it is added.
    - X from Z: T = the halved product of the twiddle and (Z[k] - conj Z[M-k]) / i, E = floor((Z[k] + conj Z[M-k]) / 2),
      X[k] = E + T, conj X[M-k] = E - T; P = re^2 + im^2, exact in 63 bits. Nothing overflows: `spectrum_bits`.
    - Between neighbouring filter centres: U = floor(sum(w P) / 2^16), w Q15, and V = floor(sum(P) / 2) - U. Filter m
      has energy U of the segment below its centre plus V of the one above, its lowest bit set.
    - L = max(log2 of it with 15 fraction bits (`log2_integer`) - 2^16 e, floor), then the feature is
      clamp(floor((L * multiplier + bias) / 2^shift)) to the output type.
    """

    name: ClassVar[str] = "qlog_mel"

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (pcm,) = types
        shape = self.check(pcm, DType.I16)
        need(self.dtype in ("int8", "int16"), f"expected dtype int8 or int16, found {self.dtype!r}")
        need(self.out_scale > 0.0, f"expected out_scale > 0, found {self.out_scale}")
        need(
            pcm.quant in (None, QuantParams((PCM_SCALE,))),
            f"expected PCM of scale 2^-15 and zero point 0, found {pcm.quant}",
        )
        need(0.0 <= self.preemphasis <= 1.0, f"expected preemphasis within 0 .. 1, found {self.preemphasis}")
        self.scales()
        return (TensorType(shape, DType(self.dtype), QuantParams((self.out_scale,), self.out_zero_point), 1),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        frames = self.framed(tensors[0])
        flat = frames.reshape(-1, self.frame)
        parts = [self.integer_frames(flat[k : k + CHUNK]) for k in range(0, len(flat), CHUNK)]
        return torch.cat(parts).view(*frames.shape[:2], self.n_mels)

    def integer_frames(self, x: torch.Tensor) -> torch.Tensor:
        """x [T,frame] -> [T,n_mels]."""
        exponent = 15 - bit_length(torch.where(x < 0, ~x, x).amax(-1, keepdim=True))
        return self.features(self.mel_energies(self.windowed(x, exponent)), exponent)

    def lower(self, site: Site) -> Kernel:
        return integer_kernel(self, site.inputs[0], site.outputs[0])

    @classmethod
    def samples(cls) -> list[tuple[QLogMel, tuple[TensorType, ...]]]:
        quants = [(0.1, 30, "int8"), (0.001, 0, "int16"), (0.02, -3, "int8")]
        ops = [(to_integer(op, *q), n) for (op, n), q in zip(_SAMPLES, quants, strict=True)]
        return [(op, (TensorType((1, n), DType.I16, QuantParams((PCM_SCALE,)), 1),)) for op, n in ops]

    def windowed(self, x: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
        """x [..., frame], exponent [..., 1] -> y [..., frame]."""
        k = self.scales()
        mean = (x.sum(-1, keepdim=True) * k.mean + (1 << 29)) >> 30
        before = torch.cat([x[..., :1], x[..., :-1]], -1)
        window = torch.from_numpy(tables.integer_window(hann_window(self.frame), k.spectrum))
        return high((x * tables.EMPHASIS - before * k.preemphasis - mean << exponent) * window)

    def mel_energies(self, y: torch.Tensor) -> torch.Tensor:
        """y [..., frame] -> [..., n_mels]."""
        y = F.pad(y, (0, self.n_fft - self.frame))
        power = power_integer(fft_integer((y[..., 0::2], y[..., 1::2])))
        seg = self.segments()
        power, ends = power[..., seg.first : seg.first + seg.bins], torch.tensor(seg.bounds)
        weight = torch.from_numpy(tables.q15(seg.rising))
        words = ((power & 0xFFFFFFFF) * weight, (power >> 32) * weight, power)
        low, top, total = (F.pad(part.cumsum(-1), (1, 0))[..., ends].diff(dim=-1) for part in words)
        up = (top << 16) + (low >> 16)
        down = (total >> 1) - up
        return up[..., :-1] + down[..., 1:] | 1

    def features(self, energy: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
        """Mel energies times 4^exponent -> clamped integers."""
        k, (least, most) = self.scales(), DType(self.dtype).range
        log = (log2_integer(energy) - (exponent << 16)).clamp_min(k.floor)
        return ((log * k.multiplier + k.bias) >> k.shift).clamp(least, most)


def to_integer(op: LogMel, out_scale: float, out_zero_point: int, dtype: str = "int8") -> QLogMel:
    """The integer form of a float front end, its features in the given quantisation."""
    shared = {f.name: getattr(op, f.name) for f in fields(op)}
    return QLogMel(**shared, dtype=dtype, out_scale=out_scale, out_zero_point=out_zero_point)
