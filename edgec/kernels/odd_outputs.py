"""Outputs that would keep a whole layer from a fast kernel: those that are constant get harmless operands, those
beyond a kernel's range are computed after it, one by one, and the rest stays as it is.

A nearly dead output has a ratio of scales far below the others', one without weights a bias of any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from edgec.ir.types import DType
from edgec.kernels.rule import Rule
from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.integer.conv import QConv2d
from edgec.ops.integer.linear import QLinear
from edgec.ops.integer.requantize import Requantize, accumulator_bounds

Param = tuple[str, tuple[int, ...], str]

#: sums from here on are not those of the kernels of 24 bits; of 20 where weights are narrow
SUM_LIMITS = (1 << 23, 1 << 19)
#: shifts that every kernel takes: the narrower, the more outputs are set apart
SHIFTS = ((0, 63), (0, 54), (0, 46), (33, 54), (33, 46))
#: a constant output is (8 d * 2**30) / 2**33 = d levels above the zero point, exactly, in either rounding
EIGHTH = (1 << 30, 33)


def requantization(op: Op) -> Requantize | None:
    """What stores an op's sums; None where they stay int32."""
    return op if isinstance(op, Requantize) else getattr(op, "requantization", None)


def scales_at(op: Op) -> tuple[int, int]:
    """Which operands are multiplier and shift."""
    return (1, 2) if isinstance(op, Requantize) else (3, 4)


def is_layer(op: Op, site: Site) -> bool:
    """Whether an op is a layer whose weights, biases and scales are all known, on activations that are not packed."""
    known = set(range(1, 5 if requantization(op) else 3)) <= set(site.consts)
    return isinstance(op, (QConv2d, QLinear)) and known and site.inputs[0].dtype in (DType.I4, DType.I8)


def settled(op: Op, site: Site) -> Site:
    """The same layer with other operands for the outputs that are the same level for every input."""
    last = requantization(op)
    if last is None or not is_layer(op, site) or site.consts[3].size != site.consts[1].shape[-1]:
        return site
    w, bias, multiplier, shift = (site.consts[k] for k in (1, 2, 3, 4))
    low, high = accumulator_bounds(w, bias, (-128, 127))
    reach = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
    exact = reach * 2.0 ** np.maximum(31 - shift, 0) < 2.0**31  # the reference itself shifts left first
    level = last.levels(np.where(exact, low, 0), multiplier, shift)
    constant = exact & (level == last.levels(np.where(exact, high, 0), multiplier, shift))
    if not constant.any():
        return site
    found = {
        1: np.where(constant, 0, w),
        2: np.where(constant, 8 * (level - last.zero_point), bias),
        3: np.where(constant, EIGHTH[0], multiplier),
        4: np.where(constant, EIGHTH[1], shift),
    }
    return replace(site, consts={**site.consts, **{k: v.astype(site.consts[k].dtype) for k, v in found.items()}})


def carried(kernel: Kernel, before: Site, after: Site) -> Kernel:
    """A kernel made for other operands, which it brings along where it would read the layer's own."""
    names = [i for i in range(len(before.inputs)) if i not in kernel.drops]
    own = {
        kernel.params[at][0]: after.consts[k].reshape(kernel.params[at][1])
        for at, k in enumerate(names)
        if k in after.consts and after.consts[k] is not before.consts[k] and kernel.params[at][0] not in kernel.consts
    }
    return replace(kernel, consts={**kernel.consts, **own}) if own else kernel


