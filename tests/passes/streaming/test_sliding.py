"""A network over whole windows, streamed by sliding: every output is that of the window it belongs to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import edgec
from edgec.cli import main
from edgec.commands import read_clip
from edgec.device import open_device
from edgec.errors import InputError, PassError
from edgec.ir.evaluate import StepRunner, evaluate
from edgec.ir.graph import Graph
from edgec.ir.verify import verify
from edgec.ops import Add, MatMul, Permute, Reshape, StdScale
from edgec.passes.streaming.make_sliding import MakeSliding
from edgec.passes.streaming.make_streaming import MakeStreaming
from edgec.pipeline import compile_model
from edgec.profile.clips import read_series
from edgec.profile.counts import profile
from edgec.profile.verify.compare import verify_model
from tests.graphs import Builder
from tests.passes.quantize.quantize_tools import quantized

LENGTH, CHANNELS, HORIZON = 12, 2, 3


class Forecaster(nn.Module):
    """Scale a window, map it to a few samples ahead, scale them back: [1,12,2] -> [1,3,2]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Linear(LENGTH, HORIZON)

    def forward(self, x: Tensor) -> Tensor:
        loc = x.mean(1, keepdim=True)
        scale = torch.sqrt(x.var(1, unbiased=False, keepdim=True) + 1e-5)
        return self.mix(((x - loc) / scale).transpose(1, 2)).transpose(1, 2) * scale + loc


def mixer(length: int = LENGTH, channels: int = CHANNELS) -> Graph:
    b = Builder()
    x = b.input("x", 1, length, channels, time=None)
    y = b.emit(Permute((0, 2, 1)), x)
    y = b.emit(MatMul(), y, b.normal(1, length, 4))
    return b.build(b.emit(Add(), y, b.normal(4)))


def whole_windows(graph: Graph, series: Tensor, hop: int) -> Tensor:
    """The graph on every window that ends where a call does."""
    length = graph.inputs[0].type.shape[1]
    ends = range(-(-length // hop) * hop, series.shape[1] // hop * hop + 1, hop)
    return torch.cat([evaluate(graph, {"x": series[:, e - length : e]})[0] for e in ends])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 3), st.data())
