"""Instructions per MAC of each precision, counted on the emulated core of a target: the [cost] of targets/*.toml.

    python bench/precisions.py [--write] [target ...]

A 1x1 convolution, 64 to 64 channels over 25x5 pixels, requantised, its call included: normally distributed weights as
quantisation rounds them, 4-bit activations also in the output. zig, -O2. --write puts them into the target files. The
counts of QEMU (cortex-m55) are good to some tens of instructions of half a million.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from edgec.backends.emit import write_folder
from edgec.bits import PRECISIONS
from edgec.device import open_device
from edgec.ir.graph import Const, Graph, Node, Value
from edgec.ir.types import DType, TensorType
from edgec.ops import QConv2dRequantize
from edgec.ops.integer.numbers import Scale, quantize_weights, ratio
from edgec.target import Cost, Target, list_targets, load_target
from edgec.toolchain.manifest import read_manifest

TARGETS = Path(__file__).resolve().parent.parent / "targets"
PIXELS, CHANNELS = (25, 5), 64
#: a field of Cost -> a precision of the quantiser
NAMES = {"int8": "w8a8", "w4a8": "w4a8", "w4a4": "w4a4", "w2a8": "w2a8"}


def layer(name: str, index: int) -> tuple[Value, dict[str, Const], Node]:
    """The convolution in one precision, with its input and constants."""
    bits, rng = PRECISIONS[NAMES[name]], np.random.default_rng(0)
    x = TensorType((1, *PIXELS, CHANNELS), DType(f"int{bits.activations}"))
    real = rng.normal(0, 0.1, (1, 1, CHANNELS, CHANNELS))
    w = quantize_weights(real, rng.normal(0, 0.5, CHANNELS), Scale(0.05, 3), x.dtype.range, bits.weights)
    top = x.dtype.range[1]
    multiplier, shift = ratio(np.full(CHANNELS, top / (4.0 * np.abs(w.w).mean() * top * 8.0 / 2.0)))
    arrays = {"w": w.w, "b": w.bias, "m": multiplier, "s": shift}
    consts = {
        f"{key}{index}": Const(a, TensorType(a.shape, DType(f"int{bits.weights}") if key == "w" else DType.I32))
        for key, a in arrays.items()
    }
    op = QConv2dRequantize(dtype=x.dtype.value, zero_point=-1, lo=x.dtype.range[0], hi=top)
    types = op.infer([x, *[c.type for c in consts.values()]])
    return Value(f"x{index}", x), consts, Node(op, (f"x{index}", *consts), (f"y{index}",), types, (name,))


def graph() -> Graph:
    """The layer in every precision, each on an input of its own."""
    layers = [layer(name, k) for k, name in enumerate(NAMES)]
    consts = {name: c for _, found, _ in layers for name, c in found.items()}
    nodes = tuple(node for *_, node in layers)
    return Graph("precisions", tuple(v for v, *_ in layers), consts, nodes, tuple(n.output for n in nodes), (), True)


def measure(target: Target) -> tuple[Cost, dict[str, str], dict[str, int]]:
    """Instructions per MAC, rounded to a thousandth; kernel and bytes of constants of each precision."""
    net, rng = graph(), np.random.default_rng(1)
    with tempfile.TemporaryDirectory(prefix="edgec-bench-") as work:
        plan = write_folder(net, target, Path(work))
        with open_device(target.devices[0], work, read_manifest(work), target, profile=True, counting=True) as device:
            device.step([rng.integers(*v.type.dtype.range, v.type.shape, np.int8, True) for v in net.inputs])
            counts = device.counters.per_node
    macs = net.nodes[0].op.cost(net.input_types(net.nodes[0]), net.nodes[0].types).macs
    calls = dict(zip(NAMES, plan.calls, strict=True))
    flash = {name: sum(plan.consts[a].nbytes for a in set(c.args) & set(plan.consts)) for name, c in calls.items()}
    cost = Cost(**{name: round(counts[c.index] / macs, 3) for name, c in calls.items()})
    return cost, {name: c.variant for name, c in calls.items()}, flash


def write(target: Target, cost: Cost) -> None:
    """Put the table into the target's file, in place of the one that is there."""
    path = TARGETS / f"{target.name}.toml"
    text = re.sub(
        r"\n# [^\n]*bench/precisions.py[^\n]*\n\[cost\]\n(?:\w[^\n]*\n)*", "", path.read_text(encoding="utf-8")
    )
    rows = "".join(f"{name} = {value}\n" for name, value in dataclasses.asdict(cost).items())
    head = "\n# Instructions per MAC of a 1x1 layer, counted by bench/precisions.py.\n[cost]\n"
    path.write_text(text + head + rows, encoding="utf-8")


def main() -> None:
    arguments = [a for a in sys.argv[1:] if a != "--write"]
    targets = [load_target(n) for n in arguments or list_targets()]
    table = Table(title="instructions per MAC, 64 to 64 channels over 25x5 pixels; constants in bytes; kernel")
    for title in ("target", *NAMES):
        table.add_column(title)
    for target in targets:
        if target.arch != "arm-m":
            continue
        cost, variants, flash = measure(target)
        cells = [f"{getattr(cost, name):.3f}  {flash[name]:,} B  {variants[name]}" for name in NAMES]
        table.add_row(target.name, *cells)
        if "--write" in sys.argv:
            write(target, cost)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
