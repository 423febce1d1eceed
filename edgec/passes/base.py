"""What every pass is: a frozen dataclass whose fields are its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgec.ir.graph import Graph


@dataclass(frozen=True)
class Pass:
    """A pure function from graph to graph. `tolerance` is how far outputs may move; 0: exact up to float rounding."""

    name: ClassVar[str]
    tolerance: ClassVar[float] = 0.0

    def run(self, graph: Graph) -> Graph:
        raise NotImplementedError
