import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.errors import PassError
from edgec.ir.evaluate import StepRunner, evaluate
from edgec.ir.graph import Graph
from edgec.ir.verify import verify
from edgec.ops import Add, Conv1d, LmuMemory, MatMul, Mean
from edgec.passes.streaming.compare import first_difference
from edgec.passes.streaming.make_streaming import MakeStreaming
from tests.graphs import Builder, conv, lif, streaming_nets


def streamed(graph: Graph, x: torch.Tensor) -> torch.Tensor:
    step = MakeStreaming().run(graph)
    verify(step)
    return torch.cat([out[0] for out in StepRunner(step).run({"x": x})], 1)


@settings(max_examples=150, deadline=None)
@given(streaming_nets(), st.integers(0, 2**16))
def test_step_by_step_equals_the_whole_sequence(graph: Graph, seed: int) -> None:
    x = torch.randn(graph.inputs[0].type.shape, generator=torch.Generator().manual_seed(seed))
    whole = evaluate(graph, {"x": x})[0]
    # float sums are taken in another order frame by frame: a neuron within rounding of its threshold may flip
    assert streamed(graph, x).shape == whole.shape
    torch.testing.assert_close(streamed(graph, x), whole, rtol=1e-3, atol=1e-3)


def test_look_ahead_is_delay_and_branches_are_aligned() -> None:
    b = Builder()
    x = b.input("x", 1, 10, 4)
    y = conv(b, x, 4, 3, (1, 1))
    y = b.emit(Add(), y, conv(b, lif(b, conv(b, y, 4, 3, (1, 1))), 4, 5, (2, 2)))
    step = MakeStreaming().run(b.build(y))
    assert (step.delay, step.flush_steps) == (4, 4)
    assert [n.op.frames for n in step.nodes if n.op.name == "delay"] == [3]


def test_the_reported_delay_is_the_true_one() -> None:
    """An impulse at frame 6 first changes the output of step 6 + delay - look-back, never an earlier one."""
    b = Builder()
    graph = b.build(conv(b, conv(b, b.input("x", 1, 16, 2), 2, 3, (1, 1)), 2, 3, (1, 1)))
    quiet, loud = torch.zeros(1, 16, 2), torch.zeros(1, 16, 2)
    loud[0, 6] = 1.0
    step = MakeStreaming().run(graph)
    runs = [[None if (o := r.step({"x": x[:, t : t + 1]})) is None else o[0] for t in range(16)]
            for x in (quiet, loud) for r in [StepRunner(step)]]  # fmt: skip
    assert [o is None for o in runs[0]] == [True] * step.delay + [False] * (16 - step.delay)
    changed = [t for t in range(16) if runs[0][t] is not None and not torch.equal(runs[0][t], runs[1][t])]
    # output frame 4 is the first whose receptive field (2 frames each side) reaches frame 6; it comes at step 4 + delay
    assert changed == [6, 7, 8, 9, 10]
    assert step.delay == 2


def test_a_stride_along_time_becomes_a_period() -> None:
    b = Builder()
    x = b.input("x", 1, 13, 3)
    y = b.emit(Conv1d(stride=2), x, b.normal(3, 3, 4), b.normal(4))
    y = b.emit(Conv1d(stride=3, pad=(1, 0)), y, b.normal(2, 4, 4), b.normal(4))
    graph = b.build(y)
    data = torch.randn(1, 13, 3)
    torch.testing.assert_close(streamed(graph, data), evaluate(graph, {"x": data})[0])
    assert MakeStreaming().run(graph).nodes[-1].when.period == 6


