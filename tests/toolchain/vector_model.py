"""A model made from a list of C expressions: its step applies each of them to vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edgec.runtime import all_headers, header_text

_HEADER = """#ifndef VEC_H
#define VEC_H
#include "edgec.h"
#define VEC_ARENA_BYTES 0
typedef struct {
    int32_t frames;
} vec_state;
int vec_init(vec_state *s);
int vec_reset(vec_state *s);
int vec_step(vec_state *s, void *arena, PARAMS);
int vec_flush(vec_state *s, void *arena, OUTS);
#endif
"""
_SOURCE = """#include "vec.h"
#include "edgec_simd.h"
#include "edgec_map.h"
int vec_init(vec_state *s) { s->frames = 0; return 0; }
int vec_reset(vec_state *s) { s->frames = 0; return 0; }
int vec_step(vec_state *s, void *arena, PARAMS) {
    (void)arena;
    for (int i = 0; i < COUNT; i++) {
BODY
    }
    s->frames++;
    return 1;
}
int vec_flush(vec_state *s, void *arena, OUTS) { (void)s; (void)arena; UNUSED return 0; }
"""


def make_model(
    root: Path, inputs: Sequence[str], expressions: Sequence[str], ctype: str, dtype: str, count: int
) -> Path:
    """Output i of step is expression i of the inputs' elements, where `x[i]` is written `x`."""
    outs = [f"out{k}" for k in range(len(expressions))]
    text = {
        "PARAMS": ", ".join([f"const {ctype} *p_{n}" for n in inputs] + [f"{ctype} *{o}" for o in outs]),
        "OUTS": ", ".join(f"{ctype} *{o}" for o in outs),
        "UNUSED": " ".join(f"(void){o};" for o in outs),
        "COUNT": str(count),
        "BODY": "\n".join(
            [f"        {ctype} {n} = p_{n}[i]; (void){n};" for n in inputs]
            + [f"        {o}[i] = {e};" for o, e in zip(outs, expressions, strict=True)]
        ),
    }
    header, source = _HEADER, _SOURCE
    for key, value in text.items():
        header, source = header.replace(key, value), source.replace(key, value)
    size = count * 4

    def tensor(name: str) -> dict[str, object]:
        return {"name": name, "ctype": ctype, "dtype": dtype, "shape": [count], "bytes": size}

    manifest = {
        "name": "vec", "target": "host", "sources": ["vec.c"], "prefix": "vec", "state_bytes": 4,
        "arena_bytes": 0, "delay": 0, "inputs": [tensor(n) for n in inputs],
        "outputs": [tensor(o) for o in outs], "nodes": [],
    }  # fmt: skip
    folder = root / "vec"
    folder.mkdir()
    (folder / "vec.h").write_text(header)
    (folder / "vec.c").write_text(source)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for name in all_headers():
        (folder / name).write_text(header_text(name))
    return folder
