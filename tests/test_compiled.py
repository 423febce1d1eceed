"""Several inputs and outputs by name: how sequences are cut into frames, and compiled networks against their module."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import edgec
from edgec.backends.emit import write_folder
from edgec.backends.library import named
from edgec.cli import main
from edgec.compiled import Array, CompiledModel, by_name, frames, input_frames
from edgec.device import Device, open_device
from edgec.errors import InputError
from edgec.pipeline import calibrate_model
from edgec.target import load_target
from edgec.toolchain.manifest import TensorSpec


def spec(name: str, *shape: int, time_axis: int | None = None) -> TensorSpec:
    return TensorSpec(name, "float", "float32", shape, 4 * int(np.prod(shape)), time_axis=time_axis)


X, H = spec("x", 1, 1, 3, time_axis=1), spec("h", 1, 2, 1, time_axis=2)
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)  # frames, channels
COLUMNS = np.arange(8, dtype=np.float32).reshape(2, 4)  # channels, frames


@pytest.mark.parametrize("form", [{"h": COLUMNS[None], "x": ROWS, "label": 1}, (ROWS[None], COLUMNS), [ROWS, COLUMNS]])
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
        ({"x": ROWS, "y": COLUMNS}, "expected the inputs x, h, found x, y"),
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


@pytest.mark.parametrize(
    "given",
    [[[1.0, 2.0], [3.0]], torch.empty(2, device="meta"), None, {"x": object()}],
    ids=["ragged", "meta", "nothing", "object"],
)
def test_what_is_no_array_of_numbers(given: Any) -> None:
    with pytest.raises(InputError, match=r"^input 'x': expected an array"):
        by_name(given, (X,))


def test_tensors_as_torch_has_them() -> None:
    for tensor in (torch.ones(5, requires_grad=True), torch.ones(5, dtype=torch.bfloat16), torch.ones(5).half()):
        np.testing.assert_array_equal(by_name(tensor, (X,))["x"], np.ones(5, np.float32))


# ---- names are the network's own, and a folder may be changed ----


class Heads(torch.nn.Module):
    """Arguments that are words of C, and results by key, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = torch.nn.Linear(4, 6), torch.nn.Linear(6, 3)

    def forward(self, double: torch.Tensor, arena: torch.Tensor) -> dict[str, Any]:
        y = torch.relu(self.body(double))
        logits = self.head(y) + arena
        return {"static": logits, "heads": {"a": torch.sigmoid(logits), "b": logits}}


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_names_are_the_networks_own(precision: str, tmp_path: Path) -> None:
    module, x, h = Heads().eval(), torch.randn(16, 4), torch.randn(16, 3)
    model = edgec.compile(
        module, "host", tmp_path / "o", precision=precision, example_inputs=(x[:1], h[:1]),
        calibration={"double": x, "arena": h},
    )  # fmt: skip
    with pickle.loads(pickle.dumps(model)) as copy:
        assert list(copy.run({"arena": h[:1], "double": x[:1]})) == ["static", "heads.a", "heads.b"]
    with model, torch.no_grad():
        found = model.run({"arena": h[:1], "double": x[:1]})
        wanted = module(x[:1], h[:1])
    assert list(found) == ["static", "heads.a", "heads.b"]
    for name, out in (("static", wanted["static"]), *((f"heads.{k}", out) for k, out in wanted["heads"].items())):
        assert_close(found[name], out.numpy(), precision)
    parameters = [t["parameter"] for t in json.loads((tmp_path / "o" / "manifest.json").read_text())["inputs"]]
    assert parameters == ["in_double", "in_arena"]
    assert "in_double" in (tmp_path / "o" / "heads.h").read_text()
    change_a_folder(tmp_path / "o")


def change_a_folder(folder: Path) -> None:
    """A firmware engineer's change is run once the sums are gone, as the error says; damage is no fault of edgec's."""
    x = {"double": np.zeros(4, np.float32), "arena": np.zeros(3, np.float32)}
    code = (folder / "heads.c").read_text()
    (folder / "heads.c").write_text(code.replace("return ", "return /* of mine */ ", 1))
    with pytest.raises(InputError, match=r"heads.c is not as compile wrote it: (.|\n)*delete .*SHA256SUMS"):
        edgec.open(folder)
    (folder / "SHA256SUMS").unlink()
    assert edgec.verify(edgec.open(folder), x).ok
    text = (folder / "ir" / "step.ir").read_text().splitlines(keepends=True)
    (folder / "ir" / "step.ir").write_text("".join([*text[:2], *text[1:]]))  # one more input
    with pytest.raises(InputError, match=r"its files do not fit each other|damaged"):
        edgec.verify(edgec.open(folder), x)


# ---- compiled networks against their module, and onnxruntime ----


