"""The command line as a user meets it: what it prints, and one clear error with exit code 2 for every bad input."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from edgec.cli import main
from edgec.errors import InputError
from tests.conftest import MODEL

CHECKPOINT = str(MODEL / "lmuformer.pt")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The error text of a command that must end with exit code 2, one error and no traceback."""
    code, _, err = run(capsys, *arguments)
    assert code == 2, err
    assert err.startswith("edgec: error: ")
    assert "Traceback" not in err
    assert err.count("edgec: error:") == 1
    return err


def write_wav(path: Path, rate: int = 16000, channels: int = 1, seconds: float = 1.0) -> Path:
    with wave.open(str(path), "wb") as f:
        f.setparams((channels, 2, rate, 0, "NONE", "not compressed"))
        f.writeframes(np.zeros(int(rate * seconds) * channels, "<i2").tobytes())
    return path


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['edgec', '--help']\nfrom edgec.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'tvm', 'numpy', 'unicorn', 'rich'} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("compile", "run", "profile", "verify", "targets", "ops", "opt"):
        assert command in done.stdout


def test_targets_and_ops_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "cortex-m7" in run(capsys, "targets")[1]
    assert "qrunning_mean" in run(capsys, "ops")[1]


def test_opt_runs_passes_on_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "net.ir"
    file.write_text(
        "graph net\ninput %x : float32[1,9,2] t1\nconst %w : float32[3,2,1] = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]\n"
        "const %b : float32[1] = [0.0]\n%y = conv1d(%x, %w, %b) {pad=(1, 1)} : float32[1,9,1] t1\nreturn %y\n"
    )
    code, out, _ = run(capsys, "opt", str(file), "--passes", "canonicalize,make_streaming")
    assert code == 0
    assert "graph net step delay=1 flush=1" in out
    assert "%y_delay_line = delay_line(%x) [%y_delay_line_state] {length=3} when(0,1,1) : float32[1,3,2] t1" in out
    assert "unknown pass 'fold'" in refused(capsys, "opt", str(file), "--passes", "fold")