def odd_sets(op: Op, site: Site) -> Iterator[Array]:
    """Ever more outputs that may be what a kernel does not take, at most half of them."""
    outputs, seen = site.outputs[0].shape[-1], {0}
    reach = np.zeros(outputs, np.int64)
    if is_layer(op, site):
        low, high = accumulator_bounds(site.consts[1], site.consts[2], (-128, 127))
        reach = np.maximum(np.maximum(np.abs(low), np.abs(high)), np.abs(site.consts[2].astype(np.int64)))
    shift = np.full(outputs, 40)
    if requantization(op) is not None and site.consts[scales_at(op)[1]].size == outputs:
        shift = site.consts[scales_at(op)[1]]
    for limit in SUM_LIMITS if site.inputs[1].dtype.is_narrow else SUM_LIMITS[:1]:
        for least, most in SHIFTS:
            odd = (reach >= limit) | (shift < least) | (shift > most)
            if int(odd.sum()) not in seen and odd.sum() <= max(outputs // 2, 1):
                seen.add(int(odd.sum()))
                yield np.flatnonzero(odd)


def apart(rule: Rule, op: Op, site: Site) -> Kernel | None:
    """The rule's kernel for all outputs but a few, and those after it; None where that does not help."""
    if getattr(op, "row_zone", ()) or not (is_layer(op, site) or is_lone(op, site)):
        return None
    for odd in odd_sets(op, site):
        rest = harmless(op, site, odd)
        kernel = rule(op, rest)
        if kernel is None or not set(scales_at(op) if requantization(op) else ()) <= set(kernel.drops):
            continue
        (x, x_shape, _), at = kernel.params[0], [p[0] for p in kernel.params].index("y")
        if x != "x" or x_shape != (site.inputs[0].size,) or kernel.params[at][1] != (site.outputs[0].size,):
            continue
        few = few_of(op, site, odd)
        params = (*kernel.params[:at], *few.params, *kernel.params[at:])
        made = replace(carried(kernel, site, rest), inplace=(), overlay=False)
        return replace(
            made, body="\n".join([made.body, *few.lines]), params=params, consts={**made.consts, **few.consts}
        )
    return None


def is_lone(op: Op, site: Site) -> bool:
    """Whether an op only requantises, by known scales of each channel."""
    return isinstance(op, Requantize) and {1, 2} <= set(site.consts) and site.consts[2].size > 1


def harmless(op: Op, site: Site, odd: Array) -> Site:
    """The same with these outputs the zero point, or sums of zero."""
    values = dict(zip(scales_at(op), EIGHTH, strict=True)) if requantization(op) else {}
    if is_layer(op, site):
        values |= {1: 0, 2: 0}
    consts = dict(site.consts)
    for k, value in values.items():
        if k > 2 and consts[k].size == 1:
            continue  # one scale for all outputs
        consts[k] = consts[k].copy()
        consts[k][..., odd] = value
    return replace(site, consts=consts)


@dataclass(frozen=True)
class Few:
    """Statements that compute some outputs, and the constants that they read."""

    lines: list[str]
    consts: dict[str, Array]

    @property
    def params(self) -> tuple[Param, ...]:
        return tuple((name, a.shape, a.dtype.name) for name, a in self.consts.items())


def few_of(op: Any, site: Site, odd: Array) -> Few:
    """The outputs `odd` of every row or pixel; x and y lie flat."""
    last, outputs = requantization(op), site.outputs[0].shape[-1]
    consts: dict[str, Array] = {"odd": odd.astype(np.int32)}
    if is_layer(op, site):
        consts |= {"odd_w": site.consts[1][..., odd].astype(np.int8), "odd_bias": site.consts[2][odd]}
    if last is not None:
        multiplier, shift = (np.broadcast_to(site.consts[k], (outputs,))[odd] for k in scales_at(op))
        consts |= {"multiplier": multiplier.astype(np.int32), "shift": shift.astype(np.int32)}
    loops, sums = (window_sum if isinstance(op, QConv2d) else row_sum)(op, site)
    y = f"y[row * {outputs} + odd[e]]"
    finish = [f"{y} = sum[0]"] if last is None else last.element_lines("sum[0]", "e", y)
    inner = ['sum = T.alloc_buffer((1,), "int32")', *sums, *finish]
    lines = [*loops, f"    for e in T.serial({odd.size}):", *(f"        {line}" for line in inner)]
    return Few(lines, {k: np.ascontiguousarray(v) for k, v in consts.items()})


def row_sum(op: Op, site: Site) -> tuple[list[str], list[str]]:
    """A loop over rows, and statements that leave the sum of output odd[e] in sum[0]."""
    inputs, rows = site.inputs[0].shape[-1], prod(site.outputs[0].shape[:-1])
    head = [f"for row in T.serial({rows}):"]
    if isinstance(op, Requantize):
        return head, [f'sum[0] = T.cast(x[row * {inputs} + odd[e]], "int32")']
    product = f'T.cast(x[row * {inputs} + i], "int32") * T.cast(odd_w[i, e], "int32")'
    return head, ["sum[0] = odd_bias[e]", f"for i in T.serial({inputs}):", f"    sum[0] = sum[0] + {product}"]


def window_sum(op: QConv2d, site: Site) -> tuple[list[str], list[str]]:
    """The same of pixels."""
    (_, h, v, c), (kh, kw, cg, o) = site.inputs[0].shape, site.inputs[1].shape
    b, oh, ow, _ = site.outputs[0].shape
    down = f"row // {ow} % {oh} * {op.stride[0]} + p * {op.dilation[0]} - {op.pad[0]}"
    along = f"row % {ow} * {op.stride[1]} + q * {op.dilation[1]} - {op.pad[2]}"
    channel = f"odd[e] // {o // op.groups} * {cg} + c"
    load = f'T.cast(x[((row // {oh * ow} * {h} + {down}) * {v} + {along}) * {c} + {channel}], "int32")'
    if any(op.pad):
        inside = f"{down} >= 0 and {down} < {h} and {along} >= 0 and {along} < {v}"
        load = f"T.if_then_else({inside}, {load}, {op.pad_value})"
    total = f'sum[0] = sum[0] + {load} * T.cast(odd_w[p, q, c, e], "int32")'
    body = ["sum[0] = odd_bias[e]", f"for p, q, c in T.grid({kh}, {kw}, {cg}):", f"    {total}"]
    return [f"for row in T.serial({b * oh * ow}):"], body
