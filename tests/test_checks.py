"""What a command is refused for before torch and TVM are imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import edgec
from edgec.cli import main
from tests.conftest import MODEL

CHECKPOINT = str(MODEL / "lmuformer.pt")
PROGRAM = """
import contextlib, io, json, sys
from edgec.cli import main
found = []
for line in sys.argv[1:]:
    text = io.StringIO()
    with contextlib.redirect_stderr(text):
        try:
            code = main(json.loads(line))
        except SystemExit as err:
            code = err.code
    found.append([code, text.getvalue(), sorted({'torch', 'tvm'} & set(sys.modules))])
print(json.dumps(found))
"""


def test_early_refusals(tmp_path: Path) -> None:
    """One process for all of them: none may have imported torch or TVM."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    (tmp_path / "net.pt2").write_bytes(b"PK")
    (tmp_path / "net.h5").write_bytes(b"")
    np.save(tmp_path / "net.npy", np.zeros(3))
    (tmp_path / "binary.toml").write_bytes(bytes(range(256)))
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "wrong.toml").write_text("[code]\ngoal = 'fast'\n")
    (tmp_path / "other.toml").write_text('model = "lmuformer"\nout = "full"\n[form]\nsliding = true\n')
    out = ["-o", str(tmp_path / "out")]
    expected = {
        ("compile", str(tmp_path / "net.pt2"), *out): "net.pt2 comes with none",
        ("compile", CHECKPOINT, "-o", str(tmp_path / "full")): "is not empty",
        ("compile", CHECKPOINT, "-o", str(tmp_path / ("n" * 300))): "File name too long",
        ("compile", CHECKPOINT, "-o", str(tmp_path / "full" / "file" / "out")): "cannot be written",
        ("compile", CHECKPOINT, *out, "--target", "cortex-m8"): "unknown target 'cortex-m8'",
        ("compile", CHECKPOINT, *out, "--target", str(tmp_path / "binary.toml")): "expected a target file in UTF-8",
        ("compile", CHECKPOINT, *out, "--target", str(tmp_path / "folder.toml")): "found a folder",
        ("compile", CHECKPOINT, *out, "--target", str(tmp_path / "none.toml")): "no such file",
        ("compile", CHECKPOINT, *out, "--flash", "0"): "--flash: '0' is no size above 0",
        ("compile", CHECKPOINT, *out, "--flash", ""): "flash: expected a value, found ''",
        ("compile", CHECKPOINT, "-o", ""): "out: expected a value, found ''",
        ("compile", CHECKPOINT, *out, "--dump-ir", ""): "dump-ir: expected a value, found ''",
        ("profile", str(tmp_path), "--html", str(tmp_path)): "cannot be written: it is a folder",
        ("profile", str(tmp_path), "--html", str(tmp_path / "none" / "x" / "\0")): "cannot be written",
        ("compile", CHECKPOINT, *out, "--target", "host", "--emit", "image"): "no image is linked for host",
        ("calibrate", CHECKPOINT, "--calibration", str(tmp_path / "net.npy"), "-o", str(tmp_path)): "it is a folder",
        ("profile", str(tmp_path), "--html", ""): "html: expected a value, found ''",
        ("verify", str(tmp_path), "--clip", ""): "clip: expected a value, found ''",
        ("compile", CHECKPOINT, "-o", str(tmp_path / "net.h5")): "net.h5 is a file",
        ("compile", CHECKPOINT, *out, "--ram=-1"): "--ram: '-1' is not a size",
        ("compile", CHECKPOINT, *out, "--ram", "1e400"): "--ram: '1e400' is not a size",
        ("compile", CHECKPOINT, *out, "--ram", "9" * 5000): "is not a size",
        ("compile", CHECKPOINT, *out, "--latency", "nan"): "--latency: 'nan' is not a time",
        ("compile", CHECKPOINT, *out, "--latency", "0ms"): "--latency: '0ms' is no time above 0",
        ("compile", CHECKPOINT, *out, "--dump-ir", str(tmp_path / "full" / "file")): "cannot be written",
        ("compile", CHECKPOINT, *out, "--calibration", str(tmp_path / "none.npz")): "no such file",
        ("compile", CHECKPOINT, *out, "--calibration", str(tmp_path / "full" / "file")): "no .npz archive",
        ("compile", "lmuformre", *out): "did you mean lmuformer",
        ("compile", str(tmp_path / "nett.pt2"), *out): "did you mean net.pt2",
        ("compile", str(tmp_path / "net.h5"), *out): "unknown kind of model file '.h5'",
        ("compile", CHECKPOINT, *out, "--target", "cortex-m0plus", "--profile", "dwt"): "has no cycle counter",
        ("compile", CHECKPOINT, *out, "--sliding", "--whole"): "exclude each other",
        ("compile", CHECKPOINT, *out, "--hop", "2", "--whole"): "a hop is for a window that slides",
        ("compile", str(tmp_path / "net.pt2"), *out, "--hop", "2"): "a hop is for a window that slides",
        ("compile", CHECKPOINT, *out, "--sliding", "--hop", "0"): "expected a hop of at least 1 frame, found 0",
        ("compile", CHECKPOINT, *out, "--bits", "head=w3a8"): "layer head: unknown precision 'w3a8'",
        ("compile", CHECKPOINT, *out, "--bits", "none.toml"): "none.toml: no such file",
        ("compile", *out): "no model is given",
        ("compile", CHECKPOINT, *out, "--config", str(tmp_path / "none.toml")): "none.toml: no such file",
        ("compile", CHECKPOINT, *out, "--config", str(tmp_path / "binary.toml")): "of a compile in UTF-8, found",
        (
            "compile",
            CHECKPOINT,
            *out,
            "--config",
            str(tmp_path / "wrong.toml"),
        ): "'code.goal': 'fast' is not one of latency",
        ("compile", "--config", str(tmp_path / "other.toml")): "is not empty",
        ("compile", *out, "--config", str(tmp_path / "other.toml"), "--whole", "--sliding"): "leave out --whole",
        ("compile", *out, "--config", str(tmp_path / "other.toml"), "--no-sliding", "--hop", "2"): "add --sliding",
        ("compile", CHECKPOINT, *out, "--config", ""): "config: expected a value, found ''",
        ("compile", CHECKPOINT, *out, "--time-axis", "first"): "--time-axis: 'first' is no axis",
        (
            "calibrate",
            CHECKPOINT,
            "--data",
            ".",
            "--config",
            str(tmp_path / "wrong.toml"),
        ): "'code.goal': 'fast' is not",
        ("calibrate", "lmuformre", "--calibration", "none.npz"): "did you mean lmuformer",
        ("calibrate", CHECKPOINT, "--calibration", "none.npz"): "no such file",
        ("card", "lmuformre", "--data", str(tmp_path)): "expected a shipped model",
        ("run", str(tmp_path), "clip.wav"): "not a compiled model",
    }
    lines = [json.dumps(arguments) for arguments in expected]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *lines], capture_output=True, text=True, check=True)
    for (arguments, message), (code, err, imported) in zip(expected.items(), json.loads(done.stdout), strict=True):
        assert (code, imported) == (2, []), (arguments, err)
        assert message in err, arguments
        assert err.count("edgec: error: ") == 1
    assert not (tmp_path / "out").exists()


