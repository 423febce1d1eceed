"""Integer linear layers, and the LMU's memory as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from edgec.ir.types import DType, TensorType
from edgec.ops.base import Array, Cost, Kernel, Op, Param, Site, ctype, indent, need
from edgec.ops.integer.requantize import (
    IntegerLayer,
    Requantizing,
    accumulator,
    element,
    exact,
    rows_of,
    to_an_octet,
    weight,
    weight_array,
)
from edgec.ops.lowering.sums import Sum, nest
from edgec.ops.shape import Reshape
from edgec.ops.timeline import HistoryToFeatures


@dataclass(frozen=True)
class QLinear(IntegerLayer):
    """acc[..., o] = sum_i x[..., i] w[i, o] + bias[o] in int32; the zero point of x is folded into the bias.

    `spike_rate` is the share of spikes in x during calibration: kernels are chosen by it.
    """

    name: ClassVar[str] = "qlinear"
    axes: ClassVar[Any] = "...i,io,o->...o"
    examples: ClassVar[tuple[str, ...]] = ("int8[2,5,3] t1, int8[3,4], int32[4]", "bit[2,3], int4[3,2], int32[2]")
    spike_rate: float | None = field(default=None, kw_only=True)

    @property
    def requantizing(self) -> type[Any]:
        return QLinearRequantize

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, w, bias = types
        need(len(w.shape) == 2 and x.shape[-1] == w.shape[0], f"x [..., {x.shape[-1]}] does not fit w {w.shape}")
        need(bias.shape == (w.shape[1],) and bias.dtype is DType.I32, f"expected int32 bias of shape ({w.shape[1]},)")
        return (accumulator((*x.shape[:-1], w.shape[1]), x, w),)

    def sums(self, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return (exact(x) @ exact(w)).to(torch.int64) + bias

    def lower(self, site: Site) -> Kernel:
        lines, params, consts = self.products(site, "y[r, {o}]")
        rows, outputs = params[0][1][0], site.inputs[1].shape[1]
        body = "\n".join(nest([("r", rows)], lines))
        return Kernel(body, (*params, ("y", (rows, outputs), "int32")), consts)

    def products(self, site: Site, total: str) -> tuple[list[str], tuple[Param, ...], dict[str, Array]]:
        """Of a kernel: the lines for row r of x, whose sum of output {o} goes to `total`, and what it takes."""
        x, w = site.inputs[:2]
        shared, update = f"xi: T.let[T.int32] = {element(x, 'r', 'i')}", f"{{acc}} + xi * {weight(w, 'i', '{o}')}"
        sums = Sum("int32", "bias[{o}]", update, total + " = {acc}", [("i", str(w.shape[0]))], [shared])
        weights, consts = weight_array(site)
        params = (("x", rows_of(x), ctype(x.dtype)), weights, ("bias", (w.shape[1],), "int32"))
        return sums.blocks(w.shape[1], step=to_an_octet(w)), params, consts

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(outputs[0].size * inputs[1].shape[0])


@dataclass(frozen=True)
class QLinearRequantize(Requantizing, QLinear):
    """QLinear on int8 whose accumulators are requantised row by row: operands x, w, bias, multiplier [O], shift [O].

    The accumulators of one row are all that exists at a time.
    """

    name: ClassVar[str] = "qlinear_requantize"
    examples: ClassVar[tuple[str, ...]] = (
        "int8[2,5,3] t1, int8[3,4], int32[4], int32[4], int32[4]",
        "int4[2,3], int4[3,2], int32[2], int32[1], int32[1]",
    )

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x = types[0]
        need(x.dtype in (DType.I4, DType.I8), f"expected int4 or int8, found {x.dtype.value}")
        return super().infer(types)

    def lower(self, site: Site) -> Kernel:
        lines, params, consts = self.products(site, "total[{o}]")
        rows, outputs, multiplier = params[0][1][0], site.inputs[1].shape[1], site.inputs[3]
        channel = "o" if multiplier.size > 1 else "0"
        finish = self.requantization.element_lines("total[o]", channel, "y[r, o]")
        body = nest([("r", rows)], [*lines, f"for o in T.serial({outputs}):", *indent(finish)], order="serial")
        scales = tuple((name, multiplier.shape, "int32") for name in ("multiplier", "shift"))
        params = (*params, *scales, ("y", (rows, outputs), self.dtype), ("total", (outputs,), "int32"))
        return Kernel("\n".join(body), params, consts, scratch=4 * outputs)


@dataclass(frozen=True)
class QLmuFir(Op):
    """FIR form of the LMU memory on integers: u [B,T,1] int8 or bit, taps int8 [theta,order], oldest first -> int32.

    `spike_rate` as in QLinear.
    """

    name: ClassVar[str] = "qlmu_fir"
    axes: ClassVar[Any] = "b(t)u,ko->bto"
    examples: ClassVar[tuple[str, ...]] = ("int8[1,5,1] t1, int8[3,2]",)
    spike_rate: float | None = field(default=None, kw_only=True)

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
        op = QLinear(spike_rate=self.spike_rate)
        return step.emit(op, step.emit(HistoryToFeatures(), line), taps, zero)  # type: ignore[no-any-return]

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(outputs[0].size * inputs[1].shape[0])
