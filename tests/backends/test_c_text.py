"""The text of generated C: what it says, what it refuses, and that integer kernels compute what they say."""

import numpy as np
import pytest

from edgec.backends.c import declarations, emit_c
from edgec.backends.kernel import NamedKernel
from edgec.errors import CodegenError
from tests.backends.kernel_tools import build_c, kernel
from tests.conftest import needs

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")


def test_text_of_a_small_kernel():
    k = kernel(
        "acc = T.alloc_buffer((1,), 'int32')\n"
        "acc[0] = bias[0]\n"
        "for i in T.parallel(4):\n"
        "    acc[0] = acc[0] + T.cast(x[i], 'int32') * T.cast(w[i], 'int32')\n"
        "y[0] = T.cast(T.min(T.max(T.shift_right(acc[0], 3), -128), 127), 'int8')\n",
        ("x", (4,), "int8"), ("w", (4,), "int8"), ("bias", (1,), "int32"), ("y", (1,), "int8"), writable="y",
    )  # fmt: skip
    assert emit_c([NamedKernel("dot", k.kernel, k.writable, comment="linear\nx [4]")]) == (
        "EDGEC_INLINE int32_t edgec_max_i32(int32_t a, int32_t b) {\n    return a < b ? b : a;\n}\n\n"
        "EDGEC_INLINE int32_t edgec_min_i32(int32_t a, int32_t b) {\n    return b < a ? b : a;\n}\n\n"
        "/* linear\n * x [4] */\n"
        "static void dot(\n"
        "    const int8_t *restrict x,\n"
        "    const int8_t *restrict w,\n"
        "    const int32_t *restrict bias,\n"
        "    int8_t *restrict y) {\n"
        "    int32_t acc;\n"
        "    acc = bias[0];\n"
        "    for (int32_t i = 0; i < 4; ++i) {\n"
        "        acc += (int32_t)x[i] * (int32_t)w[i];\n"
        "    }\n"
        "    y[0] = (int8_t)edgec_min_i32(edgec_max_i32(acc >> 3, -128), 127);\n"
        "}\n"
    )
    assert declarations([k]) == "void f(const int8_t *x, const int8_t *w, const int32_t *bias, int8_t *y);\n"


def test_text_is_the_same_every_time():
    body = "for i in T.serial(3):\n    y[i] = x[i] * T.float32(3)"
    k = kernel(body, ("x", (3,), "float32"), ("y", (3,), "float32"), writable="y")
    assert emit_c([k]) == emit_c([k])


@pytest.mark.parametrize(
    "cc", [pytest.param("gcc", marks=needs("gcc")), pytest.param("clang", marks=needs("clang")), "zig"]
)
def test_arithmetic_of_every_integer_type(cc, tmp_path):
    """Sums, products, shifts, masks, divisions and selections wrap and round as numpy's do."""
    kernels, data = [], {}
    rng = np.random.default_rng(1)
    for t in INTEGERS:
        body = f"""for i in T.serial(64):
    s[i] = a[i] + b[i]
    p[i] = a[i] * b[i]
    q[i] = T.bitwise_xor(T.bitwise_and(a[i], ~b[i]), T.shift_right(a[i], T.{t}(3)))
    d[i] = a[i] // T.{t}(7) + a[i] % T.{t}(7)
    m[i] = T.max(T.min(a[i], b[i]), T.{t}(5)) - T.if_then_else(a[i] < b[i] or b[i] == T.{t}(3), a[i], T.{t}(1))"""
        params = [(n, (64,), t) for n in "abspqdm"]
        kernels.append(kernel(body, *params, writable="s p q d m", symbol=f"f_{t}"))
        info = np.iinfo(t)
        small = 40000 if t == "int32" else 1 << 30  # signed overflow of 32 bits and more is no kernel's right
        lo, hi = max(info.min, -small), min(info.max, small)
        data[t] = {n: rng.integers(lo, hi, size=64).astype(t) for n in "ab"} | {n: np.zeros(64, t) for n in "spqdm"}
    library = build_c(kernels, tmp_path, cc)
    for t in INTEGERS:
        got, a, b = library(f"f_{t}", data[t]), data[t]["a"], data[t]["b"]
        with np.errstate(over="ignore"):
            three, seven = np.array(3, t), np.array(7, t)
            expected = {
                "s": a + b, "p": a * b, "q": (a & ~b) ^ (a >> three), "d": a // seven + a % seven,
                "m": np.maximum(np.minimum(a, b), np.array(5, t)) - np.where((a < b) | (b == 3), a, np.array(1, t)),
            }  # fmt: skip
        for name, value in expected.items():
            np.testing.assert_array_equal(got[name], value.astype(t), err_msg=f"{t} {name}")


