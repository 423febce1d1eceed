"""A compiled model's folder, seen from Python: the very C that ships, called frame by frame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgec.device import Device, default_kind, open_device
from edgec.errors import InputError
from edgec.ir.graph import Graph
from edgec.ir.text import parse_graph
from edgec.signal_math import PCM_SCALE
from edgec.toolchain.manifest import Manifest, TensorSpec, read_manifest

Array = np.ndarray[Any, np.dtype[Any]]


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
    if x.dtype == wanted and x.dtype.kind in "iu":
        return x.reshape(spec.shape)
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
    """An output in real values, float32."""
    if not np.issubdtype(x.dtype, np.integer):
        return x
    return ((x.astype(np.float32) - (spec.zero_point or 0)) * np.float32(spec.scale or 1.0)).astype(np.float32)


class CompiledModel:
    """A compiled folder. `step`, `flush`, `run` call the generated C on `default_device`; `device` opens any other."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest: Manifest = read_manifest(self.folder)

    @cached_property
    def report(self) -> dict[str, Any]:
        """What compile() found out about the model: report.json."""
        return json.loads((self.folder / "report.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    @property
    def default_device(self) -> str:
        """host where this computer can run the folder's code, else the first device of its target."""
        return default_kind(self.folder, self.manifest)

    @cached_property
    def _host(self) -> Device:
        return open_device(self.default_device, self.folder, self.manifest)

    def device(self, kind: str = "emulator", **options: Any) -> Device:
        """The model on another device: host, unicorn, qemu, qemu-aarch64, cuda, or emulator, its target's own."""
        return open_device(kind, self.folder, self.manifest, **options)

    def step(self, *frame: Array) -> Array | None:
        """One frame in, the first output in real values out; None while the delay has not passed."""
        if len(frame) != len(self.manifest.inputs):
            raise InputError(f"step takes {len(self.manifest.inputs)} inputs, found {len(frame)}")
        out = self._host.step([to_device(x, spec) for x, spec in zip(frame, self.manifest.inputs, strict=True)])
        return None if out is None else to_real(out[0], self.manifest.outputs[0])

    def flush(self) -> Array | None:
        """One more output after the last frame; None when nothing is left."""
        out = self._host.flush()
        return None if out is None else to_real(out[0], self.manifest.outputs[0])

    def reset(self) -> None:
        """Back to the state before the first frame."""
        self._host.reset()

    def run(self, x: Array) -> Array:
        """A whole sequence [.., T, ..] from reset to flush: all outputs [frames, ...] in real values."""
        self.reset()
        outs = [self.step(frame) for frame in frames(x, self.manifest.inputs[0])]
        while (out := self.flush()) is not None:
            outs.append(out)
        if not any(o is not None for o in outs):
            raise InputError(f"the input is too short: {len(outs)} frames, and the first output comes later")
        return np.stack([o for o in outs if o is not None])

    def graph(self, name: str = "step") -> Graph:
        """The graph that runs (step), its whole-sequence form (whole), or the float graph of both (reference)."""
        from edgec.ops import OPS

        text = (self.folder / "ir" / f"{name}.ir").read_text(encoding="utf-8")
        with np.load(self.folder / "ir" / f"{name}.npz") as data:
            return parse_graph(text, OPS, dict(data))

    def close(self) -> None:
        """Free the device that step, flush and run use."""
        if "_host" in self.__dict__:
            self._host.close()


def frames(x: Array, spec: TensorSpec) -> Iterator[Array]:
    """A sequence cut into the pieces a step takes; a rest that fills no frame is left out.

    x: flat, one frame, frames along a first axis [N, ...], or frames joined along their time axis; axes of length 1 do
    not count. InputError for any other shape: the same numbers in another order are another input.
    """
    x, size = np.asarray(x), int(np.prod(spec.shape))
    found, frame = long_axes(x.shape), long_axes(spec.shape)
    time_first = spec.time_axis is not None and not long_axes(spec.shape[: spec.time_axis])
    joined = time_first and len(found) == len(frame) and found[1:] == frame[1:]
    stacked = len(found) <= len(frame) + 1 and found[len(found) - len(frame) :] == frame
    flat = len(found) <= 1 and (len(frame) <= 1 or x.size % size == 0)
    if not (joined or stacked or flat):
        raise InputError(
            f"input {spec.name!r}: expected {spec.dtype}{list(spec.shape)} or a sequence of such frames,"
            f" found {x.dtype}{list(x.shape)}"
        )
    if x.size < size:
        raise InputError(f"input {spec.name!r}: expected at least one frame of {size} values, found {x.size}")
    values = x.reshape(-1)
    for k in range(x.size // size):
        yield values[k * size : (k + 1) * size]
