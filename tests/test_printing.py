"""What a compile prints: tables that fit the console, and figures that say what they are of."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from edgec import printing
from edgec.printing import Column, print_report, print_table, shortened


def layer(name: str, **other: Any) -> dict[str, Any]:
    return {
        "name": name, "op": "qconv2d_requantize", "variant": "packed_dsp", "shape": [1, 25, 5, 64],
        "precision": "int8 x int8", "macs": 512_000, "instructions": 445_123, "cycles": 660_413, "flash": 5_120,
        "ram": 8_768, "spike_rate": None, "input_rate": None, **other,
    }  # fmt: skip


TOTALS = {
    "macs": 1_024_000, "flash": 39_574, "weights": 32_692, "state": 16, "arena": 8_944, "stack": 520, "copied": 0,
    "ram": 9_480, "input_buffers": 490, "output_buffers": 12, "ram_with_io": 9_982, "image_flash": 40_902,
    "image_ram": 10_024, "arena_gap": 0, "arena_gap_percent": 0.0, "delay": 5, "instructions_worst": 890_300,
    "instructions_mean": 890_246.0, "cycles_worst": 1_320_900, "cycles_mean": 1_320_826, "latency_ms": 11.007,
    "board_ms": None, "board_error": None,
}  # fmt: skip


def report(per: str, layers: list[dict[str, Any]], **totals: Any) -> dict[str, Any]:
    return {
        "model": "net", "target": "cortex-m4", "precision": "int8", "per": per, "layers": layers,
        "totals": TOTALS | totals, "steps": [], "memory": [{}, {}], "how": {"latency": "estimate"},
    }  # fmt: skip


def printed(monkeypatch: pytest.MonkeyPatch, width: int, what: Any, *arguments: Any) -> list[str]:
    """The lines that something prints to a console of this width."""
    out = io.StringIO()
    monkeypatch.setattr(printing, "console", Console(highlight=False, width=width, file=out))
    what(*arguments)
    return out.getvalue().splitlines()


NAMES = {
    "short": ["conv1", "conv2"],
    "long": [f"model.backbone.encoder.layers.{k}.attention.query_key_value_delay_line" for k in range(2)],
    "brackets": ["block[/red]", "block[1]"],
    "wide": ["畳み込み" * 8, "層"],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_a_layer_takes_one_line_at_any_width(width: int, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, width, print_report, report("frame", [layer(n) for n in names]))
    rows = [line for line in lines if line.startswith("│")]
    assert len(rows) == 2
    assert all("445,123" in row and "660,413" in row for row in rows)
    assert max(map(cell_len, lines)) <= width
    assert ("packed_dsp" in rows[0]) or any("variant" in line and "left out at" in line for line in lines)


def test_what_is_left_out_is_named_and_empty_columns_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = printed(monkeypatch, 200, print_report, report("frame", [layer("conv1")]))
    assert not any("left out" in line or "spikes" in line for line in wide)
    unmeasured = [layer("conv1", instructions=None, cycles=None)]
    assert not any("instr." in line for line in printed(monkeypatch, 200, print_report, report("frame", unmeasured)))
    spiking = printed(monkeypatch, 200, print_report, report("frame", [layer("lif", spike_rate=0.25), layer("fc")]))
    assert any("spikes" in line for line in spiking)
    narrow = printed(monkeypatch, 80, print_report, report("frame", [layer("conv1")]))
    assert "left out at 80 columns: variant, shape, precision; report.json has them" in narrow


def test_shortened_names_keep_both_ends() -> None:
    assert shortened("conv1", 12) == "conv1"
    assert shortened("encoder.layers.0.attention.out", 16) == "encod…ention.out"
    assert len(shortened("x" * 40, 13)) == 13


def test_a_table_without_rows_still_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, 80, print_table, "nothing", [Column("layer"), Column("MACs", 1)], [], "")
    assert any("layer" in line for line in lines)


@pytest.mark.parametrize(
    ("per", "said", "unsaid"),
    [
        ("frame", ["in the worst frame, 890,246 in the mean", "MACs a frame, delay 5 frames"], ["inference"]),
        ("inference", ["890,246 instructions an inference", "MACs an inference"], ["worst", "frame", "delay"]),
        ("call", ["in the worst call, 890,246 in the mean", "MACs a call"], ["frame", "delay"]),
    ],
)
def test_figures_are_of_what_a_call_is(
    per: str, said: list[str], unsaid: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(printed(monkeypatch, 200, print_report, report(per, [layer("conv1")])))
    assert all(phrase in text for phrase in said)
    assert not any(word in text for word in unsaid)


def test_memory_adds_up_to_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(printed(monkeypatch, 200, print_report, report("inference", [layer("conv1")])))
    assert "RAM 9,480 B = state 16 + arena 8,944 + stack 520\n" in text
    assert "RAM with the caller's buffers 9,982 B: input 490, output 12\n" in text
    assert "flash 40,902 B, of it harness and vector table 1,328 B; RAM 10,024 B, of it harness 42 B" in text
    unmeasured = report("inference", [layer("conv1")], image_flash=None, image_ram=None, macs=0)
    text = "\n".join(printed(monkeypatch, 200, print_report, unmeasured))
    assert "image" not in text
    assert "nan" not in text
