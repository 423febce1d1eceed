"""What quantisation refuses, with where, why and the next step, all of it at once."""

from typing import Any

import numpy as np
import pytest

from edgec.errors import PassError
from edgec.ir.graph import Graph
from edgec.ops import Add, Div, LayerNorm, Lif, Linear, LmuMemory, MatMul, Relu, RunningMean
from edgec.passes.fuse import Fuse
from edgec.passes.quantize.calibrate import calibrate
from edgec.passes.quantize.quantize import Quantize
from tests.graphs import Builder
from tests.passes.quantize.quantize_tools import samples

HEAD = "these nodes cannot be computed in integers:\n"
HINT = "\n  hint: replace these ops in the model, or compile it with precision='float32'"


def refused(graph: Graph, data: Any = None) -> str:
    with pytest.raises(PassError) as error:
        Quantize(samples(graph) if data is None else data).run(graph)
    return str(error.value)


def start(channels: int = 4) -> tuple[Builder, str]:
    b = Builder()
    return b, b.input("x", 1, 12, channels)


def message(*problems: str) -> str:
    return HEAD + "\n".join(f"  - {p}" for p in problems) + HINT


def test_all_problems_at_once_and_nothing_that_only_follows() -> None:
    b, x = start()
    y = b.emit(Linear(), x, b.normal(4, 3), b.normal(3))
    y = b.emit(Relu(), b.emit(Div(), y, b.emit(Linear(), x, b.normal(4, 3), b.normal(3))))
    z = b.emit(LmuMemory(3, 8, "recurrent"), b.emit(Linear(), x, b.normal(4, 1), b.normal(1)))
    assert refused(b.build(b.emit(Add(), y, z))) == message(
        "%t2 = div (net.py:3): no table serves it: it is a function of several numbers, or its result is not float32",
        "%t5 = lmu_memory (net.py:6): its recurrent form feeds rounding errors back through Abar "
        "(8 to 76 % at int8, unstable for long windows); "
        "train or export it with form='fir', which is equal for the first theta frames",
    )


def test_a_matrix_product_too_long_for_int32() -> None:
    b = Builder()
    x = b.input("x", 1, 2, 70000, time=None)
    assert refused(b.build(b.emit(MatMul(True), x, x)), {"x": np.ones((2, 2, 70000), np.float32)}) == message(
        "%t0 = matmul (net.py:1): its accumulator can reach 2293760000, above int32's 2147483647; fewer terms to a sum"
    )


def test_a_norm_whose_gain_is_computed() -> None:
    b, x = start()
    gain = b.input("gain", 4, time=None)
    data = {"x": np.ones((8, 12, 4), np.float32), "gain": np.ones(32, np.float32)}
    assert "its scale and shift are computed, not constant" in refused(
        b.build(b.emit(LayerNorm(), x, gain, b.normal(4))), data
    )


def test_computed_weights() -> None:
    b = Builder()
    x, w = b.input("x", 4, 4, time=None), b.input("w", 4, 4, time=None)
    graph = b.build(b.emit(Linear(), x, w, b.normal(4)))
    data = {"x": np.ones((4, 4), np.float32), "w": np.ones((4, 4), np.float32)}
    assert refused(graph, data) == message("%t0 = linear (net.py:1): its weights are computed, not constant")


def test_a_fused_activation() -> None:
    b, x = start()
    graph = Fuse().run(b.build(b.emit(Relu(), b.emit(Linear(), x, b.normal(4, 2), b.normal(2)))))
    assert "its relu is already fused into it; run quantize before fuse" in refused(graph)


def test_delayed_reset_to_a_value() -> None:
    b, x = start()
    graph = b.build(b.emit(Lif(v_reset=0.5, delayed_reset=True), x, b.const([0.5]), b.const([1.0])))
    assert refused(graph) == message(
        "%t0 = lif (net.py:1): it starts at 0 but resets to 0.5, so its membrane cannot be measured from the reset "
        "value; use v_reset=0 or the reset in the same step"
    )


def test_threshold_that_subtraction_does_not_bound() -> None:
    b, x = start()
    graph = b.build(b.emit(Lif(reset="subtract"), x, b.const([0.5]), b.const([-1.0])))
    assert "its threshold is not positive, so subtracting it does not bound the membrane" in refused(graph)


def test_a_membrane_that_does_not_fit() -> None:
    b, x = start(4096)
    y = b.emit(Linear(), x, b.const(np.ones((4096, 2))), b.const([0.0, 0.0]))
    graph = b.build(b.emit(Lif(), y, b.const([0.5]), b.const([1.0, 6e6])))
    assert "%t1 = lif (net.py:2): the membrane of channel 1 does not fit int32: input up to" in refused(graph)


def test_no_calibration_data() -> None:
    b, x = start()
    with pytest.raises(PassError) as error:
        Quantize().run(b.build(b.emit(Relu(), x)))
    assert str(error.value) == ("quantisation needs calibration data, found none\n  hint: give about 64 typical inputs")


def test_statistics_of_another_graph() -> None:
    b, x = start()
    small = b.build(b.emit(Relu(), x))
    found = calibrate(small, samples(small))
    larger = b.build(b.emit(RunningMean(), "t0"))
    with pytest.raises(PassError) as error:
        Quantize(found).run(larger)
    assert str(error.value) == ("%t1 has no calibration statistics\n  hint: calibrate the graph that is quantised")
