"""Which memory of the part holds what: constants, the state and the arena, by how often each byte is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgec.errors import InputError, option
from edgec.plan.arena import ALIGN
from edgec.plan.calls import Call
from edgec.plan.plan import Item, Plan
from edgec.target import Target

POLICIES = ("flash", "fast")
ARENA, STATE = "(arena)", "(state)"  # names of items that no constant has


def work_of(plan: Plan, call: Call) -> float:
    """Multiply-accumulates of a call in a frame; each reads a weight and an activation. Others: their outputs."""
    node = call.node
    macs = node.op.cost(plan.graph.input_types(node), node.types).macs
    return float(max(macs, sum(t.size for t in node.types))) / node.when.period


def _items(plan: Plan) -> list[Item]:
    """Everything that needs memory, in the memory it has without a policy."""
    work = {c.index: work_of(plan, c) for c in plan.calls}
    readers = [(c.index, set(c.args)) for c in plan.every_call]
    sizes = {name: data.nbytes for name, data in plan.consts.items()}

    def uses(names: set[str], size: int) -> float:
        return sum(work[k] for k in {k for k, args in readers if names & args}) / max(size, 1)

    items = [Item(n, "weights", "flash", size, uses({n}, size)) for n, size in sizes.items()]
    states = {n for n, p in plan.places.items() if p.storage == "state"}
    items.append(Item(STATE, "state", "ram", plan.state_bytes, uses(states, plan.state_bytes)))
    if plan.arena_bytes:
        items.append(Item(ARENA, "arena", "ram", plan.arena_bytes, sum(work.values()) / plan.arena_bytes))
    return items


def place_memory(
    plan: Plan, target: Target, policy: str = "flash", pinned: frozenset[str] = frozenset()
) -> tuple[Item, ...]:
    """Each item with its region. `flash`: constants stay in flash, state and arena in RAM. `fast`: the items with most
    uses per byte move to the fast memories while they fit, fastest memory first; `pinned` ones stay."""
    items = _items(plan)
    if policy == "flash":
        return tuple(items)
    if policy not in POLICIES:
        raise InputError(f"unknown placement {policy!r}", hint=f"one of {', '.join(POLICIES)}")
    regions = sorted(target.fast_regions, key=lambda r: r.wait_states)
    if not regions:
        raise InputError(
            f"target {target.name!r} has no fast memory to place anything in",
            hint=f"add a [memory.NAME] table beside code and ram to its file, or leave out {option('place')}",
        )
    left = {r.name: r.length for r in regions}
    moved: dict[str, str] = {}
    for item in sorted(items, key=lambda i: (-i.uses, i.name)):
        room = -(-item.size // ALIGN) * ALIGN
        home = next((r.name for r in regions if left[r.name] >= room), None)
        if home is not None and item.name not in pinned:
            moved[item.name] = home
            left[home] -= room
    return tuple(replace(i, region=moved.get(i.name, i.region)) for i in items)


def region_rows(items: Sequence[Item], target: Target) -> list[dict[str, Any]]:
    """What each memory holds, for the report: bytes used and there, and its items by falling use."""
    lengths = {"flash": target.flash_bytes, "ram": target.ram_bytes} | {r.name: r.length for r in target.fast_regions}
    waits = {"flash": _wait(target, "code"), "ram": _wait(target, "ram")}
    waits |= {r.name: r.wait_states for r in target.fast_regions}
    rows = []
    for name, length in lengths.items():
        inside = sorted((i for i in items if i.region == name), key=lambda i: (-i.uses, i.name))
        listed = [{"name": i.name, "kind": i.kind, "bytes": i.size, "uses_per_byte": round(i.uses, 2)} for i in inside]
        rows.append({"region": name, "length": length, "wait_states": waits[name],
                     "bytes": sum(i.size for i in inside), "items": listed})  # fmt: skip
    return rows


def _wait(target: Target, name: str) -> int:
    return next((r.wait_states for r in target.regions if r.name == name), 0)
