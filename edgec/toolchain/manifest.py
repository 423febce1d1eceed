"""manifest.json of a compiled model, as frozen dataclasses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from edgec.errors import InputError, join_problems
from edgec.files import read_table
from edgec.options import Options
from edgec.schema import checked

MANIFEST = "manifest.json"
AGAIN = "compile again: a folder is read as compile wrote it"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the step function. `time_axis` counts frames; None: a whole window. `spikes`: so many
    are packed in the words of the last axis, 32 in one, the first in its lowest bit; None: no spikes."""

    name: str
    ctype: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    scale: float | None = None
    zero_point: int | None = None
    time_axis: int | None = None
    spikes: int | None = None


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
    source: str = ""
    outputs: tuple[SlotSpec, ...] = ()


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
    options: Options | None = None  # what was chosen; None: a folder that `compile` did not write

    @property
    def output_bytes(self) -> int:
        return sum(t.bytes for t in self.outputs)

    def node(self, node_id: int) -> NodeSpec:
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise InputError(f"model {self.name!r} has no node {node_id}; ids are 0..{len(self.nodes) - 1}")


#: how the step function's C stores an element, and its bytes
ELEMENTS = {"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "int32": 4, "uint32": 4, "float32": 4}
STORAGES = ("arena", "state", "output")
_NAME = re.compile(r"[^\W\d]\w*")
_SOURCE = re.compile(r"[\w.+-]+\.(c|S|o|cu)")
MOST_BYTES = 1 << 40
MOST_NODES = 1 << 20


def read_manifest(folder: Path | str) -> Manifest:
    """Read manifest.json of a compiled folder."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: not a compiled model (no {MANIFEST})", hint="edgec compile writes one")
    return parse_manifest(read_table(path, "a manifest", AGAIN), str(path))


def parse_manifest(data: Any, where: str = "manifest") -> Manifest:
    """Build a Manifest from parsed JSON; keys it does not know are left to other readers."""
    head = f"{where}: damaged"
    found = checked(Manifest, data, head, hint=AGAIN)
    problems = list(_problems(found))
    if problems:
        raise InputError(join_problems(head, problems[:12]), hint=AGAIN)
    return found


def _problems(m: Manifest) -> Iterator[str]:
    """What no compile writes."""
    for what, name in (("name", m.name), ("prefix", m.prefix), *(("symbol", n.symbol) for n in m.nodes)):
        if _NAME.fullmatch(name) is None:
            yield f"{what} {name[:40]!r} is no name in C"
    yield from (f"source {s[:40]!r} is no file of this folder" for s in m.sources if _SOURCE.fullmatch(s) is None)
    sizes = {"arena": m.arena_bytes, "state": m.state_bytes, "output": m.output_bytes}
    counts = {"delay": m.delay, "cycles": m.cycles, **{f"{k} bytes": v for k, v in sizes.items()}}
    yield from (f"{what} of {n}" for what, n in counts.items() if not 0 <= n <= MOST_BYTES)
    if not (m.inputs and m.outputs and m.sources):
        yield "expected inputs, outputs and sources, found none of one"
    for t in (*m.inputs, *m.outputs):
        if not _is_tensor(t.dtype, t.shape, t.bytes):
            yield f"{t.name!r} cannot be {t.dtype[:40]}{list(t.shape)} in {t.bytes} bytes"
        if t.time_axis is not None and not 0 <= t.time_axis < len(t.shape):
            yield f"{t.name!r} of {len(t.shape)} axes cannot have time axis {t.time_axis}"
        if t.spikes is not None and (t.dtype != "uint32" or not t.shape or not 0 < -(-t.spikes // 32) == t.shape[-1]):
            yield f"{t.name!r} of {t.dtype[:40]}{list(t.shape)} cannot hold {t.spikes} spikes"
        if (t.scale is not None and t.scale <= 0) or abs(t.zero_point or 0) >= 1 << 31:
            yield f"{t.name!r} cannot have scale {t.scale} and zero point {t.zero_point}"
    ids = [n.id for n in m.nodes]  # views have a number and no entry
    if ids != sorted(set(ids)) or not all(0 <= i < MOST_NODES for i in ids):
        yield "expected nodes in ascending order of their numbers"
    for slot in (s for n in m.nodes for s in n.outputs):
        if not (
            slot.dtype in ELEMENTS and slot.storage in STORAGES and min(slot.offset, slot.bytes, *slot.shape, 0) == 0
        ):
            yield f"{slot.name!r} cannot be {slot.dtype[:40]}{list(slot.shape)} in {slot.storage[:40]!r}"
        elif slot.offset + slot.bytes > sizes[slot.storage]:
            yield f"{slot.name!r} reaches beyond the {slot.storage}"


def _is_tensor(dtype: str, shape: tuple[int, ...], size: int) -> bool:
    return dtype in ELEMENTS and min(shape, default=1) > 0 and prod(shape) * ELEMENTS[dtype] == size <= MOST_BYTES
