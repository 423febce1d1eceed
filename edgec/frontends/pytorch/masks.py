"""Converters of masks: what attention adds to its scores so that a softmax gives some of them no weight.

A constant -inf stands in the graph as `MASKED`, which is finite. That is exact where only a softmax reads the sum, and
`mask_problems` refuses it anywhere else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgec.frontends.pytorch.call import MASKED, Call, Constant, Converters, to_array
from edgec.ir.graph import Graph
from edgec.ops.activation import only_softmax
from edgec.ops.arithmetic import Add, Mul


def masked_fill(call: Call) -> str:
    """x where the mask is false, else the value."""
    value = call["value"]
    if not call.is_constant("mask"):
        return call.map("where(mask, value, self)")
    number = float(value.value) if isinstance(value, Constant) else value
    if not isinstance(number, bool | int | float):
        raise ValueError("masked_fill with a computed value")
    return filled_where(call, call.tensor("self"), call.constant("mask"), np.float32(number))


def where(call: Call) -> str:
    """One of two operands by a condition; by a constant one, where an operand is constant too, a sum."""
    if not call.is_constant("condition") or all(isinstance(call[k], str) for k in ("self", "other")):
        return call.map("where(condition, self, other)")
    chosen = call.constant("condition")
    for key, other, mask in (("self", "other", ~chosen), ("other", "self", chosen)):
        value = call[other]
        if isinstance(value, bool | int | float):
            return filled_where(call, call.tensor(key), mask, np.float32(value))
        if isinstance(value, Constant):
            return filled_where(call, call.tensor(key), mask, to_array(value.value))
    raise ValueError("where with two computed operands")


def filled_where(call: Call, x: str, mask: npt.NDArray[Any], value: Any) -> str:
    """x with `value` where `mask` is true: added where it swallows any x, else to x multiplied by 0 there."""
    if np.broadcast_shapes(call.type_of(x).shape, mask.shape, np.shape(value)) != call.type_of(x).shape:
        raise ValueError(f"a mask of shape {mask.shape} makes {call.type_of(x).shape} larger")
    values = np.where(mask, value, np.float32(0)).astype(np.float32)
    if not (np.broadcast_to(value, values.shape)[mask] <= MASKED).all():
        kept = np.broadcast_to(~mask, values.shape).astype(np.float32)
        x = call.emit(Mul(), x, call.const(f"{call.name}_kept", kept))
    return call.emit(Add(), x, call.mask(f"{call.name}_mask", values))


def attention_mask(call: Call, scores: str) -> str:
    """scaled_dot_product_attention's scores [..., L, S] under its mask: causal, boolean (true takes part) or added."""
    given = call["attn_mask"]
    if call["is_causal"]:
        given = Constant(f"{call.name}_causal", torch.ones(call.type_of(scores).shape[-2:], dtype=torch.bool).tril())
    if given is None:
        return scores
    if isinstance(given, str):
        return call.emit(Add(), scores, given)
    mask = to_array(given.value)
    if mask.dtype == np.bool_:
        mask = np.where(mask, 0, -np.inf)
    return call.emit(Add(), scores, call.mask(given.name, mask.astype(np.float32)))


def mask_problems(graph: Graph, masks: frozenset[str]) -> list[str]:
    """Uses of -inf that a finite number does not stand for: anything but a sum that only a softmax reads."""
    problems = []
    for name in sorted(masks):
        readers = graph.consumers(name)
        if not all(isinstance(n.op, Add) and only_softmax(graph, n.output) for n in readers) or name in graph.outputs:
            problems.append(f"constant {name} holds -inf, and not only a softmax reads what it is added to")
        elif (graph.consts[name].data <= MASKED).all(-1).any() and graph.consts[name].data.shape[-1] > 1:
            problems.append(f"constant {name} masks whole rows, for which a softmax gives no numbers")
    return problems


CONVERTERS: Converters = {
    "aten::masked_fill": masked_fill,
    "aten::where": where,
}
