"""--tune: run every kernel variant that fits a layer on the emulator and keep the fastest.

What was measured is kept in a file, so that a layer is measured once: a variant's key is its kernel's text (which has
the shapes and whatever depends on constants' values in it), the target and the sources the kernels are made of.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import edgec.kernels
from edgec.backends.emit import write_folder
from edgec.backends.kernel import source_text
from edgec.device import counting_kind, open_device
from edgec.errors import InputError, TargetError, option
from edgec.files import read_table
from edgec.ir.graph import Const, Graph, Node, State, Value
from edgec.kernels import candidates, select
from edgec.ops.base import Array, Kernel, Op, Site
from edgec.plan import make_plan
from edgec.profile.timing.frames import count_frames, timing_obstacle, why_unmeasured
from edgec.runtime import all_headers, header_text
from edgec.schema import checked
from edgec.target import Target
from edgec.toolchain.manifest import TensorSpec, read_manifest

FRAMES = 2  # run for each variant
SPIKES = 0.15  # share of random spikes, where calibration has not told a layer's own
VERSION = 1


@dataclass(frozen=True)
class Layer:
    """One distinct place of a graph where several variants fit."""

    key: str
    op: Op
    site: Site
    variants: tuple[tuple[str, Kernel], ...]


@dataclass
class Tuned:
    """What was chosen: by layer the variants' figures in `unit`, and how many layers were measured now."""

    target: Target
    unit: str
    costs: Mapping[str, Mapping[str, int]]
    measured: int
    failed: tuple[str, ...] = ()  # why layers could not be measured: these keep the first variant that fits
    used: dict[str, Mapping[str, int]] = field(default_factory=dict)

    def choose(self, op: Op, site: Site) -> tuple[str, Kernel]:
        """The fastest variant of a place that was measured (the first of equals), elsewhere the first that fits."""
        found = candidates(op, site, self.target.isa)
        costs = self.costs.get(key_of(op, found, self.target)) if len(found) > 1 else None
        if costs is None:
            return select(op, site, self.target.isa)
        best = min(found, key=lambda pair: costs[pair[0]])
        self.used[source_text(best[1])] = costs
        return best

    def describe(self, report: dict[str, Any]) -> None:
        """Which variants were compared, and by which counts, into a report's layers."""
        by_variants = {frozenset(c): c for c in self.used.values()}
        report["tuned"] = {"unit": self.unit, "layers": [dict(c) for c in self.used.values()]}
        report["how"]["tune"] = (
            f"{len(self.used)} kernels chosen by {self.unit} on the emulated core, {self.measured} layers measured now,"
            f" {len(self.costs) - self.measured} from the cache; compared: "
            + "; ".join(", ".join(sorted(names)) for names in by_variants)
        )
        if self.failed:
            report["how"]["tune"] += f"; {len(self.failed)} not measured: {self.failed[0]}"


def default_cache() -> Path:
    """Where measurements are kept unless a file is named."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~", ".cache"), "edgec", "tune.json")


def tune_kernels(graph: Graph, target: Target, cache: Path, toolchain: str = "zig") -> Tuned:
    """Measure what the cache does not hold, and keep it there. TargetError where nothing counts for the target,
    InputError where the cache is damaged."""
    kind = counting_kind(target)
    if target.arch != "arm-m" or kind is None:
        raise TargetError(f"no emulator measures kernels for {target.name}", hint=f"leave out {option('tune')}")
    cache = cache.expanduser()
    unit = "instructions" if timing_obstacle(target) else "modelled cycles"
    kept = read_cache(cache)
    layers = places(graph, target)
    fresh = [
        layer
        for layer in layers
        if kept.get(f"{unit}:{layer.key}", {"costs": {}})["costs"].keys() != {v for v, _ in layer.variants}
    ]
    failed = []
    for layer in fresh:
        try:
            figures = measure(layer, target, kind, toolchain)
        except Exception as err:  # of whatever kind: the layer then keeps its first variant
            failed.append(why_unmeasured(err))
            kept.pop(f"{unit}:{layer.key}", None)
            continue
        kept[f"{unit}:{layer.key}"] = {"op": layer.op.name, "target": target.name, "costs": figures}
    if len(fresh) > len(failed):
        write_cache(cache, kept)
    costs = {la.key: kept[f"{unit}:{la.key}"]["costs"] for la in layers if f"{unit}:{la.key}" in kept}
    return Tuned(target, unit, costs, len(fresh) - len(failed), tuple(failed))


def places(graph: Graph, target: Target) -> list[Layer]:
    """The distinct places of a graph where several variants fit."""
    found: dict[str, Layer] = {}

    def note(op: Op, site: Site) -> tuple[str, Kernel]:
        variants = candidates(op, site, target.isa)
        if len(variants) > 1:
            key = key_of(op, variants, target)
            found.setdefault(key, Layer(key, op, site, tuple(variants)))
        return select(op, site, target.isa)

    make_plan(graph, note)
    return list(found.values())


def key_of(op: Op, variants: Sequence[tuple[str, Kernel]], target: Target) -> str:
    """What a measurement depends on, as one word."""
    texts = [
        op.name,
        repr(rate_of(op)),
        target.name,
        target.cpu,
        repr(target.isa),
        repr(target.timing),
        sources_digest(),
    ]
    texts += [f"{variant}\n{source_text(kernel)}" for variant, kernel in variants]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]


def rate_of(op: Op) -> float:
    """Share of spikes in a layer's input."""
    rate = getattr(op, "spike_rate", None)
    return SPIKES if rate is None else float(rate)


