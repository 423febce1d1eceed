"""TVMScript text of the integer front end, QLogMel."""

from __future__ import annotations

from functools import partial
from math import gcd

import numpy as np

from edgec.ir.types import TensorType
from edgec.ops.base import Array, Kernel, indent
from edgec.ops.signal import tables
from edgec.ops.signal.front_end import IntegerFrontEnd
from edgec.ops.signal.tables import EMPHASIS
from edgec.ops.signal.text import (
    HELD,
    INTEGER,
    Layout,
    before,
    common_consts,
    copies,
    extern,
    fft_stages,
    first_stage,
    frame_loop,
    make_kernel,
    sample_text,
    scratch_elements,
    split_powers,
)

#: |re + i im|^2 as two words
STORE_POWER = """power[0] = T.cast({re}, "int64") * T.cast({re}, "int64")
power[0] = power[0] + T.cast({im}, "int64") * T.cast({im}, "int64")
z[{at}] = T.cast(power[0], "int32")
z[{at} + 1] = T.cast(T.shift_right(power[0], T.int64(32)), "int32")"""


def level(op: IntegerFrontEnd) -> list[str]:
    """Sum of the frame and its block exponent `e`; from the sum the mean's share `share[0]`, negative."""
    lines = [
        'total = T.alloc_buffer((1,), "int32")',
        'bits = T.alloc_buffer((1,), "int32")',
        'share = T.alloc_buffer((1,), "int32")',
        "total[0] = 0",
        "bits[0] = 0",
    ]
    if copies(op):
        lines += [
            f"for i in T.serial({op.frame}):",
            f"    v: T.let[T.int32] = {sample_text(op, 'i', 'int32')}",
            "    total[0] = total[0] + v",
            "    bits[0] = bits[0] | (v ^ (v + v))",
        ]
        packed = "bits[0]"
    else:  # two samples to a word; a carry from the low one reaches bit 0 of the high one, which does not count
        unroll = gcd(op.frame // 2, 8)
        lines += [
            f"for i in T.serial({op.frame // 2 // unroll}):",
            f"    for j in T.unroll({unroll}):",
            f"        v: T.let[T.int32] = {word(f'2 * (i * {unroll} + j)')}",
            f"        total[0] = {extern('smlad', 'v', '65537', 'total[0]')}",
            "        bits[0] = bits[0] | (v ^ T.shift_left(v, 1))",
        ]
        packed = "bits[0] | T.shift_right(bits[0], 16)"
    mean = f'T.cast(total[0], "int64") * T.int64({op.scales().mean}) + T.int64({1 << 29})'
    return [
        *lines,
        f"e: T.let[T.int32] = {extern('clz32', f'(({packed}) & 65535) | 1')} - 16",
        f'share[0] = 0 - T.cast(T.shift_right({mean}, T.int64(30)), "int32")',
    ]


def word(at: str) -> str:
    """Samples `at` and at + 1 in one word."""
    return extern("read_s16x2", f"T.address_of(x[start + {at}])")


def point(op: IntegerFrontEnd, at: str, first: bool) -> str:
    """A sample after mean removal and pre-emphasis, times 2^e."""
    if copies(op):
        pair = extern("pack", *(sample_text(op, place, "int32") for place in (before(at, first), at)))
    else:
        pair = word(f"{at} - 1")
        if first:
            alone = sample_text(op, at, "int32")
            pair = f"T.if_then_else({at} == 0, {extern('pack', alone, alone)}, {pair})"
    factors = (EMPHASIS << 16) | (-op.scales().preemphasis & 0xFFFF)
    return f"T.shift_left({extern('smlad', pair, str(factors), 'share[0]')}, e)"


SUMS = (("sums", 2, "uint64"), ("whole", 1, "int64"), ("below", 1, "int64"))


def energies_at(op: IntegerFrontEnd) -> int:
    """Where in the scratch buffer the mel energies begin, two words each."""
    return scratch_elements(op)


def filters(op: IntegerFrontEnd) -> list[str]:
    """Mel energies from the powers in z: one pass over the bins, which ends segment m where `bounds` says.

    Segments without bins before the first bin leave their filters' energies at 1; `bounds` is followed by a -1.
    """
    seg = op.segments()
    first, empty = 2 * seg.first, seg.bounds.count(0) - 1
    some_empty = any(a == b for a, b in zip(seg.bounds[empty:], seg.bounds[empty + 1 :], strict=False))
    at = f"{energies_at(op) - 2} + 2 * m[0]"
    clear = ["sums[0] = T.uint64(0)", "sums[1] = T.uint64(0)", "whole[0] = T.int64(0)"]
    finish = [
        "up: T.let[T.int64] = "
        'T.cast(T.shift_left(sums[1], T.uint64(16)) + T.shift_right(sums[0], T.uint64(16)), "int64")',
        "if m[0] > 0:",
        "    whole[0] = (below[0] + T.shift_right(whole[0], T.int64(1)) - up) | T.int64(1)",
        f'    z[{at}] = T.cast(whole[0], "int32")',
        f'    z[{at} + 1] = T.cast(T.shift_right(whole[0], T.int64(32)), "int32")',
        "below[0] = up",
        *clear,
        "m[0] = m[0] + 1",
        'end[0] = T.cast(bounds[m[0] + 1], "int32")',
    ]
    names = (*SUMS, ("m", 1, "int32"), ("end", 1, "int32"))
    silent = [f"z[{energies_at(op) + k}] = {1 - k % 2}" for k in range(2 * max(empty - 1, 0))]
    return [
        *silent,
        *(f'{name} = T.alloc_buffer(({size},), "{kind}")' for name, size, kind in names),
        *clear,
        "below[0] = T.int64(0)",
        f"m[0] = {empty}",
        f"end[0] = {seg.bounds[empty + 1]}",
        f"for i in T.serial({seg.bins}):",
        f'    lo: T.let[T.uint64] = T.cast(T.cast(z[2 * i + {first}], "uint32"), "uint64")',
        f'    hi: T.let[T.uint64] = T.cast(T.cast(z[2 * i + {first + 1}], "uint32"), "uint64")',
        '    w: T.let[T.uint64] = T.cast(T.cast(rising[i], "uint32"), "uint64")',
        "    sums[0] = sums[0] + lo * w",
        "    sums[1] = sums[1] + hi * w",
        '    whole[0] = whole[0] + T.cast(T.shift_left(hi, T.uint64(32)) | lo, "int64")',
        f"    {'while' if some_empty else 'if'} end[0] == i + 1:",
        *indent(indent(finish)),
    ]


def logarithms(op: IntegerFrontEnd) -> list[str]:
    """Features from the mel energies."""
    k, at, clamp = op.scales(), energies_at(op), "clamp_s8" if op.dtype == "int8" else "clamp_s16"
    body = [
        f"low: T.let[T.int32] = z[2 * i + {at}]",
        f"high: T.let[T.int32] = z[2 * i + {at + 1}]",
        "if high != 0:",
        f"    zeros[0] = {extern('clz32', 'high')}",
        '    top[0] = T.shift_left(T.cast(high, "uint32"), T.cast(zeros[0], "uint32"))'
        ' | T.shift_right(T.cast(low, "uint32"), T.cast(32 - zeros[0], "uint32"))',
        "else:",
        f"    zeros[0] = {extern('clz32', 'low')}",
        '    top[0] = T.shift_left(T.cast(low, "uint32"), T.cast(zeros[0], "uint32"))',
        "    zeros[0] = zeros[0] + 32",
        'at: T.let[T.int32] = T.cast(T.shift_right(top[0], T.uint32(25)), "int32") - 64',
        'rest: T.let[T.int32] = T.cast(T.shift_right(top[0], T.uint32(9)) & T.uint32(65535), "int32")',
        'base: T.let[T.int32] = T.cast(logs[at], "int32")',
        'step: T.let[T.int32] = T.cast(logs[at + 1], "int32") - base',
        "piece: T.let[T.int32] = base + T.shift_right(step * rest + 32768, 16)",
        f"log: T.let[T.int32] = T.max((63 - zeros[0]) * 32768 + piece - e * 65536, {k.floor})",
        f'scaled: T.let[T.int64] = T.cast(log, "int64") * T.int64({k.multiplier}) + T.int64({k.bias})',
        f'feature: T.let[T.int32] = T.cast(T.shift_right(scaled, T.int64({k.shift})), "int32")',
        f'y[f * {op.n_mels} + i] = T.cast({extern(clamp, "feature")}, "{op.dtype}")',
    ]
    names = (("top", "uint32"), ("zeros", "int32"))
    allocs = [f'{name} = T.alloc_buffer((1,), "{kind}")' for name, kind in names]
    return [*allocs, f"for i in T.serial({op.n_mels}):", *indent(body)]


def integer_kernel(
    op: IntegerFrontEnd, pcm: TensorType, out: TensorType, stages: list[str] | None = None, turns: Array | None = None
) -> Kernel:
    """QLogMel, the same integers as its reference. A core may bring its own text of the FFT's later stages, with turns
    int32 in the order it reads them."""
    m, half = INTEGER, op.n_fft // 2
    consts: dict[str, Array] = common_consts(op)
    consts["window"] = tables.integer_window(consts["window"], op.scales().spectrum).astype(np.int32)
    consts["turns"] = tables.q31(consts["turns"]).astype(np.int32) if turns is None else turns
    consts["halves"] = tables.q31(consts["halves"]).astype(np.int32)
    consts["rising"] = tables.q15(consts["rising"]).astype(np.int16)
    consts["logs"] = tables.log2_table().astype(np.int16)
    consts["bounds"] = np.append(consts["bounds"], np.int16(-1))  # ends the last segment's loop
    body = [
        HELD.format(kind=m.kind),
        'power = T.alloc_buffer((1,), "int64")',
        *level(op),
        *first_stage(m, Layout(op.frame, op.n_fft), partial(point, op)),
        *(fft_stages(m, half) if stages is None else stages),
        *split_powers(m, half, STORE_POWER),
        *filters(op),
        *logarithms(op),
    ]
    scratch = energies_at(op) + 2 * op.n_mels
    return make_kernel(op, pcm, out, m.kind, frame_loop(op, pcm, m.kind, body), consts, scratch)
