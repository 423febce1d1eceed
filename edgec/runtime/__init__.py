"""The C99 files a compiled model needs: headers copied beside it, ports and the harness an image is built from."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_HERE = Path(__file__).resolve().parent
#: what a header's comment says of when generated C includes it: always, or where names have one of these in them
_INCLUDED = re.compile(r"^/\* Included (?:always|for (.*))\. \*/$", re.M)


def runtime_file(name: str) -> Path:
    """Path of one runtime file, such as "edgec_simd.h" or "port_cortex_m.c"."""
    found = list(_HERE.rglob(name))
    assert len(found) == 1, f"{len(found)} runtime files {name}"
    return found[0]


def headers_for(text: str) -> tuple[str, ...]:
    """The headers that generated C needs, in the order it includes them."""
    return tuple(name for name, parts in all_headers().items() if any(part in text for part in parts))


def header_text(name: str) -> str:
    """Text of a header that is copied beside a generated model."""
    assert name in all_headers(), f"{name} is not one of {list(all_headers())}"
    return runtime_file(name).read_text(encoding="utf-8")


@cache
def all_headers() -> dict[str, tuple[str, ...]]:
    """Every header, in the order that generated C includes them (each behind those that it includes), with the parts of
    names for which it is included."""
    found: dict[str, tuple[str, ...]] = {}

    def read(path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r'^#include "(\w+\.h)"', text, re.M):
            read(runtime_file(name))
        said = _INCLUDED.search(text)
        assert said, f"{path.name} does not say what it is included for"
        found[path.name] = tuple((said[1] or "").split(", "))

    for path in sorted(_HERE.rglob("edgec*.h"), key=lambda p: p.name):
        read(path)
    return found
