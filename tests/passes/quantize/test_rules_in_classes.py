"""Quantisation names no op: what it needs stands in the op's class, so one from outside is quantised like any other."""

import ast
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from edgec.errors import PassError
from edgec.ir.graph import Node
from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops import MatMul, Reduce, Relu, Slice
from edgec.ops.base import Op, Reads
from edgec.ops.elementwise import Elementwise
from edgec.ops.integer.build import Builder as Integers
from edgec.ops.integer.layer import layer, read
from edgec.ops.integer.linear import QLinear
from edgec.ops.integer.numbers import Refusal
from edgec.ops.language.expression import Term, parse
from edgec.ops.layer import FloatLayer
from edgec.ops.shape import moved
from edgec.passes import quantize
from edgec.passes.quantize.assign_precision import Assignment
from edgec.passes.quantize.compare import compare
from edgec.passes.quantize.quantize import Quantize
from tests.graphs import Builder
from tests.passes.quantize.quantize_tools import quantized, samples


@dataclass(frozen=True)
class Bump(Elementwise):
    """x / (1 + x^2): the rule of a function of one element is inherited."""

    name: ClassVar[str] = "bump"
    fixed_range: ClassVar[tuple[float, float]] = (-0.5, 0.5)

    def expression(self) -> Term:
        return parse("a / (1 + a * a)")


@dataclass(frozen=True)
class Reversed(Op):
    """The elements along the last axis from the end to the start."""

    name: ClassVar[str] = "reversed"
    moves: ClassVar[bool] = True
    integer: ClassVar[Any] = moved

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        return (types[0],)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0].flip(-1)


@dataclass(frozen=True)
class Dense(FloatLayer):
    """y = x w + bias, over frames."""

    name: ClassVar[str] = "dense"
    reads: ClassVar[Reads] = Reads.FRAMES
    activation: str = ""

    def infer(self, types: Sequence[TensorType]) -> tuple[TensorType, ...]:
        return (TensorType((*types[0].shape[:-1], types[1].shape[1]), DType.F32, None, types[0].time_axis),)

    def reference(self, *tensors: torch.Tensor) -> torch.Tensor:
        x, w, bias = tensors
        return x @ w + bias

    def integer(self, b: Integers, node: Node) -> None:
        layer(b, node, read(b, node), QLinear())


@dataclass(frozen=True)
class Blur(Reversed):
    """One that has no integers, and says why."""

    name: ClassVar[str] = "blur"
    moves: ClassVar[bool] = False

    def integer(self, b: Integers, node: Node) -> None:
        raise Refusal("it has no integers", "take reversed")


@dataclass(frozen=True)
class Unruled(Blur):
    """One without a rule."""

    name: ClassVar[str] = "unruled"
    integer: ClassVar[Any] = None


@pytest.mark.parametrize("file", sorted(Path(quantize.__file__).parent.glob("*.py")), ids=lambda p: p.stem)
def test_the_pass_names_no_op(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgec.ops"):
            module = importlib.import_module(str(node.module))
            named = [a.name for a in node.names if isinstance(getattr(module, a.name), type)]
            assert not [n for n in named if issubclass(getattr(module, n), Op)], f"{file.name}, line {node.lineno}"


def test_an_op_from_outside_becomes_integers() -> None:
    b = Builder(seed=3)
    x = b.input("x", 1, 6, 8)
    y = b.emit(Dense(), b.emit(Reversed(), x), b.normal(8, 5), b.normal(5))
    y = b.emit(Bump(), y)
    graph = b.build(y)
    data = samples(graph)
    result = quantized(graph, data)
    assert [n.op.name for n in result.nodes] == ["reversed", "qlinear", "requantize", "qlut"]
    quant = result.type_of(result.outputs[0]).quant
    assert quant == QuantParams((1 / 256,), 0)
    assert result.type_of("x").quant == result.type_of(result.nodes[0].output).quant
    assert all(row.own_sqnr > 30 for row in compare(graph, result, data))


def test_the_user_chooses_the_bits_of_a_layer_from_outside() -> None:
    b = Builder(seed=3)
    graph = b.build(b.emit(Dense(), b.input("x", 1, 6, 8), b.normal(8, 5), b.normal(5)))
    result = Quantize(samples(graph), Assignment(4)).run(graph)
    assert DType.I4 in {c.type.dtype for c in result.consts.values()}


@pytest.mark.parametrize(("reach", "dtype"), [(1, DType.I8), (300, DType.I16)])
def test_a_frame_of_which_few_channels_reach_far_is_read_in_int16(reach: int, dtype: DType) -> None:
    b = Builder(seed=3)
    x = b.emit(Dense(), b.input("x", 1, 6, 8), b.const(np.diag([1.0] * 7 + [float(reach)])), b.const(np.zeros(8)))
    graph = b.build(b.emit(Dense(), x, b.normal(8, 5), b.normal(5)))
    result = quantized(graph)
    last = [n for n in result.nodes if n.op.name == "qlinear"][-1]
    assert result.type_of(last.inputs[0]).dtype is dtype


def test_what_a_move_from_outside_passes_on_keeps_its_grid() -> None:
    """A product of matrices wants no zero points: also before what it reads was moved."""
    b = Builder(seed=4)
    x = b.emit(Relu(), b.input("x", 1, 4, 8))
    left = b.emit(Reversed(), b.emit(Bump(), x))
    graph = b.build(b.emit(MatMul(transpose_b=True), left, b.emit(Slice(-1, 0, 8), b.emit(Reversed(), x))))
    result = quantized(graph)
    (product,) = (n for n in result.nodes if n.op.name == "qmatmul")
    right = result.type_of(product.inputs[1]).quant
    assert right is not None
    assert right.zero_point == 0


@pytest.mark.parametrize("op", [Reduce("max", (2,)), Reduce("min", (-1,), False), Slice(-1, 0, 7, 3)])
def test_what_picks_elements_keeps_their_grid(op: Op) -> None:
    b = Builder()
    result = quantized(b.build(b.emit(op, b.input("x", 1, 6, 8))))
    assert [n.op for n in result.nodes] == [op]
    assert result.type_of(result.outputs[0]).quant == result.inputs[0].type.quant


@pytest.mark.parametrize(
    ("op", "said"),
    [
        (Blur(), r"%t0 = blur \(net.py:1\): it has no integers; take reversed"),
        (Unruled(), r"%t0 = unruled \(net.py:1\): the op has no integer form"),
    ],
)
def test_no_rule_and_a_refusal_are_told(op: Op, said: str) -> None:
    b = Builder()
    graph = b.build(b.emit(op, b.input("x", 1, 4, 3)))
    with pytest.raises(PassError, match=said):
        quantized(graph, {"x": np.random.default_rng(0).normal(size=(8, 4, 3)).astype(np.float32)})
