"""The command line: parse arguments, call, print. Errors a user can mend end with exit code 2 and no traceback."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import edgec
from edgec.config import PLACES
from edgec.errors import EdgecError, InputError, InternalError
from edgec.flags import add_choices
from edgec.guard import guarding
from edgec.options import GROUPS, Form
from edgec.target import KINDS

ON_HELP = (
    "device; emulator is the target's own, one of unicorn, qemu and qemu-aarch64 (default: host where this computer can"
    " run the folder's code, else the first device of its target)"
)


def add_compile(commands: Any) -> None:
    """`compile`: what docs/options.md lists, and what is no choice."""
    c = commands.add_parser("compile", help="compile a model for a target")
    c.add_argument("model", nargs="?", help=PLACES["model"].metadata["help"])
    c.add_argument(
        "--config",
        metavar="FILE",
        help="choices from a file (edgec.toml), which may name the model too; what the command line says wins",
    )
    c.add_argument(
        "--show-options", action="store_true", help="print the choices that count as such a file, and compile nothing"
    )
    c.add_argument("--dump-ir", metavar="DIR", help="write the graph after every pass")
    add_choices(c, [f for f in PLACES.values() if f.name != "model"])
    for name, group in GROUPS.items():
        add_choices(c.add_argument_group(name, (group.__doc__ or "").splitlines()[0]), dataclasses.fields(group))


def add_calibrate(commands: Any) -> None:
    """`calibrate`."""
    k = commands.add_parser("calibrate", help="write the statistics of calibration data, to ship in place of the data")
    k.add_argument("model", help="as for compile")
    data = k.add_mutually_exclusive_group(required=True)
    data.add_argument("--calibration", help=".npz of samples, as for compile")
    data.add_argument("--data", metavar="DIR", help="of a shipped model: folder with the data set it was trained on")
    k.add_argument("-o", "--out", help="the file to write (default: MODEL.ranges.npz beside the model)")
    k.add_argument("--config", metavar="FILE", help="as for compile; its [form] counts")
    add_choices(k, dataclasses.fields(Form))


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
        "--passes", default="", help="comma-separated: canonicalize,assign_layout,fold_batchnorm,fuse,make_streaming"
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
    for add_commands in (add_compile, add_calibrate, add_folder_commands, add_shipped_commands, add_inner_commands):
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
