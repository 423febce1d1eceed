"""Functions of one element by name: a function is one line here. Each is an op of that name, and may be called in the
expressions of `Map` and of the lines here. Operands are letters, parameters have defaults.

Where the exact value is the difference of nearly equal ones the line avoids it: log1p, expm1, asinh near zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

FUNCTIONS: Mapping[str, str] = {
    "abs(a)": "max(a, 0 - a)",
    "acos(a)": "2 * atan(sqrt((1 - a) / (1 + a)))",
    "acosh(a)": "log1p((a - 1) + sqrt(a - 1) * sqrt(a + 1))",
    "asin(a)": "atan(a / sqrt((1 - a) * (1 + a)))",
    "asinh(a)": "sign(a) * where(abs(a) > 1e9, log(abs(a)) + log(2), log1p(abs(a) + a * a / (1 + sqrt(a * a + 1))))",
    "atan(a)": "atan(a)",
    "atanh(a)": "0.5 * log1p(2 * a / (1 - a))",
    "ceil(a)": "ceil(a)",
    "cos(a)": "cos(a)",
    "cosh(a)": "0.5 * (exp(a) + exp(0 - a))",
    "elu(a, alpha=1.0, gain=1.0, rate=1.0)": "gain * (max(a, 0) + alpha * (exp(min(a, 0) * rate) - 1))",
    "exp(a)": "exp(a)",
    "exp2(a)": "pow(2, a)",
    "erf(a)": "erf(a)",
    "expm1(a)": "where(abs(a) < 1, 2 * tanh(0.5 * a) / (1 - tanh(0.5 * a)), exp(a) - 1)",
    "floor(a)": "floor(a)",
    "gelu(a)": "0.5 * a * (1 + erf(a * 0.7071067811865476))",
    "gelu_tanh(a)": "0.5 * a * (1 + tanh(0.7978845608 * a * (1 + 0.044715 * a * a)))",
    "hardsigmoid(a)": "min(max(a + 3, 0), 6) / 6",
    "hardswish(a)": "a * (min(max(a + 3, 0), 6) / 6)",
    "leaky_relu(a, slope=0.01)": "max(a, 0) + slope * min(a, 0)",
    "log(a)": "log(a)",
    "log10(a)": "log(a) * 0.4342944819032518",
    "log1p(a)": "where(1 + a == 1, a, log(1 + a) * a / ((1 + a) - 1))",
    "log2(a)": "log(a) * 1.4426950408889634",
    "mish(a)": "a * tanh(softplus(a))",
    "reciprocal(a)": "1 / a",
    "relu(a)": "max(a, 0)",
    "relu6(a)": "min(max(a, 0), 6)",
    "round(a)": "round(a)",
    "rsqrt(a)": "1 / sqrt(a)",
    "sigmoid(a)": "1 / (1 + exp(0 - a))",
    "sign(a)": "sign(a)",
    "silu(a)": "a / (1 + exp(0 - a))",
    "sin(a)": "sin(a)",
    "sinh(a)": "tanh(a) * cosh(a)",
    "softplus(a, beta=1.0)": "(max(a * beta, 0) + log(1 + exp(min(a * beta, 0 - a * beta)))) / beta",
    "softsign(a)": "a / (1 + abs(a))",
    "sqrt(a)": "sqrt(a)",
    "square(a)": "a * a",
    "tan(a)": "sin(a) / cos(a)",
    "tanh(a)": "tanh(a)",
    "trunc(a)": "trunc(a)",
}

#: functions that torch has: their reference is its very value, so that calibration sees the network's own numbers
IN_TORCH: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "relu": torch.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
}

#: what the int8 of these results ranges over, as TFLite has it too
FIXED_RANGES: Mapping[str, tuple[float, float]] = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}
