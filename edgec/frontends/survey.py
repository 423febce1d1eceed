"""What a model asks for that no converter knows, as a set with counts, before anything is converted; then one walk over
its operators, and one refusal that lists all that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from edgec.errors import FrontendError, join_problems
from edgec.frontends.builder import GraphBuilder

SHOWN = 20  # problems that a refusal spells out


class Operator(Protocol):
    """What the records of operators of all formats have."""

    @property
    def kind(self) -> str: ...

    @property
    def inputs(self) -> tuple[Any, ...]: ...

    @property
    def outputs(self) -> tuple[Any, ...]: ...


Op = TypeVar("Op", bound=Operator)


def unsupported(calls: Iterable[tuple[str, str]], hints: Mapping[str, str] | None = None) -> list[str]:
    """One line for each operator: how often, where first, and what to do instead; in the order they are met.

    calls: (operator, where it stands) for each call of one that has no converter.
    """
    places: dict[str, list[str]] = {}
    for kind, where in calls:
        places.setdefault(kind, []).append(where)
    lines = []
    for kind, found in places.items():
        often = f"once, at {found[0]}" if len(found) == 1 else f"{len(found)} times, first at {found[0]}"
        hint = (hints or {}).get(kind)
        lines.append(f"{kind} is not supported ({often})" + (f": {hint}" if hint else ""))
    return lines


def needed(steps: Iterable[tuple[tuple[object, ...], tuple[object, ...]]], results: Iterable[object]) -> list[bool]:
    """Which steps the results need: (inputs, outputs) of each, in order of execution. One without outputs stays."""
    wanted, kept = set(results), []
    for inputs, outputs in reversed(list(steps)):
        kept.append(not outputs or not wanted.isdisjoint(outputs))
        if kept[-1]:
            wanted.update(inputs)
    return kept[::-1]


def walk(
    build: GraphBuilder,
    operators: Iterable[Op],
    known: Collection[str],
    lost: set[Any],
    place: Callable[[Op], str],
    convert: Callable[[Op], str | None],
) -> list[str]:
    """Converts operators in order; what does not fit, with the place of each.

    lost: tensors that could not be made. What follows from one, or from an unknown operator, is not told again.
    """
    problems = []
    for op in operators:
        if not lost.intersection(op.inputs) and op.kind in known:
            build.source = (place(op),)
            problem = convert(op)
            if problem is None:
                continue
            problems.append(f"{build.source[0]}: {problem}")
        lost.update(op.outputs)
    return problems


def refuse(where: str, missing: list[str], problems: list[str], known: Iterable[str]) -> None:
    """FrontendError with every operator that is missing or does not fit; nothing where there is none."""
    if missing or problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        hint = f"supported operators: {', '.join(sorted(known))}" if missing else None
        lines = [*missing, *problems[:SHOWN], *more]
        raise FrontendError(join_problems(f"{where}: operators that cannot be imported:", lines), hint=hint)
