"""Cards: measured on a family of one small network, rendered from their figures, and listed by `edgec models`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgec.cli import main
from edgec.frontends import shipped
from edgec.zoo import measure
from edgec.zoo.card import digest
from edgec.zoo.cards import all_cards, card_file, page_of
from edgec.zoo.family import TEXTS, load_family
from edgec.zoo.page import section
from edgec.zoo.plot import plot_anytime

PACKAGE = """
import torch
def build(config):
    hidden = config["hidden"]
    return torch.nn.Sequential(torch.nn.Linear(6, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 3))
def example_inputs(config):
    return (torch.zeros(1, 6),)
"""
EVALUATE = """
import numpy as np
TASK, DATA, LICENCE, METRIC, UNIT, PER = "guess", "noise, 70 rows", "CC0", "accuracy", "%", "row"
FILES = CALIBRATION_FILES = ("rows.npy",)
def calibration_set(folder):
    return np.load(folder / "rows.npy")[:40]
def test_set(folder):
    rows = np.load(folder / "rows.npy")
    return rows, rows[:, :3].argmax(1)
def metric(outputs, targets):
    return 100.0 * float((outputs.argmax(-1) == targets).mean())
"""


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder with the family `tiny`: its checkpoint gives back the first three of six inputs, and adds the
    same to all of them, so that no hidden channel may be dropped."""
    import edgec_models

    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PACKAGE)
    (folder / "evaluate.py").write_text(EVALUATE)
    (folder / "about.md").write_text("# Tiny\n\n## Data\n\nNoise.\n")
    first, second = torch.zeros(8, 6), torch.zeros(3, 8)
    first[:3, :3], second[:, :3] = torch.eye(3), torch.eye(3)
    first[3:, 3:], second[:, 3:] = 0.2, 0.1
    weights = {"0.weight": first, "0.bias": torch.ones(8), "2.weight": second, "2.bias": torch.zeros(3)}
    data = {"format": "edgec-checkpoint-1", "model": "tiny", "config": {"hidden": 8}, "state_dict": weights}
    torch.save(data, folder / "tiny_one.pt")
    (tmp_path / "data").mkdir()
    rows = np.random.default_rng(0).uniform(-0.99, 0.99, (70, 6)).astype(np.float32)
    np.save(tmp_path / "data" / "rows.npy", rows)
    monkeypatch.setattr(shipped, "folder", lambda: tmp_path / "models")
    monkeypatch.setattr(edgec_models, "__path__", [*edgec_models.__path__, str(tmp_path / "models")])
    monkeypatch.setattr(measure, "TARGETS", {"int8": ("cortex-m7",), "float32": ("cortex-m7",)})
    for name in [n for n in sys.modules if n.startswith("edgec_models.tiny")]:
        monkeypatch.delitem(sys.modules, name)
    return folder


