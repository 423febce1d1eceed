"""Kernels as C99 text. It needs edgec_simd.h and edgec_math.h in front of it, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.c_expr import C_TYPES, helper_text
from edgec.backends.c_text import Function, comment_text, head_text, print_function
from edgec.backends.kernel import NamedKernel
from edgec.backends.names import KEYWORDS

INLINE = "EDGEC_INLINE"  # of edgec_simd.h


def emit_c(kernels: Sequence[NamedKernel], storage: str = "static") -> str:
    """All kernels as C functions `storage void symbol(pointers)`; storage "" makes them extern.

    CodegenError names the kernel whose text is wrong or writes to what it may not.
    """
    from edgec.backends import tvm_adapter  # seconds of import time, wanted only here

    funcs = tvm_adapter.functions(tvm_adapter.lower(kernels))
    printed = [print_function(k, funcs[k.symbol]) for k in kernels]
    helpers = sorted(set().union(*(f.helpers for f in printed)))
    parts = [helper_text(name, INLINE) for name in helpers]
    parts += [function_text(k, f, f"{storage} void".strip()) for k, f in zip(kernels, printed, strict=True)]
    return "\n".join(parts)


def declarations(kernels: Sequence[NamedKernel]) -> str:
    """Prototypes of the kernels, for storage "" and callers in another file."""
    lines = []
    for k in kernels:
        lines.append(head_text(f"void {k.symbol}", list(pointer_params(k).values())).removesuffix(" {") + ";")
    return "\n".join(lines) + "\n"


def pointer_params(named: NamedKernel) -> dict[str, str]:
    """Declarations of a function with the kernel's parameters, by the names the function gives them."""
    out = {}
    for name, _, kind in named.kernel.params:
        safe = f"{name}_" if name in KEYWORDS else name
        out[safe] = f"{'' if name in named.writable else 'const '}{C_TYPES[kind]} *{safe}"
    return out


def function_text(named: NamedKernel, func: Function, prefix: str) -> str:
    """One function with its comment."""
    head = head_text(f"{prefix} {named.symbol}", func.params)
    return f"{comment_text(named.comment)}{head}\n" + "\n".join([*func.body, "}"]) + "\n"
