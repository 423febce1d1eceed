"""Kernels as CUDA C, and the library around them.

Every top-level T.parallel loop is one launch with a thread per iteration; everything else runs in one thread, in the
order of the text. Device memory belongs to the instance: state, arena, weights, inputs and outputs lie in one block
that init allocates. The C API is that of the C backend, with <name>_free added.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from edgec.backends.c import function_text, pointer_params
from edgec.backends.c_expr import Unsupported, helper_text, kind_of
from edgec.backends.c_text import Function, FunctionPrinter, comment_text, head_text, statements
from edgec.backends.environment import environment
from edgec.backends.kernel import NamedKernel
from edgec.backends.library import VERSION, Names, Writer, manifest, wrap_frame, write_weights
from edgec.plan import Plan
from edgec.runtime import headers_for, runtime_file
from edgec.target import Target

THREADS, FEW_THREADS = (128, 32), 4096  # per block; small blocks spread a few threads over the processors
RESTRICT = "EDGEC_RESTRICT"  # of edgec.h: C++ has no restrict
INLINE = "static inline EDGEC_UNUSED"
_PARALLEL = 1  # tirx.ForKind


def block_of(threads: int) -> int:
    """How many of them make a block."""
    return min(threads, THREADS[1] if threads <= FEW_THREADS else THREADS[0])


@dataclass(frozen=True)
class Launch:
    """One __global__ function: `threads` iterations on those `params` of the kernel it touches."""

    function: str
    threads: int
    params: tuple[str, ...]

    @property
    def grid(self) -> int:
        return -(-self.threads // self.block)

    @property
    def block(self) -> int:
        return block_of(self.threads)


@dataclass(frozen=True)
class CudaKernels:
    """Text of the __global__ functions, and the launches each kernel consists of, in order."""

    text: str
    launches: Mapping[str, tuple[Launch, ...]]

    def launcher(self, named: NamedKernel) -> str:
        """A host function with the kernel's symbol and parameters (device pointers) that launches it."""
        params = pointer_params(named)
        safe = dict(zip((p[0] for p in named.kernel.params), params, strict=True))
        calls = [
            f"    EDGEC_LAUNCH({run.function}, {run.grid}, {run.block}, {', '.join(safe[p] for p in run.params)});"
            for run in self.launches[named.symbol]
        ]
        head = head_text(f"static void {named.symbol}", list(params.values()))
        return "\n".join([head, *calls, "}"]) + "\n"


def emit_cuda(kernels: Sequence[NamedKernel]) -> CudaKernels:
    """All kernels as __global__ functions. CodegenError as `emit_c`."""
    from edgec.backends import tvm_adapter  # seconds of import time, wanted only here

    funcs = tvm_adapter.functions(tvm_adapter.lower(kernels, parallel=True))
    helpers: set[str] = set()
    parts: list[str] = []
    launches: dict[str, tuple[Launch, ...]] = {}
    for k in kernels:
        parts.append(comment_text(k.comment).rstrip())
        rows = []
        for number, piece in enumerate(split(funcs[k.symbol].body)):
            name = f"{k.symbol}_{number}"
            function, threads, used = print_piece(k, funcs[k.symbol], piece)
            parts.append(function_text(NamedKernel(name, k.kernel, k.writable), function, "static __global__ void"))
            helpers |= function.helpers
            rows.append(Launch(name, threads, used))
        launches[k.symbol] = tuple(rows)
    text = [helper_text(name, INLINE) for name in sorted(helpers)]
    return CudaKernels("\n".join([*text, *(p for p in parts if p)]), launches)


def split(body: Any) -> list[list[Any]]:
    """Top-level statements in groups, one launch each: a parallel loop alone, the others together.

    A local buffer or binding at top level ties all that follows to one thread.
    """
    parts = [s for s in statements(body) if kind_of(s) != "DeclBuffer"]
    local = next((k for k, s in enumerate(parts) if kind_of(s) in ("AllocBuffer", "Bind")), len(parts))
    groups: list[list[Any]] = []
    for s in parts[:local]:
        alone = is_parallel(s)
        if alone or not groups or is_parallel(groups[-1][0]):
            groups.append([])
        groups[-1].append(s)
    return [*groups, parts[local:]] if local < len(parts) else groups


def is_parallel(s: Any) -> bool:
    """A loop over a constant range in any order."""
    if kind_of(s) != "For" or int(s.kind) != _PARALLEL:
        return False
    return kind_of(s.extent) == "IntImm" and kind_of(s.min) == "IntImm"


def print_piece(named: NamedKernel, func: Any, piece: list[Any]) -> tuple[Function, int, tuple[str, ...]]:
    """One group of statements as a function, how many threads run it, and the kernel's parameters it takes."""
    try:
        printer = FunctionPrinter(named, func)
        params = dict(zip((p[0] for p in named.kernel.params), printer.signature(RESTRICT), strict=True))
        for s in statements(func.body):
            if kind_of(s) == "DeclBuffer":
                printer.stmt(s)
        touched = {id_ for s in piece for id_ in printer.params_in(s)}
        used = [name for var, name in zip(func.params, params, strict=True) if hash(var) in touched]
        threads = 1
        if is_parallel(piece[0]):
            threads = _print_parallel(printer, piece[0])
        else:
            for s in piece:
                printer.stmt(s)
    except Unsupported as err:
        raise named.problem(str(err)) from err
    function = Function([params[n] for n in used], printer.lines, printer.printer.helpers, printer.printer.externs)
    return function, threads, tuple(used)


