"""What each instruction of a straight run of code costs on a core, from the numbers of its target file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgec.profile.timing.decode import Instruction
from edgec.profile.timing.vectors import vector_costs
from edgec.target import Timing

_DATA = frozenset({"alu", "shift", "multiply", "multiply_add", "multiply_long", "divide"})
_MEMORY = frozenset({"load", "store", "load_many", "store_many"})
_MULTIPLIES = frozenset({"multiply", "multiply_add", "multiply_long"})


def occupancy(i: Instruction, t: Timing) -> float:
    """Cycles of an instruction by itself, without what a taken branch adds."""
    if i.kind in ("load_many", "store_many"):
        return t.many + i.words * t.word
    if i.kind == "store":
        return t.store_indexed if i.indexed else t.store
    fixed = {
        "load": t.load, "multiply_add": t.multiply_add, "multiply_long": t.multiply_long, "divide": t.divide,
        "float_multiply_add": t.float_multiply_add, "float_divide": t.float_divide,
    }  # fmt: skip
    return fixed.get(i.kind, 1.0)


def costs(run: Sequence[Instruction], t: Timing) -> list[float]:
    """Cycles of each instruction of a run entered at its first."""
    if t.beats:
        return vector_costs(run, t)
    return _dual(run, t) if t.issue == 2 else _single(run, t)


def _single(run: Sequence[Instruction], t: Timing) -> list[float]:
    """In order, one at a time: neighbouring loads and stores overlap, an address fresh from the ALU waits."""
    found = []
    for before, i in zip([None, *run], run, strict=False):
        cycles = occupancy(i, t)
        if before is not None and i.kind in _MEMORY:
            depends = bool(before.writes & i.address)
            if before.kind in _DATA and depends:
                cycles += t.address_stall
            if before.kind == "load" and i.kind in ("load", "store") and not depends:
                cycles = max(1.0, cycles - t.overlap)
        found.append(cycles)
    return found


@dataclass
class _Pipe:
    """What a dual-issue core knows while a run goes through: the cycle in which the last instruction started, whether
    another may start with it, the first cycle free for the next, and when each register can be used."""

    start: float = 0.0
    partner: Instruction | None = None
    free: float = 0.0
    ready: dict[str, float] = field(default_factory=dict)


def pairs(older: Instruction, younger: Instruction) -> bool:
    """Whether two neighbours may start in one cycle: one of them at most in memory, in the multiplier and in the
    shifter; SIMD arithmetic and multiplications first; nothing the second needs comes from the first."""
    if older.ends or older.kind in ("jump", "branch", "divide", "float_divide") or older.writes & younger.reads:
        return False
    if younger.kind in _MULTIPLIES or younger.kind in ("divide", "jump", "load_many", "store_many"):
        return False
    if "many" in older.kind:
        return False
    groups = (_MEMORY, {"shift"} | _MULTIPLIES, {"float", "float_multiply_add", "float_divide"})
    return not any(older.kind in g and younger.kind in g for g in groups)


def _dual(run: Sequence[Instruction], t: Timing) -> list[float]:
    """In order, two at a time where they pair; a result of a load or of the multiplier can be used a little later."""
    pipe, found, before = _Pipe(), [], 0.0
    for i in run:
        earliest = max((pipe.ready.get(r, 0.0) for r in i.reads | i.address), default=0.0)
        if pipe.partner is not None and pairs(pipe.partner, i) and earliest <= pipe.start:
            pipe.partner = None
        else:
            pipe.start, pipe.partner = max(pipe.free, earliest), i
        late = t.load_use if i.kind in ("load", "load_many") else t.multiply_use if i.kind in _MULTIPLIES else 0.0
        done = pipe.start + occupancy(i, t)
        pipe.ready |= dict.fromkeys(i.writes, done + late)
        pipe.free = max(pipe.free, done)
        found.append(pipe.free - before)
        before = pipe.free
    return found
