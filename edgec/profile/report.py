"""The report of a compile: what every layer costs, measured on the linked image and the emulated core if possible."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgec.compiled import input_frames
from edgec.device import Device, counting_kind, open_image
from edgec.ir.graph import Graph
from edgec.options import Options
from edgec.passes.streaming.make_sliding import slides
from edgec.plan import Call, Plan
from edgec.plan.memory import region_rows
from edgec.plan.regions import Region
from edgec.profile.timing.frames import (
    Frames,
    count_frames,
    counted_calls,
    how_modelled,
    how_on_board,
    marks_cost,
    timing_obstacle,
    why_unmeasured,
    worst_of,
)
from edgec.profile.timing.model import board_milliseconds, milliseconds
from edgec.profile.verify.agreement import CALIBRATION, SAMPLES
from edgec.target import Target
from edgec.toolchain import (
    build_aarch64,
    build_cuda,
    build_image,
    build_objects,
    find_nvcc,
    image_sizes,
    read_manifest,
    symbols,
)

Array = np.ndarray[Any, np.dtype[Any]]


def build_report(
    folder: Path,
    target: Target,
    plan: Plan,
    data: Mapping[str, Array] | None,
    rates: Mapping[str, float],
    options: Options,
    *,
    source: str = CALIBRATION,
) -> dict[str, Any]:
    """Layers, totals, and how each figure was obtained. The linked image stays in the folder where that is chosen.

    data: one sample of every input, `source` says in words what it is; rates: the mean of every spike tensor.
    """
    filling = plan.graph.delay if slides(plan.graph) else 0
    silent, per = filling + 8 if plan.graph.is_step else 1, what_a_call_is(plan.graph)
    toolchain, keep_image = options.code.toolchain, options.code.emit_kind == "image"
    if too_large(plan, target):
        measured = unmeasured(source)
        measured["how"]["flash"] = "sum of the constants: no image is linked for a part that cannot hold it"
    else:
        measured = measure(folder, target, data, toolchain, keep_image, per, silent, source, filling)
    code: Mapping[str, int] = measured.pop("code")
    memory = region_rows(plan.items, target)
    fast = sum(r["bytes"] for r in memory if r["region"] not in ("flash", "ram"))
    copied = sum(i.size for i in plan.items if i.kind == "weights" and i.region != "flash")
    layers = [_layer(plan, call, code, rates) for call in plan.calls]
    _charge_once(plan, layers, code)
    flash = measured["flash"] or sum(r["flash"] for r in layers)
    for row in layers:
        row["instructions"] = mean_of(measured["per_node"], row["id"])
        row["cycles"] = mean_of(measured["node_cycles"], row["id"])
    stack, slowest = measured["stack"], measured["cycles_worst"] or measured["worst"]
    ram = plan.state_bytes + plan.arena_bytes + (stack or 0) + copied
    buffers = buffer_bytes(plan.graph)
    totals = {
        "macs": sum(r["macs"] for r in layers), "flash": flash, "weights": sum(a.nbytes for a in plan.consts.values()),
        "state": plan.state_bytes, "arena": plan.arena_bytes, "arena_lower_bound": plan.arena_lower_bound,
        "arena_gap": plan.arena_bytes - plan.arena_lower_bound, "arena_gap_percent": gap_percent(plan),
        "stack": stack, "copied": copied, "fast": fast,
        "ram": ram, "input_buffers": buffers[0], "output_buffers": buffers[1], "ram_with_io": ram + sum(buffers),
        "image_flash": measured["image_flash"], "image_ram": measured["image_ram"], "delay": plan.graph.delay,
        "instructions_worst": measured["worst"], "instructions_mean": measured["mean"],
        "cycles_worst": measured["cycles_worst"], "cycles_mean": measured["cycles_mean"],
        "latency_ms": None if slowest is None else milliseconds(slowest, target),
        "board_ms": board_milliseconds(measured["cycles_worst"], target) if measured["cycles_worst"] else None,
        "board_error": target.timing.board_error if target.timing is not None else None,
    }  # fmt: skip
    return {
        "model": plan.graph.name, "target": target.name, "precision": options.precision.precision,
        "toolchain": toolchain, "per": per,
        "part": {"flash": target.flash_bytes, "ram": target.ram_bytes, "clock_hz": target.clock_hz,
                 "budget_ms": target.frame_budget_ms},
        "layers": layers, "totals": totals, "memory": memory,
        "steps": [_region_row(plan, r) for r in plan.regions], "how": measured["how"],
    }  # fmt: skip


def what_a_call_is(graph: Graph) -> str:
    """Of the step: a frame, a whole window (an inference), or new samples of a window that slides (a call)."""
    if not graph.is_step:
        return "inference"
    return "call" if slides(graph) else "frame"


def buffer_bytes(graph: Graph) -> tuple[int, int]:
    """What the caller holds the inputs and the outputs of a call in."""
    inputs = sum(v.type.bytes for v in graph.inputs)
    return inputs, sum(graph.type_of(o).bytes for o in graph.outputs)


def mean_of(frames: Sequence[Mapping[int, float]], node: int) -> int | None:
    """Mean of a node's figure over all frames, 0 in those it does not run in; None where nothing was measured."""
    return round(float(np.mean([f.get(node, 0) for f in frames]))) if frames else None


