"""MLPerf Tiny's keyword network on real clips: the compiled C is the interpreter, clip by clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tflite")

from edgec.compiled import CompiledModel
from edgec.pipeline import compile_model

DATA = Path(__file__).resolve().parents[1] / "data" / "mlperf_tiny"


@pytest.fixture(scope="module")
def kws(tmp_path_factory: pytest.TempPathFactory) -> CompiledModel:
    return compile_model(DATA / "kws_ref_model.tflite", "cortex-m4", tmp_path_factory.mktemp("tiny") / "kws")


def test_every_clip_as_the_interpreter(kws: CompiledModel) -> None:
    """100 of the 1,000 clips; bench/mlperf_tiny.py --accuracy compares them all."""
    with np.load(DATA / "kws_clips.npz") as data:
        clips, labels, expected = data["x_i8"], data["labels"], data["y_i8"]
    shape, found = kws.manifest.inputs[0].shape, []
    with kws.device("host") as device:
        for clip in clips:
            out = device.step([clip.reshape(shape)])
            assert out is not None
            found.append(out[0].reshape(-1))
    np.testing.assert_array_equal(np.stack(found), expected)
    assert (np.stack(found).argmax(1) == labels).mean() > 0.85
