"""edgec_math.h: the stated error bounds hold, and every machine gives the same bits."""

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
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("math")
    lines = ['#include "edgec_math.h"', "#define V(n) void v_##n(const float *x, float *y, int c); \\",
             "    void v_##n(const float *x, float *y, int c) { for (int i = 0; i < c; i++) y[i] = edgec_##n(x[i]); }",
             *(f"V({name})" for name in FUNCTIONS)]  # fmt: skip
    (folder / "v.c").write_text("\n".join(lines) + "\n")
    include = ("-I", str(runtime_file("edgec.h").parent))
    return ctypes.CDLL(str(build_plain_shared(folder / "v.c", folder / "v.so", flags=include)))


def sample() -> np.ndarray:
    """Every sign, exponent and a spread of mantissas, infinities and NaN, and a dense grid where the work is."""
    bits = np.arange(0, 2**32, 20011, dtype=np.uint64).astype(np.uint32).view(np.float32)
    dense = np.linspace(-12, 12, 60001, dtype=np.float32)
    ties = np.arange(-40, 40, 0.5, dtype=np.float32)
    return np.concatenate([bits, dense, ties, np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float32)])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_bound(library: ctypes.CDLL, name: str) -> None:
    bound, exact = FUNCTIONS[name]
    x = sample()
    y = np.empty_like(x)
    getattr(library, f"v_{name}")(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), x.size)
    with np.errstate(all="ignore"):
        reference = exact(x.astype(np.float64))
        rounded = reference.astype(np.float32)
        finite = np.isfinite(rounded)
        ulp = np.spacing(np.maximum(np.abs(rounded[finite]), np.float32(2.0**-126))).astype(np.float64)
        error = np.abs(y[finite].astype(np.float64) - reference[finite]) / ulp
    np.testing.assert_array_equal(y[~finite], rounded[~finite])
    assert error.max() <= bound, f"{name}({x[finite][error.argmax()]}) is off by {error.max():.3f} ulp"


def test_the_header_states_these_bounds() -> None:
    text = runtime_file("edgec_math.h").read_text()
    for name in ("expf", "logf", "tanhf", "erff", "sigmoidf"):
        assert f"edgec_{name} {FUNCTIONS[name][0]}" in text


@pytest.mark.parametrize(("target", "toolchain"), [("cortex-m7", "zig"), ("cortex-m0plus", "zig")])
def test_the_device_gives_the_hosts_bits(tmp_path: Path, target: str, toolchain: str) -> None:
    pytest.importorskip("unicorn")
    count = 512
    folder = make_model(tmp_path, ["x"], [f"edgec_{n}(x)" for n in FUNCTIONS], "float", "float32", count)
    x = np.concatenate([np.linspace(-10, 10, count - 6), [0.0, np.inf, -np.inf, 1e-40, 3e38, -0.0]]).astype(np.float32)
    with open_device("host", folder, target="host") as host:
        expected = host.step([x])
    with open_device("unicorn", folder, target=target, toolchain=toolchain) as device:
        found = device.step([x])
    assert expected is not None
    assert found is not None
    for name, a, b in zip(FUNCTIONS, expected, found, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b), name)
        keep = ~np.isnan(a)
        np.testing.assert_array_equal(a[keep].view(np.uint32), b[keep].view(np.uint32), name)


def test_header_has_no_c_library(tmp_path: Path) -> None:
    for name in ("edgec.h", "edgec_simd.h", "edgec_math.h"):
        includes = {line.split()[1] for line in runtime_file(name).read_text().splitlines() if "#include" in line}
        assert includes <= {"<stdint.h>", "<stddef.h>", "<string.h>", '"edgec.h"'}
