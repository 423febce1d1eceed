"""ETTh1 with the usual split of the forecasting literature: 12, 4 and 4 months of hourly rows, seven channels.

The data are CC BY-ND 4.0 (Zhou et al., AAAI 2021): read from the user's own copy, never shipped.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

CHANNELS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
MONTH = 30 * 24
BORDERS = {"train": (0, 12 * MONTH), "val": (12 * MONTH, 16 * MONTH), "test": (16 * MONTH, 20 * MONTH)}


@dataclass(frozen=True)
class Series:
    """Standardised rows of ETTh1. values [rows,7] float32; mean, std [7]: of the train split, in the file's units."""

    values: Tensor
    mean: Tensor
    std: Tensor

    def split(self, name: str, context: int) -> Tensor:
        """Rows of one split, with the `context` rows before it that its first forecast needs: [rows,7]."""
        first, last = BORDERS[name]
        return self.values[max(0, first - context) : last]


def load_series(path: Path) -> Series:
    """Read ETTh1.csv; ValueError for another header, too few rows, or a value that is no finite number."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    header = tuple(rows[0]) if rows else ()
    if header != ("date", *CHANNELS):
        raise ValueError(f"{path}: expected the columns date,{','.join(CHANNELS)}, found {','.join(header[:9])!r}")
    needed = BORDERS["test"][1]
    if len(rows) <= needed:
        raise ValueError(f"{path}: expected at least {needed} hourly rows, found {len(rows) - 1}")
    try:
        raw = torch.from_numpy(np.array([row[1:] for row in rows[1 : needed + 1]], np.float64))
    except ValueError as err:
        raise ValueError(f"{path}: every row must hold a date and seven numbers: {err}") from err
    if not bool(raw.isfinite().all()):
        line = int((~raw.isfinite()).any(1).nonzero()[0]) + 2
        raise ValueError(f"{path}: line {line} holds a value that is not finite")
    train = raw[: BORDERS["train"][1]]
    mean, std = train.mean(0), train.std(0, correction=0)
    return Series(((raw - mean) / std).float(), mean.float(), std.float())


def windows(rows: Tensor, length: int, stride: int = 1) -> Tensor:
    """Every window of the rows. rows: [T,C] -> [windows,length,C], a view."""
    return rows.unfold(0, length, stride).transpose(1, 2)
