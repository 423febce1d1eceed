"""What an odd output costs the layer it is in: instructions per MAC of a convolution 3 x 3 of 32 channels, counted on
emulated cores.

    python bench/odd_channels.py [target ...] [--write]

One output of 32 has no weights and a bias of 2**30 (`empty`), a ratio of scales 2**10 below the others' and a level
that moves (`dead`), sums beyond 24 bits (`biased`), or a ratio 2**8 above the others' (`steep`); `four`: one of each.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from edgec.frontends.builder import GraphBuilder
from edgec.ir.graph import Graph
from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops import QConv2dRequantize
from edgec.pipeline import compile_model

HERE = Path(__file__).resolve().parent
TARGETS = ("cortex-m4", "cortex-m7", "cortex-m33", "cortex-m0plus")
KINDS = ("ordinary", "empty", "dead", "biased", "steep", "four")
ROUNDINGS = ("single", "tflite")
CHANNELS, SIZE = 32, 8


def plant(kind: str, at: int, w: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> None:
    """Output `at` becomes of this kind."""
    if kind == "empty":
        w[..., at], bias[at], shift[at] = 0, 1 << 30, 31
    elif kind == "dead":
        shift[at] = 51
        bias[at] = round(1.5 * 2.0**51 / float(multiplier[at]))
    elif kind == "biased":
        bias[at], shift[at] = (1 << 23) + 12345, 48
    elif kind == "steep":
        shift[at] = 31
    elif kind == "four":
        for k, each in enumerate(("empty", "dead", "biased", "steep")):
            plant(each, at + k, w, bias, multiplier, shift)


def network() -> Graph:
    """One layer for each kind and rounding, all on the same image."""
    rng, build = np.random.default_rng(0), GraphBuilder("odd_channels")
    x = build.input("image", TensorType((1, SIZE, SIZE, CHANNELS), DType.I8, QuantParams((1 / 128,), 0)))
    outputs = []
    for rounding in ROUNDINGS:
        for kind in KINDS:
            w = rng.integers(-100, 101, (3, 3, CHANNELS, CHANNELS))
            bias = rng.integers(-9999, 10000, CHANNELS)
            multiplier, shift = rng.integers(1 << 30, 1 << 31, CHANNELS), np.full(CHANNELS, 41)
            plant(kind, 7, w, bias, multiplier, shift)
            values = (w.astype(np.int8), *(v.astype(np.int32) for v in (bias, multiplier, shift)))
            names = [build.const(f"{kind}_{n}", v) for n, v in zip("wbms", values, strict=True)]
            op = QConv2dRequantize(scale=0.02, zero_point=-128, rounding=rounding)
            outputs.append(build.emit(op, x, *names))
    return build.build(tuple(outputs))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("targets", nargs="*", default=TARGETS)
    arguments.add_argument("--write", action="store_true", help="replace bench/odd_channels.txt")
    a = arguments.parse_args()
    lines = ["$ python bench/odd_channels.py", f"{'':<24}" + "".join(f"{k:>10}" for k in KINDS)]
    with tempfile.TemporaryDirectory(prefix="edgec-bench-") as work:
        for target in a.targets:
            model = compile_model(network(), target, Path(work) / target, drop_constant_channels=False)
            rates = [row["instructions"] / row["macs"] for row in model.report["layers"]]
            for k, rounding in enumerate(ROUNDINGS):
                shown = rates[k * len(KINDS) : (k + 1) * len(KINDS)]
                lines.append(f"{target:<16}{rounding:<8}" + "".join(f"{r:>10.2f}" for r in shown))
    print("\n".join(lines))
    if a.write:
        (HERE / "odd_channels.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
