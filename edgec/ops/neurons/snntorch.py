"""snnTorch's neurons beyond the plain leaky one, in its own order of float operations.

All fire when the membrane is above (not at) the threshold. The reset comes one frame late, computed from the old
membrane r = V > threshold, unless said otherwise. Source: snnTorch 1.0's Leaky, Lapicque, Synaptic, Alpha, RLeaky and
RSynaptic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from edgec.ir.types import TensorType
from edgec.ops.base import Cost, Kernel, Op, Site, need
from edgec.ops.neurons.lif import frames_of

Tensors = tuple[torch.Tensor, ...]
RESETS = ("subtract", "zero", "none")
FEEDBACKS = ("none", "one_to_one", "all_to_all")


def one_frame(x: TensorType) -> TensorType:
    """The type of a state: one frame of x."""
    return replace(x, shape=tuple(1 if k == x.time_axis else n for k, n in enumerate(x.shape)), time_axis=None)


@dataclass(frozen=True)
class SequenceNeuron(Op):
    """A neuron over the time axis of x, the last but one. `outputs` names the sequences it gives, spikes first."""

    signals: ClassVar[tuple[str, ...]] = ()
    outputs: tuple[str, ...] = ("spikes",)

    def axes(self, types: Sequence[TensorType]) -> str:
        return "...(t)c" + ",c" * (len(types) - 1) + "->" + ",".join(["...tc"] * len(self.outputs))

    def check(self, types: Sequence[TensorType], per_channel: Sequence[str]) -> None:
        x = types[0]
        need(
            x.time_axis is not None and x.time_axis == len(x.shape) - 2,
            "the neuron's time axis must be the last but one",
        )
        need(set(self.outputs) <= set(self.signals), f"expected outputs among {self.signals}, found {self.outputs}")
        for label, t in zip(per_channel, types[1:], strict=False):
            need(
                t.shape in ((1,), (x.shape[-1],)),
                f"expected {label} of shape (1,) or ({x.shape[-1]},), found {t.shape}",
            )

    def run(self, tensors: Sequence[torch.Tensor], states: Sequence[torch.Tensor] = ()) -> tuple[Tensors, Tensors]:
        x, axis = tensors[0], tensors[0].ndim - 2
        now: Tensors = tuple(states) or tuple(torch.zeros_like(x.narrow(axis, 0, 1)) for _ in self.state_names())
        frames = []
        for frame in frames_of(x, axis):
            signals, now = self.step(frame, now, *tensors[1:])
            frames.append(signals)
        return tuple(torch.cat([f[self.signals.index(o)] for f in frames], axis) for o in self.outputs), now

    def state_names(self) -> tuple[str, ...]:
        raise NotImplementedError

    def state_types(self, types: Sequence[TensorType]) -> tuple[tuple[TensorType, float], ...]:
        return tuple((one_frame(types[0]), 0.0) for _ in self.state_names())

    def step(self, x: torch.Tensor, states: Tensors, *params: torch.Tensor) -> tuple[Tensors, Tensors]:
        """One frame: the values of `signals` in order, and the new states."""
        raise NotImplementedError


@dataclass(frozen=True)
class SnnTorchNeuron(SequenceNeuron):
    """x, beta, threshold [, alpha] [, v | w, bias] -> spikes [, membrane, current].

    With synapse: I = alpha I + X, H = beta V + I; without: H = beta V + X. Feedback of the last frame's spikes S is
    added to X: v * S (one_to_one, v [1] or [C]) or S w + bias (all_to_all, w [C,C]). Reset by r = V > threshold:
    subtract: H - r * threshold; zero: 0 where r (the input of that frame is lost). Without delayed_reset the membrane
    is then corrected in the same frame: H - (S - r) * threshold, or H - (S - r) * H.
    """

    name: ClassVar[str] = "snntorch_neuron"
    examples: ClassVar[tuple[str, ...]] = (
        "float32[1,5,3] t1, float32[3], float32[1] {outputs=('spikes','membrane')}",
        "float32[1,5,3] t1, float32[1], float32[3], float32[3], float32[1] {synapse=True,feedback='one_to_one'}",
        "float32[1,5,3] t1, float32[1], float32[3], float32[3,3], float32[3] {feedback='all_to_all'}",
    )
    signals: ClassVar[tuple[str, ...]] = ("spikes", "membrane", "current")
    synapse: bool = False
    feedback: str = "none"
    reset: str = "subtract"
    delayed_reset: bool = True

    def axes(self, types: Sequence[TensorType]) -> str:
        if self.feedback != "all_to_all":
            return super().axes(types)
        return "...(t)i" + ",j" * (len(types) - 3) + ",jk,k->" + ",".join(["...tc"] * len(self.outputs))

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        need(self.reset in RESETS, f"expected reset one of {RESETS}, found {self.reset!r}")
        need(self.feedback in FEEDBACKS, f"expected feedback one of {FEEDBACKS}, found {self.feedback!r}")
        expected = 3 + self.synapse + FEEDBACKS.index(self.feedback)
        need(len(types) == expected, f"expected {expected} operands, found {len(types)}")
        need(self.synapse or "current" not in self.outputs, "a neuron without synapse has no current")
        labels = ["beta", "threshold"] + ["alpha"] * self.synapse + ["v"] * (self.feedback == "one_to_one")
        self.check(types, labels)
        c = types[0].shape[-1]
        if self.feedback == "all_to_all":
            w, bias = types[-2:]
            need(
                w.shape == (c, c) and bias.shape == (c,),
                f"expected w ({c},{c}) and bias ({c},), found {w.shape} and {bias.shape}",
            )
        return (types[0],) * len(self.outputs)

    def state_names(self) -> tuple[str, ...]:
        return ("membrane",) + ("current",) * self.synapse + ("spikes",) * (self.feedback != "none")

    def step(self, x: torch.Tensor, states: Tensors, *params: torch.Tensor) -> tuple[Tensors, Tensors]:
        beta, threshold, *rest = params
        v, current, back = states[0], states[1] if self.synapse else x, states[-1]
        decayed = rest.pop(0) * current if self.synapse else beta * v
        h = decayed + x
        if self.feedback == "one_to_one":
            h = h + back * rest[0]
        elif self.feedback == "all_to_all":
            h = h + (back @ rest[0] + rest[1])
        current = h
        if self.synapse:
            h = beta * v + current
        r = (v > threshold).to(x.dtype)
        if self.reset == "subtract":
            h = h - r * threshold
        elif self.reset == "zero":
            h = h - r * h
        s = (h > threshold).to(x.dtype)
        if not self.delayed_reset and self.reset != "none":
            h = h - (s - r) * (threshold if self.reset == "subtract" else h)
        states = (h,) + (current,) * self.synapse + (s,) * (self.feedback != "none")
        return (s, h, current), states

    def lower(self, site: Site) -> Kernel:
        x, c = site.inputs[0], site.inputs[0].shape[-1]
        need(
            site.states != () and x.size == c, "a neuron is lowered one frame at a time: make the graph streaming first"
        )
        names = ["x", "beta", "th"] + ["alpha"] * self.synapse
        names += [[], ["k"], ["w", "bias"]][FEEDBACKS.index(self.feedback)]

        def at(name: str) -> str:
            return f"{name}[0]" if site.inputs[names.index(name)].size == 1 else f"{name}[i]"

        whole = self.feedback == "all_to_all"
        add = {
            "none": "",
            "one_to_one": f" + back[i] * {at('k')}" if self.feedback == "one_to_one" else "",
            "all_to_all": " + r[1]",
        }
        lines = [f"for i in T.parallel({c}):"]
        if whole:  # r: the reset, the sum of what comes back, and the last frame's spikes
            lines = [
                f"for i in T.serial({c}):",
                "    r[i + 2] = back[i]",
                f"for i in T.serial({c}):",
                "    r[1] = T.float32(0)",
                f"    for j in T.serial({c}):",
                "        r[1] = r[1] + r[j + 2] * w[j, i]",
                "    r[1] = r[1] + bias[i]",
            ]
        th = at("th")
        lines.append(f"    r[0] = T.if_then_else(v[i] > {th}, T.float32(1), T.float32(0))")
        if self.synapse:
            lines += [
                f"    cur[i] = {at('alpha')} * cur[i] + x[i]{add[self.feedback]}",
                f"    v[i] = {at('beta')} * v[i] + cur[i]",
            ]
        else:
            lines.append(f"    v[i] = {at('beta')} * v[i] + x[i]{add[self.feedback]}")
        size = th if self.reset == "subtract" else "v[i]"
        if self.reset != "none":
            lines.append(f"    v[i] = v[i] - r[0] * {size}")
        lines.append(f"    s[i] = T.if_then_else(v[i] > {th}, T.float32(1), T.float32(0))")
        if not self.delayed_reset and self.reset != "none":
            lines.append(f"    v[i] = v[i] - (s[i] - r[0]) * {size}")
        return self._kernel(site, names, lines, whole)

    def _kernel(self, site: Site, names: list[str], lines: list[str], whole: bool) -> Kernel:
        """Parameters of the kernel, and the copies to its outputs."""
        c, f32 = site.inputs[0].shape[-1], "float32"
        local = {"spikes": "s", "membrane": "v", "current": "cur"}
        copies = [(f"out{k}", local[o]) for k, o in enumerate(self.outputs) if o != "spikes"]
        lines += [f"    {out}[i] = {value}[i]" for out, value in copies]
        if self.feedback != "none":
            lines.append("    back[i] = s[i]")
        state = {"membrane": "v", "current": "cur", "spikes": "back"}
        params = [
            (n, t.shape if len(t.shape) == 2 and n == "w" else (t.size,), f32)
            for n, t in zip(names, site.inputs, strict=True)
        ]
        params += [(state[n], (c,), f32) for n in self.state_names()]
        params += [("s" if o == "spikes" else f"out{k}", (c,), f32) for k, o in enumerate(self.outputs)]
        size = 2 + c if whole else 1
        need("spikes" in self.outputs, "a neuron whose spikes nothing reads")
        return Kernel("\n".join(lines), (*params, ("r", (size,), f32)), scratch=4 * size)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(outputs[0].size * inputs[0].shape[-1] if self.feedback == "all_to_all" else 0)

    def stream(self, step: object, *inputs: str) -> object:
        return step.emit(self, *inputs)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class AlphaNeuron(SequenceNeuron):
    """x, alpha, beta, tau, threshold -> spikes [, excitatory, inhibitory, membrane]: snnTorch's Alpha.

    E = alpha E + X, I = beta I - X, H = tau (E + I). Reset by r = V > threshold: zero: E, I and H become 0; subtract:
    E - threshold r, I - I r, H + I' r with I' the old I.
    """

    name: ClassVar[str] = "alpha_neuron"
    examples: ClassVar[tuple[str, ...]] = (
        "float32[1,5,3] t1, float32[1], float32[3], float32[1], float32[3] {outputs=('spikes','membrane')}",
    )
    signals: ClassVar[tuple[str, ...]] = ("spikes", "excitatory", "inhibitory", "membrane")
    reset: str = "zero"

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        need(self.reset in RESETS, f"expected reset one of {RESETS}, found {self.reset!r}")
        need(len(types) == 5, f"expected 5 operands, found {len(types)}")
        self.check(types, ["alpha", "beta", "tau", "threshold"])
        return (types[0],) * len(self.outputs)

    def state_names(self) -> tuple[str, ...]:
        return ("excitatory", "inhibitory", "membrane")

    def step(self, x: torch.Tensor, states: Tensors, *params: torch.Tensor) -> tuple[Tensors, Tensors]:
        (alpha, beta, tau, threshold), (e, i, v) = params, states
        r = (v > threshold).to(x.dtype)
        old, e, i = i, alpha * e + x, beta * i - x
        h = tau * (e + i)
        if self.reset == "zero":
            e, i, h = e - e * r, i - i * r, h - h * r
        elif self.reset == "subtract":
            e, i, h = e - threshold * r, i - i * r, h + old * r
        s = (h > threshold).to(x.dtype)
        return (s, e, i, h), (e, i, h)

    def lower(self, site: Site) -> Kernel:
        x, c = site.inputs[0], site.inputs[0].shape[-1]
        need(
            site.states != () and x.size == c, "a neuron is lowered one frame at a time: make the graph streaming first"
        )
        need("spikes" in self.outputs, "a neuron whose spikes nothing reads")
        names = ("x", "alpha", "beta", "tau", "th")
        at = {n: f"{n}[0]" if t.size == 1 else f"{n}[i]" for n, t in zip(names, site.inputs, strict=True)}
        lines = [
            f"for i in T.serial({c}):",
            f"    r[0] = T.if_then_else(v[i] > {at['th']}, T.float32(1), T.float32(0))",
            "    r[1] = inh[i]",
            f"    exc[i] = {at['alpha']} * exc[i] + x[i]",
            f"    inh[i] = {at['beta']} * inh[i] - x[i]",
            f"    v[i] = {at['tau']} * (exc[i] + inh[i])",
        ]
        if self.reset == "zero":
            lines += [f"    {n}[i] = {n}[i] - {n}[i] * r[0]" for n in ("exc", "inh", "v")]
        elif self.reset == "subtract":
            lines += [
                f"    exc[i] = exc[i] - {at['th']} * r[0]",
                "    inh[i] = inh[i] - inh[i] * r[0]",
                "    v[i] = v[i] + r[1] * r[0]",
            ]
        lines.append(f"    s[i] = T.if_then_else(v[i] > {at['th']}, T.float32(1), T.float32(0))")
        local = {"spikes": "s", "excitatory": "exc", "inhibitory": "inh", "membrane": "v"}
        lines += [f"    out{k}[i] = {local[o]}[i]" for k, o in enumerate(self.outputs) if o != "spikes"]
        f32 = "float32"
        params = [(n, (t.size,), f32) for n, t in zip(names, site.inputs, strict=True)]
        params += [(n, (c,), f32) for n in ("exc", "inh", "v")]
        params += [("s" if o == "spikes" else f"out{k}", (c,), f32) for k, o in enumerate(self.outputs)]
        return Kernel("\n".join(lines), (*params, ("r", (2,), f32)), scratch=8)

    def stream(self, step: object, *inputs: str) -> object:
        return step.emit(self, *inputs)  # type: ignore[attr-defined]
