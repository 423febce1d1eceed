"""Ops that move elements without computing: copy, permute, reshape, concat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import numpy as np
import torch

from edgec.ir.graph import Node
from edgec.ir.types import DType, TensorType
from edgec.ops.base import Kernel, Op, Site, ctype, indent, need, params_of, same_time
from edgec.ops.integer.build import Builder, Source
from edgec.ops.integer.numbers import Refusal, Scale
from edgec.ops.relations.axes import LETTERS, along


def takes(b: Builder, node: Node, sources: list[Source]) -> bool:
    """Whether the float op itself can move integers of these types; spikes are packed along the last axis."""
    try:
        node.op.infer([b.types[s.tensor] for s in sources])
    except ValueError:
        return False
    return True


def place(b: Builder, node: Node, inputs: tuple[str, ...]) -> None:
    """The float op itself on integers; Refusal where the integer type cannot be moved so."""
    try:
        b.emit(node.op, inputs, node.outputs)
    except ValueError as err:
        raise Refusal(str(err)) from err


def at_one_scale(b: Builder, name: str) -> Source:
    """A tensor as it is stored, unless a map or clamp is still to be applied to it."""
    source = b.sources[name]
    if not b.is_plain(source) or b.dtype(source) is DType.I32:
        return b.store(name, *b.plan.stored(name))
    return source


def moved(op: Op, b: Builder, node: Node, others: tuple[str, ...] = ()) -> None:
    """Reshape, permute, slice: the same integers elsewhere. `others` are operands beside the first, an index."""
    name, source = node.inputs[0], at_one_scale(b, node.inputs[0])
    if b.dtype(source) is DType.BIT and not takes(b, node, [source]):
        source = b.store(name, DType.I8, Scale(1.0))
    place(b, node, (source.tensor, *others))
    for kind in (b.features, b.forecasts):
        if name in kind:
            kind.add(node.output)
    held = b.hold(node.output, node.output, Scale(float(source.scale[0]), source.zero))
    b.sources[node.output] = replace(held, lo=source.lo, hi=source.hi)


@dataclass(frozen=True)
class Copy(Op):
    """y = x in memory of its own: for a result that has none, such as an input that is returned."""

    name: ClassVar[str] = "copy"
    axes: ClassVar[Any] = "...->..."
    moves: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = ("float32[2,3]",)

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        return (types[0],)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0]

    def equals(self, site: Site) -> int | None:
        return 0

    def lower(self, site: Site) -> Kernel:
        size, kind = prod(site.outputs[0].storage_shape), ctype(site.outputs[0].dtype)
        return Kernel(f"for i in T.parallel({size}):\n    y[i] = x[i]", (("x", (size,), kind), ("y", (size,), kind)))


@dataclass(frozen=True)
class Permute(Op):
    """y axis k is x axis perm[k]."""

    name: ClassVar[str] = "permute"
    moves: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = ("float32[2,3,4] {perm=(0,2,1)}", "int8[2,3,4,2] {perm=(3,0,2,1)}")
    integer: ClassVar[Any] = moved
    perm: tuple[int, ...] = ()

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(sorted(self.perm) == list(range(len(x.shape))), f"perm {self.perm} does not fit shape {x.shape}")
        need(
            x.dtype is not DType.BIT or self.perm[-1] == len(self.perm) - 1, "packed spikes cannot move their last axis"
        )
        time = None if x.time_axis is None else self.perm.index(x.time_axis)
        return (replace(x, shape=tuple(x.shape[p] for p in self.perm), time_axis=time),)

    def axes(self, types: Sequence[TensorType]) -> str:
        return f"{LETTERS[: len(self.perm)]}->{''.join(LETTERS[p] for p in self.perm)}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0].permute(self.perm)

    def equals(self, site: Site) -> int | None:
        return 0 if self.perm == tuple(range(len(self.perm))) else None

    def following(self, before: Op, x: TensorType, alone: bool) -> Op | None:
        return Permute(tuple(before.perm[k] for k in self.perm)) if isinstance(before, Permute) else None

    def lower(self, site: Site) -> Kernel:
        x, y = site.inputs[0].storage_shape, site.outputs[0].storage_shape
        names = [f"i{k}" for k in range(len(y))]
        source = [names[self.perm.index(axis)] for axis in range(len(x))]
        at = ", ".join(names)
        body = f"for {at} in T.grid({', '.join(map(str, y))}):\n    y[{at}] = x[{', '.join(source)}]"
        if len(names) == 1:
            body = body.replace("T.grid", "T.serial")
        return Kernel(body, params_of(site, ["x", "y"]))


def kept_axes(x: Sequence[int], y: Sequence[int], time: int | None, new_time: int | None) -> list[tuple[int, int]]:
    """Pairs of axes (of x, of y) that a reshape leaves as they are: as many elements lie before both; the time axis is
    one of them where it can be."""
    if time is not None and new_time is not None and prod(x[:time]) == prod(y[:new_time]):
        first = kept_axes(x[:time], y[:new_time], None, None)
        rest = kept_axes(x[time + 1 :], y[new_time + 1 :], None, None)
        return [*first, (time, new_time), *((k + time + 1, j + new_time + 1) for k, j in rest)]
    found, k, j = [], 0, 0
    while k < len(x) and j < len(y):
        behind = prod(x[:k]) - prod(y[:j])
        if behind == 0 and x[k] == y[j]:
            found.append((k, j))
            k, j = k + 1, j + 1
        elif behind < 0 or (behind == 0 and x[k] == 1):
            k += 1
        elif behind > 0 or y[j] == 1:
            j += 1
        else:
            k, j = k + 1, j + 1
    return found


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in another shape. `time_axis` is where the time axis ends up, its extent unchanged."""

    name: ClassVar[str] = "reshape"
    moves: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,3,4,5] {shape=(2,12,5)}",
        "float32[1,4,3] t1 {shape=(4,1,3,1),time_axis=0}",
        "int8[4,6] {shape=(3,8)}",
        "int8[2,3,4] {shape=(2,12)}",
    )
    integer: ClassVar[Any] = moved
    is_view: ClassVar[bool] = True
    shape: tuple[int, ...] = ()
    time_axis: int | None = None

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(prod(self.shape) == x.size, f"{x.shape} has {x.size} elements, {self.shape} has {prod(self.shape)}")
        if x.time_axis is not None:
            need(self.time_axis is not None, f"reshape {x.shape} -> {self.shape} folds the time axis into another")
            assert self.time_axis is not None
            need(
                self.shape[self.time_axis] == x.frames,
                f"time axis has {x.frames} frames, axis {self.time_axis} of {self.shape} does not",
            )
        need(x.dtype is not DType.BIT or self.shape[-1] == x.shape[-1], "packed spikes cannot change their last axis")
        return (replace(x, shape=self.shape, time_axis=self.time_axis),)

    def axes(self, types: Sequence[TensorType]) -> str:
        """Plain are axes that have as many elements before and behind them as before."""
        x, y, letters = types[0].shape, list(self.shape), iter(LETTERS + LETTERS.upper())
        left, right = [next(letters) for _ in x], [next(letters) for _ in y]
        for k, j in kept_axes(x, y, types[0].time_axis, self.time_axis):
            right[j] = left[k]
        return f"{''.join(left)}->{''.join(right)}"

    def with_shape(self, shape: Sequence[int]) -> Op:
        return replace(self, shape=tuple(shape))

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0].reshape(self.shape)

    def equals(self, site: Site) -> int | None:
        return 0

    def following(self, before: Op, x: TensorType, alone: bool) -> Op | None:
        return self if isinstance(before, Reshape) else None


