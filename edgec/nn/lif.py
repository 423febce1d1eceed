"""Leaky integrate-and-fire neuron over a whole sequence: one custom op with a hand-written backward."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

Reset = Literal["hard", "subtract", "none"]
RESETS: tuple[Reset, ...] = ("hard", "subtract", "none")
SURROGATE_ALPHA = 4.0


class _Rule(NamedTuple):
    """The non-tensor attributes of edgec::lif, in schema order."""

    decay_input: bool
    reset: str
    v_reset: float
    strict: bool
    delayed_reset: bool
    time_axis: int

    def fire(self, h: Tensor, threshold: Tensor) -> Tensor:
        return h > threshold if self.strict else h >= threshold

    def after_reset(self, h: Tensor, spiked: Tensor, threshold: Tensor) -> Tensor:
        """The membrane that the next step decays, given this step's h and (boolean) spikes."""
        if self.reset == "hard":
            return h.masked_fill(spiked, self.v_reset)
        if self.reset == "subtract" and not self.delayed_reset:
            return h - threshold * spiked
        return h

    def start(self) -> float:
        """The membrane before the first step: at rest, which a same-step hard reset defines (spikingjelly)."""
        return self.v_reset if self.reset == "hard" and not self.delayed_reset else 0.0

    def subtracts_late(self) -> bool:
        return self.reset == "subtract" and self.delayed_reset


def _check(x: Tensor, beta: Tensor, threshold: Tensor, rule: _Rule) -> int:
    """Return the time axis counted from the front, or raise ValueError."""
    if rule.reset not in RESETS:
        raise ValueError(f"edgec::lif: reset must be one of {RESETS}, found {rule.reset!r}")
    axis = rule.time_axis + x.dim() if rule.time_axis < 0 else rule.time_axis
    if not 0 <= axis < x.dim() - 1:
        raise ValueError(
            f"edgec::lif: time_axis must name an axis before the last (channel) one, "
            f"found time_axis={rule.time_axis} for x of shape {tuple(x.shape)}"
        )
    for name, value in (("beta", beta), ("threshold", threshold)):
        if value.dim() > 1 or value.numel() not in (1, x.shape[-1]):
            raise ValueError(
                f"edgec::lif: {name} must be a scalar or [C] with C={x.shape[-1]}, found shape {tuple(value.shape)}"
            )
    return axis


def _integrate(x: Tensor, beta: Tensor, threshold: Tensor, rule: _Rule, axis: int) -> Tensor:
    """Run the time loop and return h, the membrane before the same-step reset."""
    h_all = torch.empty_like(x, memory_format=torch.contiguous_format)
    gain = 1 - beta
    v = torch.full_like(x.select(axis, 0), rule.start())
    spiked: Tensor | None = None
    for x_t, h in zip(x.unbind(axis), h_all.unbind(axis), strict=True):
        if rule.decay_input:
            torch.sub(x_t, v, out=h)
            h.mul_(gain).add_(v)
        else:
            torch.mul(v, beta, out=h)
            h.add_(x_t)
        if spiked is not None and rule.subtracts_late():
            h.sub_(threshold * spiked)
        spiked = rule.fire(h, threshold)
        v = rule.after_reset(h, spiked, threshold)
    return h_all


@torch.library.custom_op("edgec::lif", mutates_args=())
def lif(
    x: Tensor,
    beta: Tensor,
    threshold: Tensor,
    decay_input: bool,
    reset: str,
    v_reset: float,
    strict: bool,
    delayed_reset: bool,
    time_axis: int,
) -> tuple[Tensor, Tensor]:
    """Run leaky integrate-and-fire neurons along the time axis, from a zero membrane.

    x: [...,T,...,C] -> (spikes in {0,1}, membrane), both shaped as x; beta, threshold: scalar or [C].
    H = V + (X - V)(1 - beta) if decay_input else beta V + X; spike S = H > threshold if strict, else
    H >= threshold. Reset: "hard" V = v_reset where S, "subtract" V = H - threshold S, "none" V = H.
    delayed_reset: the membrane is returned before the reset, and "subtract" takes the threshold off
    after the next step's decay (snnTorch 1.0 Leaky with reset_delay=True).
    Gradient: sigmoid surrogate, alpha 4, the reset detached; x, beta and threshold are differentiable.
    ValueError for an unknown reset, a bad time axis, or beta/threshold of another shape.
    Neuron: spikingjelly 0.0.0.0.14 LIFNode (decay_input, hard, not strict); snnTorch 1.0 Leaky.
    """
    rule = _Rule(decay_input, reset, v_reset, strict, delayed_reset, time_axis)
    axis = _check(x, beta, threshold, rule)
    h = _integrate(x, beta, threshold, rule, axis)
    spiked = rule.fire(h, threshold)
    membrane = h if delayed_reset else rule.after_reset(h, spiked, threshold)
    return spiked.to(x.dtype), membrane


