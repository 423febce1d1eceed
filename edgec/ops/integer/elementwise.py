"""Integer elementwise ops beside those of `quantized`: a per-channel affine map of stored activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

import torch

from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops.base import Cost, Kernel, Op, Site, need
from edgec.ops.integer.requantize import within
from edgec.ops.lowering.loops import loop_nest
from edgec.ops.relations.axes import LETTERS, along


@dataclass(frozen=True)
class QAffine(Op):
    """y = clamp(zero_point + ((x * multiplier[c] + offset[c] + 2**(shift-1)) >> shift), lo, hi) in int32 arithmetic.

    x int8 or int16 with its channels c along `axis`; multiplier and offset int32 [C] or [1]. The pass that makes one
    proves that the sum fits.
    """

    name: ClassVar[str] = "qaffine"
    monotone: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "int8[2,3,4], int32[4], int32[4] {shift=8}",
        "int8[2,3,4], int32[3], int32[3] {axis=1,shift=8}",
        "int16[2,3,4], int32[1], int32[1] {dtype='int16',shift=4,lo=-999,hi=999}",
    )
    dtype: str = "int8"
    scale: float = 1.0
    zero_point: int = 0
    shift: int = 1
    lo: int = -128
    hi: int = 127
    axis: int = -1

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, multiplier, offset = types
        need(x.dtype in (DType.I8, DType.I16), f"expected int8 or int16, found {x.dtype.value}")
        need(1 <= self.shift <= 30, f"expected shift in [1, 30], found {self.shift}")
        fits = multiplier.shape == offset.shape and multiplier.shape in ((1,), (x.shape[self.axis],))
        need(fits, f"multiplier {multiplier.shape} and offset {offset.shape} do not fit {x.shape}")
        need(within(self), f"{self.lo} to {self.hi} is more than {self.dtype} holds")
        return (replace(x, dtype=DType(self.dtype), quant=QuantParams((self.scale,), self.zero_point)),)

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        x, c = along(rank, self.axis), LETTERS[self.axis % rank]
        return f"{x},{c},{c}->{x}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, *vectors = tensors
        view = [1] * x.ndim
        view[self.axis] = -1
        multiplier, offset = (v.view(view) for v in vectors)
        total = x * multiplier + offset + (1 << (self.shift - 1))
        return ((total >> self.shift) + self.zero_point).clamp(self.lo, self.hi)

    def lower(self, site: Site) -> Kernel:
        x, multiplier, _ = site.inputs
        axis, c = self.axis % len(x.shape), multiplier.size
        shape = (prod(x.shape[:axis]), c, prod(x.shape[axis + 1 :])) if c > 1 else (1, 1, x.size)
        half = f"T.int32({1 << (self.shift - 1)})"
        value = f'T.cast(x[i0, i1, i2], "int32") * multiplier[i1] + offset[i1] + {half}'
        moved = f"T.shift_right({value}, T.int32({self.shift})) + T.int32({self.zero_point})"
        clamped = f"T.min(T.max({moved}, T.int32({self.lo})), T.int32({self.hi}))"
        body, _ = loop_nest(shape, f'y[i0, i1, i2] = T.cast({clamped}, "{self.dtype}")')
        vec = ((c,), "int32")
        params = (("x", shape, x.dtype.value), ("multiplier", *vec), ("offset", *vec), ("y", shape, self.dtype))
        return Kernel(body, params)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(outputs[0].size)
