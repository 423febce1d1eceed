"""How the axes of an op's operands relate to those of its results: what the op declares as `axes`, parsed.

"b(t)i,...io,o->bto" reads like an einsum, one letter an axis:
  a letter on both sides   plain: an element of the result depends on the operand's elements of the same index only, and
                           whoever permutes the axis everywhere permutes the result; of extent 1 it is repeated
  (t)                      a window: it depends on a range of indices that moves along with its own
  on the left only         reduced: it may depend on every index
  on the right only        made: nothing of the operands has this axis
  ...                      the leading axes, as many as there are, aligned at their end as in broadcasting
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from edgec.ir.types import TensorType
from edgec.ops.base import Part

LETTERS = "abcdefghjklmnop"  # of the axes of a tensor of any rank
Perm = tuple[int, ...]


@dataclass(frozen=True)
class Axes:
    """The letter of every axis of every operand and result; windows in parentheses."""

    operands: tuple[tuple[str, ...], ...]
    results: tuple[tuple[str, ...], ...]

    def follow(self, operand: int, axis: int, result: int = 0) -> int | None:
        """The axis of a result that a plain axis of an operand becomes; None where it is a window, reduced or no axis
        at all."""
        letter = self.operands[operand][axis]
        return self.results[result].index(letter) if letter in self.results[result] else None

    def is_plain(self, letter: str) -> bool:
        """Whether no operand has a window along this axis of a result."""
        return all(f"({letter})" not in operand for operand in self.operands)


def along(rank: int, axis: int, mark: str = "{}") -> str:
    """The letters of so many axes, that of one of them as `mark` has it: along(3, 1, "({})") is "a(b)c"."""
    return "".join(mark.format(c) if k == axis % rank else c for k, c in enumerate(LETTERS[:rank]))


def parse(text: str, ranks: Sequence[int]) -> Axes:
    """The text for operands of these ranks."""
    operands, results = (
        [re.findall(r"\.\.\.|\(\w\)|\w", part) for part in side.split(",")] for side in text.split("->")
    )
    assert len(operands) == len(ranks), f"{text}: {len(ranks)} operands"
    spans = [n - len(o) + 1 for o, n in zip(operands, ranks, strict=True) if "..." in o]

    def spelled(tokens: list[str], span: int) -> tuple[str, ...]:
        leading = [f"...{k}" for k in reversed(range(span))]
        return tuple(t for token in tokens for t in (leading if token == "..." else [token]))

    lengths = [n - len(o) + 1 for o, n in zip(operands, ranks, strict=True)]
    found = tuple(spelled(o, n) for o, n in zip(operands, lengths, strict=True))
    assert [len(o) for o in found] == list(ranks), f"{text}: operands of {list(ranks)} axes"
    return Axes(found, tuple(spelled(r, max(spans, default=0)) for r in results))


@lru_cache(maxsize=4096)
def _axes_of(op: Any, types: tuple[TensorType, ...]) -> Axes | None:
    text = op.axes if op.axes is None or isinstance(op.axes, str) else op.axes(types)
    return None if text is None else parse(text, [len(t.shape) for t in types])


def axes_of(op: Any, types: Sequence[TensorType]) -> Axes | None:
    """What an op declares for operands of these types; None where every element is needed for every result."""
    return _axes_of(op, tuple(types))


def permutation(op: Any, types: Sequence[TensorType]) -> Perm | None:
    """How an op orders the axes of its operand, if that is all it does: axis k of the result is axis perm[k]."""
    axes = axes_of(op, types)
    if axes is None or not op.moves or op.is_view or len(types) != 1:
        return None
    (x,), (result,) = axes.operands, axes.results
    return tuple(x.index(c) for c in result) if set(result) == set(x) else None


def permuted(op: Any, types: Sequence[TensorType], perm: Perm) -> tuple[Any, tuple[int, ...], Perm] | None:
    """op(permute(x, perm)) as permute(op'(x), perm'): op', the operands that it has in the other order, and perm'.

    None where an axis has its meaning from its place: only that of the field `axis` may be other than plain, and may
    have vectors as operands, which stay as they are.
    """
    axes = axes_of(op, types)
    full = [o for o in axes.operands if len(o) == len(perm)] if axes is not None else []
    if axes is None or op.is_view or not full or len(axes.results) != 1:
        return None
    letters, (result,) = tuple(c.strip("()") for c in full[0]), axes.results
    at = op.axis % len(perm) if hasattr(op, "axis") else None
    own = {letters[at], f"({letters[at]})"} if at is not None else set()
    if list(result) not in (list(letters), [c for c in letters if c not in own]):
        return None
    moving = []
    for k, operand in enumerate(axes.operands):
        vector = len(operand) < len(perm) and not any(c.startswith("...") for c in operand)
        if (vector and set(operand) <= own) or not set(operand) & {*letters, *own}:
            continue
        if vector or any(c != d and not {c, d} <= own for c, d in zip(operand[::-1], letters[::-1], strict=False)):
            return None
        moving.append(k)
    if at is None:
        return op, tuple(moving), perm
    axis = perm[at]
    left = perm if len(result) == len(perm) else tuple(p - (p > axis) for p in perm if p != axis)
    return replace(op, axis=axis), tuple(moving), left


def part_of(op: Any, types: Sequence[TensorType], rows: tuple[int, int], cols: tuple[int, int]) -> Part | None:
    """The op for these rows and columns of its output image [B,H,W,C]: by its own rule, or as it stands where each
    pixel is made of the input's there; None where it has no such part."""
    if op.part is not None:
        part: Part | None = op.part(types, rows, cols)
        return part
    axes = axes_of(op, types)
    if axes is None or op.is_view or len(axes.results[0]) != 4 or len(axes.operands[0]) != 4:
        return None
    place = axes.results[0][1:3]
    others = [(o, t) for o, t in zip(axes.operands[1:], types[1:], strict=True) if t.size > 1]
    alone = all(t.shape[o.index(c)] == 1 for o, t in others for c in place if c in o)
    return Part(op, rows, cols) if axes.operands[0][1:3] == place and alone else None


def is_framewise(op: Any, types: Sequence[TensorType]) -> bool:
    """Whether frames do not mix: the op may run on one frame at a time as it stands."""
    axes, timed = axes_of(op, types), [(k, t.time_axis) for k, t in enumerate(types) if t.time_axis is not None]
    if axes is None or not timed:
        return False
    ends = [(r, t.time_axis) for r, t in enumerate(op.infer(types))]
    return all(end is not None and axes.follow(k, axis, r) == end for k, axis in timed for r, end in ends)


def can_stream(kind: Any) -> bool:
    """Whether ops of a class have a form for one frame: a rule, a state, or an axis along which frames do not mix."""
    if kind.stream is not None or any(op.state_types(types) for op, types in kind.samples()):
        return True
    for op, (x, *others) in kind.samples():
        for axis in range(len(x.shape)):
            try:
                if is_framewise(op, [replace(x, time_axis=axis), *others]):
                    return True
            except ValueError:  # of this op time cannot be that axis
                continue
    return False
