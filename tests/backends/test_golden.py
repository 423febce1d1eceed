"""The C of two small networks, word for word: what a change does to generated code shows in the diff of golden/."""

from pathlib import Path

import numpy as np
import pytest

from edgec.backends.emit import write_folder
from edgec.ir.graph import Graph
from edgec.ir.types import DType
from edgec.ops import QConv1d, QLif, QLinear, QRunningMean, Relu, RunningMean
from edgec.passes.streaming.make_streaming import MakeStreaming
from edgec.target import load_target
from tests.graphs import Builder, conv, lif

GOLDEN = Path(__file__).parent / "golden"


def float_net() -> Graph:
    b = Builder("small_float", seed=1)
    x = b.emit(Relu(), conv(b, b.input("x", 1, 8, 3), 4, 3, (1, 1)))
    return b.build(b.emit(RunningMean(4), lif(b, x)))


def spiking_net() -> Graph:
    """Integers drawn as integers, so that no rounding of another machine can change the text."""
    b = Builder("small_spiking", seed=2)

    def ints(*shape: int, low: int = -100, high: int = 100, dtype: str = "int32") -> str:
        return b.const(b.rng.integers(low, high, shape), dtype)

    def neuron(x: str, channels: int) -> str:
        gain = b.const(np.full(channels, 256), "int32")
        return b.emit(QLif(), x, gain, ints(channels), ints(channels, low=5000, high=9000))

    x = b.input("x", 1, 8, 4, dtype=DType.I8)
    x = neuron(b.emit(QConv1d(pad=(2, 0)), x, ints(3, 4, 32, dtype="int8"), ints(32)), 32)
    x = b.emit(QConv1d(pad=(1, 1)), x, ints(3, 32, 16, dtype="int8"), ints(16))
    x = b.emit(QLinear(), neuron(x, 16), ints(16, 5, dtype="int8"), ints(5))
    mean = QRunningMean(0, 0.5, -3)
    return b.build(b.emit(mean, x, b.const([1 << 30] * 5, "int32"), b.const([38] * 5, "int32")))


@pytest.mark.parametrize(("make", "target"), [(float_net, "host"), (spiking_net, "cortex-m7")])
def test_golden_code(make: object, target: str, update_golden: bool, tmp_path: Path) -> None:
    graph = make()
    write_folder(MakeStreaming().run(graph), load_target(target), tmp_path)
    for suffix in (".h", ".c"):
        text, golden = (tmp_path / f"{graph.name}{suffix}").read_text(), GOLDEN / f"{graph.name}{suffix}"
        if update_golden:
            GOLDEN.mkdir(exist_ok=True)
            golden.write_text(text)
        assert golden.read_text() == text, f"{golden.name} changed: look at it, then `make goldens`"
