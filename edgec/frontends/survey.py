"""What a model asks for that no converter knows, as a set with counts, before anything is converted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


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
