from __future__ import annotations

import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# the same examples in every run, so that a commit is not judged by luck; `make nightly` draws new ones
settings.register_profile("commit", derandomize=True, deadline=None)
settings.register_profile("nightly", deadline=None)
settings.load_profile("commit")

MODEL = Path(__file__).resolve().parent.parent / "models" / "lmuformer"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files instead of comparing with them")


@pytest.fixture(scope="session")
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def lmuformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped LMUFormer compiled for the Cortex-M7, int8."""
    from edgec.cli import main

    folder = tmp_path_factory.mktemp("lmuformer") / "m7"
    assert (
        main(["compile", str(MODEL / "lmuformer.pt"), "--target", "cortex-m7", "-o", str(folder), "--emit", "image"])
        == 0
    )
    return folder


def shipped_clips() -> list[tuple[str, np.ndarray]]:
    """The 24 clips of the demo and 64 of the calibration set: all real recordings."""
    clips = []
    for path in sorted((MODEL / "clips").glob("*.wav")):
        with wave.open(str(path)) as f:
            clips.append((path.name, np.frombuffer(f.readframes(f.getnframes()), dtype="<i2").astype(np.int16)))
    with np.load(MODEL / "calibration.npz") as data:
        clips += [(f"calibration {k}", pcm) for k, pcm in enumerate(data["pcm"])]
    return clips


def needs(program: str) -> pytest.MarkDecorator:
    """Skip where a program that edgec can do without is absent, saying which."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")