@lif.register_fake
def _lif_fake(
    x: Tensor,
    beta: Tensor,
    threshold: Tensor,
    decay_input: bool,
    reset: str,
    v_reset: float,
    strict: bool,
    delayed_reset: bool,
    time_axis: int,
) -> tuple[Tensor, Tensor]:
    _check(x, beta, threshold, _Rule(decay_input, reset, v_reset, strict, delayed_reset, time_axis))
    spikes = torch.empty_like(x, memory_format=torch.contiguous_format)
    return spikes, torch.empty_like(spikes)


def _lif_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, beta, threshold = inputs[:3]
    spikes, membrane = output
    ctx.set_materialize_grads(False)
    ctx.rule = _Rule(*inputs[3:])
    ctx.save_for_backward(x, beta, threshold, spikes, membrane)


def _previous(values: Tensor, axis: int, start: float = 0.0) -> Tensor:
    """Shift by one step along the axis: `start` first, the last step dropped."""
    first = torch.full_like(values.narrow(axis, 0, 1), start)
    return torch.cat((first, values.narrow(axis, 0, values.shape[axis] - 1)), axis)


def _membranes(
    x: Tensor,
    beta: Tensor,
    threshold: Tensor,
    spikes: Tensor,
    membrane: Tensor,
    rule: _Rule,
    axis: int,
) -> tuple[Tensor, Tensor]:
    """Recover (h, the decayed membrane v[t-1]) of every step from the two saved outputs."""
    if rule.delayed_reset:
        v = rule.after_reset(membrane, spikes.bool(), threshold)
        return membrane, _previous(v, axis, rule.start())
    before = _previous(membrane, axis, rule.start())
    h = before + (x - before) * (1 - beta) if rule.decay_input else beta * before + x
    return h, before


def _scan_back(direct: Tensor, carry: Tensor, axis: int) -> Tensor:
    """Solve g[t] = direct[t] + carry[t] g[t+1] backwards in time."""
    total = torch.empty_like(direct)
    following: Tensor | None = None
    steps = zip(direct.unbind(axis), carry.unbind(axis), total.unbind(axis), strict=True)
    for d, c, g in reversed(list(steps)):
        if following is None:
            g.copy_(d)
        else:
            torch.addcmul(d, c, following, out=g)
        following = g
    return total


def _lif_backward(ctx: Any, grad_spikes: Tensor | None, grad_membrane: Tensor | None) -> tuple[Tensor | None, ...]:
    x, beta, threshold, spikes, membrane = ctx.saved_tensors
    rule: _Rule = ctx.rule
    axis = rule.time_axis % x.dim()
    h, before = _membranes(x, beta, threshold, spikes, membrane, rule, axis)
    slope = torch.sigmoid(SURROGATE_ALPHA * (h - threshold))
    slope = SURROGATE_ALPHA * slope * (1 - slope)
    through_spike = torch.zeros_like(h) if grad_spikes is None else grad_spikes * slope
    kept = 1 - spikes if rule.reset == "hard" else torch.ones_like(spikes)
    direct = through_spike
    if grad_membrane is not None:
        direct = direct + (grad_membrane if rule.delayed_reset else grad_membrane * kept)
    grad_h = _scan_back(direct.contiguous(), kept * beta, axis)
    grad_x = grad_h * (1 - beta) if rule.decay_input else grad_h
    grad_beta = grad_threshold = None
    if ctx.needs_input_grad[1]:
        grad_beta = (grad_h * (before - x if rule.decay_input else before)).sum_to_size(beta.shape)
    if ctx.needs_input_grad[2]:
        loss = through_spike
        if rule.reset == "subtract":
            late = _previous(grad_h.flip(axis), axis).flip(axis)
            late = late if rule.delayed_reset else late * beta
            if grad_membrane is not None and not rule.delayed_reset:
                late = late + grad_membrane
            loss = loss + late * spikes
        grad_threshold = -loss.sum_to_size(threshold.shape)
    return (grad_x, grad_beta, grad_threshold, *(None,) * len(rule))


