"""The scaler in integers: int16 of the series' own unit in and out, as exact for flat windows as for wild ones."""

import numpy as np
import pytest
import torch

from edgec.errors import PassError
from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Graph
from edgec.ir.types import DType
from edgec.ops import Gelu, Linear, Permute, QLinear, Relu, StdScale, StdUnscale
from tests.graphs import Builder
from tests.passes.quantize.quantize_tools import assert_stays_in_int32, extreme_inputs, quantized

LENGTH, HORIZON, CHANNELS = 16, 4, 2


def forecaster(moved: bool = False) -> Graph:
    """A window [1,16,2] (time last when moved) scaled, mapped by two layers to [1,4,2], and scaled back."""
    b = Builder(seed=1)
    if moved:
        x = b.emit(Permute((0, 2, 1)), b.input("x", 1, CHANNELS, LENGTH, time=None))
    else:
        x = b.input("x", 1, LENGTH, CHANNELS, time=None)
    b.emit(StdScale(), x)
    y, loc, scale = (b.nodes[-1].outputs[k] for k in range(3))
    h = b.emit(Linear(), b.emit(Permute((0, 2, 1)), y), b.normal(LENGTH, 24, scale=0.3), b.normal(24, scale=0.3))
    z = b.emit(Linear(), b.emit(Gelu(), h), b.normal(24, HORIZON, scale=0.3), b.normal(HORIZON, scale=0.3))
    z = b.emit(Permute((0, 2, 1)), z)
    return b.build(b.emit(StdUnscale(), z, loc, scale))


def series(n: int, swing: float, seed: int = 0) -> np.ndarray:
    """Noisy waves of this swing around levels between -40 and 40: [n,16,2]."""
    rng = np.random.default_rng(seed)
    phase, level = rng.uniform(0, 6, (n, 1, CHANNELS)), rng.uniform(-40, 40, (n, 1, CHANNELS))
    wave = np.sin(np.arange(LENGTH)[None, :, None] / 2 + phase) + rng.normal(size=(n, LENGTH, CHANNELS)) * 0.2
    return (level + swing * wave).astype(np.float32)


@pytest.fixture(scope="module")
def pair() -> tuple[Graph, Graph]:
    """The float graph and the integer one."""
    graph = forecaster()
    return graph, quantized(graph, {"x": np.concatenate([series(64, s, k) for k, s in enumerate((10.0, 1.0, 0.2))])})


def unit(graph: Graph) -> float:
    quant = graph.inputs[0].type.quant
    assert quant is not None
    return quant.scale[0]


def test_the_series_and_the_forecast_are_int16_in_one_unit(pair: tuple[Graph, Graph]) -> None:
    _, q = pair
    x, y = q.inputs[0].type, q.type_of(q.outputs[0])
    assert x.dtype is y.dtype is DType.I16
    assert x.quant == y.quant
    assert [n.op.name for n in q.nodes if "std" in n.op.name] == ["qstd_scale", "qstd_unscale"]
    first = next(n for n in q.nodes if isinstance(n.op, QLinear))
    assert q.type_of(first.inputs[0]).dtype is DType.I16  # 8 bits here would be all the model ever sees


@pytest.mark.parametrize("swing", [20.0, 1.0, 0.05, 0.01])
def test_the_error_is_a_share_of_the_windows_own_deviation(pair: tuple[Graph, Graph], swing: float) -> None:
    """5 % of it (8-bit weights and a table, random layers) and two units: windows of small variance lose no more."""
    graph, q = pair
    step = unit(q)
    for window in series(20, swing, 7):
        whole = np.round(window[None] / step)
        real = evaluate(graph, {"x": torch.from_numpy(whole * step).float()})[0].numpy()
        found = evaluate(q, {"x": torch.from_numpy(whole).to(torch.int64)})[0].numpy() * step
        deviation = (whole * step).std(1, keepdims=True) + np.sqrt(1e-5)
        assert (np.abs(found - real) <= 0.05 * deviation + 2 * step).all()


def test_a_constant_window_forecasts_its_level(pair: tuple[Graph, Graph]) -> None:
    """Its deviation is sqrt(eps) = 0.003: what the network makes of zeros hardly shows."""
    graph, q = pair
    level = torch.full((1, LENGTH, CHANNELS), 1234)
    real = evaluate(graph, {"x": (level * unit(q)).float()})[0]
    found = evaluate(q, {"x": level})[0] * unit(q)
    assert float((found - real).abs().max()) <= 2 * unit(q)


def test_a_level_added_to_the_window_is_added_to_the_forecast(pair: tuple[Graph, Graph]) -> None:
    """Exactly: the window has a power of two of values, so even its mean's factor is exact."""
    _, q = pair
    window = torch.from_numpy(np.round(series(1, 5.0, 3) / unit(q))).to(torch.int64)
    shifted = evaluate(q, {"x": window + 777})[0]
    assert torch.equal(shifted, evaluate(q, {"x": window})[0] + 777)


@pytest.mark.parametrize("kind", ["lo", "hi", "random", "turns"])
def test_extreme_windows_stay_in_their_types(pair: tuple[Graph, Graph], kind: str) -> None:
    assert_stays_in_int32(pair[1], extreme_inputs(pair[1], kind))


def test_a_series_that_is_moved_first_still_arrives_in_int16() -> None:
    graph = forecaster(moved=True)
    q = quantized(graph, {"x": series(32, 2.0).transpose(0, 2, 1).copy()})
    assert q.inputs[0].type.dtype is DType.I16
    x = series(1, 2.0, 5).transpose(0, 2, 1)
    whole = np.round(x / unit(q))
    real = evaluate(graph, {"x": torch.from_numpy(whole * unit(q)).float()})[0].numpy()
    found = evaluate(q, {"x": torch.from_numpy(whole).to(torch.int64)})[0].numpy() * unit(q)
    assert np.abs(found - real).max() < 0.05 * 2.0


def test_statistics_of_two_windows_are_refused() -> None:
    b = Builder()
    x = b.input("x", 1, LENGTH, CHANNELS, time=None)
    b.emit(StdScale(), x)
    y, loc, _ = b.nodes[-1].outputs
    b.emit(StdScale(eps=0.1), x)
    other = b.nodes[-1].outputs[2]
    graph = b.build(b.emit(StdUnscale(), b.emit(Relu(), y), loc, other))
    with pytest.raises(PassError, match="its mean and deviation are not those of one window"):
        quantized(graph, {"x": series(8, 1.0)})


def test_a_series_too_small_for_its_eps_is_refused() -> None:
    with pytest.raises(PassError, match="give the series in smaller units"):
        quantized(forecaster(), {"x": series(8, 1.0) * np.float32(1e-9)})
