"""The files a user hands in, format by format: sound ones to damage, and what reads them."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.conftest import MODEL
from tests.graphs import Builder, conv

DATA = Path(__file__).resolve().parent.parent / "data" / "mlperf_tiny"
ROOT = MODEL.parent.parent


@dataclass(frozen=True)
class Format:
    """`seeds` are sound files by name, `read` takes the path of a damaged one. cost: of one read, relative."""

    name: str
    kind: str
    seeds: dict[str, bytes]
    read: Callable[[Path], Any]
    cost: int = 1


def saved(save: Callable[..., Any], *args: Any, **kwargs: Any) -> bytes:
    """What a numpy function writes."""
    file = io.BytesIO()
    save(file, *args, **kwargs)
    return file.getvalue()


class Small(torch.nn.Module):
    """A streaming network of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Conv1d(4, 8, 3, padding=1), torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x.transpose(1, 2))).transpose(1, 2))


def small_graph() -> Any:
    """The same sizes as a graph of the IR."""
    b = Builder("net")
    x = b.input("x", 1, 20, 4)
    return b.build(conv(b, x, 3, 3, (1, 1)))


def compile_small(folder: Path) -> Path:
    """The small network, int8, for the host."""
    import edgec

    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(16, 20, 4)).astype(np.float32)
    example = (torch.zeros(1, 20, 4),)
    edgec.compile(Small().eval(), "host", folder, calibration=x, example_inputs=example, time_axis=1)
    return folder


# ---- inputs and calibration ----


def inputs(folder: Path) -> Iterator[Format]:
    """What `edgec run` takes for the small network, and what calibrates it."""
    from edgec.compiled import CompiledModel, input_frames
    from edgec.passes.quantize.ranges import Ranges, save_ranges, statistics_for, take_ranges
    from edgec.pipeline import read_calibration
    from edgec.profile.clips import read_input

    model, rng = CompiledModel(folder), np.random.default_rng(0)
    x = rng.normal(size=(20, 4)).astype(np.float32)
    name = model.manifest.inputs[0].name

    def run(path: Path) -> None:
        list(input_frames(read_input(str(path), 16000, 4), model.manifest.inputs))

    yield Format("npy", "binary", {"x.npy": saved(np.save, x), "y.npy": saved(np.save, x.astype(">f8"))}, run)
    yield Format("npz input", "zip", {"x.npz": saved(np.savez_compressed, **{name: x})}, run)
    table = "\n".join(["a,b,c,d", *(",".join(f"{v:.4f}" for v in row) for row in x)]).encode()
    yield Format("csv", "text", {"x.csv": table}, run)
    graph = small_graph()

    def calibrate(path: Path) -> None:
        found = read_calibration(path, "int8", graph)
        if isinstance(found, Ranges):
            statistics_for(graph, found)

    batch = rng.normal(size=(8, 20, 4)).astype(np.float32)
    sound = {"c.npz": saved(np.savez, batch), "d.npz": saved(np.savez_compressed, x=batch)}
    yield Format("calibration", "zip", sound, calibrate)
    file = folder.parent / "sound.ranges.npz"
    save_ranges(file, take_ranges(graph, read_calibration(batch, "int8", graph), "8 inputs"))
    ranges = file.read_bytes()
    yield Format("ranges", "zip", {"r.ranges.npz": ranges, "s.ranges.npz": reordered(ranges)}, calibrate)


def reordered(archive: bytes) -> bytes:
    """The same arrays without compression: damage then meets their values, not the packing."""
    with np.load(io.BytesIO(archive)) as data:
        return saved(np.savez, **dict(data))


def clips() -> Format:
    """Sound files of several encodings."""
    import soundfile

    from edgec.profile.clips import read_wav

    x = np.sin(np.arange(2000) / 9.0).astype(np.float32)
    seeds = {"shipped.wav": sorted((MODEL / "clips").glob("yes*.wav"))[0].read_bytes()[:4000]}
    for form, kind in (("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAVEX", "PCM_16"), ("FLAC", "PCM_16")):
        file = io.BytesIO()
        soundfile.write(file, np.stack([x, x], 1), 22050, format=form, subtype=kind)
        seeds[f"{form}-{kind}.wav"] = file.getvalue()
    return Format("wav", "binary", seeds, lambda path: read_wav(path, 16000))


# ---- texts ----


