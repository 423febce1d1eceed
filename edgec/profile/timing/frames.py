"""A run over frames on the emulated core: instructions counted, and cycles modelled from those that ran."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgec.device import Device
from edgec.errors import EdgecError, ToolchainError
from edgec.profile.timing.decode import knows_vectors
from edgec.profile.timing.model import CycleModel
from edgec.target import Target


@dataclass
class Frames:
    """Frame by frame: instructions and cycles in all, and in a profile build per node (-1: none of them). No cycles
    where the target has no timing model."""

    instructions: list[int] = field(default_factory=list)
    per_node: list[dict[int, int]] = field(default_factory=list)
    cycles: list[float] = field(default_factory=list)
    node_cycles: list[dict[int, float]] = field(default_factory=list)


def worst_of(per: str) -> str:
    """The slowest call in words; `per` is what a call is: a frame, a call of a sliding window, or an inference, of
    which there is one."""
    return "the inference" if per == "inference" else f"the worst {per}"


def counted_calls(count: int, per: str) -> str:
    """`100 frames`, `1 inference`."""
    return f"{count:,} {per}" + ("" if count == 1 else "s")


def marks_cost(marked: float, shipped: float) -> str:
    """Why a build that counts per layer takes other cycles than the code that ships, and how many, in words."""
    return (
        f"{100 * (marked / shipped - 1):+.1f} % cycles against the code that ships: each mark is a call, and moves what"
        " follows to other lines of flash"
    )


def timing_obstacle(target: Target) -> str | None:
    """Why the cycles of a target cannot be modelled; None where they can."""
    if target.timing is None:
        return f"the target file of {target.name} has no timing table"
    if not {"unicorn", "qemu"} & set(target.devices):
        return f"no emulator follows the code of {target.name} instruction by instruction"
    if importlib.util.find_spec("capstone") is None:
        return "the disassembler capstone is not installed (pip install 'edgec[emulator]')"
    if target.timing.beats and not knows_vectors():
        return (
            "the disassembler capstone knows its vector instructions from version 6 on (pip install 'edgec[emulator]')"
        )
    return None


def how_modelled(target: Target) -> str:
    """What the cycles of a report are; labelled as the estimate they are."""
    obstacle = timing_obstacle(target)
    if obstacle is not None or target.timing is None:
        return f"not modelled: {obstacle}"
    return f"estimate, modelled from the executed instructions: {target.timing.source}. {target.timing.error}"


def how_on_board(target: Target) -> str:
    """What the milliseconds for a board are, and how far off they may be."""
    t = target.timing
    if timing_obstacle(target) is not None or t is None or not t.board_factor:
        return "not estimated: no published run calibrates the cycles of this core"
    return (
        f"estimate: {t.board_factor:g} times the modelled cycles, fitted to {t.board};"
        f" standard deviation {100 * t.board_error:.0f} %"
    )


def why_unmeasured(err: Exception) -> str:
    """Why there is no figure, in one line. What the model itself is to blame for is raised again: no EdgecError but
    that of a tool or an emulator stands for a failure to measure."""
    if isinstance(err, EdgecError) and not isinstance(err, ToolchainError):
        raise err
    text = " ".join(str(err).split())
    return text if isinstance(err, ToolchainError) else f"{type(err).__name__}: {text}".removesuffix(": ")


def count_frames(device: Device, inputs: Iterable[Sequence[Any]], target: Target, filling: int = 0) -> Frames:
    """Run inputs, the device's numbers of one frame each, on a device that counts (with its flow, if cycles are to
    be modelled). The first `filling` frames only run, unless no others are left."""
    found, frames = Frames(), list(inputs)
    filling = filling if len(frames) > filling else 0
    model = CycleModel(target.timing) if target.timing is not None else None
    for number, x in enumerate(frames):
        device.step(x)
        if number < filling:
            continue
        found.instructions.append(device.counters.instructions)
        found.per_node.append(dict(device.counters.per_node))
        if device.flows and model is not None:
            cycles = {node: model.cycles(flow) for node, flow in device.flows.items()}
            found.cycles.append(sum(cycles.values()))
            found.node_cycles.append(cycles)
    return found