def test_run_prints_the_word(lmuformer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = sorted((MODEL / "clips").glob("yes*.wav"))[0]
    code, out, _ = run(capsys, "run", str(lmuformer), str(clip), "--stream")
    assert code == 0
    assert len(re.findall(r"^ +\d+  ", out, re.M)) == 100
    assert "100 outputs on host" in out


def test_profile_accounts_for_every_instruction(
    lmuformer: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "profile.html"
    code, out, _ = run(capsys, "profile", str(lmuformer), "--html", str(page))
    assert code == 0
    assert re.search(r"instructions in the worst frame, [\d,]+ in the mean, over 100 frames", out)
    assert re.search(r"[+-]0\.\d % cycles against the code that ships: each mark is a call", out)
    shares = [float(x) for x in re.findall(r"([\d.]+) % +│", out)]  # the table's, not those of what is said below it
    assert 99.0 < sum(shares) < 101.0
    assert page.read_text().startswith("<!doctype html>")


def test_verify_finds_every_layer_identical(lmuformer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "verify", str(lmuformer))
    assert code == 0, out + err
    assert "agree with the reference" in out


def test_a_file_takes_the_place_of_a_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What --show-options prints is read again, and compiles the same; the command line wins over it."""
    torch.manual_seed(0)
    torch.export.save(torch.export.export(TwoLayers().eval(), (torch.zeros(1, 20, 4),)), tmp_path / "net.pt2")
    given = ("--precision", "float32", "--target", "host", "--time-axis", "1", "--output", "0", "--goal", "size")
    code, printed, _ = run(capsys, "compile", str(tmp_path / "net.pt2"), *given, "--show-options")
    assert code == 0
    assert 'goal = "size"  # command line; one of latency, size' in printed
    (tmp_path / "edgec.toml").write_text(printed.replace(f"{tmp_path}/", ""))
    found = run(capsys, "compile", "--config", str(tmp_path / "edgec.toml"), "--goal", "latency", "--show-options")[1]
    assert 'goal = "latency"  # command line' in found
    assert 'target = "host"  # file' in found
    folders = [tmp_path / "a", tmp_path / "b"]
    assert run(capsys, "compile", str(tmp_path / "net.pt2"), *given, "-o", str(folders[0]))[0] == 0
    assert run(capsys, "compile", "--config", str(tmp_path / "edgec.toml"), "-o", str(folders[1]))[0] == 0
    assert len({(f / "SHA256SUMS").read_text() for f in folders}) == 1


# ---- bad input: model files ----


class Payload:
    """Unpickling this writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (os.system, (f"touch {self.target}",))


@pytest.fixture(scope="module")
def bad_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model files that are none; unpickling one would make the file `ran` beside it."""
    tmp_path = tmp_path_factory.mktemp("models")
    data = Path(CHECKPOINT).read_bytes()
    files = {
        "empty": b"",
        "truncated": data[: len(data) // 2],
        "random": np.random.default_rng(0).bytes(5000),
    }
    paths = {name: tmp_path / f"{name}.pt" for name in files}
    for name, content in files.items():
        paths[name].write_bytes(content)
    paths["missing"] = tmp_path / "missing.pt"
    paths["folder"] = tmp_path / "folder.pt"
    paths["folder"].mkdir()
    paths["pickle"] = tmp_path / "pickle.pt"
    paths["pickle"].write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    paths["torch_pickle"] = tmp_path / "torch_pickle.pt"
    torch.save({"format": "edgec-checkpoint-1", "model": Payload(tmp_path / "ran")}, paths["torch_pickle"])
    paths["module"] = tmp_path / "module.pt"
    torch.save(torch.nn.Linear(2, 2), paths["module"])
    paths["state_dict"] = tmp_path / "state_dict.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), paths["state_dict"])
    paths["bomb"] = tmp_path / "bomb.pt"
    with zipfile.ZipFile(paths["bomb"], "w", zipfile.ZIP_DEFLATED) as z:
        for k in range(8):
            z.writestr(f"bomb/data/{k}", b"\0" * (256 << 20))
    paths["wav"] = write_wav(tmp_path / "sound.pt")
    return paths


@pytest.mark.parametrize(
    "kind",
    [
        *("missing", "empty", "truncated", "random", "folder"),
        *("pickle", "torch_pickle", "module", "state_dict", "bomb", "wav"),
    ],
)  # fmt: skip
def test_bad_model_files(
    kind: str, bad_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = bad_models[kind], tmp_path / "out"
    err = refused(capsys, "compile", str(path), "--precision", "float32", "-o", str(out))
    assert str(path) in err
    assert "calibration" not in err
    assert not out.exists()
    assert not (path.parent / "ran").exists(), "code in the model file ran"


class Unsupported(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.sort(x, dim=-1).values
        return torch.logcumsumexp(y, dim=-1)


def test_every_unsupported_op_is_listed_with_its_source_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.export.save(torch.export.export(Unsupported().eval(), (torch.zeros(1, 8, 4),)), tmp_path / "net.pt2")
    err = refused(capsys, "compile", str(tmp_path / "net.pt2"), "--precision", "float32", "-o", str(tmp_path / "o"))
    for op, code in (("sort", "torch.sort(x"), ("logcumsumexp", "torch.logcumsumexp(y")):
        lines = Path(__file__).read_text().splitlines()
        number = next(
            k for k, line in enumerate(lines, 1) if code in line and "code in" not in line and '("' not in line
        )
        assert re.search(rf"{op}.*test_cli\.py:{number}\b", err), err


class TwoLayers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Conv1d(4, 8, 3, padding=1), torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x.transpose(1, 2))).transpose(1, 2))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_users_exported_program_compiles(precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A .pt2 of the user's own: the compiled C against the user's module; a time axis is only streamed when named."""
    torch.manual_seed(0)
    module, x = TwoLayers().eval(), torch.randn(32, 20, 4)
    torch.export.save(torch.export.export(module, (x[:1],)), tmp_path / "net.pt2")
    np.savez(tmp_path / "c.npz", x.numpy())
    arguments = [
        "--precision",
        precision,
        "--calibration",
        str(tmp_path / "c.npz"),
        "--time-axis",
        "1",
        "-o",
        str(tmp_path / "o"),
    ]
    assert run(capsys, "compile", str(tmp_path / "net.pt2"), *arguments)[0] == 0
    import edgec

    with torch.no_grad():
        expected = module(x[:1])[0].numpy()
    found = edgec.open(str(tmp_path / "o")).run(x[0].numpy()).reshape(20, 3)
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    assert error < (1e-5 if precision == "float32" else 0.05)


# ---- bad input: everything else of a compile ----


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 15999), np.int16), "expected"),
        (np.full((4, 16000), np.nan, np.float32), "NaN"),
        (np.zeros((0, 16000), np.int16), "expected"),
        (np.array([["a"]]), "expected"),
    ],
    ids=["shape", "nan", "empty", "text"],
)
def test_bad_calibration(array: np.ndarray, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "c.npz", array)
    out = tmp_path / "out"
    assert message in refused(capsys, "compile", CHECKPOINT, "--calibration", str(tmp_path / "c.npz"), "-o", str(out))
    assert not out.exists()


