"""`verify` compares with the network as it was trained, over the whole sequence: in torch, onnxruntime and LiteRT."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgec.cli import main
from edgec.compiled import CompiledModel
from edgec.errors import FrontendError, InputError, ToolchainError
from edgec.ir.graph import Graph
from edgec.ir.text import print_graph
from edgec.passes.streaming.make_streaming import MakeStreaming
from edgec.pipeline import compile_model
from edgec.profile.verify.compare import verify_model
from edgec.profile.verify.original import load_original
from edgec.profile.verify.trained import Agreement, decibels
from edgec.toolchain.checksums import write_sums
from tests.graphs import Builder, conv

DATA = Path(__file__).resolve().parents[2] / "data" / "mlperf_tiny"


class TwoIn(nn.Module):
    """Frames and a readout of two sequences; time is the last axis."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.head = nn.Conv1d(4, 3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.conv(nn.functional.pad(x + h, (2, 0))))
        return y, self.head(y.mean(2))


def inputs(frames: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(1, 4, frames)).astype(np.float32) for name in ("x", "h")}


@pytest.fixture(scope="module", params=["float32", "int8"])
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CompiledModel:
    rng = np.random.default_rng(1)
    data = {name: rng.normal(size=(32, 4, 20)).astype(np.float32) for name in ("x", "h")}
    return compile_model(
        TwoIn().eval(), "host", tmp_path_factory.mktemp("two") / "out", precision=request.param, time_axis=2,
        calibration=data if request.param == "int8" else None,
        example_inputs=(torch.zeros(1, 4, 20), torch.zeros(1, 4, 20)),
    )  # fmt: skip


@pytest.mark.parametrize("frames", [7, 20, 33])
def test_two_inputs_and_two_outputs_against_torch(two: CompiledModel, frames: int) -> None:
    """Shorter than the trained window, as long, and longer: of that the first window counts."""
    result = verify_model(two, inputs(frames), original=TwoIn())
    assert result.ok, result.verdict
    by_torch = [a for a in result.agreements if a.oracle.startswith("torch")]
    assert len(by_torch) == (1 if frames > 20 else 2)  # the readout at the end of the sequence is not there
    assert by_torch[0].frames == 20
    assert by_torch[0].values == 60
    assert frames > 20 or by_torch[1].frames == 3  # on two prefixes, and on all
    assert all(a.sqnr > (100 if a.least == 60 else 15) for a in result.agreements)


def test_another_network_is_further_than_the_tolerance(two: CompiledModel) -> None:
    result = verify_model(two, inputs(20), original=TwoIn(seed=1))
    assert not result.ok
    assert "further from the trained network than the tolerance: %relu_permuted against torch" in result.verdict


