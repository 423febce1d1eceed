"""A room imports only rooms above it in this list (docs/architecture.md, section 2)."""

import ast
from pathlib import Path

import pytest

import edgec

ROOT = Path(edgec.__file__).parent
ROOMS = [
    "errors", "arguments", "guard", "schema", "files", "bits", "lmu_math", "signal_math", "ir", "ops", "nn", "target",
    "frontends", "passes", "stages", "plan", "kernels", "runtime", "backends", "toolchain", "device", "compiled",
    "profile", "checks", "pipeline", "zoo", "printing", "commands", "cli",
]  # fmt: skip
#: modules that are not a room: the package itself may name anything, lazily
OUTSIDE = {"__init__", "__main__"}
FILES = sorted(p for p in ROOT.rglob("*.py") if p.relative_to(ROOT).parts[0].removesuffix(".py") not in OUTSIDE)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[tuple[str, str]]:
    """(room, dotted name) of every edgec import anywhere in a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "edgec":
                names = [f"edgec.{a.name}" for a in node.names]
        found |= {(n.split(".")[1], n) for n in names if n.startswith("edgec.")}
    return found


def test_every_file_is_in_a_room() -> None:
    assert {room_of(p) for p in FILES} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_up(path: Path) -> None:
    room = room_of(path)
    for other, name in imported(path):
        if other.startswith("__"):
            continue
        assert ROOMS.index(other) <= ROOMS.index(room), f"{path.relative_to(ROOT)} ({room}) imports {name}"


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("tvm", {"backends"}),
        ("unicorn", {"device"}),
        ("capstone", {"profile"}),
        ("torch", {"ir", "ops", "nn", "frontends", "passes", "profile", "zoo"}),
        ("onnx", {"frontends"}),
    ],
)
def test_foreign_libraries_stay_in_their_rooms(library: str, allowed: set[str]) -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(n.split(".")[0] == library for n in names):
                assert room_of(path) in allowed, f"{path.relative_to(ROOT)} imports {library}"