@dataclass(frozen=True)
class Concat(Op):
    """Operands one after another along an axis."""

    name: ClassVar[str] = "concat"
    moves: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,3,4], float32[2,3,5]",
        "float32[2,3,4], float32[2,1,4], float32[2,2,4] {axis=1}",
    )
    axis: int = -1

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        axis = self.axis % len(types[0].shape)
        rest = {t.shape[:axis] + t.shape[axis + 1 :] for t in types}
        need(len(rest) == 1, f"operands differ off axis {axis}: {[t.shape for t in types]}")
        need(len({t.dtype for t in types}) == 1, f"operands have different types {[t.dtype.value for t in types]}")
        time = same_time(types)
        need(time != axis, "concatenation along the time axis")
        last = axis == len(types[0].shape) - 1
        need(
            types[0].dtype is not DType.BIT or not last or all(t.shape[-1] % 32 == 0 for t in types[:-1]),
            "packed spikes join at multiples of 32 channels",
        )
        shape = list(types[0].shape)
        shape[axis] = sum(t.shape[axis] for t in types)
        quant = types[0].quant if len({t.quant for t in types}) == 1 else None
        return (replace(types[0], shape=tuple(shape), quant=quant, time_axis=time),)

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        return ",".join([along(rank, self.axis, "({})")] * len(types)) + f"->{LETTERS[:rank]}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return torch.cat(list(tensors), dim=self.axis)

    def equals(self, site: Site) -> int | None:
        return 0 if len(site.inputs) == 1 else None

    def lower(self, site: Site) -> Kernel:
        axis = self.axis % len(site.outputs[0].shape)
        outer = prod(site.outputs[0].storage_shape[:axis])
        inner = [prod(t.storage_shape[axis:]) for t in site.inputs]
        kind = ctype(site.outputs[0].dtype)
        lines, at = [f"for r in T.parallel({outer}):"], 0
        for k, n in enumerate(inner):
            lines += [f"    for i in T.serial({n}):", f"        y[r, i + {at}] = x{k}[r, i]"]
            at += n
        params = tuple((f"x{k}", (outer, n), kind) for k, n in enumerate(inner))
        return Kernel("\n".join(lines), (*params, ("y", (outer, at), kind)))

    def integer(self, b: Builder, node: Node) -> None:
        """Spikes stay spikes where whole words join, else become int8 0 and 1; all else takes the result's scale."""
        sources = [b.sources[i] for i in node.inputs if b.data(i) is None]
        spikes = all(b.dtype(s) is DType.BIT and s.stored_as(Scale(1.0)) for s in sources)
        spikes = spikes and len(sources) == len(node.inputs)
        dtype, target = (DType.I8, Scale(1.0)) if spikes else b.plan.stored(node.output)
        if not spikes or not takes(b, node, sources):
            sources = [b.store(i, dtype, target) for i in node.inputs]
        place(b, node, tuple(s.tensor for s in sources))
        held = b.hold(node.output, node.output, target)
        lo, hi = min(b.range_of(s)[0] for s in sources), max(b.range_of(s)[1] for s in sources)
        b.sources[node.output] = replace(held, lo=np.array([lo]), hi=np.array([hi]))