def test_the_tolerance_is_the_users(two: CompiledModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, archive = tmp_path / "clip.npz", tmp_path / "net.pt2"
    np.savez(clip, **inputs(20))
    torch.export.save(torch.export.export(TwoIn().eval(), tuple(map(torch.from_numpy, inputs(20).values()))), archive)
    command = ["verify", str(two.folder), "--clip", str(clip), "--model", str(archive)]
    assert main(command) == 0
    assert "ok   %relu_permuted against torch on net.pt2, 20 frames: " in capsys.readouterr().out
    assert main([*command, "--tolerance", "300"]) == 2
    found = capsys.readouterr()
    assert "FAIL %relu_permuted against the float network over the whole sequence" in found.out
    assert "(expected: at least 300 dB)" in found.err


def test_an_original_that_does_not_fit(two: CompiledModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gives 1 results where the compiled model has 2"):
        verify_model(two, inputs(20), original=First())
    with pytest.raises(InputError, match=r"does not take the compiled model's inputs, x \[1, 4, 20\], h \[1, 4, 20\]"):
        verify_model(two, inputs(20), original=nn.Conv1d(4, 3, 3))
    with pytest.raises(FrontendError, match="no such file"):
        load_original(tmp_path / "absent.onnx")


class Energy(nn.Module):
    """A sum over time, as spikes are counted."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.up = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.up(x)).sum(1)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_sum_over_time_is_that_of_the_frames_so_far(precision: str, tmp_path: Path) -> None:
    """Frame t is torch's sum over t frames; the C counts on behind the trained window, up to what int8 holds."""
    rng = np.random.default_rng(4)
    module, data = Energy().eval(), rng.normal(size=(64, 20, 4)).astype(np.float32)
    compiled = compile_model(
        module, "host", tmp_path / "out", precision=precision, time_axis=1,
        calibration=data if precision == "int8" else None, example_inputs=(torch.zeros(1, 20, 4),),
    )  # fmt: skip
    assert "holds the sum of the frames so far" in compiled.report["how"]["readout"]
    result = verify_model(compiled, data[0], original=module)
    assert result.ok, result.verdict
    with torch.no_grad():
        sums = torch.stack([module(torch.from_numpy(data[:1, :t])) for t in range(1, 21)]).numpy()
    error = 1e-4 if precision == "float32" else 0.03 * sums.max()
    np.testing.assert_allclose(compiled.run(data[0]).reshape(sums.shape), sums, atol=error)
    longer = compiled.run(np.tile(data[0], (200, 1)))[-1].reshape(-1)
    expected = 200 * sums[-1].reshape(-1)
    if precision == "int8":
        scale, zero = compiled.manifest.outputs[0].scale or 1.0, compiled.manifest.outputs[0].zero_point or 0
        expected = np.minimum(expected, (127 - zero) * scale)
    np.testing.assert_allclose(longer, expected, rtol=0.02)


class First(nn.Module):
    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("name", "module"), [("net.onnx", "onnxruntime"), ("net.tflite", "ai_edge_litert.interpreter")]
)
def test_a_missing_runtime_is_said(name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ToolchainError, match=r"which is not installed\n  hint: pip install"):
        load_original(tmp_path / name)


def test_a_step_that_is_not_its_whole_sequence_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a mean over time inside a network once was: the compiled step is consistent in itself, and another network."""
    b = Builder()
    x = b.input("x", 1, 12, 3)
    right = b.build(conv(b, x, 3, 3, (2, 0)))
    compiled = compile_model(right, "host", tmp_path / "out", precision="float32")
    b = Builder()
    wrong = b.build(conv(b, b.input("x", 1, 12, 3), 3, 3, (1, 1)))
    write_whole(compiled.folder, wrong)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32))
    assert MakeStreaming().run(wrong).delay == 1
    assert main(["verify", str(compiled.folder), "--clip", str(tmp_path / "x.npy")]) == 2
    message = capsys.readouterr().err
    assert "frame by frame the network is not what it is over the whole sequence: %t0 = conv1d (net.py:1)" in message


def write_whole(folder: Path, graph: Graph) -> None:
    for name in ("whole", "reference"):
        (folder / "ir" / f"{name}.ir").write_text(print_graph(graph, consts=False))
        np.savez(folder / "ir" / f"{name}.npz", **{n: c.data for n, c in graph.consts.items()})
    write_sums(folder)


def test_tflite_against_litert(tmp_path: Path) -> None:
    """A whole window a call; the integers of the file's own runtime, exactly."""
    pytest.importorskip("ai_edge_litert")
    path = DATA / "kws_ref_model.tflite"
    compiled = compile_model(path, "host", tmp_path / "out")
    x = np.load(DATA / "kws_vectors.npz")["x_i8"][:2]
    result = verify_model(compiled, x, original=path)
    assert result.ok, result.verdict
    assert [(a.frames, a.sqnr) for a in result.agreements] == [(2, float("inf"))] * 2


def test_onnx_against_onnxruntime(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from tests.frontends.onnx.onnx_models import Net

    net = Net(1, 3, 8, 8)
    net.conv(3, 6, 3, 3, pads=[1] * 4)
    path = net.quantized(tmp_path / "net.onnx", unsigned=True)
    compiled = compile_model(path, "host", tmp_path / "out")
    x = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    result = verify_model(compiled, x, original=path)
    assert result.ok, result.verdict
    assert result.agreements[1].oracle == "onnxruntime on net.onnx"
    assert result.agreements[1].sqnr > 30


def test_decibels_in_words() -> None:
    assert [decibels(v) for v in (float("nan"), float("inf"), -float("inf"), 21.25)] == [
        "", "exact", "silent in float", "21.2 dB",
    ]  # fmt: skip
    few = Agreement("y", "torch", 1, 100, 9.0, 1.0, 10.0, flips=0.01)
    assert few.ok
    assert "1.00 % of the spikes differ (expected: at most 2 %)" in str(few)


class Unread(nn.Module):
    """Inputs that nothing reads, of types that no graph holds, around those that count."""

    def forward(self, x: Tensor, ids: Tensor, more: dict[str, Tensor], y: Tensor | None = None) -> Tensor:
        return x - 2 * more["b"] + 4 * y


def test_inputs_that_nothing_reads_are_zeros_in_torch(tmp_path: Path) -> None:
    more = {"a": torch.tensor(True), "b": torch.ones(1, 3)}
    program = torch.export.export(Unread(), (torch.ones(1, 3), torch.arange(2), more), {"y": torch.ones(1, 3)})
    torch.export.save(program, tmp_path / "net.pt2")
    compiled = compile_model(tmp_path / "net.pt2", "host", tmp_path / "out", precision="float32")
    assert [v.name for v in compiled.manifest.inputs] == ["x", "more_b", "y"]
    rng = np.random.default_rng(0)
    given = {v.name: rng.normal(size=(1, 3)).astype(np.float32) for v in compiled.manifest.inputs}
    for original in (program, tmp_path / "net.pt2"):
        assert verify_model(compiled, given, original=original).ok
    with pytest.raises(InputError, match="the module itself does not take the compiled model's inputs"):
        verify_model(compiled, given, original=Unread())


def test_inputs_that_nothing_reads_are_zeros_in_onnxruntime(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from tests.frontends.onnx.onnx_models import Net

    net = Net(1, 4)
    net.dense(4, 3)
    path = net.quantized(tmp_path / "net.onnx")
    model = onnx.load(path)
    for place, (name, kind) in enumerate([("ids", onnx.TensorProto.INT64), ("f.0", onnx.TensorProto.FLOAT)]):
        model.graph.input.insert(place, onnx.helper.make_tensor_value_info(name, kind, [1, 2]))
    onnx.save(model, path)
    compiled = compile_model(path, "host", tmp_path / "out")
    assert [v.name for v in compiled.manifest.inputs] == ["input"]
    x = np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)
    assert verify_model(compiled, x, original=path).ok


def test_inputs_that_nothing_reads_are_zeros_in_litert(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    from tests.frontends.tflite.tflite_models import Net, Op, T, options

    rng = np.random.default_rng(0)
    weights, bias = rng.integers(-90, 90, (3, 9)).astype(np.int8), rng.integers(-90, 90, 3).astype(np.int32)
    tensors = [
        T((1, 2), dtype="int64"), T((1, 9), 0.02), T((3, 9), 0.01, data=weights),
        T((3,), 0.0002, dtype="int32", data=bias), T((1, 3), 0.05), T((1, 4), 0.02),
    ]  # fmt: skip
    net = Net(tensors, [Op("FULLY_CONNECTED", [1, 2, 3], [4], options("FullyConnectedOptions"))], inputs=[0, 1, 5])
    path = net.write(tmp_path / "net.tflite")
    compiled = compile_model(path, "host", tmp_path / "out")
    given = {v.name: rng.integers(-90, 90, v.shape).astype(np.int8) for v in compiled.manifest.inputs}
    assert [x.shape for x in given.values()] == [(1, 9), (1, 4)]  # an int8 input is one, whoever reads it
    assert verify_model(compiled, given, original=path).ok
