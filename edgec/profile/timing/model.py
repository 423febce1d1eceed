"""Modelled cycles: every instruction that ran, as often as it ran, at the cost its core's target file gives it.

An estimate, not a measurement: what a target file says about its error goes with every figure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgec.device.base import Flow
from edgec.profile.timing.cores import costs
from edgec.profile.timing.decode import Instruction, decode
from edgec.target import Target, Timing


class CycleModel:
    """Cycles of flows through the code of one image on one core."""

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self._instructions: dict[int, Instruction] = {}
        self._each = np.zeros(0)
        self._taken = np.zeros(0)

    def cycles(self, flow: Flow) -> float:
        """Cycles of what one flow ran through."""
        starts = flow.start + 2 * np.flatnonzero(flow.begun)
        if not set(starts.tolist()) <= self._instructions.keys() or self._each.size != flow.begun.size:
            self._decode(flow, starts.tolist())
        executed = np.cumsum(flow.begun.astype(np.int64) - flow.ended)
        waiting = flow.lines * self.timing.flash_wait
        return float(executed @ self._each + flow.left @ self._taken) + waiting

    def _decode(self, flow: Flow, starts: Sequence[int]) -> None:
        """Take in code that was not seen before, and the costs of all code with it."""
        for at in starts:
            if at not in self._instructions:
                self._instructions |= {i.at: i for i in decode(flow.code, flow.start, at, self.timing.beats > 0)}
        ordered = [self._instructions[at] for at in sorted(self._instructions)]
        targets = {i.target for i in ordered if i.target is not None}
        self._each, self._taken = np.zeros(flow.begun.size), np.zeros(flow.begun.size)
        for run in straight_runs(ordered, targets):
            for i, cycles in zip(run, costs(run, self.timing), strict=True):
                self._each[(i.at - flow.start) // 2] = cycles
                refill = {"branch": self.timing.branch, "loop": 0.0}.get(i.kind, self.timing.jump)
                self._taken[(i.at + i.size - flow.start) // 2] = refill


def straight_runs(ordered: Sequence[Instruction], targets: set[int]) -> list[list[Instruction]]:
    """Instructions cut where control comes in from elsewhere or does not go on."""
    runs: list[list[Instruction]] = []
    for i in ordered:
        last = runs[-1][-1] if runs else None
        if last is None or last.ends or last.at + last.size != i.at or i.at in targets:
            runs.append([])
        runs[-1].append(i)
    return runs


def milliseconds(cycles: float, target: Target) -> float:
    """At the target's clock."""
    return 1e3 * cycles / target.clock_hz


def board_cycles(cycles: float, target: Target) -> float | None:
    """The calibrated estimate for a board; None where no published run calibrates the core."""
    factor = target.timing.board_factor if target.timing is not None else 0.0
    return factor * cycles if factor else None


def board_milliseconds(cycles: float, target: Target) -> float | None:
    """The same at the target's clock."""
    found = board_cycles(cycles, target)
    return None if found is None else milliseconds(found, target)
