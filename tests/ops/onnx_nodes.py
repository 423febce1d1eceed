"""The ONNX project's node tests as ops of the IR: what each operator is in them, and its data."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import onnx

from edgec.ir.types import DType, TensorType
from edgec.ops import Cumulative, Gather, GatherElements, Map, Reduce, Scatter, Slice
from edgec.ops.taps import outside

DTYPES = {
    "float32": DType.F32, "bool": DType.BOOL, "int64": DType.I32, "int32": DType.I32, "int16": DType.I16,
    "int8": DType.I8, "uint8": DType.U8,
}  # fmt: skip
Values = list[np.ndarray]
Rule = Callable[[Mapping[str, Any], Values], tuple[Any, Values] | None]

SAME = "abs acos acosh asin asinh atan atanh ceil cos cosh erf exp floor log mish reciprocal relu round sigmoid sign"
SAME += " sin sinh softplus softsign sqrt tan tanh"
EXPRESSIONS = {
    **{name.capitalize(): f"{name}(a)" for name in SAME.split()},
    "Add": "a + b", "Sub": "a - b", "Mul": "a * b", "Neg": "-a", "Where": "where(a, b, c)", "And": "a & b",
    "Or": "a | b", "Xor": "a ^ b", "Not": "~a", "BitwiseAnd": "a & b", "BitwiseOr": "a | b",
    "BitwiseXor": "a ^ b", "BitwiseNot": "~a",
    "Equal": "a == b", "Greater": "a > b", "GreaterOrEqual": "a >= b", "Less": "a < b", "LessOrEqual": "a <= b",
    "HardSwish": "hardswish(a)", "PRelu": "max(a, 0) + b * min(a, 0)", "IsNaN": "isnan(a)", "Identity": "a",
}  # fmt: skip
#: attribute: default
PARAMETERS = {
    "LeakyRelu": ("leaky_relu(a, slope=alpha)", {"alpha": 0.01}),
    "Elu": ("elu(a, alpha=alpha)", {"alpha": 1.0}),
    "Celu": ("elu(a, alpha=alpha, rate=1 / alpha)", {"alpha": 1.0}),
    "Selu": ("elu(a, alpha=alpha, gain=gamma)", {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}),
    "HardSigmoid": ("min(max(alpha * a + beta, 0), 1)", {"alpha": 0.2, "beta": 0.5}),
    "ThresholdedRelu": ("where(a > alpha, a, 0)", {"alpha": 1.0}),
    "Shrink": ("where(a < -lambd, a + bias, where(a > lambd, a - bias, 0))", {"lambd": 0.5, "bias": 0.0}),
}
REDUCTIONS = {
    "ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod",
    "ReduceL1": "l1", "ReduceL2": "l2", "ReduceSumSquare": "sum_square", "ReduceLogSum": "log_sum",
    "ReduceLogSumExp": "log_sum_exp",
}  # fmt: skip


def parameters(text: str, defaults: Mapping[str, float]) -> Rule:
    def rule(attributes: Mapping[str, Any], x: Values) -> tuple[Any, Values]:
        spelled = text
        for name, value in {**defaults, **{k: v for k, v in attributes.items() if k in defaults}}.items():
            spelled = spelled.replace(f"={name}", f"={value!r}").replace(f"{name} *", f"{value!r} *")
            spelled = spelled.replace(f"/ {name}", f"/ {value!r}").replace(f"+ {name}", f"+ {value!r}")
            spelled = spelled.replace(f"- {name}", f"- {value!r}").replace(f"-{name}", f"-{value!r}")
            spelled = spelled.replace(f"> {name}", f"> {value!r}")
        return Map(spelled), x

    return rule


def divided(attributes: Mapping[str, Any], x: Values) -> tuple[Any, Values]:
    return Map("a / b" if x[0].dtype.kind == "f" else "trunc_div(a, b)"), x


def power(attributes: Mapping[str, Any], x: Values) -> tuple[Any, Values]:
    if x[0].dtype.kind == x[1].dtype.kind:
        return Map("pow(a, b)"), x
    return Map("pow(a, float(b))" if x[0].dtype.kind == "f" else "int(pow(float(a), b))"), x


def modulo(attributes: Mapping[str, Any], x: Values) -> tuple[Any, Values]:
    return Map("fmod(a, b)" if attributes.get("fmod") else "a % b"), x


def shifted(attributes: Mapping[str, Any], x: Values) -> tuple[Any, Values]:
    return Map("a << b" if attributes["direction"] == b"LEFT" else "a >> b"), x


def infinite(attributes: Mapping[str, Any], x: Values) -> tuple[Any, Values]:
    sides = [s for s, key in (("a > 0", "detect_positive"), ("a < 0", "detect_negative")) if attributes.get(key, 1)]
    return Map(f"isinf(a) & ({' | '.join(f'({s})' for s in sides) or 'a != a'})"), x


def several(name: str) -> Rule:
    def rule(attributes: Mapping[str, Any], x: Values) -> tuple[Any, Values]:
        letters = "abcdefgh"[: len(x)]
        total = " + ".join(letters)
        text = {"Sum": total, "Mean": f"({total}) / {len(x)}"}.get(name) or f"{name.lower()}({', '.join(letters)})"
        return Map("a" if len(x) == 1 else text), x

    return rule


def clipped(attributes: Mapping[str, Any], x: Values) -> tuple[Any, Values]:
    text = "a"
    for bound, function in zip(x[1:], ("max", "min"), strict=False):
        text = text if bound is None else f"{function}({text}, {bound.item()!r})"
    return Map(text), x[:1]


def reduction(kind: str) -> Rule:
    def rule(attributes: Mapping[str, Any], x: Values) -> tuple[Any, Values] | None:
        axes = attributes.get("axes") or (x[1].tolist() if len(x) > 1 and x[1] is not None else [])
        if not axes and attributes.get("noop_with_empty_axes"):
            return None
        axes = axes or range(x[0].ndim)
        return Reduce(kind, tuple(axes), bool(attributes.get("keepdims", 1))), x[:1]

    return rule


def place(kind: str) -> Rule:
    def rule(attributes: Mapping[str, Any], x: Values) -> tuple[Any, Values]:
        last = "_last" if attributes.get("select_last_index") else ""
        return Reduce(kind + last, (attributes.get("axis", 0),), bool(attributes.get("keepdims", 1))), x

    return rule


def cumulated(attributes: Mapping[str, Any], x: Values) -> tuple[Any, Values]:
    flags = bool(attributes.get("exclusive")), bool(attributes.get("reverse"))
    return Cumulative("sum", int(x[1]), *flags), x[:1]


def scattered(attributes: Mapping[str, Any], x: Values) -> tuple[Any, Values] | None:
    kind = attributes.get("reduction", b"none").decode()
    if x[0].ndim > 1 and any(n != m for k, (n, m) in enumerate(zip(x[0].shape, x[1].shape, strict=True))
                             if k != attributes.get("axis", 0) % x[0].ndim):  # fmt: skip
        return None
    return Scatter(attributes.get("axis", 0), "set" if kind == "none" else kind), x


def sliced(attributes: Mapping[str, Any], x: Values) -> tuple[Any, Values] | None:
    starts, ends = x[1].tolist(), x[2].tolist()
    axes = x[3].tolist() if len(x) > 3 else range(len(starts))
    steps = x[4].tolist() if len(x) > 4 else [1] * len(starts)
    cuts = [slice(s, e, t).indices(x[0].shape[a]) for s, e, t, a in zip(starts, ends, steps, axes, strict=True)]
    ops = [Slice(a, *c) for a, c in zip(axes, cuts, strict=True) if len(range(*c)) > 0]
    return (ops, x[:1]) if len(ops) == len(cuts) else None


def padded(attributes: Mapping[str, Any], x: Values) -> tuple[Any, Values] | None:
    mode = attributes.get("mode", b"constant").decode()
    if mode == "constant" or len(x) > 3:
        return None
    half = len(x[1]) // 2
    pairs = zip(x[1][:half].tolist(), x[1][half:].tolist(), strict=True)
    index = [outside(n, *pair, mode) for n, pair in zip(x[0].shape, pairs, strict=True)]
    return [(Gather(k), [i]) for k, i in enumerate(index)], x[:1]


RULES: Mapping[str, Rule] = {
    **{name: parameters(text, {}) for name, text in EXPRESSIONS.items()},
    **{name: parameters(*row) for name, row in PARAMETERS.items()},
    **{name: reduction(kind) for name, kind in REDUCTIONS.items()},
    **{name: several(name) for name in ("Min", "Max", "Sum", "Mean")},
    "Div": divided, "Pow": power, "Mod": modulo, "BitShift": shifted, "IsInf": infinite, "Clip": clipped,
    "ArgMax": place("argmax"), "ArgMin": place("argmin"), "CumSum": cumulated,
    "Gather": lambda attributes, x: (Gather(attributes.get("axis", 0)), x),
    "GatherElements": lambda attributes, x: (GatherElements(attributes.get("axis", 0)), x),
    "ScatterElements": scattered, "Slice": sliced, "Pad": padded,
}  # fmt: skip


@dataclass(frozen=True)
class NodeTest:
    """A test of one node: ops that apply one after another, each with further operands; input and expected output."""

    name: str
    ops: tuple[tuple[Any, Values], ...]
    x: Values
    expected: np.ndarray


@lru_cache(maxsize=1)
def node_tests() -> tuple[NodeTest, ...]:
    """All tests of the operators in RULES on element types of the IR. What a rule gives None for is left out: empty
    results, axes that change nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    found = []
    for case in cases:
        nodes = case.model.graph.node
        if len(nodes) != 1 or nodes[0].op_type not in RULES or case.name.endswith("_expanded"):
            continue
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in nodes[0].attribute}
        for inputs, outputs in case.data_sets:
            given = iter(inputs)
            values = [np.asarray(next(given)) if name else None for name in nodes[0].input]
            arrays = [*(v for v in values if v is not None), *outputs]  # an output may be a sequence
            usable = all(isinstance(v, np.ndarray | np.generic) and v.dtype.name in DTYPES and v.size for v in arrays)
            made = RULES[nodes[0].op_type](attributes, values) if usable else None
            if made is not None:
                op, x = made
                ops = [o if isinstance(o, tuple) else (o, []) for o in (op if isinstance(op, list) else [op])]
                found.append(NodeTest(case.name, tuple(ops), x, np.asarray(outputs[0])))
    return tuple(found)


def type_of(value: np.ndarray) -> TensorType:
    return TensorType(value.shape, DTYPES[value.dtype.name])
