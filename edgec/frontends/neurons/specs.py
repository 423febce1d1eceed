"""The spiking neurons of snnTorch 1.0 and spikingjelly 0.0.0.0.14: what edgec reads off a module, and what it refuses.

Libraries are recognised by the module names of their classes and never imported here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgec.frontends.neurons.overrides import overrides
from edgec.ops.neurons.lif import Lif
from edgec.ops.neurons.snntorch import AlphaNeuron, SnnTorchNeuron

Array = npt.NDArray[Any]

SNNTORCH = "snntorch._neurons"
SPIKINGJELLY = ("spikingjelly.activation_based.neuron", "spikingjelly.clock_driven.neuron")
BASES = ("SpikingNeuron", "LIF", "BaseNode", "AdaptBaseNode", "AdaptiveBaseNode")  # classes that neurons are made from
RESET_FUNCTIONS = {"_base_sub": "subtract", "_base_zero": "zero", "_base_int": "none"}


@dataclass(frozen=True)
class NeuronSpec:
    """One neuron module. `states` are its state variables in the order it returns them, spikes not among them.

    `op` makes the IR op for the signals that are read; `params` are its operands after x, each broadcastable to a
    frame, `weights` further operands taken as they are; `gains` scale x first, one rounding each.
    """

    path: str
    states: tuple[str, ...]
    signals: tuple[str, ...]
    op: Any
    params: tuple[tuple[str, Array], ...]
    weights: tuple[tuple[str, Array], ...] = ()
    gains: tuple[float, ...] = ()
    takes_spikes: bool = False  # the spikes are a state the caller passes back (snnTorch's RLeaky, RSynaptic)
    returns_states: bool = True
    hidden: bool = False
    multi_step: bool = False


class Unsupported(Exception):
    """A neuron that is recognised but not supported, with the reason."""


def neuron_class(module: nn.Module) -> tuple[str, type] | None:
    """(library, class) of a neuron module of a known library, one of `BASES` for a user's own; None for others."""
    for cls in type(module).__mro__:
        if cls.__module__.startswith(SNNTORCH) and cls.__name__ != "RecurrentOneToOne":
            return "snntorch", cls
        if cls.__module__ in SPIKINGJELLY:
            return "spikingjelly", cls
    return None


def read_neuron(module: nn.Module, path: str) -> NeuronSpec | None:
    """The spec of a neuron module, None for another module; Unsupported for a neuron edgec cannot represent."""
    found = neuron_class(module)
    if found is None:
        return None
    library, cls = found
    readers = SNNTORCH_READERS if library == "snntorch" else SPIKINGJELLY_READERS
    if cls.__name__ not in readers:
        own = f"{type(module).__name__}, a neuron of your own made from " if cls.__name__ in BASES else ""
        known = ", ".join(sorted(readers))
        raise Unsupported(f"{own}{library}'s {cls.__name__} is not supported; supported are {known}")
    changes = overrides(module, cls)
    if changes:
        raise Unsupported(f"it is no longer {library}'s {cls.__name__}: {'; '.join(changes)}")
    spec: NeuronSpec = readers[cls.__name__](module, path)
    return spec


def values(value: Any) -> Array:
    """A parameter, buffer or number as float32."""
    return torch.as_tensor(value).detach().cpu().float().numpy()


def check_snntorch(module: Any) -> str:
    """Refuse what no op represents; the reset mechanism otherwise."""
    problems = []
    if module.inhibition:
        problems.append("inhibition=True: neurons of a layer see each other")
    if module.state_quant:
        problems.append("state_quant: the membrane is rounded to a few levels")
    factor = module.graded_spikes_factor
    if not bool((torch.as_tensor(factor) == 1).all()):
        problems.append(f"graded_spikes_factor {values(factor).tolist()}: spikes must be 0 or 1")
    if not bool((torch.as_tensor(module.threshold) > 0).all()):
        problems.append(f"threshold {values(module.threshold).tolist()}: it must be positive")
    reset = RESET_FUNCTIONS.get(getattr(module.state_function, "__name__", ""))
    stored = ("subtract", "zero", "none")[int(module.reset_mechanism_val)]
    if reset != stored:
        problems.append(
            f"reset mechanism {reset!r} of the module, {stored!r} of its buffer: build it as it was trained"
        )
    problems += check_heaviside(module.spike_grad)
    if problems:
        raise Unsupported("; ".join(problems))
    return stored


