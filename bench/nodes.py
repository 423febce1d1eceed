"""Seconds that a network of N nodes takes to import, to go through the passes into integers, and to plan.

    python bench/nodes.py [--write]

Dense layers of 8 with relus and residual adds, so that every third node is of one kind. Time should be linear in nodes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgec import frontends
from edgec.kernels import select
from edgec.passes.quantize.assign_precision import Assignment
from edgec.plan import make_plan
from edgec.stages import make_stages
from edgec.target import load_target

OUT = Path(__file__).with_suffix(".txt")
NODES = (100, 500, 2000)


class Residual(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = 0.5 * x + torch.relu(layer(x))
        return x


def timed(step: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return step(), time.perf_counter() - start


def main() -> int:
    isa = load_target("cortex-m4").isa
    lines = ["$ python bench/nodes.py", " nodes   import    passes      plan   ms per node"]
    for count in NODES:
        torch.manual_seed(0)
        module = Residual(count // 4).eval()
        graph, loading = timed(lambda m=module: frontends.load(m, torch.randn(1, 8), time_axis=None))
        data = {graph.inputs[0].name: np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)}
        stages, passing = timed(
            lambda g=graph, d=data: make_stages(g, "int8", d, None, None, Assignment(), lambda stage: None, None)
        )
        _, planning = timed(lambda s=stages: make_plan(s.step, lambda op, site: select(op, site, isa), None))
        each = 1000 * (loading + passing + planning) / len(graph.nodes)
        lines.append(f"{len(graph.nodes):6d} {loading:8.2f} {passing:9.2f} {planning:9.2f} {each:13.2f}")
        print(lines[-1])
    if "--write" in sys.argv:
        OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
