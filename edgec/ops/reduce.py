"""Reductions over any axes: one number of many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch

from edgec.ir.graph import Node
from edgec.ir.types import DType, TensorType
from edgec.ops.base import Kernel, Op, Site, need
from edgec.ops.integer.build import Builder
from edgec.ops.integer.numbers import Refusal, Scale
from edgec.ops.language.operations import extern, wrapped, wrapping
from edgec.ops.pool import int8
from edgec.ops.relations.axes import LETTERS

Axes = tuple[int, ...]
FLOAT = (DType.F32,)
INTEGERS = (DType.U8, DType.I8, DType.I16, DType.I32)
NUMERIC = (*FLOAT, *INTEGERS)
ORDERED = (*NUMERIC, DType.BOOL)


@dataclass(frozen=True)
class Kind:
    """A reduction. Texts are TVMScript in {t}, the total so far, {x}, an element, {n}, how many there are, {k}, which
    it is, and {p}, the largest or smallest of all (`peak`), which a loop of its own finds first. `int_step` is for
    integers, which are totalled as int32, or `as_is`. `gives`: the type of the result where it is not the total's."""

    torch: Callable[[torch.Tensor, Axes], torch.Tensor]
    start: str
    step: str
    int_step: str = ""
    finish: str = "{t}"
    peak: str = ""
    takes: tuple[DType, ...] = NUMERIC
    gives: DType | None = None
    as_is: bool = False


def _exp(text: str) -> str:
    return extern("expf").format(text)


def _root(text: str) -> str:
    return extern("sqrtf").format(text)


def _log(text: str) -> str:
    return extern("logf").format(text)


def product(x: torch.Tensor, axes: Axes) -> torch.Tensor:
    """The product over several axes."""
    for axis in axes:
        x = x.prod(axis, keepdim=True)
    return x


def arg(largest: bool, last: bool) -> Callable[[torch.Tensor, Axes], torch.Tensor]:
    """The index of the largest or smallest along an axis, the first or last of equals."""

    def found(x: torch.Tensor, axes: Axes) -> torch.Tensor:
        (axis,) = axes
        peak = x.amax(axis, keepdim=True) if largest else x.amin(axis, keepdim=True)
        hit = (x == peak).int()
        index = hit.flip(axis).argmax(axis, keepdim=True) if last else hit.argmax(axis, keepdim=True)
        return x.shape[axis] - 1 - index if last else index

    return found


def _arg(largest: bool, last: bool = False) -> Kind:
    pick = "T.max({t}, {k})" if last else "T.min({t}, {k})"
    return Kind(
        arg(largest, last), "0" if last else "{n} - 1", f"T.if_then_else({{x}} == {{p}}, {pick}, {{t}})",
        peak="max" if largest else "min", gives=DType.I32,
    )  # fmt: skip


_SUM = "({t} + {x})", wrapping("+").format("{t}", "{x}")
_SQUARES = "({t} + {x} * {x})", wrapping("+").format("{t}", wrapping("*").format("{x}", "{x}"))
_SIZES = "({t} + T.max({x}, 0 - {x}))", wrapping("+").format("{t}", f"T.max({{x}}, {wrapping('-').format('0', '{x}')})")
_EXPONENTIALS = f"({{t}} + {_exp('{x} - {p}')})"