def gap_percent(plan: Plan) -> float:
    """By how much the arena exceeds what no placement can be smaller than."""
    return 100 * (plan.arena_bytes / plan.arena_lower_bound - 1) if plan.arena_lower_bound else 0.0


def _region_row(plan: Plan, region: Region) -> dict[str, Any]:
    """A chain that runs in steps, and what that costs."""
    nodes = plan.graph.nodes
    macs = sum(layer.op.cost(layer.inputs, (layer.output,)).macs for layer in region.layers)
    return {
        "first": nodes[region.first].output, "last": nodes[region.last].output, "rows": region.rows,
        "strips": region.strips, "macs_again": region.macs() - macs, "instructions": round(region.overhead()),
    }  # fmt: skip


def too_large(plan: Plan, target: Target) -> bool:
    """Whether constants exceed a microcontroller's flash, or state and arena its RAM: then no image can be linked."""
    weights = sum(a.nbytes for a in plan.consts.values())
    exceeds = weights > target.flash_bytes or plan.state_bytes + plan.arena_bytes > target.ram_bytes
    return target.arch == "arm-m" and exceeds


def unmeasured(source: str) -> dict[str, Any]:
    """What `measure` starts from; `source` says in words what the inputs are."""
    inputs = f"{SAMPLES} calibration inputs" if source == CALIBRATION else source
    how = {
        "macs": "counted from the shapes, dense-equivalent",
        "spike_rate": f"mean over {inputs}, on the reference",
        "input_rate": "mean over the calibration data; a layer of spikes takes the kernel that it makes cheapest",
    }
    kinds = ("flash", "image_flash", "image_ram", "stack", "worst", "mean", "cycles_worst", "cycles_mean")
    nothing = dict.fromkeys(kinds)
    return {**nothing, "per_node": [], "node_cycles": [], "code": {}, "how": how}


def _layer(plan: Plan, call: Call, code: Mapping[str, int], rates: Mapping[str, float]) -> dict[str, Any]:
    node = call.node
    inputs = plan.graph.input_types(node)
    arena = sum(plan.places[o].type.bytes for o in node.outputs if plan.places[o].storage == "arena")
    states = sum(plan.graph.state(s).type.bytes for s in node.states)
    weights = [t.dtype.value for i, t in zip(node.inputs, inputs, strict=True) if i in plan.graph.consts]
    precision = inputs[0].dtype.value + (
        f" x {weights[0]}" if weights and node.op.cost(inputs, node.types).macs else ""
    )
    return {
        "id": call.index, "name": node.outputs[0], "op": node.op.name, "variant": call.variant,
        "shape": list(node.types[0].shape), "precision": precision, "macs": node.op.cost(inputs, node.types).macs,
        "flash": 0, "ram": arena + states + call.kernel.scratch, "state": states,
        "spike_rate": rates.get(node.outputs[0]), "input_rate": getattr(node.op, "spike_rate", None),
        "source": "; ".join(node.source),
    }  # fmt: skip


