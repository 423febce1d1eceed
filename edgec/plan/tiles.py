"""A chain of layers computed a few rows at a time: which rows each step makes, and which it keeps for the next.

Tensor 0 is the chain's input, tensor l + 1 the output of layer l; all are images [1,H,W,C]. A tensor between two layers
exists only as a tile: a buffer for the rows that the layer behind it reads in one step. The rows which the next step
reads again move to its front, so nothing is computed twice; strips of columns, which save more, overlap at their edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgec.ir.types import TensorType
from edgec.ops.base import Part
from edgec.ops.relations.axes import part_of

Span = tuple[int, int]  # [first, last)


@dataclass(frozen=True)
class Keep:
    """Rows of a tile from `start` on move to row `to` of it."""

    tensor: int
    start: int
    to: int
    count: int


@dataclass(frozen=True)
class Make:
    """Layer `layer` as `op` reads `rows` rows from `read` on and makes `made` rows from `write` on; rows of a tile, or
    of the whole tensor where it exists. `cols` are the columns read, `wide` those made."""

    layer: int
    op: Any
    read: int
    rows: int
    cols: Span
    write: int
    made: int
    wide: Span


@dataclass(frozen=True)
class Fetch:
    """Rows [first, first + count) of the chain's input, within its columns, are copied to row `to` of its tile."""

    first: int
    count: int
    to: int


@dataclass(frozen=True)
class Store:
    """The rows made in this step are copied to rows [first, first + count) of the chain's output."""

    first: int
    count: int


Action = Keep | Make | Fetch | Store
Step = tuple[Action, ...]


@dataclass(frozen=True)
class Layer:
    """One layer of a chain: its op and the types of all its inputs, the image first, and of its output."""

    op: Any
    inputs: tuple[TensorType, ...]
    output: TensorType


@dataclass(frozen=True)
class Schedule:
    """The steps of one strip, rows and columns of every tile (of tensor 0 and the last only where strips copy them)."""

    steps: tuple[Step, ...]
    capacity: tuple[int, ...]
    cols: tuple[Span, ...]


def part(layer: Layer, rows: Span, cols: Span) -> Part:
    """A layer for some rows and columns of its output; every layer of a chain has that."""
    found = part_of(layer.op, layer.inputs, rows, cols)
    assert found is not None
    return found


def columns(layers: Sequence[Layer], strip: Span) -> tuple[Span, ...]:
    """The columns of each tensor that a strip of the output needs."""
    spans = [strip]
    for layer in reversed(layers):
        made = layer.output.shape[1]
        spans.append(part(layer, (0, made), spans[-1]).cols)
    return tuple(reversed(spans))


def schedule(layers: Sequence[Layer], rows: int, strip: Span | None = None) -> Schedule:
    """The steps that make the output `rows` rows at a time, all its columns or a strip of them."""
    count, height = len(layers), layers[-1].output.shape[1]
    cols = columns(layers, strip or (0, layers[-1].output.shape[2]))
    done, base = [0] * (count + 1), [0] * (count + 1)  # of each tile: rows made so far, the row at its front
    capacity, steps = [0] * (count + 1), []
    for first in range(0, height, rows):
        wanted: Span = (first, min(first + rows, height))
        made: list[Span] = [wanted]
        parts: list[Any] = []
        for at in range(count - 1, -1, -1):
            found = None
            if wanted[0] < wanted[1]:
                found = part(layers[at], wanted, cols[at + 1])
                wanted = max(done[at], found.rows[0]), found.rows[1]
            else:
                wanted = (done[at], done[at])
            parts.insert(0, found)
            made.insert(0, wanted)
        steps.append(_step(layers, cols, parts, made, done, base, capacity, strip is not None))
        done = [max(d, m[1]) for d, m in zip(done, made, strict=True)]
    return Schedule(tuple(steps), tuple(capacity), cols)


def _step(
    layers: Sequence[Layer], cols: tuple[Span, ...], parts: list[Any], made: list[Span], done: list[int],
    base: list[int], capacity: list[int], copies: bool,
) -> Step:  # fmt: skip
    """The actions of one step; `base` and `capacity` are brought up to date."""
    actions: list[Action] = []
    for at, part in enumerate(parts):
        if part is not None and (at or copies):
            front = part.rows[0] - part.above
            if front != base[at] and done[at] > part.rows[0]:
                actions.append(Keep(at, part.rows[0] - base[at], part.above, done[at] - part.rows[0]))
            base[at] = front
            capacity[at] = max(capacity[at], part.rows[1] - front)
    last = len(layers)
    if copies:
        base[last] = made[last][0]
        capacity[last] = max(capacity[last], made[last][1] - made[last][0])
        if made[0][0] < made[0][1]:
            actions.append(Fetch(made[0][0], made[0][1] - made[0][0], made[0][0] - base[0]))
    for at, part in enumerate(parts):
        if part is not None:
            (start, stop), (a, b) = part.rows, made[at + 1]
            actions.append(Make(at, part.op, start - base[at], stop - start, cols[at], a - base[at + 1], b - a,
                                cols[at + 1]))  # fmt: skip
    if copies:
        actions.append(Store(made[last][0], made[last][1] - made[last][0]))
    return tuple(actions)
