"""Legendre memory over a whole sequence: one custom op, computed as a causal convolution."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgec.lmu_math import lmu_impulse_response

Form = Literal["fir", "recurrent"]
FORMS: tuple[Form, ...] = ("fir", "recurrent")


@lru_cache(maxsize=16)
def _response(order: int, theta: int, taps: int) -> Tensor:
    """The impulse response [taps, order], latest tap last, in float64."""
    return torch.from_numpy(lmu_impulse_response(order, theta, taps)[:, ::-1].T.copy())


def _taps(u: Tensor, order: int, theta: int, form: str) -> int:
    """Return the number of taps that reach back over u, or raise ValueError."""
    if u.dim() != 3 or u.shape[2] != 1:
        raise ValueError(f"edgec::lmu_memory: u must be [B,T,1], found shape {tuple(u.shape)}")
    if form not in FORMS:
        raise ValueError(f"edgec::lmu_memory: form must be one of {FORMS}, found {form!r}")
    if order < 1 or theta < 1:
        raise ValueError(f"edgec::lmu_memory: order and theta must be >= 1, found {order}, {theta}")
    return u.shape[1] if form == "recurrent" else min(theta, u.shape[1])


@torch.library.custom_op("edgec::lmu_memory", mutates_args=())
def lmu_memory(u: Tensor, order: int, theta: int, form: str) -> Tensor:
    """Project the history of a scalar signal on Legendre polynomials.

    u: [B,T,1] -> m: [B,T,order]. form "recurrent": m[t] = Abar m[t-1] + Bbar u[t] from m = 0;
    form "fir": m[t] = sum_{k<theta} (Abar^k Bbar) u[t-k]. The two are equal while t < theta.
    ValueError for another shape of u, another form, or order, theta < 1.
    Voelker, Kajic, Eliasmith 2019; parallel form: Chilkuri and Eliasmith 2021.
    """
    taps = _taps(u, order, theta, form)
    response = _response(order, theta, taps).to(u)
    windows = functional.pad(u[:, :, 0], (taps - 1, 0)).unfold(1, taps, 1)
    return windows @ response


@lmu_memory.register_fake
def _lmu_memory_fake(u: Tensor, order: int, theta: int, form: str) -> Tensor:
    _taps(u, order, theta, form)
    return u.new_empty(u.shape[0], u.shape[1], order)


def _lmu_setup(ctx: Any, inputs: tuple[Tensor, int, int, str], output: Tensor) -> None:
    u, ctx.order, ctx.theta, form = inputs
    ctx.taps = _taps(u, ctx.order, ctx.theta, form)


def _lmu_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    """Transpose the convolution: each window's gradient is added back at the samples it read."""
    batch, steps, _ = grad.shape
    response = _response(ctx.order, ctx.theta, ctx.taps).to(grad)
    windows = functional.pad(grad @ response.T, (0, steps))
    width = steps + ctx.taps - 1  # one less than the padded row: row t moves right by t
    skewed = windows.flatten(1)[:, : steps * width].view(batch, steps, width)
    return skewed.sum(1)[:, ctx.taps - 1 :, None], None, None, None


lmu_memory.register_autograd(_lmu_backward, setup_context=_lmu_setup)
for _device in ("cpu", "cuda"):
    lmu_memory.register_autocast(_device, torch.float32)


class LMUMemory(nn.Module):
    """Legendre memory: [B,T,1] -> [B,T,order], coefficients of what the input did over the last theta steps.

    order: Legendre polynomials, outputs of a step.
    theta: steps that the memory spans.
    form: `fir`, the window of theta steps exactly, or `recurrent`, the linear recurrence.
    """

    def __init__(self, order: int, theta: int, form: Form = "fir") -> None:
        super().__init__()
        self.order, self.theta, self.form = order, theta, form

    def forward(self, u: Tensor) -> Tensor:
        """Return the memory at every step. u: [B,T,1] -> [B,T,order]."""
        memory: Tensor = lmu_memory(u, self.order, self.theta, self.form)
        return memory

    def extra_repr(self) -> str:
        """Return the attributes shown by print(module)."""
        return f"order={self.order}, theta={self.theta}, form={self.form}"
