"""Weights of large models in binary: <name>_weights.bin beside an assembler source that gives each its symbol.

A C compiler takes seconds and hundreds of megabytes for a million literals; an assembler copies a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgec.backends.environment import environment
from edgec.errors import CodegenError

Consts = Mapping[str, np.ndarray[Any, Any]]
LARGE_MODEL = 2 << 20  # bytes of constants from which on a model counts as large; smaller ones are C text throughout
LARGE_CONST = 4 << 10  # bytes from which on a large model's constant goes to the file
_ALIGN = 64


def binary_consts(consts: Consts) -> frozenset[str]:
    """Names of the constants that are not C text."""
    if sum(a.nbytes for a in consts.values()) < LARGE_MODEL:
        return frozenset()
    return frozenset(name for name, a in consts.items() if a.nbytes >= LARGE_CONST)


def weight_files(model: str, version: str, consts: Consts, symbols: Mapping[str, str]) -> dict[str, bytes]:
    """<model>_weights.bin and <model>_weights.S by file name; nothing for a small model.

    CodegenError for a value that is not finite.
    """
    names = [name for name in consts if name in binary_consts(consts)]
    if not names:
        return {}
    rows, data = [], bytearray()
    for name in names:
        array = consts[name]
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CodegenError(f"constant {name} holds a value that is not finite")
        rows.append({"symbol": symbols[name], "offset": len(data), "size": array.nbytes})
        data += np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        data += bytes(-len(data) % _ALIGN)
    # The digest is there for compilers' caches: they watch the source, not the file it takes in.
    context = {"name": model, "version": version, "digest": hashlib.sha256(data).hexdigest(), "rows": rows}
    text = environment().get_template("weights.S.j2").render(context, align=_ALIGN)
    return {f"{model}_weights.S": text.encode(), f"{model}_weights.bin": bytes(data)}
