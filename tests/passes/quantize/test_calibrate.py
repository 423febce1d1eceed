"""Calibration: statistics over the data, and data that does not fit."""

from typing import Any

import numpy as np
import pytest
import torch

from edgec.errors import InputError
from edgec.ir.graph import Graph
from edgec.ops import Add, Linear, Relu, Reshape, RunningMean
from edgec.passes.quantize.calibrate import BINS, Collector, Statistics, batched, calibrate, evaluate_batches
from tests.graphs import Builder


def net(frames: int = 6) -> Graph:
    b = Builder()
    x = b.input("x", 1, frames, 4)
    y = b.emit(Relu(), b.emit(Linear(), x, b.normal(4, 3), b.normal(3)))
    return b.build(b.emit(RunningMean(), b.emit(Reshape((1, frames, 3), 1), y)))


def data(n: int = 5, frames: int = 6) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(n, frames, 4)).astype(np.float32)


def collect(*batches: list[float]) -> Statistics:
    collector = Collector()
    for batch in batches:
        collector.add(np.array(batch))
    return collector.statistics()


def test_statistics_of_every_tensor() -> None:
    graph, x = net(), data()
    found = calibrate(graph, x, batch=2)
    assert set(found) == {"x", "t0", "t1", "t2", "t3"}
    assert found["x"].lo == x.min()
    assert found["x"].hi == x.max()
    assert found["x"].count == x.size
    assert int(found["x"].bins.sum()) == x.size
    assert found["x"].mean == pytest.approx(x.mean(), rel=1e-5)
    assert found["x"].rms == pytest.approx(np.sqrt(np.square(x).mean()), rel=1e-5)
    assert found["t1"].lo == 0.0


def test_batches_equal_samples_one_by_one() -> None:
    graph, x = net(), data(7)
    together = torch.cat([v["t3"] for v in evaluate_batches(graph, {"x": x}, 3)])
    alone = torch.cat([v["t3"] for v in evaluate_batches(graph, {"x": x}, 1)])
    torch.testing.assert_close(together, alone)


def test_a_graph_that_counts_frames_on_axis_0_is_not_batched() -> None:
    b = Builder()
    x = b.input("x", 1, 4, time=0)
    graph = b.build(b.emit(Linear(), x, b.normal(4, 3), b.normal(3)))
    assert batched(graph, 4) is None
    assert set(calibrate(graph, data(6).reshape(6, 24)[:, :4])) == {"x", "t0"}


def test_histogram_grows_exactly() -> None:
    found = collect([0.1, -0.2], [3.0], [-900.0])
    assert found.reach >= 900.0
    assert int(found.bins.sum()) == 4
    assert found.bins[BINS // 2 - 1 : BINS // 2 + 1].sum() == 2


def test_clip_cuts_rare_outliers_and_keeps_zero() -> None:
    values = np.concatenate([np.random.default_rng(0).uniform(0.5, 1.0, 10**5), [40.0]])
    lo, hi = collect(list(values)).clip()
    assert lo == 0.0
    assert 1.0 <= hi < 40.0


def test_clip_of_a_uniform_range_keeps_all() -> None:
    lo, hi = collect(list(np.linspace(-1.0, 3.0, 5000))).clip()
    assert (lo, hi) == pytest.approx((-1.0, 3.0), rel=0.02)


def test_clip_of_nothing_but_zero() -> None:
    assert collect([0.0, 0.0]).clip() == (0.0, 0.0)


def test_symmetric_clip() -> None:
    lo, hi = collect(list(np.linspace(-1.0, 3.0, 5000))).clip(255, symmetric=True)
    assert lo == -hi
    assert hi == pytest.approx(3.0, rel=0.05)


def test_pcm_is_scaled_to_the_float_domain() -> None:
    pcm = np.full((2, 6, 4), -16384, np.int16)
    assert calibrate(net(), pcm)["x"].lo == -0.5


def broken(value: float) -> np.ndarray[Any, Any]:
    x = data(3)
    x[1, 0, 0] = value
    return x


EXPECTED = "input %x: expected float32[1,6,4] t1 samples along axis 0"
SHAPES = "\n  hint: these shapes would do: [N, 6, 4], [1, 6, 4] for one sample; axes of length 1 do not count"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "expected calibration data, found none\n  hint: 64 typical samples are enough"),
        (data(3, 5), f"calibration batch 0, {EXPECTED}, found shape (3, 5, 4){SHAPES}"),
        (data(3).transpose(0, 2, 1), f"calibration batch 0, {EXPECTED}, found shape (3, 4, 6){SHAPES}"),
        (data(0), f"calibration batch 0, {EXPECTED}, found 0 rows"),
        (data().astype(np.int64), f"calibration batch 0, {EXPECTED} as float32 or int16 PCM, found int64"),
        ([data(), broken(np.nan)], f"calibration batch 1, {EXPECTED}, found NaN or infinity in sample 1"),
        ([{"y": data()}], "calibration batch 0: expected data for input %x, found ['y']"),
        (broken(np.inf), f"calibration batch 0, {EXPECTED}, found NaN or infinity in sample 1"),
    ],
)
def test_bad_data(given: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        calibrate(net(), given)
    assert str(error.value) == message


def test_overflow_inside_the_network() -> None:
    b = Builder()
    graph = b.build(b.emit(Linear(), b.input("x", 1, 6, 4), b.const(np.full((4, 3), 9.0)), b.normal(3)))
    with pytest.raises(InputError, match="calibration: %t0 overflows float32 on this data"):
        calibrate(graph, broken(3e38))


def test_several_inputs_need_names_and_equal_counts() -> None:
    b = Builder()
    x, y = b.input("x", 1, 6, 4), b.input("y", 1, 6, 4)
    graph = b.build(b.emit(Add(), x, y))
    with pytest.raises(InputError, match=r"expected calibration data by input name \['x', 'y'\], found ndarray"):
        calibrate(graph, data())
    with pytest.raises(InputError, match="the inputs have different numbers of samples: %x 5, %y 2"):
        calibrate(graph, [{"x": data(5), "y": data(2)}])
    assert set(calibrate(graph, {"x": data(), "y": data()})) == {"x", "y", "t0"}
