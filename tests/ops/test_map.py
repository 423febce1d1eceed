"""Expressions of `Map` and the functions of the table: their references against torch's own functions."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ops import OPS, Map
from edgec.ops.elementwise import UNARY, Clip, function
from edgec.ops.language.functions import FUNCTIONS

#: functions whose name torch does not know, or where its own differs
OTHERS = {
    "elu": F.elu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish, "leaky_relu": F.leaky_relu, "mish": F.mish, "relu6": F.relu6, "silu": F.silu,
    "softplus": F.softplus, "softsign": F.softsign,
}  # fmt: skip
LOW = -(2**31)
F32, I32, BOOL = TensorType((2, 3)), TensorType((2, 3), DType.I32), TensorType((2, 3), DType.BOOL)


@pytest.mark.parametrize("name", UNARY)
def test_a_function_is_what_torch_computes(name: str) -> None:
    """Also where small differences of large numbers, and overflow, would spoil a careless formula."""
    x = torch.cat([torch.linspace(-30, 30, 4001), torch.logspace(-9, 1, 400), -torch.logspace(-9, 1, 400)])
    expected = OTHERS.get(name, getattr(torch, name, None))(x.double()).float()
    found = UNARY[name]().reference(x)
    cancels = name in ("elu", "gelu", "gelu_tanh", "softplus")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6 if cancels else 1e-7, equal_nan=True)


def test_every_function_is_an_op() -> None:
    assert {key.partition("(")[0] for key in FUNCTIONS} == set(UNARY) <= set(OPS)
    x = torch.linspace(-3, 3, 13)
    torch.testing.assert_close(function("leaky_relu", slope=0.5).reference(x), F.leaky_relu(x, 0.5))
    torch.testing.assert_close(Map("leaky_relu(a, slope=0.5)").reference(x), F.leaky_relu(x, 0.5))
    assert function("elu", gain=2.0) == function("elu", gain=2.0) != function("elu")


@pytest.mark.parametrize(
    ("expr", "types", "dtype"),
    [
        ("where(a > b, a, 2 * b)", (F32, F32), DType.F32),
        ("where(c, a, b)", (F32, F32, BOOL), DType.F32),
        ("a > 0", (F32,), DType.BOOL),
        ("a & ~b", (BOOL, BOOL), DType.BOOL),
        ("a // b + 1", (I32, TensorType((3,), DType.U8)), DType.I32),
        ("uint8(a)", (F32,), DType.U8),
        ("float(a) ** 2", (I32,), DType.F32),
        ("where(a, 1, 0)", (BOOL,), DType.I32),
        ("where(a, 1.0, 0)", (BOOL,), DType.F32),
    ],
)
def test_types_of_results(expr: str, types: tuple[TensorType, ...], dtype: DType) -> None:
    assert Map(expr).infer(types) == (TensorType((2, 3), dtype),)


def test_expressions_on_tensors() -> None:
    a, b = torch.tensor([-3.5, 0.5, 2.5, np.nan]), torch.tensor([2.0, 2.0, -2.0, 1.0])
    expected = {
        "where(a > b, a, 2 * b)": torch.where(a > b, a, 2 * b), "a % b": torch.remainder(a, b),
        "fmod(a, b)": torch.fmod(a, b), "round(a)": a.round(), "a // b": torch.div(a, b, rounding_mode="floor"),
        "pow(abs(a), b)": a.abs() ** b, "max(a, b, 0)": torch.maximum(a, b).clamp(min=0), "-a / b": -a / b,
        "isnan(a) | (a < b)": torch.isnan(a) | (a < b), "exp(pi * 0) * a": a, "max(a, -inf)": a,
    }  # fmt: skip
    for expr, value in expected.items():
        torch.testing.assert_close(Map(expr).reference(a, b), value, equal_nan=True, msg=expr)


def test_integers_wrap_around_and_a_division_by_zero_is_zero() -> None:
    a, b = torch.tensor([2**31 - 1, -7, 7, LOW]), torch.tensor([1, 2, 0, -1])
    expected = {
        "a + b": [LOW, -5, 7, 2**31 - 1], "a // b": [2**31 - 1, -4, 0, LOW], "-a": [LOW + 1, 7, -7, LOW],
        "trunc_div(a, b)": [2**31 - 1, -3, 0, LOW], "a % b": [0, 1, 0, 0], "fmod(a, b)": [0, -1, 0, 0],
        "uint8(a)": [255, 249, 7, 0], "int8(a)": [-1, -7, 7, 0],
        "a << b": [-2, -28, 7, 0], "a >> b": [2**30 - 1, -2, 7, -1],
        "a ** b": [2**31 - 1, 49, 1, 0], "a ^ b": [2**31 - 2, -5, 7, 2**31 - 1],
    }  # fmt: skip
    for expr, values in expected.items():
        assert Map(expr).reference(a, b).tolist() == values, expr


@pytest.mark.parametrize(
    ("expr", "types", "message"),
    [
        ("a b", (F32,), "expected an expression such as"),
        ("foo(a)", (F32,), "unknown function foo"),
        ("exp(a, b)", (F32, F32), "exp takes 1 operands, found 2"),
        ("a.real", (F32,), "is no part of an expression"),
        ("leaky_relu(a, angle=1)", (F32,), "expected leaky_relu(a, slope)"),
        ("a + b", (F32, I32), "add of float32 and int32: convert one, as in float(a) or int(a)"),
        ("exp(a)", (I32,), "exp takes float32, found int32"),
        ("where(a, b, 0)", (F32, F32), "the condition of where is float32, expected bool"),
        ("a * 0.5", (I32,), "mul of int32 and a number with a fraction"),
        ("a + b", (F32,), "expected 2 operands, found 1"),
        ("a + 1", (TensorType((2,), DType.I8, QuantParams((0.1,))),), "an operand is quantised"),
    ],
)
def test_what_does_not_fit_is_told(expr: str, types: tuple[TensorType, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Map(expr).infer(types)


def test_where_a_function_varies_follows_from_its_expression() -> None:
    inf = float("inf")
    found = {name: UNARY[name]().varies for name in UNARY}
    assert found.pop("hardsigmoid") == (-3, 3)
    assert found.pop("hardswish") == (-3, inf)
    assert set(found.values()) == {(-inf, inf)}
    assert Map("0.5 * min(max(2 * a - 1, -1), 1)").varies == (0, 1)
    assert Map("where(a <= 2, 0.0, exp(a))").varies == (2, inf)
    assert Map("a * b").varies == (-inf, inf)
    assert Clip(-0.5, 2).bounds == (-0.5, 2)