def test_calibration_that_is_no_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.npz").write_bytes(b"nothing")
    assert "c.npz" in refused(
        capsys, "compile", CHECKPOINT, "--calibration", str(tmp_path / "c.npz"), "-o", str(tmp_path / "o")
    )
    assert "c2.npz" in refused(
        capsys, "compile", CHECKPOINT, "--calibration", str(tmp_path / "c2.npz"), "-o", str(tmp_path / "o")
    )


def test_unknown_target_and_bad_target_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, "compile", CHECKPOINT, "--target", "cortex-m8", "-o", str(tmp_path / "o"))
    assert "cortex-m8" in err
    assert "cortex-m7" in err
    from edgec.target import _shipped

    text = _shipped()["cortex-m7"].replace("clock_hz", "clock_khz")
    (tmp_path / "mine.toml").write_text(text)
    err = refused(capsys, "compile", CHECKPOINT, "--target", str(tmp_path / "mine.toml"), "-o", str(tmp_path / "o"))
    assert "clock_khz" in err
    assert "mine.toml" in err


def test_over_budget_shows_who_uses_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o"
    budgets = ("--flash", "100K", "--ram", "2K", "--latency", "1us")
    err = refused(capsys, "compile", CHECKPOINT, *budgets, "-o", str(out))
    for what in ("flash", "RAM", "latency"):
        assert f"{what}: " in err
    assert err.count("embed.") >= 3
    assert not out.exists()


