"""Calibration statistics as a file: the same C as from the data, and nothing of another network is taken."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgec
from edgec.cli import main
from edgec.errors import InputError
from edgec.ir.graph import Const, Graph
from edgec.ops import Linear, Relu, RunningMean, Sigmoid
from edgec.passes.quantize.calibrate import Collector, Statistics, calibrate
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.ranges import (
    SCALARS,
    SYNTHETIC,
    Ranges,
    read_ranges,
    save_ranges,
    statistics_for,
    synthetic_input,
    tails,
    take_ranges,
)
from tests.conftest import MODEL
from tests.graphs import Builder


def net(outputs: int = 3, op: Any = None) -> Graph:
    b = Builder()
    x = b.input("x", 1, 6, 4)
    y = b.emit(op or Relu(), b.emit(Linear(), x, b.normal(4, outputs), b.normal(outputs)))
    return b.build(b.emit(RunningMean(), y))


def data(n: int = 40) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(0.3, 1.2, size=(n, 6, 4)).astype(np.float32)


def through_file(ranges: Ranges, path: Path) -> Ranges:
    save_ranges(path, ranges)
    with np.load(path, allow_pickle=False) as archive:
        return read_ranges(archive, path)


def test_a_file_gives_back_what_it_holds(tmp_path: Path) -> None:
    graph = net()
    ranges = take_ranges(graph, data(), "40 inputs of x.npz")
    back = through_file(ranges, tmp_path / "net.ranges.npz")
    assert back.origin == "40 inputs of x.npz"
    assert set(SCALARS) | {"bins", "zeros"} == {f.name for f in fields(Statistics)}
    for name, s in statistics_for(graph, back).items():
        assert replace(s, bins=0) == replace(ranges.statistics[name], bins=0, zeros=0)
        assert s.bins.sum() == ranges.statistics[name].bins.sum()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.ranges.npz"]
    assert back.doubts == ()


def test_doubts_about_the_data_travel_with_its_statistics(tmp_path: Path) -> None:
    far = data()
    far.reshape(-1)[0] = 1e4
    back = through_file(take_ranges(net(), far, "x"), tmp_path / "net.ranges.npz")
    assert len(back.doubts) == 1
    assert "one value reaches 1e+04" in back.doubts[0]
    with pytest.raises(InputError, match="is 0 everywhere"):
        take_ranges(net(), 0 * far, "x")


def test_the_integers_are_those_of_the_data(tmp_path: Path) -> None:
    graph = net()
    ranges = through_file(take_ranges(graph, data(), "x"), tmp_path / "net.ranges.npz")
    assert repr(Quantize(ranges).run(graph)) == repr(Quantize(data()).run(graph))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=60),
    st.sampled_from([(256, False), (255, True), (65536, False), (16, True)]),
)
def test_the_tails_clip_as_the_whole_histogram(values: list[float], levels: tuple[int, bool]) -> None:
    collector = Collector()
    collector.add(np.array(values))
    s = collector.statistics()
    assert replace(s, bins=tails(s)).clip(*levels) == pytest.approx(s.clip(*levels), rel=1e-9)


def test_statistics_of_another_network_are_refused(tmp_path: Path) -> None:
    graph = net()
    ranges = through_file(take_ranges(graph, data(), "x"), tmp_path / "net.ranges.npz")
    b = Builder()
    x = b.input("series", 1, 6, 4)
    other = b.build(b.emit(RunningMean(), b.emit(Relu(), b.emit(Linear(), x, b.normal(4, 3), b.normal(3)))))
    for theirs, message in (
        (other, "tensors of g that they lack: %series; tensors of theirs that g lacks: %x"),
        (net(op=Sigmoid()), "its nodes are not"),
    ):
        with pytest.raises(InputError, match=message.replace("(", r"\(")) as caught:
            Quantize(ranges).run(replace(theirs, name="g"))
        assert "edgec calibrate" in str(caught.value)


def test_statistics_of_other_weights_are_refused(tmp_path: Path) -> None:
    graph = net()
    ranges = through_file(take_ranges(graph, data(), "x"), tmp_path / "net.ranges.npz")
    name, const = next((n, c) for n, c in graph.consts.items() if c.data.ndim == 2)

    def with_weights(values: np.ndarray[Any, Any]) -> Graph:
        return replace(graph, consts={**graph.consts, name: Const(values.astype(np.float32), const.type)})

    assert statistics_for(with_weights(const.data * (1 + 1e-7)), ranges)  # another machine's last bits
    for values in (const.data * 1.01, const.data[::-1].copy()):
        with pytest.raises(InputError, match=rf"of other weights: %{name} of .* has root mean square"):
            statistics_for(with_weights(values), ranges)


def test_the_synthetic_input_has_the_calibrated_statistics() -> None:
    graph = net()
    v = replace(graph.inputs[0], type=graph.inputs[0].type.with_shape(1, 500, 4))
    s = calibrate(graph, data())["x"]
    x = synthetic_input(v, s)
    assert x.dtype == np.float32
    assert s.lo <= x.min() < x.max() <= s.hi
    assert abs(x.mean() - s.mean) < 0.1
    assert np.array_equal(x, synthetic_input(v, s))
    pcm = synthetic_input(v, replace(s, lo=-0.5, hi=0.5, pcm=True))
    assert pcm.dtype == np.int16
    assert np.abs(pcm).max() <= 16384


@pytest.mark.parametrize("key", ["names", "scalars", "sizes", "steps", "counts", "figures", "print"])
def test_damaged_files(key: str, tmp_path: Path) -> None:
    path = tmp_path / "net.ranges.npz"
    save_ranges(path, take_ranges(net(), data(), "x"))
    with np.load(path) as archive:
        arrays: dict[str, Any] = dict(archive)
    arrays[key] = arrays[key][: len(arrays[key]) // 2]
    np.savez(path, **arrays)
    with np.load(path) as archive, pytest.raises(InputError, match=rf"{path}: .* damaged"):
        read_ranges(archive, path)


def test_a_shipped_model_compiles_to_the_same_c_from_its_statistics(
    lmuformer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file lies where compile finds it, beside a copy of the checkpoint, and the report says what was measured."""
    copy = tmp_path / "lmuformer.pt"
    copy.write_bytes((MODEL / "lmuformer.pt").read_bytes())
    assert main(["calibrate", str(copy), "--calibration", str(MODEL / "calibration.npz")]) == 0
    file = tmp_path / "lmuformer.ranges.npz"
    assert 0 < file.stat().st_size < 50_000
    model = edgec.compile(copy, "cortex-m7", tmp_path / "out")
    assert (model.folder / "lmuformer.c").read_bytes() == (lmuformer / "lmuformer.c").read_bytes()
    assert SYNTHETIC in model.report["how"]["instructions"]
    assert SYNTHETIC in model.report["how"]["spike_rate"]
    assert model.report["totals"]["instructions_mean"] > 0
    capsys.readouterr()
    arguments = ["calibrate", str(copy), "--calibration", str(file), "-o", str(tmp_path / "again.npz")]
    assert main(arguments) == 2
    assert "expected model inputs, found calibration statistics" in capsys.readouterr().err
    assert not (tmp_path / "again.npz").exists()
