"""Everything a card states, measured on this machine: torch, the compiled C on the host, the images on the emulator."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgec.compiled import CompiledModel
from edgec.errors import BudgetError, EdgecError
from edgec.frontends.checkpoint import build_model, read_checkpoint
from edgec.options import Options
from edgec.pipeline import compile_model
from edgec.signal_math import PCM_SCALE
from edgec.zoo.family import Array, Family

#: int8 is what ships; float32 is measured where its weights have a chance to fit
TARGETS = {
    "int8": ("cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "cortex-a53"),
    "float32": ("cortex-m7", "cortex-a53"),
}
HOST_TARGET = "cortex-m7"  # the C that is measured on the host is the one for this target, else the first that fits
QUICK = 64
CHUNK = 25
BATCH = 64

Progress = Callable[[str], None]


def torch_outputs(checkpoint: Path, inputs: Array, progress: Progress) -> tuple[Array, int]:
    """Outputs of the checkpoint's own module for whole windows [N, ...], in float32, and its number of parameters."""
    module = build_model(checkpoint, read_checkpoint(checkpoint))
    outs = []
    with torch.no_grad():
        for start in range(0, len(inputs), BATCH):
            part = torch.from_numpy(inputs[start : start + BATCH])
            real = part.float() * PCM_SCALE if part.dtype is torch.int16 else part
            outs.append(module(real).numpy())
            progress(f"torch: {start + len(part)} of {len(inputs)}")
    return np.concatenate(outs), sum(p.numel() for p in module.parameters())


class Worker:
    """A process that runs the compiled C: the model is built once in each, by `start`."""

    model: CompiledModel
    inputs: Array

    @classmethod
    def start(cls, folder: str, inputs: str) -> None:
        cls.model, cls.inputs = CompiledModel(folder), np.load(inputs, mmap_mode="r")

    @classmethod
    def run(cls, start: int) -> Array:
        """Outputs for one chunk of the inputs: all frames of each, flush included."""
        return np.stack([cls.model.run(x) for x in cls.inputs[start : start + CHUNK]])


def compiled_outputs(model: CompiledModel, inputs: Array, progress: Progress) -> Array:
    """Outputs of the compiled C on the host for every input [N, frames, ...], a process a core."""
    with tempfile.TemporaryDirectory(prefix="edgec-") as work:
        file = Path(work) / "inputs.npy"
        np.save(file, inputs)
        context = multiprocessing.get_context("spawn")
        begin = (str(model.folder), str(file))
        with ProcessPoolExecutor(os.cpu_count(), context, Worker.start, begin) as pool:
            outs = []
            for part in pool.map(Worker.run, range(0, len(inputs), CHUNK)):
                outs.append(part)
                progress(f"compiled C: {sum(map(len, outs))} of {len(inputs)}")
    return np.concatenate(outs)


def as_torch(outputs: Array, like: Array) -> Array:
    """Outputs of a step function [N, frames, 1, ...] in the shape the torch module gives them for whole windows."""
    return outputs.reshape(len(outputs), *like.shape[1:])


def accuracy(
    checkpoint: Path, precision: str, family: Family, data: tuple[Array, Array], like: Array, progress: Progress
) -> dict[str, Any]:
    """The metric of the compiled C over the test inputs, and the any-time curve where the family has one."""
    inputs, targets = data
    work = Path(tempfile.mkdtemp(prefix="edgec-"))
    try:
        model, how = host_model(checkpoint, precision, work)
        outs = as_torch(compiled_outputs(model, inputs, progress), like)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    result: dict[str, Any] = {"value": family.metric(outs, targets), "how": how}
    if family.anytime is not None:
        result["anytime"] = family.anytime(outs, targets, model.manifest.delay)
    return result


def host_model(checkpoint: Path, precision: str, work: Path) -> tuple[CompiledModel, str]:
    """The C to run on the host: streaming where the network works frame by frame, else a window a call.

    A window that slides gives for every position what a call on the whole window gives, so it is measured so.
    """
    options = Options.of(precision=precision)
    model = compile_for(checkpoint, options, work / "step")
    window = bool(model.report.get("sliding"))
    if window:
        model = compile_for(checkpoint, Options.of(options, streaming=False), work / "whole")
    target = model.manifest.target
    form = "one window a call" if window or "window" in model.report["how"] else "streamed frame by frame"
    return model, f"the C for {target}, run on the host, {form}"


def compile_for(checkpoint: Path, options: Options, out: Path) -> CompiledModel:
    """The checkpoint's C for HOST_TARGET, or for this computer where it does not fit that part."""
    try:
        return compile_model(checkpoint, HOST_TARGET, out, options=options)
    except BudgetError:
        return compile_model(checkpoint, "host", out, options=options)


def target_rows(checkpoint: Path, precisions: Sequence[str], progress: Progress) -> list[dict[str, Any]]:
    """A row for every target at every precision."""
    return [target_row(checkpoint, t, p, progress) for p in precisions for t in TARGETS[p]]


def target_row(checkpoint: Path, target: str, precision: str, progress: Progress) -> dict[str, Any]:
    """Flash, RAM and instructions for one target; `exceeds` says which budget where the model does not fit."""
    progress(f"{target}, {precision}")
    row: dict[str, Any] = {"target": target, "precision": precision}
    with tempfile.TemporaryDirectory(prefix="edgec-") as work:
        try:
            model = compile_model(checkpoint, target, Path(work) / "out", precision=precision)
        except BudgetError as err:
            lines = str(err).splitlines()
            return row | {"exceeds": [line.strip() for line in lines[1:] if " bytes used, " in line]}
        totals, how = model.report["totals"], model.report["how"]
        keys = ("flash", "weights", "state", "arena", "stack", "ram", "macs", "delay")
        row |= {key: totals[key] for key in keys}
        row |= {"mean": totals["instructions_mean"], "worst": totals["instructions_worst"], "how": how["instructions"]}
    return row


def measure(
    checkpoint: Path, family: Family, data: tuple[Array, Array], precisions: Sequence[str], progress: Progress
) -> dict[str, Any]:
    """Parameters, the metric of torch and of the C at each precision, and a row for every target."""
    inputs, targets = data
    outs, params = torch_outputs(checkpoint, inputs, progress)
    result: dict[str, Any] = {
        "params": params, "inputs": len(inputs),
        "float": {"value": family.metric(outs, targets), "how": "the torch module, float32, whole windows"},
        "compiled": {p: accuracy(checkpoint, p, family, data, outs, progress) for p in precisions},
        "targets": target_rows(checkpoint, precisions, progress),
    }  # fmt: skip
    rows = [r for r in result["targets"] if "macs" in r]
    if not rows:
        raise EdgecError(f"{checkpoint.name} fits no target, so nothing could be measured")
    return result | {"macs": rows[0]["macs"], "delay": rows[0]["delay"]}
