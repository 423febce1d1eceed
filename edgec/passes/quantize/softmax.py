"""Quantisation rule of softmax."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgec.ir.graph import Node
from edgec.ir.types import DType
from edgec.ops.integer.softmax import MAX_CLASSES, ONE, PROBABILITY, exponent
from edgec.passes.quantize.build import Builder, Source
from edgec.passes.quantize.numbers import Refusal, Scale

ACCUMULATOR_LIMIT = 2**30 - 1  # the difference of two then fits int32


def softmax(b: Builder, node: Node) -> None:
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
    if wide and max(abs(v) for v in b.range_of(source)) <= ACCUMULATOR_LIMIT:
        return source
    return b.operand(name)
