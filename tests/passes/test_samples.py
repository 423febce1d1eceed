"""Calibration data in the forms that users have it, against the plain array it stands for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from edgec.errors import InputError
from edgec.ir.graph import Value
from edgec.ir.types import DType, TensorType
from edgec.passes.samples import MOST, first_samples, gather

X = np.random.default_rng(0).normal(size=(5, 6, 4)).astype(np.float32)  # samples, frames, channels
H = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
BATCH_FIRST = (Value("x", TensorType((1, 6, 4), DType.F32, None, 1)),)
TIME_FIRST = (Value("x", TensorType((6, 1, 4), DType.F32, None, 0)),)
TWO = (*BATCH_FIRST, Value("h", TensorType((1, 3))))
LABELS = torch.arange(5)


class OfSamples:
    """A data set as torch has them: samples with a label, by index."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index >= 5:
            raise IndexError
        return torch.from_numpy(X[index]), index


def loader(*tensors: torch.Tensor) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*tensors), batch_size=2)


FORMS = {
    "array": X,
    "tensor that needs a gradient": torch.from_numpy(X).requires_grad_(),
    "nested lists": X.tolist(),
    "stacked": X[:, None],
    "by name": {"x": X, "label": np.arange(5)},
    "a list of samples": list(X),
    "a list of batches": [X[:2], X[2:]],
    "a generator of samples with a leading 1": (x[None] for x in X),
    "loader": loader(torch.from_numpy(X)),
    "loader with labels": loader(torch.from_numpy(X), LABELS),
    "loader of dictionaries": ({"x": x, "y": y} for x, y in loader(torch.from_numpy(X), LABELS)),
    "data set": OfSamples(),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_one_input(form: str) -> None:
    found = gather(BATCH_FIRST, FORMS[form])
    assert list(found) == ["x"]
    np.testing.assert_array_equal(found["x"], X.astype(found["x"].dtype))


@pytest.mark.parametrize(
    "form",
    [
        {"h": H, "x": X},
        (X, H),
        [(X[k], H[k]) for k in range(5)],
        [{"x": X[:3], "h": H[:3], "y": 1}, {"x": X[3:], "h": torch.from_numpy(H[3:])}],
        loader(torch.from_numpy(X), torch.from_numpy(H), LABELS),
    ],
)
def test_forms_of_two_inputs(form: Any) -> None:
    found = gather(TWO, form)
    np.testing.assert_array_equal(found["x"], X)
    np.testing.assert_array_equal(found["h"], H)
    assert {k: v.shape for k, v in first_samples(TWO, found, 2).items()} == {"x": (2, 6, 4), "h": (2, 3)}


@pytest.mark.parametrize("data", [X, X[:, :, None], X.transpose(1, 0, 2), X.reshape(30, 1, 4), list(X)])
def test_time_first(data: Any) -> None:
    """Samples of an input [T,1,C] come one after another, stacked, or as torch has batches: [T,N,C]."""
    np.testing.assert_array_equal(gather(TIME_FIRST, data)["x"], X.reshape(30, 1, 4))


def test_as_many_samples_as_frames_may_be_either() -> None:
    square = np.zeros((6, 6, 4), np.float32)
    with pytest.raises(InputError, match=r"(?s)samples first or time first.*\[6, N, 4\] with time first"):
        gather(TIME_FIRST, square)
    assert gather(BATCH_FIRST, square)["x"].shape == (6, 6, 4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X.transpose(1, 0, 2), r"found shape \(6, 5, 4\)(?s:.*)these shapes would do: \[N, 6, 4\]"),
        (X[..., :3], r"found shape \(5, 6, 3\)"),
        (object(), "expected calibration data, found object"),
        ([X, "y"], "calibration batch 1, input %x: expected .* found <U1"),
        (X.astype(complex), "found complex"),
        ({"y": X}, r"expected data for input %x, found \['y'\]"),
    ],
)
def test_what_does_not_fit(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        gather(BATCH_FIRST, data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X, r"by input name \['x', 'h'\], found ndarray(?s:.*)\{'x': ..., 'h': ...\}"),
        ({"x": X}, "expected data for input %h"),
        ([(X,)], r"expected an array for each of the inputs \['x', 'h'\], found 1"),
        ((X, H[:4]), "different numbers of samples: %x 5, %h 4"),
    ],
)
def test_two_inputs_that_do_not_fit(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        gather(TWO, data)


def test_an_endless_iterable_ends() -> None:
    def endless() -> Any:
        while True:
            yield np.zeros((1000, 3), np.float32)

    assert len(gather(TWO[1:], endless())["h"]) == MOST // 1000 * 1000 + 1000


class Broken:
    """A data set whose third item cannot be read."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, k: int) -> tuple[torch.Tensor, int]:
        if k == 2:
            raise OSError("clip2.wav is truncated")
        return torch.from_numpy(X[k]), k


class Closed(dict[str, Any]):
    """As an archive that was closed."""

    def __getitem__(self, name: str) -> Any:
        raise OSError("file is closed")


class Raising:
    def __init__(self, err: Exception) -> None:
        self.err = err

    def __iter__(self) -> Iterator[Any]:
        raise self.err


def failing() -> Iterator[np.ndarray[Any, Any]]:
    yield X[:1]
    raise KeyError("mfcc")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Broken(), r"calibration batch 2: the data that was given raised OSError: clip2.wav is truncated"),
        (DataLoader(Broken(), batch_size=1), r"calibration batch 2: .* raised OSError: clip2.wav"),
        (failing(), r"calibration batch 1: the data that was given raised KeyError: 'mfcc'"),
        ((x.nosuch for x in X), r"calibration batch 0: .* raised AttributeError"),
        (Closed(x=0), r"calibration batch 0, input %x: the data that was given raised OSError: file is closed"),
        (RuntimeError("Caught KeyError.\nTraceback (most recent call last):\nKeyError: 3\n"), r"raised KeyError: 3\n"),
    ],
    ids=["sequence", "loader", "generator", "expression", "mapping", "worker"],
)
def test_what_the_users_own_data_raises_names_the_batch(data: Any, message: str) -> None:
    if isinstance(data, Exception):  # as a worker process of a DataLoader sends it
        data = Raising(data)
    with pytest.raises(InputError, match=message) as info:
        gather(BATCH_FIRST, data)
    assert isinstance(info.value.__cause__, Exception)


def test_whatever_numpy_makes_an_array_of() -> None:
    class Frame:  # as a table of pandas is, which would give the names of its columns one by one
        def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray[Any, Any]:
            return X

        def __iter__(self) -> Iterator[str]:
            return iter(["a", "b"])

    np.testing.assert_array_equal(gather(BATCH_FIRST, Frame())["x"], X)
