"""Integer linear layer with its requantisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from edgec.ir.types import DType, TensorType
from edgec.ops.base import Kernel, Site, need
from edgec.ops.quantized import QLinear, Requantizing, weight, weight_array


@dataclass(frozen=True)
class QLinearRequantize(Requantizing, QLinear):
    """QLinear on int8 whose accumulators are requantised row by row: operands x, w, bias, multiplier [O], shift [O].

    The accumulators of one row are all that exists at a time.
    """

    name: ClassVar[str] = "qlinear_requantize"

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x = types[0]
        need(x.dtype in (DType.I4, DType.I8), f"expected int4 or int8, found {x.dtype.value}")
        return super().infer(types)

    def lower(self, site: Site) -> Kernel:
        x, w, _, multiplier, _ = site.inputs
        (inputs, outputs), rows = w.shape, prod(x.shape[:-1])
        lines = self.requantization.element_lines("total[o]", "o" if multiplier.size > 1 else "0", "y[r, o]")
        finish = "\n".join(f"        {line}" for line in lines)
        body = f"""for r in T.serial({rows}):
    for o in T.serial({outputs}):
        total[o] = bias[o]
        for i in T.serial({inputs}):
            total[o] = total[o] + T.cast(x[r, i], "int32") * {weight(w, "i", "o")}
    for o in T.serial({outputs}):
{finish}"""
        scales = tuple((name, multiplier.shape, "int32") for name in ("multiplier", "shift"))
        weights, packed = weight_array(site)
        params = (("x", (rows, inputs), "int8"), weights, ("bias", (outputs,), "int32"), *scales)
        y = ("y", (rows, outputs), self.dtype)
        return Kernel(body, (*params, y, ("total", (outputs,), "int32")), packed, scratch=4 * outputs)
