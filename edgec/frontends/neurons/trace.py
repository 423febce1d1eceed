"""Trace a module with foreign neurons: while it is exported, each call of a neuron is one opaque operator."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgec.errors import FrontendError, join_problems
from edgec.frontends.neurons.specs import NeuronSpec, Unsupported, read_neuron


@torch.library.custom_op("edgec_trace::neuron", mutates_args=())
def neuron(x: Tensor, states: list[Tensor], path: str, results: int) -> list[Tensor]:
    """One frame of the neuron at `path`: spikes and new states. No states: the first frame. Only ever traced."""
    raise NotImplementedError("edgec_trace::neuron is traced, never run")


@neuron.register_fake
def _neuron_fake(x: Tensor, states: list[Tensor], path: str, results: int) -> list[Tensor]:
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(results)]


@torch.library.custom_op("edgec_trace::neuron_sequence", mutates_args=())
def neuron_sequence(x: Tensor, path: str, results: int) -> list[Tensor]:
    """All frames of the multi-step neuron at `path`, time on axis 0. Only ever traced."""
    raise NotImplementedError("edgec_trace::neuron_sequence is traced, never run")


@neuron_sequence.register_fake
def _neuron_sequence_fake(x: Tensor, path: str, results: int) -> list[Tensor]:
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(results)]


def find_neurons(module: nn.Module, name: str, prefix: str = "") -> dict[nn.Module, NeuronSpec]:
    """Every foreign neuron in a module; one FrontendError lists all that are not supported.

    prefix: of the paths, where the user's module is inside another.
    """
    specs, problems = {}, []
    for full, child in module.named_modules():
        path = f"{full}.".removeprefix(prefix).rstrip(".") or "neuron"
        try:
            spec = read_neuron(child, path)
        except Unsupported as err:
            problems.append(f"{path}: {err}")
            continue
        if spec is not None:
            specs[child] = spec
    if problems:
        raise FrontendError(join_problems(f"{name}: neurons that edgec cannot represent:", problems))
    return specs


class Tracer:
    """Replaces the forward of neuron modules. States live where the library keeps them, so user code can read them."""

    def __init__(self, specs: dict[nn.Module, NeuronSpec]) -> None:
        self.specs = specs
        self.memory: dict[tuple[nn.Module, str], Tensor | None] = {}

    def reset(self) -> None:
        """Every neuron as after its library's own reset."""
        for module, spec in self.specs.items():
            for state in self.all_states(spec):
                self.write(module, state, torch.zeros(0))

    def buffers(self) -> dict[tuple[nn.Module, str], Tensor | None]:
        """The states that libraries keep as buffers."""
        return {(m, n): m._buffers[n] for m, s in self.specs.items() for n in self.all_states(s) if n in m._buffers}

    def restore(self, kept: dict[tuple[nn.Module, str], Tensor | None]) -> None:
        for (module, name), value in kept.items():
            module._buffers[name] = value

    def all_states(self, spec: NeuronSpec) -> tuple[str, ...]:
        return ("spk",) * spec.takes_spikes + spec.states

    def read(self, module: nn.Module, state: str) -> Tensor | None:
        if state in module._buffers:
            return module._buffers[state]
        return self.memory.get((module, state))

    def write(self, module: nn.Module, state: str, value: Tensor) -> None:
        if state in module._buffers:
            module._buffers[state] = value
        else:
            self.memory[module, state] = value

    def forward(self, module: nn.Module, spec: NeuronSpec, x: Tensor, *given: Any, **named: Any) -> Any:
        """What the neuron's own forward returns, from one opaque call."""
        order = self.all_states(spec)
        passed = {**dict(zip(order, given, strict=False)), **named}
        passed = {k: v for k, v in passed.items() if v is not None}
        if passed and spec.hidden:
            raise FrontendError(
                f"{spec.path}: the neuron keeps its state (init_hidden), and forward passes {', '.join(passed)} too"
            )
        if spec.multi_step:
            return neuron_sequence(x, spec.path, len(spec.signals))[0]
        states = [passed.get(s, self.read(module, s)) for s in order]
        fresh = all(s is None or s.shape != x.shape for s in states)
        if not fresh:
            states = [torch.zeros_like(x) if s is None or s.shape != x.shape else s for s in states]
        results = neuron(x, [] if fresh else states, spec.path, 1 + len(spec.states))
        for state, value in zip(order, [results[0]] * spec.takes_spikes + results[1:], strict=True):
            self.write(module, state, value)
        return tuple(results) if spec.returns_states else results[0]


@contextmanager
def traced(root: nn.Module, specs: dict[nn.Module, NeuronSpec]) -> Iterator[None]:
    """While this lasts, calls of `root` trace its neurons as opaque operators, each call starting from reset states."""
    tracer = Tracer(specs)
    before = {module: module.__dict__.get("forward") for module in (root, *specs)}
    kept = tracer.buffers()
    try:
        tracer.reset()  # what an earlier call left would be exported as a weight
        for module, spec in specs.items():
            module.__dict__["forward"] = functools.partial(tracer.forward, module, spec)
        root.__dict__["forward"] = from_reset(root.forward, tracer)
        yield
    finally:
        tracer.restore(kept)
        for module, forward in before.items():
            del module.__dict__["forward"]
            if forward is not None:
                module.__dict__["forward"] = forward


def from_reset(original: Any, tracer: Tracer) -> Any:
    """The forward of the whole module, with its neurons reset before and their states put back after."""

    @functools.wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        kept = tracer.buffers()
        tracer.reset()
        try:
            return original(*args, **kwargs)
        finally:
            tracer.restore(kept)

    return forward
