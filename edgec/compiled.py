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
    """A frame in the device's numbers: its own type passes as it is; real values are scaled, rounded and clamped for an
    integer device; int16 for a float device is PCM and becomes [-1,1)."""
    x = np.asarray(x)
    if x.size != int(np.prod(spec.shape)):
        raise InputError(
            f"input {spec.name!r}: expected {spec.dtype}{list(spec.shape)}, found {x.dtype}{list(x.shape)}"
        )
    if not np.isfinite(x).all():
        raise InputError(f"input {spec.name!r}: expected finite values, found NaN or infinity")
    if x.dtype != np.dtype(spec.dtype) and np.issubdtype(np.dtype(spec.dtype), np.integer):
        if not np.issubdtype(x.dtype, np.floating):
            raise InputError(f"input {spec.name!r}: expected {spec.dtype} or real values, found {x.dtype}")
        info = np.iinfo(spec.dtype)
        x = np.clip(np.round(x / (spec.scale or 1.0)) + (spec.zero_point or 0), info.min, info.max)
    if not np.issubdtype(np.dtype(spec.dtype), np.integer) and not np.issubdtype(x.dtype, np.floating):
        if x.dtype != np.int16:
            raise InputError(f"input {spec.name!r}: expected real values or int16 PCM, found {x.dtype}")
        x = x * np.float32(PCM_SCALE)
    return x.astype(spec.dtype).reshape(spec.shape)


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

    def device(self, kind: str = "unicorn", **options: Any) -> Device:
        """The model on another device: host, unicorn, qemu, qemu-aarch64, cuda."""
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
    """A sequence cut into the pieces a step takes; a rest that fills no frame is left out."""
    flat, size = np.asarray(x).reshape(-1), int(np.prod(spec.shape))
    if flat.size < size:
        raise InputError(f"input {spec.name!r}: expected at least one frame of {size} values, found {flat.size}")
    for k in range(flat.size // size):
        yield flat[k * size : (k + 1) * size]