def _charge_once(plan: Plan, layers: list[dict[str, Any]], code: Mapping[str, int]) -> None:
    """Flash of each layer: its constants and its kernel; what several layers share is charged to the first."""
    charged: set[str] = set()
    for call, row in zip(plan.calls, layers, strict=True):
        for name in (a for c in plan.every_call if c.index == call.index for a in c.args):
            if name in plan.consts and name not in charged:
                row["flash"] += plan.consts[name].nbytes
                charged.add(name)
    for symbol, size in code.items():
        owner = next((r for r in layers if symbol.startswith(f"k{r['id']}_")), None)
        if owner is not None:
            owner["flash"] += size


def measure(
    folder: Path,
    target: Target,
    data: Mapping[str, Array] | None,
    toolchain: str,
    keep_image: bool,
    per: str = "frame",
    silent_frames: int = 8,
    source: str = CALIBRATION,
    filling: int = 0,
) -> dict[str, Any]:
    """Flash of the linked image, stack by painting and instructions per frame, where this machine can find them out.

    data: one sample of every input, in order; without it `silent_frames` of zeros. The first `filling` frames only fill
    a sliding window: they are not counted.
    """
    result = unmeasured(source)
    how = result["how"]
    if target.arch == "cuda":
        _compile_cuda(folder, target, keep_image, how)
    if target.arch not in ("arm-m", "aarch64"):
        how["flash"] = "sum of the constants; no image is linked for this target"
        return result
    with tempfile.TemporaryDirectory(prefix="edgec-") as work:
        elf = (folder if keep_image else Path(work)) / f"{folder_name(folder)}.elf"
        link(folder, target, elf, toolchain)
        if target.arch == "aarch64":
            _weigh_objects(folder, target, result)
        else:
            sizes = image_sizes(elf)
            result["flash"], result["image_flash"] = sizes.flash, sizes.image_flash
            result["code"] = {s.name: s.size for s in symbols(elf) if s.is_function}
            how["flash"] = f"text + rodata + data of the model in the linked image ({toolchain})"
        specs = read_manifest(folder).inputs
        silent = [np.zeros((silent_frames, *spec.shape), spec.dtype) for spec in specs]
        given = silent if data is None else data.values()
        named = {spec.name: x for spec, x in zip(specs, given, strict=True)}
        inputs = list(input_frames(named, specs))
        shown = "silence" if data is None else source
        _count(Path(work), elf, folder, target, toolchain, inputs, shown, per, filling, result)
        if result["stack"] is not None and target.arch == "arm-m":
            result["image_ram"] = image_sizes(elf).ram + result["stack"]
    return result


def link(folder: Path, target: Target, elf: Path, toolchain: str, *, profile: bool = False) -> Path:
    """A program for 64-bit ARM Linux, or an image for a bare Cortex-M."""
    if target.arch == "aarch64":
        return build_aarch64(folder, target, elf, profile=profile)
    return build_image(folder, target, elf, toolchain=toolchain, profile=profile)


def _weigh_objects(folder: Path, target: Target, result: dict[str, Any]) -> None:
    """Flash from the model's own objects: a linked Linux executable is mostly its C library."""
    name, how = folder_name(folder), result["how"]
    with tempfile.TemporaryDirectory(prefix="edgec-") as work:
        objects = build_objects(folder, target, work)
        result["flash"] = sum(image_sizes(o).flash for o in objects)
        found = [s for o in objects for s in symbols(o) if s.is_function]
    result["code"] = {s.name.removeprefix(f"{name}_"): s.size for s in found}
    how["flash"] = f"text + rodata + data of the model's {len(objects)} objects, before linking"


