"""Biases that depend on the place, as kernels for Cortex-M read them (runtime/cortex_m/edgec_zones.h)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgec.ops.base import Array, Op, Site
from edgec.ops.integer.conv import zone_deltas


@dataclass(frozen=True)
class Zones:
    """The zone of every row and column, and what the biases of each have more: int16 or int32 [row zones, column
    zones, O]."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    deltas: Array

    @property
    def name(self) -> str:
        """In the names of kernels."""
        return f"zones{8 * self.deltas.itemsize}"

    def turned(self) -> Zones:
        """Of an image whose columns are taken for rows."""
        return Zones(self.cols, self.rows, self.deltas.transpose(1, 0, 2))

    def ordered(self, outputs: Array, signs: Array) -> Zones:
        """Deltas of these outputs, each with its sign."""
        return replace(self, deltas=self.deltas[..., outputs] * signs.astype(self.deltas.dtype))

    def tables(self) -> dict[str, Array]:
        """What kernels read."""
        words = [self.deltas.shape[2], len(self.rows), len(self.cols), self.deltas.shape[1], *self.rows, *self.cols]
        return {"deltas": np.ascontiguousarray(self.deltas).reshape(-1), "zones": np.array(words, np.int16)}


def biases_of(op: Op, site: Site) -> tuple[Array, Zones | None] | None:
    """The biases [O] that lie with the weights, and what other zones than the first have more where there are any.
    None where the biases are not constant or too far apart."""
    bias, rows = site.consts.get(2), getattr(op, "row_zone", ())
    if bias is None or not rows:
        return None if bias is None else (bias, None)
    deltas = zone_deltas(bias)
    return None if deltas is None else (bias[0, 0], Zones(rows, getattr(op, "col_zone", ()), deltas))
