"""Invariants of a graph. A broken one is an error that names the node and prints its surroundings."""

from __future__ import annotations

from edgec.errors import VerifyError
from edgec.ir.graph import Graph, Node
from edgec.ir.text import print_node, print_type


def surroundings(graph: Graph, index: int) -> str:
    """The nodes around one, the one marked."""
    rows = range(max(0, index - 2), min(len(graph.nodes), index + 3))
    return "\n".join(("  > " if k == index else "    ") + print_node(graph.nodes[k]) for k in rows)


def _node_problem(graph: Graph, node: Node, known: set[str], owned: set[str]) -> str | None:
    missing = [i for i in node.inputs if i not in known]
    if missing:
        return f"reads %{missing[0]}, which nothing before it defines"
    again = [o for o in node.outputs if o in known]
    if again:
        return f"defines %{again[0]} a second time"
    try:
        inferred = node.op.infer(graph.input_types(node))
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError) as err:
        return str(err) or type(err).__name__  # of attributes that are nothing of the kind the op has
    if inferred != node.types:
        expected, found = (", ".join(map(print_type, ts)) for ts in (inferred, node.types))
        return f"its operands give {expected}, the node says {found}"
    states = {s.name for s in graph.states}
    if not states.issuperset(node.states):
        return f"uses state %{(set(node.states) - states).pop()}, which the graph does not declare"
    if owned.intersection(node.states):
        return f"shares state %{owned.intersection(node.states).pop()} with another node"
    expected_states = len(node.op.state_types(graph.input_types(node))) if graph.is_step else 0
    if len(node.states) != expected_states:
        return f"expected {expected_states} states, found {len(node.states)}"
    return None


def verify(graph: Graph) -> None:
    """Check names, order, types and states; VerifyError on the first node that breaks one."""
    for name, const in graph.consts.items():
        if const.data.shape != const.type.shape:
            raise VerifyError(f"constant %{name}: data of shape {const.data.shape}, type {print_type(const.type)}")
        if const.type.dtype.is_narrow and const.data.size:
            (low, high), found = const.type.dtype.range, (int(const.data.min()), int(const.data.max()))
            if found[0] < low or found[1] > high:
                kind = const.type.dtype.value
                raise VerifyError(f"constant %{name}: {kind} holds {low} to {high}, found {found[0]} to {found[1]}")
    known = {v.name for v in graph.inputs} | set(graph.consts)
    owned: set[str] = set()
    for index, node in enumerate(graph.nodes):
        problem = _node_problem(graph, node, known, owned)
        if problem is not None:
            where = f" (from {'; '.join(node.source)})" if node.source else ""
            raise VerifyError(
                f"node %{node.outputs[0]} = {node.op.name}{where}: {problem}\n{surroundings(graph, index)}"
            )
        known.update(node.outputs)
        owned.update(node.states)
    if not graph.outputs:
        raise VerifyError("the graph returns nothing")
    missing = [o for o in graph.outputs if o not in known]
    if missing:
        raise VerifyError(f"the graph returns %{missing[0]}, which nothing defines")
