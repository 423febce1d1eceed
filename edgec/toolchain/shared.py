"""Build the shared library through which Python calls the very code that ships."""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path

from edgec.errors import ToolchainError, option
from edgec.runtime import runtime_file
from edgec.target import Target
from edgec.toolchain import compilers
from edgec.toolchain.command import run_command
from edgec.toolchain.generate import host_shim
from edgec.toolchain.image import model_jobs
from edgec.toolchain.manifest import Manifest, read_manifest
from edgec.toolchain.sizes import machine_of


def build_shared(
    folder: Path | str,
    out: Path | str,
    *,
    cc: str | None = None,
    profile: bool = False,
    opt: str | None = None,
    flags: tuple[str, ...] = (),
) -> Path:
    """Compile the model in `folder` for this machine into the shared library `out`; `cc` is gcc, clang, zig, ..."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    obstacle = host_obstacle(folder, manifest)
    if obstacle:
        raise ToolchainError(
            f"model {manifest.name!r} for {manifest.target} cannot run on this computer: {obstacle}",
            hint="run it on a device of its target (edgec targets lists them), or compile with"
            f" {option('target', 'host')}",
        )
    compiler = compilers.host_cc(cc)
    sanitizer = ["-fno-sanitize=all"] if compilers.is_zig(compiler) else []
    pic = [] if sys.platform == "win32" else ["-fPIC"]
    defines = ["-DEDGEC_PROFILE"] if profile else []
    head = [*compiler, *compilers.CODE_FLAGS, *compilers.WARNINGS, *sanitizer, *pic, *flags, *defines]
    head.append(compilers.check_opt(opt or "-O2"))
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


def host_obstacle(folder: Path, manifest: Manifest) -> str:
    """Why this computer cannot run the model in `folder`; empty when it can."""
    for source in manifest.sources:
        if source.endswith(".cu"):
            return f"{source} is for a CUDA GPU"
        if source.endswith(".o") and (folder / source).is_file():
            found, here = machine_of(folder / source), _ELF_MACHINES.get(platform.machine().lower())
            if found != here or not sys.platform.startswith("linux"):
                return f"{source} holds {found} machine code, this computer is {sys.platform} on {platform.machine()}"
    return ""


#: names of this computer's processor -> pyelftools' name of it
_ELF_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "AArch64", "arm64": "AArch64"}


def build_cuda(folder: Path | str, target: Target, out: Path | str, *, profile: bool = False) -> Path:
    """Compile the model in `folder` with nvcc into the shared library `out`, for the GPU that `target` names."""
    folder = Path(folder)
    if target.arch != "cuda":
        raise ToolchainError(f"target {target.name!r} is {target.arch}, not a CUDA GPU")
    manifest = read_manifest(folder)
    defines = ["-DEDGEC_PROFILE"] if profile else []
    with tempfile.TemporaryDirectory(prefix="edgec-") as work:
        shim = Path(work) / "shim.c"
        shim.write_text(host_shim(manifest), encoding="utf-8")
        sources = [folder / s for s in manifest.sources if not s.endswith(".S")]
        for name in set(manifest.sources) - {s.name for s in sources}:
            sources.append(Path(work) / f"{name}.o")
            argv = [*compilers.host_cc(), "-I", str(folder), "-c", str(folder / name), "-o", str(sources[-1])]
            run_command(argv, f"assembling {name}")
        sources += [shim, runtime_file("port_host.c")]
        compilers.compile_cuda(sources, Path(out), target.cpu, ["-I", str(folder), *defines])
    return Path(out)


def build_plain_shared(source: Path, out: Path, *, cc: str | None = None, flags: tuple[str, ...] = ()) -> Path:
    """One C file into a shared library, without a model around it (emulator hooks, tests)."""
    compiler = compilers.host_cc(cc)
    sanitizer = ["-fno-sanitize=all"] if compilers.is_zig(compiler) else []
    pic = [] if sys.platform == "win32" else ["-fPIC"]
    head = [*compiler, *compilers.CODE_FLAGS, *compilers.WARNINGS, *sanitizer, *pic, "-O2", *flags, "-shared"]
    run_command([*head, str(source), "-o", str(out)], f"compiling {source.name}")
    return out
