"""Whatever a model calls its parts, and whatever it returns, the library compiles, links and gives what torch gives."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgec.backends.c import emit_c
from edgec.backends.emit import name_kernels, write_folder
from edgec.backends.library import write_library
from edgec.backends.names import KEYWORDS, LOCALS, LONGEST, MEMBERS, RESERVED, comment_safe, identifier, library_name
from edgec.device import open_device
from edgec.ir.evaluate import StepRunner
from edgec.ir.graph import Const, Graph, Node, State, Value
from edgec.ir.types import TensorType
from edgec.ir.verify import verify
from edgec.kernels import select
from edgec.ops import Affine, Relu
from edgec.ops.timeline import Delay
from edgec.plan import make_plan
from edgec.runtime import all_headers, header_text, headers_for
from edgec.target import load_target
from edgec.toolchain import compilers
from edgec.toolchain.command import run_command

HOST = load_target("host")
C99 = """auto break case char const continue default do double else enum extern float for goto if inline int long
register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while _Bool
_Complex _Imaginary _Static_assert _Atomic _Noreturn _Generic _Thread_local __func__ __asm__ __attribute__"""
CPP = """alignas and and_eq asm bitand bitor bool catch char16_t class co_await compl concept consteval const_cast
constexpr decltype delete explicit export false final friend import module mutable namespace new noexcept not not_eq
nullptr operator or or_eq override private protected public requires static_cast template this throw true try typeid
typename using virtual wchar_t xor xor_eq thread_local"""
MACROS = """NULL EOF I INT8_MAX UINT32_MAX INT8_C UINT64_C SIZE_MAX CHAR_BIT INT_MIN LLONG_MAX errno assert offsetof
stdin stderr linux unix i386 __LINE__ __STDC__ SIG_IGN M_PI NAN BUFSIZ RAND_MAX SEEK_SET"""
LIBC = """main memcpy memset memmove malloc free printf read write open close environ exit abort signal index size_t
ssize_t int8_t uint32_t intptr_t uintptr_t ptrdiff_t pthread_t pid_t FILE time_t va_list sin expf round max min abs"""
GENERATED = """edgec edgec_math edgec_memcpy edgec_memset edgec_mark edgec_cycles_now EDGEC_OK EDGEC_ALIGN EDGEC_E_ARG
EDGEC_UNUSED EDGEC_INLINE edgec_harness edgec_image s arena state frame flushed cycles since turn row run ready magic
MAGIC reserved tail c_x c_c fill_0 k0_affine k0_relu t_ in_s out_y in_double net_state net_init net_step NET_H i id"""
ODD = ["", " ", "_", "__", "0", "9lives", "3.14", "a.b", "a b", "a-b", "a_b", "A_B", "x", "X", "x/y:0", "ñandú", "模型",
       "Ωmega", "e\u0301", "é", "\u202eevil", "*/", "/*", "??/", "\\", '"', "%s", "{{ x }}", "a\nb", "tab\t", "\ud800",
       "x" * 300, "x" * 299 + "y", "Double", "DOUBLE", "serving_default_x:0", "😀", "\x00", "a'b"]  # fmt: skip
HEADER_NAMES = """stdint math string signal time arm_mve Stdlib limits pthread sem con NUL com1 harness port
port_cortex_m net_weights net_kernels edgec_simd Edgec kws-v1.2"""


def every_name() -> list[str]:
    """Every kind above, and strings drawn from all of Unicode's planes."""
    rng = np.random.default_rng(0)
    drawn = ["".join(map(chr, rng.integers(1, 0x3000, rng.integers(1, 12)))) for _ in range(40)]
    words = " ".join([C99, CPP, MACROS, LIBC, GENERATED, HEADER_NAMES]).split()
    return list(dict.fromkeys([*words, *RESERVED, *ODD, *drawn]))


def named_graph(inputs: list[str], outputs: list[str], consts: list[str], states: list[str]) -> Graph:
    """One path a name: the input times a constant, a frame late."""
    t, late = TensorType((1, 1, 2), time_axis=1), TensorType((1, 1, 2))
    nodes = []
    for k, (x, y, c, s) in enumerate(zip(inputs, outputs, consts, states, strict=True)):
        nodes.append(Node(Affine(axis=2), (x, c, c), (f"path {k}",), (t,), (f"{x}.py:{k}",)))
        nodes.append(Node(Delay(1), (f"path {k}",), (y,), (t,), (), (s,)))
    values = {c: Const(np.float32([k + 1, -k]), TensorType((2,))) for k, c in enumerate(consts)}
    kept = tuple(State(s, late) for s in states)
    graph = Graph("net", tuple(Value(x, t) for x in inputs), values, tuple(nodes), tuple(outputs), kept, True)
    verify(graph)
    return graph


