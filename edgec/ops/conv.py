"""Convolutions, channels last: x [B,T,C] with w [K,C/groups,O]; x [B,H,W,C] with w [KH,KW,C/groups,O]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from edgec.ir.graph import Node
from edgec.ir.types import DType, TensorType
from edgec.ops.base import Cost, Kernel, Reads, Site, need
from edgec.ops.elementwise import activate, activation_lines, check_activation
from edgec.ops.integer.build import Builder
from edgec.ops.integer.conv import QConv1d, QConv2d
from edgec.ops.integer.layer import layer, read
from edgec.ops.layer import FloatLayer
from edgec.ops.lowering.sums import Axis, Filter, Window, line_of, window_of
from edgec.ops.lowering.window import conv_axes, out_extent


def float_convolution(window: Window, weights: tuple[int, ...], groups: int, activation: str) -> Kernel:
    """The kernel of a float convolution with weights [KH,KW,C/groups,O]."""
    kh, kw, inputs, outputs = weights
    element, y = f"x[{{row}}, {{col}} * {window.channels} + {{c}}]", f"y[{window.position}, {{o}}]"
    products = Filter(window, (kh, kw, inputs, outputs), groups, element, "w[p, {k}, {o}]")
    lines = products.nest("float32", "bias[{o}]", y + " = {acc}", activation_lines(activation, y))
    params = (
        ("x", window.x_shape, "float32"), ("w", (kh, kw * inputs, outputs), "float32"),
        ("bias", (outputs,), "float32"), ("y", (window.count, outputs), "float32"),
    )  # fmt: skip
    return Kernel("\n".join(lines), params)


@dataclass(frozen=True)
class Conv1d(FloatLayer):
    """1-D convolution over time or any other axis: x [B,T,C], w [K,C/groups,O], bias [O] -> [B,T',O]."""

    name: ClassVar[str] = "conv1d"
    reads: ClassVar[Reads] = Reads.FRAMES
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,6,3] t1, float32[3,3,4], float32[4] {pad=(2,1),stride=2}",
        "float32[2,7,4], float32[2,1,4], float32[4] {groups=4,dilation=2}",
        "float32[2,5,4], float32[2,2,6], float32[6] {groups=2}",
    )
    stride: int = 1
    pad: tuple[int, int] = (0, 0)
    dilation: int = 1
    groups: int = 1
    activation: str = ""

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, w, bias = types
        need(
            len(x.shape) == 3 and len(w.shape) == 3, f"expected x [B,T,C] and w [K,C,O], found {x.shape} and {w.shape}"
        )
        need(
            x.shape[2] == w.shape[1] * self.groups, f"x has {x.shape[2]} channels, w expects {w.shape[1] * self.groups}"
        )
        check_activation(self.activation)
        need(bias.shape == (w.shape[2],), f"expected bias of shape ({w.shape[2]},), found {bias.shape}")
        frames = out_extent(x.shape[1], w.shape[0], self.stride, self.pad, self.dilation)
        return (TensorType((x.shape[0], frames, w.shape[2]), DType.F32, None, x.time_axis),)

    def axes(self, types: Sequence[TensorType]) -> str:
        return conv_axes("t", self.groups, types[1])

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, w, bias = tensors
        x = F.pad(x.transpose(1, 2), self.pad)
        y = F.conv1d(x, w.permute(2, 1, 0), bias, self.stride, 0, self.dilation, self.groups)
        return activate(y.transpose(1, 2), self.activation)

    def stream(self, step: Any, x: str, w: str, bias: str) -> str:
        """History of the filter's span, then the filter at one position; right padding is delay."""
        if step.type_of(x).time_axis != 1:  # the filter runs along another axis: frames do not mix
            return step.emit(self, x, w, bias)  # type: ignore[no-any-return]
        span = self.dilation * (step.type_of(w).shape[0] - 1) + 1
        window = step.delay_line(x, length=span, left=self.pad[0], right=self.pad[1], stride=self.stride)
        return step.emit(replace(self, pad=(0, 0), stride=1), window, w, bias)  # type: ignore[no-any-return]

    def lower(self, site: Site) -> Kernel:
        (b, t, c), (k, cg, o) = site.inputs[0].shape, site.inputs[1].shape
        frames = site.outputs[0].shape[1]
        window = line_of(b, Axis(t, frames, k, self.stride, self.pad[0], self.dilation), c)
        return float_convolution(window, (1, k, cg, o), self.groups, self.activation)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        k, cg, _ = inputs[1].shape
        return Cost(outputs[0].size * k * cg)

    def integer(self, b: Builder, node: Node) -> None:
        """Padding is the zero point, so that folding it into the bias is exact at the border too. Along an axis that is
        not time it is a convolution of a line, and reads spikes as `Conv2d` does."""
        x = read(b, node)
        if b.types[x.tensor].time_axis != 1:
            x = b.widened(x)
        layer(b, node, x, QConv1d(self.stride, self.pad, self.dilation, self.groups, pad_value=x.zero))


@dataclass(frozen=True)
class Conv2d(FloatLayer):
    """2-D convolution: x [B,H,W,C], w [KH,KW,C/groups,O], bias [O] -> [B,H',W',O]."""

    name: ClassVar[str] = "conv2d"
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,5,4,3] t0, float32[3,2,3,4], float32[4] {pad=(1,1,0,1),stride=(2,1)}",
        "float32[1,4,4,3], float32[2,2,1,3], float32[3] {groups=3}",
        "float32[1,3,3,4], float32[2,2,2,6], float32[6] {groups=2}",
    )
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    activation: str = ""

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, w, bias = types
        need(
            len(x.shape) == 4 and len(w.shape) == 4,
            f"expected x [B,H,W,C] and w [KH,KW,C,O], found {x.shape} and {w.shape}",
        )
        need(
            x.shape[3] == w.shape[2] * self.groups, f"x has {x.shape[3]} channels, w expects {w.shape[2] * self.groups}"
        )
        check_activation(self.activation)
        need(bias.shape == (w.shape[3],), f"expected bias of shape ({w.shape[3]},), found {bias.shape}")
        need(x.time_axis in (None, 0), "a 2-D convolution does not run along time: time is the batch axis or absent")
        h = out_extent(x.shape[1], w.shape[0], self.stride[0], self.pad[:2], self.dilation[0])
        v = out_extent(x.shape[2], w.shape[1], self.stride[1], self.pad[2:], self.dilation[1])
        return (TensorType((x.shape[0], h, v, w.shape[3]), DType.F32, None, x.time_axis),)

    def axes(self, types: Sequence[TensorType]) -> str:
        return conv_axes("hw", self.groups, types[1])

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, w, bias = tensors
        top, bottom, left, right = self.pad
        x = F.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom))
        y = F.conv2d(x, w.permute(3, 2, 0, 1), bias, self.stride, 0, self.dilation, self.groups)
        return activate(y.permute(0, 2, 3, 1), self.activation)

    def lower(self, site: Site) -> Kernel:
        window = window_of(site, site.inputs[1].shape[:2], self.stride, self.pad, self.dilation)
        return float_convolution(window, site.inputs[1].shape, self.groups, self.activation)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        kh, kw, cg, _ = inputs[1].shape
        return Cost(outputs[0].size * kh * kw * cg)

    def integer(self, b: Builder, node: Node) -> None:
        """As `Conv1d`; spikes are read as int8: no kernel gathers windows of packed ones."""
        x = b.widened(read(b, node))
        layer(b, node, x, QConv2d(self.stride, self.pad, self.dilation, self.groups, pad_value=x.zero))
