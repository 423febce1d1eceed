"""Which kernel computes a node: one table of rules per instruction set, then the op's own generic rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgec.errors import CodegenError
from edgec.kernels import arm_dsp, conv_dsp, event, generic
from edgec.ops.base import Kernel, Op, Site
from edgec.ops.qconv import QConv2dRequantize
from edgec.ops.qspiking import QLif
from edgec.ops.quantized import QConv1d, QLinear, Requantize

Rule = Callable[[Op, Site], Kernel | None]

#: instruction set -> op -> (variant, rule); rules are tried in this order, one that does not fit the site returns None
TABLES: Mapping[str, Mapping[type[Op], tuple[tuple[str, Rule], ...]]] = {
    "arm_dsp": {
        QConv1d: (("event_dsp", event.signed), ("dense_dsp", arm_dsp.dense)),
        QConv2dRequantize: (("depthwise_dsp", conv_dsp.depthwise), ("conv_dsp", conv_dsp.convolution)),
        QLinear: (("event_dsp", event.signed), ("dense_dsp", arm_dsp.dense)),
        QLif: (("lif_dsp", arm_dsp.lif),),
        Requantize: (("requantize_dsp", arm_dsp.requantize),),
    },
    "generic": {
        QConv1d: (("event", event.unsigned), ("dense", generic.dense)),
        QLinear: (("event", event.unsigned), ("dense", generic.dense)),
        Requantize: (("requantize", arm_dsp.requantize),),
    },
}


def select(op: Op, site: Site, isa: tuple[str, ...]) -> tuple[str, Kernel]:
    """The name of the variant and its kernel: the first rule of the instruction sets, in their order, that fits."""
    for instruction_set in isa:
        for variant, rule in TABLES.get(instruction_set, {}).get(type(op), ()):
            kernel = rule(op, site)
            if kernel is not None:
                return variant, kernel
    if op.lower is None:
        known = ", ".join(sorted(name for name, table in TABLES.items() if type(op) in table)) or "none"
        raise CodegenError(
            f"{op.name} has no kernel for the instruction sets {', '.join(isa)}; sets with one: {known}",
            hint="make_streaming or quantize may have to replace this op first",
        )
    try:
        return "generic", op.lower(site)
    except ValueError as err:
        raise CodegenError(f"{op.name} cannot be lowered here: {err}") from err
