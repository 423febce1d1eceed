"""The base class of every op, and what its rules hand to passes, planner and backends.

An op is a frozen dataclass; its fields are its attributes. Everything the compiler knows about it stands in its class:
shape inference, torch reference, generic kernel (TVMScript text: ops never import tvm), how its axes relate, cost,
streaming rule, quantisation rule. A rule that does not exist is None. Passes ask for what an op declares and name no
class of ops, so that a new op is one class and one line in OPS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar

import numpy.typing as npt

from edgec.ir.graph import Graph, Node
from edgec.ir.text import parse_sample
from edgec.ir.types import DType, TensorType

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]
#: a kernel's buffer: name, shape, element type
Param = tuple[str, tuple[int, ...], str]


@dataclass(frozen=True)
class Cost:
    """Work of one run of a node: dense-equivalent multiply-accumulates."""

    macs: int = 0


@dataclass(frozen=True)
class Kernel:
    """A TVMScript function over one node's buffers.

    `params` are (name, shape, element type) in this order: the node's inputs without those in `drops`; further
    constants (tables) of `consts`; the node's states; its outputs, unless the output is the state; scratch if
    `scratch` > 0. A constant input whose parameter name is in `consts` is replaced by that array (packed weights).
    `body` is the text below the parameters; loops marked T.parallel may run in any order. `scratch` is arena bytes
    alive only while the node runs. `inplace` are inputs whose memory an output of the same type may take;
    with `overlay` an output of fewer rows may take the first input's, from its start or up to its padding before it.
    """

    body: str
    params: tuple[Param, ...]
    consts: Mapping[str, Array] = field(default_factory=dict)
    drops: tuple[int, ...] = ()
    scratch: int = 0
    inplace: tuple[int, ...] = ()
    overlay: bool = False


@dataclass(frozen=True)
class Part:
    """An op for a part of its output image, and the part of its input [B,H,W,C] that it reads: rows [top, bottom),
    columns [left, right). `above` rows of the new op's padding lie over them."""

    op: Any
    rows: tuple[int, int]
    cols: tuple[int, int]
    above: int = 0


@dataclass(frozen=True)
class Site:
    """What a lowering rule sees of its node: the types around it and the values of its constant inputs."""

    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    states: tuple[TensorType, ...] = ()
    consts: Mapping[int, Array] = field(default_factory=dict)


def site_of(graph: Graph, node: Node) -> Site:
    """A node's site in a graph without state."""
    consts = {k: graph.consts[i].data for k, i in enumerate(node.inputs) if i in graph.consts}
    return Site(graph.input_types(node), node.types, consts=consts)


