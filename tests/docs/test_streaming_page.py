"""docs/streaming.md shows code that examples/own_model.py runs; tests/test_examples.py compares what it prints."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def squeezed(code: str) -> str:
    """Code without its indentation and line breaks."""
    return re.sub(r"\s+", "", code)


def test_the_code_is_the_scripts() -> None:
    page = (ROOT / "docs" / "streaming.md").read_text(encoding="utf-8")
    script = squeezed((ROOT / "examples" / "own_model.py").read_text(encoding="utf-8"))
    shown = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(shown) == 4
    for code in shown:
        assert squeezed(textwrap.dedent(code)) in script, code
