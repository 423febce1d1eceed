"""Every integer kernel of every instruction set: the reference, C on the host and C on the emulated cores agree."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.every_kernel import Bench, random_frame

RATES = (0.0, 0.15, 1.0)
NIGHTLY = pytest.mark.nightly  # a second compiler for what one compiler has shown: slow, and it never differed
HOSTS = [
    (("generic",), "gcc"), (("arm_dsp", "generic"), "zig"), (("scalar", "generic"), "gcc"),
    (("helium", "arm_dsp", "generic"), "zig"), (("neon", "generic"), "gcc"),
    pytest.param((("generic",), "zig"), marks=NIGHTLY), pytest.param((("arm_dsp", "generic"), "gcc"), marks=NIGHTLY),
]  # fmt: skip
CORES = [
    ("cortex-m7", "zig"), ("cortex-m4", "zig"), ("cortex-m33", "gcc"), ("cortex-m3", "zig"), ("cortex-m0plus", "zig"),
    *(pytest.param(core, "gcc", marks=NIGHTLY) for core in ("cortex-m7", "cortex-m3", "cortex-m0plus")),
]  # fmt: skip


@pytest.fixture(scope="module", params=HOSTS, ids=lambda p: f"{p[0][0]}-{p[1]}")
def host(request: pytest.FixtureRequest) -> Iterator[Bench]:
    isa, cc = request.param
    if cc != "zig" and shutil.which(cc) is None:
        pytest.skip(f"{cc} is not installed")
    bench = Bench("host", "host", isa, cc=cc)
    with bench.device:
        yield bench


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), rates=st.lists(st.sampled_from((*RATES, 0.5)), min_size=1, max_size=4))
def test_host(host: Bench, seed: int, rates: list[float]) -> None:
    rng = np.random.default_rng(seed)
    host.check([random_frame(host.graph, host.reach, rng, rate) for rate in rates])


def test_variants_are_used(host: Bench) -> None:
    """The graph reaches every variant of the tables, and the generic rule."""
    found = {call.variant for call in host.plan.calls}
    both = {
        "event_dsp",
        "silence_dsp",
        "spikes_dsp",
        "rows_dsp",
        "windows_dsp",
        "depth_dsp",
        "lif_dsp",
        "requantize_dsp",
        "generic",
    }
    if "linear_mve" in found:
        mve = {"spikes_mve", "windows_mve", "depth_mve", "add_mve", "requantize_mve", "product_mve", "pool_mve"}
        assert found >= mve | both
    elif "dense_neon" in found:
        assert found >= {"windows_neon", "dense", "event", "requantize_neon", "generic"}
    else:
        assert found >= {"event", "dense", "generic"} or found >= {"wide_dsp", "conv_dsp", "depthwise_dsp", *both}


@pytest.mark.parametrize(("target", "toolchain"), CORES)
def test_emulated_core(target: str, toolchain: str) -> None:
    pytest.importorskip("unicorn")
    if toolchain == "gcc" and shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    bench = Bench("unicorn", target, toolchain=toolchain)
    with bench.device:
        bench.check_seeded(RATES * 3)
