"""A compiled model's folder, seen from Python: the very C that ships, called frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from edgec.device import Device, default_kind, open_device
from edgec.errors import InputError, VerifyError
from edgec.files import as_array, read_arrays, read_table, read_text
from edgec.guard import guarded_methods
from edgec.ir.graph import Graph
from edgec.ir.text import parse_graph
from edgec.ir.verify import verify
from edgec.options import Options
from edgec.schema import checked
from edgec.signal_math import PCM_SCALE
from edgec.toolchain.checksums import as_changed, check_sums
from edgec.toolchain.manifest import AGAIN, MANIFEST, Manifest, TensorSpec, read_manifest

Array = np.ndarray[Any, np.dtype[Any]]
#: what goes in: an array for each input in order, or all of them by name; the only input's array as it is
Inputs = Array | Sequence[Any] | Mapping[str, Any]
#: what comes out: the only output's array, or where there are several a dict of each by its name
Outputs = Any


def to_device(x: Array, spec: TensorSpec) -> Array:
    """One frame, of the spec's shape or flat, in the device's numbers.

    Its own type passes as it is; real values are scaled, rounded and clamped for an integer device; int16 samples for a
    float device are PCM and become [-1,1). InputError for another shape or type, NaN, or values far outside the range.
    """
    x, wanted = np.asarray(x), np.dtype(spec.dtype)
    if x.size != int(np.prod(spec.shape)) or (x.ndim > 1 and long_axes(x.shape) != long_axes(spec.shape)):
        raise InputError(
            f"input {spec.name!r}: expected {spec.dtype}{list(spec.shape)}, found {x.dtype}{list(x.shape)}"
        )
    if x.dtype == wanted and x.dtype.kind in "iub":
        return x.reshape(spec.shape)
    if wanted.kind in "iub" and spec.scale is None:
        return as_data(x, spec).reshape(spec.shape)
    takes_pcm = wanted.kind == "f" and len(long_axes(spec.shape)) == 1  # a row of samples; pixels are never PCM
    if takes_pcm and x.dtype == np.int16:
        x = x * np.float32(PCM_SCALE)
    if x.dtype.kind != "f":
        expected = "real values or int16 PCM" if takes_pcm else f"{spec.dtype} or real values"
        raise InputError(
            f"input {spec.name!r}: expected {expected}, found {x.dtype}",
            hint="scale pixels or samples as the training data was, then pass float32",
        )
    if not np.isfinite(x).all():
        raise InputError(f"input {spec.name!r}: expected finite values, found NaN or infinity")
    return (quantised(x, spec) if wanted.kind in "iu" else x.astype(wanted)).reshape(spec.shape)


def as_data(x: Array, spec: TensorSpec) -> Array:
    """Whole numbers, or truth values, in the type of an input that is no quantised one: int64, as torch has them, are
    int32 on a device. InputError where one does not fit."""
    wanted = np.dtype(spec.dtype)
    fits = x.dtype.kind in ("b" if wanted.kind == "b" else "iub")
    low, high = (0, 1) if wanted.kind == "b" else (int(np.iinfo(wanted).min), int(np.iinfo(wanted).max))
    if not fits or int(x.min()) < low or int(x.max()) > high:
        found = f" in [{x.min()}, {x.max()}]" if fits else ""
        raise InputError(f"input {spec.name!r}: expected {spec.dtype}, found {x.dtype}{found}")
    return x.astype(wanted)


def long_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its axes of length 1."""
    return tuple(n for n in shape if n != 1)


def quantised(x: Array, spec: TensorSpec) -> Array:
    """Real values as the integers of a spec. A little outside the range they saturate; by more than its width, they
    are in another unit: InputError."""
    info, scale, zero = np.iinfo(spec.dtype), spec.scale or 1.0, spec.zero_point or 0
    lo, hi = (info.min - zero) * scale, (info.max - zero) * scale
    least, most = float(x.min()), float(x.max())
    if max(lo - least, most - hi) > hi - lo:
        raise InputError(
            f"input {spec.name!r}: expected values in [{lo:.4g}, {hi:.4g}], found [{least:.4g}, {most:.4g}]",
            hint="scale the input as the training data was",
        )
    return np.clip(np.round(x / scale) + zero, info.min, info.max).astype(spec.dtype)


def to_real(x: Array, spec: TensorSpec) -> Array:
    """An output in real values, float32: of spikes 0 or 1 each. Data, an index or a truth value, stays as it is."""
    if spec.spikes is not None and x.dtype == np.uint32:
        octets = np.ascontiguousarray(x, "<u4").view(np.uint8)
        return np.unpackbits(octets, axis=-1, count=spec.spikes, bitorder="little").astype(np.float32)
    if not np.issubdtype(x.dtype, np.integer) or spec.scale is None:
        return x
    return ((x.astype(np.float32) - (spec.zero_point or 0)) * np.float32(spec.scale or 1.0)).astype(np.float32)


