"""Sums over windows: the loops of every kernel that has no hand-shaped form, for floats and integers.

Neighbouring outputs are computed a block at a time, their sums in registers; memory is read in the order it lies in;
a window's loops end where the input ends, so that no element is tested for padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgec.ops.base import Site, indent

#: how many sums of a type fit the registers of every core, beside what they are computed from
REGISTERS = {"float32": 8, "int32": 6, "int64": 2}
ROWS = 3  # of a matrix that are read at a time: compilers for vectors would gather more, which is slow
EDGE = 4  # sums of a block where few are needed
FEW = 2  # sums for which a compiler chooses by itself how often to copy a loop
PRODUCTS = 8  # of one turn of a loop in machine code: more would cost flash and save little
Loops = Sequence[tuple[str, int]]  # names and extents


def head(name: str, span: int | str, turns: int, order: str = "serial") -> str:
    """The head of a loop, of which so many turns are one in machine code; 0 leaves that to the compiler."""
    how = f', annotations={{"unroll": {turns}}}' if turns and str(span) != "1" else ""
    return f"for {name} in T.{order}({span}{how}):"


def nest(loops: Loops, lines: Sequence[str], turns: int = 1, order: str = "parallel") -> list[str]:
    """Lines in loops, the first outermost: `parallel` ones may run in any order, `serial` ones share scratch memory."""
    for name, extent in reversed(loops):
        lines = [head(name, extent, turns, order), *indent(lines)]
    return list(lines)


@dataclass(frozen=True)
class Sum:
    """How outputs accumulate. `start`, `update`, `store`: text for output {o} in sum {acc}; `loops`: names and ranges
    of the loops over what is summed, `before`: lines that these need; `shared`: what the updates of a block have in
    common, bound once; `after`: statements for each output {o} once it is stored; `free`: with so many sums the
    compiler decides how often it copies a loop."""

    kind: str
    start: str
    update: str
    store: str
    loops: Sequence[tuple[str, str]]
    shared: Sequence[str] = ()
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    free: int = FEW

    def lines(self, first: str, count: int) -> list[str]:
        """Of one block of outputs."""
        sums = [{"o": f"({first} + {j})", "acc": f"acc{j}[0]"} for j in range(count)]
        inner = [*self.shared, *(f"{s['acc']} = {self.update.format(**s)}" for s in sums)]
        turns = -(-PRODUCTS // count) if count > self.free else 0
        for name, span in reversed(self.loops):
            inner = [head(name, span, turns), *indent(inner)]
            turns = min(turns, 1)
        lines = [
            *self.before,
            *(f'acc{j} = T.alloc_buffer((1,), "{self.kind}")' for j in range(count)),
            *(f"{s['acc']} = {self.start.format(**s)}" for s in sums),
            *inner,
            *(self.store.format(**s) for s in sums),
        ]
        if self.after:
            lines += [f"for each in T.serial({count}):", *indent([s.format(o=f"({first} + each)") for s in self.after])]
        return lines

    def in_memory(self, outputs: int, total: str) -> list[str]:
        """The same with the sums in a buffer, the loop over outputs innermost, of which compilers make vectors."""
        names = {"o": "o", "acc": f"{total}[o]"}
        each = [head("o", outputs, 0)]
        inner = [*each, *indent([f"{total}[o] = {self.update.format(**names)}"])]
        for name, span in reversed(self.loops):
            inner = [head(name, span, 0), *indent(inner)]
        first = [*each, *indent([f"{total}[o] = {self.start.format(**names)}"])]
        return [*first, *inner, *each, *indent([self.store.format(**names)])]

    def blocks(
        self, outputs: int, most: int = 0, outer: Loops = (), inner: Loops = (), base: str = "", step: int = 1
    ) -> list[str]:
        """Loops over `outer`, blocks of at most so many outputs (as many as there are registers for) and `inner`; then
        the same for the outputs that fill no block. The blocks are about equally large, multiples of `step`; `base` is
        added to {o}."""
        most = (most or REGISTERS[self.kind]) // step * step
        size = -(-outputs // -(-outputs // most) // step) * step
        (full, rest), turns = divmod(outputs, size), int(size > self.free)
        whole = [*outer, ("block", full), *inner]
        lines = nest(whole, self.lines(f"{base}block * {size}", size), turns) if full else []
        return lines + (nest([*outer, *inner], self.lines(f"{base}{full * size}", rest), turns) if rest else [])


@dataclass(frozen=True)
class Axis:
    """An axis that a window slides along: input and output positions, the window's taps, the steps between windows and
    between taps, and positions of padding before the first input."""

    extent: int
    outputs: int
    taps: int
    stride: int = 1
    before: int = 0
    dilation: int = 1

    inside: bool = False  # only windows that reach into no padding are meant

    @property
    def clipped(self) -> bool:
        """Whether some window reaches into padding."""
        if self.inside:
            return False
        last = (self.outputs - 1) * self.stride - self.before + self.dilation * (self.taps - 1)
        return self.before > 0 or last >= self.extent

    def at(self, output: str, tap: str) -> str:
        """The input that a tap of an output's window reads."""
        return f"({output} * {self.stride} + {tap} * {self.dilation} - {self.before})"

    def test(self, output: str) -> str:
        """Whether an output's window reaches into no padding."""
        first = -(-self.before // self.stride)
        last = (self.extent - 1 - self.dilation * (self.taps - 1) + self.before) // self.stride
        if first > last:  # nowhere, in words that no compiler takes for a slip
            return f"{output} < 0"
        return f"{output} >= {first} and {output} <= {last}"

    def bounds(self, output: str) -> tuple[str, str]:
        """The taps [first, last) of an output's window that lie on inputs; first >= last where none does."""

        def taps_before(position: str) -> str:
            inside = f"T.max({position} - {output} * {self.stride}, 0)"
            return inside if self.dilation == 1 else f"({inside} + {self.dilation - 1}) // {self.dilation}"

        return taps_before(str(self.before)), f"T.min({taps_before(str(self.extent + self.before))}, {self.taps})"


@dataclass(frozen=True)
class Window:
    """A window over rows and columns of inputs [batch, rows.extent, cols.extent, channels]; a sequence has one row.
    Outputs are at (n, i, j)."""

    batch: int
    rows: Axis
    cols: Axis
    channels: int

    @property
    def positions(self) -> Loops:
        """Loops over the outputs' positions."""
        return ("n", self.batch), ("i", self.rows.outputs), ("j", self.cols.outputs)

    @property
    def count(self) -> int:
        """How many outputs each channel has."""
        return self.batch * self.rows.outputs * self.cols.outputs

    @property
    def position(self) -> str:
        """The number of output (n, i, j)."""
        return f"(n * {self.rows.outputs} + i) * {self.cols.outputs} + j"

    @property
    def x_shape(self) -> tuple[int, int]:
        """The inputs by rows."""
        return self.batch * self.rows.extent, self.cols.extent * self.channels

    @property
    def clipped(self) -> bool:
        """Whether some window reaches into padding."""
        return self.rows.clipped or self.cols.clipped

    @property
    def whole(self) -> Window:
        """The same at positions whose windows reach into no padding."""
        return replace(self, rows=replace(self.rows, inside=True), cols=replace(self.cols, inside=True))

    @property
    def limits(self) -> list[str]:
        """Lines that bind what `span` needs of a position."""
        lines = []
        for axis, output, names in ((self.rows, "i", ("top", "bottom")), (self.cols, "j", ("left", "right"))):
            if axis.clipped:
                for name, bound in zip(names, axis.bounds(output), strict=True):
                    lines += [f'{name} = T.alloc_buffer((1,), "int32")', f"{name}[0] = {bound}"]
        return lines

    def span(self, axis: Axis, each: int = 1) -> str:
        """The range of a loop over the taps of an axis that lie on inputs, `each` to a tap."""
        if not axis.clipped:
            return str(axis.taps * each)
        first, last = ("top[0]", "bottom[0]") if axis is self.rows else ("left[0]", "right[0]")
        return f"{first} * {each}, {last} * {each}"

    @property
    def inside(self) -> str:
        """How many taps of a position's window lie on inputs."""
        rows = "(bottom[0] - top[0])" if self.rows.clipped else str(self.rows.taps)
        cols = "(right[0] - left[0])" if self.cols.clipped else str(self.cols.taps)
        return f"T.max({rows}, 0) * T.max({cols}, 0)"


def window_of(
    site: Site, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int], dilation: Sequence[int] = (1, 1)
) -> Window:
    """Of an op from x [B,H,W,C] to [B,H',W',O] with padding (top, bottom, left, right)."""
    x, y = site.inputs[0].shape, site.outputs[0].shape
    rows, cols = (Axis(x[k + 1], y[k + 1], kernel[k], stride[k], pad[2 * k], dilation[k]) for k in range(2))
    return Window(x[0], rows, cols, x[3])


