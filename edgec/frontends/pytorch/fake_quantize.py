"""Converters of torch's quantisers: fake quantisation (QAT), and quantize with dequantize (pt2e).

A computed tensor passes a Snap; a constant keeps its grid in its type.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.ao.quantization.fx._decomposed  # registers quantized_decomposed
from torch import fx, nn
from torch.ao.quantization import FakeQuantize

from edgec.errors import FrontendError
from edgec.frontends.pytorch.call import Call, Constant, Converters
from edgec.ir.types import QuantParams
from edgec.ops.elementwise import Clip
from edgec.ops.snap import Snap

Array = npt.NDArray[Any]

OBSERVERS_OFF = "model.apply(torch.ao.quantization.disable_observer)"
#: calls that only move the elements of their first operand, which keep its grid
MOVES = frozenset(
    f"aten::{name}"
    for name in """alias clone contiguous detach flatten permute reshape squeeze t transpose unsqueeze view""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Levels:
    """The integers lo to hi, which stand for scale * (integer - zero): one scale, or one per index along `axis`."""

    scales: tuple[float, ...]
    zeros: tuple[int, ...]
    lo: int
    hi: int
    axis: int | None

    @property
    def offset(self) -> int:
        """What an integer is more than edgec's: a uint8 is held as an int8 128 lower."""
        return 128 if self.lo >= 0 and self.hi > 127 else 0

    def along(self, numbers: tuple[float, ...], rank: int) -> Array:
        """Scales or zeros, to be broadcast over a tensor."""
        return np.array(numbers).reshape([-1 if k == self.axis else 1 for k in range(rank)])

    def constant(self, name: str, integers: Array) -> Constant:
        """The real numbers of integers."""
        zeros, scales = (self.along(v, integers.ndim) for v in (self.zeros, self.scales))
        zero = self.zeros[0] - self.offset if self.axis is None else 0
        return Constant(name, torch.from_numpy((integers - zeros) * scales), QuantParams(self.scales, zero, self.axis))

    def nearest(self, reals: Array) -> Array:
        """The integers of real numbers, in torch's arithmetic: times the reciprocal in float32, half to even."""
        inverse = np.float32(1) / self.along(self.scales, reals.ndim).astype(np.float32)
        integers: Array = np.rint(reals * inverse) + self.along(self.zeros, reals.ndim)
        return integers.clip(self.lo, self.hi)

    def snap(self, call: Call, x: str) -> str:
        """x on these levels."""
        lo, hi = self.lo - self.offset, self.hi - self.offset
        if lo < -128 or hi > 127:
            raise ValueError(f"integers from {self.lo} to {self.hi}: expected them within -128..127 or 0..255")
        if len(self.scales) != 1:
            raise ValueError(f"{len(self.scales)} scales: expected one for a tensor that is computed")
        scale, zero = self.scales[0], self.zeros[0] - self.offset
        if (lo, hi) != (-128, 127):
            x = call.emit(Clip((lo - zero) * scale, (hi - zero) * scale), x)
        return call.emit(Snap("int8", scale, zero), x)


@dataclass(frozen=True)
class Quantised:
    """The integers of a tensor between quantize and dequantize; `tensor` holds what they stand for."""

    tensor: str
    levels: Levels


def numbers(call: Call, key: str) -> Array:
    """An argument that is a number in some overloads and a constant tensor in others."""
    given = call[key]
    return np.asarray(given if isinstance(given, bool | int | float) else call.constant(key)).reshape(-1)


def levels_of(call: Call, shape: tuple[int, ...]) -> Levels:
    """The levels that a call names for a tensor of a shape."""
    suffix = "s" if "scales" in call.args else ""
    scales, zero = numbers(call, f"scale{suffix}").astype(np.float32), f"zero_point{suffix}"
    zeros = np.rint(numbers(call, zero)).astype(np.int64) if call.has(zero) else np.zeros(scales.size, np.int64)
    lo, hi = (int(numbers(call, key)[0]) for key in ("quant_min", "quant_max"))
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise ValueError(f"scale {float(scales.min()):g}, expected a positive number")
    if lo >= hi or zeros.size != scales.size or (zeros < lo).any() or (zeros > hi).any():
        raise ValueError(
            f"zero points {zeros[:4].tolist()} of {scales.size} scales: expected one each within {lo}..{hi}"
        )
    axis = None
    if scales.size > 1:
        axis = int(call["axis" if "axis" in call.args else "ch_axis"]) % max(len(shape), 1)
        if shape[axis : axis + 1] != scales.shape:
            raise ValueError(f"{scales.size} scales for axis {axis} of {shape}")
    call.ignore("axis", "ch_axis", "per_row_fake_quant")  # of one scale
    return Levels(tuple(map(float, scales)), tuple(map(int, zeros)), lo, hi, axis)


def fake_quantize(call: Call) -> str | Constant:
    """A tensor on its levels."""
    value = call["self"]
    if not isinstance(value, Constant):
        x = call.tensor("self")
        return levels_of(call, call.type_of(x).shape).snap(call, x)
    reals = call.constant("self")
    levels = levels_of(call, reals.shape)
    return levels.constant(value.name, levels.nearest(reals))


