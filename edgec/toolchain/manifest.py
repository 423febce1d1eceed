"""manifest.json of a compiled model, as frozen dataclasses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgec.errors import InputError, join_problems


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the step function. `time_axis` counts frames; None: a whole window."""

    name: str
    ctype: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    scale: float | None = None
    zero_point: int | None = None
    time_axis: int | None = None


@dataclass(frozen=True)
class SlotSpec:
    """Where a node leaves one of its tensors: `storage` is arena, state or output, `offset` counts from its start.
    For "output" the start is that of all outputs laid one after the other in manifest order, without gaps."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    storage: str
    offset: int
    bytes: int


@dataclass(frozen=True)
class NodeSpec:
    """One kernel of the model; `id` is what EDGEC_MARK reports."""

    id: int
    symbol: str
    op: str
    source: str
    outputs: tuple[SlotSpec, ...]


@dataclass(frozen=True)
class Manifest:
    """What a compiled folder says about itself."""

    name: str
    target: str
    sources: tuple[str, ...]
    prefix: str
    state_bytes: int
    arena_bytes: int
    delay: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: tuple[NodeSpec, ...]
    regions: Mapping[str, str] = field(default_factory=dict)  # of state and arena, where not ordinary RAM
    opt: str = "-O2"  # how the C is to be compiled
    cycles: int = 0  # entries of the array that step and flush count cycles in; 0: they take none

    @property
    def output_bytes(self) -> int:
        return sum(t.bytes for t in self.outputs)

    def node(self, node_id: int) -> NodeSpec:
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise InputError(f"model {self.name!r} has no node {node_id}; ids are 0..{len(self.nodes) - 1}")


_KEYS = ("name", "target", "sources", "prefix", "state_bytes", "arena_bytes", "delay", "inputs", "outputs", "nodes")


def read_manifest(folder: Path | str) -> Manifest:
    """Read manifest.json of a compiled folder."""
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise InputError(f"{folder}: not a compiled model (no manifest.json)", hint="edgec compile writes one")
    return parse_manifest(json.loads(path.read_text(encoding="utf-8")), str(path))


def parse_manifest(data: Mapping[str, Any], where: str = "manifest") -> Manifest:
    """Build a Manifest from parsed JSON; keys it does not know are left to other readers."""
    missing = [key for key in _KEYS if key not in data]
    if missing:
        raise InputError(join_problems(f"{where}: incomplete", [f"missing key {key!r}" for key in missing]))
    return Manifest(
        name=data["name"],
        target=data["target"],
        sources=tuple(data["sources"]),
        prefix=data["prefix"],
        state_bytes=int(data["state_bytes"]),
        arena_bytes=int(data["arena_bytes"]),
        delay=int(data["delay"]),
        inputs=tuple(_tensor(t) for t in data["inputs"]),
        outputs=tuple(_tensor(t) for t in data["outputs"]),
        nodes=tuple(_node(n) for n in data["nodes"]),
        regions=dict(data.get("regions", {})),
        opt=data.get("opt", "-O2"),
        cycles=int(data.get("cycles", 0)),
    )


def _tensor(data: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(
        data["name"],
        data["ctype"],
        data["dtype"],
        tuple(data["shape"]),
        int(data["bytes"]),
        data.get("scale"),
        data.get("zero_point"),
        data.get("time_axis"),
    )


def _node(data: Mapping[str, Any]) -> NodeSpec:
    slots = tuple(
        SlotSpec(s["name"], s["dtype"], tuple(s["shape"]), s["storage"], int(s["offset"]), int(s["bytes"]))
        for s in data.get("outputs", ())
    )
    source = data.get("source", "")
    text = source if isinstance(source, str) else "; ".join(map(str, source))
    return NodeSpec(int(data["id"]), data["symbol"], data["op"], text, slots)