def check_heaviside(function: Any, at_zero: bool = False) -> list[str]:
    """The forward of a surrogate gradient must be the step at 0; a stochastic one is not. at_zero: 0 spikes."""
    probe = torch.arange(-200, 201) / 100
    step = (probe >= 0 if at_zero else probe > 0).float()
    with torch.no_grad():
        same = all(torch.equal(function(probe).float(), step) for _ in range(3))
    return [] if same else [f"its spike function is not the step `membrane {'>=' if at_zero else '>'} threshold`"]


def clamped(module: Any, name: str) -> tuple[str, Array]:
    """A decay as snnTorch uses it: clamped to 0..1."""
    return name, np.clip(values(getattr(module, name)), 0, 1).astype(np.float32)


def common(module: Any, states: tuple[str, ...]) -> dict[str, Any]:
    """Spec fields every snnTorch neuron has. snnTorch returns the states unless they are hidden."""
    returned = bool(module.output or not module.init_hidden)
    return {"states": states, "returns_states": returned, "hidden": bool(module.init_hidden)}


def leaky(module: Any, path: str) -> NeuronSpec:
    """Leaky: beta V + X."""
    reset, late = check_snntorch(module), bool(module.reset_delay)
    params = (clamped(module, "beta"), ("threshold", values(module.threshold)))
    if reset == "subtract" and not late:
        # the membrane may stay above the threshold, and then snnTorch subtracts at the next frame as well
        op: Any = SnnTorchNeuron(reset="subtract", delayed_reset=False)
        return NeuronSpec(path, signals=("spikes", "membrane"), op=op, params=params, **common(module, ("mem",)))
    kind = {"subtract": "subtract", "zero": "hard", "none": "none"}[reset]
    op = Lif(decay_input=False, reset=kind, strict=True, delayed_reset=late and reset != "none")
    return NeuronSpec(path, signals=("spikes", "membrane"), op=op, params=params, **common(module, ("mem",)))


def lapicque(module: Any, path: str) -> NeuronSpec:
    """input * R * (1 / (R C)) * dt + (1 - dt / (R C)) * membrane: a leaky neuron behind gains."""
    reset = check_snntorch(module)
    r, c, dt = (torch.as_tensor(getattr(module, n)).detach().float() for n in ("R", "C", "time_step"))
    if any(t.numel() != 1 for t in (r, c, dt)):
        raise Unsupported("R, C or time_step per neuron")
    beta = 1 - dt / (r * c)
    gains = tuple(float(g) for g in (r, 1 / (r * c), dt) if float(g) != 1.0)
    params = (("beta", values(beta).reshape(-1)), ("threshold", values(module.threshold)))
    op: Any = Lif(decay_input=False, reset=reset, strict=True, delayed_reset=reset == "subtract")
    if reset == "zero":
        op = SnnTorchNeuron(reset="zero")
    return NeuronSpec(
        path, signals=("spikes", "membrane"), op=op, params=params, gains=gains, **common(module, ("mem",))
    )


def synaptic(module: Any, path: str) -> NeuronSpec:
    """Synaptic: a current alpha I + X drives the membrane beta V + I."""
    op = SnnTorchNeuron(synapse=True, reset=check_snntorch(module), delayed_reset=bool(module.reset_delay))
    params = (clamped(module, "beta"), ("threshold", values(module.threshold)), clamped(module, "alpha"))
    signals = ("spikes", "current", "membrane")
    return NeuronSpec(path, signals=signals, op=op, params=params, **common(module, ("syn", "mem")))


def alpha(module: Any, path: str) -> NeuronSpec:
    """Alpha: an excitatory and an inhibitory current; tau as snnTorch computes it."""
    op = AlphaNeuron(reset=check_snntorch(module))
    a, b = (torch.as_tensor(getattr(module, n)).detach().clamp(0, 1) for n in ("alpha", "beta"))
    tau = torch.log(a) / (torch.log(b) - torch.log(a)) + 1
    if not bool(torch.isfinite(tau).all()):
        raise Unsupported("alpha or beta of 0 or 1, for which snnTorch's own formula is not finite")
    params = (("alpha", values(a)), ("beta", values(b)), ("tau", values(tau)), ("threshold", values(module.threshold)))
    signals = ("spikes", "excitatory", "inhibitory", "membrane")
    return NeuronSpec(path, signals=signals, op=op, params=params, **common(module, ("syn_exc", "syn_inh", "mem")))


