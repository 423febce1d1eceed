"""What float layers share: x [..., I] with weights w [..., I/groups, O], and a bias [O]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from edgec.ir.types import TensorType
from edgec.ops.base import Op
from edgec.ops.elementwise import ACTIVATIONS, activate
from edgec.ops.relations.interval import Interval, one_frame, unweighted


class FloatLayer(Op):
    """A layer of floats, which can apply an activation to its sums."""

    is_layer: ClassVar[bool] = True
    activation: str  # a field of the subclasses

    @property
    def eight_bits(self) -> str:
        return "a convolution with groups has weights of 8 bits" if getattr(self, "groups", 1) != 1 else ""

    def taking(self, after: Op, types: Sequence[TensorType]) -> Op | None:
        fits = not self.activation and after.name in ACTIVATIONS
        return replace(self, activation=after.name) if fits else None  # type: ignore[call-arg]

    def interval(self, types: Sequence[TensorType], operands: Sequence[Interval]) -> Interval | None:
        """Known is what reads nothing: its bias, if that is known."""
        _, w, bias = operands
        level = activate(bias.lo, self.activation)
        return unweighted(level, w, one_frame(self.infer(types)[0])) if bias.known.all() else None