class Streams(torch.nn.Module):
    """Two sequences in, and out two of different delay: frames [1,T,8] of two frames ago, scores [1,T,4] of three."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Conv1d(5, 8, 5, padding=2), torch.nn.Conv1d(3, 8, 3, padding=1)
        self.p = torch.nn.Conv1d(8, 4, 3, padding=1)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.relu(self.a(x.transpose(1, 2)) + self.b(h.transpose(1, 2)))
        return y.transpose(1, 2), self.p(y).transpose(1, 2)


FRAMES = 12


def sequences(count: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(count, FRAMES, n, generator=generator) for name, n in (("x", 5), ("h", 3))}


@pytest.fixture(scope="module", params=["int8", "float32"])
def streams(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[CompiledModel, Streams]:
    torch.manual_seed(0)
    module, data = Streams().eval(), sequences(32, 1)
    batches = DataLoader(TensorDataset(data["x"], data["h"], torch.arange(32)), batch_size=8)  # with labels
    folder = tmp_path_factory.mktemp("streams") / "m4"
    example = (data["x"][:1], data["h"][:1])
    compiled = edgec.compile(
        module, "cortex-m4", folder, precision=request.param, calibration=batches, example_inputs=example, time_axis=1
    )
    return compiled, module


def of_module(module: torch.nn.Module, *inputs: torch.Tensor) -> list[Array]:
    with torch.no_grad():
        found = module(*inputs)
    return [y.numpy() for y in (found if isinstance(found, tuple) else (found,))]


def assert_close(found: Array, wanted: Array, precision: str) -> None:
    error = np.abs(found.reshape(wanted.shape) - wanted).max() / np.abs(wanted).max()
    assert error < (0.05 if precision == "int8" else 1e-5)


def test_sequences_by_name_give_outputs_by_name(streams: tuple[CompiledModel, Streams]) -> None:
    """Against the module over the whole sequence, by run and frame by frame; then the same bytes on emulated cores."""
    model, module = streams
    data, precision = sequences(3, 2), model.report["precision"]
    first, second = (spec.name for spec in model.manifest.outputs)
    with model:
        for x, h in zip(data["x"], data["h"], strict=True):
            found = model.run({"h": h, "x": x})
            for name, wanted in zip((first, second), of_module(module, x[None], h[None]), strict=True):
                assert_close(found[name], wanted, precision)
            model.reset()
            steps = [model.step(*frame) for frame in zip(x.numpy(), h.numpy(), strict=True)]
            assert [s is None for s in steps] == [True] * 3 + [False] * 9
            steps += [model.flush() for _ in range(4)]
            assert steps[-1] is None
            for name in (first, second):
                np.testing.assert_array_equal(np.stack([s[name] for s in steps if s is not None]), found[name])
    assert repr(model).startswith(f"<CompiledModel streams for cortex-m4, x: {model.manifest.inputs[0].dtype}[1, 1, 5]")


def test_the_same_on_every_core(streams: tuple[CompiledModel, Streams], tmp_path: Path) -> None:
    pytest.importorskip("unicorn")
    model, _ = streams
    frames_in = list(input_frames({k: v[0].numpy() for k, v in sequences(1, 3).items()}, model.manifest.inputs))
    with model.device("host") as host, model.device("unicorn") as core:
        wanted = outputs_of(host, frames_in)
        found = [outputs_of(core, frames_in)]
    for target in ("cortex-m7", "cortex-m0plus"):
        (tmp_path / target).mkdir()
        write_folder(model.graph("step"), load_target(target), tmp_path / target)
        with open_device("unicorn", tmp_path / target) as device:
            found.append(outputs_of(device, frames_in))
    for outs in found:
        for w, f in zip(wanted, outs, strict=True):
            if model.report["precision"] == "int8":
                np.testing.assert_array_equal(f, w)
            else:
                np.testing.assert_allclose(f, w, rtol=1e-5, atol=1e-5)


def outputs_of(device: Device, frames_in: list[list[Array]]) -> list[Array]:
    """Every output over all frames, flush included."""
    found = [device.step(frame) for frame in frames_in]
    while (out := device.flush()) is not None:
        found.append(out)
    return [np.stack(column) for column in zip(*(o for o in found if o is not None), strict=True)]


def test_commands_take_an_archive_by_name(
    streams: tuple[CompiledModel, Streams], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = streams
    folder, clip = str(model.folder), str(tmp_path / "clip.npz")
    np.savez(clip, **{name: x[0].numpy() for name, x in sequences(1, 4).items()})
    names = [spec.name for spec in model.manifest.outputs]
    with edgec.open(folder) as opened:
        last = opened.run(dict(np.load(clip)))[names[1]][-1].reshape(-1)
    assert main(["run", folder, clip]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{names[0]}: " in printed
    assert f"{names[1]}: {last.argmax()} [{' '.join(f'{v:.2f}' for v in last)}]" in printed
    assert main(["profile", folder]) == 0  # on sample.npz
    assert main(["verify", folder, "--clip", clip]) == 0
    np.savez(clip, x=np.zeros((FRAMES, 5), np.float32))
    assert main(["run", folder, clip]) == 2
    assert "expected the inputs x, h, found x" in capsys.readouterr().err


class Windows(torch.nn.Module):
    """Two whole windows of odd sizes, one of them an image, and a third output that both others are made of."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        wide = 7 + 2 * seed
        self.a, self.b = torch.nn.Conv2d(1 + seed, wide, 3, stride=2), torch.nn.Linear(3 + seed, wide)
        self.c = torch.nn.Linear(wide, 5)

    def forward(self, file: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = torch.relu(self.a(file)).mean((2, 3))
        z = torch.relu(self.b(h)) + y
        return y, z, self.c(z)


@pytest.mark.parametrize("seed", [0, 1])
def test_whole_windows(seed: int, tmp_path: Path) -> None:
    """An input may have any name: numpy.savez takes no array called `file`."""
    module = Windows(seed).eval()
    file, h = torch.randn(16, 1 + seed, 7, 9), torch.randn(16, 3 + seed)
    model = edgec.compile(
        module, "host", tmp_path / "o", example_inputs=(file[:1], h[:1]), time_axis=None,
        calibration={"h": h, "file": file},
    )  # fmt: skip
    with model:
        found = model.run((file[:4, None].numpy(), h[:4].numpy()))
    for out, wanted in zip(found.values(), of_module(module, file[:4], h[:4]), strict=True):
        assert_close(out, wanted, "int8")


def test_statistics_of_two_inputs(tmp_path: Path) -> None:
    """`edgec calibrate` and a compile from its file give the C that the data give."""
    module, data = Windows(0).eval(), (torch.randn(16, 1, 7, 9), torch.randn(16, 3))
    program = torch.export.export(module, (data[0][:1], data[1][:1]))
    torch.export.save(program, tmp_path / "net.pt2")
    calibration = {"file": data[0], "h": data[1]}
    statistics = calibrate_model(tmp_path / "net.pt2", calibration, tmp_path / "net.ranges.npz")
    texts = []
    for k, source in enumerate((calibration, statistics)):
        folder = edgec.compile(tmp_path / "net.pt2", "host", tmp_path / str(k), calibration=source).folder
        texts.append((folder / "net.c").read_text())
        with np.load(folder / "sample.npz") as sample:
            assert {name: sample[name].shape for name in sample.files} == {"file": (1, 1, 7, 9), "h": (1, 3)}
    assert texts[0] == texts[1]


def test_names_of_a_file_are_kept_as_they_are(tmp_path: Path) -> None:
    """Also those that neither C nor the text form of a graph can spell."""
    onnx = pytest.importorskip("onnx")
    from tests.frontends.onnx.onnx_models import two_inputs

    path, inputs, wanted = two_inputs(tmp_path / "two.onnx")
    proto = onnx.load(path)
    old = [v.name for v in (*proto.graph.input, *proto.graph.output)]
    new = [("x:0", "a-b", "a_b", "3", "out put")[k] for k in range(len(old))]
    renamed = dict(zip(old, new, strict=True))
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(n, n) for n in names]
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = renamed[value.name]
    onnx.save(proto, path)
    model = edgec.compile(path, "host", tmp_path / "o")
    with model:
        found = model.run(dict(zip(new, inputs, strict=False)))
    found = found if isinstance(found, dict) else {new[-1]: found}
    assert list(found) == new[len(inputs) :]
    for out, right, spec in zip(found.values(), wanted, model.manifest.outputs, strict=True):
        assert np.abs(out.ravel() - right.ravel()).max() <= 1.01 * (spec.scale or 0)
    assert edgec.verify(model, dict(zip(new, inputs, strict=False))).ok


