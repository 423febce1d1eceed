"""Readers of what a user hands in: each file that cannot be read is an InputError that names it and says why."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.errors import InputError, TargetError
from edgec.files import check_writable, is_zip, read_array, read_arrays, read_lines, read_table, read_text
from edgec.schema import checked


@dataclass(frozen=True)
class Inner:
    """A table."""

    size: int
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    """A file."""

    name: str
    inner: Inner
    several: tuple[Inner, ...] = ()
    words: tuple[str, ...] = ()
    by_name: Mapping[str, int] = field(default_factory=dict)
    maybe: int | None = None
    whatever: Any = None


def test_a_file_as_a_dataclass() -> None:
    data = {
        "name": "a",
        "inner": {"size": 3, "share": 1},
        "several": [{"size": 1}],
        "words": ["x"],
        "by_name": {"k": 2},
    }
    found = checked(Outer, data, "f")
    assert found == Outer("a", Inner(3, 1), (Inner(1),), ("x",), {"k": 2})


def test_every_problem_is_named() -> None:
    data = {"inner": {"size": True, "share": float("nan"), "more": 1}, "several": [{"size": "1"}, 3], "words": ["x", 1],
            "by_name": {"k": None}, "maybe": [], "colour": 1}  # fmt: skip
    with pytest.raises(TargetError) as info:
        checked(Outer, data, "f.toml: wrong", strict=True, error=TargetError)
    assert info.value.message.splitlines() == [
        "f.toml: wrong",
        "  - unknown key 'colour'; allowed keys: name, inner, several, words, by_name, maybe, whatever",
        "  - missing key 'name' (string)",
        "  - unknown key 'inner.more'; allowed keys: size, share",
        "  - key 'inner.size': expected int, found bool",
        "  - key 'inner.share': expected number, found nan",
        "  - key 'several[0].size': expected int, found string",
        "  - key 'several[1]': expected table, found int",
        "  - key 'words': expected strings, found a list of mixed values",
        "  - key 'by_name.k': expected int, found nothing",
        "  - key 'maybe': expected int, found strings",
    ]
    with pytest.raises(InputError, match="expected table, found strings"):
        checked(Outer, ["x"], "f")


def test_texts(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes("\ufeffturn left\r\n\r\n  gr\u00fcn \n".encode())
    assert read_lines(path, "names") == ("turn left", "gr\u00fcn")
    path.write_bytes(b"gr\xfcn")
    with pytest.raises(InputError, match="expected names in UTF-8, found byte 0xfc"):
        read_lines(path, "names")
    for wrong, message in ((tmp_path / "none", "none: no such file"), (tmp_path, "expected text, found a folder")):
        with pytest.raises(InputError, match=message):
            read_text(wrong)
    with pytest.raises(InputError, match="File name too long"):
        read_text(tmp_path / ("n" * 300))
    with pytest.raises(InputError, match="null byte"):
        read_text("a\0b")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"a": 1}x', "1" * 5000, "\x00"])
def test_tables_that_are_none(text: str, tmp_path: Path) -> None:
    for name in ("x.json", "x.toml"):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=rf"{name} cannot be read as a table \((JSON|TOML)\)"):
            read_table(tmp_path / name, "a table")


def test_arrays(tmp_path: Path) -> None:
    x = np.arange(6, dtype=">f4").reshape(2, 3)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", a=x, b=np.array(["w"]))
    found = read_array(tmp_path / "x.npy")
    assert found.dtype == np.dtype("float32").newbyteorder("=")
    np.testing.assert_array_equal(found, x)
    assert list(read_arrays(tmp_path / "x.npz")) == ["a", "b"]
    with pytest.raises(InputError, match=r"found an archive of arrays"):
        read_array(tmp_path / "x.npz")
    with pytest.raises(InputError, match=r"found one array"):
        read_arrays(tmp_path / "x.npy")
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "d.npy", np.array(["2020-01-01"], "datetime64[D]"))
    with pytest.raises(InputError, match=r"o\.npy cannot be read as a \.npy array"):
        read_array(tmp_path / "o.npy")
    with pytest.raises(InputError, match="expected an array of numbers, found the type datetime64"):
        read_array(tmp_path / "d.npy")


def test_an_array_that_promises_more_than_memory_holds(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 60,)})
    (tmp_path / "x.npy").write_bytes(header.getvalue())
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(InputError, match=r"x\.npy cannot be read"):
        read_array(tmp_path / "x.npy")
    with pytest.raises(InputError, match=r"x\.npz cannot be read"):
        read_arrays(tmp_path / "x.npz")


def test_zip_archives_by_their_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "x.npz", a=1)
    assert is_zip(tmp_path / "x.npz")
    assert not is_zip(tmp_path / "none")

    def several_disks(path: object) -> bool:
        raise zipfile.BadZipFile("zipfiles that span multiple disks are not supported")

    monkeypatch.setattr(zipfile, "is_zipfile", several_disks)
    assert not is_zip(tmp_path / "x.npz")


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(json.dumps(1))
    check_writable(tmp_path / "new" / "deep", "folder", "-o")
    for path, reason in ((tmp_path / ("n" * 300), "File name too long"), (tmp_path / "file" / "x", "Not a directory"),
                         (Path("a\0b"), "null byte")):  # fmt: skip
        with pytest.raises(InputError, match=rf"(?s)folder .* cannot be written: .*{reason}.*give another with -o"):
            check_writable(path, "folder", "-o")
    if os.name == "posix" and os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(InputError, match="is not a writable folder"):
            check_writable(tmp_path / "new", "folder", "-o")
        tmp_path.chmod(0o700)