def test_a_compiler_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stages: list[str] = []
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(edgec.EdgecError, match="arm-none-eabi-gcc is not on the PATH"):
        edgec.compile("lmuformer", out=tmp_path / "o", toolchain="gcc", progress=stages.append)
    assert not stages


def test_models_targets_and_options_are_listed_without_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, '["models"]', '["models", "--json"]', '["targets"]',
         '["compile", "--show-options"]'],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == [[0, "", []]] * 4


@pytest.mark.parametrize("budget", [{"flash": 0}, {"ram": -1}, {"latency_ms": float("nan")}, {"flash": "1M"}])
def test_budgets_in_python(budget: dict[str, object]) -> None:
    with pytest.raises(edgec.EdgecError, match="above 0"):
        edgec.Budget(**budget)


def test_arguments_of_another_type() -> None:
    for arguments, message in (
        ({"budget": {"flash": 1}}, "budget: expected Budget | None, found dict"),
        ({"target": 5}, r"target: expected str \| Path \| Target, found int"),
        ({"precision": None}, "precision: expected str, found NoneType"),
        ({"out": "a\0b"}, "null byte"),
        ({"out": b"a"}, r"out: expected str \| Path \| None, found bytes"),
        ({"sliding": True, "hop": 1.5}, r"hop: expected int \| None, found float"),
        ({"sliding": "yes"}, r"sliding: expected bool \| None, found str"),
        ({"weights": "4"}, "weights: expected int, found str"),
        ({"bits": ["head=w4a8"]}, r"bits: expected Mapping\[str, str\] \| None, found list"),
        ({"outputs": "logits"}, r"outputs: expected Sequence\[str\] \| None, found str"),
        ({"time_axis": 1.5}, "time_axis: expected int .*, found float"),
        ({"progress": None}, "progress: expected Progress, found NoneType"),
        ({"calibration": "none.npz"}, "no such file"),
    ):
        with pytest.raises(edgec.EdgecError, match=message):
            edgec.compile("lmuformer", **arguments)
    with pytest.raises(edgec.EdgecError, match="found int"):
        edgec.load(5)
    with pytest.raises(edgec.EdgecError, match=r"folder: expected str \| Path, found int"):
        edgec.open(5)
    with pytest.raises(edgec.EdgecError, match="model: expected CompiledModel, found str"):
        edgec.verify("out", np.zeros(3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"time_axis": "first"}, "time_axis: expected an axis, None or 'guess', found 'first'"),
        ({"example_inputs": 5}, "example_inputs: expected a tuple of tensors, found int 5"),
        ({"example_inputs": ()}, "example_inputs: expected a tuple of tensors, found tuple"),
        (
            {"example_inputs": (np.zeros((1, 4)),)},
            "expected tensors, found ndarray at place 0\n  hint: torch.from_numpy",
        ),
        ({"example_inputs": {"x": 1}}, "example_inputs: expected a tuple of tensors, found dict"),
    ],
)
def test_example_inputs_and_axes_that_do_not_do(given: dict[str, object], message: str) -> None:
    module = torch.nn.Linear(4, 3).eval()
    with pytest.raises(edgec.EdgecError, match=message):
        edgec.load(module, **{"example_inputs": (torch.zeros(1, 4),), **given})
    assert edgec.load(module, torch.zeros(1, 4)).inputs[0].type.shape == (1, 4)


def test_labels_are_lines_as_many_as_the_scores(
    lmuformer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgec.compiled import CompiledModel

    scores = int(np.prod(CompiledModel(lmuformer).manifest.outputs[0].shape))
    clip, labels = str(sorted((MODEL / "clips").glob("yes*.wav"))[0]), tmp_path / "labels.txt"
    labels.write_text("\n".join([f"turn left {k}" for k in range(scores)]) + "\n\n")
    assert main(["run", str(lmuformer), clip, "--labels", str(labels)]) == 0
    assert "turn left " in capsys.readouterr().out
    labels.write_text("turn left\n")
    assert main(["run", str(lmuformer), clip, "--labels", str(labels)]) == 2
    assert f"expected {scores} class names, one a line" in capsys.readouterr().err
    labels.write_bytes(b"gr\xfcn\n")
    assert main(["run", str(lmuformer), clip, "--labels", str(labels)]) == 2
    assert "in UTF-8, found byte 0xfc" in capsys.readouterr().err
