"""Where the C compilers are and which flags they take."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgec.errors import ToolchainError, option
from edgec.options import FIELDS
from edgec.target import Target
from edgec.toolchain.command import run_command

TOOLCHAINS: tuple[str, ...] = FIELDS["toolchain"].metadata["allowed"]
OPT_LEVELS = ("-O0", "-O1", "-O2", "-O3", "-Os")
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")
# No contraction: a fused multiply-add on one machine only would make float results differ between machines.
# No unwind tables, no errno: neither exists on a bare core.
CODE_FLAGS = (
    "-std=c99", "-g0", "-ffp-contract=off", "-fno-math-errno", "-ffunction-sections", "-fdata-sections",
    "-fno-unwind-tables", "-fno-asynchronous-unwind-tables", "-fomit-frame-pointer", "-fno-stack-protector",
)  # fmt: skip


def find_zig() -> list[str] | None:
    """argv of `zig cc`: the ziglang wheel, or a zig on the PATH."""
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    zig = shutil.which("zig")
    return [zig, "cc"] if zig else None


def zig_cc() -> list[str]:
    """argv of `zig cc`, or an error that says how to get it."""
    found = find_zig()
    if found is None:
        raise ToolchainError("the zig C compiler is not installed", hint="pip install ziglang")
    return found


def arm_gcc() -> list[str]:
    """argv of the GNU compiler for Cortex-M, or an error that says what to do."""
    found = shutil.which("arm-none-eabi-gcc")
    if found is None:
        raise ToolchainError(
            "arm-none-eabi-gcc is not on the PATH",
            hint=f"install the GNU Arm toolchain, or use {option('toolchain', 'zig')}",
        )
    return [found]


def host_cc(cc: str | None = None) -> list[str]:
    """argv of the host's C compiler: `cc` if given, else gcc, clang, cc or zig, whichever is there."""
    if cc == "zig":
        return zig_cc()
    for name in (cc,) if cc else ("gcc", "clang", "cc"):
        found = shutil.which(name)
        if found:
            return [found]
    if cc:
        raise ToolchainError(f"the C compiler {cc!r} is not on the PATH", hint="leave it out to use gcc, clang or zig")
    return zig_cc()


def find_nvcc() -> str | None:
    """Path of the CUDA compiler, if there is one."""
    return shutil.which("nvcc")


def arm_m_compiler(target: Target, toolchain: str) -> list[str]:
    """argv prefix (compiler and machine flags) for a Cortex-M target."""
    if toolchain not in TOOLCHAINS:
        raise ToolchainError(f"unknown toolchain {toolchain!r}; allowed: {', '.join(TOOLCHAINS)}")
    if toolchain == "gcc":
        if not target.gcc_flags:
            raise ToolchainError(f"target {target.name!r} has no [gcc] flags; use toolchain 'zig'")
        return [*arm_gcc(), *target.gcc_flags]
    return [*zig_cc(), *zig_machine(target)]


def zig_machine(target: Target) -> list[str]:
    """zig's flags that choose the target's core."""
    if not target.zig_triple:
        raise ToolchainError(f"target {target.name!r} has no [zig] triple: zig cannot compile for it")
    # zig adds an undefined-behaviour sanitizer unless told otherwise.
    return ["-target", target.zig_triple, f"-mcpu={target.zig_mcpu}", "-fno-sanitize=all"]


def is_zig(compiler: list[str]) -> bool:
    """Whether this argv is a `zig cc`."""
    return len(compiler) > 1 and "cc" in compiler[1:4]


def check_opt(opt: str) -> str:
    """`opt` itself when it is an optimisation level that is allowed."""
    if opt not in OPT_LEVELS:
        raise ToolchainError(f"unknown optimisation level {opt!r}; allowed: {', '.join(OPT_LEVELS)}")
    return opt


def compile_all(jobs: list[tuple[list[str], str]]) -> None:
    """Run compile commands side by side; the first failure (in order) is the one reported."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for future in [pool.submit(run_command, argv, what) for argv, what in jobs]:
            future.result()


def nvcc_cc() -> list[str]:
    """argv of the CUDA compiler, or an error that says how to get it."""
    found = find_nvcc()
    if found is None:
        raise ToolchainError("nvcc is not on the PATH", hint="install the CUDA toolkit")
    return [found]


def compile_cuda(sources: Sequence[Path], out: Path, arch: str, flags: Sequence[str] = ()) -> Path:
    """CUDA (.cu) and C sources into a shared library for GPUs from `arch` (sm_90) on."""
    # Without contraction, as in CODE_FLAGS: floats equal those of the C backend.
    head = [*nvcc_cc(), "-O3", f"-arch={arch}", "-fmad=false", "-Werror", "all-warnings", "-shared"]
    head += [] if sys.platform == "win32" else ["-Xcompiler", "-fPIC"]
    run_command([*head, *flags, *map(str, sources), "-o", str(out)], f"compiling {sources[0].name} for {arch}")
    return out


@functools.cache
def version_of(program: str) -> str:
    """First line of `program --version`, for reports."""
    return run_command([program, "--version"], f"asking {program} for its version").splitlines()[0]
