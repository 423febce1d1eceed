"""One interface to a running model, wherever it runs."""

from __future__ import annotations

import shutil
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from edgec.errors import EdgecError, InputError, join_problems, option
from edgec.toolchain.manifest import Manifest, SlotSpec, TensorSpec

Array = np.ndarray[Any, np.dtype[Any]]
OUTPUT = 1
_REASONS = {
    -1: "EDGEC_E_ARG: a null or misaligned pointer, or no such instance",
    -2: "EDGEC_E_STATE: the state was not initialised, or is damaged",
    -3: "EDGEC_E_FLUSHED: step after flush; call reset first",
    -4: "EDGEC_E_DEVICE: the GPU has no memory left, or a kernel failed",
    -100: "the image does not know this command: node dumps need a profile build",
}


@dataclass(frozen=True)
class Counters:
    """Cost of the last step or flush. `how` says where the figure comes from, "" when nothing was counted.
    `per_node` needs a profile build; what no node accounts for is under the id -1."""

    instructions: int = 0
    per_node: Mapping[int, int] = field(default_factory=dict)
    how: str = ""


@dataclass(frozen=True)
class Flow:
    """How code was run through; index k is the halfword at `start` + 2 k.

    Blocks that `begun` there, that `ended` before it, and how often what ends before it went on elsewhere (`left`).
    `lines` of the target's flash were read for the first time in this call, as code or as data.
    """

    start: int
    code: bytes
    begun: Array
    ended: Array
    left: Array
    lines: int = 0


class Device(ABC):
    """A model that runs frame by frame. Use it in a `with` block, or call close()."""

    def __init__(self, manifest: Manifest, *, instances: int = 1, profile: bool = False) -> None:
        self.manifest = manifest
        self.instances = instances
        self.profile = profile
        self.counters = Counters()
        self.flows: dict[int, Flow] = {}
        self._remove: Callable[[], object] | None = None
        self._selected = 0
        self._watched: frozenset[int] = frozenset()
        self._dumps: dict[int, list[Array]] = {}

    def step(self, inputs: Sequence[Array]) -> list[Array] | None:
        """Consume one frame; the outputs, or None when the model has none yet."""
        self._dumps = {}
        return self._result(self._step(_to_bytes(self.manifest, inputs)), "step")

    def flush(self) -> list[Array] | None:
        """One of the outputs still inside after the last frame; None when there are no more."""
        self._dumps = {}
        return self._result(self._flush(), "flush")

    def reset(self) -> None:
        """Back to the state before the first frame (of the selected instance)."""
        self._check(self._reset(), "reset")

    def select(self, instance: int) -> None:
        """Make step, flush and reset act on this instance."""
        if not 0 <= instance < self.instances:
            raise InputError(f"instance {instance} does not exist: the device has {self.instances}")
        self._select(instance)
        self._selected = instance

    def watch(self, node_ids: Iterable[int] | None) -> None:
        """Keep the tensors these nodes produce in each following step for dump(); None or empty: keep nothing."""
        ids = frozenset(node_ids or ())
        if ids and not self.profile:
            raise InputError(
                "node tensors can be read in a profile build only", hint="open the device with profile=True"
            )
        for node_id in ids:
            self.manifest.node(node_id)
        self._watch(ids)
        self._watched = ids

    def dump(self, node_id: int) -> list[Array]:
        """The tensors of a watched node as they were right after it ran in the last step."""
        if node_id not in self._watched:
            raise InputError(f"node {node_id} is not watched", hint=f"call watch([{node_id}]) before the step")
        if node_id not in self._dumps:
            raise InputError(f"node {node_id} did not run in the last step")
        return self._dumps[node_id]

    def cycles(self) -> dict[int, int]:
        """What the core's cycle counter gave each layer in the last step or flush, by node id; 0 where there is no
        such counter. InputError unless the model was compiled to read it."""
        if not self.manifest.cycles:
            raise InputError(
                f"the step of {self.manifest.name!r} reads no cycle counter",
                hint=f"compile with {option('profile', 'dwt')}",
            )
        found = self._cycles()
        return {n.id: found[n.id] for n in self.manifest.nodes}

    def _cycles(self) -> Sequence[int]:
        raise InputError("this device has no cycle counter for layers")

    @abstractmethod
    def memory(self) -> dict[str, int]:
        """state_bytes and arena_bytes as the compiler laid them out; stack_bytes (high water) where it is known."""

    @abstractmethod
    def _step(self, inputs: list[bytes]) -> tuple[int, bytes]: ...

    @abstractmethod
    def _flush(self) -> tuple[int, bytes]: ...

    @abstractmethod
    def _reset(self) -> int: ...

    @abstractmethod
    def _select(self, instance: int) -> None: ...

    @abstractmethod
    def _watch(self, ids: frozenset[int]) -> None: ...

    def close(self) -> None:
        """Free what the device holds; it cannot be used afterwards."""
        if self._remove is not None:
            self._remove()

    def own(self, build_dir: Path | None) -> Self:
        """Delete this folder when the device is closed, or at the latest when it is forgotten or Python ends."""
        if build_dir is not None:
            self._remove = weakref.finalize(self, shutil.rmtree, build_dir, True)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _result(self, reply: tuple[int, bytes], what: str) -> list[Array] | None:
        rc, data = reply
        if self._check(rc, what) != OUTPUT:
            return None
        return _from_bytes(self.manifest.outputs, data)

    def _check(self, rc: int, what: str) -> int:
        if rc < 0:
            raise EdgecError(f"{self.manifest.prefix}_{what} returned {rc} ({_REASONS.get(rc, 'an unknown code')})")
        return rc

    def _keep_dump(self, node_id: int, arena: bytes, state: bytes, output: bytes) -> None:
        memory = {"arena": arena, "state": state, "output": output}
        slots = self.manifest.node(node_id).outputs
        self._dumps[node_id] = [slot_array(slot, memory[slot.storage]) for slot in slots]


def slot_array(slot: SlotSpec, memory: bytes) -> Array:
    """Copy one tensor out of the memory it lies in."""
    data = memory[slot.offset : slot.offset + slot.bytes]
    assert len(data) == slot.bytes, f"{slot.name}: {slot.bytes} bytes at {slot.offset} reach beyond the {slot.storage}"
    flat: Array = np.frombuffer(data, dtype=slot.dtype).copy()
    return flat.reshape(slot.shape) if flat.size == int(np.prod(slot.shape)) else flat


def _to_bytes(manifest: Manifest, inputs: Sequence[Array]) -> list[bytes]:
    if len(inputs) != len(manifest.inputs):
        names = ", ".join(t.name for t in manifest.inputs)
        raise InputError(f"step takes {len(manifest.inputs)} inputs ({names}), found {len(inputs)}")
    problems = []
    for spec, array in zip(manifest.inputs, inputs, strict=True):
        if array.dtype != np.dtype(spec.dtype) or array.size != int(np.prod(spec.shape)):
            problems.append(
                f"input {spec.name!r}: expected {spec.dtype}{list(spec.shape)}, found {array.dtype}{list(array.shape)}"
            )
    if problems:
        raise InputError(join_problems(f"model {manifest.name!r}: wrong inputs", problems))
    return [np.ascontiguousarray(a).tobytes() for a in inputs]


def _from_bytes(specs: Sequence[TensorSpec], data: bytes) -> list[Array]:
    arrays: list[Array] = []
    at = 0
    for spec in specs:
        flat: Array = np.frombuffer(data[at : at + spec.bytes], dtype=spec.dtype).copy()
        arrays.append(flat.reshape(spec.shape))
        at += spec.bytes
    return arrays
