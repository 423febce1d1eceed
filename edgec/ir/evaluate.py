"""Run a graph on the ops' torch references."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from edgec.ir.graph import Graph, Node
from edgec.ir.types import DType, TensorType

Tensors = dict[str, torch.Tensor]


def as_tensor(data: np.ndarray[tuple[int, ...], np.dtype[np.generic]] | torch.Tensor, t: TensorType) -> torch.Tensor:
    """Data in the form references compute in: float32, bool, or int64 for every integer type and for spikes."""
    tensor = data if isinstance(data, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(data))
    return tensor.to({DType.F32: torch.float32, DType.BOOL: torch.bool}.get(t.dtype, torch.int64))


def initial_states(graph: Graph) -> Tensors:
    """Every state at its initial value."""
    return {
        s.name: torch.full(s.type.shape, s.init, dtype=torch.float32 if s.type.dtype is DType.F32 else torch.int64)
        for s in graph.states
    }


def evaluate_all(
    graph: Graph,
    inputs: Mapping[str, torch.Tensor],
    states: Tensors | None = None,
    active: Sequence[bool] | None = None,
) -> Tensors:
    """Every tensor of the graph by name. A step graph reads and updates `states`; `active` says which nodes run."""
    values: Tensors = {n: as_tensor(c.data, c.type) for n, c in graph.consts.items()}
    for v in graph.inputs:
        values[v.name] = as_tensor(inputs[v.name], v.type)
    for index, node in enumerate(graph.nodes):
        if active is not None and not active[index]:
            continue
        run_node(node, values, states)
    return values


def run_node(node: Node, values: Tensors, states: Tensors | None) -> None:
    """One node, in place in `values` and `states`."""
    old = [states[s] for s in node.states] if states is not None else []
    outs, new = node.op.run([values[i] for i in node.inputs], old)
    values.update(zip(node.outputs, outs, strict=True))
    if states is not None and node.states:
        states.update(zip(node.states, new, strict=True))


def evaluate(graph: Graph, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Outputs of a whole-sequence graph."""
    with torch.no_grad():
        values = evaluate_all(graph, inputs)
    return tuple(values[o] for o in graph.outputs)


class StepRunner:
    """A step graph on its references, frame by frame: the oracle for the generated C. A graph that takes a whole window
    is one with a single frame. `after` sees each node that ran and all tensors so far, and may replace them."""

    def __init__(self, graph: Graph, after: Callable[[Node, Tensors], None] | None = None) -> None:
        self.graph, self.after = graph, after
        self.consts = {n: as_tensor(c.data, c.type) for n, c in graph.consts.items()}
        self.reset()

    def reset(self) -> None:
        self.states = initial_states(self.graph)
        self.values: Tensors = {}
        self.frame = 0
        self.flushed = 0

    def step(self, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...] | None:
        """Feed one frame; the outputs, or None while the delay has not passed."""
        assert self.flushed == 0, "reset before the next sequence"
        out = self._run(dict(inputs))
        self.frame += 1
        return out

    def flush(self) -> tuple[torch.Tensor, ...] | None:
        """One more output after the end of the input; None when nothing is left."""
        while self.flushed < self.graph.flush_steps:
            self.flushed += 1
            out = self._run({})
            self.frame += 1
            if out is not None:
                return out
        self.flushed = max(1, self.flushed)  # where nothing was left the sequence has ended all the same
        return None

    def run(self, inputs: Mapping[str, torch.Tensor]) -> Iterator[tuple[torch.Tensor, ...]]:
        """All outputs for whole input sequences, flush included."""
        first = self.graph.inputs[0]
        axis, hop = first.type.time_axis, first.type.frames
        assert axis is not None
        assert hop is not None
        frames = inputs[first.name].shape[axis] // hop
        for t in range(frames):
            piece = {
                v.name: inputs[v.name].narrow(v.type.time_axis or 0, t * (v.type.frames or 1), v.type.frames or 1)
                for v in self.graph.inputs
            }
            out = self.step(piece)
            if out is not None:
                yield out
        while (out := self.flush()) is not None:
            yield out

    def is_active(self, first: int, last: int, period: int) -> bool:
        """Whether a node with this When runs now."""
        return self.frame >= first and self.flushed <= last and (self.frame - first) % period == 0

    def _run(self, values: Tensors) -> tuple[torch.Tensor, ...] | None:
        graph = self.graph
        values = {
            **self.consts,
            **{v.name: as_tensor(values[v.name], v.type) for v in graph.inputs if v.name in values},
        }
        with torch.no_grad():
            for node in graph.nodes:
                if not self.is_active(node.when.first, node.when.last, node.when.period):
                    continue
                for name, t in zip(node.inputs, graph.input_types(node), strict=True):
                    if name not in values:  # the end of the sequence has passed this tensor: padding follows it
                        fill = getattr(node.op, "fill", 0)
                        values[name] = as_tensor(torch.full(t.shape, fill), t)
                run_node(node, values, self.states)
                if self.after is not None:
                    self.after(node, values)
        self.values = values
        return tuple(values[o] for o in graph.outputs) if all(o in values for o in graph.outputs) else None
