import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page", ["tensor.md", "architecture.md"])
def test_files_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    named = set(re.findall(r"\b(?:edgec|targets|tests)/[\w/.-]*\w", text))
    assert named
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]


def test_the_lines_of_the_page_are_those_of_the_compiled_model(lmuformer: Path) -> None:
    """Names, ops and attributes; what stands behind `q(` are numbers."""
    page = (ROOT / "docs" / "tensor.md").read_text()
    step = (lmuformer / "ir" / "step.ir").read_text()
    whole = (lmuformer / "ir" / "whole.ir").read_text()
    lines = [line.partition(" q(")[0].partition(" ...")[0] for line in page.splitlines() if re.match(r"%|state ", line)]
    assert sum(line in step for line in lines) == 4
    assert sum(line in whole for line in lines) == 2
    assert "k3_qconv1d(s->embed_norm0_delay_line_state, c_embed_conv0_conv_weight_wide_dsp" in page
    assert (
        "k3_qconv1d(s->embed_norm0_delay_line_state, c_embed_conv0_conv_weight_wide_dsp"
        in (lmuformer / "lmuformer.c").read_text()
    )