KINDS: Mapping[str, Kind] = {
    "sum": Kind(lambda x, a: x.sum(a, keepdim=True), "0", *_SUM),
    "mean": Kind(lambda x, a: x.mean(a, keepdim=True), "0", *_SUM, "{t} / {n}", takes=FLOAT),
    "prod": Kind(product, "1", "({t} * {x})", wrapping("*").format("{t}", "{x}")),
    "max": Kind(lambda x, a: x.amax(a, keepdim=True), "low", "T.max({t}, {x})", takes=ORDERED, as_is=True),
    "min": Kind(lambda x, a: x.amin(a, keepdim=True), "high", "T.min({t}, {x})", takes=ORDERED, as_is=True),
    "l1": Kind(lambda x, a: x.abs().sum(a, keepdim=True), "0", *_SIZES),
    "l2": Kind(lambda x, a: (x * x).sum(a, keepdim=True).sqrt(), "0", *_SQUARES, _root("{t}"), takes=FLOAT),
    "sum_square": Kind(lambda x, a: (x * x).sum(a, keepdim=True), "0", *_SQUARES),
    "log_sum": Kind(lambda x, a: x.sum(a, keepdim=True).log(), "0", *_SUM, _log("{t}"), takes=FLOAT),
    "log_sum_exp": Kind(
        lambda x, a: x.logsumexp(a, keepdim=True), "0", _EXPONENTIALS, "", f"{{p}} + {_log('{t}')}", "max", takes=FLOAT
    ),
    "argmax": _arg(True),
    "argmin": _arg(False),
    "argmax_last": _arg(True, last=True),
    "argmin_last": _arg(False, last=True),
    "any": Kind(lambda x, a: x.sum(a, keepdim=True) != 0, "0", "T.max({t}, {x})", takes=(DType.BOOL,), as_is=True),
    "all": Kind(lambda x, a: (~x).sum(a, keepdim=True) == 0, "1", "T.min({t}, {x})", takes=(DType.BOOL,), as_is=True),
}


@dataclass(frozen=True)
class Reduce(Op):
    """One number of all elements along axes, which stay with extent 1 or go: sum, max, log_sum_exp, argmax, any, ..."""

    name: ClassVar[str] = "reduce"
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,3,4] {kind='sum',over=(1,)}",
        "float32[2,3,4] {kind='log_sum_exp',over=(0,2),keepdims=False}",
        "int8[2,3,4] {kind='max',over=(2,)}",
        "float32[2,3,4] {kind='argmax',over=(1,),keepdims=False}",
    )
    kind: str = "sum"
    over: Axes = ()
    keepdims: bool = True

    def reduced(self, rank: int) -> Axes:
        """The axes counted from the front, in order."""
        return tuple(sorted(a % rank for a in self.over))

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,), rank = types, len(types[0].shape)
        need(self.kind in KINDS, f"expected a reduction among {', '.join(KINDS)}, found {self.kind!r}")
        kind, axes = KINDS[self.kind], self.reduced(rank)
        need(axes != () and len(set(axes)) == len(axes), f"axes {self.over} of a tensor of {rank} axes")
        need(all(-rank <= a < rank for a in self.over), f"axes {self.over} of a tensor of {rank} axes")
        need(not self.kind.startswith("arg") or len(axes) == 1, f"{self.kind} is along one axis, found {self.over}")
        takes = ", ".join(t.value for t in kind.takes)
        need(x.dtype in kind.takes, f"{self.kind} takes {takes}; found {x.dtype.value}")
        need(kind.as_is or x.quant is None, f"{self.kind} of quantised integers")
        dtype = kind.gives or (x.dtype if x.dtype.is_float or kind.as_is else DType.I32)
        kept = [k for k in range(rank) if k not in axes]
        time = None if x.time_axis in axes or x.time_axis is None else x.time_axis
        if self.keepdims:
            shape = tuple(1 if k in axes else n for k, n in enumerate(x.shape))
        else:
            shape, time = tuple(x.shape[k] for k in kept), None if time is None else kept.index(time)
        return (TensorType(shape, dtype, x.quant if kind.as_is else None, time),)

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        axes, made = self.reduced(rank), LETTERS.upper()
        right = (c if k not in axes else made[k] * self.keepdims for k, c in enumerate(LETTERS[:rank]))
        return f"{LETTERS[:rank]}->{''.join(right)}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        (x,) = tensors
        axes = self.reduced(x.ndim)
        y = KINDS[self.kind].torch(x, axes)
        y = y if y.is_floating_point() or y.dtype is torch.bool else wrapped(y, DType.I32)
        return y if self.keepdims else y.reshape([n for k, n in enumerate(x.shape) if k not in axes])

    def lower(self, site: Site) -> Kernel:
        (x,), (y,) = site.inputs, site.outputs
        kind, axes, rank = KINDS[self.kind], self.reduced(len(x.shape)), len(x.shape)
        count = prod(x.shape[k] for k in axes)
        strides = [prod(x.shape[k + 1 :]) for k in range(rank)]
        total = y.dtype.storage if kind.as_is or (x.dtype.is_float and kind.gives is None) else "int32"
        element = f"x[{' + '.join(f'i{k} * {s}' for k, s in enumerate(strides))}]"
        value = element if kind.as_is or x.dtype.is_float else f'T.cast({element}, "int32")'
        given = {"x": value, "n": literal(count, total), "k": f"i{axes[0]}"}
        given |= {"p": "peak[0]"} if kind.peak else {}
        lines = []
        if kind.peak:
            element_type = "float32" if x.dtype.is_float else "int32"
            best = f"T.{kind.peak}(peak[0], {value})"
            lines += loop(x, axes, "peak", element_type, bound(element_type, kind.peak == "max"), best)
            lines += [FINITE] if kind.gives is None else []
        given["t"] = "total[0]"
        start = {"low": bound(total, True), "high": bound(total, False)}.get(kind.start) or kind.start.format(**given)
        start = literal(int(start), total) if start.isdigit() else start
        step = kind.step if x.dtype.is_float else kind.int_step or kind.step
        lines += loop(x, axes, "total", total, start, step.format(**given))
        place = [(k, prod(n for j, n in enumerate(x.shape) if j > k and j not in axes)) for k in range(rank)]
        at = " + ".join(f"i{k} * {s}" for k, s in place if k not in axes) or "0"
        lines.append(f"y[{at}] = {kind.finish.format(**given)}")
        outer = [(k, x.shape[k]) for k in range(rank) if k not in axes]
        body = nested(outer, lines, parallel=True)
        return Kernel("\n".join(body), (("x", (x.size,), x.dtype.storage), ("y", (y.size,), y.dtype.storage)))

    @property
    def picks(self) -> bool:
        return self.kind in ("max", "min")

    def integer(self, b: Builder, node: Node) -> None:
        """The order of integers is that of the reals, so the largest and the smallest keep their scale."""
        if not self.picks:
            raise Refusal(f"the {self.kind} of integers is not built", "a mean over one axis at a time is")
        x = int8(b, node.inputs[0])
        b.emit(self, (x.tensor,), node.outputs)
        b.hold(node.output, node.output, Scale(float(x.scale[0]), x.zero))


