"""What a converter sees of one call in the exported program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from edgec.frontends import call as calls
from edgec.frontends.builder import GraphBuilder
from edgec.frontends.pytorch.source import module_path
from edgec.ir.types import QuantParams, TensorType
from edgec.ops.shape import Permute, Reshape

MASKED = float(np.float32(-1e30))  # stands for -inf; added to a score, it swallows it


@dataclass(frozen=True)
class Constant:
    """A weight, a buffer, or what is computed from them alone; float64 where it lies on a grid."""

    name: str
    value: torch.Tensor
    grid: QuantParams | None = None

    @property
    def plain(self) -> torch.Tensor:
        """The values as torch has them."""
        return self.value if self.grid is None else self.value.float()


@dataclass(frozen=True)
class Padded:
    """A zero-padded tensor whose padding the next convolution or pooling takes over. pads: (before, after) per axis."""

    tensor: str
    pads: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Expanded:
    """A tensor repeated along axes of extent 1; the arithmetic behind it broadcasts by itself."""

    tensor: str
    shape: tuple[int, ...]


def to_array(value: torch.Tensor) -> npt.NDArray[Any]:
    """The values of a tensor; floats become float32."""
    value = value.detach().cpu()
    array: npt.NDArray[Any] = (value.float() if value.is_floating_point() else value).numpy()
    return array


#: Calls that are a layer of their own: their tensor is called after the module.
LAYER_CALLS = frozenset(
    """conv1d conv2d linear batch_norm layer_norm max_pool1d max_pool2d avg_pool1d avg_pool2d adaptive_avg_pool1d
    adaptive_avg_pool2d relu relu6 hardtanh gelu sigmoid tanh softmax silu hardswish hardsigmoid leaky_relu
    prelu elu selu celu softplus mish lif lmu_memory log_mel running_mean""".split()  # noqa: SIM905
)


def name_of(node: fx.Node, target: str, prefix: str = "") -> str:
    """What the tensors of a call are called: `embed.norm0`, `mixer.cat`."""
    path, short = module_path(node.meta.get("nn_module_stack"), prefix), target.split("::")[-1]
    if not path:
        return short
    return path if short in LAYER_CALLS else f"{path}.{short}"


#: Arguments that change no number: where a tensor lies, how it is stored, and what only training reads.
WITHOUT_EFFECT = frozenset(
    """device layout pin_memory memory_format non_blocking copy half_to_float cudnn_enable cudnn_enabled
    momentum""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Call(calls.Call):
    """One ATen call. frames: number of frames that stand in the place of the batch."""

    node: fx.Node
    frames: int | None = None

    @property
    def results(self) -> tuple[torch.Tensor, ...]:
        """What comes out, as the exporter's fake tensors."""
        value = self.node.meta["val"]
        return tuple(value) if isinstance(value, list | tuple) else (value,)

    @property
    def result_shape(self) -> tuple[int, ...]:
        return self.result_shapes[0]

    @property
    def result_shapes(self) -> tuple[tuple[int, ...], ...]:
        shapes = [tuple(int(n) for n in r.shape) for r in self.results]
        if self.frames is None:
            return tuple(shapes)
        if any(s[:1] != (1,) for s in shapes):
            raise ValueError("inside the time loop the first axis must stay the batch axis of 1")
        return tuple((self.frames, *s[1:]) for s in shapes)

    @property
    def dtype(self) -> torch.dtype:
        return self.results[0].dtype

    @property
    def used_results(self) -> frozenset[int]:
        """Which of several results something reads."""
        return frozenset(int(user.args[1]) for user in self.node.users if user.users)  # type: ignore[arg-type]

    def tensor(self, key: str) -> str:
        """An operand as a tensor of the graph."""
        return self.as_tensor(self[key], key)

    def as_tensor(self, value: Any, key: str = "operand") -> str:
        """A value of the exported program as a tensor of the graph; constants are stored on first use."""
        if isinstance(value, str):
            return value
        if isinstance(value, Constant):
            if value.grid is not None:
                return self.build.const(value.name, value.value.numpy(), value.grid)
            return self.mask(value.name, to_array(value.value))
        if isinstance(value, Padded):
            raise ValueError("zero padding is supported only right before a convolution")
        if isinstance(value, Expanded):
            raise ValueError(
                f"expand from {self.type_of(value.tensor).shape} to {value.shape}; only arithmetic follows it"
            )
        if isinstance(value, bool | int | float):
            return self.build.const(f"{self.name}_scalar", np.array(value, dtype=np.float32))
        raise ValueError(f"{key} is not a tensor, found {type(value).__name__}")

    def is_constant(self, key: str) -> bool:
        return isinstance(self.args[key], Constant)

    def constant(self, key: str) -> npt.NDArray[Any]:
        """The values of an operand that must be constant: a weight."""
        value = self[key]
        if not isinstance(value, Constant):
            raise ValueError(f"{key} must be a constant, found a computed tensor")
        return to_array(value.value)

    def stem(self, key: str, fallback: str) -> str:
        """The name a constant made of this operand gets."""
        value = self.args.get(key)
        return value.name if isinstance(value, Constant) else f"{self.name}_{fallback}"

    def type_of(self, name: str) -> TensorType:
        return self.build.type_of(name)

    def const(self, stem: str, data: npt.NDArray[Any]) -> str:
        data = np.asarray(data, dtype=np.float32)
        if not np.isfinite(data).all():
            raise ValueError(f"constant {stem} holds values that are not finite")
        return self.build.const(stem, data)

    def weight(self, key: str, *perm: int) -> str:
        """An operand that must be constant, its axes in another order, with its grid if it has one."""
        data, stem, given = self.constant(key), self.stem(key, "weight"), self.args[key]
        order = perm or tuple(range(data.ndim))
        if given.grid is None:
            return self.const(stem, np.transpose(data, order))
        axis = given.grid.axis
        grid = given.grid if axis is None else replace(given.grid, axis=order.index(axis))
        return self.build.const(stem, given.value.numpy().transpose(order), grid)

    def mask(self, stem: str, data: npt.NDArray[Any]) -> str:
        """A constant whose -inf become MASKED; `mask_problems` looks at what reads it."""
        if data.dtype.kind != "f":
            return self.build.const(stem, narrowed(stem, data))
        infinite = np.isneginf(data)
        name = self.const(stem, np.where(infinite, np.float32(MASKED), data))
        if infinite.any():
            self.build.masks.add(name)
        return name

    def permute(self, x: str, perm: tuple[int, ...]) -> str:
        if perm == tuple(range(len(perm))):
            return x
        return self.build.emit(Permute(perm), x, name=f"{self.name}.permute")

    def reshape(self, x: str, shape: tuple[int, ...]) -> str:
        """The same elements in another shape; the time axis is found again where it stands alone."""
        t = self.type_of(x)
        if t.shape == shape:
            return x
        return self.build.emit(Reshape(shape, time_after_reshape(t, shape)), x, name=f"{self.name}.view")

    def axis(self, key: str, rank: int) -> int:
        """An axis argument counted from the front."""
        return int(self[key]) % rank


