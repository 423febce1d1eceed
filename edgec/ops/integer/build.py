"""The integer graph while it is built: how each float tensor is held in integers, and how it becomes int8 or int16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgec.bits import Bits
from edgec.ir.graph import Const, Graph, Node, Value, numbered
from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops.integer.elementwise import QAffine
from edgec.ops.integer.numbers import (
    BIAS_LIMIT,
    INT32_MAX,
    Array,
    Refusal,
    Scale,
    fixed_point,
    ratio,
    symmetric,
)
from edgec.ops.integer.requantize import QLut, Requantize
from edgec.ops.integer.spiking import QUnpack
from edgec.signal_math import PCM_SCALE

EVERYTHING = (-np.inf, np.inf)


class Scales(dict[str, Scale]):
    """A scale for each tensor; `missing` are those that were asked for and that neither a file nor data gives."""

    def __init__(self, given: Mapping[str, Scale] | None = None) -> None:
        super().__init__(given or {})
        self.missing: set[str] = set()

    def __missing__(self, name: str) -> Scale:
        self.missing.add(name)
        return Scale(1.0)


@dataclass(frozen=True)
class Plan:
    """`residual`: int16 scale of each tensor in a residual group; `int8`, `int16`: each tensor's scale in that type.

    `wide` are tensors whose readers want more than 8 bits; `normed` are those of residual streams that layer norms
    read: nothing bounds their features alike, so 8 bits do not serve a layer that reads them as they are. `coarse` are
    those that the layers reading them want in 16 bits because one step for the whole tensor is too coarse. `bits` are
    those of each layer by its output, `int4` the scale of what a layer of 4-bit activations reads, `rates`
    every tensor's mean, which of spikes is their rate.
    """

    residual: Mapping[str, Scale]
    int8: Scales
    int16: Scales
    wide: frozenset[str] = frozenset()
    normed: frozenset[str] = frozenset()
    coarse: frozenset[str] = frozenset()
    bits: Mapping[str, Bits] = field(default_factory=dict)
    int4: Scales = field(default_factory=Scales)
    rates: Mapping[str, float] = field(default_factory=dict)

    def stored(self, name: str) -> tuple[DType, Scale]:
        """The type and scale in which an op writes a tensor whose readers leave it the choice."""
        if name in self.residual:
            return DType.I16, self.residual[name]
        return (DType.I16, self.int16[name]) if name in self.wide else (DType.I8, self.int8[name])


@dataclass(frozen=True)
class Source:
    """A float tensor in terms of an integer one: real = clip(scale * (q - zero) + shift), per channel (last axis).

    Affine maps and relus change only this description until a consumer needs a stored integer. `lo` and `hi` are proven
    bounds of q. `origin` is the float tensor that the integer one stands for by itself, before those maps.
    """

    tensor: str
    origin: str
    scale: Array
    lo: Array
    hi: Array
    zero: int = 0
    shift: Array = field(default_factory=lambda: np.zeros(1))
    rest: Array = field(default_factory=lambda: np.zeros(1))  # the origin's shift: at most half a unit
    clip: tuple[float, float] = EVERYTHING
    via: tuple[str, ...] = ()  # source lines of the maps, for the node that will compute them

    def stored_as(self, target: Scale) -> bool:
        """Whether the integer tensor already is this tensor at the target scale."""
        same = self.scale.size == 1 and float(self.scale[0]) == target.scale and self.zero == target.zero
        return same and self.clip == EVERYTHING and not self.shift.any()

    def reals(self, q: Array) -> Array:
        """What integers stand for where all channels have one scale."""
        return np.asarray(np.clip(self.scale * (q - self.zero) + self.shift, *self.clip))

    @property
    def is_mapped(self) -> bool:
        """Whether an affine map lies between the integer tensor and this one."""
        return bool((self.scale < 0).any() or (self.shift != self.rest).any())


@dataclass
class Builder:
    """Emits the integer graph node by node. `node` is the float node at work; it gives names and source lines.

    `features` are tensors that products read in int16 as they are, `forecasts` those in the unit of a sensor's series.
    """

    graph: Graph
    plan: Plan
    types: dict[str, TensorType] = field(default_factory=dict)
    consts: dict[str, Const] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    sources: dict[str, Source] = field(default_factory=dict)
    features: set[str] = field(default_factory=set)
    forecasts: set[str] = field(default_factory=set)
    stored: dict[tuple[str, DType, Scale], Source] = field(default_factory=dict)
    output_names: dict[str, str] = field(default_factory=dict)
    node: Node | None = None

    def fresh(self, stem: str, suffix: str = "") -> str:
        """`stem` if the integer graph has no such tensor yet, otherwise a name that neither graph uses."""
        if stem not in self.types and not suffix:
            return stem
        taken = {o for n in self.graph.nodes for o in n.outputs} | set(self.graph.consts) | set(self.types)
        return next(name for name in numbered(f"{stem}_{suffix}" if suffix else stem) if name not in taken)

    def data(self, name: str) -> Array | None:
        """The values of a float constant; None for a tensor that is computed."""
        const = self.graph.consts.get(name)
        return None if const is None else const.data

    def const(self, stem: str, data: Array, scale: Array | None = None, dtype: DType | None = None) -> str:
        """A new constant; `scale` is one per index of its last axis, `dtype` its type where the array's is wider."""
        quant = None if scale is None else QuantParams(tuple(map(float, scale)), 0, data.ndim - 1)
        name, kind = self.fresh(stem), TensorType(data.shape, dtype or DType(data.dtype.name), quant)
        self.consts[name], self.types[name] = Const(data, kind), kind
        return name

    def constant(self, name: str, dtype: DType, target: Scale) -> Source:
        """A float constant as integers at one scale."""
        real = self.graph.consts[name].data.astype(np.float64)
        q = target.levels(real, *dtype.range).astype(dtype.storage)
        made, kind = self.fresh(name), TensorType(real.shape, dtype, QuantParams((target.scale,), target.zero))
        self.consts[made], self.types[made] = Const(q, kind), kind
        held = self._held(made, name, target)
        return replace(held, lo=np.array([q.min(initial=0)]), hi=np.array([q.max(initial=0)]))

    def given(self, name: str) -> Source | None:
        """A constant as the int8 that a file gives it; None where it gives none."""
        const = self.graph.consts[name]
        quant = const.type.quant
        if quant is None or quant.axis is not None:
            return None
        scale = Scale(quant.scale[0], quant.zero_point, "even")
        wide = np.rint(const.data / scale.scale) + scale.zero
        return self.constant(name, DType.I8, scale) if (np.abs(wide + 0.5) < 128).all() else None

    def input(self, v: Value, dtype: DType, scale: Scale) -> None:
        """A graph input that arrives as integers."""
        kind = replace(v.type, dtype=dtype, quant=QuantParams((scale.scale,), scale.zero))
        self.inputs.append(Value(v.name, kind))
        self.types[v.name] = kind
        self.hold(v.name, v.name, scale)

    def emit(self, op: Any, inputs: tuple[str, ...], outputs: tuple[str, ...], via: tuple[str, ...] = ()) -> None:
        """One node of the integer graph; `via` are source lines of float nodes it computes besides the one at work."""
        assert self.node is not None
        types = op.infer([self.types[i] for i in inputs])
        lines = tuple(dict.fromkeys((*via, *self.node.source)))
        self.nodes.append(Node(op, inputs, outputs, types, lines))
        self.types.update(zip(outputs, types, strict=True))

    def hold(self, name: str, tensor: str, scale: Scale) -> Source:
        """Record that `tensor` is the float tensor `name` at one scale, with every value of its type."""
        lo, hi = self.types[tensor].dtype.range
        held = Source(tensor, name, np.array([scale.scale]), np.array([lo]), np.array([hi]), scale.zero)
        self.sources[name] = held
        return held

    def dtype(self, source: Source) -> DType:
        return self.types[source.tensor].dtype

    def is_plain(self, source: Source) -> bool:
        """Whether the integer tensor is this tensor at one positive scale: no map or clamp is still to be applied."""
        scale = float(source.scale[0])
        return source.scale.size == 1 and scale > 0 and source.stored_as(Scale(scale, source.zero))

    def operand(self, name: str) -> Source:
        """A tensor as it is where it is stored in int8 or int16 at one scale, else in int16, as constants are."""
        values = self.data(name)
        if values is not None:
            return self.given(name) or self.constant(name, DType.I16, symmetric(float(np.abs(values).max()), 32767))
        source = self.sources[name]
        if self.is_plain(source) and self.dtype(source) in (DType.I8, DType.I16):
            return source
        return self.store(name, DType.I16, self.plan.residual.get(name, self.plan.int16[name]))

    def activation(self, name: str, terms: int = INT32_MAX) -> Source:
        """A tensor as a product over `terms` inputs reads it: spikes, PCM and features as they are, what is too
        coarse in int8 in int16 unless it is stored in int8 anyway, everything else in int8.

        int16 only where any weights of 8 bits keep the sum in int32.
        """
        source = self.sources[name]
        if self.dtype(source) is DType.BIT and source.stored_as(Scale(1.0)):
            return source
        wide = source.stored_as(Scale(PCM_SCALE)) or (name in self.features and source.stored_as(self.plan.int16[name]))
        wide = wide or (name in self.plan.normed and source.stored_as(self.plan.residual[name]))
        if terms * 127 * 2**15 + BIAS_LIMIT < INT32_MAX:
            if wide and self.dtype(source) is DType.I16:
                return source
            if name in self.plan.coarse:
                return self.operand(name)
        return self.store(name, DType.I8, self.plan.int8[name])

    def summand(self, name: str) -> Source:
        """A tensor as sums over positions read it: accumulators as they are, else what a product would read."""
        source = self.sources[name]
        if self.dtype(source) is DType.I32 and source.clip == EVERYTHING and not source.is_mapped:
            return source
        return self.activation(name)

    def widened(self, source: Source) -> Source:
        """The same over int8 where the integers are packed spikes, which no arithmetic reads."""
        if self.dtype(source) is not DType.BIT:
            return source
        base = self.store(source.origin, DType.I8, Scale(1.0))
        return replace(source, tensor=base.tensor, lo=base.lo, hi=base.hi)

    def range_of(self, source: Source) -> tuple[int, int]:
        """Proven bounds over all channels."""
        return int(source.lo.min()), int(source.hi.max())

    def store(self, name: str, dtype: DType, target: Scale) -> Source:
        """A tensor as int8 or int16 at one scale, requantised once for all its consumers; a constant anew."""
        if name in self.graph.consts:
            return self.constant(name, dtype, target)
        source = self.sources[name]
        if self.dtype(source) is dtype and source.stored_as(target):
            return source
        if (name, dtype, target) not in self.stored:
            at_work, self.node = self.node, self.graph.producer(name) or self.node
            self.stored[name, dtype, target] = self._requantized(name, source, dtype, target)
            self.node = at_work
        return self.stored[name, dtype, target]

    def _requantized(self, name: str, source: Source, dtype: DType, target: Scale) -> Source:
        if self.dtype(source) is DType.BIT and source.scale.size == source.shift.size == 1:
            return self._unpacked(name, source, dtype, target)
        source = self.widened(source)
        low, high = dtype.range
        lo, hi = (target.quantized(c, low, high) for c in source.clip)
        if source.is_mapped and self.dtype(source) is DType.I32:
            source = self._through_int16(source)
        out = self._stored_name(name, dtype)
        single = source.scale.size == source.shift.size == 1
        if target.exact and single and self.dtype(source) is dtype is DType.I8:
            table = self.const(f"{out}_table", target.levels(source.reals(np.arange(-128, 128))).astype(np.int8))
            self.emit(QLut(target.scale, target.zero), (source.tensor, table), (out,), source.via)
        elif source.zero == 0 and not source.is_mapped:
            multiplier, shift = ratio(target.of(source.scale))
            consts = (self.const(f"{out}_multiplier", multiplier), self.const(f"{out}_shift", shift))
            op = Requantize(dtype.value, target.scale, target.zero, lo, hi)
            self.emit(op, (source.tensor, *consts), (out,), source.via)
        else:
            self.emit_affine(source, out, dtype, target)
        return replace(self._held(out, name, target), lo=np.array([lo]), hi=np.array([hi]))

    def _stored_name(self, name: str, dtype: DType) -> str:
        return self.fresh(name) if name not in self.types else self.fresh(name, f"i{dtype.value.removeprefix('int')}")

    def _unpacked(self, name: str, source: Source, dtype: DType, target: Scale) -> Source:
        """Spikes under one map for all channels: two values."""
        off = float(source.shift[0])
        reals = np.clip([off, off + float(source.scale[0])], *source.clip)
        low, high = (target.quantized(float(v), *dtype.range) for v in reals)
        out = self._stored_name(name, dtype)
        self.emit(QUnpack(dtype.value, target.scale, target.zero, low, high), (source.tensor,), (out,), source.via)
        return replace(self._held(out, name, target), lo=np.array([min(low, high)]), hi=np.array([max(low, high)]))

    def labelled(self, name: str, source: Source) -> Source:
        """A stored tensor whose type says its scale: a copy where the same integers also stand for another tensor."""
        quant, scale = self.types[source.tensor].quant, float(source.scale[0])
        if quant is not None and (quant.scale[0], quant.zero_point) == (scale, source.zero):
            return source
        return self._requantized(name, source, self.dtype(source), Scale(scale, source.zero))

    def emit_affine(self, source: Source, out: str, dtype: DType, target: Scale, axis: int = -1) -> None:
        """A tensor's affine map over what it is stored as, requantised to `out`; per channel along an axis."""
        lo, hi = (target.quantized(c, *dtype.range) for c in source.clip)
        affine, places = self._affine(source, target)
        consts = (self.const(f"{out}_multiplier", affine[0]), self.const(f"{out}_offset", affine[1]))
        op = QAffine(dtype.value, target.scale, target.zero, places, lo, hi, axis)
        self.emit(op, (source.tensor, *consts), (out,), source.via)

    def _held(self, tensor: str, name: str, scale: Scale) -> Source:
        return Source(tensor, name, np.array([scale.scale]), np.zeros(1), np.zeros(1), scale.zero)

    def _through_int16(self, source: Source) -> Source:
        """An affine map over an accumulator, as the same map over the accumulator stored in int16."""
        base = self.sources[source.origin]
        stored = self.store(source.origin, DType.I16, self.plan.int16[source.origin])
        gain = source.scale / base.scale
        return replace(stored, scale=stored.scale * gain, shift=source.shift - gain * base.shift, clip=source.clip)

    def _affine(self, source: Source, target: Scale) -> tuple[tuple[Array, Array], int]:
        """Multiplier and offset of a QAffine and its shift, with the proof that int32 holds every sum."""
        gain = target.of(source.scale)
        offset = source.shift / target.scale - gain * source.zero
        gain, offset = np.broadcast_arrays(gain, offset)
        _, places = fixed_point(gain, 31 if target.exact else 15)
        top = max(abs(v) for v in self.range_of(source))
        while places >= 1:
            m = np.floor(gain * 2.0**places + 0.5).astype(np.int64)
            o = np.floor(offset * 2.0**places + 0.5).astype(np.int64)
            if int((np.abs(m) * top + np.abs(o)).max()) + (1 << places) <= INT32_MAX:
                return (m.astype(np.int32), o.astype(np.int32)), places
            places -= 1
        raise Refusal("its affine map leaves the int32 range")

    def finish(self) -> Graph:
        """The integer graph, its outputs being those of `output_names`."""
        outputs = tuple(self.output_names[o] for o in self.graph.outputs)
        built = Graph(self.graph.name, tuple(self.inputs), self.consts, tuple(self.nodes), outputs)
        return built.prune_unused()