#: the exponentials of infinite elements are taken from the largest finite one: infinity less itself is no number
FINITE = "peak[0] = T.max(T.min(peak[0], T.float32(3.4028234663852886e38)), T.float32(-3.4028234663852886e38))"


def literal(value: int, dtype: str) -> str:
    """A whole number in TVMScript."""
    return f"T.{dtype}({value})"


def bound(dtype: str, low: bool) -> str:
    """What every element of a type is at least, or at most."""
    if dtype == "float32":
        return f'T.float32("{"-" * low}inf")'
    return literal(DType(dtype).range[0 if low else 1], dtype)


def nested(loops: Sequence[tuple[int, int]], lines: Sequence[str], parallel: bool = False) -> list[str]:
    """Loops i<axis> over (axis, extent) around statements; the outermost may run in any order."""
    found = []
    for depth, (axis, extent) in enumerate(loops):
        kind = "T.parallel" if parallel and depth == 0 else "T.serial"
        found.append("    " * depth + f"for i{axis} in {kind}({extent}):")
    return found + ["    " * len(loops) + line for line in lines]


def loop(x: TensorType, axes: Axes, name: str, dtype: str, start: str, step: str) -> list[str]:
    """A register that starts as one text and becomes another at every element along some axes."""
    inner = nested([(k, x.shape[k]) for k in axes], [f"{name}[0] = {step}"])
    return [f'{name} = T.alloc_buffer((1,), "{dtype}")', f"{name}[0] = {start}", *inner]