def _print_parallel(printer: FunctionPrinter, loop: Any) -> int:
    """A loop nest with one thread per iteration of its parallel loops, which nest directly."""
    loops = [loop]
    while is_parallel(loops[-1].body):
        loops.append(loops[-1].body)
    extents = [int(s.extent.value) for s in loops]
    threads = math.prod(extents)
    name = "thread"
    while any(name in scope for scope in printer.scopes):
        name += "_"
    printer.scopes[-1].add(name)
    printer.emit(f"const int32_t {name} = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x);")
    if threads % block_of(threads):
        printer.emit(f"if ({name} >= {threads}) {{")
        printer.emit("    return;")
        printer.emit("}")
    inner = threads
    for s, extent in zip(loops, extents, strict=True):
        inner //= extent
        at = name if inner == 1 else f"{name} / {inner}"
        at = at if s is loops[0] else f"{at} % {extent}"
        start = int(s.min.value)
        printer.emit(f"const int32_t {printer.declare(s.loop_var)} = {at}{f' + {start}' if start else ''};")
    printer.stmt(loops[-1].body)
    return threads


def emit_launcher(
    plan: Plan, symbols: Mapping[tuple[int, int], str], kernels: Sequence[NamedKernel], target: str
) -> dict[str, str]:
    """Text of <name>.h and <name>.cu: kernels, launchers, weights and the functions of the C API."""
    cuda, graph, writer = emit_cuda(kernels), plan.graph, Writer(plan, symbols)
    groups = writer.groups()
    consts = writer.const_rows()
    ports = [*writer.inputs, *writer.outputs]
    sizes = [plan.state_bytes, max(8, plan.arena_bytes)]
    sizes += [r["count"] * _BYTES[r["ctype"]] for r in consts] + [p.count * _BYTES[p.ctype] for p in ports]
    offsets = [0, *accumulate(-(-n // _ALIGN) * _ALIGN for n in sizes)]
    for row, at in zip(consts, offsets[2:], strict=False):
        row["offset"] = at
    context = {
        "name": graph.name, "NAME": graph.name.upper(), "version": VERSION, "target": target,
        "summary": f"{len(graph.nodes)} nodes, delay {graph.delay} frames", "groups": groups, "consts": consts,
        "inputs": writer.inputs, "outputs": writer.outputs, "members": writer.member_rows(),
        "tail": plan.state_bytes - max((m.end for m in plan.members), default=16), "state_bytes": plan.state_bytes,
        "arena_bytes": max(8, plan.arena_bytes), "arena_at": offsets[1], "block_bytes": offsets[-1],
        "delay": graph.delay, "flush_steps": graph.flush_steps, "wrap_at": (1 << 31) - 1, "wrap_to": wrap_frame(graph),
        "ready": writer.ready(),
        "places": {p.field: at for p, at in zip(ports, offsets[2 + len(consts) :], strict=False)},
        "headers": runtime_headers(cuda.text)[1:], "magic": zlib.crc32(graph.name.encode()) | 1, "kernels": cuda.text,
        "launchers": "\n".join(cuda.launcher(k) for k in kernels),
    }  # fmt: skip
    env = environment()
    return {
        f"{graph.name}.h": env.get_template("model_cuda.h.j2").render(context),
        f"{graph.name}.cu": env.get_template("model.cu.j2").render(context),
    }


def runtime_headers(text: str) -> tuple[str, ...]:
    """The headers of the runtime that kernels with this text include."""
    return ("edgec.h", "edgec_simd.h", "edgec_math.h", *(h for h in headers_for(text) if h == "edgec_map.h"))


_ALIGN = 256  # of every part of the device block
_BYTES = {"int8_t": 1, "uint8_t": 1, "int16_t": 2, "uint16_t": 2, "int32_t": 4, "uint32_t": 4, "int64_t": 8, "float": 4}


def write_cuda_library(
    plan: Plan, symbols: Mapping[tuple[int, int], str], kernels: Sequence[NamedKernel], target: Target, folder: Path,
    names: Names | None = None,
) -> Plan:  # fmt: skip
    """Write header, source, runtime headers and manifest.json into `folder`."""
    for name, content in emit_launcher(plan, symbols, kernels, target.name).items():
        (folder / name).write_text(content, encoding="utf-8")
    for header in runtime_headers("".join(k.kernel.body for k in kernels)):
        (folder / header).write_text(runtime_file(header).read_text(encoding="utf-8"), encoding="utf-8")
    sources = [f"{plan.graph.name}.cu", *write_weights(plan, folder, "host_")]
    data = manifest(plan, symbols, target=target.name, sources=sources, names=names)
    data["state_bytes"] += 8  # the pointer to device memory
    (folder / "manifest.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return plan
