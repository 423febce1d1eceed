"""Damaged files of every format: no traceback, no hang. A share of the campaign at each commit, all of it nightly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.fuzz import formats
from tests.fuzz.campaign import run
from tests.fuzz.formats import Format

SHARE, ALL = 12, 400  # files of a format whose reading costs 1
FAMILIES: dict[str, Callable[[Path], Iterable[Format]]] = {
    "inputs": formats.inputs,
    "clips": lambda folder: [formats.clips()],
    "texts": lambda folder: formats.texts(),
    "folders": formats.folders,
    "models": lambda folder: formats.models(folder.parent),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small compiled network."""
    return formats.compile_small(tmp_path_factory.mktemp("sound") / "small")


def campaign(family: str, folder: Path, work: Path, count: int) -> int:
    """How many damaged files of a family were read; all ended as they should."""
    read, problems = 0, []
    for form in FAMILIES[family](folder):
        files = max(2, count // form.cost)
        problems += run(form, files, work)
        read += files
    assert not problems, "\n".join(problems)
    return read


@pytest.mark.filterwarnings("ignore")  # what numpy and torch think of damaged files
@pytest.mark.parametrize("family", FAMILIES)
def test_some_damaged_files(family: str, folder: Path, tmp_path: Path) -> None:
    assert campaign(family, folder, tmp_path, SHARE) >= SHARE


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
def test_ten_thousand_damaged_files(folder: Path, tmp_path: Path) -> None:
    assert sum(campaign(family, folder, tmp_path, ALL) for family in FAMILIES) >= 10_000


def test_sound_files_are_read(folder: Path, tmp_path: Path) -> None:
    """The campaign damages what is fine: every sound file is taken."""
    for formats_of in FAMILIES.values():
        for form in formats_of(folder):
            for name, content in form.seeds.items():
                (tmp_path / name).write_bytes(content)
                if form.name != "pt":  # a checkpoint that no shipped family builds
                    form.read(tmp_path / name)


def test_a_file_that_compile_did_not_write_is_not_run(folder: Path, tmp_path: Path) -> None:
    import shutil

    import edgec
    from edgec.errors import InputError

    copy = shutil.copytree(folder, tmp_path / "copy")
    source = copy / "small.c"
    source.write_text(source.read_text() + "/* mine */\n")
    with pytest.raises(InputError, match=r"small\.c is not as compile wrote it"):
        edgec.open(str(copy))
