"""Which kernel computes a node: one table of rules per instruction set, then the op's own generic rule."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from edgec.errors import CodegenError
from edgec.ir.types import DType
from edgec.kernels import cuda, event, generic
from edgec.kernels.cortex_m import DSP, NARROW, SCALAR
from edgec.kernels.cortex_m.dense import requantize
from edgec.kernels.helium import HELIUM
from edgec.kernels.neon import NEON
from edgec.kernels.odd_outputs import apart, carried, settled
from edgec.kernels.rule import Rule, Table
from edgec.ops.base import Kernel, Op, Site
from edgec.ops.integer.conv import QConv1d, QConv2dRequantize
from edgec.ops.integer.linear import QLinear, QLinearRequantize
from edgec.ops.integer.requantize import Requantize
from edgec.ops.integer.spiking import QUnpack

GENERIC: Table = {
    QConv1d: (("event", event.unsigned), ("dense", generic.dense)),
    QLinear: (("event", event.unsigned), ("dense", generic.dense)),
    QLinearRequantize: (("dense", generic.dense_requantize),),
    QUnpack: (("unpack", event.unpack),),
    Requantize: (("requantize", requantize),),
}

#: instruction set -> op -> (variant, rule)
TABLES: Mapping[str, Table] = {
    "arm_dsp": DSP, "helium": HELIUM, "scalar": SCALAR, "generic": GENERIC, "cuda": cuda.CUDA, "neon": NEON,
}  # fmt: skip

#: the same for layers whose input or weights have fewer than 8 bits
FEW_BITS: Mapping[str, Table] = {"arm_dsp": NARROW}

#: variants that take a convolution's bias by zones
ZONED = {"rows_dsp", "windows_dsp", "rows", "windows", "linear_mve", "windows_mve"}


def rules_for(op: Op, site: Site, instruction_set: str) -> tuple[tuple[str, Rule], ...]:
    """The rules of an instruction set for an op: of a table of their own on fewer than 8 bits, fewer with zones."""
    tables = FEW_BITS if any(t.dtype.is_narrow for t in site.inputs) else TABLES
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
