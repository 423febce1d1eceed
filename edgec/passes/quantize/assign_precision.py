"""How many bits each layer with weights gets, for quantisation: a choice for all of them, and choices by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgec.bits import PRECISIONS, Bits, check_bits
from edgec.errors import InputError, join_problems, option
from edgec.ir.graph import Graph, Node
from edgec.ir.types import DType


def is_layer(graph: Graph, node: Node) -> bool:
    """Whether bits can be chosen for a node: weights that are real constants, one set for all groups of channels."""
    free = node.op.is_layer and not node.op.eight_bits and node.inputs[1] in graph.consts
    return free and graph.type_of(node.inputs[1]).quant is None


@dataclass(frozen=True)
class Assignment:
    """`weights` bits for every layer that reads int8, and a name of PRECISIONS for single layers."""

    weights: int = 8
    layers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_bits(self.weights, self.layers)

    @property
    def changes(self) -> bool:
        """Whether it asks for anything but int8."""
        return self.weights != 8 or bool(self.layers)

    def of(self, graph: Graph) -> dict[str, Bits]:
        """The bits of each layer by its output; InputError for a name that is no layer's."""
        layers = [n.output for n in graph.nodes if is_layer(graph, n)]
        for name in self.layers:
            if name not in layers:
                raise InputError(f"no layer {name!r} to choose bits for", hint=f"layers: {', '.join(layers) or 'none'}")
        return {n: PRECISIONS[self.layers[n]] if n in self.layers else Bits(self.weights) for n in layers}


def kept_wide(reference: Graph, integers: Graph, assignment: Assignment) -> dict[str, str]:
    """Layers of a float graph whose weights have 8 bits in its integer graph although fewer were asked for, and why.

    InputError where no layer got fewer: what was asked for would change nothing.
    """
    bits, kept, fewer = assignment.of(reference), dict[str, str](), 0
    for node in (n for n in reference.nodes if n.op.is_layer or n.op.eight_bits):
        if bits.get(node.output, Bits(assignment.weights)).weights == 8:
            continue
        reason = obstacle(node, reference, integers)
        fewer += not reason
        kept |= {node.output: reason} if reason else {}
    if assignment.weights < 8 and not fewer:
        reasons = [f"%{name}: {reason}" for name, reason in kept.items()] or ["there is no layer with weights"]
        raise InputError(
            join_problems(f"weights of {assignment.weights} bits were asked for, and no layer can have them:", reasons),
            hint=f"leave out {option('weights')}",
        )
    return kept


def obstacle(node: Node, reference: Graph, integers: Graph) -> str:
    """Why a layer's weights keep 8 bits in the integer graph; empty where they have fewer."""
    if node.op.eight_bits:
        return str(node.op.eight_bits)
    weights = node.inputs[1]
    if weights not in integers.consts:
        return "its weights are computed, not constant"
    if reference.type_of(weights).quant is not None:
        return "its weights come quantised to 8 bits"
    if integers.consts[weights].type.dtype.is_narrow:
        return ""
    (reader,) = integers.consumers(weights)[:1]
    x = integers.type_of(reader.inputs[0]).dtype
    return f"it reads {'spikes' if x is DType.BIT else x.value}, whose weights have 8 bits"