def test_names_that_are_not_ones_alone_are_those_of_the_parameters() -> None:
    specs = [{"parameter": p, "name": p} for p in ("a", "b", "c", "d")]
    for names, wanted in (
        (["x", "y", "z", "w"], ["x", "y", "z", "w"]),
        (["x", "x", "z", "w"], ["a", "b", "z", "w"]),
        (["x", "x", "a", "w"], ["a", "b", "c", "w"]),
    ):
        assert [s["name"] for s in named(specs, names)] == wanted


def test_a_quantised_onnx_network_with_two_inputs(tmp_path: Path) -> None:
    """Levels of onnxruntime on the host and the emulated core, measured on silence."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("unicorn")
    from tests.frontends.onnx.onnx_models import two_inputs

    path, inputs, wanted = two_inputs(tmp_path / "two.onnx")
    model = edgec.compile(path, "cortex-m4", tmp_path / "o")
    assert model.report["totals"]["instructions_worst"] > 0
    specs = model.manifest.inputs
    given = list(input_frames({spec.name: x for spec, x in zip(specs, inputs, strict=True)}, specs))
    with model.device("host") as host, model.device("unicorn") as core:
        found = [[device.step(frame) for frame in given] for device in (host, core)]
    for k, spec in enumerate(model.manifest.outputs):
        on_host, on_core = (np.stack([out[k].reshape(-1) for out in outs if out is not None]) for outs in found)
        np.testing.assert_array_equal(on_host, on_core)
        levels = np.round(wanted[k].reshape(len(given), -1) / spec.scale) + (spec.zero_point or 0)
        assert np.abs(on_host - levels).max() <= 1
