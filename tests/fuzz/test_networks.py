"""Random networks through the whole compiler: torch, reference, sanitized C and the emulated core agree."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import edgec
from edgec.compiled import input_frames
from edgec.device.base import Device
from edgec.ir.evaluate import StepRunner, evaluate
from edgec.profile.verify.compare import as_stored
from edgec.toolchain.manifest import TensorSpec
from tests.fuzz.campaign import bounded
from tests.fuzz.random_networks import Case, network
from tests.fuzz.sanitized import SanitizedDevice

CAMPAIGN, SHARE, STEP = 500, 12, 41  # in steps of 41, families, targets and precisions go round
SECONDS = 300  # for one network
TARGETS = ("cortex-m7", "cortex-m4", "cortex-m0plus", "cortex-m33", "host", "cortex-m3")
TOLERANCE = 1e-4
LEAST_DB = 10.0  # int8 outputs against float, over random networks; far below it something is wrong, not coarse
LEVELS = 4  # or this many of the output's own: an output of one number may be nearly zero


def choices(seed: int) -> tuple[str, str]:
    """Target and precision of a seed: every family meets every target in both precisions."""
    return TARGETS[seed // 6 % len(TARGETS)], ("int8", "float32")[seed // 36 % 2]


def tuple_of(value: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def check_agreement(case: Case, model: edgec.CompiledModel, x: tuple[torch.Tensor, ...], work: Path) -> None:
    """The float graph is the module; step by step, reference, sanitized C and emulated core give the same bytes."""
    truth = tuple_of(case.module(*x))
    reference = model.graph("reference")
    found = evaluate(reference, {v.name: t for v, t in zip(reference.inputs, x, strict=True)})
    for a, b in zip(truth, found, strict=True):
        last = slice(-1, None) if case.readout and b.dim() > a.dim() else slice(None)
        torch.testing.assert_close(b[:, last].reshape(a.shape), a, atol=TOLERANCE, rtol=TOLERANCE)
    devices: list[Device] = [SanitizedDevice(model.folder, work)] if shutil.which("gcc") else []
    devices.append(model.device("host" if model.manifest.target == "host" else "emulator"))
    outputs = [same_frames(model, x, d) for d in devices]
    streamed = outputs[0]
    for k, (expected, spec) in enumerate(zip(truth, model.manifest.outputs, strict=True)):
        real = np.stack([edgec.compiled.to_real(frame[k], spec) for frame in streamed])
        compare_with_truth(case, spec, real, expected.numpy())


def same_frames(model: edgec.CompiledModel, x: tuple[torch.Tensor, ...], device: Device) -> list[list[np.ndarray]]:
    """The device's outputs over a sequence, each equal to the step reference's."""
    step, kept = model.graph("step"), []
    runner = StepRunner(step)
    with device:
        for frame in input_frames([t.numpy() for t in x] if len(x) > 1 else x[0].numpy(), model.manifest.inputs):
            wanted = runner.step({v.name: torch.from_numpy(a) for v, a in zip(step.inputs, frame, strict=True)})
            kept += same(step, wanted, device.step(frame))
        while (wanted := runner.flush()) is not None:
            kept += same(step, wanted, device.flush())
    return kept


def same(step, wanted, found) -> list[list[np.ndarray]]:
    assert (wanted is None) == (found is None)
    if wanted is None:
        return []
    for name, w, f in zip(step.outputs, wanted, found, strict=True):
        stored = as_stored(w, step.type_of(name))
        if stored.dtype.kind == "f":
            np.testing.assert_allclose(f.reshape(stored.shape), stored, atol=TOLERANCE, rtol=TOLERANCE)
        else:
            np.testing.assert_array_equal(f.reshape(stored.shape), stored)
    return [list(found)]


def compare_with_truth(case: Case, spec: TensorSpec, real: np.ndarray, expected: np.ndarray) -> None:
    """What came out of the device, over all frames, against the module on the whole input."""
    if case.readout:
        real = real[-1:]
    real = real.reshape(expected.shape)
    if np.dtype(spec.dtype).kind == "f":
        np.testing.assert_allclose(real, expected, atol=TOLERANCE, rtol=10 * TOLERANCE)
        return
    if case.spikes:
        return
    signal, noise = float((expected**2).mean()), float(((real - expected) ** 2).mean())
    allowed = max(signal * 10 ** (-LEAST_DB / 10), (LEVELS * (spec.scale or 1.0)) ** 2)
    assert noise <= allowed, f"{10 * np.log10(signal / noise):.1f} dB"


def run_seed(seed: int, tmp_path: Path) -> None:
    """Compile and compare one network; all of these families are supported, so a refusal is a failure too."""
    case, rng = network(seed), np.random.default_rng(seed + 1)
    target, precision = choices(seed)
    samples = [case.draw(rng) for _ in range(8)]
    names = ("x", "h") if len(case.inputs) > 1 else ("input",)
    data = {n: np.concatenate([s[k].numpy() for s in samples]) for k, n in enumerate(names)}
    with bounded(SECONDS):
        model = edgec.compile(
            case.module, target, tmp_path / "out", precision=precision, example_inputs=case.inputs,
            time_axis=1 if case.streams else None, calibration=data if precision == "int8" else None,
        )  # fmt: skip
        check_agreement(case, model, samples[0], tmp_path)  # outside of what was calibrated, integers saturate


@pytest.mark.parametrize("seed", range(0, SHARE * STEP, STEP))
def test_a_random_network(seed: int, tmp_path: Path) -> None:
    run_seed(seed, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(CAMPAIGN))
def test_the_campaign_of_random_networks(seed: int, tmp_path: Path) -> None:
    run_seed(seed, tmp_path)
