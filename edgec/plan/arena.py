"""Placement of buffers with lifetimes in one arena: greedy by size, with the lower bound beside the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGN = 8


@dataclass(frozen=True)
class Buffer:
    """A buffer alive from step `first` through step `last` of the execution order."""

    name: str
    size: int
    first: int
    last: int

    @property
    def padded(self) -> int:
        return -(-self.size // ALIGN) * ALIGN

    def overlaps(self, other: Buffer) -> bool:
        return self.first <= other.last and other.first <= self.last


def lower_bound(buffers: Sequence[Buffer]) -> int:
    """The largest sum of bytes alive at one step: no placement can be smaller."""
    steps = {b.first for b in buffers}
    return max((sum(b.padded for b in buffers if b.first <= t <= b.last) for t in steps), default=0)


def _gap(placed: Sequence[tuple[int, Buffer]], buffer: Buffer) -> int:
    """The lowest offset at which the buffer meets no placed buffer alive at the same time."""
    offset = 0
    for at, other in sorted(((a, o) for a, o in placed if o.overlaps(buffer)), key=lambda p: (p[0], p[1].name)):
        if at >= offset + buffer.padded:
            break
        offset = max(offset, at + other.padded)
    return offset


def _greedy(order: Sequence[Buffer]) -> tuple[int, dict[str, int]]:
    placed: list[tuple[int, Buffer]] = []
    for buffer in order:
        placed.append((_gap(placed, buffer), buffer))
    total = max((at + b.padded for at, b in placed), default=0)
    return total, {b.name: at for at, b in placed}


def place(buffers: Sequence[Buffer]) -> tuple[int, dict[str, int]]:
    """Arena bytes and the offset of each buffer: the best of three greedy orders."""
    by_size = sorted(buffers, key=lambda b: (-b.padded, b.first, b.name))
    by_length = sorted(buffers, key=lambda b: (-(b.last - b.first), -b.padded, b.name))
    by_area = sorted(buffers, key=lambda b: (-(b.last - b.first + 1) * b.padded, b.first, b.name))
    return min((_greedy(order) for order in (by_size, by_length, by_area)), key=lambda r: r[0])
