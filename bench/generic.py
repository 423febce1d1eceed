"""Instructions of layers that have no hand-shaped kernel on a core: what their ops' own kernels take.

    python bench/generic.py [float|int8 ...] [--write]

Counted on the core's emulator, one call of each layer; per MAC, or per element where a layer has none. `before` is
what the committed file holds there: the kernels before loops ran in memory order with sums in registers and without
tests for padding. Code is the whole library's, without its constants.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgec.backends.emit import write_folder
from edgec.frontends.builder import GraphBuilder
from edgec.ir.graph import Graph
from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops import OPS
from edgec.options import Options
from edgec.profile.report import build_report
from edgec.target import load_target

COMMITTED = Path(__file__).with_suffix(".txt")
TARGETS = {"float": ("cortex-m4", "cortex-m55"), "int8": ("cortex-m4", "cortex-m0plus", "cortex-m55")}
SIDES = (1, 1, 1, 1)
Layer = tuple[str, Any, tuple[int, ...], tuple[tuple[int, ...], ...]]  # name, op, shape of x, shapes of constants


def conv2d_layers(prefix: str, activation: dict[str, Any]) -> Iterator[Layer]:
    """Convolutions of an image, of both number formats."""

    def conv(name: str, x: tuple[int, ...], w: tuple[int, ...], **fields: Any) -> Layer:
        return f"conv2d {name}", OPS[prefix](**fields, **activation), x, (w, (w[-1],))

    yield conv("1x1, 24 to 21", (1, 8, 8, 24), (1, 1, 24, 21))
    yield conv("3x3, 13 to 17, padded", (1, 8, 8, 13), (3, 3, 13, 17), pad=SIDES)
    yield conv("3x3, 3 to 16, stride 2", (1, 17, 17, 3), (3, 3, 3, 16), stride=(2, 2), pad=SIDES)
    yield conv("3x3, dilation 2", (1, 10, 10, 8), (3, 3, 8, 12), dilation=(2, 2), pad=(2, 2, 2, 2))
    yield conv("3x3, 4 groups of 6 to 5", (1, 8, 8, 24), (3, 3, 6, 20), groups=4, pad=SIDES)
    yield conv("depthwise 3x3, 19", (1, 10, 10, 19), (3, 3, 1, 19), groups=19, pad=SIDES)
    yield conv("depthwise 3x3, 16, dilation 2", (1, 10, 10, 16), (3, 3, 1, 16), groups=16, dilation=(2, 2))
    yield conv("depthwise 5x5, 8, stride 2", (1, 13, 13, 8), (5, 5, 1, 8), groups=8, stride=(2, 2), pad=(2, 2, 2, 2))


def conv1d_layers(prefix: str) -> Iterator[Layer]:
    """Convolutions over time, of both number formats."""
    for name, groups, dilation, pad in (("5, 16 to 12", 1, 1, 2), ("3, dilation 4, causal", 1, 4, 0)):
        taps = 5 if pad else 3
        op = OPS[prefix](pad=(pad, pad) if pad else (8, 0), dilation=dilation, groups=groups)
        yield f"conv1d {name}", op, (1, 24, 16), ((taps, 16, 12), (12,))
    yield "conv1d 3, 2 groups of 8", OPS[prefix](groups=2, pad=(1, 1)), (1, 24, 16), ((3, 8, 10), (10,))
    yield "conv1d depthwise 7, 18", OPS[prefix](groups=18, pad=(3, 3)), (1, 24, 18), ((7, 1, 18), (18,))


def float_layers() -> Iterator[Layer]:
    """Of float32."""
    yield from conv2d_layers("conv2d", {"activation": "relu"})
    yield from conv1d_layers("conv1d")
    yield "linear 64 to 10, one row", OPS["linear"](), (1, 64), ((64, 10), (10,))
    yield "linear 40 to 33, 16 rows", OPS["linear"](), (1, 16, 40), ((40, 33), (33,))
    yield "matmul 16x24 by 24x18", OPS["matmul"](), (2, 16, 24), ((2, 24, 18),)
    yield "matmul 16x24 by (18x24)^T", OPS["matmul"](transpose_b=True), (2, 16, 24), ((2, 18, 24),)
    yield "max_pool2d 3x3, stride 2", OPS["max_pool2d"]((3, 3), (2, 2), SIDES), (1, 12, 12, 13), ()
    yield "avg_pool2d 2x2", OPS["avg_pool2d"]((2, 2), (2, 2)), (1, 12, 12, 13), ()
    yield "avg_pool2d 3x3, counted", OPS["avg_pool2d"]((3, 3), (1, 1), SIDES, (0,) * 4), (1, 9, 9, 12), ()
    for axis in (1, 2, 3):
        yield f"mean over axis {axis}", OPS["mean"](axis=axis), (1, 12, 10, 14), ()
    yield "softmax, 30", OPS["softmax"](), (1, 12, 30), ()
    yield "layer_norm, 48", OPS["layer_norm"](), (1, 12, 48), ((48,), (48,))
    yield "permute 0, 2, 1", OPS["permute"]((0, 2, 1)), (1, 40, 24), ()
    yield "permute 0, 3, 1, 2", OPS["permute"]((0, 3, 1, 2)), (1, 10, 9, 13), ()
    yield "permute 0, 2, 1, 3", OPS["permute"]((0, 2, 1, 3)), (1, 10, 9, 13), ()
    yield "slice, 5 of 16 channels", OPS["slice"](axis=-1, start=3, stop=8), (1, 60, 16), ()
    yield "concat, 16 and 7 channels", OPS["concat"](), (1, 40, 16), ((1, 40, 7),)
    yield "pad 1 around 12x12x6", OPS["pad"]((0, 0, 1, 1, 1, 1, 0, 0)), (1, 12, 12, 6), ()
    yield "affine, 24 channels", OPS["affine"](), (1, 40, 24), ((24,), (24,))
    yield "affine, axis 1", OPS["affine"](axis=1), (1, 24, 40), ((24,), (24,))
    yield "mul by a row", OPS["mul"](), (1, 40, 24), ((1, 1, 24),)
    yield "relu", OPS["relu"](), (1, 40, 24), ()
    yield "eca, 40 channels", OPS["eca"](), (1, 8, 8, 40), ((3,),)
    yield "std_scale, 48 by 5", OPS["std_scale"](), (1, 48, 5), ()
    yield "lmu_taps, 32 by 12", OPS["lmu_taps"](12), (1, 32, 1), ((32, 12),)


def int8_layers() -> Iterator[Layer]:
    """Of int8."""
    yield from conv2d_layers("qconv2d_requantize", {"pad_value": -3})
    yield from conv1d_layers("qconv1d")
    yield "qmax_pool2d 3x3, stride 2", OPS["qmax_pool2d"]((3, 3), (2, 2), SIDES), (1, 12, 12, 13), ()
    average = {"multiplier": 14563, "shift": 17, "x_zero": -3, "pad_value": -3}
    yield "qavg_pool2d 3x3", OPS["qavg_pool2d"]((3, 3), (2, 2), SIDES, **average), (1, 12, 12, 13), ()
    yield "tflite_avg_pool2d 3x3", OPS["tflite_avg_pool2d"]((3, 3), (1, 1), SIDES), (1, 9, 9, 12), ()
    yield "tflite_avg_pool2d 25x5", OPS["tflite_avg_pool2d"]((25, 5), (25, 5)), (1, 25, 5, 32), ()
    for axis in (1, 3):
        yield f"qmean over axis {axis}", OPS["qmean"](axis=axis), (1, 12, 10, 14), ((1,), (1,))
    yield "tflite_mean over axis 1", OPS["tflite_mean"](axis=1), (1, 12, 10, 14), ((1,), (1,))
    yield "qlayer_norm, 48", OPS["qlayer_norm"](eps=9, shift=17), (1, 12, 48), ((48,), (48,))
    yield "permute 0, 2, 1", OPS["permute"]((0, 2, 1)), (1, 40, 24), ()
    yield "pad 1 around 12x12x6", OPS["pad"]((0, 0, 1, 1, 1, 1, 0, 0), -3), (1, 12, 12, 6), ()
    yield "qaffine, 24 channels", OPS["qaffine"](shift=12), (1, 40, 24), ((24,), (24,))
    yield "qaffine, axis 1", OPS["qaffine"](shift=12, axis=1), (1, 24, 40), ((24,), (24,))
    yield "qadd of a row", OPS["qadd"]("int8", lo=-128, hi=127, ma=900, mb=700, shift=11), (1, 40, 24), ((1, 1, 24),)
    yield "tflite_add", OPS["tflite_add"](sa=1, sb=1, sy=18), (1, 40, 24), ((1, 40, 24),)


def constants(layer: Layer, rng: np.random.Generator) -> list[np.ndarray]:
    """The operands after x: weights, bias, multipliers and shifts where a layer requantises."""
    name, op, _, shapes = layer
    if layer in FLOATS:
        return [rng.normal(size=s).astype(np.float32) for s in shapes]
    if "mean" in name:
        return [np.full(s, n, np.int32) for s, n in zip(shapes, (1 << 30, 30), strict=True)]
    first = np.int8 if "conv" in name or "add" in name else np.int32
    values = [rng.integers(-99, 100, s).astype(first if k == 0 else np.int32) for k, s in enumerate(shapes)]
    if hasattr(op, "requantization") and "conv" in name:
        outputs = shapes[0][-1]
        values += [rng.integers(1 << 30, 1 << 31, outputs).astype(np.int32), np.full(outputs, 40, np.int32)]
    return values


FLOATS = list(float_layers())


def network(layers: list[Layer]) -> Graph:
    """Every layer on an input of its own."""
    rng, build = np.random.default_rng(0), GraphBuilder("generic")
    outputs = []
    for k, layer in enumerate(layers):
        _, op, shape, _ = layer
        kind = TensorType(shape) if layer in FLOATS else TensorType(shape, DType.I8, QuantParams((1 / 64,), -3))
        names = [build.input(f"x{k}", kind)]
        names += [build.const(f"c{k}_{j}", v) for j, v in enumerate(constants(layer, rng))]
        outputs.append(build.emit_all(op, *names, count=len(op.infer([build.type_of(n) for n in names])))[0])
    return build.build(tuple(outputs))


NAMES = 56  # columns of a number format, a target and a layer


def committed() -> dict[str, str]:
    """The `before` column by number format, target and layer."""
    if not COMMITTED.exists():
        return {}
    lines = [line for line in COMMITTED.read_text(encoding="utf-8").splitlines() if "|" in line]
    return {line[:NAMES].strip(): line.split("|")[0].split()[-1] for line in lines}


def rows_of(kind: str, target: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Each layer and what it takes, then the library's code."""
    layers = FLOATS if kind == "float" else list(int8_layers())
    part = load_target(target)
    folder.mkdir()
    plan = write_folder(network(layers), part, folder)
    report = build_report(folder, part, plan, None, {}, Options())
    for layer, row in zip(layers, report["layers"], strict=True):
        macs = row["macs"] or int(np.prod(layer[2]))
        yield f"{kind:<6}{target:<14}{layer[0]:<36}{row['variant']:>12}", f"{row['instructions'] / macs:.2f}"
    totals = report["totals"]
    yield f"{kind:<6}{target:<14}{'code of these':<36}{'bytes':>12}", f"{totals['flash'] - totals['weights']}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("kinds", nargs="*", default=list(TARGETS))
    arguments.add_argument("--write", action="store_true", help="replace bench/generic.txt")
    a = arguments.parse_args()
    before, lines = committed(), ["$ python bench/generic.py", f"{'':<68}{'before':>8} | {'now':>8}"]
    with tempfile.TemporaryDirectory(prefix="edgec-bench-") as work:
        for kind in a.kinds:
            for target in TARGETS[kind]:
                for name, value in rows_of(kind, target, Path(work) / f"{kind}-{target}"):
                    lines.append(f"{name:<68}{before.get(name[:NAMES].strip(), value):>8} | {value:>8}")
    print("\n".join(lines))
    if a.write:
        COMMITTED.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
