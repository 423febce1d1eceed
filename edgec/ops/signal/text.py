"""TVMScript text of the audio front end. One structure, two arithmetics: float32, and int32 with 64-bit energies.

A frame passes through one scratch buffer: windowed samples as complex numbers, FFT in place, powers in place of the
spectrum, then the filters. The first FFT stage, which has no twiddles, is fused with windowing; quarters of its input
that hold only the zeros behind the frame cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.ir.types import TensorType
from edgec.ops.base import Array, Kernel, indent
from edgec.ops.signal import tables
from edgec.ops.signal.front_end import FrontEnd
from edgec.signal_math import hann_window

Pair = tuple[str, str]  # real and imaginary part


def extern(name: str, *args: str) -> str:
    """A call of an edgec_ function that returns int32."""
    return f'T.call_extern("int32", "edgec_{name}", {", ".join(args)})'


@dataclass(frozen=True)
class Arithmetic:
    """Number format of samples and spectrum. The float one; `Integer` overrides what differs."""

    kind: str = "float32"
    gain: str = ""  # what doubles a product again

    def let(self, name: str, value: str) -> str:
        return f"{name}: T.let[T.{self.kind}] = {value}"

    def mul(self, a: str, b: str) -> str:
        return f"{a} * {b}"

    def half(self, a: str) -> str:
        return f"({a}) * T.float32(0.5)"

    def turn(self, name: str, x: Pair, c: str, s: str) -> list[str]:
        """name_r + i name_i = x * (c - i s), halved in integers."""
        re, im = x
        return [
            self.let(f"{name}c", c),
            self.let(f"{name}s", s),
            *self.turned(name, re, im),
        ]

    def turned(self, name: str, re: str, im: str) -> list[str]:
        return [
            self.let(f"{name}r", f"{re} * {name}c + {im} * {name}s"),
            self.let(f"{name}i", f"{im} * {name}c - {re} * {name}s"),
        ]

    def constant(self, value: float) -> str:
        return f"T.float32({value!r})"


@dataclass(frozen=True)
class Integer(Arithmetic):
    """int32 with Q31 twiddles; high words of products, rounded."""

    kind: str = "int32"
    gain: str = " * 2"

    def mul(self, a: str, b: str) -> str:
        return extern("smmulr", a, b)

    def half(self, a: str) -> str:
        return f"T.shift_right({a}, 1)"

    def turned(self, name: str, re: str, im: str) -> list[str]:
        c, s = f"{name}c", f"{name}s"
        return [
            self.let(f"{name}r", extern("smmlar", im, s, extern("smmulr", re, c))),
            self.let(f"{name}i", f"{extern('smmulr', im, c)} - {extern('smmulr', re, s)}"),
        ]

    def constant(self, value: float) -> str:
        return f"T.int32({int(value)})"


#: intermediate results; stored, because TVM would multiply variables out into the expressions that read them
HELD = 't = T.alloc_buffer((8,), "{kind}")'

FLOAT, INTEGER = Arithmetic(), Integer()


def store4(gain: str, at: Sequence[str]) -> list[str]:
    """Outputs of a radix-4 butterfly from t: a + c, a - c, then b + d, b - d, divided by the gain."""
    out = [
        (f"t[0] + t[4]{gain}", f"t[1] + t[5]{gain}"),
        (f"t[2] + t[7]{gain}", f"t[3] - t[6]{gain}"),
        (f"t[0] - t[4]{gain}", f"t[1] - t[5]{gain}"),
        (f"t[2] - t[7]{gain}", f"t[3] + t[6]{gain}"),
    ]
    return [f"z[{p} + {k}] = {pair[k]}" for p, pair in zip(at, out, strict=True) for k in range(2)]


def sum_difference(base: int, x: Pair, y: Pair, gain: str = "") -> list[str]:
    """x + y to t[base] and t[base + 1], x - y to the next two."""
    sums = [f"t[{base + k}] = {x[k]} + {y[k]}{gain}" for k in range(2)]
    return sums + [f"t[{base + 2 + k}] = {x[k]} - {y[k]}{gain}" for k in range(2)]


def fft_stages(m: Arithmetic, size: int) -> list[str]:
    """All stages after the first, in place on z; turns lie one stage after the other."""
    lines, table = [], 0
    for radix, span, angles in tables.stage_angles(size):
        lines += fft_stage(m, size // span, radix, span // radix, table)
        table += angles.size * 2
    return lines


def fft_stage(m: Arithmetic, groups: int, radix: int, sub: int, table: int) -> list[str]:
    """A stage whose turns begin at `table`. Operands are loaded as late as can be: registers are few."""
    at = [f"p + {2 * sub * k}" for k in range(radix)]

    def load(k: int) -> list[str]:
        name = "abcd"[k]
        return [m.let(f"{name}0", f"z[{at[k]}]"), m.let(f"{name}1", f"z[{at[k]} + 1]")]

    def turned(k: int) -> list[str]:
        name, twiddle = "abcd"[k], f"q + {table + 2 * k - 2}"
        return [*load(k), *m.turn(name, (f"{name}0", f"{name}1"), f"turns[{twiddle}]", f"turns[{twiddle} + 1]")]

    body = [f"p: T.let[T.int32] = g * {2 * radix * sub} + j * 2", f"q: T.let[T.int32] = j * {2 * radix - 2}"]
    if radix == 4:
        body += [*turned(1), *turned(3), *sum_difference(4, ("br", "bi"), ("dr", "di"))]
        body += [*turned(2), *load(0), *sum_difference(0, ("a0", "a1"), ("cr", "ci"), m.gain), *store4(m.gain, at)]
    else:
        body += [*turned(1), *load(0), *sum_difference(0, ("a0", "a1"), ("br", "bi"), m.gain)]
        body += [f"z[{at[k // 2]} + {k % 2}] = t[{k}]" for k in range(4)]
    return [f"for g in T.serial({groups}):", f"    for j in T.serial({sub}):", *indent(indent(body))]


def split_powers(m: Arithmetic, size: int, store: str) -> list[str]:
    """Powers of the real signal's bins in place of the half-size spectrum; `store` writes |re + i im|^2 to z[at]."""
    body = [
        m.let("ar", "z[2 * k]"), m.let("ai", "z[2 * k + 1]"),
        m.let("br", f"z[{2 * size} - 2 * k]"), m.let("bi", f"z[{2 * size + 1} - 2 * k]"),
        "t[0] = ai + bi", "t[1] = br - ar", "t[2] = ar + br", "t[3] = ai - bi",
        *m.turn("w", ("t[0]", "t[1]"), "halves[2 * k - 2]", "halves[2 * k - 1]"),
        f"t[4] = {m.half('t[2]')} + wr", f"t[5] = {m.half('t[3]')} + wi",
        f"t[6] = {m.half('t[2]')} - wr", f"t[7] = {m.half('t[3]')} - wi",
    ]  # fmt: skip
    body += store.format(re="t[4]", im="t[5]", at="2 * k").splitlines()
    body += store.format(re="t[6]", im="t[7]", at=f"{2 * size} - 2 * k").splitlines()
    middle = [
        f"t[0] = z[{size}]",
        f"t[1] = z[{size + 1}]",
        *store.format(re="t[0]", im="t[1]", at=str(size)).splitlines(),
    ]
    return [f"for k in T.serial(1, {size // 2}):", *indent(body), *middle]


