"""A room imports only rooms above it in this list (docs/architecture.md, section 2)."""

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

import edgec
from edgec.ops import OPS

ROOT = Path(edgec.__file__).parent
ROOMS = [
    "errors", "arguments", "guard", "schema", "files", "bits", "options", "config", "flags", "lmu_math", "signal_math",
    "ir", "ops", "nn", "target", "frontends", "passes", "stages", "plan", "kernels", "runtime", "backends", "toolchain",
    "device", "compiled", "folder", "profile", "checks", "pipeline", "zoo", "printing", "commands", "__init__", "cli",
    "__main__",
]  # fmt: skip
FILES = sorted(ROOT.rglob("*.py"))
MODULES = {".".join(("edgec", *p.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): p for p in FILES}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Every module of edgec that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            full = {f"{node.module}.{a.name}" for a in node.names}
            found |= {name if name in MODULES else str(node.module) for name in full}
    return found & MODULES.keys()


def circles(arrows: Mapping[str, set[str]]) -> set[str]:
    """What is left of a graph of arrows when all without an arrow to the rest are taken away, again and again."""
    left = set(arrows)
    while ends := {name for name in left if not arrows[name] & left - {name}}:
        left -= ends
    return left


def test_every_file_is_in_a_room() -> None:
    assert {room_of(p) for p in FILES} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_up(path: Path) -> None:
    room = room_of(path)
    for name in imported(path):
        other = room_of(MODULES[name])
        assert ROOMS.index(other) <= ROOMS.index(room), f"{path.relative_to(ROOT)} ({room}) imports {name}"


def test_modules_do_not_import_in_a_circle() -> None:
    assert not circles({name: imported(path) - {name} for name, path in MODULES.items()})


def test_folders_do_not_import_in_a_circle() -> None:
    """A folder and the one that it lies in count as one place here: the table of a folder names what is in it."""
    arrows: dict[str, set[str]] = {str(p.parent): set() for p in FILES}
    for path in FILES:
        for other in {MODULES[name].parent for name in imported(path)}:
            if not (path.is_relative_to(other) or other.is_relative_to(path.parent)):
                arrows[str(path.parent)].add(str(other))
    assert not circles(arrows)


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


#: passes that look for a structure that the user wrote out, and so name the ops it is made of
RECOGNISERS = {"passes/recognize_eca.py", "passes/recognize_scaler.py"}


def test_ops_are_asked_for_what_they_declare_and_not_for_their_class() -> None:
    """Outside of the ops, their kernels, the converters that make them and the recognisers an op's class may be called,
    which makes an op, and annotate; it is in no table and no comparison."""
    kinds = {base.__name__ for op in OPS.values() for base in op.__mro__[:-1]} - {"Op"}
    found = []
    for path in FILES:
        where = str(path.relative_to(ROOT))
        if room_of(path) in ("ops", "kernels", "frontends", "nn") or where in RECOGNISERS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        made = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
        from_ops = [
            n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and str(n.module).startswith("edgec.ops")
        ]
        own = {a.name for n in from_ops for a in n.names} & kinds
        names = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id in own and id(n) not in made]
        found += [f"{where}:{n.lineno}: {n.id}" for n in names]
        asked = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n).endswith("op.name")]
        compared = {id(c) for n in ast.walk(tree) if isinstance(n, ast.Compare) for c in (n.left, *n.comparators)}
        found += [f"{where}:{n.lineno}: {ast.unparse(n)}" for n in asked if id(n) in compared]
    assert not found
