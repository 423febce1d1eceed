"""Remove permutes: move each one down through the ops that can run on the other layout, until it meets its inverse.

    op(permute(x, p))  ==  permute(op'(x), p)      with op' by the axes that the op declares, constants permuted to fit

What is left at an op that needs its own layout, or at an output, becomes one permute, or a reshape where only axes of
extent 1 move; one that only follows elementwise ops on the graph's inputs, as a normalisation before the first
convolution, moves up to the inputs. A flattening in front of a linear layer moves the permute into the layer's weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgec.ir.graph import Const, Graph, Node, numbered
from edgec.ir.types import TensorType
from edgec.ops.relations.axes import Perm, axes_of, permutation, permuted
from edgec.ops.shape import Permute, Reshape
from edgec.passes.base import Pass

Array = npt.NDArray[Any]


def compose(first: Perm, second: Perm) -> Perm:
    """The permutation that does `first`, then `second`."""
    return tuple(first[k] for k in second)


def inverse(perm: Perm) -> Perm:
    """The permutation that undoes one."""
    return tuple(int(k) for k in np.argsort(perm))


def is_identity(perm: Perm) -> bool:
    """Whether a permutation moves nothing."""
    return perm == tuple(range(len(perm)))


def is_free(perm: Perm, shape: Sequence[int]) -> bool:
    """Whether a permute of this shape moves only axes of extent 1, and so no bytes."""
    real = [p for p in perm if shape[p] != 1]
    return real == sorted(real)


def moved(data: Array, t: TensorType) -> Const:
    """A constant of type t with its elements elsewhere. They stay on their grid where all have one scale, or rows moved
    along another axis than that of the scales."""
    kept = t.quant is not None and (t.quant.axis is None or (t.quant.axis > 0 and data.shape == t.shape))
    return Const(np.ascontiguousarray(data), TensorType(data.shape, t.dtype, t.quant if kept else None))


def raised(graph: Graph) -> Graph:
    """Permutes of what arithmetic on the graph's inputs alone gives, as permutes of those inputs: a normalisation then
    has its channels last, as the layers around it."""
    early, arithmetic = {v.name for v in graph.inputs}, set[str]()
    for node in graph.nodes:
        computed = {i for i in node.inputs if i not in graph.consts}
        if computed and computed <= early and is_elementwise(graph, node):
            early.add(node.output)
            if len(node.inputs) > 1 or computed <= arithmetic:
                arithmetic.add(node.output)
    for name in [n.outputs[0] for n in reversed(graph.nodes) if n.outputs[0] in arithmetic]:
        perms = {permutation(n.op, graph.input_types(n)) for n in graph.consumers(name)}
        if len(perms) == 1 and (perm := perms.pop()) is not None and name not in graph.outputs:
            graph = swapped(graph, name, perm)
    return graph.prune_unused()


def is_elementwise(graph: Graph, node: Node) -> bool:
    """Whether each element of the result is made of those at the same place."""
    types, rank = graph.input_types(node), len(node.types[0].shape)
    axes = axes_of(node.op, types)
    plain = axes is not None and all(c in axes.results[0] for own in axes.operands for c in own)
    return plain and not node.op.moves and permuted(node.op, types, tuple(range(rank))) is not None


def swapped(graph: Graph, name: str, perm: Perm) -> Graph:
    """The graph with an elementwise op on permuted operands in place of the permutes that read it."""
    node = graph.producer(name)
    assert node is not None
    other = permuted(node.op, graph.input_types(node), inverse(perm))
    assert other is not None
    op, moving, _ = other
    if any(len(graph.type_of(node.inputs[k]).shape) != len(perm) for k in moving if node.inputs[k] not in graph.consts):
        return graph
    fresh, consts, nodes = graph.fresh(f"{name}_permuted"), dict(graph.consts), list[Node]()
    inputs = list(node.inputs)
    for k in moving:
        operand, new = inputs[k], next(fresh)
        inputs[k], t = new, graph.type_of(operand)
        if operand in consts:
            data = consts[operand].data.reshape((1,) * (len(perm) - len(t.shape)) + t.shape).transpose(perm)
            consts[new] = moved(data, t)
        else:
            nodes.append(Node(Permute(perm), (operand,), (new,), Permute(perm).infer([t]), node.source))
    nodes.append(replace(node, op=op, inputs=tuple(inputs), types=Permute(perm).infer([node.type])))
    place, same = graph.nodes.index(node), {n.output: name for n in graph.consumers(name)}
    rest = [replace(n, inputs=tuple(same.get(i, i) for i in n.inputs)) for n in graph.nodes[place + 1 :]]
    kept = tuple(n for n in rest if n.outputs[0] not in same)
    outputs = tuple(same.get(o, o) for o in graph.outputs)
    return replace(graph, nodes=(*graph.nodes[:place], *nodes, *kept), consts=consts, outputs=outputs)


@dataclass
class Sinker:
    """One run. `pending[x] = (base, perm)`: the tensor x of the old graph is permute(base, perm) in the new one."""

    graph: Graph
    nodes: list[Node] = field(default_factory=list)
    consts: dict[str, Const] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)
    pending: dict[str, tuple[str, Perm]] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)  # permuted tensors that had to be computed
    copies: dict[tuple[str, Perm], str] = field(default_factory=dict)  # the same by what was permuted, and how
    used: set[str] = field(default_factory=set)
    replaced: dict[str, Node] = field(default_factory=dict)  # readers of a flattening, with their weights moved

    def run(self) -> Graph:
        graph = self.graph
        self.consts = dict(graph.consts)
        self.types = {v.name: v.type for v in graph.inputs} | {n: c.type for n, c in graph.consts.items()}
        self.used = set(self.types) | {o for n in graph.nodes for o in n.outputs}
        for node in graph.nodes:
            self.visit(self.replaced.get(node.outputs[0], node))
        outputs = tuple(self.whole(o, node=graph.producer(o)) for o in graph.outputs)
        return replace(graph, nodes=tuple(self.nodes), consts=self.consts, outputs=outputs).prune_unused()

    def fresh(self, stem: str) -> str:
        name = next(n for n in numbered(stem) if n not in self.used)
        self.used.add(name)
        return name

    def visit(self, node: Node) -> None:
        order = permutation(node.op, self.types_before(node))
        if order is not None:
            base, perm = self.split(node.inputs[0])
            self.pending[node.output] = (base, compose(perm, order))
            return
        if node.op.is_view and (self.is_same(node) or self.sink_view(node)):
            return
        perms = {self.pending[i][1] for i in node.inputs if i in self.pending and not is_identity(self.pending[i][1])}
        if len(perms) == 1 and len(node.outputs) == 1 and self.sink(node, perms.pop()):
            return
        self.emit(node.op, tuple(self.whole(i, node) for i in node.inputs), node)

    def types_before(self, node: Node) -> tuple[TensorType, ...]:
        """Of the operands of a node in the old graph; those that replace them here have the same."""
        old = self.graph.producer(node.outputs[0])
        assert old is not None
        return self.graph.input_types(old)

    def is_same(self, node: Node) -> bool:
        """A view of the same type is its operand."""
        base, perm = self.split(node.inputs[0])
        if not is_identity(perm) or self.types[base] != node.type:
            return False
        self.pending[node.output] = (base, perm)
        return True

    def split(self, name: str) -> tuple[str, Perm]:
        """The base tensor of a name and what permute of it the name is."""
        if name in self.pending:
            return self.pending[name]
        return name, tuple(range(len(self.types[name].shape)))

    def emit(self, op: Any, inputs: tuple[str, ...], node: Node) -> None:
        types = op.infer([self.types[i] for i in inputs])
        self.nodes.append(replace(node, op=op, inputs=inputs, types=tuple(types)))
        self.types.update(zip(node.outputs, types, strict=True))

    def whole(self, name: str, node: Node | None) -> str:
        """The tensor itself in the new graph, permuted if that is still to be done."""
        base, perm = self.split(name)
        if is_identity(perm):
            return base
        if name not in self.made:
            t = self.types[base]
            target = Permute(perm).infer([t])[0]
            op: Any = Reshape(target.shape, target.time_axis) if is_free(perm, t.shape) else Permute(perm)
            new = name if name not in self.types else self.fresh(f"{name}_permuted")
            self.nodes.append(Node(op, (base,), (new,), (target,), () if node is None else node.source))
            self.types[new] = target
            self.made[name] = self.copies[base, perm] = new
        return self.made[name]

    def const(self, stem: str, data: Array) -> str:
        name = self.fresh(f"{stem}_permuted")
        self.consts[name] = moved(data, self.consts[stem].type)
        self.types[name] = self.consts[name].type
        return name

    def sink(self, node: Node, perm: Perm) -> bool:
        """Run the node on the layout before `perm`; False where it has to see the permuted one."""
        other = permuted(node.op, self.types_before(node), perm)
        if other is None:
            return False
        op, moving, left = other
        plans = {k: self.operand(node.inputs[k], perm) for k in moving}
        if None in plans.values():
            return False
        inputs = list(node.inputs)
        for k, plan in plans.items():
            inputs[k] = self.realise(node.inputs[k], perm, plan, node)
        self.emit(op, tuple(inputs), node)
        self.pending[node.output] = (node.output, left)
        return True

    def operand(self, name: str, perm: Perm) -> str | None:
        """How to get an operand in the layout before `perm`: as is, a changed constant, a view, or not at all."""
        base, own = self.split(name)
        if own == perm and name in self.pending:
            return "base"
        t = self.types[base]
        if t.size == 1 and t.time_axis is None:
            return "single"
        if name in self.consts:
            return "const"
        back = compose(own, inverse(perm)) if len(own) == len(perm) else None
        if back is not None and (base, back) in self.copies:
            return "copy"
        return "view" if back is not None and is_free(back, t.shape) else None

    def realise(self, name: str, perm: Perm, plan: str | None, node: Node) -> str:
        """The operand in the layout before `perm`, by the plan made for it."""
        base, own = self.split(name)
        if plan == "base":
            return base
        if plan == "copy":
            return self.copies[base, compose(own, inverse(perm))]
        if plan == "single":
            return self.reshaped(base, (1,) * len(perm), node)
        if plan == "const":
            data = self.consts[name].data
            data = data.reshape((1,) * (len(perm) - data.ndim) + data.shape)
            return self.const(name, data.transpose(inverse(perm)))
        target = Permute(compose(own, inverse(perm))).infer([self.types[base]])[0]
        return self.reshaped(base, target.shape, node, target.time_axis)

    def reshaped(self, name: str, shape: tuple[int, ...], node: Node, time_axis: int | None = None) -> str:
        """A view of a tensor; constants are reshaped here and now."""
        t = self.types[name]
        if t.shape == shape or (name in self.consts and t.size == 1):
            return name
        new = self.fresh(f"{name}_view")
        op = Reshape(shape, time_axis)
        self.nodes.append(Node(op, (name,), (new,), op.infer([t]), node.source))
        self.types[new] = self.nodes[-1].type
        return new

    def sink_view(self, node: Node) -> bool:
        """A permute that moves no bytes joins the view; one before a flattening goes into the linear layers."""
        base, perm = self.split(node.inputs[0])
        t, shape = self.types[base], node.type.shape
        if is_identity(perm):
            return False
        if is_free(perm, t.shape):
            self.emit(node.op, (base,), node)
            return True
        keeps_rows = perm[0] == 0 and len(shape) == 2 and shape[0] == t.shape[0]
        readers = self.layers_behind(node.output) if keeps_rows else None
        if not readers:
            return False
        self.emit(node.op, (base,), node)
        order = np.arange(shape[1]).reshape(t.shape[1:]).transpose([p - 1 for p in perm[1:]]).reshape(-1)
        self.shuffle_weights(readers, order)
        return True

    def layers_behind(self, name: str) -> list[Node] | None:
        """The layers that read a flattening, some behind functions of one element; None where anything else does."""
        if name in self.graph.outputs:
            return None
        found: list[Node] = []
        for node in self.graph.consumers(name):
            axes = axes_of(node.op, self.graph.input_types(node))
            if node.op.is_layer and node.inputs[0] == name and node.inputs[1] in self.consts:
                found.append(node)
            elif axes is not None and axes.operands == axes.results and len(axes.results) == 1:
                behind = self.layers_behind(node.output)
                if behind is None:
                    return None
                found += behind
            else:
                return None
        return found

    def shuffle_weights(self, readers: list[Node], order: Array) -> None:
        """Feature k of the new order is feature order[k] of the old one: move the rows of each weight."""
        moved: dict[str, str] = {}
        for reader in readers:
            name = reader.inputs[1]
            if name not in moved:
                moved[name] = self.const(name, self.consts[name].data[np.argsort(order)])
            self.replaced[reader.output] = replace(reader, inputs=(reader.inputs[0], moved[name], *reader.inputs[2:]))


@dataclass(frozen=True)
class AssignLayout(Pass):
    """Channels last everywhere: permutes cancel, become reshapes, or stay as few as the ops' own layouts need."""

    name: ClassVar[str] = "assign_layout"

    def run(self, graph: Graph) -> Graph:
        assert not graph.is_step
        return raised(Sinker(graph).run())
