"""Nothing but an EdgecError leaves the API and the command line; edgec's own faults leave a file for a report."""

from __future__ import annotations

import errno
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgec
from edgec import cli, commands, pipeline
from edgec.checks import check_output
from edgec.errors import InputError, InternalError, MachineError
from edgec.folder import put_in_place
from edgec.guard import guarded, guarding


def broken(x: object, secret: np.ndarray) -> None:
    """A function with a fault of its own."""
    raise KeyError(f"no {x}")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_an_internal_error_keeps_its_chain_and_leaves_a_report(temporary: Path) -> None:
    secret = np.full((2, 3), 4711.25)
    with pytest.raises(InternalError, match="edgec itself failed, by no fault of yours: KeyError: 'no thing'") as info:
        guarded(broken)("thing", secret)
    assert isinstance(info.value.__cause__, KeyError)
    (path,) = temporary.iterdir()
    assert info.value.report == str(path)
    assert str(path) in str(info.value)
    text = path.read_text()
    for part in (f"edgec {edgec.__version__}", "numpy ", "x = 'thing'", "(2, 3)", "raise KeyError", "Traceback"):
        assert part in text
    assert "4711" not in text


def test_what_the_users_own_function_raises_passes_through(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def progress(stage: str) -> None:
        raise Stop(stage)

    with pytest.raises(Stop, match="import"):
        edgec.compile("lmuformer", out=tmp_path / "o", progress=progress)


def test_a_call_that_does_not_fit_stays_a_type_error() -> None:
    with pytest.raises(TypeError, match="missing a required argument"):
        guarded(broken)()
    with pytest.raises(TypeError, match="wrong"):
        edgec.compile("lmuformer", wrong=1)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENAMETOOLONG, errno.EFBIG])
def test_what_the_machine_refuses_is_no_fault_of_edgecs(number: int, temporary: Path) -> None:
    with pytest.raises(MachineError, match=f"^/some/file: {re.escape(os.strerror(number))}") as info, guarding("x", {}):
        raise OSError(number, os.strerror(number), "/some/file")
    assert ("TMPDIR" in str(info.value)) == (number == errno.ENOSPC)
    with pytest.raises(MachineError, match="too little memory"), guarding("x", {}):
        raise MemoryError("Unable to allocate 9 TiB")
    assert not list(temporary.iterdir())


def test_without_a_place_for_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**options: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.raises(InternalError, match="no file for a bug report"), guarding("x", {}):
        raise AssertionError


def test_the_api_is_guarded(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("lost track")

    monkeypatch.setattr(pipeline, "check_request", fail)
    monkeypatch.setattr("edgec.compiled.read_manifest", fail)
    for call in (lambda: edgec.compile("lmuformer"), lambda: edgec.open("x"), lambda: edgec.CompiledModel("x")):
        with pytest.raises(InternalError, match="AssertionError: lost track"):
            call()
    assert pickle.loads(pickle.dumps(edgec.compile)) is edgec.compile


def test_exit_codes(temporary: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for raised, code in ((ZeroDivisionError("x"), 70), (InputError("mine"), 2), (KeyboardInterrupt(), 130)):

        def command(arguments: object, raised: BaseException = raised) -> None:
            raise raised

        monkeypatch.setattr(commands, "targets_command", command)
        assert cli.main(["targets"]) == code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.count("edgec: error: ") == 2
    assert "edgec targets\n  command = 'targets'" in next(temporary.iterdir()).read_text()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_no_temporary_folder(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    text = (
        "import sys, tempfile, time\nfrom edgec import cli, commands\n"
        "def command(arguments):\n    with tempfile.TemporaryDirectory(prefix='edgec-'):\n"
        "        print('ready', flush=True)\n        time.sleep(60)\n"
        "commands.targets_command = command\nsys.exit(cli.main(['targets']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", text], env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(sent)
        assert process.wait(30) == code
    assert not list(tmp_path.iterdir())


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m edgec ops | head -1", shell=True, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_names_that_the_terminal_cannot_show(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "edgec", "compile", "mod\u00e8le[/red]"], env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2
    assert "mod\\xe8le[/red]: no such file" in done.stderr


def test_a_name_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    from edgec.printing import console

    with console.capture() as captured:
        console.print("wrote a[/red]b :snake: [bold]x")
    assert captured.get() == "wrote a[/red]b :snake: [bold]x\n"


# ---- the output folder ----


def made(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name / "model"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(name)
    return folder


def test_two_compiles_into_one_folder(tmp_path: Path) -> None:
    first, second, out = made(tmp_path, "a"), made(tmp_path, "b"), tmp_path / "out"
    out.mkdir()
    put_in_place(first, out)
    with pytest.raises(InputError, match="was filled while this compile ran"):
        put_in_place(second, out)
    assert (out / "manifest.json").read_text() == "a"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "out"]


def test_an_empty_folder_that_is_there_is_filled_and_stays_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a mount point must, onto which nothing can be renamed, or the folder where a shell stands."""
    folder, out = made(tmp_path, "a"), tmp_path / "out"
    (folder / "ir").mkdir()
    (folder / "ir" / "step.ir").write_text("")
    out.mkdir(mode=0o700)
    number = out.stat().st_ino
    monkeypatch.chdir(out)
    check_output(Path("."))
    put_in_place(folder, Path("."))
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*")) == ["ir", "ir/step.ir", "manifest.json"]
    assert (out.stat().st_ino, out.stat().st_mode & 0o777) == (number, 0o700)


def test_a_folder_that_cannot_be_filled_is_left_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out, rename = made(tmp_path, "a"), tmp_path / "out", Path.rename
    (folder / "a.c").write_text("")
    out.mkdir()

    def refusing(self: Path, to: Path) -> Path:
        if to.name == "manifest.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(InputError, match="out cannot be written: Input/output error"):
        put_in_place(folder, out)
    assert not list(out.iterdir())


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: str, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)

    folder, out = made(tmp_path, "a"), tmp_path / "deep" / "out"
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(InputError, match=r"out cannot be written: No space left on device\n"):
        put_in_place(folder, out)
    assert not list((tmp_path / "deep").iterdir())


def test_the_output_folder_has_the_usual_mode(tmp_path: Path) -> None:
    usual, link, real = tmp_path / "usual", tmp_path / "link", tmp_path / "real"
    usual.mkdir()
    real.mkdir()
    link.symlink_to(real)
    for out in (tmp_path / "a[/red]b", link, tmp_path / ("n" * 250)):
        put_in_place(made(tmp_path, f"from{len(out.name)}"), out)
        assert out.stat().st_mode == usual.stat().st_mode
        assert (out / "manifest.json").is_file()
    assert link.is_symlink()
