"""Channel attention in integers: types and scales in a network, accuracy, and the same bytes from the C."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.errors import PassError
from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Graph
from edgec.ir.types import DType
from edgec.ops import Add, Conv2d, Eca, Relu6, Reshape
from edgec.passes.quantize.calibrate import evaluate_batches
from edgec.passes.quantize.compare import Sums, compare, dequantize, requantized
from edgec.pipeline import compile_model
from tests.graphs import Builder
from tests.passes.quantize.quantize_tools import assert_stays_in_int32, quantized, samples


def conv(b: Builder, x: str, k: int, outputs: int, groups: int = 1) -> str:
    c = b.types[x].shape[3] // groups
    w = b.normal(k, k, c, outputs, scale=1.5 / np.sqrt(k * k * c))
    return b.emit(Conv2d(pad=(k // 2,) * 4, groups=groups), x, w, b.normal(outputs, scale=0.2))


def attend(b: Builder, x: str, taps: int) -> str:
    return b.emit(Eca(), x, b.normal(taps, scale=2.0))


def inverted_residuals(filters: Sequence[int], size: int = 6, channels: int = 8) -> Graph:
    """Blocks as in ECA-MobileNetV2 with filters of these lengths: widen, filter, narrow, attend, add."""
    b = Builder("blocks", seed=size)
    x = attend(b, conv(b, b.input("x", 1, size, size + 1, 3, time=None), 3, channels), 3)
    for taps in filters:
        y = b.emit(Relu6(), conv(b, x, 1, 4 * channels))
        y = b.emit(Relu6(), conv(b, y, 3, 4 * channels, groups=4 * channels))
        x = b.emit(Add(), x, attend(b, conv(b, y, 1, channels), taps))
    return b.build(conv(b, x, 1, 5))


def attentions(graph: Graph) -> list[tuple[str, str]]:
    """Element types in and out of each attention."""
    nodes = [n for n in graph.nodes if n.op.name == "qeca"]
    return [(graph.type_of(n.inputs[0]).dtype.value, n.type.dtype.value) for n in nodes]


def test_the_residual_stream_is_int16_at_one_scale() -> None:
    graph = quantized(inverted_residuals((1, 3, 5)))
    assert attentions(graph) == [("int16", "int16")] * 4
    adds = [n for n in graph.nodes if n.op.name == "qadd"]
    assert len(adds) == 3
    scales = {graph.type_of(name).quant for n in adds for name in (*n.inputs, *n.outputs)}
    assert len(scales) == 1
    tables = [n for n, c in graph.consts.items() if c.data.size == 257]
    assert tables == ["eca_sigmoid"]


def test_outside_of_residual_groups_it_gives_int8() -> None:
    b = Builder(seed=1)
    x = b.input("x", 1, 5, 4, 6, time=None)
    graph = quantized(b.build(attend(b, conv(b, attend(b, x, 1), 3, 6), 5)))
    assert attentions(graph) == [("int8", "int8"), ("int16", "int8")]


@pytest.mark.parametrize("taps", [1, 3, 5, 7])
def test_it_adds_little_error(taps: int) -> None:
    """Its own error is that of rounding the ideal result to int8, within half a decibel."""
    b = Builder(seed=taps)
    x = b.input("x", 1, 7, 5, 16, time=None)
    graph = b.build(conv(b, attend(b, conv(b, x, 3, 16), taps), 1, 4))
    data = samples(graph)
    integer = quantized(graph, data)
    row = next(r for r in compare(graph, integer, data) if r.op == "qeca")
    ideal, t = Sums(), integer.type_of(row.name)
    for values in evaluate_batches(graph, data):
        real = values[row.name].double()
        ideal.add(real, dequantize(requantized(real, t), t))
    assert row.own_sqnr > ideal.sqnr() - 0.5


@settings(max_examples=25, deadline=None)
@given(
    taps=st.sampled_from([1, 3, 5]),
    size=st.integers(1, 9),
    channels=st.integers(1, 9),
    kind=st.sampled_from(["lo", "hi", "random"]),
)
def test_nothing_leaves_int32(taps: int, size: int, channels: int, kind: str) -> None:
    graph = quantized(inverted_residuals((taps, taps), size, channels))
    rng, v = np.random.default_rng(0), graph.inputs[0]
    high = {"lo": np.zeros(v.type.shape), "hi": np.ones(v.type.shape), "random": rng.random(v.type.shape) < 0.5}[kind]
    assert_stays_in_int32(graph, {v.name: torch.from_numpy(np.where(high, 127, -128))})


def test_a_computed_filter_is_refused() -> None:
    b = Builder()
    x = b.input("x", 1, 1, 1, 3, time=None)
    graph = b.build(b.emit(Eca(), x, b.emit(Reshape((3,)), x)))
    with pytest.raises(PassError, match="its filter is computed, not constant"):
        quantized(graph)


def test_reference_host_and_emulated_core_give_the_same_bytes(tmp_path: Path) -> None:
    graph = inverted_residuals((1, 5))
    data = samples(graph)["x"]
    model = compile_model(graph, "cortex-m7", tmp_path / "m7", calibration=data, emit_kind="image")
    whole, spec = model.graph("whole"), model.manifest.inputs[0]
    assert [n.op.name for n in whole.nodes].count("qeca") == 3
    rng = np.random.default_rng(0)
    with model.device("host") as host, model.device("unicorn") as core:
        for _ in range(4):
            x = rng.integers(-128, 128, spec.shape).astype(np.int8)
            expected = evaluate(whole, {"x": torch.from_numpy(x)})[0].numpy()
            for device in (host, core):
                found = device.step([x])
                assert found is not None
                np.testing.assert_array_equal(found[0].reshape(expected.shape), expected)
    assert whole.type_of(whole.outputs[0]).dtype is DType.I8
