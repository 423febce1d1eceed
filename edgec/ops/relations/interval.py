"""What values a tensor can have whatever the input is, element by element, and how an op's result follows from it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch

from edgec.ir.types import TensorType


@dataclass(frozen=True)
class Interval:
    """lo <= value <= hi element by element, int64, or float32 with infinities; the time axis has extent 1."""

    lo: torch.Tensor
    hi: torch.Tensor

    @property
    def known(self) -> torch.Tensor:
        """Where the value does not depend on the input."""
        return self.lo == self.hi

    @property
    def ends(self) -> tuple[torch.Tensor, ...]:
        return (self.lo,) if self.lo is self.hi else (self.lo, self.hi)


def one_frame(t: TensorType) -> tuple[int, ...]:
    """The shape with one frame."""
    return tuple(1 if k == t.time_axis else n for k, n in enumerate(t.shape))


def moved(op: Any, operands: Sequence[Interval]) -> Interval:
    """Of an op that moves elements: the ends move alike."""
    return Interval(op.reference(*(i.lo for i in operands)), op.reference(*(i.hi for i in operands)))


def corners(op: Any, operands: Sequence[Interval]) -> Interval:
    """Of an op that is monotone in each operand, in a direction that the others may decide."""
    found = [op.reference(*corner) for corner in itertools.product(*(i.ends for i in operands))]
    return Interval(reduce(torch.minimum, found), reduce(torch.maximum, found))


def weighted(
    sums: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor], x: Interval, w: Interval, bias: Interval
) -> Interval | None:
    """Of sums of products with known weights: the positive and the negative ones each take their end of x."""
    if not (w.known.all() and bias.known.all()):
        return None
    up, down, none = w.lo.clamp(min=0), w.lo.clamp(max=0), torch.zeros_like(bias.lo)
    return Interval(*(sums(a, up, bias.lo) + sums(b, down, none) for a, b in ((x.lo, x.hi), (x.hi, x.lo))))


def unweighted(level: torch.Tensor, w: Interval, shape: Sequence[int]) -> Interval | None:
    """Of float sums of products, which are known only where all weights are zero: `level` of each output then."""
    zero = (w.known & (w.lo == 0)).flatten(0, -2).all(0)
    ends = (torch.where(zero, level, torch.full_like(level, v)) for v in (-torch.inf, torch.inf))
    return Interval(*(e.expand(*shape) for e in ends))
