"""Kernel rules for 64-bit ARM cores; their C is in runtime/neon/."""

from __future__ import annotations

from edgec.kernels.lines import of_line
from edgec.kernels.neon import each, float32, integer, rows
from edgec.kernels.rule import Table, Variants
from edgec.ops.activation import Softmax
from edgec.ops.conv import Conv2d
from edgec.ops.dense import Linear, MatMul
from edgec.ops.elementwise import Gelu
from edgec.ops.integer.conv import QConv1d, QConv2d, QConv2dRequantize
from edgec.ops.integer.linear import QLinear, QLinearRequantize
from edgec.ops.integer.requantize import Requantize
from edgec.ops.norm import LayerNorm

IMAGES: Variants = (("dense_neon", integer.linear), ("windows_neon", integer.convolution))

NEON: Table = {
    Conv2d: (("conv_neon", float32.conv2d),),
    Gelu: (("gelu_neon", rows.gelu),),
    LayerNorm: (("layer_norm_neon", rows.layer_norm),),
    Linear: (("linear_neon", float32.linear),),
    MatMul: (("matmul_neon", float32.matmul),),
    QConv1d: (("dense_neon", integer.linear), ("windows_neon", of_line(integer.convolution))),
    QConv2d: IMAGES,
    QConv2dRequantize: (*IMAGES, ("depth_neon", integer.depthwise)),
    QLinear: (("dense_neon", integer.linear),),
    QLinearRequantize: (("dense_neon", integer.linear),),
    Requantize: (("requantize_neon", each.requantize),),
    Softmax: (("softmax_neon", rows.softmax),),
}