def test_mean_over_time_streams_as_a_running_mean() -> None:
    b = Builder()
    graph = b.build(b.emit(Mean(1), b.input("x", 1, 9, 3)))
    x = torch.randn(1, 9, 3)
    outs = [o[0] for o in StepRunner(MakeStreaming().run(graph)).run({"x": x})]
    torch.testing.assert_close(outs[-1], evaluate(graph, {"x": x})[0])
    torch.testing.assert_close(outs[3], x[:, :4].mean(1))


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_sequences_shorter_than_the_delay(frames: int) -> None:
    b = Builder()
    x = b.input("x", 1, frames, 2)
    for _ in range(4):
        x = lif(b, conv(b, x, 2, 3, (1, 1)))
    graph = b.build(x)
    data = torch.randn(1, frames, 2)
    torch.testing.assert_close(streamed(graph, data), evaluate(graph, {"x": data})[0])


def test_everything_that_cannot_stream_is_reported_at_once() -> None:
    b = Builder()
    x = b.input("x", 1, 8, 8)
    y = b.emit(MatMul(), x, x)
    z = b.emit(Conv1d(pad=(3, 0)), x, b.normal(2, 8, 8), b.normal(8))
    graph = b.build(y, z)
    with pytest.raises(PassError) as info:
        MakeStreaming().run(graph)
    message = info.value.for_shell()
    assert "matmul (net.py:1): the op has no per-frame form" in message
    assert "conv1d (net.py:2): left padding 3 does not fit a span of 2" in message
    assert "--whole" in message


def test_an_input_without_time_cannot_stream() -> None:
    b = Builder()
    graph = b.build(b.emit(Add(), b.input("x", 1, 4, time=None), b.normal(1, 4)))
    with pytest.raises(PassError, match="names no time axis"):
        MakeStreaming().run(graph)


def test_inputs_of_different_length_cannot_stream() -> None:
    """One frame that stands beside every other is no stream."""
    b = Builder()
    graph = b.build(b.emit(Add(), b.input("x", 1, 8, 4), b.input("h", 1, 1, 4)))
    with pytest.raises(PassError, match="different numbers of frames: %x 8, %h 1"):
        MakeStreaming().run(graph)


def test_outputs_of_different_delay_come_together() -> None:
    """Early ones wait for the latest, also the input itself; each is what the whole sequence gives."""
    b = Builder()
    x = b.input("x", 1, 9, 2)
    graph = b.build(conv(b, x, 2, 3, (1, 1)), conv(b, x, 5, 3, (2, 0)), x, conv(b, x, 3, 7, (3, 3)))
    step, data = MakeStreaming().run(graph), torch.randn(1, 9, 2)
    verify(step)
    assert (step.delay, step.flush_steps) == (3, 3)
    found = [torch.cat(o, 1) for o in zip(*StepRunner(step).run({"x": data}), strict=True)]
    for wanted, streamed_output in zip(evaluate(graph, {"x": data}), found, strict=True):
        torch.testing.assert_close(streamed_output, wanted)
    assert first_difference(graph, step, {"x": data}) is None


def test_outputs_that_come_at_different_frames_are_named() -> None:
    b = Builder()
    x = b.input("x", 1, 9, 2)
    graph = b.build(conv(b, x, 2, 3, (1, 1)), b.emit(Conv1d(stride=2, pad=(2, 0)), x, b.normal(3, 2, 2), b.normal(2)))
    with pytest.raises(PassError, match="%t0 every frame from frame 1 on, %t1 every 2 frames from frame 0 on"):
        MakeStreaming().run(graph)


def test_an_output_that_is_the_input_or_a_constant() -> None:
    b = Builder()
    x, c = b.input("x", 1, 9, 2), b.normal(1, 9, 2)
    data = torch.randn(1, 9, 2)
    torch.testing.assert_close(streamed(b.build(x), data), data)
    with pytest.raises(PassError, match=f"output %{c} does not depend on the input"):
        MakeStreaming().run(b.build(c))


def test_the_recurrent_memory_keeps_its_state() -> None:
    b = Builder()
    graph = b.build(b.emit(LmuMemory(6, 10, "recurrent"), b.input("x", 1, 30, 1)))
    x = torch.randn(1, 30, 1)
    torch.testing.assert_close(streamed(graph, x), evaluate(graph, {"x": x})[0])