def test_a_card_is_measured_and_written(family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(tmp_path / "data")
    assert main(["calibrate", "tiny-one", "--data", data]) == 0
    assert (family / "tiny_one.ranges.npz").is_file()
    assert main(["card", "tiny-one", "--data", data, "--quick", "--precision", "int8"]) == 0
    assert "first 64 test inputs" in capsys.readouterr().out
    assert not card_file(family / "tiny_one.pt").exists()
    for precision in ("int8", "float32"):
        assert main(["card", "tiny-one", "--data", data, "--precision", precision]) == 0
    card = json.loads(card_file(family / "tiny_one.pt").read_text())
    assert card["params"] == 8 * 6 + 8 + 8 * 3 + 3
    assert card["macs"] == 8 * 6 + 8 * 3
    assert card["inputs"] == 70
    assert card["float"]["value"] == 100.0
    assert set(card["compiled"]) == {"int8", "float32"}
    assert card["compiled"]["float32"]["value"] == 100.0
    assert card["compiled"]["int8"]["value"] > 95.0
    for row in card["targets"]:
        assert row["ram"] == row["state"] + row["arena"] + row["stack"]
        assert row["worst"] >= row["mean"] > card["macs"] / 4
    check_renewal(family, card)
    page = (family / "card.md").read_text()
    assert page == page_of(family)
    assert page.splitlines()[1] == "# Tiny"
    assert page.endswith("## Data\n\nNoise.\n")
    for figure in ("`edgec card tiny_one --data DIR`", "| 100.00 % |", "cortex-m7 | float32", "| parameters | 83 |"):
        assert figure in page


def check_renewal(family: Path, card: dict[str, Any]) -> None:
    """The targets are measured again, into the same card; not for another checkpoint's card."""
    file = card_file(family / "tiny_one.pt")
    for change, code in (({"targets": []}, 0), ({"sha256": "0" * 64}, 2), ({}, 0)):
        file.write_text(json.dumps(card | change))
        assert main(["card", "tiny-one", "--targets-only"]) == code
    renewed = json.loads(file.read_text())
    assert renewed | {"targets": card["targets"]} == card
    assert sorted(renewed["targets"], key=str) == sorted(card["targets"], key=str)


def test_what_a_card_needs(family: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", "tiny-one", "--targets-only"]) == 2
    assert "found no card" in capsys.readouterr().err
    assert main(["card", "tiny-one", "--targets-only", "--quick"]) == 2
    assert "leave one of them out" in capsys.readouterr().err


def test_the_zoo_is_listed(family: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert "edgec card tiny_one" in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "tiny_one"}]


def test_a_model_that_fits_no_target(family: Path) -> None:
    data = torch.load(family / "tiny_one.pt", weights_only=True)
    wide = 60_000
    shapes = {"0.weight": (wide, 6), "0.bias": (wide,), "2.weight": (3, wide), "2.bias": (3,)}
    data |= {"config": {"hidden": wide}, "state_dict": {k: torch.randn(s) for k, s in shapes.items()}}
    torch.save(data, family / "tiny_one.pt")
    row = measure.target_row(family / "tiny_one.pt", "cortex-m0plus", "float32", lambda stage: None)
    assert [line.split(":")[0] for line in row["exceeds"]] == ["flash", "RAM with input and output buffers"]
    assert "524,288 allowed" in row["exceeds"][0]
    text = section(made_up(targets=[row]))
    assert "| cortex-m0plus | float32 | does not fit: flash: " in text


def made_up(**changes: Any) -> dict[str, Any]:
    card = {
        "name": "net", "family": "nets", "task": "t", "data": "d", "licence": "l", "metric": "error", "unit": "",
        "per": "hour", "checkpoint": "net.pt", "bytes": 5000, "sha256": "", "command": "edgec card net --data DIR",
        "params": 1234, "inputs": 10, "macs": 99, "delay": 2, "float": {"value": 0.25, "how": "torch"},
        "compiled": {"int8": {"value": 0.26, "how": "C"}}, "targets": [],
    }  # fmt: skip
    return card | changes


def test_what_was_not_counted_is_said() -> None:
    row = {"target": "cortex-a53", "precision": "int8", "flash": 1000, "state": 1, "arena": 2, "stack": None, "ram": 3}
    text = section(made_up(targets=[row | {"mean": None, "worst": None, "how": "not counted: no emulator"}]))
    assert "| cortex-a53 | int8 | 1,000 | 3 = 1 + 2 + ? |   |   |" in text
    assert "not counted: no emulator (cortex-a53 int8)" in text
    assert "| | 0.2500 | 0.2600 |" in text
    assert "| delay | 2 calls |" in text


def test_the_anytime_curve(tmp_path: Path) -> None:
    curve = [[10, 12.5], [100, 87.25]]
    card = made_up(unit="%", compiled={"int8": {"value": 87.25, "how": "C", "anytime": curve}})
    text = section(card)
    assert "| frames heard | 10 | 100 |" in text
    assert "| C, int8: % | 12.5 | 87.2 |" in text
    plots = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in plots:
        plot_anytime([card], path)
    assert plots[0].read_text().startswith("<?xml")
    assert plots[0].read_bytes() == plots[1].read_bytes()


def test_every_shipped_family_can_be_measured() -> None:
    """The texts and functions of each evaluate.py, and cards that belong to the checkpoints that lie there."""
    for name in {path.parent.name for path in shipped.checkpoints().values()}:
        family = load_family(name)
        assert set(family.texts) == {key.lower() for key in TEXTS}
        assert family.files
    for card in all_cards():
        path = shipped.checkpoints()[card["name"]]
        assert card.get("sha256", digest(path)) == digest(path), f"stale: edgec card {card['name']} --data DIR"