def switched(call: Call) -> Any:
    """A module of QAT in evaluation: its observer must be off; without fake quantisation the tensor is as it was."""
    observer, switch = "observer_on", "fake_quant_on" if "fake_quant_on" in call.args else "fake_quant_enabled"
    if observer in call.args and numbers(call, observer).any():
        raise ValueError(f"its observer is on: call {OBSERVERS_OFF} first")
    if numbers(call, switch).all():
        call.ignore("running_min", "running_max", "averaging_const", "symmetric_quant")
        return fake_quantize(call)
    call.ignore(*call.args)
    return call["self"]


def with_mask(call: Call) -> tuple[Any, None]:
    """The result, and no mask, which only training reads."""
    return (switched if {"fake_quant_on", "fake_quant_enabled"} & call.args.keys() else fake_quantize)(call), None


def functional(call: Call) -> tuple[Any, ...]:
    """Result, mask, and what an observer that is off leaves as it was."""
    return (*with_mask(call), *(call[key] for key in ("running_min", "running_max", "scale", "zero_point")))


def quantize(call: Call) -> Quantised:
    """Integers; torch itself computes those of a constant."""
    call.only("dtype", torch.int8, torch.uint8)
    x = call.tensor("input")
    levels = levels_of(call, call.type_of(x).shape)
    return Quantised(levels.snap(call, x), levels)


def dequantize(call: Call) -> str | Constant:
    """The real numbers of integers, of a constant or of the quantize before it."""
    value = call["input"]
    call.only("out_dtype", None, torch.float32)
    call.ignore("dtype")
    if isinstance(value, Constant):
        return levels_of(call, tuple(value.value.shape)).constant(value.name, value.value.numpy().astype(np.int64))
    if not isinstance(value, Quantised):
        raise ValueError("expected a quantize before it")
    if levels_of(call, call.type_of(value.tensor).shape) != value.levels:
        raise ValueError("its scale, zero point or range is not that of the quantize before it")
    return value.tensor


def moved(node: fx.Node, value: Constant) -> Constant:
    """A constant whose elements a call moves; its grid stays where the scales still lie along one axis."""
    assert value.grid is not None
    target: Any = node.target
    axis, data = value.grid.axis, target(value.value, *node.args[1:], **node.kwargs)
    if axis is None:
        return Constant(value.name, data, value.grid)
    extent = value.value.shape[axis]
    places = torch.arange(extent).reshape([-1 if k == axis else 1 for k in range(value.value.dim())])
    places = target(places.expand(value.value.shape).contiguous(), *node.args[1:], **node.kwargs)
    for k in (k for k, n in enumerate(places.shape) if n == extent):
        if (places == torch.arange(extent).reshape([-1 if j == k else 1 for j in range(places.dim())])).all():
            return Constant(value.name, data, QuantParams(value.grid.scale, 0, k))
    return Constant(value.name, data.float())


@contextmanager
def switches_as_numbers(module: nn.Module, name: str) -> Iterator[None]:
    """FakeQuantize branches on two buffers, which torch.export cannot trace: they are lists meanwhile.

    FrontendError for an observer that is on.
    """
    found = {m: dict(m._buffers) for m in module.modules() if type(m).forward is FakeQuantize.forward}
    if any(bool(buffers["observer_enabled"][0]) for buffers in found.values()):  # type: ignore[index]
        raise FrontendError(f"{name}: the observer of a FakeQuantize is on", hint=f"call {OBSERVERS_OFF} first")
    try:
        for m in found:
            for key in ("fake_quant_enabled", "observer_enabled"):
                m.__dict__[key] = m._buffers.pop(key).tolist()  # type: ignore[union-attr]
        yield
    finally:
        for m, buffers in found.items():
            for key in ("fake_quant_enabled", "observer_enabled"):
                m.__dict__.pop(key, None)
            m._buffers.clear()
            m._buffers.update(buffers)


#: calls that give a constant its grid
GRIDS: Converters = {
    "aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": with_mask,
    "aten::_fused_moving_avg_obs_fq_helper": with_mask,
    "aten::_fused_moving_avg_obs_fq_helper_functional": functional,
    "aten::fake_quantize_per_channel_affine": fake_quantize,
    "aten::fake_quantize_per_channel_affine_cachemask": with_mask,
    "aten::fake_quantize_per_tensor_affine": fake_quantize,
    "aten::fake_quantize_per_tensor_affine_cachemask": with_mask,
    "aten::fused_moving_avg_obs_fake_quant": switched,
    "quantized_decomposed::dequantize_per_channel": dequantize,
    "quantized_decomposed::dequantize_per_tensor": dequantize,
}
CONVERTERS: Converters = {
    **GRIDS,
    "quantized_decomposed::quantize_per_channel": quantize,
    "quantized_decomposed::quantize_per_tensor": quantize,
}