def line_of(batch: int, frames: Axis, channels: int) -> Window:
    """Of an op on [B,T,C]: an image of one row."""
    return Window(batch, Axis(1, 1, 1), frames, channels)


def apart(window: Window, outputs: int, sum_of: Callable[[Window], Sum]) -> list[str]:
    """All outputs at one position where each has inputs of its own: one by one where the whole window lies on inputs,
    as its loops are of constant length; else by blocks, which share the bounds of these."""
    edge = [*window.limits, *replace(sum_of(window), free=0).blocks(outputs, EDGE)]
    whole = sum_of(window.whole).blocks(outputs, 1)
    if not window.clipped:
        return whole
    test = " and ".join(axis.test(output) for axis, output in ((window.rows, "i"), (window.cols, "j")) if axis.clipped)
    return [f"if {test}:", *indent(whole), "else:", *indent(edge)]


@dataclass(frozen=True)
class Filter:
    """A convolution's sums over a window: weights [KH,KW,C/groups,O]. `element`: text of the input in {row} (of all the
    batch's) and {col}, channel {c}; `weight`: of weight {k} = (column, channel) in filter row p of output {o}. `flat`:
    the channels of a row's positions lie one after another. A block begins at a multiple of `step`."""

    window: Window
    weights: tuple[int, int, int, int]
    groups: int
    element: str
    weight: str
    flat: bool = True
    step: int = 1

    def loops(self, w: Window) -> tuple[list[tuple[str, str]], str, str]:
        """The loops over a window, and text of an input and a weight in them."""
        _, kw, inputs, outputs = self.weights
        row = f"n * {w.rows.extent} + {w.rows.at('i', 'p')}"
        loops = [("p", w.span(w.rows))]
        if self.flat and self.groups == 1 and (kw == 1 or w.cols.dilation == 1):
            loops.append(("k", w.span(w.cols, inputs)))
            return loops, self.element.format(row=row, col=w.cols.at("j", "0"), c="k"), self.weight.replace("{k}", "k")
        group = "{o}" if outputs == self.groups else "g"
        channel = "c" if self.groups == 1 else f"{group} * {inputs} + c"
        loops += [("q", w.span(w.cols)), ("c", str(inputs))]
        x = self.element.format(row=row, col=w.cols.at("j", "q"), c=channel)
        return loops, x, self.weight.replace("{k}", f"q * {inputs} + c")

    def sum(self, window: Window, kind: str, start: str, store: str, after: Sequence[str] = ()) -> Sum:
        """Of outputs {o}; each is stored as {acc}."""
        loops, x, weight = self.loops(window)
        shared = [] if "{o}" in x else [f"xi: T.let[T.{kind}] = {x}"]
        update = f"{{acc}} + {'xi' if shared else x} * {weight}"
        return Sum(kind, start, update, store, loops, shared, after=after)

    def _shared(self, sums: Sum, inner: Loops = ()) -> list[str]:
        """Loops over groups, blocks of a group's outputs and `inner`."""
        each = self.weights[3] // self.groups
        if self.groups == 1:
            return sums.blocks(each, step=self.step, inner=inner)
        return sums.blocks(each, step=self.step, outer=[("g", self.groups)], inner=inner, base=f"g * {each} + ")

    @property
    def _apart(self) -> bool:
        """Whether every output has inputs of its own."""
        return self.weights[3] == self.groups > 1

    def nest(self, kind: str, start: str, store: str, after: Sequence[str] = ()) -> list[str]:
        """Loops over all outputs, those over positions innermost: the weights of a block stay at hand."""
        sums, positions = self.sum(self.window, kind, start, store, after), self.window.positions
        if not self._apart:
            return self._shared(replace(sums, before=self.window.limits), positions)
        if not self.window.clipped:
            return sums.blocks(self.groups, 1, inner=positions)
        return nest(positions, apart(self.window, self.groups, lambda w: self.sum(w, kind, start, store, after)))

    def nest_by_position(self, kind: str, start: str, store: str, finish: Sequence[str]) -> list[str]:
        """Loops over positions around all outputs of one, then the lines that finish these."""
        if self._apart:
            lines = apart(self.window, self.groups, lambda w: self.sum(w, kind, start, store))
            return nest(self.window.positions, [*lines, *finish], int(self.window.clipped), "serial")
        lines = [*self.window.limits, *self._shared(self.sum(self.window, kind, start, store))]
        return nest(self.window.positions, [*lines, *finish], order="serial")