def feedback(module: Any) -> tuple[str, tuple[tuple[str, Array], ...], tuple[tuple[str, Array], ...]]:
    """Kind of recurrence, its per-channel operand and its weights."""
    if not module.all_to_all:
        return "one_to_one", (("V", values(module.recurrent.V)),), ()
    if not isinstance(module.recurrent, nn.Linear):
        raise Unsupported("recurrence through a convolution; use linear_features or all_to_all=False")
    w = values(module.recurrent.weight)
    bias = np.zeros(w.shape[0], np.float32) if module.recurrent.bias is None else values(module.recurrent.bias)
    return "all_to_all", (), (("recurrent.weight", w.T), ("recurrent.bias", bias))


def rleaky(module: Any, path: str) -> NeuronSpec:
    """RLeaky: Leaky with its own spikes fed back."""
    kind, extra, weights = feedback(module)
    op = SnnTorchNeuron(feedback=kind, reset=check_snntorch(module), delayed_reset=bool(module.reset_delay))
    params = (clamped(module, "beta"), ("threshold", values(module.threshold)), *extra)
    fields = common(module, ("mem",))
    return NeuronSpec(
        path, signals=("spikes", "membrane"), op=op, params=params, weights=weights, takes_spikes=True, **fields
    )


def rsynaptic(module: Any, path: str) -> NeuronSpec:
    """RSynaptic: Synaptic with its own spikes fed back."""
    kind, extra, weights = feedback(module)
    if not module.reset_delay:
        raise Unsupported("reset_delay=False of RSynaptic, which snnTorch 1.0 computes and then drops")
    op = SnnTorchNeuron(synapse=True, feedback=kind, reset=check_snntorch(module))
    params = (clamped(module, "beta"), ("threshold", values(module.threshold)), clamped(module, "alpha"), *extra)
    fields, signals = common(module, ("syn", "mem")), ("spikes", "current", "membrane")
    return NeuronSpec(path, signals=signals, op=op, params=params, weights=weights, takes_spikes=True, **fields)


def spikingjelly(module: Any, path: str) -> NeuronSpec:
    """IF, LIF and parametric LIF: charge, fire at H >= threshold, reset in the same frame.

    The leak is (X - V) / tau there and (X - V) * (1 - beta) here: the same bits where tau is a power of two.
    """
    problems = check_heaviside(module.surrogate_function, at_zero=True)
    if getattr(module.surrogate_function, "spiking", True) is not True:
        problems.append("surrogate_function.spiking is False: the output is no spike")
    found = neuron_class(module)
    assert found is not None
    kind = found[1].__name__
    beta, decays, leaks = 1.0, False, "IF" not in kind or "LIF" in kind
    if leaks:
        beta = 1.0 - (float(torch.sigmoid(module.w.detach())) if hasattr(module, "w") else 1.0 / float(module.tau))
        decays = bool(getattr(module, "decay_input", True))
    v_reset, start = module.v_reset, module._memories_rv.get("v")
    if start != (v_reset or 0.0):
        problems.append(f"a membrane that starts at {start}, expected {v_reset or 0.0}")
    if leaks and v_reset not in (None, 0.0):
        problems.append(f"v_reset {v_reset} with a leak; only 0 or None")
    if problems:
        raise Unsupported("; ".join(problems))
    op = Lif(decay_input=decays, reset="subtract" if v_reset is None else "hard", v_reset=float(v_reset or 0.0))
    params = (("beta", np.array([beta], np.float32)), ("threshold", np.array([module.v_threshold], np.float32)))
    many = kind.startswith("MultiStep") or getattr(module, "step_mode", "s") == "m"
    return NeuronSpec(
        path, ("v",), ("spikes", "membrane"), op, params, returns_states=False, hidden=True, multi_step=many
    )


SNNTORCH_READERS: dict[str, Any] = {
    "Alpha": alpha,
    "Lapicque": lapicque,
    "Leaky": leaky,
    "RLeaky": rleaky,
    "RSynaptic": rsynaptic,
    "Synaptic": synaptic,
}
SPIKINGJELLY_READERS: dict[str, Any] = {
    "IFNode": spikingjelly,
    "LIFNode": spikingjelly,
    "MultiStepIFNode": spikingjelly,
    "MultiStepLIFNode": spikingjelly,
    "MultiStepParametricLIFNode": spikingjelly,
    "ParametricLIFNode": spikingjelly,
}
