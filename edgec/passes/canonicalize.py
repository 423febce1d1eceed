"""The canonical form, in which every other pass finds a graph: each tensor computed once, in the plainest way.

    nodes whose operands are all constants        ->  constants
    nodes that change nothing (x + 0, a permute and its inverse, a mean of one element)  ->  their operand
    two moves or clamps in a row                  ->  one
    x - c, x / 2, c + x                           ->  x + -c, x * 0.5, x + c
    the same op on the same operands, or on equal constants  ->  one node

What an op simplifies to stands in its class (`equals`, `simplified`, `following`). No number changes but the sign of
a zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
import torch

from edgec.ir.evaluate import as_tensor
from edgec.ir.graph import Const, Graph, Node, numbered
from edgec.ir.types import DType, TensorType
from edgec.ops.base import Array, Site
from edgec.passes.base import Pass

#: elements of a constant that may be larger than what it is computed from
LARGEST = 1 << 24


def computed(node: Node, consts: dict[str, Const]) -> dict[str, Const]:
    """The outputs of a node whose operands are constants, as constants."""
    with torch.no_grad():
        outs, _ = node.op.run([as_tensor(consts[i].data, consts[i].type) for i in node.inputs], ())
    results = {}
    for name, t, value in zip(node.outputs, node.types, outs, strict=True):
        dtype = "int8" if t.dtype is DType.BIT else t.dtype.storage
        results[name] = Const(np.ascontiguousarray(value.numpy().astype(dtype)).reshape(t.shape), t)
    return results


@dataclass
class Rewriter:
    """One run over a graph in execution order; the operands of a node are in their final form when it is met.

    `same` are tensors that equal another one, `kept` those of them that are computed all the same, `seen` the outputs
    of each computation so far, `lines` the source lines of each node of `nodes`.
    """

    graph: Graph
    consts: dict[str, Const]
    labels: dict[str, Hashable]  # of constants: equal for equal ones
    types: dict[str, TensorType]
    used: set[str]
    readers: Counter[str]
    nodes: list[Node] = field(default_factory=list)
    lines: list[dict[str, None]] = field(default_factory=list)
    at: dict[str, int] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    seen: dict[Hashable, tuple[str, ...]] = field(default_factory=dict)
    replaced: dict[Hashable, str] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph) -> Rewriter:
        types = {v.name: v.type for v in graph.inputs} | {n: c.type for n, c in graph.consts.items()}
        used = set(types) | {o for n in graph.nodes for o in n.outputs}
        readers = Counter(i for n in graph.nodes for i in n.inputs) + Counter(graph.outputs)
        return cls(graph, dict(graph.consts), {}, types, used, readers)

    def run(self) -> Graph:
        for node in self.graph.nodes:
            self.visit(replace(node, inputs=tuple(self.same.get(i, i) for i in node.inputs)))
        nodes = [replace(n, source=tuple(lines)) for n, lines in zip(self.nodes, self.lines, strict=True)]
        return self.with_outputs(replace(self.graph, consts=self.consts, nodes=tuple(nodes))).prune_unused()

    def visit(self, node: Node) -> None:
        if self.is_fixed(node):
            made = computed(node, self.consts)
            self.consts |= made
            self.types |= {name: const.type for name, const in made.items()}
            return
        while (operand := self.operand(node)) is None:
            plainer = self.simplified(node) or self.merged(node)
            if plainer is None:
                break
            node = plainer
        if operand is not None:
            self.replace(node, (operand,))
        elif (twin := self.seen.get(self.key(node))) is not None:
            self.replace(node, twin)
            self.lines[self.at[twin[0]]] |= dict.fromkeys(node.source)
        else:
            self.seen[self.key(node)] = node.outputs
            self.append(node)

    def is_fixed(self, node: Node) -> bool:
        """Whether a node's outputs are constants that do not outgrow what they are computed from."""
        if not all(i in self.consts for i in node.inputs):
            return False
        size = sum(self.types[i].size for i in node.inputs)
        return sum(t.size for t in node.types) <= max(LARGEST, size)

    def site(self, node: Node) -> Site:
        consts = {k: self.consts[i].data for k, i in enumerate(node.inputs) if i in self.consts}
        return Site(tuple(self.types[i] for i in node.inputs), node.types, consts=consts)

    def operand(self, node: Node) -> str | None:
        """The operand that a node's output equals."""
        place = node.op.equals(self.site(node))
        same = place is not None and self.types[node.inputs[place]] == node.types[0]
        return node.inputs[place] if place is not None and same else None

    def simplified(self, node: Node) -> Node | None:
        """The node by its op's plainer form."""
        form = node.op.simplified(self.site(node))
        if form is None:
            return None
        new = {k: self.const(node.inputs[k], values) for k, values in form.values.items()}
        return self.typed(node, form.op, [new.get(k, node.inputs[k]) for k in form.operands])

    def merged(self, node: Node) -> Node | None:
        """The node and the one before it as one."""
        before = self.nodes[self.at[node.inputs[0]]] if node.inputs[0] in self.at else None
        if before is None or len(node.inputs) != 1 or len(before.outputs) != 1:
            return None
        op = node.op.following(before.op, before.type, self.readers[before.output] == 1)
        if op is None:
            return None
        lines = tuple(self.lines[self.at[before.output]] | dict.fromkeys(node.source))
        self.readers.update(before.inputs)
        return self.typed(replace(node, source=lines), op, before.inputs)

    def typed(self, node: Node, op: Any, inputs: Sequence[str]) -> Node | None:
        """The node with another op on other operands, where its type stays what it is."""
        try:
            types = tuple(op.infer([self.types[i] for i in inputs]))
        except ValueError:
            return None
        return replace(node, op=op, inputs=tuple(inputs)) if types == node.types else None

    def const(self, old: str, data: Array) -> str:
        """A constant in place of another."""
        t = self.consts[old].type
        key = (old, data.tobytes())
        if key not in self.replaced:
            name = next(n for n in numbered(old) if n not in self.used)
            self.used.add(name)
            t = replace(t, quant=None)  # on no grid any more
            self.consts[name], self.types[name] = Const(data.astype(t.dtype.storage), t), t
            self.replaced[key] = name
        return self.replaced[key]

    def label(self, name: str) -> Hashable:
        """What a tensor is known by: its name; of a constant its type and values."""
        if name in self.consts and name not in self.labels:
            const = self.consts[name]
            self.labels[name] = (const.type, sha256(const.data.tobytes()).digest())
        return self.labels.get(name, name)

    def key(self, node: Node) -> Hashable:
        """Equal for nodes that compute the same."""
        op, operands = node.op, [self.label(i) for i in node.inputs]
        axis = getattr(op, "axis", 0)
        if isinstance(axis, int) and axis < 0:
            op = replace(op, axis=axis + len(self.types[node.inputs[0]].shape))
        return op, frozenset(Counter(operands).items()) if op.commutes else tuple(operands), node.types

    def append(self, node: Node) -> None:
        self.at |= dict.fromkeys(node.outputs, len(self.nodes))
        self.types |= dict(zip(node.outputs, node.types, strict=True))
        self.nodes.append(node)
        self.lines.append(dict.fromkeys(node.source))

    def replace(self, node: Node, outputs: tuple[str, ...]) -> None:
        """Let the readers of a node read tensors that equal its own. A node stays where it is a result and they are no
        other node's: inputs or constants."""
        self.same |= dict(zip(node.outputs, outputs, strict=True))
        for old, new in zip(node.outputs, outputs, strict=True):
            self.readers[new] += self.readers[old]
        is_result = any(o in self.graph.outputs for o in node.outputs)
        if is_result and not all(o in self.at for o in outputs):
            self.kept.update(node.outputs)
            self.append(node)

    def with_outputs(self, graph: Graph) -> Graph:
        """A result that equals a tensor which is none gives it its name; two that are equal are one tensor."""
        outputs = [o if o in self.kept else self.same.get(o, o) for o in graph.outputs]
        names: dict[str, str] = {}
        for old, new in zip(graph.outputs, outputs, strict=True):
            if new != old and new not in graph.outputs:
                names.setdefault(new, old)
        if outputs == list(graph.outputs):
            return graph

        def renamed(tensors: Sequence[str]) -> tuple[str, ...]:
            return tuple(names.get(t, t) for t in tensors)

        nodes = tuple(replace(n, inputs=renamed(n.inputs), outputs=renamed(n.outputs)) for n in graph.nodes)
        results = graph.results or graph.outputs
        return replace(graph, nodes=nodes, outputs=renamed(outputs), results=results)


@dataclass(frozen=True)
class Canonicalize(Pass):
    """The canonical form of a whole-sequence graph, float or integer; see the module."""

    name: ClassVar[str] = "canonicalize"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph) -> Graph:
        assert not graph.is_step
        graph = graph.prune_unused()
        while True:  # what one run removes may leave another clamp alone: two or three runs
            plainer = Rewriter.of(graph).run()
            if plainer.nodes == graph.nodes and plainer.outputs == graph.outputs:
                return plainer
            graph = plainer
