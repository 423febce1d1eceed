"""What tests of quantisation share: data, and the checks that hold for every integer graph."""

from typing import Any

import numpy as np
import torch

from edgec.ir.evaluate import evaluate_all
from edgec.ir.graph import Graph
from edgec.ir.types import DType
from edgec.ir.verify import verify
from edgec.ops.integer.neuron import QLifSaturating
from edgec.ops.integer.spiking import QLif
from edgec.passes.quantize.quantize import Quantize

INT32 = 2**31 - 1


def samples(graph: Graph, n: int = 24, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return {v.name: rng.normal(size=(n, *v.type.shape[1:])).astype(np.float32) for v in graph.inputs}


def quantized(graph: Graph, data: Any = None) -> Graph:
    result = Quantize(samples(graph) if data is None else data).run(graph)
    verify(result)
    assert all(not result.type_of(o).dtype.is_float for n in result.nodes for o in n.outputs)
    assert all(not c.type.dtype.is_float for c in result.consts.values())
    return result


def extreme_inputs(graph: Graph, kind: str) -> dict[str, torch.Tensor]:
    """Integers at the ends of the input types: all lowest, all highest, either at random, or in turn along time."""
    rng, found = np.random.default_rng(1), {}
    for v in graph.inputs:
        lo, hi = v.type.dtype.range
        high = {
            "lo": np.zeros(v.type.shape, bool),
            "hi": np.ones(v.type.shape, bool),
            "random": rng.random(v.type.shape) < 0.5,
            "turns": np.broadcast_to(
                np.arange(v.type.shape[1]).reshape(1, -1, *[1] * (len(v.type.shape) - 2)) // 3 % 2 == 0, v.type.shape
            ),
        }[kind]
        found[v.name] = torch.from_numpy(np.where(high, hi, lo))
    return found


def assert_stays_in_int32(graph: Graph, inputs: dict[str, torch.Tensor]) -> None:
    """Every tensor within its type, and every intermediate of every neuron within int32."""
    values = evaluate_all(graph, inputs)
    for node in graph.nodes:
        for name in node.outputs:
            t = graph.type_of(name)
            lo, hi = t.dtype.range
            inside = lo <= int(values[name].min()) <= int(values[name].max()) <= hi
            assert inside, f"%{name} leaves {t.dtype.value}"
        if isinstance(node.op, (QLif, QLifSaturating)):
            follow_membranes(node.op, [values[i] for i in node.inputs])


def follow_membranes(op: Any, tensors: list[torch.Tensor]) -> None:
    """Run a neuron frame by frame and look at X, V and X - V."""
    x, gain, bias, threshold, *decay = tensors
    drive = x * gain + bias
    v = torch.zeros_like(drive.narrow(-2, 0, 1))
    late = threshold if op.delayed_reset and op.reset == "subtract" else 0 * threshold
    for t in range(drive.shape[-2]):
        frame = drive.narrow(-2, t, 1)
        for value in (frame, v, frame - v, frame + v, frame - v - late, frame + v - late):
            assert int(value.abs().max()) <= INT32
        _, v = op.step(frame, v, threshold, *decay)


def spikes_of(graph: Graph) -> list[str]:
    return [o for n in graph.nodes for o in n.outputs if graph.type_of(o).dtype is DType.BIT]
