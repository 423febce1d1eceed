"""The shipped LMUFormer, compiled: the same bytes from the reference, the C on this computer and the emulated cores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import edgec
from edgec.compiled import frames
from edgec.device import Device
from edgec.device.host import HostDevice
from edgec.frontends.checkpoint import build_model, read_checkpoint
from edgec.ir.evaluate import StepRunner, evaluate
from edgec.plan.state import HEADER_BYTES
from edgec.target import load_target
from edgec.toolchain import image_sizes
from tests.conftest import MODEL, needs, shipped_clips

CLIPS = shipped_clips()


def stream(device: Device, model: edgec.CompiledModel, pcm: np.ndarray) -> np.ndarray:
    """All outputs of a clip, flush included, in the device's integers [frames, classes]."""
    device.reset()
    outs = [device.step([frame.reshape(1, -1)]) for frame in frames(pcm, model.manifest.inputs[0])]
    outs = [o for o in outs if o is not None]
    while (out := device.flush()) is not None:
        outs.append(out)
    return np.stack([o[0].reshape(-1) for o in outs])


@pytest.fixture(scope="module")
def model(lmuformer: Path) -> edgec.CompiledModel:
    return edgec.CompiledModel(lmuformer)


def test_reference_host_and_emulated_core_give_the_same_bytes_on_50_clips(model: edgec.CompiledModel) -> None:
    """Every frame of 50 real clips: whole-sequence integer reference == host C == emulated M7."""
    whole = model.graph("whole")
    name = whole.inputs[0].name
    with model.device("host") as host, model.device("unicorn") as core:
        for label, pcm in CLIPS[:50]:
            expected = evaluate(whole, {name: torch.from_numpy(pcm).view(1, -1)})[0].numpy()[0]
            on_host = stream(host, model, pcm)
            np.testing.assert_array_equal(on_host, expected, err_msg=f"{label}: host")
            np.testing.assert_array_equal(stream(core, model, pcm), on_host, err_msg=f"{label}: emulated core")


@needs("qemu-system-arm")
def test_qemu_gives_the_same_bytes_on_5_clips(model: edgec.CompiledModel) -> None:
    with model.device("host") as host, model.device("qemu") as board:
        for label, pcm in CLIPS[:5]:
            np.testing.assert_array_equal(stream(board, model, pcm), stream(host, model, pcm), err_msg=label)


@needs("arm-none-eabi-gcc")
def test_an_image_built_by_gcc_gives_the_same_bytes(model: edgec.CompiledModel) -> None:
    _, pcm = CLIPS[0]
    with model.device("host") as host, model.device("unicorn", toolchain="gcc") as core:
        np.testing.assert_array_equal(stream(core, model, pcm), stream(host, model, pcm))


def test_streamed_references_equal_the_whole_sequence(model: edgec.CompiledModel) -> None:
    """Step graph on its references, frame by frame: bit-equal for integers, within 1e-4 for float."""
    whole, step = model.graph("whole"), model.graph("step")
    name, (_, pcm) = whole.inputs[0].name, CLIPS[3]
    x = torch.from_numpy(pcm).view(1, -1)
    streamed = torch.cat([o[0] for o in StepRunner(step).run({name: x})], 1)
    assert torch.equal(streamed, evaluate(whole, {name: x})[0])


def test_the_delay_is_the_true_one(model: edgec.CompiledModel) -> None:
    """A click in the last frame of silence changes outputs from `delay` steps before the clip's last output on."""
    _, pcm = CLIPS[0]
    changed = pcm.copy()
    at = 60  # frame whose samples differ
    changed[at * 160 + 80 : (at + 1) * 160] ^= 0x2AA
    with model.device("host") as host:
        a, b = stream(host, model, pcm), stream(host, model, changed)
    first = int(np.nonzero((a != b).any(axis=1))[0][0])
    delay = model.manifest.delay
    assert first >= at - delay, "an output saw a frame before it was fed"
    with model.device("host") as host:
        host.reset()
        steps = [host.step([f.reshape(1, -1)]) is not None for f in frames(pcm, model.manifest.inputs[0])]
    assert steps == [False] * delay + [True] * (len(steps) - delay)


def test_two_interleaved_instances(model: edgec.CompiledModel) -> None:
    (_, a), (_, b) = CLIPS[0], CLIPS[1]
    with model.device("host") as alone:
        expected = [stream(alone, model, a), stream(alone, model, b)]
    spec = model.manifest.inputs[0]
    with model.device("unicorn", instances=2) as core:
        found: list[list[np.ndarray]] = [[], []]
        for pair in zip(frames(a, spec), frames(b, spec), strict=True):
            for k, frame in enumerate(pair):
                core.select(k)
                out = core.step([frame.reshape(1, -1)])
                found[k] += [] if out is None else [out[0].reshape(-1)]
    for k in (0, 1):
        np.testing.assert_array_equal(np.stack(found[k]), expected[k][: len(found[k])])


def test_flash_is_within_the_bar_and_the_report_measures_it(model: edgec.CompiledModel, lmuformer: Path) -> None:
    totals = model.report["totals"]
    elf = next(lmuformer.glob("*.elf"))
    assert totals["flash"] == image_sizes(elf).flash
    assert image_sizes(elf).image_flash <= 1.15 * totals["weights"] + 64 * 1024
    assert totals["ram"] == totals["state"] + totals["arena"] + totals["stack"]
    assert totals["arena"] >= totals["arena_lower_bound"]
    assert totals["ram"] < load_target("cortex-m7").ram_bytes


def test_step_takes_real_values_and_gives_real_scores(model: edgec.CompiledModel) -> None:
    _, pcm = CLIPS[0]
    integers, reals = model.run(pcm), model.run(pcm.astype(np.float32) / 32768)
    np.testing.assert_array_equal(integers, reals)
    assert integers.shape == (100, 1, 1, 12)


@pytest.mark.nightly
def test_a_million_frames_leave_no_trace(model: edgec.CompiledModel) -> None:
    """After a million frames, an instance has state and outputs of a fresh one fed only the last ten seconds."""
    sound = np.concatenate([pcm for _, pcm in CLIPS])
    spec = model.manifest.inputs[0]
    pieces = [f.reshape(1, -1) for f in frames(sound, spec)]
    tail = pieces[:1000]
    with model.device("host", instances=2) as device:
        assert isinstance(device, HostDevice)
        for t in range(1_000_000 - len(tail)):
            device.step([pieces[t % len(pieces)]])
        old, old_state = [device.step([f]) for f in tail], device.state()
        device.select(1)
        new, new_state = [device.step([f]) for f in tail], device.state()
    assert old_state[HEADER_BYTES:] == new_state[HEADER_BYTES:]  # all but the frame counter
    settled = 500
    for a, b in zip(old[settled:], new[settled:], strict=True):
        assert a is not None
        assert b is not None
        np.testing.assert_array_equal(a[0], b[0])


def test_a_float_build_takes_pcm_and_equals_the_users_module(tmp_path: Path) -> None:
    """Streamed C of the float build, fed int16 PCM, against torch on whole clips: within 1e-4, every frame."""
    path = MODEL / "lmuformer.pt"
    module = build_model(path, read_checkpoint(path))
    built = edgec.compile(path, "host", tmp_path / "f32", precision="float32")
    for label, pcm in CLIPS[:6]:
        with torch.no_grad():
            expected = module(torch.from_numpy(pcm).float().view(1, -1) / 32768)[0].numpy()
        np.testing.assert_allclose(built.run(pcm).reshape(expected.shape), expected, atol=1e-4, err_msg=label)
    built.close()