def test_every_output_is_that_of_its_window(length: int, channels: int, data: st.DataObject) -> None:
    hop = data.draw(st.integers(1, length))
    graph = mixer(length, channels)
    step = MakeSliding(hop=hop).run(graph)
    verify(step)
    series = torch.randn(1, length + 4 * hop, channels)
    runner = StepRunner(step)
    outs = [o[0] for o in runner.run({"x": series})]
    expected = whole_windows(graph, series, hop)
    assert step.delay == -(-length // hop) - 1
    assert step.flush_steps == 0
    assert torch.equal(torch.cat(outs), expected)
    runner.reset()
    assert torch.equal(torch.cat([o[0] for o in runner.run({"x": series})]), expected)


def test_the_state_is_one_delay_line_of_the_window() -> None:
    step = MakeSliding().run(mixer())
    (state,) = step.states
    assert (state.type.shape, state.type.time_axis) == ((1, LENGTH, CHANNELS), None)
    assert [n.op.name for n in step.nodes[:2]] == ["delay_line", "window"]
    assert step.inputs[0].type.shape == (1, 1, CHANNELS)
    assert step.inputs[0].type.time_axis == 1


def test_what_cannot_slide_is_refused() -> None:
    with pytest.raises(PassError, match="expected a hop of 1 to 12 frames, the length of the window, found 13"):
        MakeSliding(hop=13).run(mixer())
    with pytest.raises(PassError, match=r"shape \(1, 12, 2\) cannot slide along axis 2"):
        MakeSliding(axis=2).run(mixer())
    b = Builder()
    x, y = b.input("x", 1, 4, 2, time=None), b.input("y", 1, 5, 2, time=None)
    with pytest.raises(PassError, match=r"windows of different lengths \[4, 5\]"):
        MakeSliding().run(b.build(b.emit(MatMul(transpose_b=True), x, y)))
    b = Builder()
    with pytest.raises(PassError, match="nothing to slide"):
        MakeSliding().run(b.build(b.emit(Reshape((1, 8)), b.input("x", 1, 4, 2, time=None))))
    b = Builder()
    with pytest.raises(PassError, match="sliding=True"):
        MakeStreaming().run(b.build(b.emit(StdScale(), b.input("x", 1, 4, 2))))


def series_of(frames: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (np.sin(np.arange(frames) / 3)[:, None] * [2.0, 0.3] + [5, -1] + rng.normal(size=(frames, 2)) * 0.1).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def calibration() -> np.ndarray:
    return np.stack([series_of(LENGTH, k) for k in range(32)])


@pytest.fixture(scope="module")
def integer(tmp_path_factory: pytest.TempPathFactory, calibration: np.ndarray) -> edgec.CompiledModel:
    out = tmp_path_factory.mktemp("sliding") / "m7"
    example = (torch.zeros(1, LENGTH, CHANNELS),)
    return compile_model(
        Forecaster().eval(), "cortex-m7", out, example_inputs=example, calibration=calibration, sliding=True
    )


def on_device(model: edgec.CompiledModel, kind: str, rows: np.ndarray) -> np.ndarray:
    with model.device(kind) as device:
        outs = [device.step([row.reshape(1, 1, -1)]) for row in rows]
    return np.stack([o[0] for o in outs if o is not None])


def test_reference_host_and_emulated_core_give_the_bytes_of_every_window(integer: edgec.CompiledModel) -> None:
    spec, whole = integer.manifest.inputs[0], integer.graph("whole")
    assert (spec.dtype, integer.manifest.outputs[0].dtype) == ("int16", "int16")
    assert spec.scale == integer.manifest.outputs[0].scale
    rows = np.round(series_of(30, 9) / spec.scale).astype(np.int16)
    series = torch.from_numpy(rows.astype(np.int64))[None]
    expected = torch.cat([evaluate(whole, {"x": series[:, k : k + LENGTH]})[0] for k in range(30 - LENGTH + 1)]).numpy()
    streamed = torch.cat([o[0] for o in StepRunner(integer.graph("step")).run({"x": series})]).numpy()
    np.testing.assert_array_equal(streamed, expected)
    for kind in ("host", "unicorn"):
        np.testing.assert_array_equal(on_device(integer, kind, rows).reshape(expected.shape), expected, err_msg=kind)


def test_reset_and_interleaved_instances(integer: edgec.CompiledModel) -> None:
    scale = integer.manifest.inputs[0].scale
    a, b = (np.round(series_of(20, seed) / scale).astype(np.int16) for seed in (1, 2))
    alone = [on_device(integer, "host", rows) for rows in (a, b)]
    with integer.device("unicorn", instances=2) as core:
        found: list[list[np.ndarray]] = [[], []]
        for pair in zip(a, b, strict=True):
            for k, row in enumerate(pair):
                core.select(k)
                out = core.step([row.reshape(1, 1, -1)])
                found[k] += [] if out is None else [out[0]]
        for k in (0, 1):
            np.testing.assert_array_equal(np.stack(found[k]), alone[k])
        core.select(0)
        core.reset()
        assert [core.step([row.reshape(1, 1, -1)]) is None for row in b[:LENGTH]] == [True] * (LENGTH - 1) + [False]


def test_the_model_runs_a_series_and_is_near_the_float_module(integer: edgec.CompiledModel) -> None:
    """Real values in, forecasts in the series' own units out, one for every window."""
    series = series_of(30, 9)
    found = integer.run(series)
    with torch.no_grad():
        expected = np.stack([Forecaster()(torch.from_numpy(series[None, k : k + LENGTH])).numpy() for k in range(19)])
    assert found.shape == expected.shape
    # weights of 8 bits: 1 % of a window's deviation, which is 1.4 here
    assert np.abs(found - expected).max() < 0.02
    assert integer.report["sliding"]
    assert "the first 11 calls fill the window" in integer.report["how"]["window"]
    assert integer.report["totals"]["instructions_mean"] > 1000
    with pytest.raises(InputError, match="too short"):
        integer.run(series[:5])


def test_profile_and_verify_work_on_a_sliding_model(integer: edgec.CompiledModel) -> None:
    series = series_of(LENGTH + 3, 4)
    counted = profile(integer, series)
    assert counted.frames == 4
    assert counted.mean > 0.9 * counted.worst  # the frames that fill the window are left out
    result = verify_model(integer, series)
    assert result.ok
    assert next(r for r in result.rows if r.op == "qstd_scale").quantised is not None


def test_a_hop_takes_several_samples_a_call(tmp_path: Path) -> None:
    net = Forecaster().eval()
    model = compile_model(
        net, "host", tmp_path / "out", precision="float32", example_inputs=(torch.zeros(1, LENGTH, CHANNELS),),
        sliding=True, hop=5,
    )  # fmt: skip
    series = series_of(30, 3)
    with torch.no_grad():
        expected = np.stack([net(torch.from_numpy(series[None, e - LENGTH : e])).numpy() for e in (15, 20, 25, 30)])
    np.testing.assert_allclose(model.run(series), expected, rtol=1e-4, atol=1e-4)
    with open_device("host", model.folder, model.manifest) as device:
        assert device.flush() is None


def test_contradicting_options_are_refused(tmp_path: Path) -> None:
    def compiled(**options: object) -> None:
        compile_model(
            Forecaster().eval(), "host", tmp_path / "out", precision="float32",
            example_inputs=(torch.zeros(1, LENGTH, CHANNELS),), **options,
        )  # fmt: skip

    with pytest.raises(InputError, match="exclude each other"):
        compiled(sliding=True, streaming=False)
    with pytest.raises(InputError, match="add sliding=True"):
        compiled(hop=2)
    with pytest.raises(InputError, match="expected a hop of at least 1 frame, found 0"):
        compiled(sliding=True, hop=0)
    with pytest.raises(PassError, match="expected a hop of 1 to 12 frames, the length of the window, found 13"):
        compiled(sliding=True, hop=13)
    assert not (tmp_path / "out").exists()


def test_a_graph_with_its_own_time_axis_does_not_slide(tmp_path: Path) -> None:
    b = Builder()
    graph = b.build(b.emit(Add(), b.input("x", 1, 4, 2), b.normal(2)))
    with pytest.raises(InputError, match="streams without sliding"):
        compile_model(graph, "host", tmp_path / "out", precision="float32", sliding=True)


def test_an_integer_window_keeps_its_bytes_through_the_pass(calibration: np.ndarray) -> None:
    b = Builder()
    x = b.input("x", 1, LENGTH, CHANNELS, time=None)
    y, _, _ = (b.emit(StdScale(), x), "", "")
    graph = quantized(b.build(y), {"x": calibration})
    series = torch.randint(-30000, 30000, (1, LENGTH + 5, CHANNELS))
    outs = [o[0] for o in StepRunner(MakeSliding().run(graph)).run({"x": series})]
    assert torch.equal(torch.cat(outs), whole_windows(graph, series, 1))


def test_a_series_is_read_from_a_table(tmp_path: Path, integer: edgec.CompiledModel) -> None:
    path = tmp_path / "series.csv"
    path.write_text("load, oil\n1.5,-2\n\n 3e1 ,4\n", encoding="utf-8")
    assert read_series(path, 2).tolist() == [[1.5, -2.0], [30.0, 4.0]]
    assert read_clip(str(path), integer).shape == (2, 2)
    path.write_text("1,2\n3,4\n", encoding="utf-8")
    assert read_series(path, 2).shape == (2, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("load\n1\n2\n", r"line 2: expected 2 columns, found 1"),
        ("1,2\n3\n", r"line 2: expected 2 columns, found 1"),
        ("date,load\n2016-07-01,5\n", r"line 2: expected finite numbers, found '2016-07-01'"),
        ("a,b\n1,nan\n", r"line 2: expected finite numbers, found 'nan'"),
        ("a,b\n1,2\n3,\n", r"line 3: expected finite numbers, found ''"),
        ("a,b\n1,2\n3,inf\n", r"line 3: expected finite numbers, found 'inf'"),
        ("a,b\n", "expected a line of numbers for each sample, found none"),
        ("", "expected a line of numbers for each sample, found none"),
    ],
)
def test_a_table_that_is_no_series_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "series.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_series(path, 2)
    with pytest.raises(InputError, match="no such file"):
        read_series(tmp_path / "none.csv", 2)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="expected a table in UTF-8, found byte 0xff"):
        read_series(path, 1)


