"""Depthwise convolutions of 3 x 3 on int8 for cores with DSP instructions (runtime/cortex_m/edgec_depth.h)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from edgec.ir.types import DType
from edgec.kernels.cortex_m.rows import clamp_lines, roundings_of, table_of
from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.integer.conv import QConv2dRequantize
from edgec.ops.integer.requantize import accumulator_bounds

SIZE, GROUP = 3, 4  # of a filter; outputs that are computed together
MAX_LIFT = 7  # by which a weight may be shifted left in a lane of 16 bits


@dataclass(frozen=True)
class Axis:
    """One axis of the image: inputs and outputs, their steps in bytes, padding before."""

    inputs: int
    step: int
    outputs: int
    out_step: int
    before: int

    @property
    def blocks(self) -> float:
        """Groups computed per output."""
        return -(-self.outputs // GROUP) / self.outputs


def axes_of(op: QConv2dRequantize, site: Site) -> tuple[Axis, Axis, bool] | None:
    """The axis across lines, the one along them, and whether lines are columns; None without lines long enough."""
    _, h, v, c = site.inputs[0].shape
    _, oh, ow, _ = site.outputs[0].shape
    down = Axis(h, v * c, oh, ow * c, op.pad[0])
    along = Axis(v, c, ow, c, op.pad[2])
    choices = [(a, b, turned) for a, b, turned in ((down, along, False), (along, down, True)) if b.outputs >= GROUP]
    return min(choices, key=lambda choice: choice[1].blocks, default=None)


def pack_filters(op: QConv2dRequantize, site: Site, turned: bool, rounding: str) -> Array | None:
    """The seven words of each channel, `rounding` one of `roundings_of`; None where 32 bits would not be exact."""
    w, bias, multiplier, shift = (site.consts[k] for k in (1, 2, 3, 4))
    last = op.requantization
    filters = w.reshape(SIZE, SIZE, -1)
    low, high = accumulator_bounds(w, bias, (-128, 127))
    same = [np.broadcast_to(v.astype(np.int64), low.shape) for v in (multiplier, shift)]
    level = last.levels(low, *same)
    constant = level == last.levels(high, *same)
    least = 32 if rounding == "tflite" else 33
    lift = np.where(constant, 0, np.maximum(least - same[1], 0)) + (rounding == "tflite")
    lift = np.maximum(lift, 2) if rounding == "up" else lift
    reach = np.maximum(np.abs(low), np.abs(high)) << lift
    if lift.max() > MAX_LIFT or reach.max() >= 1 << 31 or (np.abs(bias.astype(np.int64)) << lift).max() >= 1 << 31:
        return None
    table = table_of(last, rounding, same, lift, level, constant)
    if table is None:
        return None
    octets = np.zeros((low.size, SIZE, 4), np.int8)
    octets[:, :, :SIZE] = filters.transpose(2, 1, 0) if turned else filters.transpose(2, 0, 1)
    octets[:, 0, 3] = lift
    words = octets.reshape(low.size, -1).view("<i4").astype(np.int64)
    return np.concatenate([words, (bias.astype(np.int64) << lift)[:, None], table], 1).astype(np.int32)


def image(op: Op, site: Site) -> Kernel | None:
    """One filter of 3 x 3 per channel, stride 1 or 2."""
    assert isinstance(op, QConv2dRequantize)
    x, w = site.inputs[0], site.inputs[1]
    channels, square = x.shape[3], op.stride[0] == op.stride[1] in (1, 2) and op.dilation == (1, 1)
    if op.groups != channels or w.shape != (SIZE, SIZE, 1, channels) or channels % 4 or not square:
        return None
    axes = axes_of(op, site)
    if x.dtype is not DType.I8 or op.dtype != "int8" or axes is None or not {1, 2, 3, 4} <= set(site.consts):
        return None
    across, along, turned = axes
    packings = ((r, pack_filters(op, site, turned, r)) for r in roundings_of(op.requantization))
    rounding, packed = next((found for found in packings if found[1] is not None), ("", None))
    if packed is None:
        return None
    room = -(-((along.outputs - 1) * op.stride[0] + SIZE) // 2) * 2
    shape = np.array([
        across.inputs, along.inputs, across.step, along.step, across.outputs, along.outputs, across.out_step,
        along.out_step, across.before, along.before, op.stride[0], channels, room,
    ], np.int32)  # fmt: skip
    size, out = prod(x.shape[1:]), prod(site.outputs[0].shape[1:])
    name = f"edgec_depth_image_{op.stride[0]}" + ("_tflite" if rounding == "tflite" else "")
    where = f"T.address_of(x[n * {size}]), shape.data, w.data, T.address_of(y[n * {out}])"
    lines = [f'T.call_extern("void", "{name}", {where}, lines.data, {op.pad_value})']
    lines += clamp_lines(op.requantization, out, "n", out)
    body = "\n".join([f"for n in T.serial({x.shape[0]}):", *(f"    {line}" for line in lines)])
    params = (
        ("x", (x.size,), "int8"), ("w", packed.shape, "int32"), ("shape", shape.shape, "int32"),
        ("y", (site.outputs[0].size,), "int8"), ("lines", (16 * room,), "int16"),
    )  # fmt: skip
    # A line is read before it is written, and of columns none but its own: so may rows that are fewer than were read.
    (h, v), (oh, ow) = x.shape[1:3], site.outputs[0].shape[1:3]
    overlay = x.shape[0] == 1 and oh <= h and (ow == v or (ow < v and not turned))
    return Kernel(
        body, params, {"w": packed, "shape": shape}, (2, 3, 4), scratch=32 * room, inplace=(0,), overlay=overlay
    )
