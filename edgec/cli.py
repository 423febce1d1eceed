"""The command line: parse arguments, call, print. Errors a user can mend end with exit code 2 and no traceback."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import edgec
from edgec.errors import EdgecError, InputError, InternalError
from edgec.guard import guarding
from edgec.target import KINDS

ON_HELP = (
    "device; emulator is the target's own, one of unicorn, qemu and qemu-aarch64 (default: host where this computer can"
    " run the folder's code, else the first device of its target)"
)


def default_cache() -> str:
    """Where --tune keeps what it measured."""
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "edgec", "tune.json")


def model_options(c: argparse.ArgumentParser) -> None:
    """Of `compile`: the model, the target, and with how many bits."""
    c.add_argument(
        "model",
        help="a checkpoint (.pt), an exported program (.pt2), a quantised .tflite or .onnx (QDQ) file, or a shipped"
        " model's name",
    )
    c.add_argument("--target", default="cortex-m7", help="a name from `edgec targets`, or a target file (.toml)")
    c.add_argument("-o", "--out", help="output folder, absent or empty (default: out/MODEL-TARGET)")
    c.add_argument("--precision", default="int8", choices=("int8", "float32"))
    c.add_argument(
        "--calibration",
        help=".npz with an array [N, ...] of samples for each input by name (for an only input the first array), or"
        " what `edgec calibrate` wrote (default: MODEL.ranges.npz or calibration.npz beside the model)",
    )
    c.add_argument(
        "--weights",
        type=int,
        default=8,
        choices=(8, 4, 2),
        help="bits of the weights of every linear layer and convolution without groups that reads int8 (default: 8)",
    )
    c.add_argument(
        "--bits",
        action="append",
        metavar="LAYER=PRECISION",
        help="bits of one layer's weights and of what it reads: w8a8, w4a8, w4a4, w2a8 or w2a4; or a .toml or .json"
        " file with such pairs; may be repeated",
    )


def limit_options(c: argparse.ArgumentParser) -> None:
    """Of `compile`: what the result may cost, and what it is."""
    c.add_argument("--flash", help="most flash allowed, such as 1M")
    c.add_argument(
        "--ram",
        help="most RAM allowed (state + arena + stack), such as 128K; convolutions that need more run in patches",
    )
    c.add_argument("--ram-with-io", help="the same with the caller's input and output buffers")
    c.add_argument(
        "--place",
        default="flash",
        choices=("flash", "fast"),
        help="fast: what is used most per byte of constants, state and arena lies in the target's fast memories (TCM)"
        " while it fits (default: constants in flash, the rest in RAM)",
    )
    c.add_argument("--latency", help="longest call allowed (a frame, or an inference), such as 10ms")
    c.add_argument("--emit", default="c", choices=("c", "image"), help="image: keep the linked image as well")
    c.add_argument("--toolchain", default="zig", choices=("zig", "gcc"))


def form_options(c: argparse.ArgumentParser) -> None:
    """Of `compile`: what one call takes and returns."""
    c.add_argument(
        "--time-axis", type=int, help="input axis that counts frames (default: 1 if the model has ops on sequences)"
    )
    c.add_argument(
        "--whole",
        action="store_true",
        help="one call takes the whole window: no streaming step (as without a time axis)",
    )
    c.add_argument(
        "--sliding",
        action="store_true",
        help="a call takes new frames and runs the network on its whole window of the last ones (default for models"
        " that ask for it, such as ttm)",
    )
    c.add_argument("--hop", type=int, help="frames a call takes when the window slides (default: 1)")
    c.add_argument(
        "--output",
        action="append",
        metavar="NAME",
        help="a result to return, by field or place; may be repeated (default: all, of a record its first field)",
    )


def code_options(c: argparse.ArgumentParser) -> None:
    """Of `compile`: how the code is chosen, and what is shown of that."""
    c.add_argument(
        "--no-drop-constant-channels",
        action="store_true",
        help="compute channels too that are the same for every input (the output bytes are the same)",
    )
    c.add_argument(
        "--goal",
        default="latency",
        choices=("latency", "size"),
        help="size: layers share kernels that take their shapes from a table, and the C is compiled with -Os (default:"
        " a kernel of exact shape for each layer, -O2)",
    )
    c.add_argument(
        "--tune",
        nargs="?",
        const=default_cache(),
        metavar="CACHE",
        help="run every kernel variant that fits a layer on the emulator and keep the fastest; measurements are kept in"
        " a file (default: edgec/tune.json in the user's cache folder)",
    )
    c.add_argument(
        "--profile",
        choices=("dwt",),
        help="dwt: the step reads the core's cycle counter (DWT->CYCCNT) around each layer into its last argument, an"
        " array of the caller's",
    )
    c.add_argument("--dump-ir", metavar="DIR", help="write the graph after every pass")


def add_calibrate(commands: Any) -> None:
    """`calibrate`."""
    k = commands.add_parser("calibrate", help="write the statistics of calibration data, to ship in place of the data")
    k.add_argument("model", help="as for compile")
    data = k.add_mutually_exclusive_group(required=True)
    data.add_argument("--calibration", help=".npz of samples, as for compile")
    data.add_argument("--data", metavar="DIR", help="of a shipped model: folder with the data set it was trained on")
    k.add_argument("-o", "--out", help="the file to write (default: MODEL.ranges.npz beside the model)")
    k.add_argument("--time-axis", type=int, help="as for compile")


def add_folder_commands(commands: Any) -> None:
    """What runs a compiled folder."""
    r = commands.add_parser("run", help="run a compiled model on a wav clip or a series")
    r.add_argument("folder")
    r.add_argument(
        "clip",
        help="sound file (.wav, .flac; its channels are mixed down, its rate is made the model's), .npy with one input,"
        " .csv with a line a sample and a column a channel, or .npz with an array for each input by name",
    )
    r.add_argument("--on", choices=KINDS, help=ON_HELP)
    r.add_argument("--stream", action="store_true", help="print the scores of every frame, not only the last")
    r.add_argument("--labels", help="text file with one class name a line")

    p = commands.add_parser("profile", help="count instructions per layer and per frame on the emulated core")
    p.add_argument("folder")
    p.add_argument("--clip", help="input to count on (default: the calibration set's first)")
    p.add_argument("--html", metavar="FILE", help="write the table as a page")

    v = commands.add_parser(
        "verify",
        help="compare every layer with its reference, and the outputs with the network as it was trained, over the"
        " whole sequence; name what diverges first",
    )
    v.add_argument("folder")
    v.add_argument("--clip", help="input to compare on (default: the calibration set's first)")
    v.add_argument("--on", choices=KINDS, help=ON_HELP)
    v.add_argument(
        "--model",
        metavar="FILE",
        help="the original (.pt, .pt2, .onnx, .tflite or a shipped model's name), to be run by torch, onnxruntime or"
        " LiteRT (default: the float network that compile kept)",
    )
    v.add_argument(
        "--tolerance",
        type=float,
        metavar="DB",
        help="least signal to error of the outputs (default: 60 for float, 10 for integers and where neurons spike)",
    )


def add_shipped_commands(commands: Any) -> None:
    """What is about the shipped models."""
    m = commands.add_parser("models", help="list the shipped models with the figures of their cards")
    m.add_argument("--json", action="store_true", help="print the figures as JSON")

    d = commands.add_parser("card", help="measure a shipped model on its test data and write its card")
    d.add_argument("name", help="a name from `edgec models`")
    what = d.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", help="folder with the test data; an error names the files it must hold")
    what.add_argument("--targets-only", action="store_true",
                      help="measure sizes and instructions again, keep the same checkpoint's accuracies")  # fmt: skip
    d.add_argument("--precision", default="int8,float32", help="comma-separated: int8,float32 (default: both)")
    d.add_argument("--quick", action="store_true", help="the first test inputs only; prints the card, writes nothing")


def add_inner_commands(commands: Any) -> None:
    """What shows the compiler's own parts."""
    commands.add_parser("targets", help="list the targets")
    commands.add_parser("ops", help="list the ops and which rules each has")

    o = commands.add_parser("opt", help="run passes on the text form of a graph")
    o.add_argument("file", help="graph in text form (.ir), or - for standard input")
    o.add_argument(
        "--passes", default="", help="comma-separated: fold_constants,assign_layout,fold_batchnorm,fuse,make_streaming"
    )