def texts() -> Iterator[Format]:
    """Targets, labels, bits, options, graphs and the tuning cache."""
    from edgec.bits import read_bits
    from edgec.config import Config, Effective, read_config, to_toml
    from edgec.files import read_lines
    from edgec.ir.text import parse_graph, print_graph
    from edgec.ir.verify import verify
    from edgec.ops import OPS
    from edgec.options import Budget, Options
    from edgec.passes.canonicalize import Canonicalize
    from edgec.passes.quantize.assign_precision import Assignment
    from edgec.passes.streaming.make_streaming import MakeStreaming
    from edgec.profile.tune import VERSION, read_cache
    from edgec.target import load_target

    names = ("cortex-m7", "cortex-m55", "cortex-a53", "host", "cuda-sm90")
    yield Format(
        "target", "text", {f"{n}.toml": (ROOT / "targets" / f"{n}.toml").read_bytes() for n in names}, load_target
    )
    yield Format(
        "labels", "text", {"labels.txt": "turn left\nyes\ngr\u00fcn\n".encode()}, lambda p: read_lines(p, "names")
    )
    table = {"conv1": "w4a4", "head": "w4a8"}
    pairs = "\n".join(f'{k} = "{v}"' for k, v in table.items()).encode()
    yield Format("bits", "text", {"bits.toml": pairs, "bits.json": json.dumps(table).encode()},
                 lambda p: Assignment(8, read_bits([str(p)])))  # fmt: skip
    chosen = Options.of(bits=table, sliding=True, hop=2, outputs=["y"], budget=Budget(flash=1 << 20, latency_ms=1.5))
    config = Config(model="lmuformer", calibration="data.npz", **vars(chosen))
    file = to_toml(Effective(config, {"hop": "file"})).encode()
    yield Format("options", "text", {"edgec.toml": file}, read_config)
    entry = {"op": "conv1d", "target": "cortex-m7", "costs": {"generic": 100, "rows": 70}}
    cache = json.dumps({"version": VERSION, "entries": {"instructions:abc": entry}})
    yield Format("tuning cache", "json", {"tune.json": cache.encode()}, read_cache)

    def opt(path: Path) -> None:
        from edgec.files import read_text

        graph = parse_graph(read_text(path), OPS)
        verify(graph)
        for step in (Canonicalize(), MakeStreaming()):
            graph = step.run(graph)
            verify(graph)

    yield Format("graph", "text", {"net.ir": print_graph(small_graph()).encode()}, opt)


# ---- compiled folders ----


def folders(folder: Path) -> Iterator[Format]:
    """Every file of a compiled folder; with its checksums nothing damaged is taken, without them the readers hold."""
    from edgec.toolchain.checksums import SUMS

    def inside(relative: str, sums: bool) -> Callable[[Path], None]:
        def read(path: Path) -> None:
            copy = path.with_name("folder")
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy)
            (copy / relative).write_bytes(path.read_bytes())
            if not sums and relative != SUMS:
                (copy / SUMS).unlink()
            open_folder(copy)

        return read

    kinds = {".json": "json", ".ir": "text", ".c": "text", ".h": "text", ".npz": "zip"}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name, kind = str(path.relative_to(folder)), kinds.get(path.suffix, "binary")
        seeds = {path.name: path.read_bytes()}
        yield Format(f"folder with sums: {name}", kind, seeds, inside(name, True), cost=4)
        if path.suffix in (".json", ".ir", ".npz", ".npy"):
            yield Format(f"folder: {name}", kind, seeds, inside(name, False))


def open_folder(folder: Path) -> None:
    """All that edgec reads of a folder."""
    from edgec.commands import default_input, read_labels
    from edgec.compiled import CompiledModel, input_frames

    model = CompiledModel(folder)
    repr(model)
    model.report, read_labels(None, model), model.default_device
    list(input_frames(default_input(model), model.manifest.inputs))
    for name in ("step", "whole", "reference"):
        model.graph(name)


# ---- models ----


def models(work: Path) -> Iterator[Format]:
    """Model files of every kind."""
    from edgec.frontends import load

    torch.export.save(torch.export.export(Small().eval(), (torch.zeros(1, 20, 4),)), work / "net.pt2")
    yield Format("pt2", "zip", {"net.pt2": (work / "net.pt2").read_bytes()}, load, cost=2)
    with contextlib.suppress(ModuleNotFoundError):
        yield Format("onnx", "binary", {"kws.onnx": (DATA / "kws_dscnn_qdq.onnx").read_bytes()}, load)
    with contextlib.suppress(ModuleNotFoundError):
        yield Format("tflite", "binary", {"kws.tflite": (DATA / "kws_ref_model.tflite").read_bytes()}, load)
    small = {"format": "edgec-checkpoint-1", "model": "ttm", "config": {"x": 1}, "state_dict": {"w": torch.zeros(3)}}
    yield Format("pt", "zip", {"small.pt": saved(lambda file: torch.save(small, file))}, load)
