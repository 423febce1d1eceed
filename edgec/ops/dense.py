"""Matrix products: linear layers with constant weights [I,O] and products of two activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from edgec.ir.graph import Graph, Node
from edgec.ir.types import DType, TensorType
from edgec.ops.base import Cost, Kernel, Op, Reads, Site, need, same_time
from edgec.ops.elementwise import activate, activation_lines, check_activation
from edgec.ops.integer.build import Builder, Source
from edgec.ops.integer.layer import layer, read
from edgec.ops.integer.linear import QLinear
from edgec.ops.integer.numbers import INT32_MAX, Refusal, symmetric
from edgec.ops.integer.product import QMatMul
from edgec.ops.layer import FloatLayer
from edgec.ops.lowering.sums import ROWS, Sum


@dataclass(frozen=True)
class Linear(FloatLayer):
    """y[..., o] = sum_i x[..., i] w[i, o] + bias[o]."""

    name: ClassVar[str] = "linear"
    reads: ClassVar[Reads] = Reads.FRAMES
    axes: ClassVar[Any] = "...i,io,o->...o"
    examples: ClassVar[tuple[str, ...]] = ("float32[2,5,3] t1, float32[3,4], float32[4]",)
    activation: str = ""

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, w, bias = types
        check_activation(self.activation)
        need(len(w.shape) == 2 and x.shape[-1] == w.shape[0], f"x [..., {x.shape[-1]}] does not fit w {w.shape}")
        need(bias.shape == (w.shape[1],), f"expected bias of shape ({w.shape[1]},), found {bias.shape}")
        need(x.time_axis != len(x.shape) - 1, "the layer mixes frames: its input's time axis is the feature axis")
        return (TensorType((*x.shape[:-1], w.shape[1]), DType.F32, None, x.time_axis),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, w, bias = tensors
        return activate(x @ w + bias, self.activation)

    def lower(self, site: Site) -> Kernel:
        x, w, _ = site.inputs
        i, o = w.shape
        rows = x.size // i
        products = Sum(
            "float32", "bias[{o}]", "{acc} + xi * w[i, {o}]", "y[r, {o}] = {acc}", [("i", str(i))],
            ["xi: T.let[T.float32] = x[r, i]"], after=activation_lines(self.activation, "y[r, {o}]"),
        )  # fmt: skip
        lines = products.blocks(o, inner=[("r", rows)])
        shapes = {"x": (rows, i), "w": (i, o), "bias": (o,), "y": (rows, o)}
        return Kernel("\n".join(lines), tuple((name, shape, "float32") for name, shape in shapes.items()))

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(outputs[0].size * inputs[1].shape[0])

    def integer(self, b: Builder, node: Node) -> None:
        layer(b, node, read(b, node), QLinear())


@dataclass(frozen=True)
class MatMul(Op):
    """y[..., m, n] = sum_k a[..., m, k] b[..., k, n]; with transpose_b: b[..., n, k]."""

    name: ClassVar[str] = "matmul"
    reads: ClassVar[Reads] = Reads.FACTOR
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,3,4], float32[2,4,5]",
        "float32[2,3,4], float32[2,5,4] {transpose_b=True}",
    )
    transpose_b: bool = False

    def transposed(self, operand: int, perm: Sequence[int]) -> Op | None:
        last = len(perm) - 1
        exchanged = operand == 1 and tuple(perm) == (*range(last - 1), last, last - 1)
        return replace(self, transpose_b=not self.transpose_b) if exchanged else None

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        a, b = types
        k, n = (b.shape[-1], b.shape[-2]) if self.transpose_b else (b.shape[-2], b.shape[-1])
        need(a.shape[:-2] == b.shape[:-2] and a.shape[-1] == k, f"shapes {a.shape} and {b.shape} do not multiply")
        return (TensorType((*a.shape[:-1], n), DType.F32, None, same_time(types)),)

    def axes(self, types: Sequence[TensorType]) -> str:
        return f"...mk,...{'nk' if self.transpose_b else 'kn'}->...mn"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        a, b = tensors
        return a @ (b.transpose(-1, -2) if self.transpose_b else b)

    def lower(self, site: Site) -> Kernel:
        a = site.inputs[0]
        m, k, n = a.shape[-2], a.shape[-1], site.outputs[0].shape[-1]
        rows = a.size // (m * k)
        b_shape, b_at = ((rows, n, k), "b[r, {o}, k]") if self.transpose_b else ((rows, k, n), "b[r, k, {o}]")
        products = Sum(
            "float32", "T.float32(0)", f"{{acc}} + left * {b_at}", "y[r, m, {o}] = {acc}", [("k", str(k))],
            ["left: T.let[T.float32] = a[r, m, k]"],
        )  # fmt: skip
        most = ROWS if self.transpose_b else 0
        lines = products.blocks(n, most, [("r", rows)], [("m", m)])
        shapes = {"a": (rows, m, k), "b": b_shape, "y": (rows, m, n)}
        return Kernel("\n".join(lines), tuple((name, shape, "float32") for name, shape in shapes.items()))

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(outputs[0].size * inputs[0].shape[-1])

    def integer(self, b: Builder, node: Node) -> None:
        """int8 by int8, or attention weights in int16 by int8: accumulators of one scale stand for the output."""
        left, right = node.inputs
        x = b.operand(left) if shares(b.graph, left) else factor(b, left)
        y = factor(b, right)
        terms = b.graph.type_of(left).shape[-1]
        # one operand's zero point is taken off its elements, the other's off the sum: both partial sums are bounded so
        most = row_sum(b, left, x, terms) * 2 * max(abs(v) for v in (*b.range_of(y), y.zero))
        if most > INT32_MAX:
            raise Refusal(f"its accumulator can reach {most}, above int32's {INT32_MAX}", "fewer terms to a sum")
        scale = x.scale * y.scale
        b.emit(QMatMul(self.transpose_b, x.zero, y.zero, float(scale[0])), (x.tensor, y.tensor), node.outputs)
        b.sources[node.output] = Source(node.output, node.output, scale, np.array([-most]), np.array([most]))


def shares(graph: Graph, name: str) -> bool:
    """Whether the rows of a tensor sum to 1."""
    producer = graph.producer(name)
    return producer is not None and producer.op.shares


def row_sum(b: Builder, name: str, x: Source, terms: int) -> int:
    """Bound of the sum of magnitudes of a row; each of its shares is at most one unit above its share."""
    if shares(b.graph, name) and b.dtype(x) is DType.I16:
        return 2**15 + 2 * terms
    lo, hi = b.range_of(x)
    return terms * max(abs(lo - x.zero), abs(hi - x.zero))


def factor(b: Builder, name: str) -> Source:
    """An operand in int8: as it is stored, at whatever scale, else at its own."""
    values = b.data(name)
    if values is not None:
        return b.given(name) or b.constant(name, DType.I8, symmetric(float(np.abs(values).max(initial=0.0)), 127))
    source = b.sources[name]
    if b.is_plain(source) and b.dtype(source) is DType.I8:
        return source
    return b.store(name, DType.I8, b.plan.int8[name])
