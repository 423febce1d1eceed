"""Placement of buffers with lifetimes in one arena: greedy, then exact where that misses the lower bound."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ALIGN = 8
MAX_PAIRS = 1500  # buffers alive together beyond which no solver is asked
MAX_NODES = 2000  # of the solver's search: a bound in work, not in time, so that every run gives the same arena


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
    change: dict[int, int] = defaultdict(int)
    for b in buffers:
        change[b.first] += b.padded
        change[b.last + 1] -= b.padded
    return max(itertools.accumulate(change[t] for t in sorted(change)), default=0)


def _gap(met: Iterable[tuple[int, Buffer]], buffer: Buffer) -> int:
    """The lowest offset at which the buffer meets none of those, placed and alive at the same time."""
    offset = 0
    for at, other in sorted(met, key=lambda p: (p[0], p[1].name)):
        if at >= offset + buffer.padded:
            break
        offset = max(offset, at + other.padded)
    return offset


@dataclass(frozen=True)
class Placement:
    """Arena bytes, the offset of each buffer, and what no placement can be smaller than."""

    bytes: int
    offsets: Mapping[str, int]
    lower_bound: int


def _first_fit(order: Sequence[Buffer], bound: int) -> Placement:
    """Each buffer in turn as low as it goes. One of the orders gives an optimal placement: that of its offsets."""
    offsets: dict[str, int] = {}
    alive: dict[int, list[tuple[int, Buffer]]] = defaultdict(list)  # by step; all pairs would be quadratic in buffers
    for buffer in order:
        life = range(buffer.first, buffer.last + 1)
        met = {other.name: (at, other) for step in life for at, other in alive[step]}
        offsets[buffer.name] = _gap(met.values(), buffer)
        for step in life:
            alive[step].append((offsets[buffer.name], buffer))
    total = max((offsets[b.name] + b.padded for b in order), default=0)
    return Placement(total, offsets, bound)


def place(buffers: Sequence[Buffer]) -> Placement:
    """The best of three greedy orders; where that is above the lower bound, what a bounded exact search finds."""
    by_size = sorted(buffers, key=lambda b: (-b.padded, b.first, b.name))
    by_length = sorted(buffers, key=lambda b: (-(b.last - b.first), -b.padded, b.name))
    by_area = sorted(buffers, key=lambda b: (-(b.last - b.first + 1) * b.padded, b.first, b.name))
    bound = lower_bound(buffers)
    greedy = min((_first_fit(order, bound) for order in (by_size, by_length, by_area)), key=lambda p: p.bytes)
    return greedy if greedy.bytes == bound else _search(buffers, greedy)


def _search(buffers: Sequence[Buffer], greedy: Placement) -> Placement:
    """A mixed integer program: offsets, and for every pair alive together which of the two lies below.

    Its solution gives an order to place by, so that rounding in the solver cannot make an offset wrong.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    n, limit, least = len(buffers), greedy.bytes // ALIGN, greedy.lower_bound // ALIGN
    pairs = [(i, j) for i in range(n) for j in range(i) if buffers[i].overlaps(buffers[j])]
    if len(pairs) > MAX_PAIRS:
        return greedy
    size = [b.padded // ALIGN for b in buffers]
    rows: list[tuple[dict[int, int], int]] = [({n: 1, i: -1}, size[i]) for i in range(n)]  # variable n is the arena
    for k, (i, j) in enumerate(pairs, n + 1):  # variable k: 1 where i lies below j
        rows.append(({j: 1, i: -1, k: -limit}, size[i] - limit))
        rows.append(({i: 1, j: -1, k: limit}, size[j]))
    at = [(r, c, v) for r, (terms, _) in enumerate(rows) for c, v in terms.items()]
    r, c, v = zip(*at, strict=True)
    ones, free = np.ones(len(pairs)), np.zeros(n)
    found = milp(
        np.eye(n + 1 + len(pairs))[n],
        integrality=np.concatenate([free, [0], ones]),
        bounds=Bounds(np.concatenate([free, [least], 0 * ones]), np.concatenate([free + limit, [limit], ones])),
        constraints=LinearConstraint(csr_array((v, (r, c))), np.array([low for _, low in rows]), np.inf),
        options={"node_limit": MAX_NODES},
    )
    proved = found.mip_dual_bound
    bound = greedy.lower_bound
    if proved is not None and math.isfinite(proved):
        bound = min(max(bound, math.ceil(proved - 1e-4) * ALIGN), greedy.bytes)
    if found.x is None:
        return Placement(greedy.bytes, greedy.offsets, bound)
    order = sorted(range(n), key=lambda k: (round(found.x[k], 3), buffers[k].name))
    exact = _first_fit([buffers[k] for k in order], bound)
    return min(exact, Placement(greedy.bytes, greedy.offsets, bound), key=lambda p: p.bytes)
