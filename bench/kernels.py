"""Instructions of the LMUFormer's layers on an emulated core, at several spike rates, and of layers on int8 and int16.

    python bench/kernels.py [target] [gcc|zig]

Counted on the core's first emulator between the marks of a profile build, so a layer's figure has its call in it; QEMU
(Cortex-M55) counts to within 31. "per add" divides by
spikes x outputs, "per MAC" by all inputs x outputs (for neurons and requantisation: by elements). The last column is
the op's generic rule at 15 %.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from rich.console import Console
from rich.table import Table

from edgec.backends.emit import write_folder
from edgec.device import open_device
from edgec.ir.graph import Const, Graph, Node, State, Value
from edgec.ir.types import DType, TensorType
from edgec.kernels import select
from edgec.ops import QConv1d, QConv2d, QConv2dRequantize, QLif, QLinear, QLinearRequantize, QMatMul, Requantize
from edgec.plan.calls import site_of
from edgec.target import Target, load_target
from edgec.toolchain.manifest import read_manifest

RATES = (0.0, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0)
CURVE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
#: adds the rows of spikes; takes those of silent inputs from the sum of all; expands the spikes for the int8 kernel
KINDS = ("event", "silence", "dense")
Layer = tuple[str, Any, DType, tuple[int, ...], int]
#: name, op, input type and shape, outputs
LAYERS: tuple[Layer, ...] = (
    ("conv0", QConv1d(), DType.I8, (1, 3, 40), 128),
    ("conv0 of int16", QConv1d(), DType.I16, (1, 3, 40), 128),
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
    ("requantize, ratio above 1", Requantize("int16", 2.0, 0, -32768, 32767), DType.I32, (1, 1, 128), 128),
)
PADDED = (1, 1, 1, 1)
#: the same for layers that see many rows or pixels
ROWS: tuple[Layer, ...] = (
    ("1x1, 64 to 64, 25x5", QConv2dRequantize(), DType.I8, (1, 25, 5, 64), 64),
    ("the same, TFLite", QConv2dRequantize(rounding="tflite"), DType.I8, (1, 25, 5, 64), 64),
    ("1x1, 24 to 144, 8x8", QConv2dRequantize(), DType.I8, (1, 8, 8, 24), 144),
    ("3x3, 16 to 16, 16x16", QConv2dRequantize(pad=PADDED), DType.I8, (1, 16, 16, 16), 16),
    ("3x3, 3 to 16, 16x16", QConv2dRequantize(pad=PADDED), DType.I8, (1, 16, 16, 3), 16),
    ("depthwise 3x3, 16x16", QConv2dRequantize(pad=PADDED, groups=32), DType.I8, (1, 16, 16, 32), 32),
    ("the same, stride 2", QConv2dRequantize((2, 2), PADDED, groups=32), DType.I8, (1, 16, 16, 32), 32),
    ("linear, 96 to 192, 16 rows", QLinearRequantize(), DType.I8, (1, 16, 96), 192),
    ("linear, 8 to 16, 192 rows", QLinearRequantize(), DType.I8, (1, 192, 8), 16),
    ("product, 64x32 by 32x64", QMatMul(True, 3, -7), DType.I8, (1, 1, 64, 32), 64),
    ("requantize int16 to int8", Requantize("int8", 1.0, 3), DType.I16, (1, 1, 128), 128),
)


def weights_shape(op: Any, shape: tuple[int, ...], outputs: int) -> tuple[int, ...]:
    """Of one layer."""
    if isinstance(op, QConv2d):
        side = 3 if any(op.pad) else 1
        return (side, side, shape[3] // op.groups, outputs)
    if isinstance(op, QMatMul):
        return (*shape[:-2], outputs, shape[-1])
    return (*shape[1:], outputs) if isinstance(op, QConv1d) else (shape[-1], outputs)


def operands(op: Any, dtype: DType, shape: tuple[int, ...], outputs: int, rng: np.random.Generator) -> list[Const]:
    """Constants of one layer with the spread that trained ones have."""
    if isinstance(op, (QConv1d, QConv2d, QLinear, QMatMul)):
        w = np.clip(np.rint(rng.normal(0, 40, weights_shape(op, shape, outputs))), -127, 127).astype(np.int8)
        arrays = [w, rng.integers(-999, 999, outputs).astype(np.int32)]
        if isinstance(op, (QConv2d, QLinearRequantize)):
            arrays += [rng.integers(1 << 30, 1 << 31, outputs), rng.integers(38, 42, outputs)]
        arrays = arrays[:1] if isinstance(op, QMatMul) else arrays
    elif isinstance(op, QLif):
        arrays = [rng.integers(1, 90, outputs), rng.integers(-99, 99, outputs), np.full(outputs, 9000)]
    else:
        shifts = (27, 32) if op.scale > 1 else (36, 40)
        arrays = [rng.integers(1 << 30, 1 << 31, outputs), rng.integers(*shifts, outputs)]
    arrays = [a if a.dtype == np.int8 else a.astype(np.int32) for a in arrays]
    return [Const(a, TensorType(a.shape, DType(str(a.dtype)))) for a in arrays]


def layers_graph(layers: Sequence[Layer]) -> Graph:
    """Every layer as one node on an input of its own."""
    rng = np.random.default_rng(0)
    inputs, consts, nodes, states = [], {}, [], []
    for k, (_, op, dtype, shape, outputs) in enumerate(layers):
        inputs.append(Value(f"x{k}", TensorType(shape, dtype, None, None if len(shape) == 4 else 1)))
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


def measure(
    layers: Sequence[Layer], target: Target, toolchain: str, rates: Sequence[float]
) -> tuple[dict[int, str], list[list[int]]]:
    """Variant of each layer, and the instructions of each layer at each rate (mean of four frames)."""
    graph, rng = layers_graph(layers), np.random.default_rng(1)
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
        with open_device(target.devices[0], work, manifest, target, **options) as device:  # type: ignore[arg-type]
            for rate in rates:
                total = np.zeros(len(layers), int)
                for _ in range(4):
                    device.step(frame(graph, rate, rng)[0])
                    total += [device.counters.per_node[k] for k in range(len(layers))]
                rows.append([int(t) // 4 for t in total])
    return {c.index: c.variant for c in plan.calls}, rows


def spikes_table(target: Target, toolchain: str) -> Table:
    """The LMUFormer's layers at every rate."""
    variants, rows = measure(LAYERS, target, toolchain, RATES)
    _, (generic,) = measure(LAYERS, dataclasses.replace(target, isa=("none",)), toolchain, (0.15,))
    graph = layers_graph(LAYERS)
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
    return table


