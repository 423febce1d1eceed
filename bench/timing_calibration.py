"""Modelled cycles against published runs on boards: the factors and errors of the target files.

    python bench/timing_calibration.py [--write] [--measure] [--models ../shared/data/mlperf_tiny]

Instant, from the data of timing_calibration.toml, mlperf_boards.toml and mlperf_tiny.toml. --measure counts edgec's own
code again, --write replaces bench/timing_calibration.txt. What is fitted and why: docs/timing.md.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
COMMITTED = HERE / "timing_calibration.txt"
COUNTED = ("kws", "ic")  # the networks whose instructions are counted
NETWORKS = ("kws", "ic", "vww", "ad")
REFERENCE = "NUCLEO-L4R5ZI"  # the board of the Cortex-M4 that all ratios are to
OPEN = "microTVM + CMSIS-NN"  # the stack whose kernels can be counted


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((HERE / name).read_text(encoding="utf-8"))


DATA, BOARDS, COUNTS = _read("timing_calibration.toml"), _read("mlperf_boards.toml")["board"], _read("mlperf_tiny.toml")


@dataclass(frozen=True)
class Fit:
    """A core's board cycles are `factor` times its modelled ones; `error` is a relative standard deviation, from
    `points` figures. `factors` are the single ones, by what they are of."""

    factor: float
    error: float
    points: int
    factors: dict[str, float]


def cycles(row: dict[str, Any], network: str) -> float:
    """Of one inference on a board: median time by clock."""
    return float(row["ms"][network] * row["mhz"] * 1e3)


def find(stack: str, board: str) -> dict[str, Any]:
    return next(r for r in BOARDS if (r["stack"], r["board"]) == (stack, board))


def geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def scatter(values: Sequence[float]) -> float:
    """Root mean square of the relative deviations from the median, on a logarithmic scale."""
    return float(np.sqrt(np.mean(np.log(np.array(values) / np.median(values)) ** 2)))


def modelled_cmsis_nn(network: str) -> float:
    """Cycles of C that calls CMSIS-NN on the Cortex-M4: counted instructions by what each kernel's take on average."""
    rows = [k for k in DATA["kernel"] if k["network"] == network]
    each = sum(k["share"] * k["cycles"] for k in rows) / sum(k["share"] for k in rows)
    counted = next(c for c in COUNTS["counted"] if (c["stack"], c["core"]) == ("C that calls CMSIS-NN", "m4"))
    return float(counted[network]["instructions"] * each)


def ratios(core: str) -> dict[tuple[str, str], dict[str, float]]:
    """Cycles on boards of a core to those of the same stack on the Cortex-M4, by stack and board and network."""
    found = {}
    for row in BOARDS:
        base = [r for r in BOARDS if (r["stack"], r["board"]) == (row["stack"], REFERENCE)]
        if row["core"] == core and row["board"] != REFERENCE and base:
            found[row["stack"], row["board"]] = {n: cycles(row, n) / cycles(base[0], n) for n in NETWORKS}
    return found


def all_ratios(core: str) -> list[float]:
    return [r for by_network in ratios(core).values() for r in by_network.values()]


def fit_m4() -> Fit:
    """One factor for two networks of one stack; the error is how much stacks differ in what another core gains them."""
    single = {n: cycles(find(OPEN, REFERENCE), n) / modelled_cmsis_nn(n) for n in COUNTED}
    pooled = [scatter(all_ratios(core)) for core in ("m7", "m33") for _ in all_ratios(core)]
    error = float(np.sqrt(np.mean(np.square(pooled))))
    return Fit(geometric_mean(list(single.values())), error, len(single), single)


def fit_by_ratio(core: str, without: str = "") -> Fit:
    """The factor with which edgec's code, the same on both cores, has the median ratio of the published stacks, all of
    them or one left out."""
    found = [r for (stack, _), by_network in ratios(core).items() if stack != without for r in by_network.values()]
    m4 = fit_m4()
    ours = {n: DATA["edgec"]["m4"][n] / DATA["edgec"][core][n] for n in COUNTED}
    single = {n: float(np.median(found)) * m4.factor * r for n, r in ours.items()}
    return Fit(geometric_mean(list(single.values())), scatter(found), len(found), single)


def fits() -> dict[str, Fit]:
    """By core, of those that published runs calibrate."""
    return {"m4": fit_m4(), "m7": fit_by_ratio("m7"), "m33": fit_by_ratio("m33")}


# ---- what is shown ----