@dataclass(frozen=True)
class Slice(Op):
    """x[start:stop:step] along one axis that is not time; a negative step runs backwards, at most to a stop of -1."""

    name: ClassVar[str] = "slice"
    moves: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,3,6] {start=2,stop=5}",
        "int8[2,5,3] {axis=1,start=0,stop=2}",
        "float32[2,7,3] {axis=1,start=6,stop=-1,step=-3}",
    )
    integer: ClassVar[Any] = moved
    axis: int = -1
    start: int = 0
    stop: int = 0
    step: int = 1

    @property
    def indices(self) -> range:
        """The elements that are kept."""
        return range(self.start, self.stop, self.step)

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        axis, step = self.axis % len(x.shape), f":{self.step}" * (self.step != 1)
        inside = 0 <= self.start < x.shape[axis] and -1 <= self.stop <= x.shape[axis]
        need(inside and self.step != 0 and len(self.indices) > 0, f"slice {self.start}:{self.stop}{step} of {x.shape}")
        need(x.time_axis != axis, "the time axis is cut")
        packed = x.dtype is DType.BIT and axis == len(x.shape) - 1
        need(not packed or self.start % 32 == 0, "packed spikes are cut at multiples of 32 channels")
        need(not packed or self.step == 1, "packed spikes are cut in one piece")
        return (replace(x, shape=tuple(len(self.indices) if k == axis else n for k, n in enumerate(x.shape))),)

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        return f"{along(rank, self.axis, '({})')}->{LETTERS[:rank]}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0].index_select(self.axis, torch.tensor(self.indices))

    def equals(self, site: Site) -> int | None:
        return 0 if self.step > 0 or len(self.indices) == 1 else None

    def following(self, before: Op, x: TensorType, alone: bool) -> Op | None:
        if not isinstance(before, Slice) or (before.axis - self.axis) % len(x.shape):
            return None
        kept = before.indices[self.start : None if self.stop < 0 else self.stop : self.step]
        return replace(self, start=kept.start, stop=max(kept.stop, -1), step=kept.step)

    def lower(self, site: Site) -> Kernel:
        (x,), (y,) = site.inputs, site.outputs
        axis = self.axis % len(x.shape)
        unit = 32 if x.dtype is DType.BIT and axis == len(x.shape) - 1 else 1
        inner, kind = prod(x.storage_shape[axis + 1 :]), ctype(x.dtype)
        outer, whole, part = prod(x.storage_shape[:axis]), x.storage_shape[axis] * inner, y.storage_shape[axis] * inner
        loops = f"""    for i in T.serial({part}):
        y[r, i] = x[r, i + {self.start // unit * inner}]"""
        if self.step != 1:
            loops = f"""    for k, i in T.grid({len(self.indices)}, {inner}):
        y[r, k * {inner} + i] = x[r, ({self.start} + k * {self.step}) * {inner} + i]"""
        body = f"for r in T.parallel({outer}):\n{loops}"
        return Kernel(body, (("x", (outer, whole), kind), ("y", (outer, part), kind)))


