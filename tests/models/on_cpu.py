"""A model compiled for CUDA on this computer's CPU, its kernel launches as loops."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgec.runtime import runtime_file
from edgec.toolchain import read_manifest
from edgec.toolchain.generate import host_shim

SHIM = Path(__file__).parent.parent / "backends" / "cuda_shim.h"


def build_on_cpu(folder: Path, work: Path, flags: Sequence[str] = ()) -> Path:
    """The library that CudaDevice loads: the CUDA source, and what HostDevice needs around it."""
    manifest, out = read_manifest(folder), work / "shim.so"
    (work / "shim.c").write_text(host_shim(manifest), encoding="utf-8")
    weights = [folder / s for s in manifest.sources if s.endswith(".S")]
    objects = []
    for source in (work / "shim.c", runtime_file("port_host.c"), *weights):
        objects.append(str(work / f"{source.stem}.o"))
        subprocess.run(["gcc", "-c", "-fPIC", *flags, "-I", folder, source, "-o", objects[-1]], check=True)
    head = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", *flags, "-I", folder]
    source = ["-include", SHIM, "-x", "c++", folder / f"{manifest.name}.cu", "-x", "none"]
    subprocess.run([*head, *source, *objects, "-o", out], check=True)
    return out
