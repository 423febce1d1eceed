"""The shipped Tiny Time Mixer by name, int8: every hour a sample in and a forecast out, the same bytes everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import edgec
from edgec.frontends.checkpoint import build_model, read_checkpoint
from edgec.frontends.shipped import file_of
from edgec.ir.evaluate import StepRunner, evaluate
from edgec.options import Form
from edgec.stages import form_of
from edgec.target import load_target

CONTEXT, HORIZON = 512, 96


def hours(count: int, seed: int = 0) -> np.ndarray:
    """An hourly series of nowhere: a day, a week, a drift and noise, about the size of standardised data."""
    rng, t = np.random.default_rng(seed), np.arange(count)
    wave = np.sin(2 * np.pi * t / 24 + seed) + 0.4 * np.sin(2 * np.pi * t / 168)
    return (0.8 * wave + np.cumsum(rng.normal(size=count)) * 0.02 + rng.normal(size=count) * 0.15).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> edgec.CompiledModel:
    return edgec.compile("ttm", "cortex-m7", tmp_path_factory.mktemp("ttm") / "m7")


def integers(model: edgec.CompiledModel, series: np.ndarray) -> np.ndarray:
    """The series as the device takes it: [T] int16."""
    spec = model.manifest.inputs[0]
    return np.clip(np.round(series / spec.scale), -32768, 32767).astype(np.int16)


def on_device(model: edgec.CompiledModel, kind: str, series: np.ndarray) -> list[np.ndarray]:
    with model.device(kind) as device:
        outs = [device.step([x.reshape(1, 1, 1)]) for x in series]
    assert [o is None for o in outs] == [True] * (CONTEXT - 1) + [False] * (len(series) - CONTEXT + 1)
    return [o[0].reshape(-1) for o in outs if o is not None]


def test_reference_host_and_emulated_core_give_the_same_bytes(model: edgec.CompiledModel) -> None:
    """A level, a flat line and a jump within the series; every forecast is that of its whole window."""
    series = hours(CONTEXT + 4)
    series[-3:] += 2.0
    series[:300] = 0.25
    x = integers(model, series)
    whole, name = model.graph("whole"), model.graph("whole").inputs[0].name
    tensor = torch.from_numpy(x.astype(np.int64)).view(1, -1, 1)
    expected = [evaluate(whole, {name: tensor[:, k : k + CONTEXT]})[0].view(-1).numpy() for k in range(5)]
    streamed = [o[0].view(-1).numpy() for o in StepRunner(model.graph("step")).run({name: tensor})]
    for kind, found in (
        ("reference, streamed", streamed),
        ("host", on_device(model, "host", x)),
        ("emulated core", on_device(model, "unicorn", x)),
    ):
        np.testing.assert_array_equal(np.stack(found), np.stack(expected), err_msg=kind)


def test_reset_starts_a_new_window(model: edgec.CompiledModel) -> None:
    a, b = (integers(model, hours(CONTEXT, seed)) for seed in (1, 2))
    with model.device("host") as device:
        for x in a[:200]:
            device.step([x.reshape(1, 1, 1)])
        device.reset()
        outs = [device.step([x.reshape(1, 1, 1)]) for x in b]
    assert outs[-1] is not None
    np.testing.assert_array_equal(outs[-1][0].reshape(-1), on_device(model, "host", b)[0])


def test_forecasts_are_near_the_float_models(model: edgec.CompiledModel) -> None:
    """In the series' own units: within a tenth of its deviation on average, less than its noise."""
    module = build_model(file_of("ttm"), read_checkpoint(file_of("ttm")))
    series = hours(CONTEXT + 8, 3)
    found = model.run(series).reshape(-1, HORIZON)
    windows = torch.from_numpy(np.stack([series[k : k + CONTEXT] for k in range(9)]))[:, :, None]
    with torch.no_grad():
        expected = module(windows)[:, :, 0].numpy()
    assert found.shape == expected.shape
    error = np.sqrt(np.square(found - expected).mean())
    assert error < 0.1 * series.std()


def test_it_slides_by_itself_and_fits(model: edgec.CompiledModel) -> None:
    totals, part = model.report["totals"], load_target("cortex-m7")
    assert model.report["sliding"]
    assert totals["delay"] == CONTEXT - 1
    assert totals["flash"] < 1 << 20
    assert totals["ram"] < 32 << 10
    assert totals["ram"] < part.ram_bytes
    spec, out = model.manifest.inputs[0], model.manifest.outputs[0]
    assert (spec.dtype, spec.shape, out.dtype, out.shape) == ("int16", (1, 1, 1), "int16", (1, HORIZON, 1))
    assert not any("float" in t.dtype.value for n in model.graph("step").nodes for t in n.types)


def test_a_whole_window_a_call_on_request() -> None:
    assert form_of(Form(), "ttm").sliding
    assert form_of(Form(hop=24), "ttm") == Form(sliding=True, hop=24)
    assert not form_of(Form(streaming=False), "ttm").sliding
    assert not form_of(Form(sliding=False), "ttm").sliding
