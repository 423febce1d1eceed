"""Flash, RAM and worst-case stack of every shipped model on the Cortex-M7, with the change since the committed file.

    python bench/sizes.py [--write]

--write replaces bench/sizes.txt. Sizes come from the linked image, stack from painting it while a clip is streamed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import edgec
from edgec.errors import BudgetError
from edgec.frontends import shipped

COMMITTED = Path(__file__).with_name("sizes.txt")
COLUMNS = ("flash", "weights", "state", "arena", "stack")


def measure(name: str, precision: str) -> dict[str, int]:
    """The totals of one model at one precision."""
    with tempfile.TemporaryDirectory() as work:
        totals = edgec.compile(name, "cortex-m7", Path(work) / name, precision=precision).report["totals"]
    return {column: int(totals[column]) for column in COLUMNS}


def committed() -> dict[str, dict[str, int]]:
    """The rows of bench/sizes.txt."""
    if not COMMITTED.is_file():
        return {}
    rows = [line.split() for line in COMMITTED.read_text(encoding="utf-8").splitlines()[1:]]
    return {row[0]: dict(zip(COLUMNS, map(int, row[1:]), strict=True)) for row in rows}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--write", action="store_true", help="replace bench/sizes.txt")
    write: bool = arguments.parse_args().write
    before, rows = committed(), {}
    for name in shipped.names():
        for precision in ("int8", "float32"):
            try:
                rows[f"{name}/{precision}"] = measure(name, precision)
            except BudgetError:
                print(f"{name}/{precision} does not fit a Cortex-M7")
    lines = [f"{'model':<24}" + "".join(f"{column:>12}" for column in COLUMNS)]
    lines += [f"{name:<24}" + "".join(f"{row[c]:>12}" for c in COLUMNS) for name, row in rows.items()]
    print("\n".join(lines))
    for name, row in rows.items():
        changes = [
            f"{c} {row[c] - before[name][c]:+d}" for c in COLUMNS if name in before and row[c] != before[name][c]
        ]
        if changes:
            print(f"{name}: {', '.join(changes)} since bench/sizes.txt")
    if write:
        COMMITTED.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
