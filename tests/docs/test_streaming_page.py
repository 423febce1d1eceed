"""docs/streaming.md shows code that examples/own_model.py runs, and what it prints."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests.test_examples import run

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "streaming.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def blocks(before: str) -> list[str]:
    """The code blocks of the page that begin with this."""
    return [found.strip("\n") for found in re.findall(re.escape(before) + r"\n(.*?)```", PAGE, re.S)]


def squeezed(code: str) -> str:
    """Code without its indentation and line breaks."""
    return re.sub(r"\s+", "", code)


def test_the_code_is_the_scripts() -> None:
    script = squeezed((ROOT / "examples" / "own_model.py").read_text(encoding="utf-8"))
    shown = blocks("```python")
    assert len(shown) == 4
    for code in shown:
        assert squeezed(textwrap.dedent(code)) in script, code


def test_the_output_is_the_scripts() -> None:
    """Word for word; sizes and instructions within 5 %, as another version of the compiler gives others."""
    shown = [block.partition("```\n")[2] for block in re.findall(r"<!-- output.*?-->\n(```\n.*?)\n```", PAGE, re.S)]
    expected, found = "\n".join(shown), run("own_model.py").rstrip("\n")
    assert NUMBER.sub("N", found) == NUMBER.sub("N", expected)
    numbers = ([float(n.replace(",", "")) for n in NUMBER.findall(text)] for text in (found, expected))
    for ours, theirs in zip(*numbers, strict=True):
        assert ours == pytest.approx(theirs, rel=0.05, abs=0.3)