@functools.cache
def sources_digest() -> str:
    """Of the rules and the runtime that kernels are made of."""
    rules = sorted(Path(edgec.kernels.__file__).parent.glob("*.py"))
    parts = [p.read_bytes() for p in rules] + [header_text(h).encode() for h in all_headers()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


# ---- measuring ----


def measure(layer: Layer, target: Target, kind: str, toolchain: str) -> dict[str, int]:
    """Figures of every variant of a layer: all of them are the nodes of one graph on random inputs. Every layer has an
    image of its own, because the compiler inlines what few call: with others the figures would be others."""
    chosen = iter(layer.variants)  # a plan without steps asks for one kernel a node, in their order
    modelled = timing_obstacle(target) is None
    # nor does it count which of the variants reads a line of flash first
    dry = replace(target, timing=replace(target.timing, flash_wait=0.0)) if target.timing else target
    with tempfile.TemporaryDirectory(prefix="edgec-tune-") as work:
        write_folder(bench_graph(layer), target, Path(work), choose=lambda op, site: next(chosen))
        options: dict[str, Any] = {"toolchain": toolchain, "profile": True, "counting": True, "flow": modelled}
        with open_device(kind, work, None, target, **options) as device:
            specs, rate = read_manifest(work).inputs, rate_of(layer.op)
            frames = [[random_input(s, frame, rate) for s in specs] for frame in range(FRAMES)]
            found = count_frames(device, frames, dry)
    each: Sequence[Mapping[int, float]] = found.node_cycles or found.per_node
    return {variant: round(sum(frame[k] for frame in each)) for k, (variant, _) in enumerate(layer.variants)}


def bench_graph(layer: Layer) -> Graph:
    """A graph with a node for each variant of a layer, on inputs of its own."""
    inputs: list[Value] = []
    nodes: list[Node] = []
    states: list[State] = []
    consts: dict[str, Const] = {}
    site = layer.site
    for k in range(len(layer.variants)):
        names = [f"i{k}_{j}" for j in range(len(site.inputs))]
        for j, (name, t) in enumerate(zip(names, site.inputs, strict=True)):
            if j in site.consts:
                consts[name] = Const(site.consts[j], t)
            else:
                inputs.append(Value(name, t))
        own = [State(f"s{k}_{j}", t, v) for j, (t, v) in enumerate(layer.op.state_types(list(site.inputs)))]
        outputs = tuple(f"o{k}_{j}" for j in range(len(site.outputs)))
        nodes.append(Node(layer.op, tuple(names), outputs, site.outputs, (), tuple(s.name for s in own)))
        states += own
    outs = tuple(n.outputs[0] for n in nodes)
    return Graph("tune", tuple(inputs), consts, tuple(nodes), outs, tuple(states), True)


def random_input(spec: TensorSpec, frame: int, rate: float) -> Array:
    """Numbers over the whole range of a type, words being spikes at a rate; the same for every variant."""
    dtype, rng = np.dtype(spec.dtype), np.random.default_rng([frame, int(spec.name.rsplit("_", 1)[1])])
    if dtype.kind == "f":
        return rng.normal(size=spec.shape).astype(dtype)
    if dtype == np.uint32:
        bits = rng.random((int(np.prod(spec.shape)), 32)) < rate
        return np.packbits(bits, axis=-1, bitorder="little").view("<u4").reshape(spec.shape)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, spec.shape, dtype, endpoint=True)


# ---- the file ----


@dataclass(frozen=True)
class _Entry:
    op: str
    target: str
    costs: Mapping[str, int]


@dataclass(frozen=True)
class _Entries:
    entries: Mapping[str, _Entry]


@dataclass(frozen=True)
class _Versioned:
    version: int


def read_cache(path: Path) -> dict[str, Any]:
    """What was measured before, by unit and key; nothing of a file of another version."""
    if not path.exists():
        return {}
    what, hint = "a tuning cache", f"delete it, or give another: {option('tune', 'FILE')}"
    data, head = read_table(path, what, hint), f"{path} cannot be read as {what}"
    if checked(_Versioned, data, head, hint=hint).version != VERSION:
        return {}
    entries = checked(_Entries, data, head, hint=hint).entries
    empty = next((key for key, entry in entries.items() if not entry.costs), None)
    if empty is not None:
        raise InputError(f"{head}: entry {empty[:60]!r} without costs", hint=hint)
    return {key: {"op": e.op, "target": e.target, "costs": dict(e.costs)} for key, e in entries.items()}


def write_cache(path: Path, entries: Mapping[str, Any]) -> None:
    """In one step, so that another compile never sees half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as f:
            json.dump({"version": VERSION, "entries": dict(sorted(entries.items()))}, f, indent=1)
        os.replace(name, path)
    except OSError as err:
        raise InputError(
            f"tuning cache {path} cannot be written: {err}", hint=f"give another: {option('tune', 'FILE')}"
        ) from err