def parser() -> argparse.ArgumentParser:
    """All commands and their options; docs/cli.md is generated from this."""
    top = argparse.ArgumentParser(
        prog="edgec",
        description="Compile trained networks to streaming C libraries.",
        epilog="Exit codes: 0 done; 2 an error that you can mend; 70 a fault of edgec's own, with a file for a report;"
        " 128 + N ended by signal N.",
    )
    top.add_argument("--version", action="version", version=f"edgec {edgec.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    compiling = commands.add_parser("compile", help="compile a model for a target")
    for add_options in (model_options, limit_options, form_options, code_options):
        add_options(compiling)
    for add_commands in (add_calibrate, add_folder_commands, add_shipped_commands, add_inner_commands):
        add_commands(commands)
    return top


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command as an exception does: temporary folders go, the exit code is 128 + signal."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one must not stop the cleaning up
        sys.exit(128 + number)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # Python takes signals there alone
        known = [getattr(signal, n) for n in ("SIGTERM", "SIGHUP") if hasattr(signal, n)]
        before = {n: signal.signal(n, end) for n in known if signal.getsignal(n) is signal.SIG_DFL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_filled(arguments: argparse.Namespace) -> None:
    """InputError for an option or argument that is given and empty, as a variable of the shell that is not set is."""
    for name, value in vars(arguments).items():
        if value == "" and name != "passes":
            raise InputError(f"{name.replace('_', '-')}: expected a value, found ''", hint="leave it out, or fill it")


def print_any_text() -> None:
    """Names that the terminal's encoding lacks are printed with escapes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 2 for what the user can mend, 70 for a fault of edgec's own."""
    print_any_text()
    arguments = parser().parse_args(argv)
    try:
        with ended_by_signals(), guarding(f"edgec {arguments.command}", vars(arguments)):
            from edgec import commands

            check_filled(arguments)
            getattr(commands, f"{arguments.command}_command")(arguments)
            sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # nobody reads on: nor what is flushed at exit  # noqa: SIM115
        return 1
    except EdgecError as err:
        print(f"edgec: error: {err.for_shell()}", file=sys.stderr)
        return 70 if isinstance(err, InternalError) else 2
    except KeyboardInterrupt:
        print("edgec: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
