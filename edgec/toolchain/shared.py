"""Build the shared library through which Python calls the very code that ships."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from edgec.runtime import runtime_file
from edgec.toolchain import compilers
from edgec.toolchain.command import run_command
from edgec.toolchain.generate import host_shim
from edgec.toolchain.image import model_jobs
from edgec.toolchain.manifest import read_manifest


def build_shared(
    folder: Path | str,
    out: Path | str,
    *,
    cc: str | None = None,
    profile: bool = False,
    opt: str = "-O2",
    flags: tuple[str, ...] = (),
) -> Path:
    """Compile the model in `folder` for this machine into the shared library `out`; `cc` is gcc, clang, zig, ..."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    compiler = compilers.host_cc(cc)
    sanitizer = ["-fno-sanitize=all"] if compilers.is_zig(compiler) else []
    pic = [] if sys.platform == "win32" else ["-fPIC"]
    defines = ["-DEDGEC_PROFILE"] if profile else []
    head = [*compiler, *compilers.CODE_FLAGS, *compilers.WARNINGS, *sanitizer, *pic, *flags, *defines]
    head.append(compilers.check_opt(opt))
    with tempfile.TemporaryDirectory(prefix="edgec-") as work:
        shim = Path(work) / "shim.c"
        shim.write_text(host_shim(manifest), encoding="utf-8")
        jobs = model_jobs(folder, Path(work), manifest, head)
        for source in (shim, runtime_file("port_host.c")):
            obj = str(Path(work) / f"{source.stem}.o")
            jobs.append(([*head, "-I", str(folder), "-c", str(source), "-o", obj], f"compiling {source.name}"))
        compilers.compile_all(jobs)
        objects = [argv[-1] for argv, _ in jobs] + [str(folder / s) for s in manifest.sources if s.endswith(".o")]
        argv = [*compiler, *sanitizer, "-shared", *objects, "-o", str(out)]
        run_command(argv, f"linking {Path(out).name}")
    return Path(out)


def build_plain_shared(source: Path, out: Path, *, cc: str | None = None, flags: tuple[str, ...] = ()) -> Path:
    """One C file into a shared library, without a model around it (emulator hooks, tests)."""
    compiler = compilers.host_cc(cc)
    sanitizer = ["-fno-sanitize=all"] if compilers.is_zig(compiler) else []
    pic = [] if sys.platform == "win32" else ["-fPIC"]
    head = [*compiler, *compilers.CODE_FLAGS, *compilers.WARNINGS, *sanitizer, *pic, "-O2", *flags, "-shared"]
    run_command([*head, str(source), "-o", str(out)], f"compiling {source.name}")
    return out
