"""Normalisation whose statistics come from the data: layer norm. (Batch norm at inference is an affine map.)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from edgec.ir.graph import Node
from edgec.ir.types import DType, TensorType
from edgec.ops.base import Kernel, Op, Reads, Site, need
from edgec.ops.integer.build import Builder
from edgec.ops.integer.norm import EPS_LIMIT, MAX_CHANNELS, QLayerNorm, channel_maps
from edgec.ops.integer.numbers import Refusal


@dataclass(frozen=True)
class LayerNorm(Op):
    """y = (x - mean) / sqrt(var + eps) * scale + shift over the last axis; var is the biased variance."""

    name: ClassVar[str] = "layer_norm"
    reads: ClassVar[Reads] = Reads.NORMED
    axes: ClassVar[Any] = "...i,(c),(c)->...c"
    examples: ClassVar[tuple[str, ...]] = ("float32[2,3,4] t1, float32[4], float32[4]",)
    eps: float = 1e-5

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, scale, shift = types
        need(x.dtype is DType.F32, f"expected float32, found {x.dtype.value}")
        need(
            scale.shape == shift.shape == x.shape[-1:],
            f"expected scale and shift of shape {x.shape[-1:]}, found {scale.shape}, {shift.shape}",
        )
        need(x.time_axis != len(x.shape) - 1, "the layer mixes frames: its input's time axis is the feature axis")
        return (replace(x, quant=None),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, scale, shift = tensors
        return F.layer_norm(x, x.shape[-1:], scale, shift, self.eps)

    def lower(self, site: Site) -> Kernel:
        x = site.inputs[0]
        n = x.shape[-1]
        rows, f32 = x.size // n, "float32"
        body = f"""for r in T.serial({rows}):
    mean = T.alloc_buffer((1,), "float32")
    inverse = T.alloc_buffer((1,), "float32")
    mean[0] = T.float32(0)
    for i in T.serial({n}):
        mean[0] = mean[0] + x[r, i]
    mean[0] = mean[0] / T.float32({n})
    inverse[0] = T.float32(0)
    for i in T.serial({n}):
        inverse[0] = inverse[0] + (x[r, i] - mean[0]) * (x[r, i] - mean[0])
    variance: T.let[T.float32] = inverse[0] / T.float32({n})
    inverse[0] = T.float32(1) / T.call_extern("float32", "edgec_sqrtf", variance + T.float32({self.eps!r}))
    for i in T.serial({n}):
        y[r, i] = (x[r, i] - mean[0]) * inverse[0] * scale[i] + shift[i]"""
        params = (
            ("x", (rows, n), f32),
            ("scale", (n,), f32),
            ("shift", (n,), f32),
            ("y", (rows, n), f32),
        )
        return Kernel(body, params)

    def integer(self, b: Builder, node: Node) -> None:
        """int16 (or stored int8) in, int8 out, or int16 where the sum it enters or its readers want that."""
        gamma, beta = b.data(node.inputs[1]), b.data(node.inputs[2])
        if gamma is None or beta is None:
            raise Refusal("its scale and shift are computed, not constant")
        channels = node.type.shape[-1]
        if channels >= MAX_CHANNELS:
            raise Refusal(f"its rows of {channels} elements are too long for exact sums")
        x, (dtype, target) = b.operand(node.inputs[0]), b.plan.stored(node.output)
        eps = min(max(1, round(self.eps * (channels / float(x.scale[0])) ** 2)), EPS_LIMIT)
        multiplier, offset, shift = channel_maps(gamma.astype(np.float64), beta.astype(np.float64), target)
        names = (b.const(node.inputs[1], multiplier), b.const(node.inputs[2], offset))
        op = QLayerNorm(dtype.value, target.scale, target.zero, eps, shift, *dtype.range)
        b.emit(op, (x.tensor, *names), node.outputs)
        b.hold(node.output, node.output, target)
