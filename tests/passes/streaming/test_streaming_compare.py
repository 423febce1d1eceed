"""A step that is not its whole sequence is found, and named by the node and the frame at which it leaves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings

import edgec
from edgec.errors import InternalError
from edgec.ir.evaluate import StepRunner, evaluate
from edgec.ir.graph import Const, Graph
from edgec.ir.verify import verify
from edgec.ops import Add, Conv1d, LmuMemory, Mean, Reshape, Sqrt
from edgec.passes.streaming import compare as streaming_compare
from edgec.passes.streaming.compare import (
    WrongStep,
    check_streaming,
    first_difference,
    random_inputs,
    shortened,
)
from edgec.passes.streaming.make_streaming import MakeStreaming
from tests.graphs import Builder, conv, lif, streaming_nets
from tests.passes.quantize.quantize_tools import quantized, samples


def looking_ahead() -> Graph:
    """Branches of different delay, a neuron, a mean over time."""
    b = Builder()
    x = b.input("x", 1, 12, 4)
    y = b.emit(Add(), x, conv(b, x, 4, 3, (1, 1)))
    return b.build(b.emit(Mean(1), lif(b, conv(b, y, 4, 3, (2, 0)))))


@settings(max_examples=60, deadline=None)
@given(streaming_nets())
def test_a_right_step_agrees(graph: Graph) -> None:
    assert first_difference(graph, MakeStreaming().run(graph), random_inputs(graph)) is None


def test_integers_agree_exactly() -> None:
    graph = looking_ahead()
    integer = quantized(graph, samples(graph))
    assert first_difference(integer, MakeStreaming().run(integer), random_inputs(integer), tolerance=0.0) is None


def edited(step: Graph, name: str, **fields: Any) -> Graph:
    """The step with fields of the node that computes a tensor changed."""
    return replace(step, nodes=tuple(replace(n, **fields) if name in n.outputs else n for n in step.nodes))


def halved(step: Graph, name: str) -> Graph:
    const = step.consts[name]
    return replace(step, consts={**step.consts, name: Const(const.data / 2, const.type)})


def started_at_one(step: Graph, name: str) -> Graph:
    return replace(step, states=tuple(replace(s, init=1.0) if s.name == name else s for s in step.states))


WRONG: dict[str, tuple[Callable[[Graph], Graph], str, int]] = {
    "another op": (lambda s: edited(s, "t0", op=Conv1d(activation="relu")), "t0", 0),
    "another weight": (lambda s: halved(s, "c2"), "t2", 0),
    "branches not aligned": (lambda s: edited(s, "t1", inputs=("x", "t0")), "t1", 0),
    "other padding": (lambda s: started_at_one(s, "t2_delay_line_state"), "t2", 0),
    "a state that starts elsewhere": (lambda s: started_at_one(s, "t3_state"), "t3", 0),
    "the last frame for the mean so far": (lambda s: edited(s, "t4", inputs=("t3",)), "t4", 1),
    "no flush": (lambda s: replace(s, flush_steps=0), "t0", 11),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_step_is_named(case: str) -> None:
    graph = looking_ahead()
    change, name, frame = WRONG[case]
    found = first_difference(graph, change(MakeStreaming().run(graph)), random_inputs(graph))
    assert found is not None
    assert (found.name, found.frame) == (name, frame)
    assert f"(net.py:{int(name[1:]) + 1}), frame {frame}" in str(found)


def test_a_wrong_step_ends_the_compile_as_edgecs_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Wrong(MakeStreaming):
        def run(self, graph: Graph) -> Graph:
            return halved(super().run(graph), "c2")

    monkeypatch.setattr(streaming_compare, "MakeStreaming", Wrong)
    graph = looking_ahead()
    with pytest.raises(WrongStep, match=r"%t2 = conv1d \(net.py:3\), frame 0: off by "):
        check_streaming(graph)
    with pytest.raises(InternalError, match="edgec itself failed") as info:
        edgec.compile(graph, "host", tmp_path / "out", precision="float32")
    assert "streaming=False compiles the whole window" in str(info.value)
    assert info.value.report is not None
    Path(info.value.report).unlink()
    assert not (tmp_path / "out").exists()


def test_what_is_no_number_in_both_is_no_difference() -> None:
    """The root of a negative number, say, which random inputs may ask for; then it is NaN in torch too."""
    b = Builder()
    graph = b.build(conv(b, b.emit(Sqrt(), b.input("x", 1, 12, 4)), 2, 2, (1, 0)))
    step = MakeStreaming().run(graph)
    outs = [out[0] for out in StepRunner(step).run(random_inputs(graph))]
    assert any(bool(o.isnan().any()) for o in outs)
    assert first_difference(graph, step, random_inputs(graph)) is None


def test_long_sequences_are_compared_on_their_start() -> None:
    """As many frames as the network looks back and ahead, and some more."""
    b = Builder()
    x = b.input("x", 1, 5000, 1)
    graph = b.build(conv(b, b.emit(LmuMemory(4, 50), x), 3, 3, (1, 1)))
    assert "76 random frames" in check_streaming(graph)  # 24, twice the delay of 1, and the 50 of the memory


def test_shortened_keeps_views_and_strides() -> None:
    b = Builder()
    x = b.input("x", 1, 40, 6)
    y = b.emit(Reshape((1, 40, 2, 3), 1), x)
    z = b.emit(Conv1d(stride=3), b.emit(Reshape((1, 40, 6), 1), y), b.normal(2, 6, 4), b.normal(4))
    graph = b.build(z)
    short = shortened(graph, 10)
    assert short is not None
    verify(short)
    assert short.type_of(z).shape == (1, 3, 4)
    data = torch.randn(1, 40, 6)
    wanted = evaluate(graph, {"x": data})[0][:, :3]
    torch.testing.assert_close(evaluate(short, {"x": data[:, :10]})[0], wanted)
    assert shortened(graph, 1) is None
