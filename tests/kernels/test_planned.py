"""Every op's kernel as the plan calls it: one graph with each op as a node, as C on the host against the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgec.backends.emit import write_folder
from edgec.device import open_device
from edgec.ir.evaluate import StepRunner
from edgec.ir.graph import Graph
from edgec.ir.types import DType, TensorType
from edgec.ops import (
    OPS,
    Eca,
    LogMel,
    QAffine,
    QAvgPool2d,
    QLifSaturating,
    QLogMel,
    QMaxPool2d,
    QMean,
    QStdScale,
    QStdUnscale,
    RunningMean,
    Sqrt,
    StdScale,
    StdUnscale,
)
from edgec.target import load_target
from tests.kernels.every_kernel import every_kernel
from tests.kernels.node_builder import Builder, storage
from tests.op_families import elementwise, f32, movement, neurons, pools, products, rows, stateful

FAMILIES = (elementwise, products, movement, stateful, rows, pools, neurons)
BOTH_VARY = ("add", "sub", "mul", "div", "matmul", "concat")  # ops whose operands need not be constants


def add_float(b: Builder, op: Any, types: list[TensorType], vary: bool) -> None:
    """The op on inputs; but for the first operand on constants, unless all of them vary."""
    b.add(op, *((t, 1) if k == 0 or vary else (b.rng.normal(size=t.shape), "float32") for k, t in enumerate(types)))


def float_graph(seed: int) -> Graph:
    """Every float op."""
    b = Builder(seed)
    for family in FAMILIES:
        for op, types in family(b.rng):
            add_float(b, op, types, vary=False)
            if op.name in BOTH_VARY:
                add_float(b, op, types, vary=True)
    add_float(b, Eca(), [f32(2, 3, 2, 5), f32(3)], vary=False)
    for window in (0, 2):
        add_float(b, RunningMean(window), [f32(1, 1, 3, time=1)], vary=False)
    for op in (Sqrt(), OPS["log"]()):
        add_float(b, op, [f32(2, 3)], vary=False)
    add_float(b, StdScale(), [f32(1, 9, 2)], vary=False)
    add_float(b, StdUnscale(), [f32(1, 4, 2), f32(1, 1, 2), f32(1, 1, 2)], vary=True)
    for op, types in LogMel.samples():
        b.add(op, *((t, 1) for t in types))
    return b.graph()


def integer_graph() -> Graph:
    """The integer ops that `every_kernel` leaves out."""
    b = Builder(3)
    image, row = TensorType((1, 5, 4, 3), DType.I8), TensorType((1, 1, 37), DType.I32, None, 1)
    scales = (b.ints(1 << 30, 1 << 31, 3), "int32"), (b.ints(36, 40, 3), "int32")
    b.add(QMaxPool2d((2, 2), (2, 1), (1, 0, 0, 1)), (image, 128))
    b.add(QAvgPool2d((2, 2), (1, 1), (1, 0, 0, 1), multiplier=1 << 14, shift=16), (image, 128))
    b.add(QMean(axis=1), (image, 128), *scales)
    b.add(QAffine(shift=8), (image, 128), (b.ints(-99, 99, 3), "int32"), (b.ints(-999, 999, 3), "int32"))
    ints = [(b.ints(low, high, 37), "int32") for low, high in ((1, 30), (-99, 999), (1, 9000), (1 << 12, 1 << 15))]
    b.add(QLifSaturating(), (row, 1000), *ints)
    b.add(QStdScale(), (TensorType((1, 16, 2), DType.I16), 1000))
    vectors = [(TensorType((1, 1, 2), DType.I32), 99)] * 2
    b.add(QStdUnscale(multiplier=99, shift=5), (TensorType((1, 4, 2), DType.I16), 1000), *vectors)
    for op, types in QLogMel.samples():
        b.add(op, *((t, 1 << 15) for t in types))
    return b.graph()


def data_graph() -> Graph:
    """The ops on indices, truth values and integers as data, and those that move or reduce along any axis."""
    b = Builder(4)
    for name in ("map", "reduce", "gather", "gather_elements", "scatter", "taps", "cumulative", "slice", "pad"):
        for op, types in OPS[name].samples():
            b.add(op, *((t, 1) for t in types))
    return b.graph()


def frame_of(b: Graph, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random values for every input; those of roots and deviations are not negative."""
    return {
        v.name: np.abs(rng.normal(size=v.type.shape)).astype(np.float32)
        if v.type.dtype is DType.F32
        else rng.integers(max(v.type.dtype.range[0], -99), min(v.type.dtype.range[1], 99) + 1, v.type.shape)
        for v in b.inputs
    }


def compare(graph: Graph, folder: Path, frames: int = 3) -> None:
    """The graph as a library on the host gives what the reference gives, integers to the bit."""
    write_folder(graph, load_target("host"), folder)
    reference, rng = StepRunner(graph), np.random.default_rng(5)
    with open_device("host", folder) as device:
        for _ in range(frames):
            frame = frame_of(graph, rng)
            expected = reference.step({n: torch.from_numpy(a) for n, a in frame.items()})
            found = device.step([storage(frame[v.name], v.type) for v in graph.inputs])
            for name, f, e in zip(graph.outputs, found, expected, strict=True):
                t, op = graph.type_of(name), graph.producer(name).op
                if t.dtype is DType.F32:
                    np.testing.assert_allclose(f.reshape(t.shape), e.numpy(), rtol=1e-4, atol=1e-5, err_msg=str(op))
                else:
                    np.testing.assert_array_equal(f, storage(e.numpy(), t), err_msg=str(op))


@pytest.mark.parametrize("seed", range(2))
def test_float_ops_through_the_plan(seed: int, tmp_path: Path) -> None:
    compare(float_graph(seed), tmp_path)


def test_integer_ops_through_the_plan(tmp_path: Path) -> None:
    compare(integer_graph(), tmp_path)


def test_ops_on_data_through_the_plan(tmp_path: Path) -> None:
    compare(data_graph(), tmp_path)


def test_no_kernel_is_tested_outside_the_plan_only() -> None:
    graphs = (float_graph(0), integer_graph(), data_graph(), every_kernel()[0])
    planned = {n.op.name for g in graphs for n in g.nodes}
    assert planned >= {name for name, op in OPS.items() if op.lower is not None}
