"""Every file of the runtime and every generated one names its licence."""

from pathlib import Path

import pytest

import edgec

ROOT = Path(edgec.__file__).parent
OURS = [*sorted((ROOT / "runtime").rglob("*.[ch]")), *sorted((ROOT / "device").glob("*.c"))]
TEMPLATES = [
    p for p in sorted((ROOT / "backends" / "templates").iterdir()) if p.suffixes[0] in (".c", ".h", ".cu", ".S")
]


@pytest.mark.parametrize("path", OURS, ids=lambda p: p.name)
def test_runtime_files(path: Path) -> None:
    assert path.read_text().startswith("/* SPDX-License-Identifier: Apache-2.0 */\n")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.name)
def test_generated_files(path: Path) -> None:
    assert "\n * SPDX-License-Identifier: 0BSD (" in path.read_text()


def test_there_are_files_of_both() -> None:
    assert len(OURS) > 30
    assert len(TEMPLATES) == 5
