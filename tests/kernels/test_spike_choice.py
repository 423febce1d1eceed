"""A layer of spikes takes the kernel that its trained spike rate makes cheapest, as counted on an emulated core."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import pytest

from edgec.ir.types import DType, TensorType
from edgec.kernels import event, select
from edgec.ops import QLinear
from edgec.ops.base import Site
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.streaming.make_streaming import MakeStreaming
from edgec.target import load_target
from tests.conftest import needs
from tests.graphs import Builder, conv, lif

SHAPES = ((128, 64), (160, 12), (96, 1), (64, 20), (32, 4))
RATES = (0.02, 0.2, 0.4, 0.5, 0.6, 0.8, 0.98)
KINDS = ("event", "silence", "dense")
KIND_OF = {"event_dsp": "event", "silence_dsp": "silence", "spikes_dsp": "dense", "spikes_mve": "dense"}


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).resolve().parent.parent.parent / "bench" / "kernels.py"
    spec = importlib.util.spec_from_file_location("kernels_bench", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def site(c: int, o: int, lowest: int = -127) -> Site:
    types = TensorType((1, 1, c), DType.BIT, None, 1), TensorType((c, o), DType.I8), TensorType((o,), DType.I32)
    values = {1: np.full((c, o), lowest, np.int8), 2: np.zeros(o, np.int32)}
    return Site(types, QLinear().infer(types), (), values)


@pytest.mark.parametrize("name", ["cortex-m4", pytest.param("cortex-m55", marks=needs("qemu-system-arm"))])
def test_the_choice_is_close_to_the_best(name: str, bench: ModuleType) -> None:
    """QEMU's counts of a single layer are no better than 32 instructions."""
    pytest.importorskip("unicorn")
    target, slack = load_target(name), 0 if name == "cortex-m4" else 64
    layers = [(f"{c} to {o}", QLinear(), DType.BIT, (1, 1, c), o) for c, o in SHAPES]
    counts = {}
    for kind in KINDS:
        with (
            mock.patch.object(event, "cheapest", return_value=kind),
            mock.patch("edgec.kernels.cortex_m.dense.cheapest", return_value=kind),
            mock.patch("edgec.kernels.helium.image.cheapest", return_value=kind),
        ):
            variants, counts[kind] = bench.measure(layers, target, "zig", RATES)
        assert {KIND_OF[v] for v in variants.values()} == {kind}
    for k, (c, o) in enumerate(SHAPES):
        for j, rate in enumerate(RATES):
            found = {kind: counts[kind][j][k] for kind in KINDS}
            chosen = KIND_OF[select(QLinear(spike_rate=rate), site(c, o), target.isa)[0]]
            assert found[chosen] <= 1.1 * min(found.values()) + slack, (c, o, rate, chosen, found)


def test_variants_follow_the_rate() -> None:
    isa = ("arm_dsp", "generic")
    assert select(QLinear(), site(128, 64), isa)[0] == "event_dsp"
    assert select(QLinear(spike_rate=0.1), site(128, 64), isa)[0] == "event_dsp"
    assert select(QLinear(spike_rate=0.9), site(128, 64), isa)[0] == "silence_dsp"
    assert select(QLinear(spike_rate=0.5), site(128, 1), isa)[0] == "spikes_dsp"
    assert select(QLinear(spike_rate=0.9), site(128, 64, -128), isa)[0] == "event_dsp"  # -(-128) is no int8
    assert select(QLinear(spike_rate=0.9), site(128, 64), ("generic",))[0] == "event"
    assert select(QLinear(spike_rate=0.1), site(128, 64), ("helium", *isa))[0] == "event_dsp"
    assert select(QLinear(spike_rate=0.3), site(128, 64), ("helium", *isa))[0] == "spikes_mve"


def test_calibration_gives_layers_the_rate_of_their_spikes() -> None:
    b = Builder()
    spikes = lif(b, conv(b, b.input("x", 1, 30, 8), 16, 3, (1, 1)))
    graph = b.build(conv(b, spikes, 12, 3, (1, 1)))
    data = {"x": np.random.default_rng(0).normal(size=(8, 1, 30, 8)).astype(np.float32)[:, 0]}
    whole = Quantize(data).run(graph)
    step = MakeStreaming().run(whole)
    for found in (whole, step):
        rates = [n.op.spike_rate for n in found.nodes if n.op.name == "qconv1d"]
        assert rates[0] is None  # reads int8
        assert 0.02 < rates[1] < 0.98
    assert dataclasses.replace(QLinear(), spike_rate=0.25) == QLinear(spike_rate=0.25)
