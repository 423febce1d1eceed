"""A compiled folder as a program of this computer under gcc's address and undefined-behaviour sanitizers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from edgec.device.qemu import _PipeDevice
from edgec.runtime import runtime_file
from edgec.toolchain.generate import image_header
from edgec.toolchain.manifest import read_manifest

FLAGS = ("-std=c99", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-ffp-contract=off")


class SanitizedDevice(_PipeDevice):
    """The harness with the model in a process of its own; a finding of a sanitizer ends it, and the error shows it."""

    def __init__(self, folder: Path, work: Path) -> None:
        manifest = read_manifest(folder)
        super().__init__(manifest, instances=1, profile=False, timeout=60.0)
        (work / "edgec_image.h").write_text(image_header(manifest, 1), encoding="utf-8")
        sources = [folder / s for s in manifest.sources] + [runtime_file(n) for n in ("harness.c", "port_posix.c")]
        program = work / "model"
        argv = ["gcc", *FLAGS, "-D_POSIX_C_SOURCE=200809L", "-I", str(folder), "-I", str(work), *map(str, sources)]
        subprocess.run([*argv, "-o", str(program)], check=True, capture_output=True)
        child_in, self._write_fd = os.pipe()
        self._read_fd, child_out = os.pipe()
        with (self._work / "log").open("wb") as log:
            self._process = subprocess.Popen([str(program)], stdin=child_in, stdout=child_out, stderr=log)
        self._hold()
        os.close(child_in)
        os.close(child_out)