@dataclass(frozen=True)
class _Layer:
    id: int
    name: str
    op: str
    variant: str
    source: str
    macs: int


@dataclass(frozen=True)
class _Totals:
    cycles_mean: float | None


@dataclass(frozen=True)
class _Report:
    """What is read of report.json after the compile that wrote it."""

    layers: tuple[_Layer, ...]
    totals: _Totals
    per: str
    sliding: bool = False
    labels: tuple[str, ...] = ()
    sample_rate: int | None = None


@guarded_methods
class CompiledModel:
    """A compiled folder. `step`, `flush`, `run` call the generated C on `default_device`; `device` opens any other."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        check_sums(self.folder)
        self.manifest: Manifest = read_manifest(self.folder)

    @cached_property
    def report(self) -> dict[str, Any]:
        """What compile() found out about the model: report.json."""
        path = self.folder / "report.json"
        data = read_table(path, "a report", AGAIN)
        checked(_Report, data, f"{path}: damaged", hint=AGAIN)
        return data  # type: ignore[no-any-return]

    @property
    def options(self) -> Options:
        """What was chosen when the model was compiled; `compile` takes it again."""
        if self.manifest.options is None:
            raise InputError(f"{self.folder / MANIFEST} does not say with which options it was compiled", hint=AGAIN)
        return self.manifest.options

    @property
    def default_device(self) -> str:
        """host where this computer can run the folder's code, else the first device of its target."""
        return default_kind(self.folder, self.manifest)

    @cached_property
    def _host(self) -> Device:
        with as_changed(self.folder):
            return open_device(self.default_device, self.folder, self.manifest)

    def device(
        self, kind: str = "emulator", *, toolchain: str = "zig", cc: str | None = None, profile: bool = False,
        counting: bool = False, flow: bool = False, instances: int = 1, opt: str | None = None,
        build_dir: Path | str | None = None,
    ) -> Device:  # fmt: skip
        """The model on another device: host, unicorn, qemu, qemu-aarch64, cuda, or emulator, its target's own; the
        options are those of `device.open_device`."""
        with as_changed(self.folder):
            return open_device(
                kind, self.folder, self.manifest, toolchain=toolchain, cc=cc, profile=profile, counting=counting,
                flow=flow, instances=instances, opt=opt, build_dir=build_dir,
            )  # fmt: skip

    def step(self, *frame: Any) -> Outputs:
        """One frame of each input, in order or as one mapping by name; real values out, as `run` has them; None while
        the delay has not passed."""
        given = by_name(frame[0] if len(frame) == 1 else frame, self.manifest.inputs)
        out = self._host.step([to_device(given[spec.name], spec) for spec in self.manifest.inputs])
        return None if out is None else self._real(out)

    def flush(self) -> Outputs:
        """One more output after the last frame; None when nothing is left."""
        out = self._host.flush()
        return None if out is None else self._real(out)

    def reset(self) -> None:
        """Back to the state before the first frame."""
        self._host.reset()

    def run(self, x: Inputs) -> Outputs:
        """Whole sequences [.., T, ..] from reset to flush: all outputs [frames, ...] in real values.

        x: the only input's array, or one for each input by name or in order, of equally many frames. A network with
        several outputs gives a dict by their names.
        """
        self.reset()
        outs = [self._host.step(frame) for frame in input_frames(x, self.manifest.inputs)]
        while (out := self._host.flush()) is not None:
            outs.append(out)
        found = [out for out in outs if out is not None]
        if not found:
            raise InputError(f"the input is too short: {len(outs)} frames, and the first output comes later")
        return self._real([np.stack(column) for column in zip(*found, strict=True)])

    def _real(self, outs: Sequence[Array]) -> Outputs:
        """The device's outputs in real values, under their names where there are several."""
        real = {spec.name: to_real(out, spec) for spec, out in zip(self.manifest.outputs, outs, strict=True)}
        return real if len(real) > 1 else next(iter(real.values()))

    def graph(self, name: str = "step") -> Graph:
        """The graph that runs (step), its whole-sequence form (whole), or the float graph of both (reference)."""
        from edgec.ops import OPS

        path = self.folder / "ir" / f"{name}.ir"
        arrays = read_arrays(path.with_suffix(".npz"), AGAIN, least=0)
        try:
            with as_changed(self.folder):
                graph = parse_graph(read_text(path, "a graph", AGAIN), OPS, arrays)
                verify(graph)
        except VerifyError as err:
            raise InputError(f"{path}: damaged: {err.message}", hint=AGAIN) from err
        return graph

    def close(self) -> None:
        """Free the device that step, flush and run use; the next of them starts another."""
        if "_host" in self.__dict__:
            self.__dict__.pop("_host").close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[CompiledModel], tuple[Path]]:
        """A copy, as a process of a pool gets one, has the folder and a stream of its own."""
        return type(self), (self.folder,)

    def __repr__(self) -> str:
        m = self.manifest
        ports = (", ".join(map(describe_port, specs)) for specs in (m.inputs, m.outputs))
        return f"<CompiledModel {m.name} for {m.target}, {' -> '.join(ports)}, delay {m.delay}, in {self.folder}>"


