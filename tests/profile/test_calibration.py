"""The factors of the target files are what the bench fits to published runs, and its data agree with each other."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgec.profile.timing.model import board_cycles, board_milliseconds
from edgec.target import load_target

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("timing_calibration", BENCH / "timing_calibration.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_target_files_hold_what_is_fitted(bench: ModuleType) -> None:
    found = bench.fits()
    assert set(found) == {"m4", "m7", "m33"}
    for core, fit in found.items():
        timing = load_target(f"cortex-{core}").timing
        assert timing is not None
        assert (timing.board_factor, timing.board_error) == (round(fit.factor, 2), round(fit.error, 2))


def test_the_fit_gives_back_what_it_was_fitted_to(bench: ModuleType) -> None:
    """The Cortex-M4's factor reproduces both runs of CMSIS-NN within 1 %; each core's code has the median ratio."""
    m4 = bench.fit_m4()
    for network in bench.COUNTED:
        run = bench.cycles(bench.find(bench.OPEN, bench.REFERENCE), network)
        assert m4.factor * bench.modelled_cmsis_nn(network) == pytest.approx(run, rel=0.01)
    for core in ("m7", "m33"):
        fit = bench.fits()[core]
        ours = [fit.factor * bench.DATA["edgec"][core][n] / bench.DATA["edgec"]["m4"][n] for n in bench.COUNTED]
        values = sorted(bench.all_ratios(core))
        half = len(values) // 2
        median = (values[half - 1] + values[half]) / 2
        assert bench.geometric_mean(ours) / m4.factor == pytest.approx(median, rel=1e-9)


def test_every_run_is_whole(bench: ModuleType) -> None:
    for row in bench.BOARDS:
        assert set(row) == {"stack", "core", "board", "mhz", "ms", "source"}
        assert {"kws", "ic"} <= set(row["ms"]) <= set(bench.NETWORKS)
    shares = {n: sum(k["share"] for k in bench.DATA["kernel"] if k["network"] == n) for n in bench.COUNTED}
    assert all(0.9 < share <= 1.0 for share in shares.values())


def test_the_committed_text_is_the_fits(bench: ModuleType) -> None:
    text = (BENCH / "timing_calibration.txt").read_text()
    for core, fit in bench.fits().items():
        row = next(line for line in text.splitlines() if line.startswith(f"│ {core} "))
        assert f"{fit.factor:.2f}" in row
        assert f"{100 * fit.error:.0f} %" in row


def test_a_boards_estimate() -> None:
    target = load_target("cortex-m4")
    assert board_cycles(4e6, target) == pytest.approx(5e6)
    assert board_milliseconds(4e6, target) == pytest.approx(5e6 / 120e3)
    assert board_cycles(4e6, load_target("cortex-m3")) is None
