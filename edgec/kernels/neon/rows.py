"""Float kernels for 64-bit ARM that go over rows or elements, four at a time: softmax, layer norm, GELU.

Exponential and error function are polynomials here, so that LLVM keeps them in vector registers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgec.ir.types import DType
from edgec.ops.base import Kernel, Op, Site, indent
from edgec.ops.norm import LayerNorm

LANES = 4
#: erf(x / sqrt 2) / 2 = x P(x^2) / Q(x^2) up to |x| = GELU_LIMIT, where it is 1/2; largest error of x * Phi(x) 2e-6
#: (of which the approximation's part is 3e-8). Fitted by weighted least squares to 6000 points.
GELU_LIMIT = 5.5
GELU_P = (0.398942053, 0.0350624546, 0.00475632492, 0.000181941228, 6.51411301e-06, 2.22216059e-08)
GELU_Q = (1.0, 0.254552543, 0.029351715, 0.0019575241, 7.82551579e-05, 1.19428091e-06)
#: e^r = 1 + r + r^2 times this, |r| <= ln 2 / 2, as edgec_expf
EXP = (5.0e-01, 1.666651815e-01, 4.166620597e-02, 8.368887939e-03, 1.395048341e-03)


def is_float(site: Site) -> bool:
    """Whether every operand and result is float32."""
    return all(t.dtype is DType.F32 for t in (*site.inputs, *site.outputs))


def polynomial(x: str, coefficients: Sequence[float]) -> str:
    """Its value in TVMScript, the coefficient of x^0 first."""
    text = f"T.float32({coefficients[-1]!r})"
    for c in reversed(coefficients[:-1]):
        text = f"({text} * {x} + T.float32({c!r}))"
    return text


def gelu_lines(x: str, y: str) -> str:
    """y = x * Phi(x) for one element."""
    return "\n".join([
        f"v: T.let[T.float32] = {x}",
        f"t: T.let[T.float32] = T.max(T.min(v, T.float32({GELU_LIMIT})), T.float32({-GELU_LIMIT}))",
        "z: T.let[T.float32] = t * t",
        f"{y} = v * (T.float32(0.5) + t * {polynomial('z', GELU_P)} / {polynomial('z', GELU_Q)})",
    ])  # fmt: skip


def exponential_lines(x: str, y: str) -> list[str]:
    """y = e^x for one element, x <= 0; below e^-87 it stays there."""
    return [
        f"t: T.let[T.float32] = T.max({x}, T.float32(-87))",
        'n: T.let[T.int32] = T.cast(t * T.float32(1.44269504) - T.float32(0.5), "int32")',  # to nearest: t <= 0
        'f: T.let[T.float32] = T.cast(n, "float32")',
        "d: T.let[T.float32] = t - f * T.float32(0.693359375) - f * T.float32(-2.12194440e-4)",
        f"p: T.let[T.float32] = d + d * d * {polynomial('d', EXP)}",
        f'{y} = (T.float32(1) + p) * T.reinterpret("float32", T.shift_left(n + 127, 23))',
    ]


#: activation -> the lines that apply it to one element of a vectorised loop
VECTOR_ACTIVATIONS: Mapping[str, Callable[[str, str], str]] = {
    "gelu": gelu_lines,
    "relu": lambda x, y: f"{y} = T.max({x}, T.float32(0))",
    "relu6": lambda x, y: f"{y} = T.min(T.max({x}, T.float32(0)), T.float32(6))",
}


def over(count: int, vector: Sequence[str], scalar: Sequence[str]) -> list[str]:
    """`vector` for elements i * 4 + j four at a time, `scalar` for the element i of each that is left."""
    steps, lines = count // LANES, []
    if steps:
        lines += [f"for i in T.serial({steps}):", "    for j in T.vectorized(4):", *indent(vector, 2)]
    if count % LANES:
        lines += [f"for i in T.serial({steps * LANES}, {count}):", *indent(scalar)]
    return lines


def gelu(op: Op, site: Site) -> Kernel | None:
    """GELU that no product applies itself."""
    n = site.inputs[0].size
    if not is_float(site):
        return None
    vector = gelu_lines("x[i * 4 + j]", "y[i * 4 + j]").splitlines()
    lines = over(n, vector, gelu_lines("x[i]", "y[i]").splitlines())
    return Kernel("\n".join(lines), (("x", (n,), "float32"), ("y", (n,), "float32")))


def softmax(op: Op, site: Site) -> Kernel | None:
    """Softmax over the last axis."""
    x = site.inputs[0]
    n = x.shape[-1]
    if not is_float(site) or n < LANES:
        return None
    fold = "T.max(T.max(m[0], m[1]), T.max(m[2], m[3]))"
    body = [
        f"for r in T.serial({x.size // n}):",
        *indent([
            'm = T.alloc_buffer((4,), "float32")',
            's = T.alloc_buffer((4,), "float32")',
            "for j in T.vectorized(4):",
            "    m[j] = x[r, j]",
            *over(n, ["m[j] = T.max(m[j], x[r, i * 4 + j])"], ["m[0] = T.max(m[0], x[r, i])"]),
            f"top: T.let[T.float32] = {fold}",
            "for j in T.vectorized(4):",
            "    s[j] = T.float32(0)",
            *over(
                n,
                [*exponential_lines("x[r, i * 4 + j] - top", "y[r, i * 4 + j]"), "s[j] = s[j] + y[r, i * 4 + j]"],
                [*exponential_lines("x[r, i] - top", "y[r, i]"), "s[0] = s[0] + y[r, i]"],
            ),
            "scale: T.let[T.float32] = T.float32(1) / (s[0] + s[1] + s[2] + s[3])",
            *over(n, ["y[r, i * 4 + j] = y[r, i * 4 + j] * scale"], ["y[r, i] = y[r, i] * scale"]),
        ]),
    ]  # fmt: skip
    shape = (x.size // n, n)
    return Kernel("\n".join(body), (("x", shape, "float32"), ("y", shape, "float32")))


def layer_norm(op: Op, site: Site) -> Kernel | None:
    """Layer norm over the last axis: mean, variance, result in three passes."""
    assert isinstance(op, LayerNorm)
    x = site.inputs[0]
    n = x.shape[-1]
    if not is_float(site):
        return None

    def total(vector: str, scalar: str) -> list[str]:
        zero = ["for j in T.vectorized(4):", "    s[j] = T.float32(0)"]
        return [*zero, *over(n, [f"s[j] = s[j] + {vector}"], [f"s[0] = s[0] + {scalar}"])]

    def square(e: str) -> str:
        return f"({e} - mean) * ({e} - mean)"

    variance = f"(s[0] + s[1] + s[2] + s[3]) / T.float32({n}) + T.float32({op.eps!r})"
    body = [
        f"for r in T.serial({x.size // n}):",
        *indent([
            's = T.alloc_buffer((4,), "float32")',
            *total("x[r, i * 4 + j]", "x[r, i]"),
            f"mean: T.let[T.float32] = (s[0] + s[1] + s[2] + s[3]) / T.float32({n})",
            *total(square("x[r, i * 4 + j]"), square("x[r, i]")),
            f'factor: T.let[T.float32] = T.float32(1) / T.call_extern("float32", "edgec_sqrtf", {variance})',
            *over(
                n,
                ["y[r, i * 4 + j] = (x[r, i * 4 + j] - mean) * factor * scale[i * 4 + j] + shift[i * 4 + j]"],
                ["y[r, i] = (x[r, i] - mean) * factor * scale[i] + shift[i]"],
            ),
        ]),
    ]  # fmt: skip
    shape, row = (x.size // n, n), (n,)
    params = (("x", shape, "float32"), ("scale", row, "float32"), ("shift", row, "float32"), ("y", shape, "float32"))
    return Kernel("\n".join(body), params)
