"""The hand-written model as a compiled folder."""

import shutil
from pathlib import Path

import pytest

from edgec.runtime import all_headers, header_text


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "fake"
    shutil.copytree(Path(__file__).parent / "fake", folder)
    for name in all_headers():
        (folder / name).write_text(header_text(name))
    return folder