def c_compilers() -> list[str]:
    """gcc where it is there, and clang: its own program or zig's."""
    return [*(["gcc"] if shutil.which("gcc") else []), "clang" if shutil.which("clang") else "zig"]


def check_header(headers: list[str], folder: Path) -> None:
    """The headers together as a C++ translation unit."""
    source = folder / "all.cpp"
    source.write_text("".join(f'#include "{h}"\n' for h in headers) + "int main() { return 0; }\n")
    programs = [[p] for p in ("g++", "clang++") if shutil.which(p)] or [[sys.executable, "-m", "ziglang", "c++"]]
    for program in programs:
        argv = [*program, "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-c", str(source)]
        run_command([*argv, "-o", str(folder / "all.o")], "compiling the headers as C++")


@pytest.mark.parametrize("role", ["inputs and states", "outputs and constants"])
def test_every_name_of_a_tensor(role: str, tmp_path: Path) -> None:
    names = every_name()
    plain = [[f"{stem}{k}" for k in range(len(names))] for stem in ("p", "q", "r")]
    if role == "inputs and states":  # which lie in one namespace of the graph, so they differ by a dot
        graph = named_graph(names, plain[0], plain[1], [f"{n}." for n in names])
    else:
        graph = named_graph(plain[0], names, [f"{n}." for n in names], plain[1])
    write_folder(graph, HOST, tmp_path)
    check_header(["net.h"], tmp_path)
    rng, runner = np.random.default_rng(1), StepRunner(graph)
    frames = [[rng.normal(size=(1, 1, 2)).astype(np.float32) for _ in names] for _ in range(3)]
    expected = [
        runner.step({v.name: torch.from_numpy(x) for v, x in zip(graph.inputs, f, strict=True)}) for f in frames
    ]
    for cc in c_compilers():
        with open_device("host", tmp_path, cc=cc, opt="-O0") as device:
            for frame, outs in zip(frames, expected, strict=True):
                for found, y in zip(device.step(frame), outs, strict=True):
                    np.testing.assert_array_equal(found, y.numpy())


def test_every_name_of_a_model(tmp_path: Path) -> None:
    """Those that a file, a header or a function could clash with, all in one folder and one library."""
    x = TensorType((1, 4))
    graph = Graph("net", (Value("x", x),), {}, (Node(Relu(), ("x",), ("y",), (x,)),), ("y",))
    plan = make_plan(graph, lambda op, site: select(op, site, HOST.isa))
    symbols, kernels = name_kernels(plan.every_call)
    text = emit_c(kernels)
    headers = headers_for(text)[1:]
    for header in all_headers():
        (tmp_path / header).write_text(header_text(header))
    likely = [*ODD, *" ".join([HEADER_NAMES, GENERATED, LIBC]).split()]  # a tenth of the others: each costs a compile
    names = list(dict.fromkeys(map(library_name, [*likely, *every_name()[::10]])))
    assert len({n.lower() for n in names}) > 120
    for name in names:
        files = write_library(
            replace(plan, graph=replace(graph, name=name)), text, symbols, summary="", target="host", headers=headers
        )
        for file, content in files.items():
            assert not (tmp_path / file).exists(), f"{name} hides {file}"
            (tmp_path / file).write_text(content)
    check_header([f"{n}.h" for n in names], tmp_path)
    sources = [str(tmp_path / f"{n}.c") for n in names]
    flags = [*compilers.CODE_FLAGS, *compilers.WARNINGS, "-O0", "-fPIC", "-shared", "-I", str(tmp_path)]
    run_command([*compilers.host_cc(), *flags, *sources, "-o", str(tmp_path / "all.so")], "compiling every model")


def test_an_identifier_is_one() -> None:
    for name in every_name():
        for found in (identifier(name), library_name(name)):
            assert re.fullmatch("[A-Za-z][A-Za-z0-9_]*", found)
            assert len(found) <= LONGEST + len("model_")
        shown = comment_safe(name)
        assert shown.isprintable()
        assert "*/" not in shown
        assert "/*" not in shown


def test_long_names_that_end_differently_differ() -> None:
    assert identifier("x" * 300) != identifier("x" * 299 + "y")


def test_a_plain_name_stays_as_it_is() -> None:
    for name in ("x", "audio_pcm", "layer1", "X", "h_t", "c_0", "in", "out", "Input", "logits"):
        assert identifier(name) == name
        assert name not in KEYWORDS | LOCALS | MEMBERS
    assert library_name("lmuformer") == "lmuformer"
    assert library_name("kws-v1.2") == "kws_v1_2"