def describe_port(spec: TensorSpec) -> str:
    """An input or output as its name, type and shape."""
    if spec.spikes is not None:
        return f"{spec.name}: spikes{[*spec.shape[:-1], spec.spikes]}"
    return f"{spec.name}: {spec.dtype}{list(spec.shape)}"


def by_name(x: Inputs, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Inputs by name; what else a mapping holds, such as labels, is left out. InputError names what is missing."""
    names = [spec.name for spec in specs]
    if isinstance(x, Mapping):
        if not set(names) <= set(x):
            raise InputError(f"expected the inputs {', '.join(names)}, found {', '.join(map(str, x)) or 'none'}")
        return {name: as_array(x[name], f"input {name!r}") for name in names}
    if len(names) == 1:
        return {names[0]: as_array(x, f"input {names[0]!r}")}
    if not isinstance(x, (list, tuple)) or len(x) != len(names):
        found = f"{len(x)} arrays" if isinstance(x, (list, tuple)) else f"one {type(x).__name__}"
        raise InputError(
            f"expected {len(names)} inputs ({', '.join(names)}), found {found}",
            hint="give a mapping from each name to its array, or the arrays in this order",
        )
    return {name: as_array(value, f"input {name!r}") for name, value in zip(names, x, strict=True)}


def input_frames(x: Inputs, specs: Sequence[TensorSpec]) -> Iterator[list[Array]]:
    """Inputs cut into what each step takes: one frame of every input, in order, in the device's numbers.

    InputError where the inputs hold different numbers of frames, or do not fit: see `frames` and `to_device`.
    """
    given = by_name(x, specs)
    cut = [list(frames(given[spec.name], spec)) for spec in specs]
    if len({len(pieces) for pieces in cut}) > 1:
        counts = ", ".join(f"{spec.name} {len(pieces)}" for spec, pieces in zip(specs, cut, strict=True))
        raise InputError(
            f"the inputs hold different numbers of frames: {counts}",
            hint="every call takes one frame of each input: repeat an input that stays the same",
        )
    for pieces in zip(*cut, strict=True):
        yield [to_device(piece, spec) for piece, spec in zip(pieces, specs, strict=True)]


def frames(x: Array, spec: TensorSpec) -> Iterator[Array]:
    """A sequence cut into the pieces a step takes, each flat; a rest that fills no frame is left out.

    x: flat, one frame, frames along a first axis [N, ...], or frames joined along their time axis; axes of length 1 do
    not count. InputError for any other shape: the same numbers in another order are another input.
    """
    x, size = np.asarray(x), int(np.prod(spec.shape))
    found, frame = long_axes(x.shape), long_axes(spec.shape)
    axis = joined_axis(x.shape, spec)
    stacked = len(found) <= len(frame) + 1 and found[len(found) - len(frame) :] == frame
    flat = len(found) <= 1 and (len(frame) <= 1 or x.size % size == 0)
    if axis and stacked and x.ndim < len(spec.shape) and len(found) > len(frame):
        raise InputError(
            f"input {spec.name!r}: {list(x.shape)} may be frames one after another, or joined along axis {axis}",
            hint=f"give all {len(spec.shape)} axes of the model's input",
        )
    if axis is None and not (stacked or flat):
        raise InputError(
            f"input {spec.name!r}: expected {spec.dtype}{list(spec.shape)} or a sequence of such frames,"
            f" found {x.dtype}{list(x.shape)}"
        )
    if x.size < size:
        raise InputError(f"input {spec.name!r}: expected at least one frame of {size} values, found {x.size}")
    if axis is None or spec.time_axis is None:
        values = x.reshape(-1)
        for k in range(x.size // size):
            yield values[k * size : (k + 1) * size]
        return
    hop = spec.shape[spec.time_axis]
    for k in range(x.shape[axis] // hop):
        yield x[(slice(None),) * axis + (slice(k * hop, (k + 1) * hop),)].reshape(-1)


def joined_axis(shape: tuple[int, ...], spec: TensorSpec) -> int | None:
    """The axis along which an array holds frames joined along their time axis; None where it holds none so.

    The shape is a frame's but for the time axis; leading axes of length 1 may be missing.
    """
    if spec.time_axis is None:
        return None
    missing = len(spec.shape) - len(shape)
    axis = spec.time_axis - missing
    if missing < 0 or axis < 0 or long_axes(spec.shape[:missing]):
        return None
    rest, expected = list(shape), list(spec.shape[missing:])
    del rest[axis], expected[axis]
    return axis if rest == expected else None