def choice_table(target: Target, toolchain: str) -> Table:
    """The kernels between which the compiler chooses by the trained rate, each at every rate; * where it takes it."""
    layers = [row for row in LAYERS if row[2] is DType.BIT]
    measured = []
    for kind in KINDS:
        with (
            mock.patch("edgec.kernels.event.cheapest", return_value=kind),
            mock.patch("edgec.kernels.cortex_m.dense.cheapest", return_value=kind),
            mock.patch("edgec.kernels.helium.image.cheapest", return_value=kind),
        ):
            measured.append(measure(layers, target, toolchain, CURVE))
    table = Table(title=f"{target.name}, {toolchain}: instructions per MAC against the spike rate")
    for title in ("layer", "kernel", *(f"{rate:.0%}" for rate in CURVE)):
        table.add_column(title, justify="left" if title in ("layer", "kernel") else "right")
    graph = layers_graph(layers)
    for k, node in enumerate(graph.nodes):
        name, op, _, shape, outputs = layers[k]
        macs, place = int(np.prod(shape)) * outputs, site_of(graph, node)
        chosen = [select(dataclasses.replace(op, spike_rate=rate), place, target.isa)[0] for rate in CURVE]
        for variants, counts in measured:
            marks = ["*" if variant == variants[k] else "" for variant in chosen]
            cells = [f"{mark}{row[k] / macs:.3f}" for mark, row in zip(marks, counts, strict=True)]
            last = variants is measured[-1][0]
            table.add_row("" if variants is not measured[0][0] else name, variants[k], *cells, end_section=last)
    return table


def rows_table(target: Target, toolchain: str) -> Table:
    """The layers that see many rows or pixels."""
    variants, (counts,) = measure(ROWS, target, toolchain, (0.0,))
    _, (generic,) = measure(ROWS, dataclasses.replace(target, isa=("none",)), toolchain, (0.0,))
    table = Table(title=f"{target.name}, {toolchain}: instructions, per MAC (or element)")
    for title in ("layer", "kernel", "instructions", "per MAC", "generic, per MAC"):
        table.add_column(title, justify="left" if title in ("layer", "kernel") else "right")
    graph = layers_graph(ROWS)
    for k, node in enumerate(graph.nodes):
        macs = node.op.cost(graph.input_types(node), node.types).macs or node.type.size
        table.add_row(ROWS[k][0], variants[k], f"{counts[k]}", f"{counts[k] / macs:.2f}", f"{generic[k] / macs:.2f}")
    return table


def main() -> None:
    target = load_target(sys.argv[1] if len(sys.argv) > 1 else "cortex-m7")
    toolchain = sys.argv[2] if len(sys.argv) > 2 else "zig"
    console = Console(width=220)
    console.print(spikes_table(target, toolchain))
    if "arm_dsp" in target.isa:
        console.print(choice_table(target, toolchain))
    console.print(rows_table(target, toolchain))


if __name__ == "__main__":
    main()
