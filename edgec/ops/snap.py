"""The grid of a tensor: which real numbers its integers can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

from edgec.ir.graph import Node
from edgec.ir.types import DType, TensorType
from edgec.ops.base import need
from edgec.ops.elementwise import Unary
from edgec.ops.integer.build import Builder
from edgec.ops.integer.numbers import Scale
from edgec.ops.language.expression import Term, parse


@dataclass(frozen=True)
class Snap(Unary):
    """scale * (clip(rint(x / scale) + zero) - zero) in float32: the nearest number that an integer of `dtype` holds at
    one scale, half to even (ONNX: QuantizeLinear, then DequantizeLinear).

    A float graph in which every tensor passes one says all that its integer form needs to know.
    """

    name: ClassVar[str] = "snap"
    examples: ClassVar[tuple[str, ...]] = ("float32[2,3,4] {scale=0.1,zero=-3}", "float32[9] {dtype='int16'}")
    dtype: str = "int8"
    scale: float = 1.0
    zero: int = 0

    @property
    def varies(self) -> tuple[float, float]:
        return -inf, inf  # its ends are steps: integers are clamped where they are stored

    @property
    def grid(self) -> Scale:
        return Scale(self.scale, self.zero, "even")

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        lo, hi = DType(self.dtype).range
        need(self.dtype in ("int8", "int16"), f"expected int8 or int16, found {self.dtype}")
        need(self.scale > 0 and lo <= self.zero <= hi, f"scale {self.scale:g} and zero {self.zero} are out of range")
        return super().infer(types)

    def expression(self) -> Term:
        lo, hi = (float(end - self.zero) for end in DType(self.dtype).range)
        return parse(f"round(min(max(a / {self.scale!r}, {lo}), {hi})) * {self.scale!r}")

    def integer(self, b: Builder, node: Node) -> None:
        """The tensor's integers at this scale."""
        x = b.store(node.inputs[0], DType(self.dtype), self.grid)
        b.sources[node.output] = replace(x, origin=node.output)