@pytest.mark.parametrize(("option", "value"), [("--flash", "lots"), ("--ram", "-3K"), ("--latency", "10")])
def test_budgets_that_are_no_quantities(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert value in refused(capsys, "compile", CHECKPOINT, f"{option}={value}", "-o", str(tmp_path / "o"))


def test_output_folder_that_is_not_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    assert "not empty" in refused(capsys, "compile", CHECKPOINT, "-o", str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keep.txt"]


def test_output_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    err = refused(capsys, "compile", CHECKPOINT, "-o", str(tmp_path / "file" / "out"))
    assert "cannot be written" in err


# ---- bad input: the zoo ----


def test_cards_need_a_shipped_model_and_its_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, "card", "nosuchmodel", "--data", str(tmp_path))
    assert "expected a shipped model" in err
    assert "lmuformer_ann" in err
    err = refused(capsys, "card", "lmuformer-ann", "--data", str(tmp_path / "absent"))
    assert "SC12 subset (speaker-disjoint)" in err
    assert "no such folder; missing:\n  - labels.csv\n  - clips_flac.zip" in err
    assert "missing:\n  - ETTh1.csv" in refused(capsys, "card", "ttm", "--data", str(tmp_path))
    (tmp_path / "ETTh1.csv").write_text("date,a\n")
    assert "ETTh1.csv: expected the columns" in refused(capsys, "card", "ttm", "--data", str(tmp_path))
    assert "cifar10_jpeg_train.zip" in refused(capsys, "calibrate", "vit", "--data", str(tmp_path))
    assert "unknown precision 'int4'" in refused(capsys, "card", "ttm", "--data", ".", "--precision", "int4")


# ---- bad input: run ----


def test_a_wav_of_another_rate_or_form(lmuformer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = write_wav(tmp_path / "r.wav", rate=8000, channels=2)
    code, out, _ = run(capsys, "run", str(lmuformer), str(wrong))
    assert code == 0
    out = " ".join(out.split())  # as a narrow console breaks it
    assert "r.wav: the mean of its 2 channels is taken" in out
    assert "r.wav: resampled from 8,000 to 16,000 Hz" in out
    (tmp_path / "t.wav").write_bytes(b"RIFFnothing")
    assert "t.wav" in refused(capsys, "run", str(lmuformer), str(tmp_path / "t.wav"))
    assert "no such file" in refused(capsys, "run", str(lmuformer), str(tmp_path / "u.wav"))
    short = write_wav(tmp_path / "v.wav", seconds=0.005)
    assert "at least one frame of 160" in refused(capsys, "run", str(lmuformer), str(short))


ARRAYS = {
    "transposed": (
        np.zeros((8, 8, 3), np.float32),
        "expected {own}[1, 3, 8, 8] or a sequence of such",
        "float32[8, 8, 3]",
    ),
    "four channels": (np.zeros((4, 8, 8), np.float32), "expected {own}[1, 3, 8, 8] or", "found float32[4, 8, 8]"),
    "larger": (np.zeros((1, 3, 9, 9), np.float32), "expected {own}[1, 3, 8, 8] or", "found float32[1, 3, 9, 9]"),
    "flat rest": (np.zeros(3 * 64 + 1, np.float32), "expected {own}[1, 3, 8, 8] or", "found float32[193]"),
    "pixels": (np.zeros((3, 8, 8), np.uint8), "expected {own} or real values", "found uint8"),
    "samples": (np.zeros((3, 8, 8), np.int16), "expected {own} or real values", "found int16"),
    "words": (np.full((3, 8, 8), "a"), "expected {own} or real values", "found <U1"),
    "complex": (np.zeros((3, 8, 8), np.complex64), "expected {own} or real values", "found complex64"),
    "nan": (np.full((3, 8, 8), np.nan, np.float32), "expected finite values", "found NaN"),
    "nothing": (np.zeros(0, np.float32), "expected at least one frame of 192 values", "found 0"),
}


@pytest.fixture(scope="module", params=["float32", "int8"])
def image_net(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network on images [1,3,8,8], trained on values in [-1,1]."""
    folder = tmp_path_factory.mktemp("image") / "net"
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, 2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 3)
    )
    x = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    program = torch.export.export(module.eval(), (x[:1],))
    torch.export.save(program, folder.parent / "net.pt2")
    np.savez(folder.parent / "c.npz", x.numpy())
    arguments = ["--precision", request.param, "--calibration", str(folder.parent / "c.npz"), "-o", str(folder)]
    assert main(["compile", str(folder.parent / "net.pt2"), *arguments]) == 0
    return folder


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_of_the_wrong_shape_or_type(
    kind: str, image_net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import edgec

    array, expected, found = ARRAYS[kind]
    model = edgec.open(str(image_net))
    np.save(tmp_path / "x.npy", array)
    err = refused(capsys, "run", str(image_net), str(tmp_path / "x.npy"))
    assert expected.format(own=model.manifest.inputs[0].dtype) in err
    assert found in err
    with pytest.raises(InputError, match=re.escape(found)):
        model.run(array)
    if array.size:
        with pytest.raises(InputError, match=re.escape(found)):
            model.step(array)
    model.close()


def test_values_in_another_unit(image_net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A little outside the calibrated range an integer model saturates; pixels from 0 to 255 are another unit."""
    import edgec

    model = edgec.open(str(image_net))
    ones = np.ones((3, 8, 8), np.float32)
    assert np.array_equal(model.run(np.stack([ones, ones]))[0], model.run(ones.reshape(-1))[0])
    if model.manifest.inputs[0].dtype == "int8":
        assert np.array_equal(model.run(1.5 * ones), model.run(1.2 * ones))
        np.save(tmp_path / "x.npy", 255 * ones)
        err = refused(capsys, "run", str(image_net), str(tmp_path / "x.npy"))
        assert re.search(r"expected values in \[-\d.*, \d.*\], found \[255, 255\]", err)
        assert "as the training data was" in err
    model.close()


def test_a_series_of_the_wrong_shape(lmuformer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for array, message in (
        (np.zeros((2, 16000), np.int16), "expected int16[1, 160] or a sequence of such frames, found int16[2, 16000]"),
        (np.zeros((160, 100), np.int16), "found int16[160, 100]"),
        (np.zeros(16000, np.int32), "expected int16 or real values, found int32"),
        (np.full(16000, 20000.0), "expected values in [-1, 1], found [2e+04, 2e+04]"),
    ):
        np.save(tmp_path / "x.npy", array)
        assert message in refused(capsys, "run", str(lmuformer), str(tmp_path / "x.npy"))


def test_a_folder_that_is_no_compiled_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("profile", "verify"):
        assert "not a compiled model" in refused(capsys, command, str(tmp_path))
