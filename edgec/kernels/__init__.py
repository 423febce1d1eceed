"""Which kernel computes a node: one table of rules per instruction set, then the op's own generic rule."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from edgec.errors import CodegenError
from edgec.ir.types import DType
from edgec.kernels import (
    arm_dsp,
    conv_dsp,
    cuda,
    depth_dsp,
    event,
    generic,
    helium,
    helium_depth,
    helium_each,
    helium_mel,
    helium_product,
    helium_rows,
    narrow_dsp,
    neon,
    neon_each,
    neon_integer,
    neon_rows,
    packed_dsp,
    rows_dsp,
    softmax_dsp,
)
from edgec.kernels.lines import of_line
from edgec.kernels.odd_outputs import apart, carried, settled
from edgec.ops.activation import Softmax
from edgec.ops.base import Kernel, Op, Site
from edgec.ops.conv import Conv2d
from edgec.ops.dense import Linear, MatMul
from edgec.ops.elementwise import Add, Div, Gelu, Mul, Sub
from edgec.ops.norm import LayerNorm
from edgec.ops.qconv import QConv2d, QConv2dRequantize
from edgec.ops.qlinear import QLinear, QLinearRequantize
from edgec.ops.qnorm import QLayerNorm
from edgec.ops.qproduct import QMatMul, QMul
from edgec.ops.qsoftmax import QSoftmax
from edgec.ops.qspiking import QLif, QUnpack
from edgec.ops.quantized import QConv1d, QLut, Requantize
from edgec.ops.shape import Concat, Permute, Slice
from edgec.ops.signal import QLogMel
from edgec.ops.tflite import TfliteAdd, TfliteMul

Rule = Callable[[Op, Site], Kernel | None]

ROWS: tuple[tuple[str, Rule], ...] = (("rows_dsp", rows_dsp.linear), ("windows_dsp", rows_dsp.convolution))

SPIKES: tuple[tuple[str, Rule], ...] = (
    ("spikes_dsp", arm_dsp.dense_spikes), ("silence_dsp", event.silent), ("event_dsp", event.signed),
)  # fmt: skip
#: the same rules where the runtime's blocks are compiled without DSP instructions
PLAIN_ROWS: tuple[tuple[str, Rule], ...] = (("rows", rows_dsp.linear), ("windows", rows_dsp.convolution))

DENSE: tuple[tuple[str, Rule], ...] = (("dense_dsp", arm_dsp.dense), ("wide_dsp", arm_dsp.dense_wide))

SPIKES_MVE: tuple[tuple[str, Rule], ...] = (("spikes_mve", helium.spikes), ("linear_mve", helium.linear))

IMAGES_MVE: tuple[tuple[str, Rule], ...] = (("linear_mve", helium.linear), ("windows_mve", helium.convolution))

IMAGES_NEON: tuple[tuple[str, Rule], ...] = (
    ("dense_neon", neon_integer.linear), ("windows_neon", neon_integer.convolution),
)  # fmt: skip

#: instruction set -> op -> (variant, rule); rules are tried in this order, one that does not fit the site returns None
TABLES: Mapping[str, Mapping[type[Op], tuple[tuple[str, Rule], ...]]] = {
    "arm_dsp": {
        QConv1d: (*SPIKES, *DENSE, ("windows_dsp", of_line(rows_dsp.convolution))),
        QConv2d: ROWS,
        QConv2dRequantize: (
            *ROWS,
            ("depth_dsp", depth_dsp.image),
            ("depthwise_dsp", conv_dsp.depthwise),
            ("conv_dsp", conv_dsp.convolution),
        ),
        QLinear: (*SPIKES, ("rows_dsp", rows_dsp.linear), *DENSE),
        QLinearRequantize: (("rows_dsp", rows_dsp.linear), ("dense_dsp", arm_dsp.dense_requantize)),
        QLif: (("lif_dsp", arm_dsp.lif),),
        QMatMul: (("product_dsp", rows_dsp.product),),
        QSoftmax: (("softmax_dsp", softmax_dsp.softmax),),
        Requantize: (("requantize_dsp", arm_dsp.requantize),),
    },
    "helium": {
        QConv1d: (*SPIKES_MVE, ("windows_mve", of_line(helium.convolution))),
        QLinear: SPIKES_MVE,
        QLinearRequantize: (("linear_mve", helium.linear),),
        QConv2d: IMAGES_MVE,
        QConv2dRequantize: (*IMAGES_MVE, ("depth_mve", helium_depth.image)),
        QLayerNorm: (("norm_mve", helium_rows.layer_norm),),
        QLogMel: (("fft_mve", helium_mel.log_mel),),
        QLut: (("lut_mve", helium_each.lut),),
        QMatMul: (("product_mve", helium_product.product),),
        QMul: (("mul_mve", helium_each.mul),),
        QSoftmax: (("softmax_mve", helium_rows.softmax),),
        Requantize: (("requantize_mve", helium_each.requantize),),
        TfliteAdd: (("add_mve", helium_each.add),),
        TfliteMul: (("mul_mve", helium_each.mul),),
    },
    "scalar": {
        QConv1d: (("windows", of_line(rows_dsp.convolution)),),
        QConv2d: PLAIN_ROWS,
        QConv2dRequantize: (*PLAIN_ROWS, ("depth", depth_dsp.image)),
        QLinear: (("rows", rows_dsp.linear),),
        QLinearRequantize: (("rows", rows_dsp.linear),),
        QMatMul: (("product", rows_dsp.product),),
    },
    "generic": {
        QConv1d: (("event", event.unsigned), ("dense", generic.dense)),
        QLinear: (("event", event.unsigned), ("dense", generic.dense)),
        QLinearRequantize: (("dense", generic.dense_requantize),),
        QUnpack: (("unpack", event.unpack),),
        Requantize: (("requantize", arm_dsp.requantize),),
    },
    "cuda": {
        **dict.fromkeys((Add, Div, Mul, Sub), (("binary_cuda", cuda.binary),)),
        Concat: (("concat_cuda", cuda.concat),),
        Conv2d: (("conv_cuda", cuda.conv2d),),
        LayerNorm: (("layer_norm_cuda", cuda.layer_norm),),
        Linear: (("linear_cuda", cuda.linear),),
        MatMul: (("matmul_cuda", cuda.matmul),),
        Permute: (("permute_cuda", cuda.permute),),
        Slice: (("slice_cuda", cuda.cut),),
        Softmax: (("softmax_cuda", cuda.softmax),),
    },
    "neon": {
        Conv2d: (("conv_neon", neon.conv2d),),
        Gelu: (("gelu_neon", neon_rows.gelu),),
        LayerNorm: (("layer_norm_neon", neon_rows.layer_norm),),
        Linear: (("linear_neon", neon.linear),),
        MatMul: (("matmul_neon", neon.matmul),),
        QConv1d: (("dense_neon", neon_integer.linear), ("windows_neon", of_line(neon_integer.convolution))),
        QConv2d: IMAGES_NEON,
        QConv2dRequantize: (*IMAGES_NEON, ("depth_neon", neon_integer.depthwise)),
        QLinear: (("dense_neon", neon_integer.linear),),
        QLinearRequantize: (("dense_neon", neon_integer.linear),),
        Requantize: (("requantize_neon", neon_each.requantize),),
        Softmax: (("softmax_neon", neon_rows.softmax),),
    },
}

#: the same for layers whose input or weights have fewer than 8 bits
NARROW: Mapping[str, Mapping[type[Op], tuple[tuple[str, Rule], ...]]] = {
    "arm_dsp": {
        QConv1d: (("narrow_dsp", narrow_dsp.dense),),
        QConv2d: (("narrow_rows_dsp", narrow_dsp.rows),),
        QConv2dRequantize: (("packed_dsp", packed_dsp.product), ("narrow_rows_dsp", narrow_dsp.rows)),
        QLinear: (("narrow_rows_dsp", narrow_dsp.rows), ("narrow_dsp", narrow_dsp.dense)),
        QLinearRequantize: (
            ("packed_dsp", packed_dsp.product),
            ("narrow_rows_dsp", narrow_dsp.rows),
            ("narrow_dsp", narrow_dsp.dense_requantize),
        ),
    },
}


#: variants that take a convolution's bias by zones
ZONED = {"rows_dsp", "windows_dsp", "rows", "windows", "linear_mve", "windows_mve"}


def rules_for(op: Op, site: Site, instruction_set: str) -> tuple[tuple[str, Rule], ...]:
    """The rules of an instruction set for an op: of a table of their own on fewer than 8 bits, fewer with zones."""
    tables = NARROW if any(t.dtype.is_narrow for t in site.inputs) else TABLES
    rules = tables.get(instruction_set, {}).get(type(op), ())
    return tuple(r for r in rules if r[0] in ZONED) if getattr(op, "row_zone", ()) else rules


def takes_zones(isa: tuple[str, ...]) -> bool:
    """Whether convolutions keep their kernels when their bias gets zones; the generic ones take them too."""
    tables = (TABLES.get(s, {}).get(QConv2dRequantize, ()) for s in isa)
    first = next((rules for rules in tables if rules), ())
    return not first or any(variant in ZONED for variant, _ in first)


def in_bytes(op: Op, site: Site) -> tuple[Op, Site]:
    """The same where outputs of fewer than 8 bits are int8 with tighter bounds, which they are in memory."""
    if not any(t.dtype.is_narrow for t in site.outputs):
        return op, site
    outputs = tuple(replace(t, dtype=DType.I8) if t.dtype.is_narrow else t for t in site.outputs)
    changes: Any = {"dtype": "int8"}
    return replace(op, **changes), replace(site, outputs=outputs)


def of_set(op: Op, site: Site, instruction_set: str) -> Iterator[tuple[str, Kernel]]:
    """Every variant of an instruction set that fits the site; where none does, those that fit all but a few outputs,
    which are computed after the others."""
    rules, calm, found = rules_for(op, site, instruction_set), settled(op, site), False
    for variant, rule in rules:
        if (kernel := rule(op, calm)) is not None:
            found = True
            yield variant, carried(kernel, site, calm)
    for variant, rule in () if found else rules:
        if (kernel := apart(rule, op, calm)) is not None:
            yield variant, carried(kernel, site, calm)


def candidates(op: Op, site: Site, isa: tuple[str, ...]) -> list[tuple[str, Kernel]]:
    """Every variant that fits the site, in the order `select` tries them: all give the same bytes."""
    op, site = in_bytes(op, site)
    found = [pair for s in isa for pair in of_set(op, site, s)]
    if op.lower is not None:
        with contextlib.suppress(ValueError):
            found.append(("generic", op.lower(site)))
    return found


def select(op: Op, site: Site, isa: tuple[str, ...]) -> tuple[str, Kernel]:
    """The name of the variant and its kernel: the first rule of the instruction sets, in their order, that fits.

    Layers on fewer than 8 bits have rules of their own.
    """
    op, site = in_bytes(op, site)
    for instruction_set in isa:
        for pair in of_set(op, site, instruction_set):
            return pair
    if op.lower is None:
        known = ", ".join(sorted(name for name in TABLES if rules_for(op, site, name))) or "none"
        raise CodegenError(
            f"{op.name} has no kernel for the instruction sets {', '.join(isa)}; sets with one: {known}",
            hint="make_streaming or quantize may have to replace this op first",
        )
    try:
        return "generic", op.lower(site)
    except ValueError as err:
        raise CodegenError(f"{op.name} cannot be lowered here: {err}") from err
