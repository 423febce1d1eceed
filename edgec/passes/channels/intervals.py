"""Interval arithmetic: the smallest and largest value every element of a tensor can have, whatever the input is.

Along a time axis a tensor is one frame here: its interval holds for every frame of a stream of any length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch

from edgec.ir.evaluate import as_tensor
from edgec.ir.graph import Graph, Node
from edgec.ir.types import TensorType
from edgec.ops.conv import Conv1d, Conv2d
from edgec.ops.dense import Linear
from edgec.ops.elementwise import Relu, Relu6, activate
from edgec.ops.integer.conv import QConv2d, QConv2dRequantize
from edgec.ops.integer.elementwise import QAffine
from edgec.ops.integer.linear import QLinear, QLinearRequantize
from edgec.ops.integer.pool import QAvgPool2d, QMaxPool2d, QMean
from edgec.ops.integer.product import QMul
from edgec.ops.integer.requantize import QAdd, QConv1d, QLut, Requantize
from edgec.ops.integer.tflite import TfliteAdd, TfliteAvgPool2d, TfliteMean, TfliteMul
from edgec.ops.pool import MaxPool2d
from edgec.ops.shape import Concat, Pad, Permute, Reshape


@dataclass(frozen=True)
class Interval:
    """lo <= value <= hi element by element, int64, or float32 with infinities; the time axis has extent 1."""

    lo: torch.Tensor
    hi: torch.Tensor

    @property
    def known(self) -> torch.Tensor:
        """Where the value does not depend on the input."""
        return self.lo == self.hi


def one_frame(t: TensorType) -> tuple[int, ...]:
    """The shape with one frame."""
    return tuple(1 if k == t.time_axis else n for k, n in enumerate(t.shape))


def anything(t: TensorType) -> Interval:
    """All a tensor of this type can hold."""
    lo, hi = (-torch.inf, torch.inf) if t.dtype.is_float else t.dtype.range
    kind = torch.float32 if t.dtype.is_float else torch.int64
    return Interval(*(torch.full(one_frame(t), v, dtype=kind) for v in (lo, hi)))


Rule = Callable[[Node, TensorType, Sequence[Interval]], Interval]


def monotone(node: Node, x: TensorType, inputs: Sequence[Interval]) -> Interval:
    """Ops whose result does not fall where an operand rises."""
    return Interval(*(node.op.reference(*(getattr(i, end) for i in inputs)) for end in ("lo", "hi")))


def corners(node: Node, x: TensorType, inputs: Sequence[Interval]) -> Interval:
    """Ops of two operands that are monotone in each, in a direction the other may decide."""
    a, b = inputs
    results = [node.op.reference(p, q) for p in (a.lo, a.hi) for q in (b.lo, b.hi)]
    return Interval(reduce(torch.minimum, results), reduce(torch.maximum, results))


def layer(node: Node, x: TensorType, inputs: Sequence[Interval]) -> Interval:
    """Sums of products with constant weights; the positive and the negative ones each take their end of x."""
    op, (values, w, bias) = node.op, inputs[:3]
    base = next(c for c in (QConv2d, QConv1d, QLinear) if isinstance(op, c))
    up, down, lo, hi = w.lo.clamp(min=0), w.lo.clamp(max=0), values.lo, values.hi
    if isinstance(op, QConv1d) and x.time_axis == 1:  # any frames, and padding, under every tap
        if op.pad != (0, 0):
            lo, hi = lo.clamp(max=op.pad_value), hi.clamp(min=op.pad_value)
        op, up, down = QConv1d(groups=op.groups), up.sum(0, keepdim=True), down.sum(0, keepdim=True)

    def total(rising: torch.Tensor, falling: torch.Tensor) -> torch.Tensor:
        return base.reference(op, rising, up, bias.lo) + base.reference(op, falling, down, torch.zeros_like(bias.lo))

    sums = Interval(total(lo, hi), total(hi, lo))
    last = getattr(op, "requantization", None)
    return (
        sums if last is None else Interval(*(last.reference(s, inputs[3].lo, inputs[4].lo) for s in (sums.lo, sums.hi)))
    )


def float_layer(node: Node, x: TensorType, inputs: Sequence[Interval]) -> Interval:
    """A float output is known only where its weights are all zero: it is its bias."""
    _, w, bias = inputs
    zero = (w.lo == 0).flatten(0, -2).all(0)
    level = activate(bias.lo, node.op.activation)
    shape = one_frame(node.type)
    ends = (torch.where(zero, level, torch.full_like(level, v)) for v in (-torch.inf, torch.inf))
    return Interval(*(e.expand(shape) for e in ends))


def affine(node: Node, x: TensorType, inputs: Sequence[Interval]) -> Interval:
    """Per channel, rising or falling."""
    ends = [node.op.reference(v, inputs[1].lo, inputs[2].lo) for v in (inputs[0].lo, inputs[0].hi)]
    return Interval(torch.minimum(*ends), torch.maximum(*ends))


def subtraction(node: Node, x: TensorType, inputs: Sequence[Interval]) -> Interval:
    """TFLite's add, which may subtract."""
    a, b = inputs
    return monotone(node, x, (a, b if node.op.sign > 0 else Interval(b.hi, b.lo)))


