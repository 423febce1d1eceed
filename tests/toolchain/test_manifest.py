"""Which numbers of nodes a manifest may have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgec.errors import InputError
from edgec.toolchain import parse_manifest

FAKE = Path(__file__).resolve().parents[1] / "device" / "fake" / "manifest.json"


def with_ids(ids: list[int]) -> dict[str, Any]:
    data = json.loads(FAKE.read_text(encoding="utf-8"))
    assert len(data["nodes"]) == len(ids)
    return data | {"nodes": [node | {"id": i} for node, i in zip(data["nodes"], ids, strict=True)]}


def test_views_have_a_number_and_no_entry() -> None:
    assert [n.id for n in parse_manifest(with_ids([0, 2, 5])).nodes] == [0, 2, 5]


@pytest.mark.parametrize("ids", [[0, 2, 1], [0, 0, 1], [-1, 0, 1], [0, 1, 1 << 40]])
def test_other_numbers_are_damage(ids: list[int]) -> None:
    with pytest.raises(InputError, match="ascending order"):
        parse_manifest(with_ids(ids))
