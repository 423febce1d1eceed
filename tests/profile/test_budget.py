import pytest

from edgec.errors import BudgetError, InputError
from edgec.options import Budget, parse_latency, parse_size
from edgec.pipeline import fit_ram
from edgec.profile.budget import arena_for, check_budget

TOTALS = {
    "flash": 800, "ram": 400, "state": 100, "arena": 200, "stack": 100, "copied": 0, "fast": 0, "latency_ms": 2.0,
    "input_buffers": 30, "output_buffers": 10, "ram_with_io": 440,
}  # fmt: skip
REPORT = {
    "per": "frame",
    "how": {"instructions": "not counted: qemu-system-arm is not on the PATH"},
    "part": {"flash": 1000, "ram": 500},
    "layers": [
        {"name": "big", "flash": 700, "ram": 10, "macs": 5},
        {"name": "small", "flash": 1, "ram": 300, "macs": 2},
    ],
    "totals": TOTALS,
}


@pytest.mark.parametrize(
    ("text", "value"), [("1M", 1 << 20), ("128K", 128 << 10), ("77", 77), ("1.5KB", 1536), ("2MiB", 2 << 20)]
)
def test_sizes(text: str, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize(("text", "value"), [("10ms", 10.0), ("500us", 0.5), ("1s", 1000.0)])
def test_times(text: str, value: float) -> None:
    assert parse_latency(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "K", "1X", "-1", "1 0"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InputError, match="is not a size"):
        parse_size(text)


def test_within_budget() -> None:
    check_budget(REPORT, Budget(flash=800, ram=400, latency_ms=2.0))


def test_over_budget_names_users_and_all_excesses() -> None:
    with pytest.raises(BudgetError) as info:
        check_budget(REPORT, Budget(flash=799, ram=399, latency_ms=1.9))
    text = str(info.value)
    for part in (
        "flash: 800 bytes used, 799 allowed",
        "RAM: 400",
        "latency: 2.000 ms",
        "big",
        "state 100 + arena 200 + stack 100",
    ):
        assert part in text


def test_the_parts_own_memory_is_a_budget() -> None:
    report = {**REPORT, "part": {"flash": 10, "ram": 500}}
    with pytest.raises(BudgetError, match="800 bytes used, 10 allowed"):
        check_budget(report, Budget(flash=5000))


def test_latency_without_an_emulator_is_refused() -> None:
    report = {**REPORT, "totals": {**REPORT["totals"], "latency_ms": None}}
    with pytest.raises(BudgetError, match="latency: not known; instructions: not counted: qemu"):
        check_budget(report, Budget(latency_ms=1.0))


def test_what_lies_in_fast_memory_is_not_charged_to_the_parts_ordinary_ram() -> None:
    report = {**REPORT, "totals": {**REPORT["totals"], "ram": 560, "ram_with_io": 600, "copied": 60, "fast": 160}}
    check_budget(report, Budget())
    with pytest.raises(BudgetError, match=r"RAM: 560 bytes used, 550 allowed(.|\n)*copied to fast memory 60"):
        check_budget(report, Budget(ram=550))


def test_ram_over_the_budget_asks_for_an_arena_that_is_smaller_by_as_much() -> None:
    assert arena_for(REPORT, Budget()) is None
    assert arena_for(REPORT, Budget(ram=350)) == 150
    assert arena_for(REPORT, Budget(ram=10)) == 0
    tried = {**REPORT, "totals": {**TOTALS, "in_steps": True}}
    with pytest.raises(BudgetError, match="RAM: 400 bytes used, 350 allowed; layers run in the steps"):
        check_budget(tried, Budget(ram=350))
    with pytest.raises(BudgetError, match="RAM: 400 bytes used, 350 allowed\n"):
        check_budget(REPORT, Budget(ram=350))


@pytest.mark.parametrize(("arenas", "in_steps"), [([200, 200], False), ([200, 120, 120], True)])
def test_only_layers_that_run_in_steps_are_said_to(arenas: list[int], in_steps: bool) -> None:
    """A network of linear layers has none that could."""
    left = iter(arenas)
    report = fit_ram(lambda tiling: {**REPORT, "totals": {**TOTALS, "arena": next(left)}}, Budget(ram=10))
    assert report["totals"]["in_steps"] == in_steps


def test_ram_is_gated_with_the_callers_buffers_and_without() -> None:
    check_budget(REPORT, Budget(ram=400, ram_with_io=440))
    with pytest.raises(BudgetError, match="RAM with input and output buffers: 440 bytes used, 439 allowed") as info:
        check_budget(REPORT, Budget(ram=400, ram_with_io=439))
    assert "stack 100; input and output buffers 30 + 10" in str(info.value)
    assert "RAM: " not in str(info.value).partition("layer")[0]
    assert arena_for(REPORT, Budget(ram=390, ram_with_io=340)) == 100


def test_the_part_must_hold_the_buffers_too() -> None:
    report = {**REPORT, "part": {"flash": 1000, "ram": 420}}
    assert arena_for(report, Budget()) == 180
    with pytest.raises(BudgetError, match="RAM with input and output buffers: 440 bytes used, 420 allowed"):
        check_budget(report, Budget())


def test_a_network_without_frames_has_no_worst_frame() -> None:
    with pytest.raises(BudgetError, match=r"2\.000 ms estimated for the inference, 1 ms allowed"):
        check_budget({**REPORT, "per": "inference"}, Budget(latency_ms=1))