def lookup(node: Node, x: TensorType, inputs: Sequence[Interval]) -> Interval:
    """The extremes of a table between two entries."""
    values, table = inputs[0], inputs[1].lo
    before = torch.ones(256, 256, dtype=torch.bool).tril(-1)  # [first, last]: only last >= first counts
    least = torch.cummin(table.expand(256, 256).masked_fill(before, 128), 1).values
    most = torch.cummax(table.expand(256, 256).masked_fill(before, -129), 1).values
    lo, hi = values.lo + 128, values.hi + 128
    return Interval(least[lo, hi], most[lo, hi])


def reshape(node: Node, x: TensorType, inputs: Sequence[Interval]) -> Interval:
    """The elements in their order; time stays an axis of its own."""
    return Interval(*(v.reshape(one_frame(node.type)) for v in (inputs[0].lo, inputs[0].hi)))


def over_positions(node: Node, x: TensorType, inputs: Sequence[Interval]) -> Interval:
    """Pooling and means that do not reduce frames."""
    axis = node.op.axis if isinstance(node.op, (QMean, TfliteMean)) else 1
    return anything(node.type) if x.time_axis == axis else monotone(node, x, inputs)


#: ops that are not here can give anything their type can hold
RULES: dict[type[Any], Rule] = {
    QConv2d: layer,
    QConv2dRequantize: layer,
    QConv1d: layer,
    QLinear: layer,
    QLinearRequantize: layer,
    Conv1d: float_layer,
    Conv2d: float_layer,
    Linear: float_layer,
    Requantize: monotone,
    QAffine: affine,
    QAdd: corners,
    QMul: corners,
    TfliteMul: corners,
    TfliteAdd: subtraction,
    QLut: lookup,
    QMaxPool2d: over_positions,
    QAvgPool2d: over_positions,
    TfliteAvgPool2d: over_positions,
    TfliteMean: over_positions,
    QMean: over_positions,
    MaxPool2d: over_positions,
    Relu: monotone,
    Relu6: monotone,
    Concat: monotone,
    Pad: monotone,
    Permute: monotone,
    Reshape: reshape,
}
#: operands beside the first that must be constants for a rule to hold
CONSTANT = {rule: slice(1, None) for rule in (layer, float_layer, affine, lookup)}


def intervals(graph: Graph) -> dict[str, Interval]:
    """The interval of every tensor of a whole-sequence graph, by name; inputs can be anything."""
    found = {v.name: anything(v.type) for v in graph.inputs}
    for name, const in graph.consts.items():
        value = as_tensor(const.data, const.type)
        found[name] = Interval(value, value)
    with torch.no_grad():
        for node in graph.nodes:
            rule = rule_for(graph, node)
            if rule is None:
                found.update({o: anything(t) for o, t in zip(node.outputs, node.types, strict=True)})
            else:
                found[node.output] = rule(node, graph.type_of(node.inputs[0]), [found[i] for i in node.inputs])
    return found


def rule_for(graph: Graph, node: Node) -> Rule | None:
    """The rule of a node whose operands it covers."""
    rule, consts = RULES.get(type(node.op)), graph.consts
    if rule is None or len(node.outputs) != 1:
        return None
    fixed = node.inputs[CONSTANT[rule]] if rule in CONSTANT else ()
    shapes = [consts[i].type.shape for i in node.inputs if i in consts and i not in fixed]
    axis, rank = node.type.time_axis, len(node.type.shape)
    by_frame = axis is not None and any(len(s) == rank and s[axis] > 1 for s in shapes)
    by_frame |= isinstance(node.op, QAffine) and node.op.axis % rank == axis
    return rule if set(fixed) <= set(consts) and not by_frame else None
