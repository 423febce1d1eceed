"""Kernel rules for Cortex-M with Helium; their C is in runtime/helium/."""

from __future__ import annotations

from edgec.kernels.helium import depth, each, image, mel, product, rows
from edgec.kernels.lines import of_line
from edgec.kernels.rule import Table, Variants
from edgec.ops.integer.conv import QConv1d, QConv2d, QConv2dRequantize
from edgec.ops.integer.linear import QLinear, QLinearRequantize
from edgec.ops.integer.norm import QLayerNorm
from edgec.ops.integer.pool import QAvgPool2d, QMaxPool2d
from edgec.ops.integer.product import QMatMul, QMul
from edgec.ops.integer.requantize import QLut, Requantize
from edgec.ops.integer.softmax import QSoftmax
from edgec.ops.integer.tflite import TfliteAdd, TfliteAvgPool2d, TfliteMul
from edgec.ops.signal.log_mel import QLogMel

SPIKES: Variants = (("spikes_mve", image.spikes), ("linear_mve", image.linear))

IMAGES: Variants = (("linear_mve", image.linear), ("windows_mve", image.convolution))

HELIUM: Table = {
    QAvgPool2d: (("pool_mve", each.pool),),
    QConv1d: (*SPIKES, ("windows_mve", of_line(image.convolution))),
    QLinear: SPIKES,
    QLinearRequantize: (("linear_mve", image.linear),),
    QConv2d: IMAGES,
    QConv2dRequantize: (*IMAGES, ("depth_mve", depth.image)),
    QLayerNorm: (("norm_mve", rows.layer_norm),),
    QLogMel: (("fft_mve", mel.log_mel),),
    QLut: (("lut_mve", each.lut),),
    QMatMul: (("product_mve", product.product),),
    QMaxPool2d: (("pool_mve", each.pool),),
    QMul: (("mul_mve", each.mul),),
    QSoftmax: (("softmax_mve", rows.softmax),),
    Requantize: (("requantize_mve", each.requantize),),
    TfliteAdd: (("add_mve", each.add),),
    TfliteAvgPool2d: (("pool_mve", each.pool),),
    TfliteMul: (("mul_mve", each.mul),),
}
