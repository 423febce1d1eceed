"""Elements picked by index, and put at one. An index counts from the end where it is negative, and one beyond an end is
that end: no kernel reads or writes outside its operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from edgec.ir.graph import Node
from edgec.ir.types import DType, TensorType
from edgec.ops.base import Kernel, Op, Site, need, params_of
from edgec.ops.integer.build import Builder
from edgec.ops.integer.numbers import Refusal
from edgec.ops.language.operations import wrapped, wrapping
from edgec.ops.lowering.loops import around
from edgec.ops.relations.axes import LETTERS, along
from edgec.ops.shape import moved

INDICES = (DType.U8, DType.I8, DType.I16, DType.I32)


def check_index(index: TensorType) -> None:
    """ValueError for an operand that is no index."""
    need(index.dtype in INDICES, f"expected an index of int32, found {index.dtype.value}")
    need(index.quant is None, "expected an index, found quantised integers")


def within(index: torch.Tensor, extent: int) -> torch.Tensor:
    """Indices counted from the front, those beyond an end at that end."""
    return torch.where(index < 0, index + extent, index).clamp(0, extent - 1)


def index_lines(element: str, extent: int) -> list[str]:
    """`within` in TVMScript: at[0] is the index."""
    return [
        'at = T.alloc_buffer((1,), "int32")',
        f'at[0] = T.cast({element}, "int32")',
        f"at[0] = T.max(T.min(T.if_then_else(at[0] < 0, at[0] + {extent}, at[0]), {extent - 1}), 0)",
    ]


@dataclass(frozen=True)
class Gather(Op):
    """y[..., index, ...] along one axis of x, which the axes of the index replace: an embedding, picked channels."""

    name: ClassVar[str] = "gather"
    picks: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,3,4], int32[5] {axis=1}",
        "float32[6,4], int32[2,3] {axis=0}",
        "int8[2,3], int32[1] {axis=-1}",
    )
    axis: int = 0

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, index = types
        rank = len(x.shape)
        check_index(index)
        need(-rank <= self.axis < rank, f"axis {self.axis} of a tensor of {rank} axes")
        need(x.dtype is not DType.BIT, "packed spikes cannot be gathered")
        axis, more = self.axis % rank, len(index.shape) - 1
        need(x.time_axis != axis, "frames are gathered along the time axis")
        need(x.time_axis is None or index.time_axis is None, "both the tensor and the index have frames")
        time = None if index.time_axis is None else axis + index.time_axis
        if x.time_axis is not None:
            time = x.time_axis + more * (x.time_axis > axis)
        return (replace(x, shape=(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]), time_axis=time),)

    def axes(self, types: Sequence[TensorType]) -> str:
        rank, made = len(types[0].shape), LETTERS.upper()[: len(types[1].shape)]
        return f"{LETTERS[:rank]},{made}->{along(rank, self.axis, made)}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, index = tensors
        axis = self.axis % x.ndim
        picked = x.index_select(axis, within(index, x.shape[axis]).reshape(-1))
        return picked.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])

    def lower(self, site: Site) -> Kernel:
        x, index = site.inputs
        outer, extent, inner = around(x.shape, self.axis % len(x.shape))
        lines = "\n        ".join(index_lines("index[m]", extent))
        body = f"""for r in T.parallel({outer}):
    for m in T.serial({index.size}):
        {lines}
        for i in T.serial({inner}):
            y[r, m, i] = x[r, at[0], i]"""
        kind = x.dtype.storage
        return Kernel(
            body,
            (
                ("x", (outer, extent, inner), kind),
                ("index", (index.size,), index.dtype.storage),
                ("y", (outer, index.size, inner), kind),
            ),
        )

    def integer(self, b: Builder, node: Node) -> None:
        """The same integers elsewhere, where the index is constant."""
        index = b.data(node.inputs[1])
        if index is None or b.data(node.inputs[0]) is not None:
            raise Refusal("its index is computed", "gather before the network, or by a constant index")
        moved(self, b, node, (b.const(f"{node.output}_index", index),))


@dataclass(frozen=True)
class GatherElements(Op):
    """y[i, j] = x[index[i, j], j] along one axis; the other axes of the index are those of x."""

    name: ClassVar[str] = "gather_elements"
    picks: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,3,4], int32[2,5,4] {axis=1}",
        "float32[2,3], int32[2,1] {axis=-1}",
    )
    axis: int = 0

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, index = types
        check_index(index)
        check_beside(x, index, self.axis)
        return (replace(x, shape=index.shape),)

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        letters = along(rank, self.axis, "Z")
        return f"{LETTERS[:rank]},{letters}->{letters}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0].gather(self.axis, within(tensors[1], tensors[0].shape[self.axis]))

    def lower(self, site: Site) -> Kernel:
        (x, index), names = site.inputs, [f"i{k}" for k in range(len(site.inputs[0].shape))]
        here, there = ", ".join(names), ", ".join(with_index(names, self.axis))
        lines = [*index_lines(f"index[{here}]", x.shape[self.axis]), f"y[{here}] = x[{there}]"]
        return Kernel(grid(index.shape, lines), params_of(site, ["x", "index", "y"]))


#: what Scatter does to an element: in TVMScript, and torch's name of it
UPDATES = {
    "set": ("{u}", ""), "add": ("{y} + {u}", "sum"), "mul": ("{y} * {u}", "prod"),
    "max": ("T.max({y}, {u})", "amax"), "min": ("T.min({y}, {u})", "amin"),
}  # fmt: skip
ARITHMETIC = {"add": "+", "mul": "*"}


@dataclass(frozen=True)
class Scatter(Op):
    """x with y[index[i, j], j] set to, or combined with, updates[i, j] along one axis, one after another in order."""

    name: ClassVar[str] = "scatter"
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,3,4], int32[2,5,4], float32[2,5,4] {axis=1,kind='add'}",
        "float32[4,3], int32[1,3], float32[1,3] {axis=0}",
    )
    axis: int = 0
    kind: str = "set"

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        x, index, updates = types
        need(self.kind in UPDATES, f"expected an update among {', '.join(UPDATES)}, found {self.kind!r}")
        check_index(index)
        check_beside(x, index, self.axis)
        need(updates.shape == index.shape, f"updates of {updates.shape} for an index of {index.shape}")
        need(updates.dtype is x.dtype, f"updates of {updates.dtype.value} for {x.dtype.value}")
        need(x.quant is None and updates.quant is None, "quantised integers")
        sums = self.kind not in ARITHMETIC or x.dtype in (DType.F32, DType.I32)
        need(sums, f"{self.kind} takes float32 and int32, found {x.dtype.value}")
        return (x,)

    def axes(self, types: Sequence[TensorType]) -> str:
        rank = len(types[0].shape)
        letters = along(rank, self.axis, "Z")
        return f"{along(rank, self.axis, '({})')},{letters},{letters}->{LETTERS[:rank]}"

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, index, updates = tensors
        index, how = within(index, x.shape[self.axis]), UPDATES[self.kind][1]
        if how:
            y = x.scatter_reduce(self.axis, index, updates, how)
            return y if y.is_floating_point() or self.kind not in ARITHMETIC else wrapped(y, DType.I32)
        y = x.clone()
        for k in range(index.shape[self.axis]):  # in order: of equal indices the last one stays
            y = y.scatter(self.axis, index.narrow(self.axis, k, 1), updates.narrow(self.axis, k, 1))
        return y

    def lower(self, site: Site) -> Kernel:
        (x, index, _), names = site.inputs, [f"i{k}" for k in range(len(site.inputs[0].shape))]
        here, there = ", ".join(names), ", ".join(with_index(names, self.axis))
        y, u = f"y[{there}]", f"updates[{here}]"
        text = UPDATES[self.kind][0].format(y=y, u=u)
        if self.kind in ARITHMETIC and not x.dtype.is_float:
            text = wrapping(ARITHMETIC[self.kind]).format(y, u)
        body = grid(x.shape, [f"y[{here}] = x[{here}]"])
        body += "\n" + grid(index.shape, [*index_lines(f"index[{here}]", x.shape[self.axis]), f"{y} = {text}"])
        return Kernel(body, params_of(site, ["x", "index", "updates", "y"]))


def check_beside(x: TensorType, index: TensorType, axis: int) -> None:
    """ValueError unless an index has the axes of a tensor but for one, which is not time."""
    rank = len(x.shape)
    need(-rank <= axis < rank, f"axis {axis} of a tensor of {rank} axes")
    need(x.dtype is not DType.BIT, "packed spikes cannot be gathered")
    others = [tuple(n for k, n in enumerate(t.shape) if k != axis % rank) for t in (x, index)]
    need(
        len(index.shape) == rank and others[0] == others[1], f"an index of {index.shape} along axis {axis} of {x.shape}"
    )
    need(axis % rank not in (x.time_axis, index.time_axis), "frames are gathered along the time axis")


def with_index(names: Sequence[str], axis: int) -> list[str]:
    """Loop variables with the index in the place of one."""
    return ["at[0]" if k == axis % len(names) else name for k, name in enumerate(names)]


def grid(shape: Sequence[int], lines: Sequence[str]) -> str:
    """Loops i0, i1, ... over a shape around statements, in order."""
    heads = [f"{'    ' * k}for i{k} in T.serial({n}):" for k, n in enumerate(shape)]
    return "\n".join([*heads, *("    " * len(shape) + line for line in lines)])