def fit_table() -> Table:
    table = Table(title="factors: cycles on boards by modelled cycles", title_justify="left")
    for column in ("core", "factor", "of kws, of ic", "standard deviation", "from"):
        table.add_column(column, justify="left" if column in ("core", "from") else "right")
    for core, fit in fits().items():
        single = ", ".join(f"{f:.3f}" for f in fit.factors.values())
        kind = "counted runs of CMSIS-NN" if core == "m4" else "ratios to the Cortex-M4"
        table.add_row(core, f"{fit.factor:.2f}", single, f"{100 * fit.error:.0f} %", f"{fit.points} {kind}")
    return table


def ratio_table() -> Table:
    table = Table(title=f"cycles by those of the same stack on {REFERENCE}", title_justify="left")
    for column in ("core", "stack", "board", *NETWORKS):
        table.add_column(column, justify="right" if column in NETWORKS else "left")
    for core in ("m7", "m33", "m4", "m0plus"):
        for (stack, board), found in ratios(core).items():
            table.add_row(core, stack, board, *(f"{found[n]:.3f}" for n in NETWORKS))
        values = all_ratios(core)
        spread = f"{min(values):.2f} to {max(values):.2f}, scatter {100 * scatter(values):.0f} %"
        table.add_row(core, f"median {np.median(values):.3f}", spread)
        table.add_section()
    return table


def checks() -> list[str]:
    """What the fits did not use."""
    m4, m33 = fit_m4(), fits()["m33"]
    kws, ic = m4.factors["kws"], m4.factors["ic"]
    left_out = f"{100 * (ic / kws - 1):+.1f} % (kws), {100 * (kws / ic - 1):+.1f} % (ic)"
    lines = [f"Cortex-M4, one network predicted from the other: {left_out}"]
    for core in ("m7", "m33"):
        left_out = ", ".join(
            f"{fit_by_ratio(core, s).factor:.2f} ({s})" for s in dict.fromkeys(s for s, _ in ratios(core))
        )
        lines.append(f"Cortex-{core.upper()}, factor with one stack left out: {left_out}")
    for stack, board in ((OPEN, "nRF5340 DK"), ("TFLM + CMSIS-NN of 2022", "EK-RA6M4")):
        found = {n: cycles(find(stack, board), n) / modelled_cmsis_nn(n) for n in COUNTED}
        shown = ", ".join(f"{f:.2f} ({n})" for n, f in found.items())
        lines.append(f"Cortex-M33, {board}, {stack}: {shown} times the modelled cycles; fitted {m33.factor:.2f}")
    scalar = [DATA["edgec"]["m0plus"][n] / (m4.factor * DATA["edgec"]["m4"][n]) for n in COUNTED]
    lines.append(
        f"Cortex-M0+: edgec's modelled cycles are {scalar[0]:.2f} (kws) and {scalar[1]:.2f} (ic) times those estimated"
        f" for the Cortex-M4's board, HALE's on boards {np.median(all_ratios('m0plus')):.2f}; other kernels run there,"
        " so nothing is fitted"
    )
    m85, m55 = find("TFLM + CMSIS-NN", "EK-RA8D1"), DATA["instructions"]["m55"]
    counted = next(c for c in COUNTS["counted"] if (c["stack"], c["core"]) == ("TFLM + CMSIS-NN, with logs", "m55"))
    theirs = ", ".join(f"{cycles(m85, n) / counted[n]['instructions']:.2f} ({n})" for n in COUNTED)
    ours = ", ".join(f"{DATA['edgec']['m55'][n] / m55[n]:.2f} ({n})" for n in COUNTED)
    lines.append(
        f"Cortex-M55: edgec takes {ours} modelled cycles an instruction; the larger Cortex-M85 (EK-RA8D1, TFLM +"
        f" CMSIS-NN) takes {theirs} on a board, so the model is not below what is possible; no run calibrates it"
    )
    return lines


def measured(models: Path) -> list[str]:
    """edgec's modelled cycles as they are now beside those the fit uses."""
    from mlperf_tiny import measure

    lines = []
    for core, by_network in DATA["edgec"].items():
        for network, used in by_network.items():
            found = measure(network, core, models).cycles
            lines.append(f"{core} {network}: {found:,} modelled cycles now, the fit uses {used:,}")
    return lines


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--models", type=Path, default=HERE.parent.parent / "shared" / "data" / "mlperf_tiny")
    arguments.add_argument("--measure", action="store_true", help="count edgec's own code again")
    arguments.add_argument("--write", action="store_true", help=f"replace bench/{COMMITTED.name}")
    a = arguments.parse_args()
    console = Console(width=120, record=a.write, highlight=False)
    console.print(fit_table())
    console.print(ratio_table())
    for line in [*checks(), *(measured(a.models) if a.measure else [])]:
        console.print(line, soft_wrap=True)
    if a.write:
        lines = [line.rstrip() for line in console.export_text().splitlines()]
        command = f"$ python bench/timing_calibration.py --write{' --measure' if a.measure else ''}"
        COMMITTED.write_text(command + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
