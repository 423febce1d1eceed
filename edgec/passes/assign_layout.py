"""Remove permutes: move each one down through the ops that can run on the other layout, until it meets its inverse.

    op(permute(x, p))  ==  permute(op'(x), p)      with op' = op.permuted(p, types), constants permuted to fit

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
from edgec.ops.arithmetic import Affine
from edgec.ops.dense import Linear
from edgec.ops.elementwise import Elementwise, Unary
from edgec.ops.pool import Mean
from edgec.ops.shape import Permute, Reshape
from edgec.passes.base import Pass

Perm = tuple[int, ...]
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


def raised(graph: Graph) -> Graph:
    """Permutes of what arithmetic on the graph's inputs alone gives, as permutes of those inputs: a normalisation then
    has its channels last, as the layers around it."""
    early, arithmetic = {v.name for v in graph.inputs}, set[str]()
    for node in graph.nodes:
        computed = {i for i in node.inputs if i not in graph.consts}
        if isinstance(node.op, (Affine, Elementwise)) and computed and computed <= early:
            early.add(node.output)
            if not isinstance(node.op, Unary) or computed <= arithmetic:
                arithmetic.add(node.output)
    for name in [n.outputs[0] for n in reversed(graph.nodes) if n.outputs[0] in arithmetic]:
        perms = {n.op.perm if isinstance(n.op, Permute) else None for n in graph.consumers(name)}
        if len(perms) == 1 and (perm := perms.pop()) is not None and name not in graph.outputs:
            graph = swapped(graph, name, perm)
    return graph.prune_unused()


def swapped(graph: Graph, name: str, perm: Perm) -> Graph:
    """The graph with an elementwise op on permuted operands in place of the permutes that read it."""
    node = graph.producer(name)
    assert node is not None
    operands = node.inputs[:1] if isinstance(node.op, Affine) else node.inputs
    if any(len(graph.type_of(i).shape) != len(perm) for i in operands if i not in graph.consts):
        return graph
    fresh, consts, nodes = graph.fresh(f"{name}_permuted"), dict(graph.consts), list[Node]()
    inputs = list[str]()
    for operand in operands:
        new, t = next(fresh), graph.type_of(operand)
        inputs.append(new)
        if operand in consts:
            data = consts[operand].data.reshape((1,) * (len(perm) - len(t.shape)) + t.shape).transpose(perm)
            consts[new] = Const(np.ascontiguousarray(data), TensorType(data.shape, t.dtype))
        else:
            nodes.append(Node(Permute(perm), (operand,), (new,), Permute(perm).infer([t]), node.source))
    op = node.op.permuted(inverse(perm), [TensorType((1,) * len(perm)) for _ in operands])
    types = Permute(perm).infer([node.type])
    nodes.append(replace(node, op=op, inputs=(*inputs, *node.inputs[len(operands) :]), types=types))
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
        if isinstance(node.op, Permute):
            base, perm = self.split(node.inputs[0])
            self.pending[node.output] = (base, compose(perm, node.op.perm))
            return
        if isinstance(node.op, Reshape) and (self.is_same(node) or self.sink_reshape(node)):
            return
        perms = {self.pending[i][1] for i in node.inputs if i in self.pending and not is_identity(self.pending[i][1])}
        if len(perms) == 1 and len(node.outputs) == 1 and self.sink(node, perms.pop()):
            return
        self.emit(node.op, tuple(self.whole(i, node) for i in node.inputs), node)

    def is_same(self, node: Node) -> bool:
        """A reshape to the same type is its operand."""
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
        if name not in self.made and (base, perm) in self.copies:
            self.made[name] = self.copies[base, perm]
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
        self.consts[name] = Const(np.ascontiguousarray(data), TensorType(data.shape, self.consts[stem].type.dtype))
        self.types[name] = self.consts[name].type
        return name

    def sink(self, node: Node, perm: Perm) -> bool:
        """Run the node on the layout before `perm`; False where it has to see the permuted one."""
        if isinstance(node.op, Mean):
            return self.sink_mean(node, perm)
        if not hasattr(node.op, "permuted"):
            return False
        operands = node.inputs[:1] if isinstance(node.op, Affine) else node.inputs
        plans = [self.operand(i, perm, isinstance(node.op, Elementwise)) for i in operands]
        if any(p is None for p in plans):
            return False
        op = node.op.permuted(perm, [TensorType((1,) * len(perm)) for _ in operands])
        if op is None:
            return False
        inputs = tuple(self.realise(i, perm, plan, node) for i, plan in zip(operands, plans, strict=True))
        self.emit(op, (*inputs, *node.inputs[len(operands) :]), node)
        self.pending[node.output] = (node.output, perm)
        return True

    def operand(self, name: str, perm: Perm, broadcasts: bool) -> str | None:
        """How to get an operand in the layout before `perm`: as is, a changed constant, a view, or not at all."""
        base, own = self.split(name)
        if own == perm and name in self.pending:
            return "base"
        t = self.types[base]
        if broadcasts and t.size == 1 and t.time_axis is None:
            return "single"
        if name in self.consts and (broadcasts or len(t.shape) == len(perm)):
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

    def sink_mean(self, node: Node, perm: Perm) -> bool:
        """mean(permute(x), k) = permute(mean(x, perm[k])) with the axis gone from both."""
        axis = perm[node.op.axis]
        self.emit(replace(node.op, axis=axis), (self.split(node.inputs[0])[0],), node)
        left = tuple(p - (p > axis) for p in perm if p != axis)
        self.pending[node.output] = (node.output, left)
        return True

    def sink_reshape(self, node: Node) -> bool:
        """A permute that moves no bytes joins the reshape; one before a flattening goes into the linear layers."""
        base, perm = self.split(node.inputs[0])
        t, shape = self.types[base], node.op.shape
        if is_identity(perm):
            return False
        if is_free(perm, t.shape):
            self.emit(node.op, (base,), node)
            return True
        readers = [n for n in self.graph.nodes if node.output in n.inputs]
        keeps_rows = perm[0] == 0 and len(shape) == 2 and shape[0] == t.shape[0]
        folds = all(
            isinstance(n.op, Linear) and n.inputs[0] == node.output and n.inputs[1] in self.consts for n in readers
        )
        if not (keeps_rows and folds and readers) or node.output in self.graph.outputs:
            return False
        self.emit(node.op, (base,), node)
        order = np.arange(shape[1]).reshape(t.shape[1:]).transpose([p - 1 for p in perm[1:]]).reshape(-1)
        self.shuffle_weights(readers, order)
        return True

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