@dataclass(frozen=True)
class Layout:
    """How a frame's samples meet the first stage: n_fft/2 complex inputs in four quarters."""

    frame: int
    n_fft: int

    @property
    def quarter(self) -> int:
        """Complex numbers per quarter."""
        return self.n_fft // 8

    @property
    def inputs(self) -> int:
        """Complex inputs that hold samples."""
        return -(-self.frame // 2)

    @property
    def direct(self) -> int:
        """Quarters that read the window from its start; the others read it mirrored, as it is symmetric."""
        if self.frame % 2:
            return 4
        return -(-self.frame // (4 * self.quarter))

    def window(self) -> Array:
        """The part of the window the kernel reads; an odd frame is followed by a zero."""
        whole = np.pad(hann_window(self.frame), (0, self.frame % 2))
        return whole[: min(len(whole), self.direct * 2 * self.quarter)]

    def window_at(self, quarter: int, odd: int) -> str:
        start = 2 * quarter * self.quarter + odd
        return f"window[2 * r + {start}]" if quarter < self.direct else f"window[{self.frame - 1 - start} - 2 * r]"

    def ranges(self) -> list[tuple[int, int, int]]:
        """(from, to, quarters that hold samples) of the loop over a quarter."""
        full, rest = divmod(self.inputs, self.quarter)
        pieces = [(0, rest, full + 1), (rest, self.quarter, full)]
        return [p for p in pieces if p[0] < p[1]]


def first_stage(m: Arithmetic, lay: Layout, point: Callable[[str, bool], str]) -> list[str]:
    """Pre-emphasis, window and the first radix-4 stage.

    `point` gives a sample after pre-emphasis; it is told whether the sample may be the first of the frame.
    """
    lines = []
    for low, high, count in lay.ranges():
        body = ['p: T.let[T.int32] = T.cast(order[r], "int32")']
        parts: list[Pair] = [(m.constant(0), m.constant(0))] * 4
        for k in range(count):
            start, names = 2 * k * lay.quarter, ("abcd"[k] + "0", "abcd"[k] + "1")
            for odd, name in enumerate(names):
                value = point(f"2 * r + {start + odd}", start + odd + low == 0)
                body.append(m.let(name, m.mul(f"({value})", lay.window_at(k, odd))))
            parts[k] = names
        a, b, c, d = parts
        body += [*sum_difference(0, a, c), *sum_difference(4, b, d), *store4("", [f"p + {2 * k}" for k in range(4)])]
        lines += [f"for r in T.serial({low}, {high}):", *indent(body)]
    return lines


def common_consts(op: FrontEnd) -> dict[str, Array]:
    """Tables both arithmetics have, as float64 except for indices."""
    half = op.n_fft // 2
    order = 2 * tables.positions(half)[: half // 4]
    turns = [tables.cos_sin(a).reshape(-1) for _, _, a in tables.stage_angles(half)]
    halves = tables.cos_sin(np.pi * np.arange(1, half // 2) / half).reshape(-1)
    return {
        "window": Layout(op.frame, op.n_fft).window(),
        "order": order.astype(np.int16),
        "turns": np.concatenate(turns),
        "halves": halves,
        "bounds": np.array(op.segments().bounds, np.int16),
        "rising": op.segments().rising,
    }


def frame_loop(op: FrontEnd, pcm: TensorType, kind: str, body: list[str]) -> str:
    """The body for every frame of every row; `start` is the frame's first sample, `f` its number."""
    batch, samples = pcm.shape
    frames = op.check(pcm, pcm.dtype)[1]
    left = op.frame - op.hop if op.padded else 0
    lines = [f"start: T.let[T.int32] = f // {frames} * {samples} + f % {frames} * {op.hop} - {left}"]
    if copies(op):
        at = f"f % {frames} * {op.hop} - {left} + i"
        inside = f"({at}) >= 0 and i < {op.frame}"
        value = f'T.if_then_else({inside}, T.cast(x[T.max(start + i, 0)], "{kind}"), T.{kind}(0))'
        lines += [f"for i in T.serial({op.frame + op.frame % 2}):", f"    z[{op.n_fft} + i] = {value}"]
    return "\n".join([f"for f in T.serial({batch * frames}):", *indent(lines + body)])


def copies(op: FrontEnd) -> bool:
    """Whether frames are copied to scratch first, for zeros around them."""
    return op.padded or op.frame % 2 == 1


def sample_text(op: FrontEnd, at: str, kind: str) -> str:
    """One sample of the frame."""
    if copies(op):
        return f"z[{at} + {op.n_fft}]"
    return f"x[start + {at}]" if kind == "float32" else f'T.cast(x[start + {at}], "int32")'


def before(at: str, first: bool) -> str:
    """Index of the sample before; the first is its own predecessor."""
    return f"T.max({at} - 1, 0)" if first else f"{at} - 1"


def scratch_elements(op: FrontEnd) -> int:
    """Spectrum, and the frame where it is copied."""
    return op.n_fft + (op.frame + op.frame % 2 if copies(op) else 0)


def make_kernel(
    op: FrontEnd, pcm: TensorType, out: TensorType, kind: str, body: str, consts: dict[str, Array], scratch: int
) -> Kernel:
    """Parameters in order: pcm, tables, features, scratch of as many elements."""
    params = [("x", (pcm.size,), pcm.dtype.value)]
    params += [(name, data.shape, data.dtype.name) for name, data in consts.items()]
    params += [("y", (out.size,), out.dtype.value), ("z", (scratch,), kind)]
    return Kernel(body, tuple(params), consts, scratch=4 * scratch)


def float_kernel(op: FrontEnd, pcm: TensorType, out: TensorType) -> Kernel:
    """LogMel in float32."""
    m, lay, seg = FLOAT, Layout(op.frame, op.n_fft), op.segments()
    consts = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in common_consts(op).items()}
    consts["halves"] = consts["halves"] * np.float32(0.5)

    def point(at: str, first: bool) -> str:
        now, old = (sample_text(op, place, m.kind) for place in (at, before(at, first)))
        return f"{now} - {old} * T.float32({op.preemphasis!r}) - mean"

    body = [
        HELD.format(kind=m.kind),
        'total = T.alloc_buffer((1,), "float32")',
        "total[0] = T.float32(0)",
        f"for i in T.serial({op.frame}):",
        f"    total[0] = total[0] + {sample_text(op, 'i', m.kind)}",
        m.let("mean", f"total[0] * T.float32({(1.0 - op.preemphasis) / op.frame!r})"),
        *first_stage(m, lay, point),
        *fft_stages(m, op.n_fft // 2),
        *split_powers(m, op.n_fft // 2, "z[{at}] = {re} * {re} + {im} * {im}"),
        'sums = T.alloc_buffer((2,), "float32")',
        'below = T.alloc_buffer((1,), "float32")',
        "below[0] = T.float32(0)",
        f"for m in T.serial({op.n_mels + 1}):",
        "    sums[0] = T.float32(0)",
        "    sums[1] = T.float32(0)",
        '    for i in T.serial(T.cast(bounds[m], "int32"), T.cast(bounds[m + 1], "int32")):',
        f"        power: T.let[T.float32] = z[2 * i + {2 * seg.first}]",
        "        part: T.let[T.float32] = power * rising[i]",
        "        sums[0] = sums[0] + part",
        "        sums[1] = sums[1] + (power - part)",
        "    if m > 0:",
        f"        energy: T.let[T.float32] = T.max(below[0] + sums[1], T.float32({op.floor!r}))",
        '        log: T.let[T.float32] = T.call_extern("float32", "edgec_logf", energy)',
        f"        y[f * {op.n_mels} + m - 1] = (log - T.float32({op.offset!r})) * T.float32({op.scale!r})",
        "    below[0] = sums[0]",
    ]
    return make_kernel(op, pcm, out, m.kind, frame_loop(op, pcm, m.kind, body), consts, scratch_elements(op))