def narrowed(stem: str, data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """int64, as torch has indices, as int32. ValueError where a number does not fit."""
    if data.dtype != np.int64:
        return data
    info = np.iinfo(np.int32)
    if data.size and (data.min() < info.min or data.max() > info.max):
        raise ValueError(f"constant {stem} holds integers beyond 32 bits")
    return data.astype(np.int32)


#: name of a call -> an expression of its arguments (`Call.map`), or a function
Converters = dict[str, str | Callable[[Call], Any]]


def schema_of(target: Any) -> calls.Schema:
    """The parameters of an operator; torch itself has checked that what is required is there."""
    if not isinstance(target, torch._ops.OpOverload):
        return (calls.Parameter("self"), calls.Parameter("index"))  # operator.getitem
    arguments = target._schema.arguments
    return tuple(calls.Parameter(a.name, a.default_value if a.has_default_value() else None) for a in arguments)


def call_of(
    build: GraphBuilder, node: fx.Node, kind: str, prefix: str = "", value: Callable[[fx.Node], Any] | None = None
) -> Call:
    """A node's call; with `value`, which says what a node stands for, bound to the schema of its operator."""
    name, schema, args = name_of(node, kind, prefix), schema_of(node.target), {}
    if value is not None:
        given = calls.bind(schema, node.args, node.kwargs)
        args = {key: fx.node.map_arg(v, value) for key, v in given.items()}
    dtype = args.get("dtype")
    neutral = ("dtype",) if isinstance(dtype, torch.dtype) and dtype.is_floating_point else ()
    return Call(kind, schema, args, build, name, node, seen={*WITHOUT_EFFECT, *neutral})


def time_after_reshape(t: TensorType, shape: tuple[int, ...]) -> int | None:
    """Where the time axis is after a reshape; None where it is folded into another axis, which infer refuses."""
    if t.time_axis is None:
        return None
    before = int(np.prod(t.shape[: t.time_axis]))
    found = [k for k, n in enumerate(shape) if n == t.frames and int(np.prod(shape[:k])) == before]
    if t.time_axis in found:
        return t.time_axis
    return found[0] if found else None


def needed_by(results: Sequence[fx.Node]) -> set[fx.Node]:
    """The results and all that they are computed from."""
    stack, found = list(results), set(results)
    while stack:
        for n in stack.pop().all_input_nodes:
            if n not in found:
                found.add(n)
                stack.append(n)
    return found
