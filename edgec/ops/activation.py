"""Activations that look at a whole row: softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from edgec.ir.graph import Graph, Node
from edgec.ir.types import DType, TensorType
from edgec.ops.base import Kernel, Op, Reads, Site, need
from edgec.ops.integer.build import Builder, Source
from edgec.ops.integer.numbers import Refusal, Scale
from edgec.ops.integer.softmax import LOGIT_LIMIT, MAX_CLASSES, ONE, PROBABILITY, exponent
from edgec.ops.shape import Permute, Reshape


@dataclass(frozen=True)
class Softmax(Op):
    """exp(x - max) / sum(exp(x - max)) over the last axis."""

    name: ClassVar[str] = "softmax"
    reads: ClassVar[Reads] = Reads.FINE
    fixed_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    axes: ClassVar[Any] = "...i->...c"
    examples: ClassVar[tuple[str, ...]] = ("float32[2,3,4]",)
    shares: ClassVar[bool] = True

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(x.dtype is DType.F32, f"expected float32, found {x.dtype.value}")
        need(x.time_axis != len(x.shape) - 1, "softmax mixes frames: its axis is the time axis")
        return (replace(x, quant=None),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return torch.softmax(tensors[0], -1)

    def lower(self, site: Site) -> Kernel:
        x = site.inputs[0]
        n = x.shape[-1]
        rows, f32 = x.size // n, "float32"
        body = f"""for r in T.serial({rows}):
    top = T.alloc_buffer((1,), "float32")
    total = T.alloc_buffer((1,), "float32")
    top[0] = x[r, 0]
    for i in T.serial({n}):
        top[0] = T.max(top[0], x[r, i])
    total[0] = T.float32(0)
    for i in T.serial({n}):
        y[r, i] = T.call_extern("float32", "edgec_expf", x[r, i] - top[0])
        total[0] = total[0] + y[r, i]
    for i in T.serial({n}):
        y[r, i] = y[r, i] / total[0]"""
        return Kernel(body, (("x", (rows, n), f32), ("y", (rows, n), f32)))

    def integer(self, b: Builder, node: Node) -> None:
        """Logits as they are stored, accumulators of one scale included; probabilities in int16."""
        classes = node.type.shape[-1]
        if classes > MAX_CLASSES:
            raise Refusal(f"its rows of {classes} elements are longer than {MAX_CLASSES}")
        x = logits(b, node.inputs[0])
        b.emit(exponent(float(x.scale[0])), (x.tensor,), node.outputs)
        held = b.hold(node.output, node.output, Scale(PROBABILITY))
        b.sources[node.output] = replace(held, lo=np.array([0]), hi=np.array([ONE]))


def logits(b: Builder, name: str) -> Source:
    """int32 accumulators where differences of two fit int32, else int8 or int16."""
    source = b.sources[name]
    wide = b.dtype(source) is DType.I32 and b.is_plain(source)
    if wide and max(abs(v) for v in b.range_of(source)) <= LOGIT_LIMIT:
        return source
    return b.operand(name)


def only_softmax(graph: Graph, name: str) -> bool:
    """Whether nothing but softmaxes read a tensor, as it is or with its axes moved."""
    readers = graph.consumers(name)
    moved = all(
        isinstance(n.op, Softmax) or (isinstance(n.op, (Permute, Reshape)) and only_softmax(graph, n.output))
        for n in readers
    )
    return bool(readers) and moved and name not in graph.outputs
