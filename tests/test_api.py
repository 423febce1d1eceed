"""The package as Python meets it: its names, its types, and errors that speak of arguments."""

from __future__ import annotations

import ast
import builtins
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import edgec
from edgec.cli import main
from edgec.device import KINDS, device_of
from edgec.errors import EdgecError, InputError, ToolchainError, option
from edgec.target import load_target

ROOT = Path(edgec.__file__).parent

SNIPPET = """
import edgec

model = edgec.compile("net.pt2", target="host", precision="float32")
reveal_type(edgec.compile)
reveal_type(model)
reveal_type(edgec.open("out"))
reveal_type(edgec.load("net.pt2"))
reveal_type(edgec.nn.LogMel(n_mels=40))
reveal_type(edgec.Budget(ram=1024).ram)
edgec.compile("net.pt2", presicion="float32")
edgec.nosuchname
"""


def test_a_type_checker_sees_the_real_signatures(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(SNIPPET)
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = True\n[mypy-torch.*]\nfollow_imports = skip\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", str(tmp_path / "cache"), "use.py"],
        cwd=tmp_path, env={"MYPYPATH": str(ROOT.parent)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    revealed = [line.partition("Revealed type is ")[2] for line in lines if "Revealed type is " in line]
    assert revealed[0].startswith('"def (model: '), done.stdout + done.stderr
    assert revealed[0].endswith('-> edgec.compiled.CompiledModel"')
    assert revealed[1:] == [
        f'"{name}"'
        for name in (
            "edgec.compiled.CompiledModel", "edgec.compiled.CompiledModel", "edgec.ir.graph.Graph",
            "edgec.nn.log_mel.LogMel", "int | None",
        )
    ], done.stdout  # fmt: skip
    assert any('Unexpected keyword argument "presicion"' in line for line in lines)
    assert any('has no attribute "nosuchname"' in line for line in lines)


def test_the_marker_for_type_checkers_is_shipped() -> None:
    assert (ROOT / "py.typed").is_file()
    if (project := ROOT.parent / "pyproject.toml").is_file():
        data = tomllib.loads(project.read_text(encoding="utf-8"))
        assert "py.typed" in data["tool"]["setuptools"]["package-data"]["edgec"]


def test_dir_lists_what_there_is() -> None:
    names = [name for name in dir(edgec) if not name.startswith("_")]
    assert names == ["Budget", "CompiledModel", "EdgecError", "Options", "compile", "load", "nn", "open", "verify"]
    for name in names:
        assert getattr(edgec, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nosuchname'"):
        getattr(edgec, "nosuch" + "name")


def test_a_star_import_shadows_no_builtin() -> None:
    names: dict[str, object] = {}
    exec("from edgec import *", names)
    del names["__builtins__"]
    assert not names.keys() & vars(builtins).keys()
    assert {"load", "nn", "CompiledModel", "EdgecError", "Budget", "Options", "verify"} == names.keys()


# ---- one error, two spellings ----


@pytest.mark.parametrize(
    ("name", "value", "shell", "python"),
    [
        ("precision", "float32", "--precision float32", "precision='float32'"),
        ("time_axis", None, "--time-axis", "time_axis"),
        ("sliding", None, "--sliding", "sliding=True"),
        ("whole", None, "--whole", "streaming=False"),
        ("out", None, "-o", "out"),
        ("out", "dir", "-o dir", "out='dir'"),
        ("on", "qemu", "--on qemu", "device('qemu')"),
        ("on", None, "--on", "device"),
        ("output", "y", "--output y", "outputs=['y']"),
        ("output", None, "--output", "outputs"),
    ],
)
def test_an_option_in_an_error(name: str, value: str | None, shell: str, python: str) -> None:
    err = InputError(f"found {option(name, value)}", hint=f"leave out {option(name, value)}")
    assert str(err) == f"found {python}\n  hint: leave out {python}"
    assert err.for_shell() == f"found {shell}\n  hint: leave out {shell}"
    assert (err.message, err.hint) == (f"found {python}", f"leave out {python}")


def test_the_same_mistake_in_python_and_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(EdgecError, match="hint: add sliding=True"):
        edgec.compile("lmuformer", hop=2, out=tmp_path / "o")
    assert main(["compile", "lmuformer", "--hop", "2", "-o", str(tmp_path / "o")]) == 2
    assert "hint: add --sliding\n" in capsys.readouterr().err


def texts(node: ast.AST) -> list[str]:
    """The strings below a node, an f-string as one, without what it fills in."""
    formatted = [n for n in ast.walk(node) if isinstance(n, ast.JoinedStr)]
    parts = {id(p) for f in formatted for p in f.values}
    single = [n for n in ast.walk(node) if isinstance(n, ast.Constant) and id(n) not in parts]
    joined = ["".join(str(p.value) for p in f.values if isinstance(p, ast.Constant)) for f in formatted]
    return joined + [n.value for n in single if isinstance(n.value, str)]


def names_option(text: str) -> bool:
    """Whether a text holds an option that is not part of a whole command line."""
    whole = ("edgec calibrate ", "edgec card ", "python -m ", " --version", "--input_shape")
    return " --" in f" {text}" and not any(part in text for part in whole)


def test_no_error_of_the_library_names_an_option_itself() -> None:
    """commands.py has no other user than the command line; all others write `option`."""
    found = []
    for path in (p for p in ROOT.rglob("*.py") if p.name not in ("cli.py", "commands.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            raised = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error")
            named = isinstance(node, ast.Assign) and any("hint" in ast.unparse(t).lower() for t in node.targets)
            if raised or named:
                found += [f"{path.name}: {text}" for text in texts(node) if names_option(text)]
    assert not found


# ---- devices ----


@pytest.mark.parametrize(
    ("target", "device"),
    [("cortex-m7", "unicorn"), ("cortex-m55", "qemu"), ("cortex-a53", "qemu-aarch64")],
)
def test_the_emulator_is_the_targets_own(target: str, device: str) -> None:
    assert device_of("emulator", load_target(target)) == device
    assert device_of(device, load_target(target)) == device


def test_a_target_without_an_emulator_says_so() -> None:
    with pytest.raises(ToolchainError, match="host has no emulator\n  hint: its devices: host"):
        device_of("emulator", load_target("host"))


def test_devices_have_one_name(capsys: pytest.CaptureFixture[str]) -> None:
    """What --on takes is what `device` takes."""
    for command in ("run", "verify"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = capsys.readouterr().out
        assert "{" + ",".join(KINDS) + "}" in shown.replace("\n", "").replace(" ", "")
    for kind in set(KINDS) - {"emulator"}:
        assert device_of(kind, load_target("cortex-m7")) == kind