@dataclass(frozen=True)
class Pad(Op):
    """`value` before and after the elements of each axis that is not time: amounts (before, after) axis by axis."""

    name: ClassVar[str] = "pad"
    moves: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,3,4] {amounts=(0,0,1,2,0,0),value=3.0}",
        "int8[2,3] {amounts=(0,0,2,1),value=-1}",
    )
    amounts: tuple[int, ...] = ()
    value: float = 0

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return list(zip(self.amounts[::2], self.amounts[1::2], strict=True))

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (x,) = types
        need(len(self.amounts) == 2 * len(x.shape) and min(self.amounts) >= 0, f"amounts {self.amounts} for {x.shape}")
        need(x.time_axis is None or self.pairs[x.time_axis] == (0, 0), "the time axis is padded")
        need(x.dtype is not DType.BIT, "packed spikes cannot be padded")
        return (replace(x, shape=tuple(n + sum(p) for n, p in zip(x.shape, self.pairs, strict=True))),)

    def axes(self, types: Sequence[TensorType]) -> str:
        x = "".join(c if p == (0, 0) else f"({c})" for c, p in zip(LETTERS, self.pairs, strict=False))
        return f"{x}->{LETTERS[: len(self.pairs)]}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        widths = [n for pair in reversed(self.pairs) for n in pair]
        return torch.nn.functional.pad(tensors[0], widths, value=self.value)

    def equals(self, site: Site) -> int | None:
        return None if any(self.amounts) else 0

    def following(self, before: Op, x: TensorType, alone: bool) -> Op | None:
        if not isinstance(before, Pad) or before.value != self.value:
            return None
        return replace(self, amounts=tuple(a + b for a, b in zip(before.amounts, self.amounts, strict=True)))

    def integer(self, b: Builder, node: Node) -> None:
        """Around integers at one scale, that of the value."""
        x = b.widened(at_one_scale(b, node.inputs[0]))
        scale, bounds = Scale(float(x.scale[0]), x.zero, "even"), b.dtype(x).range
        value = scale.quantized(self.value, *bounds)
        b.emit(replace(self, value=value), (x.tensor,), node.outputs)
        lo, hi = b.range_of(x)
        held = b.hold(node.output, node.output, scale)
        b.sources[node.output] = replace(held, lo=np.array([min(lo, value)]), hi=np.array([max(hi, value)]))

    def lower(self, site: Site) -> Kernel:
        (x,), (y,) = site.inputs, site.outputs
        kind = ctype(x.dtype)
        fill = f"T.float32({self.value})" if x.dtype is DType.F32 else f"T.{kind}({int(self.value)})"

        def filled(at: str, count: int) -> list[str]:
            return [f"for e in T.serial({count}):", f"    y[{at} + e] = {fill}"] if count else []

        def level(k: int, source: str, at: str) -> list[str]:
            """Lines for axes k and on of what begins at these places of x and y."""
            (before, after), n, step = self.pairs[k], x.shape[k], prod(y.shape[k + 1 :])
            head, tail = filled(at, before * step), filled(f"{at} + {(before + n) * step}", after * step)
            if any(map(sum, self.pairs[k + 1 :])):
                places = f"{source} + i{k} * {prod(x.shape[k + 1 :])}", f"{at} + (i{k} + {before}) * {step}"
                return [*head, f"for i{k} in T.serial({n}):", *indent(level(k + 1, *places)), *tail]
            copy = f"    y[{at} + {before * step} + e] = x[{source} + e]"
            return [*head, f"for e in T.serial({n * step}):", copy, *tail]

        return Kernel("\n".join(level(0, "0", "0")), (("x", (x.size,), kind), ("y", (y.size,), kind)))
