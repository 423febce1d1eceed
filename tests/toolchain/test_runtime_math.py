"""edgec_math.h and edgec_map.h: the stated error bounds hold, and every machine gives the same bits."""

import ctypes
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgec.device import open_device
from edgec.runtime import runtime_file
from edgec.toolchain import build_plain_shared
from tests.toolchain.vector_model import make_model

# name -> (bound in ulp as the header states it, exact function)
FUNCTIONS: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "expf": (1.1, np.exp),
    "logf": (1.0, np.log),
    "tanhf": (1.5, np.tanh),
    "erff": (1.4, np.vectorize(math.erf, otypes=[np.float64])),
    "sigmoidf": (2.5, lambda x: 1.0 / (1.0 + np.exp(-x))),
    "sqrtf": (0.5, np.sqrt),
    "c_sqrtf": (0.5, np.sqrt),
    "roundf": (0.0, np.round),
    "floorf": (0.0, np.floor),
    "map_ceilf": (0.0, np.ceil),
    "map_truncf": (0.0, np.trunc),
    "map_sinf": (3.0, np.sin),
    "map_cosf": (3.0, np.cos),
    "map_atanf": (3.0, np.arctan),
}
#: the same of two arguments
FUNCTIONS_2: dict[str, tuple[float, Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "map_powf": (2.5, np.power),
    "map_fmodf": (0.0, np.fmod),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("math")
    lines = ['#include "edgec_map.h"', "#define V(n) void v_##n(const float *x, float *y, int c); \\",
             "    void v_##n(const float *x, float *y, int c) { for (int i = 0; i < c; i++) y[i] = edgec_##n(x[i]); }",
             *(f"V({name})" for name in FUNCTIONS),
             "#define W(n) void v_##n(const float *x, const float *z, float *y, int c); \\",
             "    void v_##n(const float *x, const float *z, float *y, int c) \\",
             "    { for (int i = 0; i < c; i++) y[i] = edgec_##n(x[i], z[i]); }",
             *(f"W({name})" for name in FUNCTIONS_2)]  # fmt: skip
    (folder / "v.c").write_text("\n".join(lines) + "\n")
    include = ("-I", str(runtime_file("edgec.h").parent))
    return ctypes.CDLL(str(build_plain_shared(folder / "v.c", folder / "v.so", flags=include)))


def sample() -> np.ndarray:
    """Every sign, exponent and a spread of mantissas, infinities and NaN, and a dense grid where the work is."""
    bits = np.arange(0, 2**32, 20011, dtype=np.uint64).astype(np.uint32).view(np.float32)
    dense = np.linspace(-12, 12, 60001, dtype=np.float32)
    ties = np.arange(-40, 40, 0.5, dtype=np.float32)
    return np.concatenate([bits, dense, ties, np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float32)])


def call(library: ctypes.CDLL, name: str, *arguments: np.ndarray) -> np.ndarray:
    y = np.empty_like(arguments[0])
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*arguments, y)]
    getattr(library, f"v_{name}")(*pointers, y.size)
    return y


def check(found: np.ndarray, reference: np.ndarray, bound: float, name: str, *arguments: np.ndarray) -> None:
    """Finite results within the bound, the others equal; `reference` in double precision."""
    with np.errstate(all="ignore"):
        rounded = reference.astype(np.float32)
        finite = np.isfinite(rounded)
        ulp = np.spacing(np.maximum(np.abs(rounded[finite]), np.float32(2.0**-126))).astype(np.float64)
        error = np.abs(found[finite].astype(np.float64) - reference[finite]) / ulp
    np.testing.assert_array_equal(found[~finite], rounded[~finite])
    worst = [a[finite][error.argmax()] for a in arguments]
    assert error.max() <= bound, f"{name}{tuple(worst)} is off by {error.max():.3f} ulp"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_bound(library: ctypes.CDLL, name: str) -> None:
    bound, exact = FUNCTIONS[name]
    x = sample()
    with np.errstate(all="ignore"):
        check(call(library, name, x), exact(x.astype(np.float64)), bound, name, x)


def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Any two of special values, any bits, and moderate numbers whose power is finite."""
    rng = np.random.default_rng(0)
    special = [0, -0.0, 1, -1, 2, -3, 0.5, np.inf, -np.inf, np.nan, 1e-40, 3e38, 16777216, 16777215, -7.5]
    a, b = (np.array(v, np.float32).ravel() for v in np.meshgrid(special, special))
    bits = rng.integers(0, 2**32, (2, 60000)).astype(np.uint32).view(np.float32)
    near, small = rng.uniform(0.5, 2, 60000).astype(np.float32), rng.normal(0, 40, 60000).astype(np.float32)
    wide, whole = np.exp(rng.uniform(-80, 80, 60000)).astype(np.float32), rng.integers(-9, 9, 60000).astype(np.float32)
    return np.concatenate([a, bits[0], near, wide, -near]), np.concatenate([b, bits[1], small, small / 40, whole])


@pytest.mark.parametrize("name", FUNCTIONS_2)
def test_error_bound_of_two_arguments(library: ctypes.CDLL, name: str) -> None:
    bound, exact = FUNCTIONS_2[name]
    x, y = pairs()
    with np.errstate(all="ignore"):
        check(call(library, name, x, y), exact(x.astype(np.float64), y.astype(np.float64)), bound, name, x, y)


def test_the_header_states_these_bounds() -> None:
    text = "".join(runtime_file(f).read_text() for f in ("edgec_math.h", "edgec_map.h"))
    for name in ("expf", "logf", "tanhf", "erff", "sigmoidf", "map_sinf", "map_cosf", "map_atanf", "map_powf"):
        assert f"edgec_{name} {(FUNCTIONS | FUNCTIONS_2)[name][0]}" in text


@pytest.mark.parametrize(("target", "toolchain"), [("cortex-m7", "zig"), ("cortex-m0plus", "zig")])
def test_the_device_gives_the_hosts_bits(tmp_path: Path, target: str, toolchain: str) -> None:
    pytest.importorskip("unicorn")
    count = 512
    folder = make_model(
        tmp_path,
        ["x"],
        [f"edgec_{n}(x)" for n in FUNCTIONS] + ["edgec_map_powf(edgec_fabsf(x), 1.7f)", "edgec_map_fmodf(x, 0.3f)"],
        "float",
        "float32",
        count,
    )
    x = np.concatenate([np.linspace(-10, 10, count - 6), [0.0, np.inf, -np.inf, 1e-40, 3e38, -0.0]]).astype(np.float32)
    with open_device("host", folder, target="host") as host:
        expected = host.step([x])
    with open_device("unicorn", folder, target=target, toolchain=toolchain) as device:
        found = device.step([x])
    assert expected is not None
    assert found is not None
    for name, a, b in zip([*FUNCTIONS, *FUNCTIONS_2], expected, found, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b), name)
        keep = ~np.isnan(a)
        np.testing.assert_array_equal(a[keep].view(np.uint32), b[keep].view(np.uint32), name)


def test_header_has_no_c_library(tmp_path: Path) -> None:
    for name in ("edgec.h", "edgec_simd.h", "edgec_math.h", "edgec_map.h"):
        includes = {line.split()[1] for line in runtime_file(name).read_text().splitlines() if "#include" in line}
        assert includes <= {"<stdint.h>", "<stddef.h>", "<string.h>", '"edgec.h"', '"edgec_math.h"'}
