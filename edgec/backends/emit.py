"""Write the folder of a compiled model: library, runtime headers, manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgec.backends.kernel import NamedKernel, source_text
from edgec.backends.library import Names, manifest, write_library, write_weights
from edgec.backends.names import comment_safe, library_name
from edgec.backends.share import keep_once, share
from edgec.backends.weights import binary_consts
from edgec.ir.graph import Graph
from edgec.kernels import select
from edgec.options import DEFAULTS, Code
from edgec.passes.own_outputs import OwnOutputs
from edgec.plan import Call, Plan, Tiling, make_plan
from edgec.plan.calls import Select
from edgec.plan.memory import place_memory
from edgec.runtime import header_text, headers_for
from edgec.target import Target

#: goal -> how the C is to be compiled
OPT = {"latency": "-O2", "size": "-Os"}


def name_kernels(calls: Sequence[Call]) -> tuple[dict[tuple[int, int], str], list[NamedKernel]]:
    """One function per distinct kernel: nodes with the same text share it."""
    symbols: dict[tuple[int, int], str] = {}
    seen: dict[str, str] = {}
    kernels = []
    for call in calls:
        text = source_text(call.kernel) + str(call.in_place)
        if text not in seen:
            part = f"_{call.part}" if call.part else ""
            seen[text] = f"k{call.index}{part}_{call.node.op.name}"
            kernels.append(NamedKernel(
                seen[text], call.kernel, writable_params(call),
                comment=comment_safe(f"{call.node.op.name}, {call.variant}"), where="; ".join(call.node.source),
                restrict=not call.in_place,
            ))  # fmt: skip
        symbols[call.key] = seen[text]
    return symbols, kernels


def writable_params(call: Call) -> frozenset[str]:
    """Names of the parameters a kernel stores to: states, outputs and scratch."""
    outputs = () if call.node.op.output_is_state else call.node.outputs
    written = {*call.node.states, *outputs}
    names = {p[0] for p, a in zip(call.kernel.params, call.args, strict=True) if a in written}
    return frozenset(names | ({call.kernel.params[-1][0]} if call.kernel.scratch else set()))


def write_folder(
    graph: Graph,
    target: Target,
    folder: Path,
    code: Code = DEFAULTS.code,
    *,
    tiling: Tiling | None = None,
    choose: Select | None = None,
    names: Names | None = None,
) -> Plan:
    """Generate code for a graph; the files of the library and manifest.json appear in `folder`.

    code: of it `place`, `goal` and `profile` are read. choose: maps an op and its site to a kernel variant, by default
    the first that fits; names: what the user calls inputs and outputs."""
    tiled = tiling if target.backend != "cuda" else None
    graph = OwnOutputs().run(replace(graph, name=library_name(graph.name)))
    plan = make_plan(graph, choose or (lambda op, site: select(op, site, target.isa)), tiled)
    plan = keep_once(share(plan) if code.goal == "size" and target.backend == "c" else plan)
    plan = replace(plan, items=place_memory(plan, target, code.place, binary_consts(plan.consts)))
    symbols, kernels = name_kernels(plan.every_call)
    sources = [f"{graph.name}.c"]
    if target.backend == "c":
        from edgec.backends.c import emit_c

        text = emit_c(kernels)
    elif target.backend == "llvm":
        from edgec.backends.llvm import emit_object_files

        text, objects = emit_object_files(graph.name, kernels, target)
        for name, data in objects.items():
            (folder / name).write_bytes(data)
        sources += list(objects)
    else:
        from edgec.backends.cuda import write_cuda_library

        return write_cuda_library(plan, symbols, kernels, target, folder, names)
    cycles = code.profile == "dwt"
    headers = headers_for(text + ("edgec_cycles_" if cycles else ""))
    files = write_library(
        plan, text, symbols, summary=summary(graph), target=target.name, headers=headers[1:], cycles=cycles
    )
    sources += write_weights(plan, folder)
    about = manifest(plan, symbols, target=target.name, sources=sources, cycles=cycles, names=names)
    about["opt"] = OPT[code.goal]
    files |= {h: header_text(h) for h in headers} | {"manifest.json": json.dumps(about, indent=1) + "\n"}
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return plan


def summary(graph: Graph) -> str:
    """One line about a graph."""
    return f"{len(graph.nodes)} nodes, delay {graph.delay} frames"