@dataclass(frozen=True)
class Form:
    """Another way to write a node: an op on these of its operands, by place; `values` replace constant ones."""

    op: Any
    operands: tuple[int, ...]
    values: Mapping[int, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class LinearMap:
    """y = x * scale + shift along an axis of x, in float64: vectors over it, or one number for all of x."""

    operand: int
    axis: int
    scale: Array
    shift: Array
    #: the op takes scale and shift as they are, so another of the kind in its place rounds no more than it does
    given: bool = False


class Reads(Enum):
    """In what an op wants the operands that it computes from, where it becomes integers."""

    INT8 = "int8"
    FRAMES = "int8; int16 frames where one scale of 8 bits serves some of their channels badly"
    WIDE = "int16, where nothing else decides"
    FINE = "int16, also from a sum: small differences matter"
    NORMED = "as FINE; it brings every row to one size, so that nothing before it bounds them alike"
    SUMMED = "all at one scale, that of the result where sums chain"
    FACTOR = "int8 without a zero point, so that sums of products need no correction"
    HISTORY = "int8 without a zero point, whatever wrote it: what was before the start is zero"
    SERIES = "int16 in the sensor's own unit"
    PCM = "int16 samples of sound"


@dataclass(frozen=True)
class Op:
    """Base of all ops. `name` is the spelling in the IR text."""

    name: ClassVar[str]
    #: rules an op may lack; a method of the same name overrides the None
    lower: ClassVar[Any] = None  # (site: Site) -> Kernel
    stream: ClassVar[Any] = None  # (step: StepBuilder, node: Node, *inputs: Tracked) -> Tracked
    integer: ClassVar[Any] = None  # (b: Builder, node: Node) -> None: emits integer nodes, or raises Refusal
    #: (types, rows, cols) -> Part: the op for these rows and columns of its output image; None where it has no such
    part: ClassVar[Any] = None
    #: how the axes of operands and results relate (`ops.axes`): a text such as "...i,io,o->...o", or (types) -> text
    axes: ClassVar[Any] = None
    #: every element of the result is one element of an operand, or a fill value; `ops.moves` finds which
    moves: ClassVar[bool] = False
    #: element by element, the result rises or falls in each operand, whatever the others are
    monotone: ClassVar[bool] = False
    #: (types, operands: Sequence[Interval]) -> Interval | None: what the result can be where that follows from neither
    interval: ClassVar[Any] = None
    #: sums of products of x [..., I] with w [..., I/groups, O] plus a bias [O]: operands 0, 1 and 2; see `ops.layer`
    is_layer: ClassVar[bool] = False
    #: operand types, as in the text form, and attributes in braces: what the declarations are tested on
    examples: ClassVar[tuple[str, ...]] = ()
    #: True when the node's output is its state: the planner gives both the same memory
    output_is_state: ClassVar[bool] = False
    #: of a quotient, the op that makes the same of the reciprocal of its second operand
    product: ClassVar[Any] = None
    #: True when a frame's result is the mean of the frames so far, or of the last ones: an any-time readout
    is_readout: ClassVar[bool] = False
    #: inputs whose memory the output may take: element i is read before element i of the same size is written
    inplace: ClassVar[tuple[int, ...]] = ()
    #: True when the output is the same bytes as the input under another shape: no code, no memory
    is_view: ClassVar[bool] = False
    #: True when the two operands may change places
    commutes: ClassVar[bool] = False

    # What quantisation asks before it decides how tensors are stored
    #: how it reads its computed operands, where it is no `linear_map`
    reads: ClassVar[Reads] = Reads.INT8
    #: every element of the result is that of the operand, or a bound that it exceeds
    clamps: ClassVar[bool] = False
    #: the `Scale` at whose integers the result lies, where a file says so
    grid: ClassVar[Any] = None
    #: the first result is spikes, 0 or 1: it is a neuron
    spikes: ClassVar[bool] = False
    #: the elements of each row of the result are parts of 1, as probabilities are: in int16 their scale is PROBABILITY
    shares: ClassVar[bool] = False
    #: what the result's int8 ranges over whatever calibration held, as TFLite has it too
    fixed_range: ClassVar[tuple[float, float] | None] = None

    @property
    def picks(self) -> bool:
        """Whether every element of the result is some element of the first operand; which one depends on values."""
        return False

    @property
    def varies(self) -> tuple[float, float]:
        """A function of one element is constant below the first and above the second."""
        return -inf, inf

    @property
    def formula(self) -> str:
        """What it computes element by element, in the letters of its operands (`ops.expression`); empty where it does
        not."""
        return ""

    @property
    def eight_bits(self) -> str:
        """Why its weights have 8 bits whatever is asked for; empty where they may have fewer."""
        return ""

    def linear_map(self, site: Site) -> LinearMap | None:
        """What the op does to its one computed operand, where that is an affine map; else None."""
        return None

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Output types from input types; ValueError names what does not fit."""
        raise NotImplementedError

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        """The meaning of an op without state, in torch. Integers are int64 tensors and exact."""
        raise NotImplementedError

    def state_types(self, types: Sequence[TensorType]) -> tuple[tuple[TensorType, float], ...]:
        """Type and initial value of each state the op keeps in a step graph."""
        return ()

    def run(
        self, tensors: Sequence[torch.Tensor], states: Sequence[torch.Tensor] = ()
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Outputs and new states. Without states a stateful op starts afresh and runs over the whole sequence."""
        out = self.reference(*tensors)
        return (out,) if not isinstance(out, tuple) else out, ()

    def equals(self, site: Site) -> int | None:
        """The operand that the output equals where it has the same type; None where it is another tensor."""
        return None

    def simplified(self, site: Site) -> Form | None:
        """A plainer way to write the node, with the same numbers; None where this is the plainest."""
        return None

    def following(self, before: Op, x: TensorType, alone: bool) -> Op | None:
        """One op for `before` and then this one, with the same numbers; None where there is none. `x` is the type
        between them; `alone`: nothing else reads it."""
        return None

    @property
    def lag(self) -> int:
        """Frames by which the result of a step is later than the operand."""
        return 0

    def taking(self, after: Op, types: Sequence[TensorType]) -> Op | None:
        """The op that does the work of the next one too, on its own operands and then those of the other beyond the
        first; None where there is none. `types` are those of its operands."""
        return None

    def transposed(self, operand: int, perm: Sequence[int]) -> Op | None:
        """The op that reads an operand as it lies before a permute; None where there is none."""
        return None

    def with_shape(self, shape: Sequence[int]) -> Op:
        """The same op where its operands have other extents (of the batch, of time, fewer channels), so that its result
        has these: only an op that spells extents out is another one then."""
        return self

    @classmethod
    def samples(cls) -> list[tuple[Any, tuple[TensorType, ...]]]:
        """Ops of this class with types of their operands."""
        return [parse_sample(cls, text) for text in cls.examples]

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost()


def need(condition: bool, message: str) -> None:
    """Raise ValueError for operands that do not fit; the verifier adds node and source."""
    if not condition:
        raise ValueError(message)


def indent(lines: Sequence[str], by: int = 1) -> list[str]:
    """Lines of a kernel's text, so many levels further in."""
    return ["    " * by + line for line in lines]


def same_time(types: Sequence[TensorType]) -> int | None:
    """The time axis all operands that have one agree on."""
    axes = {t.time_axis for t in types if t.time_axis is not None}
    need(len(axes) <= 1, f"operands have different time axes {sorted(axes)}")
    return axes.pop() if axes else None


def with_frames(t: TensorType, frames: int) -> TensorType:
    """The same type with another extent along its time axis."""
    assert t.time_axis is not None
    return replace(t, shape=tuple(frames if k == t.time_axis else n for k, n in enumerate(t.shape)))


def ctype(dtype: DType) -> str:
    """Buffer element type in TVMScript."""
    return dtype.storage


def params_of(site: Site, names: Sequence[str]) -> tuple[Param, ...]:
    """Buffer parameters for all inputs, states and outputs of a node, under the given names in that order."""
    types = [*site.inputs, *site.states, *site.outputs]
    return tuple((n, t.storage_shape or (1,), ctype(t.dtype)) for n, t in zip(names, types, strict=True))
