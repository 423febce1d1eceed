"""What dropping constant channels saves: a network of MLPerf Tiny's visual-wake-words form, before and after.

    python bench/constant_channels.py [target] [--write]

The published model (MobileNetV1, width 1/4, 96 x 96 x 3) has 971 output channels whose weights are all zero; 153 of
them have a constant other than zero and meet SAME padding in the next depthwise layer. This network has the same form
and as many such channels at random places of random weights: 409 pixelwise channels that are zero behind their ReLU,
their 409 depthwise filters, and 153 pixelwise channels whose constant is not zero and whose depthwise filter is not
either. Instructions are counted on the emulated core; the outputs of the builds are compared byte for byte.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from edgec.compiled import CompiledModel
from edgec.frontends.builder import GraphBuilder
from edgec.ir.graph import Graph
from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops import QAvgPool2d, QConv2d, QConv2dRequantize, QLinearRequantize, Reshape
from edgec.pipeline import compile_model

HERE = Path(__file__).resolve().parent
#: depthwise stride and pixelwise outputs of each block
BLOCKS = ((1, 16), (2, 32), (1, 32), (2, 64), (1, 64), (2, 128), *[(1, 128)] * 5, (2, 256), (1, 256))
QUIET, LOUD = 409, 153
ZERO, LEVELS = -128, 45  # of an activation: zero point, and a deviation of the sums


class Network:
    """The layers one after another; `quiet` and `loud` are masks over a pixelwise layer's outputs.

    `values` are the activations of some images: each layer's biases and scales are fitted to them, as a batch norm's
    are, so that what comes out depends on what goes in.
    """

    def __init__(self, images: np.ndarray, seed: int = 0) -> None:
        self.rng, self.build = np.random.default_rng(seed), GraphBuilder("vww_like")
        self.x = self.build.input("image", TensorType((1, 96, 96, 3), DType.I8, QuantParams((1 / 128,), 0)))
        self.values = torch.from_numpy(images.astype(np.int64))

    def layer(self, kernel: int, stride: int, outputs: int, groups: int, dead: np.ndarray, loud: np.ndarray) -> None:
        """A convolution with SAME padding and a ReLU."""
        x = self.build.type_of(self.x)
        w = self.rng.integers(-127, 128, (kernel, kernel, x.shape[3] // groups, outputs))
        w[..., dead] = 0
        extra = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[1:3]]
        pad = tuple(p for e in extra for p in (e // 2, e - e // 2))
        zero, nothing = x.quant.zero_point, torch.zeros(outputs, dtype=torch.int64)
        sums = QConv2d((stride, stride), pad, (1, 1), groups, zero).reference(self.values, torch.from_numpy(w), nothing)
        sums = sums.reshape(-1, outputs).numpy()
        deviation = np.where(sums.std(0) > 0, sums.std(0), np.median(sums.std(0)[~dead]))
        bias = self.rng.normal(0, 0.5, outputs) * deviation - sums.mean(0)
        bias[dead] = -abs(bias[dead])
        bias[loud] = (deviation * self.rng.uniform(0.3, 1.5, outputs))[loud]
        fraction, exponent = np.frexp(LEVELS / deviation)
        multiplier, shift = np.round(fraction * (1 << 31)).clip(max=(1 << 31) - 1), 31 - exponent
        values = (w.astype(np.int8), *(np.round(v).astype(np.int32) for v in (bias, multiplier, shift)))
        names = [self.build.const(f"layer_{n}", v) for n, v in zip("wbms", values, strict=True)]
        op = QConv2dRequantize((stride, stride), pad, (1, 1), groups, zero, "int8", 0.02, ZERO, ZERO, 127, "tflite")
        self.x = self.build.emit(op, self.x, *names)
        self.values = op.reference(self.values, *(torch.from_numpy(v.astype(np.int64)) for v in values))

    def head(self) -> Graph:
        """Mean over the image, two classes."""
        pooled = self.build.emit(QAvgPool2d((3, 3), (3, 3), (0,) * 4, ZERO, 0.02, ZERO, ZERO, 7282, 16), self.x)
        flat = self.build.emit(Reshape((1, 256)), pooled)
        w = self.rng.integers(-127, 128, (256, 2)).astype(np.int8)
        means = self.values.to(torch.float64).mean((0, 1, 2)).numpy()
        bias = np.round(-means @ w).astype(np.int32)
        values = (w, bias, np.full(2, 1 << 30, np.int32), np.full(2, 38, np.int32))
        names = [self.build.const(f"head_{n}", v) for n, v in zip("wbms", values, strict=True)]
        logits = self.build.emit(QLinearRequantize(scale=0.1), flat, *names)
        return self.build.build((logits,))


def images(seed: int = 0) -> np.ndarray:
    """Squares of random colours, of four sizes: int8 [4,96,96,3]."""
    rng = np.random.default_rng(seed)
    coarse = [rng.integers(-128, 128, (n, n, 3)) for n in (3, 6, 12, 24)]
    return np.stack([c.repeat(96 // len(c), 0).repeat(96 // len(c), 1) for c in coarse]).astype(np.int8)


def network(seed: int = 0) -> Graph:
    """The form above; planted channels lie in the pixelwise layers that a depthwise one follows."""
    net, none = Network(images(), seed), np.zeros(8, bool)
    outputs = [o for _, o in BLOCKS[:-1]]
    places = net.rng.permutation(sum(outputs))
    kinds = np.zeros(sum(outputs), int)
    kinds[places[:QUIET]], kinds[places[QUIET : QUIET + LOUD]] = 1, 2
    planted = np.split(kinds, np.cumsum(outputs)[:-1])
    net.layer(3, 2, 8, 1, none, none)
    before = none
    for (stride, channels), kind in zip(BLOCKS, [*planted, np.zeros(256, int)], strict=True):
        net.layer(3, stride, before.size, before.size, before, np.zeros(before.size, bool))
        net.layer(1, 1, channels, 1, kind > 0, kind == 2)
        before = kind == 1
    return net.head()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("target", nargs="?", default="cortex-m4")
    arguments.add_argument("--write", action="store_true", help="replace bench/constant_channels.txt")
    a = arguments.parse_args()
    graph, lines = network(), [f"$ python bench/constant_channels.py {a.target}"]
    x = images(1)[:, None]
    outputs, reports = [], []
    builds = {
        "all channels": {"drop_constant_channels": False},
        "dropped": {},
        "all, for size": {"drop_constant_channels": False, "goal": "size"},
        "dropped, for size": {"goal": "size"},
    }
    with tempfile.TemporaryDirectory(prefix="edgec-bench-") as work:
        for name, options in builds.items():
            model: CompiledModel = compile_model(graph, a.target, Path(work) / name, **options)
            t = model.report["totals"]
            lines.append(
                f"{name:<18}{t['macs']:>11,} MACs{t['instructions_worst']:>12,} instructions"
                f"{t['flash']:>9,} B flash{t['ram']:>8,} B RAM"
            )
            outputs.append([model.step(i).tobytes() for i in x])
            reports.append(model.report.get("dropped"))
    for name, d in zip(builds, reports, strict=True):
        if d:
            lines.append(
                f"{name}: {d['channels']} channels gone, {d['kept']} constant ones stay, {len(d['zones'])} layers with"
                f" biases by zones"
            )
    equal, different = all(o == outputs[0] for o in outputs), len(set(outputs[0]))
    lines.append(f"outputs equal: {equal} ({different} different ones of {len(x)} images)")
    print("\n".join(lines))
    if a.write:
        (HERE / "constant_channels.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
