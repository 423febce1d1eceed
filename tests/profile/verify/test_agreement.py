"""How the outputs of a network in integers are compared with the float network's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Graph
from edgec.ops import Linear, Relu, Reshape
from edgec.passes.quantize.assign_precision import Assignment
from edgec.passes.quantize.quantize import Quantize
from edgec.profile.verify.agreement import SAMPLES, observe
from tests.graphs import Builder, lif

X = np.random.default_rng(0).normal(size=(20, 6, 8)).astype(np.float32)


def net() -> Graph:
    """Scores of 5 classes at every frame, and spikes."""
    b = Builder()
    x = b.input("x", 1, 6, 8)
    hidden = b.emit(Relu(), b.emit(Linear(), x, b.normal(8, 32), b.normal(32)))
    return b.build(b.emit(Linear(), hidden, b.normal(32, 5), b.normal(5)), lif(b, hidden))


@pytest.mark.parametrize("bits", [8, 2])
def test_figures_of_every_output(bits: int) -> None:
    graph = net()
    whole = Quantize(X, Assignment(bits)).run(graph)
    seen = observe(graph, whole, {"x": X}, compared=True)
    assert seen.inputs == SAMPLES
    scores, spikes = seen.outputs
    real, got, flipped, rate = [], [], 0.0, 0.0
    quant = whole.type_of(whole.outputs[0]).quant
    step = whole.inputs[0].type.quant
    assert quant is not None
    assert step is not None
    for x in torch.from_numpy(X[:SAMPLES]):
        wanted, wanted_spikes = evaluate(graph, {"x": x[None]})
        q = torch.floor(x[None].double() / step.scale[0] + 0.5) + step.zero_point
        found, found_spikes = evaluate(whole, {"x": q.clamp(-128, 127).long()})
        real.append(wanted.double())
        got.append((found - quant.zero_point) * quant.scale[0])
        flipped += float((wanted_spikes != found_spikes).double().mean()) / SAMPLES
        rate += float(found_spikes.double().mean()) / SAMPLES
    a, b = torch.cat(real), torch.cat(got)
    sqnr = float(10 * torch.log10(a.square().sum() / (a - b).square().sum()))
    assert scores.sqnr == pytest.approx(sqnr)
    assert (scores.same, scores.positions) == (int((a.argmax(2) == b.argmax(2)).sum()), SAMPLES * 6)
    assert spikes.flips == pytest.approx(flipped)
    assert seen.rates[whole.outputs[1]] == pytest.approx(rate)
    assert scores.diverged == spikes.diverged == (bits == 2)


def test_equal_and_silent_outputs() -> None:
    b = Builder()
    x = b.input("x", 1, 6, 8)
    graph = b.build(b.emit(Relu(), b.emit(Linear(), x, b.const(np.zeros((8, 4))), b.const(np.full(4, -1.0)))))
    seen = observe(graph, Quantize(X).run(graph), {"x": X}, compared=True)
    assert seen.outputs[0].describe().endswith(" equal, largest score the same in 48 of 48")


def test_nothing_is_run_where_nothing_is_to_be_seen() -> None:
    b = Builder()
    graph = b.build(b.emit(Reshape((1, 48)), b.input("x", 1, 6, 8, time=None)))
    assert observe(graph, graph, {"x": X}, compared=False).outputs == ()
    assert observe(net(), net(), None, compared=False).rates == {}
    assert set(observe(net(), net(), {"x": X}, compared=False).rates) == {net().outputs[1]}
