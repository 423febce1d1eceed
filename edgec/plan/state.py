"""Layout of the state struct: members by falling alignment, so that the C compiler adds no padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.ir.graph import State

#: members that every state starts with: magic, frame, flushed, reserved (uint32 each)
HEADER_BYTES = 16


@dataclass(frozen=True)
class Member:
    """One state of the graph as a member of the C struct."""

    state: State
    offset: int

    @property
    def end(self) -> int:
        return self.offset + self.state.type.bytes


def alignment(state: State) -> int:
    """Bytes of one element."""
    return np.dtype(state.type.dtype.storage).itemsize


def lay_out(states: Sequence[State]) -> tuple[int, tuple[Member, ...]]:
    """Size of the struct and its members. The size is a multiple of 8."""
    members, offset = [], HEADER_BYTES
    for state in sorted(states, key=lambda s: -alignment(s)):
        assert offset % alignment(state) == 0
        members.append(Member(state, offset))
        offset = members[-1].end
    return -(-offset // 8) * 8, tuple(members)