def test_the_command_line_takes_a_table_and_prints_forecasts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, folder, table = tmp_path / "net.pt2", tmp_path / "out", tmp_path / "series.csv"
    torch.export.save(torch.export.export(Forecaster().eval(), (torch.zeros(1, LENGTH, CHANNELS),)), archive)
    options = ["--target", "host", "--precision", "float32", "--sliding", "-o", str(folder)]
    assert main(["compile", str(archive), *options]) == 0
    assert "the first 11 calls fill the window" in " ".join(capsys.readouterr().out.split())
    series = series_of(LENGTH + 2, 5)
    np.savetxt(table, series, delimiter=",", header="load,oil", comments="")
    assert main(["run", str(folder), str(table), "--stream"]) == 0
    text = capsys.readouterr().out
    assert "3 outputs on host; the last: [" in text
    with torch.no_grad():
        last = Forecaster()(torch.from_numpy(series[None, -LENGTH:])).reshape(-1)
    assert " ".join(f"{v:.2f}" for v in last) in text
    table.write_text("1,2,3\n", encoding="utf-8")
    assert main(["run", str(folder), str(table)]) == 2
    assert "line 1: expected 2 columns, found 3" in capsys.readouterr().err
    assert main(["compile", str(archive), *options[:-1], str(tmp_path / "other"), "--whole"]) == 2
    assert "exclude each other" in capsys.readouterr().err
