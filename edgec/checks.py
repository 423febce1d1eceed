"""What a compile can be refused for before torch and TVM are imported, which takes seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgec.bits import check_bits
from edgec.errors import InputError, option
from edgec.files import check_file, check_writable, is_zip
from edgec.frontends.shipped import CHECKPOINTS, TORCH_FILES, find_file
from edgec.profile.budget import Budget
from edgec.target import Target, list_targets, load_target
from edgec.toolchain.compilers import TOOLCHAINS, arm_m_compiler

PRECISIONS = ("int8", "float32")
EMITS = ("c", "image")
LINKED = ("arm-m", "aarch64", "cuda")  # the architectures of which `image` keeps something
PROFILES = ("dwt",)
GOALS = ("latency", "size")
PLACES = ("flash", "fast")


def check_request(
    model: Any, target: str | Path | Target, out: str | Path | None, *, precision: str, calibration: Any,
    budget: Budget | None, emit_kind: str, goal: str, place: str, toolchain: str, profile: str | None,
    dump_ir: str | Path | None, streaming: bool, sliding: bool | None, hop: int | None, weights: int,
    bits: Mapping[str, str] | None,
) -> Target:  # fmt: skip
    """The target of a compile, once nothing else about it is known to be wrong."""
    check_choices(
        precision=(precision, PRECISIONS), output_kind=(emit_kind, EMITS), goal=(goal, GOALS), place=(place, PLACES),
        toolchain=(toolchain, TOOLCHAINS),
    )  # fmt: skip
    part = target if isinstance(target, Target) else load_target(target)
    check_profile(profile, part)
    if toolchain == "gcc" and part.arch == "arm-m":
        arm_m_compiler(part, toolchain)
    if emit_kind == "image" and part.arch not in LINKED:
        raise InputError(f"no image is linked for {part.name}", hint=f"leave out {option('emit_kind', 'image')}")
    check_bits(weights, bits or {})
    path = find_file(model) if isinstance(model, (str, Path)) else None
    may_slide = streaming and path is not None and path.suffix.lower() in CHECKPOINTS
    check_form(streaming, sliding if sliding is not None or may_slide else False, hop)
    if out is not None:
        check_output(Path(out))
    elif path is not None:
        check_output(default_output(path.stem, part))
    if dump_ir is not None:
        check_dump(Path(dump_ir))
    check_calibration(path, calibration, precision)
    return part


def check_calibrating(model: str | Path, calibration: Any, out: str | Path | None) -> None:
    """The same for taking the statistics of a model's calibration data."""
    path = find_file(model)
    if isinstance(calibration, (str, Path)):
        check_archive(Path(calibration))
    check_file(Path(out) if out is not None else ranges_beside(path), "file", option("out"))


def default_output(name: str, part: Target) -> Path:
    """Where a model is compiled to unless told otherwise."""
    return Path("out") / f"{name}-{part.name}"


def check_output(out: Path) -> None:
    """The output folder must be absent or empty, and its parent writable."""
    check_writable(out, "output folder", option("out"))
    if out.exists() and not out.is_dir():
        raise InputError(f"output folder {out} is a file", hint=f"give another folder with {option('out')}")
    if out.exists() and any(out.iterdir()):
        raise InputError(
            f"output folder {out} is not empty", hint=f"give another folder with {option('out')}, or remove this one"
        )


def check_dump(folder: Path) -> None:
    """Graphs are written into a folder that is there, or can be made."""
    check_writable(folder / "graph.ir", "graph", option("dump_ir"))


def check_choices(**choices: tuple[Any, Sequence[str]]) -> None:
    """Each choice, with those there are, must be one of them."""
    for what, (chosen, known) in choices.items():
        if chosen not in known:
            raise InputError(f"unknown {what.replace('_', ' ')} {chosen!r}", hint=f"one of {', '.join(known)}")


def check_form(streaming: bool, sliding: bool | None, hop: int | None) -> None:
    """What one call takes must be one thing; sliding None: the model has yet to say."""
    if sliding and not streaming:
        raise InputError(
            "a whole window a call and a sliding window exclude each other", hint=f"leave out {option('whole')}"
        )
    if hop is not None and sliding is False:
        raise InputError("a hop is for a window that slides", hint=f"add {option('sliding')}")
    if hop is not None and hop < 1:
        raise InputError(f"expected a hop of at least 1 frame, found {hop}")


def check_profile(profile: str | None, target: Target) -> None:
    """A profile must be known, and the target's core must have what it reads."""
    if profile is not None:
        check_choices(profile=(profile, PROFILES))
    if profile == "dwt" and not target.cycle_counter:
        having = ", ".join(n for n in list_targets() if load_target(n).cycle_counter)
        raise InputError(
            f"{target.name} has no cycle counter (DWT->CYCCNT) to profile with; cores that have one: {having}",
            hint=f"leave out {option('profile')}; `edgec profile` counts on the emulated core",
        )


def ranges_beside(path: Path) -> Path:
    """Where the calibration statistics of a model file lie: net.ranges.npz beside net.pt."""
    return path.with_name(f"{path.stem}.ranges.npz")


def calibration_beside(path: Path) -> Path | None:
    """The calibration that comes with a model file: its statistics, or calibration.npz."""
    return next((p for p in (ranges_beside(path), path.parent / "calibration.npz") if p.is_file()), None)


def check_calibration(model: Path | None, calibration: Any, precision: str) -> None:
    """A calibration file must be an archive; a float model file that is to become int8 needs one."""
    if isinstance(calibration, (str, Path)):
        check_archive(Path(calibration))
        return
    if calibration is not None or precision != "int8" or model is None or model.suffix.lower() not in TORCH_FILES:
        return
    if calibration_beside(model) is None:
        raise no_calibration(str(model))


def check_archive(path: Path) -> None:
    """An .npz or .npy file, by its first look."""
    if not path.is_file():
        raise InputError(f"calibration file {path}: {'a folder' if path.is_dir() else 'no such file'}")
    with path.open("rb") as file:
        starts_as_array = file.read(6) == b"\x93NUMPY"
    if not (starts_as_array or is_zip(path)):
        raise InputError(
            f"calibration file {path} cannot be read: no .npz archive", hint="expected an .npz written by numpy.savez"
        )


def no_calibration(model: str = "the model") -> InputError:
    """int8 was asked for, and there is nothing to calibrate with."""
    return InputError(
        f"int8 needs calibration data and {model} comes with none",
        hint=f"{option('calibration', 'data.npz')}, an array [N, ...] of samples for each input by name (of an only"
        f" input the first array), or {option('precision', 'float32')}",
    )
