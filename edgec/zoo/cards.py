"""Cards of the shipped models: NAME.card.json beside NAME.pt holds the figures, the family's card.md shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgec.frontends import shipped
from edgec.zoo.page import family_page

Card = dict[str, Any]
PAGE = "card.md"


def card_file(checkpoint: Path) -> Path:
    """Where the figures of a checkpoint lie: net.card.json beside net.pt."""
    return checkpoint.with_name(f"{checkpoint.stem}.card.json")


def family_cards(folder: Path) -> list[Card]:
    """The figures of all models of a family."""
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*.card.json"))]


def page_of(folder: Path) -> str:
    """card.md of a family: its figures, then what about.md says."""
    about = folder / "about.md"
    return family_page(family_cards(folder), about.read_text(encoding="utf-8") if about.is_file() else "")


def all_cards() -> list[Card]:
    """A card for every shipped model, in the order of their names; without figures where it was not measured."""
    found = []
    for name, path in shipped.checkpoints().items():
        file = card_file(path)
        found.append(json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"name": name})
    return found
