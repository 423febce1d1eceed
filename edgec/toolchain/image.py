"""Build a runnable image (model + harness + port) for a Cortex-M, or a static executable for 64-bit ARM Linux."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgec.errors import ToolchainError
from edgec.runtime import runtime_file
from edgec.target import Target
from edgec.toolchain import compilers
from edgec.toolchain.command import run_command
from edgec.toolchain.generate import image_header, linker_script
from edgec.toolchain.manifest import Manifest, read_manifest


def build_image(
    folder: Path | str,
    target: Target,
    out: Path | str,
    *,
    toolchain: str = "zig",
    profile: bool = False,
    instances: int = 1,
    opt: str | None = None,
) -> Path:
    """Compile the model in `folder` with the harness and link an ELF for `target` (a Cortex-M)."""
    if target.arch != "arm-m":
        raise ToolchainError(f"target {target.name!r} is {target.arch}, not a Cortex-M: it has no bare-metal image")
    machine = compilers.arm_m_compiler(target, toolchain)
    ports = ("port_cortex_m.c", "port_memory.c")
    with tempfile.TemporaryDirectory(prefix="edgec-") as work:
        objects = _compile(Path(folder), Path(work), machine, target, ports, profile, instances, opt)
        script = Path(work) / "image.ld"
        script.write_text(linker_script(target), encoding="utf-8")
        library = ["-lgcc", "-Wl,--no-warn-rwx-segments"] if toolchain == "gcc" else ["-lcompiler_rt"]
        link = ["-nostdlib", "-Wl,--gc-sections", "-Wl,-e,edgec_reset", "-T", str(script)]
        # linking for size would make zig drop the symbols, and nothing is compiled here
        argv = [*machine, "-O2", *link, *objects, *library, "-o", str(out)]
        run_command(argv, f"linking {Path(out).name} for {target.name}")
    return Path(out)


def build_aarch64(
    folder: Path | str,
    target: Target,
    out: Path | str,
    *,
    profile: bool = False,
    instances: int = 1,
    opt: str | None = None,
) -> Path:
    """Compile the model in `folder` into a static Linux program that takes the harness's commands on stdin."""
    if target.arch != "aarch64":
        raise ToolchainError(f"target {target.name!r} is {target.arch}, not 64-bit ARM Linux")
    machine = [*compilers.zig_cc(), *compilers.zig_machine(target)]
    with tempfile.TemporaryDirectory(prefix="edgec-") as work:
        objects = _compile(Path(folder), Path(work), machine, target, ("port_posix.c",), profile, instances, opt)
        argv = [
            *machine,
            opt or read_manifest(folder).opt,
            "-static",
            "-Wl,--gc-sections",
            "-Wl,--strip-debug",
            *objects,
            "-o",
            str(out),
        ]
        run_command(argv, f"linking {Path(out).name} for {target.name}")
    return Path(out)


def build_objects(folder: Path | str, target: Target, work: Path | str, *, opt: str | None = None) -> list[Path]:
    """The model alone as object files, without harness, port and libraries; those compiled here lie in `work`."""
    folder, manifest = Path(folder), read_manifest(folder)
    head = [*compilers.zig_cc(), *compilers.zig_machine(target), *compilers.CODE_FLAGS, *target.cflags]
    jobs = model_jobs(
        folder, Path(work), manifest, [*head, *compilers.WARNINGS, compilers.check_opt(opt or manifest.opt)]
    )
    compilers.compile_all(jobs)
    return [Path(argv[-1]) for argv, _ in jobs] + [folder / s for s in manifest.sources if s.endswith(".o")]


def _compile(
    folder: Path,
    work: Path,
    machine: list[str],
    target: Target,
    ports: tuple[str, ...],
    profile: bool,
    instances: int,
    opt: str | None,
) -> list[str]:
    """Objects of the model's sources, the harness and the port; returns their paths in link order."""
    manifest = read_manifest(folder)
    (work / "edgec_image.h").write_text(image_header(manifest, instances), encoding="utf-8")
    defines = ["-DEDGEC_PROFILE"] if profile else []
    head = [*machine, *compilers.CODE_FLAGS, *target.cflags, *compilers.WARNINGS, *defines]
    jobs = model_jobs(folder, work, manifest, [*head, compilers.check_opt(opt or manifest.opt)])
    objects = [argv[-1] for argv, _ in jobs]
    objects += [str(folder / s) for s in manifest.sources if s.endswith(".o")]
    include = ["-I", str(folder), "-I", str(work)]
    for name in (*ports, "harness.c"):
        out = str(work / name.replace(".c", ".o"))
        source = str(runtime_file(name))
        extra = _no_idioms(machine) if name == "port_memory.c" else []
        # Our own files use attributes and GNU asm: the same warnings, but POSIX names for the Linux port.
        extra += ["-D_POSIX_C_SOURCE=200809L"] if name == "port_posix.c" else []
        jobs.append(([*head, "-Os" if name != "port_memory.c" else "-O2", *extra, *include, "-c", source, "-o", out],
                     f"compiling {name} for {target.name}"))  # fmt: skip
        objects.append(out)
    compilers.compile_all(jobs)
    return objects


def model_jobs(folder: Path, work: Path, manifest: Manifest, head: list[str]) -> list[tuple[list[str], str]]:
    """One compile command per C or assembler source of the model; the object's path is the last argument."""
    bad = [s for s in manifest.sources if not s.endswith((".c", ".S", ".o"))]
    if bad:
        raise ToolchainError(
            f"manifest of {manifest.name!r} lists {bad[0]!r}: only .c, .S and .o sources can be linked"
        )
    missing = [s for s in manifest.sources if not (folder / s).is_file()]
    if missing:
        raise ToolchainError(f"{folder}: the manifest lists {missing[0]!r}, which is not there")
    return [
        (
            [*head, "-I", str(folder), "-c", str(folder / s), "-o", str(work / f"model_{i}.o")],
            f"compiling {s} for {manifest.target}",
        )
        for i, s in enumerate(manifest.sources)
        if not s.endswith(".o")
    ]


def _no_idioms(machine: list[str]) -> list[str]:
    """Keep the compiler from turning the loops of memcpy into a call of memcpy, and from unrolling its short ends."""
    idioms = "-fno-builtin" if compilers.is_zig(machine) else "-fno-tree-loop-distribute-patterns"
    return [idioms, "-fno-unroll-loops"]
