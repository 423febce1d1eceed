"""What layers have in common, stored once: equal constants always; for small code also kernels that differ in numbers
only, which become one function that reads its numbers from a table.

Only texts of loops around calls of runtime functions are shared: their numbers are sizes, counts and offsets. What
computes by itself keeps its literals, which the compiler folds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgec.ops.base import Array, Kernel
from edgec.plan.calls import Call, Loop
from edgec.plan.plan import Plan

TABLE = "sizes"
_NUMBER = re.compile(r"""(?<![\w."'])\d+(?![\w."'])""")
_STRING = re.compile(r'("[^"]*")')
#: the statements in which a number may become a variable
_LINES = re.compile(
    r"\s*(T\.call_extern\(|for \w+(, \w+)* in T\.(serial|grid)\(|if \w+ >= |\w+: T\.let\[T\.int32\] = T\.min\()"
)


@dataclass(frozen=True)
class Form:
    """A kernel without its numbers; calls of equal form can share a function."""

    op: str
    variant: str
    params: tuple[tuple[str, int, tuple[int, ...], str], ...]  # name, axes, all extents but the first, type
    scratch: bool
    pieces: tuple[str, ...]


@dataclass(frozen=True)
class Shared:
    """A kernel in place of a call's own, and the constant with its numbers."""

    instead_of: Kernel
    kernel: Kernel
    table: str
    in_place: bool


def share(plan: Plan) -> Plan:
    """The same program with shared kernels; their tables are further constants."""
    groups: dict[Form, list[Call]] = {}
    for call in plan.every_call:
        groups.setdefault(form_of(call), []).append(call)
    shared: dict[tuple[int, int], Shared] = {}
    consts: dict[str, Array] = dict(plan.consts)
    for form, calls in groups.items():
        if len({call.kernel.body for call in calls}) > 1 and all(map(_LINES.match, lines_of(calls))):
            shared |= _merge(form, calls, consts)

    def change(call: Call) -> Call:
        found = shared.get(call.key)
        if found is None or found.instead_of is not call.kernel:
            return call
        return replace(call, kernel=found.kernel, args=(found.table, *call.args), in_place=found.in_place)

    return exchange(plan, change, consts)


def keep_once(plan: Plan) -> Plan:
    """The same program with one constant for all that are equal."""
    first: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    names = {n: first.setdefault((a.dtype.name, a.shape, a.tobytes()), n) for n, a in plan.consts.items()}
    kept = {n: a for n, a in plan.consts.items() if names[n] == n}
    return exchange(plan, lambda call: replace(call, args=tuple(names.get(a, a) for a in call.args)), kept)


def exchange(plan: Plan, change: Callable[[Call], Call], consts: Mapping[str, Array]) -> Plan:
    """The plan with its calls changed, and these constants."""
    program = tuple(
        Loop(loop.count, tuple(change(item) if isinstance(item, Call) else item for item in loop.items))
        for loop in plan.program
    )
    return replace(plan, calls=tuple(map(change, plan.calls)), program=program, consts=consts)


def lines_of(calls: Sequence[Call]) -> list[str]:
    """Every line of every kernel."""
    return [line for call in calls for line in call.kernel.body.splitlines()]


def form_of(call: Call) -> Form:
    """What a call's kernel shares with others."""
    kernel = call.kernel
    params = tuple((name, len(shape), shape[1:], kind) for name, shape, kind in kernel.params)
    return Form(call.node.op.name, call.variant, params, bool(kernel.scratch), split(kernel.body)[0])


def split(body: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Text between the numbers of a kernel, and the numbers; those within strings are text."""
    pieces, numbers = [""], []
    for part in _STRING.split(body):
        between = [part] if part.startswith('"') else _NUMBER.split(part)
        numbers += [] if part.startswith('"') else [int(n) for n in _NUMBER.findall(part)]
        pieces[-1] += between[0]
        pieces += between[1:]
    return tuple(pieces), tuple(numbers)


def _merge(form: Form, calls: Sequence[Call], consts: dict[str, Array]) -> dict[tuple[int, int], Shared]:
    """One kernel for the calls; equal tables are one constant."""
    rows = np.array([split(call.kernel.body)[1] for call in calls], np.int64)  # [calls, numbers]
    varying = [k for k in range(rows.shape[1]) if len(set(rows[:, k])) > 1]
    columns = list(dict.fromkeys(tuple(rows[:, k]) for k in varying))
    place = {k: columns.index(tuple(rows[:, k])) for k in varying}
    words = [f"{TABLE}[{place[k]}]" if k in place else str(rows[0, k]) for k in range(rows.shape[1])]
    body = "".join(piece + word for piece, word in zip(form.pieces, [*words, ""], strict=True))
    shapes = [
        (max(call.kernel.params[k][1][0] for call in calls), *rest) if axes else ()
        for k, (_, axes, rest, _) in enumerate(form.params)
    ]
    params = tuple((name, shape, kind) for (name, _, _, kind), shape in zip(form.params, shapes, strict=True))
    in_place, names = any(call.in_place for call in calls), dict[tuple[int, ...], str]()
    found = {}
    for n, call in enumerate(calls):
        table = tuple(int(column[n]) for column in columns)
        name = names.setdefault(table, f"{call.node.outputs[0]}_{TABLE}{call.part or ''}")
        consts[name] = np.array(table, np.int32)
        kernel: Kernel = replace(call.kernel, body=body, params=((TABLE, (len(columns),), "int32"), *params))
        found[call.key] = Shared(call.kernel, kernel, name, in_place)
    return found
