"""The integer front end for cores with Helium: stages of its FFT (runtime/helium/edgec_mve_fft.h)."""

from __future__ import annotations

import numpy as np

from edgec.ops.base import Array, Kernel, Op, Site
from edgec.ops.signal import tables
from edgec.ops.signal.log_mel import QLogMel
from edgec.ops.signal.text import INTEGER, fft_stage
from edgec.ops.signal.text_int import integer_kernel

LANES = 4
PARTS = (1, 3, 2)  # of a butterfly, in the order they are turned


def log_mel(op: Op, site: Site) -> Kernel:
    """Four butterflies of radix 4 at a time; a last stage of radix 2 stays as it is."""
    assert isinstance(op, QLogMel)
    lines: list[str] = []
    turns: list[Array] = []
    half, at = op.n_fft // 2, 0
    for radix, span, angles in tables.stage_angles(half):
        groups, sub = half // span, span // radix
        table = tables.q31(tables.cos_sin(angles))  # [sub, radix - 1, 2]
        if radix == 4:
            operands = f"z.data, T.address_of(turns[{at}]), {groups}, {sub}"
            lines.append(f'T.call_extern("void", "edgec_mve_fft_stage4", {operands})')
            parts = table[:, [k - 1 for k in PARTS]].reshape(sub // LANES, LANES, len(PARTS) * 2)
            table = parts.transpose(0, 2, 1)
        else:
            lines += fft_stage(INTEGER, groups, radix, sub, at)
        turns.append(table.reshape(-1).astype(np.int32))
        at += table.size
    return integer_kernel(op, site.inputs[0], site.outputs[0], lines, np.concatenate(turns))
