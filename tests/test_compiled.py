"""Several inputs and outputs by name: how sequences are cut into frames, and compiled networks against their module."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.compiled import by_name, frames, input_frames
from edgec.errors import InputError
from edgec.toolchain.manifest import TensorSpec


def spec(name: str, *shape: int, time_axis: int | None = None) -> TensorSpec:
    return TensorSpec(name, "float", "float32", shape, 4 * int(np.prod(shape)), time_axis=time_axis)


X, H = spec("x", 1, 1, 3, time_axis=1), spec("h", 1, 2, 1, time_axis=2)
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)  # frames, channels
COLUMNS = np.arange(8, dtype=np.float32).reshape(2, 4)  # channels, frames


@pytest.mark.parametrize("form", [{"h": COLUMNS[None], "x": ROWS}, (ROWS[None], COLUMNS), [ROWS, COLUMNS]])
def test_inputs_are_cut_frame_by_frame(form: Any) -> None:
    found = list(input_frames(form, (X, H)))
    assert len(found) == 4
    for t, (x, h) in enumerate(found):
        np.testing.assert_array_equal(x, ROWS[t].reshape(1, 1, 3))
        np.testing.assert_array_equal(h, COLUMNS[:, t].reshape(1, 2, 1))


def test_a_square_that_may_be_either_is_refused_without_all_axes() -> None:
    square = np.arange(4, dtype=np.float32).reshape(2, 2)
    with pytest.raises(InputError, match="may be frames one after another, or joined along axis 1"):
        list(frames(square, H))
    np.testing.assert_array_equal(list(frames(square[None], H)), square.T)
    np.testing.assert_array_equal(list(frames(square[:, None, :, None], H)), square)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": ROWS}, "expected the inputs x, h, found x"),
        ({"x": ROWS, "h": COLUMNS, "y": ROWS}, "expected the inputs x, h, found x, h, y"),
        (ROWS, r"expected 2 inputs \(x, h\), found one ndarray(?s:.*)a mapping from each name"),
        ((ROWS,), r"expected 2 inputs \(x, h\), found 1 arrays"),
        ((ROWS, COLUMNS[:, :3]), "the inputs hold different numbers of frames: x 4, h 3(?s:.*)repeat an input"),
        ((ROWS, ROWS), r"input 'h': expected float32\[1, 2, 1\] or a sequence of such frames"),
    ],
)
def test_inputs_that_do_not_fit(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(input_frames(given, (X, H)))


def test_the_only_input_needs_no_name() -> None:
    assert by_name(ROWS, (X,)).keys() == by_name({"x": ROWS}, (X,)).keys() == {"x"}