lif.register_autograd(_lif_backward, setup_context=_lif_setup)
for _device in ("cpu", "cuda"):
    lif.register_autocast(_device, torch.float32)


class LIF(nn.Module):
    """Leaky integrate-and-fire layer: [B,T,C] currents -> [B,T,C] spikes in {0,1}.

    The defaults are those of spikingjelly's LIFNode; snnTorch's Leaky is
    LIF(beta=b, decay_input=False, reset="subtract", strict=True, delayed_reset=True).
    docs/neurons.md has the equations. ValueError for values outside the ranges.

    tau: time constant in steps, > 1, beta = 1 - 1/tau; give exactly one of tau and beta.
    beta: what a step keeps of the membrane, in [0,1], a float or [C] floats.
    threshold: at which a neuron fires, > 0, a float or [C] floats.
    decay_input: the input is multiplied by 1 - beta.
    reset: of a neuron that fired: `hard` to v_reset, `subtract` the threshold, or `none`.
    v_reset: where a hard reset leaves the membrane.
    strict: fires above the threshold only, not at it.
    delayed_reset: the reset is made in the next step.
    learn_threshold: the threshold is a parameter, else a buffer.
    """

    beta: Tensor
    threshold: Tensor

    def __init__(
        self,
        *,
        tau: float | None = None,
        beta: float | list[float] | None = None,
        threshold: float | list[float] = 1.0,
        decay_input: bool = True,
        reset: Reset = "hard",
        v_reset: float = 0.0,
        strict: bool = False,
        delayed_reset: bool = False,
        learn_threshold: bool = False,
    ) -> None:
        super().__init__()
        if (tau is None) == (beta is None):
            raise ValueError(f"LIF: give exactly one of tau and beta, found tau={tau} and beta={beta}")
        if tau is not None and tau <= 1.0:
            raise ValueError(f"LIF: tau must be > 1, found {tau}")
        if reset not in RESETS:
            raise ValueError(f"LIF: reset must be one of {RESETS}, found {reset!r}")
        decay = torch.tensor(beta if tau is None else 1.0 - 1.0 / tau, dtype=torch.float32)
        level = torch.tensor(threshold, dtype=torch.float32)
        if bool((decay < 0).any()) or bool((decay > 1).any()):
            raise ValueError(f"LIF: beta must lie in [0,1], found {beta}")
        if bool((level <= 0).any()):
            raise ValueError(f"LIF: threshold must be > 0, found {threshold}")
        self.register_buffer("beta", decay)
        if learn_threshold:
            self.threshold = nn.Parameter(level)
        else:
            self.register_buffer("threshold", level)
        self.decay_input, self.reset, self.v_reset = decay_input, reset, v_reset
        self.strict, self.delayed_reset = strict, delayed_reset

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes. x: [B,T,C] -> [B,T,C]; the membrane starts at zero."""
        rule = _Rule(self.decay_input, self.reset, self.v_reset, self.strict, self.delayed_reset, 1)
        spikes: Tensor = lif(x, self.beta, self.threshold, *rule)[0]
        return spikes

    def extra_repr(self) -> str:
        """Return the attributes shown by print(module)."""
        return (
            f"beta={self.beta.tolist()}, threshold={self.threshold.tolist()}, reset={self.reset}, "
            f"decay_input={self.decay_input}, strict={self.strict}, delayed_reset={self.delayed_reset}"
        )
