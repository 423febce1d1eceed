"""The Legendre memory unit's memory (Voelker et al. 2019; parallel form Chilkuri and Eliasmith 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from edgec.ir.graph import Node
from edgec.ir.types import DType, TensorType
from edgec.lmu_math import lmu_impulse_response, lmu_matrices
from edgec.ops.base import Cost, Kernel, Op, Reads, Site, need
from edgec.ops.integer.build import Builder, Source
from edgec.ops.integer.linear import QLmuFir
from edgec.ops.integer.numbers import Refusal, bounds
from edgec.ops.lowering.sums import ROWS, Sum


@dataclass(frozen=True)
class LmuMemory(Op):
    """m[t] = Abar m[t-1] + Bbar u[t] (recurrent), or its first theta impulse responses (fir): u [B,T,1] -> [B,T,q]."""

    name: ClassVar[str] = "lmu_memory"
    reads: ClassVar[Reads] = Reads.HISTORY
    axes: ClassVar[Any] = "b(t)u->bto"
    examples: ClassVar[tuple[str, ...]] = (
        "float32[2,5,1] t1 {order=3,theta=4}",
        "float32[1,5,1] t1 {order=2,theta=4,form='recurrent'}",
    )
    order: int = 1
    theta: int = 1
    form: str = "fir"

    @property
    def eight_bits(self) -> str:
        return "the taps of a Legendre memory have 8 bits"

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        (u,) = types
        need(self.form in ("fir", "recurrent"), f"expected form fir or recurrent, found {self.form!r}")
        need(len(u.shape) == 3 and u.shape[-1] == 1, f"expected u [B,T,1], found {u.shape}")
        return (TensorType((*u.shape[:-1], self.order), DType.F32, None, u.time_axis),)

    def taps(self) -> torch.Tensor:
        """H [theta, order], the oldest frame first: row theta-1 meets u[t]."""
        h = lmu_impulse_response(self.order, self.theta, self.theta)
        return torch.from_numpy(np.ascontiguousarray(h.T[::-1], dtype=np.float32))

    def state_types(self, types: Sequence[TensorType]) -> tuple[tuple[TensorType, float], ...]:
        return ((TensorType((types[0].shape[0], 1, self.order)), 0.0),)

    def run(
        self, tensors: Sequence[torch.Tensor], states: Sequence[torch.Tensor] = ()
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        (u,) = tensors
        if self.form == "fir":
            padded = F.pad(u.transpose(1, 2), (self.theta - 1, 0))
            return (F.conv1d(padded, self.taps().T.unsqueeze(1)).transpose(1, 2),), ()
        a, b = (torch.from_numpy(m).float() for m in lmu_matrices(self.order, self.theta))
        m = states[0] if states else torch.zeros(u.shape[0], 1, self.order)
        frames = []
        for frame in u.chunk(u.shape[1], 1):
            m = m @ a.T + frame * b.view(-1)
            frames.append(m)
        return (torch.cat(frames, 1),), (m,)

    def stream(self, step: Any, u: str) -> str:
        if self.form == "recurrent":
            return step.emit(self, u)  # type: ignore[no-any-return]
        line = step.delay_line(u, length=self.theta, left=self.theta - 1)
        return step.emit(LmuTaps(self.order), line, step.const("lmu_taps", self.taps().numpy()))  # type: ignore[no-any-return]

    def lower(self, site: Site) -> Kernel:
        need(site.states != (), "the recurrent memory is lowered one frame at a time: make the graph streaming first")
        a, b = lmu_matrices(self.order, self.theta)
        q = self.order
        sums = Sum(
            "float32", "b[{o}] * u[0]", "{acc} + a[{o}, j] * last", "m[{o}] = {acc}", [("j", str(q))],
            ["last: T.let[T.float32] = old[j]"],
        )  # fmt: skip
        products = "\n".join(sums.blocks(q, ROWS))
        body = f"""for i in T.serial({q}):
    old[i] = m[i]
{products}
for i in T.serial({q}):
    y[i] = m[i]"""
        f32 = "float32"
        params = (
            ("u", (1,), f32),
            ("a", (q, q), f32),
            ("b", (q,), f32),
            ("m", (q,), f32),
            ("y", (q,), f32),
            ("old", (q,), f32),
        )
        consts = {"a": a.astype(np.float32), "b": b.reshape(-1).astype(np.float32)}
        return Kernel(body, params, consts, scratch=4 * q)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(outputs[0].size * (self.theta if self.form == "fir" else self.order))

    def integer(self, b: Builder, node: Node) -> None:
        """The impulse response as int8 taps with one scale per order. Abar itself does not bear quantisation."""
        if self.form != "fir":
            raise Refusal(
                "its recurrent form feeds rounding errors back through Abar (8 to 76 % at int8, unstable for long"
                " windows)",
                "train or export it with form='fir', which is equal for the first theta frames",
            )
        u = b.activation(node.inputs[0])
        if u.zero:
            raise Refusal("its input has a zero point, so its empty history is not zero")
        taps = self.taps().numpy().astype(np.float64)
        scale = np.maximum(np.abs(taps).max(0), 1e-30) / 127.0
        q = np.floor(taps / scale + 0.5).astype(np.int8)
        lo, hi = bounds(q, np.zeros(self.order, np.int64), b.range_of(u))
        name = b.const(f"{node.output}_taps", q, scale)
        rate = b.plan.rates[node.inputs[0]] if b.dtype(u) is DType.BIT else None
        b.emit(QLmuFir(spike_rate=rate), (u.tensor, name), node.outputs)
        b.sources[node.output] = Source(node.output, node.output, scale * u.scale, lo, hi)


@dataclass(frozen=True)
class LmuTaps(Op):
    """One frame of the FIR form: history u [B,theta,1] with taps [theta,order] -> [B,1,order]."""

    name: ClassVar[str] = "lmu_taps"
    axes: ClassVar[Any] = "bku,ko->bto"
    examples: ClassVar[tuple[str, ...]] = ("float32[1,4,1], float32[4,3] {order=3}",)
    order: int = 1

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        u, taps = types
        need(u.shape[1:] == (taps.shape[0], 1), f"history {u.shape} does not fit taps {taps.shape}")
        return (replace(u, shape=(u.shape[0], 1, self.order)),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        u, taps = tensors
        return u.transpose(1, 2) @ taps

    def lower(self, site: Site) -> Kernel:
        theta, q = site.inputs[1].shape
        products = Sum(
            "float32", "T.float32(0)", "{acc} + now * taps[k, {o}]", "y[{o}] = {acc}", [("k", str(theta))],
            ["now: T.let[T.float32] = u[k]"],
        )  # fmt: skip
        body = "\n".join(products.blocks(q))
        return Kernel(body, (("u", (theta,), "float32"), ("taps", (theta, q), "float32"), ("y", (q,), "float32")))

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(outputs[0].size * inputs[1].shape[0])
