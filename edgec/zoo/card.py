"""Measuring a shipped model, and writing what was found into its card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from edgec.errors import InputError
from edgec.zoo.cards import PAGE, Card, card_file, family_cards, page_of
from edgec.zoo.family import checkpoint_of, load_family, load_test_set
from edgec.zoo.measure import QUICK, Progress, measure, target_rows
from edgec.zoo.plot import plot_anytime


def make_card(name: str, data: str | Path, precisions: Sequence[str], quick: bool, progress: Progress) -> Card:
    """Measure a model. With `quick` on its first test inputs only, and nothing is written."""
    checkpoint = checkpoint_of(name)
    family = load_family(checkpoint.parent.name)
    inputs, targets = load_test_set(family, data)
    if quick:
        inputs, targets = inputs[:QUICK], targets[:QUICK]
    card = {
        "name": checkpoint.stem, "family": family.name, **family.texts,
        "checkpoint": checkpoint.name, "bytes": checkpoint.stat().st_size, "sha256": digest(checkpoint),
        "command": f"edgec card {checkpoint.stem} --data DIR",
    } | measure(checkpoint, family, (inputs, targets), precisions, progress)  # fmt: skip
    return card if quick else write_card(checkpoint, with_older(checkpoint, card))


def renew_targets(name: str, precisions: Sequence[str], progress: Progress) -> Card:
    """Measure the targets again, as the compiler is now; the accuracies stay, so the checkpoint must be the card's."""
    checkpoint = checkpoint_of(name)
    path = card_file(checkpoint)
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    measured = [p for p in precisions if p in old.get("compiled", ())]
    if old.get("sha256") != digest(checkpoint) or not measured:
        found = "no card" if not old else f"a card of {', '.join(old['compiled'])}, of sha256 {old['sha256'][:8]}"
        raise InputError(
            f"{checkpoint}: expected a card of this checkpoint (sha256 {digest(checkpoint)[:8]}) at "
            f"{' or '.join(precisions)}, found {found}",
            hint=f"edgec card {checkpoint.stem} --data DIR measures everything",
        )
    kept = [r for r in old["targets"] if r["precision"] not in measured]
    return write_card(checkpoint, old | {"targets": target_rows(checkpoint, measured, progress) + kept})


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def with_older(checkpoint: Path, card: Card) -> Card:
    """The card with the precisions that were measured before on the same checkpoint and not now."""
    path = card_file(checkpoint)
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if old.get("sha256") != card["sha256"]:
        return card
    new = set(card["compiled"])
    rows = [r for r in old["targets"] if r["precision"] not in new]
    return card | {"compiled": old["compiled"] | card["compiled"], "targets": card["targets"] + rows}


def write_card(checkpoint: Path, card: Card) -> Card:
    """Write the figures, the family's page and its plot."""
    folder = checkpoint.parent
    try:
        card_file(checkpoint).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        cards = family_cards(folder)
        (folder / PAGE).write_text(page_of(folder), encoding="utf-8")
        if any("anytime" in c for card in cards for c in card["compiled"].values()):
            plot_anytime(cards, folder / "anytime.svg")
    except OSError as err:
        raise InputError(f"the card of {checkpoint.stem} cannot be written: {err}") from err
    return card