def _compile_cuda(folder: Path, target: Target, keep_image: bool, how: dict[str, str]) -> None:
    """Where nvcc is, the generated source must pass it; with keep_image the library stays in the folder."""
    if find_nvcc() is None:
        how["build"] = "not compiled: nvcc is not on the PATH"
        return
    with tempfile.TemporaryDirectory(prefix="edgec-") as work:
        build_cuda(folder, target, (folder if keep_image else Path(work)) / f"{folder_name(folder)}.so")
    how["build"] = f"compiled and linked by nvcc for {target.cpu}, without warnings"


def folder_name(folder: Path) -> str:
    """The model's name, as its manifest has it."""
    return read_manifest(folder).name


def _count(
    work: Path,
    elf: Path,
    folder: Path,
    target: Target,
    toolchain: str,
    inputs: Sequence[Any],
    source: str,
    per: str,
    filling: int,
    result: dict[str, Any],
) -> None:
    """Instructions and modelled cycles of the product image, and per layer of a profile build. What cannot be measured
    costs the figure alone: `how` says why it is not there."""
    how, kind = result["how"], counting_kind(target)
    if kind is None:
        how["instructions"] = f"not counted: no emulator for {target.name}"
        return
    run = Run(kind, folder, target, inputs, filling)
    try:
        with run.open(elf) as device:
            whole = run.count(device)
            result["stack"], counted = device.memory().get("stack_bytes"), device.counters.how
    except Exception as err:  # of whatever kind, it is no reason to have no library
        how["instructions"] = how["layers"] = f"not counted: {why_unmeasured(err)}"
        return
    count, mhz = len(whole.instructions), f"{target.clock_hz / 1e6:g} MHz"
    result["worst"], result["mean"] = max(whole.instructions), float(np.mean(whole.instructions))
    how["instructions"] = f"{counted} over {counted_calls(count, per)} of {source}"
    if result["stack"] is not None:
        how["stack"] = "high-water mark of the painted stack in the same run"
    how["cycles"], how["board"] = how_modelled(target), how_on_board(target)
    how["latency"] = f"estimate: {worst_of(per)} at one instruction per cycle, {mhz}"
    if whole.cycles:
        result["cycles_worst"], result["cycles_mean"] = round(max(whole.cycles)), round(float(np.mean(whole.cycles)))
        how["latency"] = f"estimate: modelled cycles of {worst_of(per)}, {mhz}"
    try:
        with run.open(link(folder, target, work / "profile.elf", toolchain, profile=True), profile=True) as device:
            layers = run.count(device)
    except Exception as err:  # of whatever kind, it is no reason to have no library
        how["layers"] = f"not counted: {why_unmeasured(err)}"
        return
    result["per_node"], result["node_cycles"] = layers.per_node, layers.node_cycles
    figures = "instructions and cycles" if run.modelled else "instructions"
    how["layers"] = f"{figures}: mean over the same {per}s, of a build with a mark behind each layer"
    if layers.cycles and whole.cycles:
        how["layers"] += f"; {marks_cost(float(np.mean(layers.cycles)), float(np.mean(whole.cycles)))}"


@dataclass(frozen=True)
class Run:
    """How images of a model run to be counted, on what."""

    kind: str
    folder: Path
    target: Target
    inputs: Sequence[Any]
    filling: int

    @property
    def modelled(self) -> bool:
        return timing_obstacle(self.target) is None

    def open(self, elf: Path, profile: bool = False) -> Device:
        """The image on its emulator."""
        manifest = read_manifest(self.folder)
        return open_image(self.kind, elf, manifest, self.target, profile=profile, counting=True, flow=self.modelled)

    def count(self, device: Device) -> Frames:
        return count_frames(device, self.inputs, self.target, self.filling)
