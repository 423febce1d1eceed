"""What a compile can be refused for before torch and TVM are imported, which takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec.errors import InputError, option
from edgec.files import check_file, check_writable, is_zip
from edgec.frontends.shipped import CHECKPOINTS, TORCH_FILES, find_file
from edgec.options import Options
from edgec.target import Target, list_targets, load_target
from edgec.toolchain.compilers import arm_m_compiler

LINKED = ("arm-m", "aarch64", "cuda")  # the architectures of which `image` keeps something


@dataclass(frozen=True)
class Request:
    """What a compile works on and how, with nothing known to be wrong: see `check_request`. out None: it is named
    after the model, which a module is once it is imported."""

    model: Any
    target: Target
    out: Path | None
    options: Options
    calibration: Any = None
    example_inputs: Any = None
    dump_ir: Path | None = None


def check_request(
    model: Any, target: str | Path | Target, out: str | Path | None, options: Options, *, calibration: Any = None,
    example_inputs: Any = None, dump_ir: str | Path | None = None,
) -> Request:  # fmt: skip
    """A compile, once all of it is checked that can be without its model; Options have checked themselves."""
    part = target if isinstance(target, Target) else load_target(target)
    check_code(options, part)
    path = find_file(model) if isinstance(model, (str, Path)) else None
    if not (options.form.streaming and path is not None and path.suffix.lower() in CHECKPOINTS):
        options.form.settled(False)  # no model file says that its window slides
    out, dump = None if out is None else Path(out), None if dump_ir is None else Path(dump_ir)
    if out is not None:
        check_output(out)
    elif path is not None:
        check_output(default_output(path.stem, part))
    if dump is not None:
        check_dump(dump)
    check_calibration(path, calibration, options.precision.precision)
    return Request(model, part, out, options, calibration, example_inputs, dump)


def check_code(options: Options, part: Target) -> None:
    """What the target must have for what is asked of the code."""
    code = options.code
    if code.profile == "dwt" and not part.cycle_counter:
        having = ", ".join(n for n in list_targets() if load_target(n).cycle_counter)
        raise InputError(
            f"{part.name} has no cycle counter (DWT->CYCCNT) to profile with; cores that have one: {having}",
            hint=f"leave out {option('profile')}; `edgec profile` counts on the emulated core",
        )
    if code.toolchain == "gcc" and part.arch == "arm-m":
        arm_m_compiler(part, code.toolchain)
    if code.emit_kind == "image" and part.arch not in LINKED:
        raise InputError(f"no image is linked for {part.name}", hint=f"leave out {option('emit_kind', 'image')}")


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
