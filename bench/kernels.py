"""Instructions of the LMUFormer's layers on an emulated core, at several spike rates.

    python bench/kernels.py [target] [gcc|zig]

Counted on unicorn between the marks of a profile build, so a layer's figure has its call in it. "per add" divides by
spikes x outputs, "per MAC" by all inputs x outputs (for neurons and requantisation: by elements). The last column is
the op's generic rule at 15 %.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from edgec.backends.emit import write_folder
from edgec.device import open_device
from edgec.ir.graph import Const, Graph, Node, State, Value
from edgec.ir.types import DType, TensorType
from edgec.ops import QConv1d, QLif, QLinear, Requantize
from edgec.target import Target, load_target
from edgec.toolchain.manifest import read_manifest

RATES = (0.0, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0)
#: name, op, input type and shape, outputs
LAYERS: tuple[tuple[str, Any, DType, tuple[int, ...], int], ...] = (
    ("conv0", QConv1d(), DType.I8, (1, 3, 40), 128),
    ("conv1", QConv1d(), DType.BIT, (1, 3, 128), 128),
    ("u", QLinear(), DType.BIT, (1, 1, 128), 1),
    ("memory", QLinear(), DType.BIT, (1, 1, 128), 128),
    ("h", QLinear(), DType.BIT, (1, 1, 256), 128),
    ("fc1", QLinear(), DType.BIT, (1, 1, 128), 256),
    ("fc2", QLinear(), DType.BIT, (1, 1, 256), 128),
    ("head", QLinear(), DType.BIT, (1, 1, 128), 12),
    ("lif of int32", QLif(), DType.I32, (1, 1, 128), 128),
    ("lif of int16", QLif(), DType.I16, (1, 1, 128), 128),
    ("requantize to int16", Requantize("int16", 1.0, 0, -32768, 32767), DType.I32, (1, 1, 128), 128),
)


def operands(op: Any, dtype: DType, shape: tuple[int, ...], outputs: int, rng: np.random.Generator) -> list[Const]:
    """Constants of one layer with the spread that trained ones have."""
    if isinstance(op, (QConv1d, QLinear)):
        w_shape = (*shape[1:], outputs) if isinstance(op, QConv1d) else (shape[-1], outputs)
        w = np.clip(np.rint(rng.normal(0, 40, w_shape)), -127, 127).astype(np.int8)
        arrays = [w, rng.integers(-999, 999, outputs).astype(np.int32)]
    elif isinstance(op, QLif):
        arrays = [rng.integers(1, 90, outputs), rng.integers(-99, 99, outputs), np.full(outputs, 9000)]
    else:
        arrays = [rng.integers(1 << 30, 1 << 31, outputs), rng.integers(36, 40, outputs)]
    arrays = [a if a.dtype == np.int8 else a.astype(np.int32) for a in arrays]
    return [Const(a, TensorType(a.shape, DType(str(a.dtype)))) for a in arrays]


def layers_graph() -> Graph:
    """Every layer as one node on an input of its own."""
    rng = np.random.default_rng(0)
    inputs, consts, nodes, states = [], {}, [], []
    for k, (_, op, dtype, shape, outputs) in enumerate(LAYERS):
        inputs.append(Value(f"x{k}", TensorType(shape, dtype, None, 1)))
        values = {f"c{k}_{j}": c for j, c in enumerate(operands(op, dtype, shape, outputs, rng))}
        types = [inputs[-1].type, *[c.type for c in values.values()]]
        own = [State(f"s{k}_{j}", t, init) for j, (t, init) in enumerate(op.state_types(types))]
        names = tuple(s.name for s in own)
        nodes.append(Node(op, (f"x{k}", *values), (f"y{k}",), op.infer(types), (f"layer {k}",), names))
        consts |= values
        states += own
    outs = tuple(n.outputs[0] for n in nodes)
    return Graph("layers", tuple(inputs), consts, tuple(nodes), outs, tuple(states), True)


def frame(graph: Graph, rate: float, rng: np.random.Generator) -> tuple[list[np.ndarray], list[int]]:
    """Inputs in storage form, and how many spikes (or elements that are not spikes) each has."""
    arrays, counts = [], []
    for v in graph.inputs:
        if v.type.dtype is DType.BIT:
            spikes = np.zeros(v.type.size, np.uint8)
            spikes[rng.permutation(v.type.size)[: round(rate * v.type.size)]] = 1
            arrays.append(np.packbits(spikes.reshape(-1, 32), axis=-1, bitorder="little").view("<u4"))
            counts.append(int(spikes.sum()))
        else:
            arrays.append(rng.integers(-128, 128, v.type.shape).astype(v.type.dtype.value))
            counts.append(v.type.size)
    return arrays, counts


def measure(target: Target, toolchain: str, rates: tuple[float, ...]) -> tuple[dict[int, str], list[list[int]]]:
    """Variant of each layer, and the instructions of each layer at each rate (mean of four frames)."""
    graph, rng = layers_graph(), np.random.default_rng(1)
    with tempfile.TemporaryDirectory(prefix="edgec-bench-") as work:
        plan = write_folder(graph, target, Path(work))
        manifest = read_manifest(work)
        plain = [
            dataclasses.replace(t, dtype="uint32", shape=(t.bytes // 4,)) if t.dtype == "bit" else t
            for t in (*manifest.inputs, *manifest.outputs)
        ]
        split = len(manifest.inputs)
        manifest = dataclasses.replace(manifest, inputs=tuple(plain[:split]), outputs=tuple(plain[split:]))
        rows = []
        options = {"toolchain": toolchain, "profile": True, "counting": True}
        with open_device("unicorn", work, manifest, target, **options) as device:  # type: ignore[arg-type]
            for rate in rates:
                total = np.zeros(len(LAYERS), int)
                for _ in range(4):
                    device.step(frame(graph, rate, rng)[0])
                    total += [device.counters.per_node[k] for k in range(len(LAYERS))]
                rows.append([int(t) // 4 for t in total])
    return {c.index: c.variant for c in plan.calls}, rows


def main() -> None:
    target = load_target(sys.argv[1] if len(sys.argv) > 1 else "cortex-m7")
    toolchain = sys.argv[2] if len(sys.argv) > 2 else "zig"
    variants, rows = measure(target, toolchain, RATES)
    _, (generic,) = measure(dataclasses.replace(target, isa=("none",)), toolchain, (0.15,))
    graph = layers_graph()
    table = Table(title=f"{target.name}, {toolchain}: instructions, per add / per MAC")
    table.add_column("layer")
    table.add_column("kernel")
    for rate in RATES:
        table.add_column(f"{rate:.0%}", justify="right")
    table.add_column("generic 15 %", justify="right")
    for k, (name, op, dtype, shape, outputs) in enumerate(LAYERS):
        product = isinstance(op, (QConv1d, QLinear))
        macs = int(np.prod(shape)) * outputs if product else outputs
        cells = []
        for rate, row in zip(RATES, rows, strict=True):
            adds = frame(graph, rate, np.random.default_rng(0))[1][k] * outputs if dtype is DType.BIT else macs
            per_add = f"{row[k] / adds:.2f}" if adds else "-"
            cells.append(f"{row[k]}  {per_add} / {row[k] / macs:.3f}" if dtype is DType.BIT else "")
        if dtype is not DType.BIT:
            cells[0] = f"{rows[0][k]}  {rows[0][k] / macs:.2f}"
        table.add_row(name, variants[k], *cells, f"{generic[k]}  {generic[k] / macs:.2f}")
    Console(width=220).print(table)


if __name__ == "__main__":
    main()
