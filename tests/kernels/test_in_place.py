"""Layers whose output lies where their input does: the same bytes, and no second buffer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edgec.backends.emit import write_folder
from edgec.device import open_device
from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Const, Graph, Node, Value
from edgec.ir.types import DType, TensorType
from edgec.ops import Permute, QConv2dRequantize
from edgec.plan import Plan
from edgec.target import load_target
from edgec.toolchain.manifest import read_manifest
from tests.conftest import needs

CHANNELS = 8
LAYERS = (
    ((1, 1), {}), ((3, 3), {"pad": (1, 1, 1, 1)}), ((3, 3), {"pad": (1, 1, 1, 1), "groups": CHANNELS}),
    ((3, 3), {"pad": (2, 0, 0, 2)}), ((5, 3), {"pad": (4, 4, 1, 1), "dilation": (2, 1)}), ((1, 1), {}),
)  # fmt: skip


def chain(h: int, w: int, rounding: str) -> Graph:
    """Convolutions one after the other, between two permutes, so that none touches an input or output."""
    rng = np.random.default_rng(h * w)
    x = TensorType((1, CHANNELS, h, w), DType.I8)
    consts, nodes = {}, [Node(Permute((0, 2, 3, 1)), ("x",), ("y0",), Permute((0, 2, 3, 1)).infer([x]), ("net.py:1",))]
    for k, (kernel, fields) in enumerate(LAYERS):
        op = QConv2dRequantize(pad_value=-7, zero_point=3, rounding=rounding, **fields)
        inside = 1 if op.groups > 1 else CHANNELS
        arrays = [
            rng.integers(-127, 128, (*kernel, inside, CHANNELS)).astype(np.int8),
            *(rng.integers(*r, CHANNELS).astype(np.int32) for r in ((-999, 999), (1 << 30, 1 << 31), (38, 41))),
        ]
        values = {f"c{k}_{j}": Const(a, TensorType(a.shape, DType(a.dtype.name))) for j, a in enumerate(arrays)}
        types = op.infer([nodes[-1].type, *(c.type for c in values.values())])
        nodes.append(Node(op, (nodes[-1].output, *values), (f"y{k + 1}",), types, ("net.py:1",)))
        consts |= values
    back = Permute((0, 3, 1, 2))
    nodes.append(Node(back, (nodes[-1].output,), ("out",), back.infer([nodes[-1].type]), ("net.py:1",)))
    return Graph("chain", (Value("x", x),), consts, tuple(nodes), ("out",))


def run(graph: Graph, folder: Path, device: str, target: str, kernels: str) -> tuple[Plan, np.ndarray]:
    """The plan with the kernels for another target, and the output."""
    plan = write_folder(graph, dataclasses.replace(load_target(kernels), name=target), folder)
    values = np.random.default_rng(1).integers(-128, 128, graph.inputs[0].type.shape).astype(np.int8)
    with open_device(device, folder, read_manifest(folder), load_target(target)) as opened:
        found = opened.step([values])
    assert found is not None
    expected = evaluate(graph, {"x": torch.from_numpy(values.astype(np.int64))})[0].numpy()
    assert found[0].reshape(-1).tolist() == expected.reshape(-1).tolist()
    return plan, found[0]


@pytest.mark.parametrize("kernels", ["cortex-m7", "cortex-m55"])
@pytest.mark.parametrize("rounding", ["single", "tflite"])
@pytest.mark.parametrize(("h", "w"), [(6, 6), (7, 5), (5, 4), (1, 5)])
def test_on_the_host(tmp_path: Path, h: int, w: int, rounding: str, kernels: str) -> None:
    plan, _ = run(chain(h, w, rounding), tmp_path, "host", "host", kernels)
    assert [c.in_place for c in plan.calls] == [False, *[True] * len(LAYERS), False]


@pytest.mark.parametrize(("h", "w"), [(7, 5), (6, 6)])
def test_on_the_emulated_core(tmp_path: Path, h: int, w: int) -> None:
    pytest.importorskip("unicorn")
    run(chain(h, w, "single"), tmp_path, "unicorn", "cortex-m7", "cortex-m7")


@needs("qemu-system-arm")
@pytest.mark.parametrize(("h", "w"), [(7, 5), (6, 6)])
def test_on_qemu(tmp_path: Path, h: int, w: int) -> None:
    run(chain(h, w, "single"), tmp_path, "qemu", "cortex-m55", "cortex-m55")
