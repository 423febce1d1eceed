"""Depthwise convolutions of int8 images for cores with Helium (runtime/helium/edgec_mve_depth.h)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.ir.types import DType
from edgec.kernels.helium.image import REACH, VECTOR, Finish, Stream, finish_for, kernel_of
from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.integer.conv import QConv2dRequantize

BLOCK = 8  # outputs of a line at a time; channels that are planes at a time
STEPS = {3: "3", 6: "6"}  # between windows, of the kernels that know theirs


@dataclass(frozen=True)
class Axis:
    """One axis of the image: inputs and outputs, their steps in bytes, padding before, size of the kernel."""

    inputs: int
    step: int
    outputs: int
    out_step: int
    before: int
    size: int

    @property
    def blocks(self) -> float:
        """Computed per output: a block that is not full costs a little more than half of one."""
        return (self.outputs // BLOCK + (self.outputs % BLOCK + BLOCK) / (2 * BLOCK)) / self.outputs


def axes_of(op: QConv2dRequantize, site: Site) -> tuple[Axis, Axis, bool]:
    """The axis across lines, the one along them, and whether lines are columns."""
    _, h, v, c = site.inputs[0].shape
    _, oh, ow, _ = site.outputs[0].shape
    kh, kw = site.inputs[1].shape[:2]
    down, right = Axis(h, v * c, oh, ow * c, op.pad[0], kh), Axis(v, c, ow, c, op.pad[2], kw)
    return (right, down, True) if down.blocks < right.blocks else (down, right, False)


def pack_filters(filters: Array, bias: Array, finish: Finish) -> Stream:
    """filters [channels, taps] as 16 weights, bias, multiplier and shift of each channel."""
    padded = np.zeros((filters.shape[0], VECTOR), np.int8)
    padded[:, : filters.shape[1]] = filters
    table = np.stack([bias.astype(np.int64), finish.multiplier, finish.shift], 1).astype(np.int32)
    return Stream(np.concatenate([padded.view("<i4"), table], 1).astype(np.int32).reshape(-1), 1, 0)


def image(op: Op, site: Site) -> Kernel | None:
    """One filter of at most 16 taps per channel of one image, the same stride along both axes."""
    assert isinstance(op, QConv2dRequantize)
    x, (kh, kw, inside, channels) = site.inputs[0], site.inputs[1].shape
    if op.groups != channels or inside != 1 or x.shape[3] != channels or x.shape[0] != 1 or kh * kw > VECTOR:
        return None
    if x.dtype is not DType.I8 or op.dtype != "int8" or op.stride[0] != op.stride[1] or op.dilation != (1, 1):
        return None
    finish, (across, along, turned) = finish_for(op, site), axes_of(op, site)
    if finish is None or op.pad[0] >= kh or op.pad[2] >= kw:
        return None
    stride = op.stride[0]
    columns, lines = (along.outputs - 1) * stride + along.size, (across.outputs - 1) * stride + across.size
    plane = lines + (columns - 1) * across.size + VECTOR
    if max(plane, along.out_step) * BLOCK >= REACH:
        return None
    filters = site.consts[1].reshape(kh, kw, channels).transpose((2, 0, 1) if turned else (2, 1, 0))
    stream = pack_filters(filters.reshape(channels, kh * kw), site.consts[2], finish)
    table = [
        across.inputs, across.step, along.inputs, along.step, across.outputs, along.outputs, across.out_step,
        along.out_step, across.before, along.before, stride, channels, across.size, columns, plane, op.zero_point,
    ]  # fmt: skip
    name = f"depth_image_{STEPS.get(across.size * stride, 'any')}_{finish.suffix}"
    return kernel_of(op, site, stream, name, table, VECTOR + BLOCK * plane, f"{op.pad_value}, ")
