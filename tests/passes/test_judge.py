"""Calibration data that shows nothing, or in which little outweighs the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.errors import InputError
from edgec.ir.graph import Graph
from edgec.ops import Affine, Linear, Relu, Sigmoid
from edgec.passes.judge import check_inputs, doubts
from edgec.passes.quantize.calibrate import calibrate
from tests.graphs import Builder

Array = np.ndarray[Any, np.dtype[Any]]


def net(shift: float = 0.0, scale: float = 1.0) -> Graph:
    """x -> affine -> relu -> linear -> sigmoid, and h beside it."""
    b = Builder()
    x, h = b.input("x", 1, 6, 4), b.input("h", 1, 6, 4)
    moved = b.emit(Affine(), x, b.const(np.full(4, scale)), b.const(np.full(4, shift)))
    y = b.emit(Sigmoid(), b.emit(Linear(), b.emit(Relu(), moved), b.normal(4, 3), b.normal(3)))
    return b.build(y, b.emit(Relu(), h))


def data(seed: int = 0, n: int = 32) -> Array:
    return np.random.default_rng(seed).normal(size=(n, 6, 4)).astype(np.float32)


def judged(graph: Graph, x: Array, h: Array) -> tuple[str, ...]:
    samples = {"x": x, "h": h}
    statistics = calibrate(graph, samples)
    check_inputs(graph.inputs, statistics)
    return doubts(graph, statistics, samples)


def test_ordinary_data_is_not_doubted() -> None:
    assert judged(net(), data(), data(1)) == ()
    heavy = np.random.default_rng(0).standard_t(3, size=(64, 6, 4)).astype(np.float32)
    sparse = np.where(np.random.default_rng(1).random((64, 6, 4)) < 0.002, 1.0, 0.0).astype(np.float32)
    assert judged(net(), heavy, sparse) == ()


@pytest.mark.parametrize("value", [0.0, 2.5])
@pytest.mark.parametrize("which", ["x", "h"])
def test_an_input_that_never_changes_is_refused(which: str, value: float) -> None:
    given = {"x": data(), "h": data(1), which: np.full((32, 6, 4), value, np.float32)}
    with pytest.raises(InputError, match=f"calibration: input %{which} is {value:g} everywhere"):
        judged(net(), **given)


@pytest.mark.parametrize("far", [500.0, -1e7])
def test_one_value_far_out_is_named_once(far: float) -> None:
    """Also where the rest lies within one bin of the histogram; not again in what is computed from it."""
    x = data()
    x[3, 2, 1] = far
    (said,) = judged(net(), x, data(1))
    assert said.startswith(f"calibration input %x: one value reaches {abs(far):.3g}, more than 100 times the other 767")


def test_one_sample_in_another_unit() -> None:
    x = data()
    x[5] *= 1000
    (said,) = judged(net(), data(1), x)
    assert said.startswith("calibration input %h: sample 5 reaches ")


def test_a_tensor_that_is_constant_inside() -> None:
    (said,) = judged(net(shift=-100.0), data(), data(1))
    assert said == "%t1 (net.py:2) is 0 everywhere on the calibration data"


def test_a_tensor_with_outliers_of_its_own() -> None:
    b = Builder()
    x = b.input("x", 1, 6, 4)
    y = b.emit(Affine(), x, b.const(np.ones(4)), b.const(np.full(4, -3.2)))
    graph = b.build(b.emit(Affine(), b.emit(Relu(), y), b.const(np.full(4, 1.0)), b.const(np.full(4, 0.001))))
    samples = {"x": np.clip(data(0, 64), -3, 3)}
    samples["x"][0, 0, 0] = 4.0
    found = doubts(graph, calibrate(graph, samples), samples)
    assert found == (
        "%t2 (net.py:3): one value reaches 0.801, more than 100 times the other 1,535 on the calibration data",
    )


def test_statistics_from_a_file_show_constants_only() -> None:
    graph = net(shift=-100.0)
    x = data()
    x[0, 0, 0] = 1e6
    statistics = calibrate(graph, {"x": -np.abs(x), "h": data(1)})
    assert doubts(graph, statistics) == ("%t1 (net.py:2) is 0 everywhere on the calibration data",)
