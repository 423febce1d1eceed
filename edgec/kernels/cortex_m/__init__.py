"""Kernel rules for Cortex-M, with DSP instructions and without; their C is in runtime/cortex_m/."""

from __future__ import annotations

from edgec.kernels import event
from edgec.kernels.cortex_m import conv, dense, depth, narrow, packed, rows, softmax
from edgec.kernels.lines import of_line
from edgec.kernels.rule import Table, Variants
from edgec.ops.integer.conv import QConv1d, QConv2d, QConv2dRequantize
from edgec.ops.integer.linear import QLinear, QLinearRequantize
from edgec.ops.integer.product import QMatMul
from edgec.ops.integer.requantize import Requantize
from edgec.ops.integer.softmax import QSoftmax
from edgec.ops.integer.spiking import QLif

ROWS: Variants = (("rows_dsp", rows.linear), ("windows_dsp", rows.convolution))

SPIKES: Variants = (("spikes_dsp", dense.dense_spikes), ("silence_dsp", event.silent), ("event_dsp", event.signed))

#: the same rules where the runtime's blocks are compiled without DSP instructions
PLAIN_ROWS: Variants = (("rows", rows.linear), ("windows", rows.convolution))

DENSE: Variants = (("dense_dsp", dense.dense), ("wide_dsp", dense.dense_wide))

DSP: Table = {
    QConv1d: (*SPIKES, *DENSE, ("windows_dsp", of_line(rows.convolution))),
    QConv2d: ROWS,
    QConv2dRequantize: (
        *ROWS,
        ("depth_dsp", depth.image),
        ("depthwise_dsp", conv.depthwise),
        ("conv_dsp", conv.convolution),
    ),
    QLinear: (*SPIKES, ("rows_dsp", rows.linear), *DENSE),
    QLinearRequantize: (("rows_dsp", rows.linear), ("dense_dsp", dense.dense_requantize)),
    QLif: (("lif_dsp", dense.lif),),
    QMatMul: (("product_dsp", rows.product),),
    QSoftmax: (("softmax_dsp", softmax.softmax),),
    Requantize: (("requantize_dsp", dense.requantize),),
}

#: the same for layers whose input or weights have fewer than 8 bits
NARROW: Table = {
    QConv1d: (("narrow_dsp", narrow.dense),),
    QConv2d: (("narrow_rows_dsp", narrow.rows),),
    QConv2dRequantize: (("packed_dsp", packed.product), ("narrow_rows_dsp", narrow.rows)),
    QLinear: (("narrow_rows_dsp", narrow.rows), ("narrow_dsp", narrow.dense)),
    QLinearRequantize: (
        ("packed_dsp", packed.product),
        ("narrow_rows_dsp", narrow.rows),
        ("narrow_dsp", narrow.dense_requantize),
    ),
}

SCALAR: Table = {
    QConv1d: (("windows", of_line(rows.convolution)),),
    QConv2d: PLAIN_ROWS,
    QConv2dRequantize: (*PLAIN_ROWS, ("depth", depth.image)),
    QLinear: (("rows", rows.linear),),
    QLinearRequantize: (("rows", rows.linear),),
    QMatMul: (("product", rows.product),),
}
