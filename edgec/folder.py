"""The folder of a compiled model: what lies in it beside the code, and how it gets to its place."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgec.errors import InputError, option
from edgec.files import read_table
from edgec.ir.text import print_graph
from edgec.passes.samples import Array
from edgec.stages import Stages
from edgec.toolchain.checksums import write_sums
from edgec.toolchain.manifest import MANIFEST, read_manifest

Samples = Mapping[str, Array]


def emptied(folder: Path) -> None:
    """A folder without what an earlier attempt wrote into it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def complete(
    folder: Path, stages: Stages, report: Mapping[str, Any], sample: Samples | None, about: Mapping[str, Any]
) -> None:
    """What a compiled folder holds beside the code: what the manifest says of the compile, the graphs, the report, a
    sample of the inputs, the checksums."""
    manifest = read_table(folder / MANIFEST, "a manifest")
    _write_json(folder / MANIFEST, manifest | about)
    _write_graphs(stages, folder)
    _write_json(folder / "report.json", report)
    if sample is not None:
        _write_sample(folder, sample)
    write_sums(folder)


def made_of(model: Any, calibration: Any) -> dict[str, str | None]:
    """What a compile read, without the folders of this computer: a file's name, else of what kind it was."""

    def name(given: Any) -> str | None:
        if given is None:
            return None
        return Path(given).name if isinstance(given, (str, Path)) else type(given).__name__

    return {"model": name(model), "calibration": name(calibration)}


def _write_sample(folder: Path, sample: Samples) -> None:
    """The inputs that `edgec profile` and `edgec verify` run unless told otherwise, by their names."""
    specs = read_manifest(folder).inputs
    write_arrays(folder / "sample.npz", {s.name: x for s, x in zip(specs, sample.values(), strict=True)})


def _write_graphs(stages: Stages, folder: Path) -> None:
    """The graphs that `edgec verify` compares the device with."""
    (folder / "ir").mkdir()
    for name, graph in (("reference", stages.reference), ("whole", stages.whole), ("step", stages.step)):
        (folder / "ir" / f"{name}.ir").write_text(print_graph(graph, consts=False), encoding="utf-8")
        write_arrays(folder / "ir" / f"{name}.npz", {n: c.data for n, c in graph.consts.items()})


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """An .npz of arrays of any names; numpy.savez takes none called `file`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def put_in_place(folder: Path, out: Path) -> None:
    """Put the finished folder in place in one step, so that nothing half-written is ever seen; of two compiles into the
    same folder, the second ends in an InputError."""
    place = out.resolve()  # a symbolic link stays one
    try:
        if place.is_dir():
            _fill(folder, place)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            _place(folder, place)
    except OSError as err:
        if err.errno in (errno.ENOTEMPTY, errno.EEXIST):
            reason = "it was filled while this compile ran, as another one into the same folder would"
        else:
            reason = err.strerror or str(err.args[0][0][2]).partition(": ")[0]  # copytree's are a list, the first tells
            reason = reason.rpartition("] ")[2]  # without its number
        raise InputError(
            f"output folder {out} cannot be written: {reason}", hint=f"give another with {option('out')}"
        ) from err


def _place(folder: Path, place: Path) -> None:
    """A new folder."""
    beside = Path(tempfile.mkdtemp(prefix=".edgec-", dir=place.parent))
    try:
        shutil.copytree(folder, beside / "new")
        (beside / "new").rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _fill(folder: Path, place: Path) -> None:
    """An empty folder that is there keeps its owner and mode, and may be a mount point or where a shell stands; a name
    that is claimed shuts out another compile, and what makes it a compiled model comes last."""
    claimed, moved = place / ".edgec-new", list[Path]()
    claimed.mkdir()
    try:
        if any(p != claimed for p in place.iterdir()):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        shutil.copytree(folder, claimed, dirs_exist_ok=True)
        for file in sorted(claimed.iterdir(), key=lambda p: p.name == MANIFEST):
            moved.append(place / file.name)
            file.rename(moved[-1])
    except BaseException:
        for path in moved:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(claimed, ignore_errors=True)
