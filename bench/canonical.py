"""Nodes and permutes of networks as they are imported, in canonical form, and after all float passes.

    python bench/canonical.py [FILE ...]

The shipped models, a network of 23 branches that each transpose the same tensor, MobileNetV3 and others as torchvision
and timm build them where these are installed, and .tflite and .onnx files.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgec import frontends
from edgec.frontends.shipped import file_of
from edgec.ir.graph import Graph
from edgec.options import Form
from edgec.passes.canonicalize import Canonicalize
from edgec.stages import float_passes, form_of, transform

OUT = Path(__file__).with_suffix(".txt")
SHIPPED = ("lmuformer", "lmuformer_ann", "eca_mobilenetv2", "ttm", "vit")


class Branches(nn.Module):
    """Dense layers that each turn the same window round."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 5) for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([layer(x.transpose(1, 2)) for layer in self.layers], 2)


def modules() -> Iterator[tuple[str, nn.Module, torch.Tensor]]:
    yield "23 branches", Branches(23), torch.randn(1, 16, 6)
    image = torch.randn(1, 3, 64, 64)
    if find_spec("torchvision"):
        import torchvision

        yield "torchvision mobilenet_v3_small", torchvision.models.mobilenet_v3_small(), image
        yield "torchvision shufflenet_v2_x0_5", torchvision.models.shufflenet_v2_x0_5(), image
    if find_spec("timm"):
        import timm

        for name in ("mobilenetv3_small_050", "ecaresnet26t"):
            yield f"timm {name}", timm.create_model(name, num_classes=10), image


def graphs(files: list[str]) -> Iterator[tuple[str, Graph]]:
    for name in SHIPPED:
        axis: Any = None if form_of(Form(), name).sliding else "guess"
        yield name, frontends.load(file_of(name), time_axis=axis)
    for file in files:
        yield Path(file).name, frontends.load(file)
    torch.manual_seed(0)
    for name, module, x in modules():
        yield name, frontends.load(module.eval().requires_grad_(False), (x,), name="net")


def count(graph: Graph) -> str:
    """Nodes, and those of them that are permutes."""
    return f"{len(graph.nodes)} ({sum(n.op.name == 'permute' for n in graph.nodes)})"


def main() -> None:
    rows = [f"{'nodes (permutes)':32}{'imported':>12}{'canonical':>12}{'float passes':>14}"]
    for name, graph in graphs(sys.argv[1:]):
        started = time.perf_counter()
        after = Canonicalize().run(graph)
        took = time.perf_counter() - started
        is_float = any(t.dtype.is_float for n in graph.nodes for t in n.types)
        last = count(transform(after, float_passes(), lambda stage: None)[-1]) if is_float else ""
        rows.append(f"{name:32}{count(graph):>12}{count(after):>12}{last:>14}")
        print(rows[-1], f"{took:.3f} s", flush=True)
    OUT.write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
