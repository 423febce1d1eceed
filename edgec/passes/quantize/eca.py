"""Quantisation rule of efficient channel attention."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgec.ir.graph import Node
from edgec.ir.types import DType
from edgec.ops.eca import LOGIT_BITS, QEca, sigmoid_table
from edgec.passes.quantize.build import Builder
from edgec.passes.quantize.numbers import INT32_MAX, Array, Refusal

#: the filter is scaled to fewer bits than its sums would bear: 24 are far beyond what an int8 image resolves
FILTER_LIMIT = 2**23
TABLE = "eca_sigmoid"


def eca(b: Builder, node: Node) -> None:
    """int16 or int8 in; out int16 at the scale of a residual group, or what the readers want."""
    w = b.data(node.inputs[1])
    if w is None:
        raise Refusal("its filter is computed, not constant")
    x = b.operand(node.inputs[0])  # int16 where it is an accumulator: it feeds a product of 16 bits either way
    _, h, v, _ = node.type.shape
    reach = max(abs(end - x.zero) for end in b.dtype(x).range)
    if h * v * reach > INT32_MAX:
        raise Refusal(f"the sum over {h} x {v} pixels leaves the int32 range")
    taps, logit_shift = filter_of(w.astype(np.float64) * float(x.scale[0]) / (h * v), h * v * reach)
    dtype, target = b.plan.stored(node.output)
    op = QEca(dtype.value, target.scale, target.zero, x.zero, logit_shift)
    op = fitted(op, b.dtype(x), float(x.scale[0]) / target.scale)
    table = TABLE if TABLE in b.consts else b.const(TABLE, sigmoid_table())
    b.emit(op, (x.tensor, b.const(node.inputs[1], taps), table), node.outputs)
    b.hold(node.output, node.output, target)


def filter_of(gains: Array, reach: int) -> tuple[Array, int]:
    """The filter in integers, and the shift from its sums to logits; int64 holds sums over totals up to `reach`."""
    largest = float(np.abs(gains).max())
    if largest == 0.0:
        return np.zeros(gains.shape, np.int32), 1
    places = min(int(np.floor(np.log2(FILTER_LIMIT / largest))), 62 + LOGIT_BITS)
    taps = np.floor(gains * 2.0**places + 0.5).astype(np.int64)
    shift = places - LOGIT_BITS
    if shift < 1 or int(np.abs(taps).sum()) * reach + (1 << shift) >= 2**63:
        raise Refusal(f"its filter's gain {largest:g} on one pixel is out of range")
    return taps.astype(np.int32), shift


def fitted(op: QEca, x: DType, ratio: float) -> QEca:
    """The op with the finest multiplier and shift for a ratio of scales that int32 bears."""
    for shift in range(30, 0, -1):
        multiplier = int(np.floor(ratio * 2.0**shift + 0.5))
        found = replace(op, multiplier=multiplier, shift=shift)
        if multiplier <= found.pixel_limit(x):
            return found
    raise Refusal(f"its scale ratio {ratio:g} is out of range")
