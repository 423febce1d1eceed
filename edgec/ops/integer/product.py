"""Products of two computed integer tensors: matrix product and elementwise product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch

from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops.base import Cost, Kernel, Op, Site, need, same_time
from edgec.ops.integer.requantize import clamped, exact
from edgec.ops.lowering.loops import broadcast_shape, loop_nest, position

COLUMNS = 4  # outputs that the generic matrix kernel computes at a time, in registers
STORED = (DType.I8, DType.I16)


@dataclass(frozen=True)
class QMatMul(Op):
    """acc[..., m, n] = sum_k (a[..., m, k] - za) (b[..., k, n] - zb) in int32; with transpose_b: b[..., n, k].

    a is int8 or int16, b int8; `scale` is what a unit of acc stands for. The pass that makes one proves that no partial
    sum leaves int32.
    """

    name: ClassVar[str] = "qmatmul"
    examples: ClassVar[tuple[str, ...]] = (
        "int8[2,3,4], int8[2,4,5] {za=3,zb=-2}",
        "int16[2,3,4], int8[2,5,4] {transpose_b=True}",
    )
    transpose_b: bool = False
    za: int = 0
    zb: int = 0
    scale: float = 1.0

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        a, b = types
        need(a.dtype in STORED, f"expected int8 or int16 on the left, found {a.dtype.value}")
        need(b.dtype is DType.I8, f"expected int8 on the right, found {b.dtype.value}")
        need(len(a.shape) == len(b.shape) >= 2, f"shapes {a.shape} and {b.shape} do not multiply")
        k, n = (b.shape[-1], b.shape[-2]) if self.transpose_b else (b.shape[-2], b.shape[-1])
        need(a.shape[:-2] == b.shape[:-2] and a.shape[-1] == k, f"shapes {a.shape} and {b.shape} do not multiply")
        return (TensorType((*a.shape[:-1], n), DType.I32, QuantParams((self.scale,)), same_time(types)),)

    def axes(self, types: Sequence[TensorType]) -> str:
        return f"...mk,...{'nk' if self.transpose_b else 'kn'}->...mn"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        a, b = exact(tensors[0] - self.za), exact(tensors[1] - self.zb)
        return (a @ (b.transpose(-1, -2) if self.transpose_b else b)).to(torch.int64)

    def lower(self, site: Site) -> Kernel:
        a, n = site.inputs[0], site.outputs[0].shape[-1]
        (m, k), batch = a.shape[-2:], prod(a.shape[:-2])
        rows, (full, rest) = batch * m, divmod(n, COLUMNS)
        b_shape = (batch, n, k) if self.transpose_b else (batch, k, n)

        def block(first: str, count: int) -> list[str]:
            names = [f"acc{j}" for j in range(count)]
            columns = [f"{first} + {j}" for j in range(count)]
            at = [f"{c}, k" if self.transpose_b else f"k, {c}" for c in columns]
            left = 'T.cast(a[r, k], "int32")' + (f" - T.int32({self.za})" if self.za else "")
            lines = [*(f'{acc} = T.alloc_buffer((1,), "int32")' for acc in names), *(f"{acc}[0] = 0" for acc in names)]
            lines += [f"for k in T.serial({k}):", f"    left: T.let[T.int32] = {left}"]
            lines += [
                f'    {acc}[0] = {acc}[0] + left * T.cast(b[r // {m}, {j}], "int32")'
                for acc, j in zip(names, at, strict=True)
            ]
            correction = f" - T.int32({self.zb}) * total[0]" if self.zb else ""
            return lines + [f"y[r, {c}] = {acc}[0]{correction}" for acc, c in zip(names, columns, strict=True)]

        lines = [f"for r in T.parallel({rows}):"]
        if self.zb:
            summed = f'total[0] + T.cast(a[r, k], "int32") - T.int32({self.za})'
            lines += ['    total = T.alloc_buffer((1,), "int32")', "    total[0] = 0"]
            lines += [f"    for k in T.serial({k}):", f"        total[0] = {summed}"]
        if full:
            lines += [f"    for j in T.serial({full}):", *(f"        {s}" for s in block(f"j * {COLUMNS}", COLUMNS))]
        lines += [f"    {s}" for s in block(str(full * COLUMNS), rest)] if rest else []
        params = (("a", (rows, k), a.dtype.value), ("b", b_shape, "int8"), ("y", (rows, n), "int32"))
        return Kernel("\n".join(lines), params)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(outputs[0].size * inputs[0].shape[-1])


@dataclass(frozen=True)
class QMul(Op):
    """y = clamp(zero_point + ((a - za) * (b - zb) * multiplier + 2**(shift-1)) / 2**shift, lo, hi), broadcasting."""

    name: ClassVar[str] = "qmul"
    axes: ClassVar[Any] = "...,...->..."
    monotone: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "int8[2,3,4], int8[4] {za=2,shift=4}",
        "int16[2,3,4], int16[2,3,4] {shift=15}",
    )
    inplace: ClassVar[tuple[int, ...]] = (0, 1)
    dtype: str = "int16"
    scale: float = 1.0
    zero_point: int = 0
    za: int = 0
    zb: int = 0
    multiplier: int = 1
    shift: int = 1
    lo: int = -32768
    hi: int = 32767

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        a, b = types
        need(a.dtype in STORED and b.dtype in STORED, f"expected int8 or int16, found {a.dtype.value}, {b.dtype.value}")
        need(0 <= self.multiplier < 1 << 31 and 1 <= self.shift <= 62, "multiplier or shift out of range")
        reach = prod(max(z - t.dtype.range[0], t.dtype.range[1] - z) for t, z in ((a, self.za), (b, self.zb)))
        need(reach * self.multiplier + (1 << self.shift - 1) < 1 << 63, "the product leaves the int64 range")
        shape, quant = broadcast_shape(a, b), QuantParams((self.scale,), self.zero_point)
        return (TensorType(shape, DType(self.dtype), quant, same_time(types)),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        product = (tensors[0] - self.za) * (tensors[1] - self.zb) * self.multiplier
        return ((product + (1 << self.shift - 1) >> self.shift) + self.zero_point).clamp(self.lo, self.hi)

    def lower(self, site: Site) -> Kernel:
        """Without zero points the product of two operands fits 32 bits."""
        (a, b), (y,) = site.inputs, site.outputs
        shape: tuple[int, ...]
        if a.shape == b.shape:
            shape, at = (y.size,), dict.fromkeys("aby", "i0")
        else:
            shape = y.shape
            at = {name: position(t.shape, y.shape) for name, t in (("a", a), ("b", b), ("y", y))}
        left, right = (
            f'(T.cast({v}[{at[v]}], "int32")' + (f" - T.int32({z}))" if z else ")")
            for v, z in (("a", self.za), ("b", self.zb))
        )
        product = f"{left} * {right}"
        if max(abs(self.za), abs(self.zb)):
            product = f'T.cast({left}, "int64") * T.cast({right}, "int64")'
        raised = f'T.cast({product}, "int64") * T.int64({self.multiplier}) + T.int64({1 << self.shift - 1})'
        scaled = f"T.shift_right({raised}, T.int64({self.shift})) + T.int64({self.zero_point})"
        value = clamped(scaled, self.lo, self.hi, DType(self.dtype), "int64")
        body, _ = loop_nest(shape, f"y[{at['y']}] = {value}")
        params = (("a", (a.size,), a.dtype.value), ("b", (b.size,), b.dtype.value), ("y", (y.size,), self.dtype))
        return Kernel(body, params)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(outputs[0].size)
