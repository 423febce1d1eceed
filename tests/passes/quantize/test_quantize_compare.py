"""The comparison finds the layer that is wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgec.ir.graph import Const, Graph
from edgec.ops import Linear, Relu
from edgec.passes.quantize.compare import Row, compare, first_diverging
from tests.graphs import Builder, lif
from tests.passes.quantize.quantize_tools import quantized, samples


def net() -> Graph:
    b = Builder()
    x = b.input("x", 1, 30, 5)
    y = b.emit(Relu(), b.emit(Linear(), x, b.normal(5, 8), b.normal(8)))
    s = lif(b, b.emit(Linear(), y, b.normal(8, 6), b.normal(6)))
    return b.build(b.emit(Linear(), s, b.normal(6, 3), b.normal(3)))


def rows_with(change: str = "", factor: int = 1) -> list[Row]:
    graph = net()
    data = samples(graph)
    integer = quantized(graph, data)
    if change:
        consts = dict(integer.consts)
        old = consts[change]
        consts[change] = Const((old.data // factor).astype(old.data.dtype), old.type)
        integer = replace(integer, consts=consts)
    return compare(graph, integer, data)


def test_rows_in_execution_order_with_sources() -> None:
    rows = rows_with()
    assert [r.name for r in rows] == ["t0", "t1", "t2", "t3", "t4", "t4_i8"]
    assert rows[0].source == ("net.py:1",)
    assert rows[3].is_spikes
    assert all(r.sqnr > 25 for r in rows[:3])
    assert rows[3].rate == pytest.approx(rows[3].float_rate, abs=0.02)


def test_the_layer_that_is_wrong_is_named() -> None:
    first = first_diverging(rows_with("c2", 2))
    assert first is not None
    assert first.name == "t2"


def test_own_error_is_that_of_one_node() -> None:
    rows = {r.name: r for r in rows_with("c2", 2)}
    assert rows["t2"].own_sqnr < 10 < 25 < rows["t4"].own_sqnr
    assert rows["t3"].own_flips < 0.02 < rows["t3"].flips


def test_a_wrong_sign_shows_as_flips() -> None:
    first = first_diverging(rows_with("t3_gain", -1))
    assert first is not None
    assert first.name == "t3"
    assert first.flips > 0.3 < first.own_flips


def test_exact_rows_have_infinite_ratio() -> None:
    b = Builder()
    x = b.input("x", 1, 4, 2)
    graph = b.build(b.emit(Relu(), x))
    data = {"x": np.zeros((3, 4, 2), np.float32)}
    assert compare(graph, quantized(graph, data), data)[0].sqnr == float("inf")


def test_comparing_leaves_gradients_as_they_were() -> None:
    rows_with()
    assert torch.is_grad_enabled()
