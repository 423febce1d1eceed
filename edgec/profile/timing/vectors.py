"""What each instruction costs on a core that splits vectors into beats: pipes that overlap, and results that come late.

The pipes and latencies are those that Arm gave LLVM's scheduler for the Cortex-M55 (ARMScheduleM55.td).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgec.profile.timing.decode import Instruction
from edgec.target import Timing

#: kind -> pipe, cycles until its result can be used
VECTORS: Mapping[str, tuple[str, float]] = {
    "vector_load": ("memory", 1), "vector_store": ("memory", 1), "vector_add": ("integer", 1),
    "vector_shift": ("integer", 2), "vector_narrow": ("integer", 3), "vector_compare": ("multiply", 1),
    "vector_multiply": ("multiply", 2),
}  # fmt: skip
#: the same of scalars whose results come later than a cycle, beside loads and multiplications
FLOATS: Mapping[str, float] = {"float": 2, "float_multiply_add": 4, "float_divide": 16}
GATHER = 4.0  # cycles earlier that the offsets of a gather or scatter must be there


@dataclass
class _Pipes:
    """While a run goes through: cycle in which the last instruction started and what it was if another may start with
    it, first cycle for the next, first free cycle of each pipe, and when each register can be used, or stored."""

    start: float = 0.0
    partner: Instruction | None = None
    free: float = 0.0
    busy: dict[str, float] = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)
    storable: dict[str, float] = field(default_factory=dict)


def vector_costs(run: Sequence[Instruction], t: Timing) -> list[float]:
    """Cycles of each instruction of a run; of a loop's body, those of its later rounds."""
    if run[-1].kind == "loop" and run[-1].target == run[0].at:
        return _through([*run, *run], t)[len(run) :]
    return _through(run, t)


def pairs(older: Instruction, younger: Instruction) -> bool:
    """Whether two neighbours may start in one cycle: both short, one of them light."""
    short = older.size == younger.size == 2 and not older.ends and older.kind != "branch"
    return short and (older.light or younger.light) and not older.writes & younger.reads


def _through(run: Sequence[Instruction], t: Timing) -> list[float]:
    pipes, found, before = _Pipes(), [], 0.0
    for i in run:
        pipe, late = VECTORS.get(i.kind, ("", _scalar_latency(i, t)))
        at = _operands_ready(i, pipes)
        if t.issue == 2 and pipes.partner is not None and pairs(pipes.partner, i) and at <= pipes.start:
            pipes.partner = None
        elif i.kind != "loop":
            pipes.start, pipes.partner = max(pipes.free, at, pipes.busy.get(pipe, 0.0)), i
            pipes.free = pipes.start + _slots(i, t)
        if pipe:
            pipes.busy[pipe] = pipes.start + t.beats
        pipes.ready |= dict.fromkeys(i.writes, pipes.start + late) | _updated(i, pipes.start)
        pipes.storable |= dict.fromkeys(i.writes, pipes.start + (1 if pipe and late == 2 else late))
        found.append(pipes.free - before)
        before = pipes.free
    return found


def _operands_ready(i: Instruction, pipes: _Pipes) -> float:
    """First cycle in which all that an instruction reads is there."""
    known = pipes.storable if i.kind == "vector_store" else pipes.ready
    data = [known.get(r, 0.0) for r in i.reads - i.address]
    early = {r: GATHER if r.startswith("q") else 0.0 for r in i.address}
    return max([*data, *(pipes.ready.get(r, 0.0) + e for r, e in early.items() if r in pipes.ready)], default=0.0)


def _updated(i: Instruction, start: float) -> dict[str, float]:
    """An address that a load or store moves on can be used in the next cycle."""
    return dict.fromkeys(i.writes & i.address, start + 1) if i.address else {}


def _scalar_latency(i: Instruction, t: Timing) -> float:
    if i.kind in ("load", "load_many"):
        return 1 + t.load_use
    if i.kind.startswith("multiply"):
        return 1 + t.multiply_use
    return t.divide if i.kind == "divide" else FLOATS.get(i.kind, 1.0)


def _slots(i: Instruction, t: Timing) -> float:
    """Cycles before the next instruction may start."""
    if i.kind in ("load_many", "store_many"):
        return max(1.0, t.many + i.words * t.word)
    return t.divide if i.kind == "divide" else 1.0
