"""Kernels as an object file by TVM's LLVM, for targets where its vectoriser earns more than the C compiler's.

The runtime's functions are `static inline`, so the object calls wrappers that the model's C file defines. Integer
results equal those of the C backend; float results may differ in the last bits, because TVM lets LLVM fuse a
multiplication with an addition.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgec.backends.c import declarations
from edgec.backends.c_expr import C_TYPES, Externs
from edgec.backends.c_text import print_function
from edgec.backends.kernel import NamedKernel
from edgec.errors import CodegenError
from edgec.target import Target


def emit_object(
    kernels: Sequence[NamedKernel], triple: str, mcpu: str = "", mattr: Sequence[str] = (), prefix: str = ""
) -> bytes:
    """The kernels as one object file. `prefix` stands before every symbol it defines or needs.

    CodegenError names the kernel whose text is wrong, or quotes LLVM.
    """
    from edgec.backends import tvm_adapter  # seconds of import time, wanted only here

    target: dict[str, Any] = {"kind": "llvm", "mtriple": triple}
    target |= {"mcpu": mcpu} if mcpu else {}
    target |= {"mattr": list(mattr)} if mattr else {}
    module = tvm_adapter.lower([_prefixed(k, prefix) for k in kernels], vectorize=True)
    with tempfile.TemporaryDirectory(prefix="edgec-") as work:
        path = Path(work) / "kernels.o"
        tvm_adapter.build_object(module, target, path)
        return path.read_bytes()


def wrappers(kernels: Sequence[NamedKernel], prefix: str) -> str:
    """C functions `prefix` + edgec_* that pass on to the runtime's inline functions of the same name."""
    text = []
    for name, (result, kinds) in sorted(_externs(kernels).items()):
        c = [C_TYPES[k.removesuffix("*")] + (" *" if k.endswith("*") else " ") for k in kinds]
        params = ", ".join(f"{kind}a{k}" for k, kind in enumerate(c)) or "void"
        call = f"{name}({', '.join(f'a{k}' for k in range(len(c)))})"
        head = f"{'void' if result == 'void' else C_TYPES[result]} {prefix}{name}({params})"
        text.append(f"{head};\n{head} {{\n    {'' if result == 'void' else 'return '}{call};\n}}\n")
    return "\n".join(text)


def emit_object_files(name: str, kernels: Sequence[NamedKernel], target: Target) -> tuple[str, dict[str, bytes]]:
    """C text for the model's source (prototypes and wrappers) and the object file beside it, by file name."""
    if not target.llvm_triple:
        raise CodegenError(f"target {target.name} has no [llvm] triple", hint='use backend = "c", or add one')
    prefix = f"{name}_"
    data = emit_object(kernels, target.llvm_triple, target.llvm_mcpu, target.llvm_mattr, prefix)
    aliases = "".join(f"#define {k.symbol} {prefix}{k.symbol}\n" for k in kernels)
    head = f"/* The kernels are in {name}_kernels.o. */\n{aliases}"
    text = f"{head}\n{declarations(kernels)}\n{wrappers(kernels, prefix)}"
    return text, {f"{name}_kernels.o": data}


def _externs(kernels: Sequence[NamedKernel]) -> Externs:
    """What the kernels call, with types."""
    from edgec.backends import tvm_adapter

    funcs = tvm_adapter.functions(tvm_adapter.lower(kernels))
    found: dict[str, Any] = {}
    for k in kernels:
        found |= print_function(k, funcs[k.symbol]).externs
    return found


def _prefixed(named: NamedKernel, prefix: str) -> NamedKernel:
    """The kernel under another symbol, its calls of the runtime likewise."""
    body = named.kernel.body.replace('"edgec_', f'"{prefix}edgec_')
    return replace(named, symbol=f"{prefix}{named.symbol}", kernel=replace(named.kernel, body=body))
