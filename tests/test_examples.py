"""Every script of examples/ runs from a checkout and prints what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(script: str, *arguments: str) -> str:
    """What a script of examples/ prints; it must end well."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_is_a_test_for_every_script() -> None:
    scripts = {p.name for p in (ROOT / "examples").glob("*.py")}
    assert scripts == set(re.findall(r'run\("(\w+\.py)"', Path(__file__).read_text(encoding="utf-8")))


def test_keyword_spotting() -> None:
    out = run("keyword_spotting.py", "--clips", "2", "--on", "emulator")
    assert re.search(r"\d of 2 clips right; delay 5 frames", out)
    assert "instructions a frame, counted on the emulated core" in out


@pytest.mark.nightly  # a minute; tests/models/test_image_networks_compiled.py holds the network and its bytes
def test_image_classification() -> None:
    out = run("image_classification.py")
    best = re.search(r"^cat\.png: (\w+) -?[\d.]+, \w+ -?[\d.]+, \w+ -?[\d.]+$", out, re.M)
    assert best is not None, out
    assert best[1] == "cat"
    assert re.search(r"[\d,]{9,} instructions on the core; the same bytes on this computer", out)


def test_own_model() -> None:
    """What docs/streaming.md shows, word for word; sizes and instructions within 5 %, as another version of the
    compiler gives others."""
    page = (ROOT / "docs" / "streaming.md").read_text(encoding="utf-8")
    expected = "\n".join(re.findall(r"<!-- output.*?-->\n```\n(.*?)\n```", page, re.S))
    found, number = run("own_model.py").rstrip("\n"), r"\d[\d,]*(?:\.\d+)?"
    assert re.sub(number, "N", found) == re.sub(number, "N", expected)
    numbers = ([float(n.replace(",", "")) for n in re.findall(number, text)] for text in (found, expected))
    for ours, theirs in zip(*numbers, strict=True):
        assert ours == pytest.approx(theirs, rel=0.05, abs=0.3)


def test_forecast(tmp_path: Path) -> None:
    """The forecasts of 137 hours, and better than repeating the last day."""
    out = run("forecast.py", "--plot", str(tmp_path / "plot.png"))
    assert "744 hours streamed, 233 forecasts of 96 hours, 137 of them judged" in out
    error, day = re.findall(r"mean absolute error ([\d.]+); repeating the last day instead: ([\d.]+)", out)[0]
    assert float(error) < float(day)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.nightly  # a minute; the other forecast takes the same way
def test_forecast_of_another_series(tmp_path: Path) -> None:
    hours = np.arange(640)
    np.savetxt(tmp_path / "x.csv", 100 + 5 * np.sin(2 * np.pi * hours / 24), fmt="%.4f")
    out = run("forecast.py", str(tmp_path / "x.csv"), "--plot", str(tmp_path / "plot.png"))
    assert "640 hours streamed" in out


def test_vit_on_an_arm_cpu() -> None:
    out = run("vit_arm_cpu.py")
    found, expected = re.findall(r"cat\.png on [\w-]+: (\w+); torch: (\w+)", out)[0]
    assert found == expected
    assert float(re.findall(r"difference of a score: ([\d.e-]+) %", out)[0]) < 10