def test_conversions_between_types(tmp_path):
    body = """for i in T.serial(8):
    w[i] = T.cast(x[i], "int64") * T.int64(3000000000) + T.int64(-9223372036854775807)
    u[i] = T.cast(x[i], "uint32") + T.uint32(4000000000)
    f[i] = T.cast(x[i], "float32") * T.float32(0.7071067811865476)
    h[i] = T.cast(T.cast(f[i], "int32"), "int16")
    k[i] = T.cast(T.shift_right(w[i], T.int64(20)), "int32") + T.cast(x[i] > 2, "int32")
    n[i] = T.shift_left(T.max(x[i], 0), 3) + T.int32(-2147483648)"""
    types = {"x": "int32", "w": "int64", "u": "uint32", "f": "float32", "h": "int16", "k": "int32", "n": "int32"}
    f = kernel(body, *((n, (8,), t) for n, t in types.items()), writable="w u f h k n")
    x = np.arange(-3, 5, dtype=np.int32)
    got = build_c([f], tmp_path)("f", {n: x if n == "x" else np.zeros(8, t) for n, t in types.items()})
    w = x.astype(np.int64) * 3000000000 - 9223372036854775807
    scaled = x.astype(np.float32) * np.float32(0.7071067811865476)
    np.testing.assert_array_equal(got["w"], w)
    np.testing.assert_array_equal(got["u"], (x.astype(np.int64) + 4000000000).astype(np.uint32))
    np.testing.assert_array_equal(got["f"], scaled)
    np.testing.assert_array_equal(got["h"], scaled.astype(np.int16))
    np.testing.assert_array_equal(got["k"], ((w >> 20) + (x > 2)).astype(np.int32))
    np.testing.assert_array_equal(got["n"], ((np.maximum(x, 0).astype(np.int64) << 3) - 2147483648).astype(np.int32))


def test_float_constants_keep_their_bits(tmp_path):
    values = np.random.default_rng(0).integers(0, 0x7F800000, size=200).astype(np.uint32).view(np.float32)
    values = np.concatenate([values, [0.0, -0.0, np.inf, -np.inf, 1e-45, 3.4028235e38]]).astype(np.float32)

    def constant(v):
        return f"T.float32({float(v)!r})" if np.isfinite(v) else f"{'-' if v < 0 else ''}T.infinity('float32')"

    body = "\n".join(f"y[{k}] = {constant(v)}" for k, v in enumerate(values))
    f = kernel(body, ("y", (len(values),), "float32"), writable="y")
    got = build_c([f], tmp_path)("f", {"y": np.ones(len(values), np.float32)})["y"]
    np.testing.assert_array_equal(got.view(np.uint32), values.view(np.uint32))


def test_control_flow_locals_and_names(tmp_path):
    """Loops bounded by memory, while, early parameters named like C words, unused parameters and locals."""
    body = """n: T.let[T.int32] = x[0]
unused: T.let[T.int32] = x[1]
t = T.alloc_buffer((4,), "int32")
for i in T.serial(x[0]):
    t[i] = i * 2
for i in T.serial(n):
    for int in T.serial(1, x[1]):
        y[i] = y[i] + int + t[i]
while y[0] > 10:
    y[0] = y[0] - T.int32(3)
if x[1] > 100:
    y[1] = 0
else:
    y[1] = y[1] + static[0]"""
    params = ("x", (2,), "int32"), ("y", (4,), "int32"), ("static", (1,), "int32"), ("spare", (1,), "int8")
    f = kernel(body, *params, writable="y")
    arrays = {"x": np.array([3, 4]), "y": np.array([20, 0, 0, 9]), "static": np.array([100]), "spare": np.array([0])}
    library = build_c([f], tmp_path)
    np.testing.assert_array_equal(library("f", arrays)["y"], [8, 112, 18, 9])


def test_runtime_functions_take_pointers_and_unrolled_loops(tmp_path):
    body = """acc = T.alloc_buffer((1,), "int32")
acc[0] = 0
for i in T.unroll(2):
    a: T.let[T.int32] = T.call_extern("int32", "edgec_read_s16x2", T.address_of(x[2 * i]))
    b: T.let[T.int32] = T.call_extern("int32", "edgec_read_s16x2", T.address_of(w[2 * i]))
    acc[0] = T.call_extern("int32", "edgec_smlad", a, b, acc[0])
y[0] = acc[0]
T.evaluate(T.call_extern("void", "edgec_write_s8x4", z.data, acc[0]))"""
    f = kernel(
        body, ("x", (4,), "int16"), ("w", (4,), "int16"), ("y", (1,), "int32"), ("z", (4,), "int8"), writable="y z"
    )
    x, w = np.array([1, -2, 300, 4]), np.array([5, 6, -7, 8])
    got = build_c([f], tmp_path)("f", {"x": x, "w": w, "y": np.zeros(1), "z": np.zeros(4)})
    assert got["y"][0] == x @ w
    assert got["z"].view(np.int32)[0] == x @ w


P = (("x", (4,), "int32"), ("y", (4,), "int32"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y[0] = z[0]", "kernel f (linear): its text does not parse: error: Undefined variable: z"),
        ("y[0] = ", "kernel f (linear): its text does not parse: invalid syntax"),
        ("x[0] = y[0]", "kernel f (linear): it writes to x, but it may write to y only"),
        ("y[0] = T.call_extern('int32', 'puts', x.data)", "expected a function of the runtime (edgec_*)"),
        ("y[0] = T.cast(T.sqrt(T.cast(x[0], 'float32')), 'int32')", "called with T.call_extern, found sqrtf"),
        ("t = T.alloc_buffer((2,), 'float64')\nt[0] = T.float64(1)", "kernel f (linear): expected one of int8, int16"),
    ],
)
def test_a_wrong_kernel_is_an_error_that_names_it(body, message):
    k = kernel(body, *P, writable="y")
    with pytest.raises(CodegenError) as caught:
        emit_c([NamedKernel("f", k.kernel, k.writable, where="linear")])
    assert message in str(caught.value)


def test_symbols_and_writable_names_are_checked():
    k = kernel("y[0] = x[0]", *P, writable="y")
    with pytest.raises(CodegenError, match="kernel f: its symbol is used twice"):
        emit_c([k, k])
    with pytest.raises(CodegenError, match="expected writable names among its parameters x, y; found z"):
        emit_c([NamedKernel("f", k.kernel, frozenset({"z"}))])
