"""Loops over shapes, as text: broadcast operands, and extents around an axis."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from edgec.ir.types import TensorType


def broadcast_shape(*types: TensorType) -> tuple[int, ...]:
    """The shape of an elementwise result."""
    try:
        return np.broadcast_shapes(*(t.shape for t in types))
    except ValueError as err:
        raise ValueError(f"shapes {' and '.join(str(t.shape) for t in types)} do not broadcast") from err


def strides_for(shape: Sequence[int], out: Sequence[int]) -> list[int]:
    """Element stride of a broadcast operand for every axis of the output (0 where it repeats)."""
    padded = [1] * (len(out) - len(shape)) + list(shape)
    strides, step = [0] * len(out), 1
    for axis in reversed(range(len(out))):
        strides[axis] = step if padded[axis] != 1 else 0
        step *= padded[axis]
    return strides


def loop_nest(shape: Sequence[int], statements: str | Sequence[str]) -> tuple[str, list[str]]:
    """Nested loops over a shape (the outer one parallel) around one statement or several; also the index names."""
    lines, names = [], [f"i{k}" for k in range(len(shape))]
    for k, extent in enumerate(shape):
        kind = "T.parallel" if k == 0 else "T.serial"
        lines.append("    " * k + f"for {names[k]} in {kind}({extent}):")
    inner = [statements] if isinstance(statements, str) else statements
    lines += ["    " * len(shape) + line for line in inner]
    return "\n".join(lines), names


def position(shape: Sequence[int], out: Sequence[int]) -> str:
    """Flat index of an operand in the loops of `loop_nest` over the output's axes."""
    terms = [f"i{k} * {s}" for k, s in enumerate(strides_for(shape, out)) if s]
    return " + ".join(terms) or "0"


def around(shape: Sequence[int], axis: int) -> tuple[int, int, int]:
    """Extents before, along and after an axis."""
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def statistics_shape(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    """Shape of a window's mean and deviation: one value along the axis they are taken over."""
    return tuple(1 if k == axis else n for k, n in enumerate(shape))
