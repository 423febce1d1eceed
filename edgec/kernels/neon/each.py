"""Integer layers computed element by element, for 64-bit ARM cores (runtime/neon/edgec_neon_each.h)."""

from __future__ import annotations

from dataclasses import replace

from edgec.kernels.helium import each as helium_each
from edgec.ops.base import Kernel, Op, Site


def requantize(op: Op, site: Site) -> Kernel | None:
    """Row by row with the scales of channels, or all at once; rounded once."""
    kernel = helium_each.requantize(op, site)
    return kernel and replace(kernel, body=kernel.body.replace("edgec_mve_", "edgec_neon_"))
