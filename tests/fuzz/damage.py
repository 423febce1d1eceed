"""Damaging files: what a broken download, half a copy, a wrong tool or a typing error makes of them. From a seed."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator
Way = Callable[[bytes, Rng], bytes]
ODD = ("-1", "0", "1e400", "nan", "-0.5", "9" * 23, '""', '"a"', "[]", "{}", "true", "null", "[[[[1]]]]")
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1 << 70, 0.5, float("nan"), float("inf")),
    *("", "a", "../x", "\0", "%", [], [1], {}, [None], ["a", "b"], {"a": 1}),
)


def place(data: bytes, rng: Rng) -> int:
    """Somewhere in the file; the beginning and the end, where headers and directories lie, as often as the rest."""
    near = int(rng.integers(0, min(len(data), 200) + 1))
    return (near, len(data) - near, int(rng.integers(0, len(data) + 1)))[rng.integers(3)]


def cut(data: bytes, rng: Rng) -> bytes:
    return data[: place(data, rng)]


def empty(data: bytes, rng: Rng) -> bytes:
    return b""


def flip(data: bytes, rng: Rng) -> bytes:
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if out:
            out[min(place(data, rng), len(out) - 1)] ^= 1 << int(rng.integers(8))
    return bytes(out)


def overwrite(data: bytes, rng: Rng) -> bytes:
    at, size = place(data, rng), int(rng.integers(1, 33))
    fill = (rng.bytes(size), b"\0" * size, b"\xff" * size)[rng.integers(3)]
    return data[:at] + fill + data[at + size :]


def remove(data: bytes, rng: Rng) -> bytes:
    at = place(data, rng)
    return data[:at] + data[at + int(rng.integers(1, 65)) :]


def insert(data: bytes, rng: Rng) -> bytes:
    at = place(data, rng)
    return data[:at] + rng.bytes(int(rng.integers(1, 65))) + data[at:]


def repeat(data: bytes, rng: Rng) -> bytes:
    at, size = place(data, rng), int(rng.integers(1, 257))
    return data[: at + size] + data[at : at + size] + data[at + size :]


def noise(data: bytes, rng: Rng) -> bytes:
    return rng.bytes(int(rng.integers(0, 400)))


BINARY: tuple[Way, ...] = (cut, empty, flip, flip, overwrite, overwrite, remove, insert, repeat, noise)


def odd_token(data: bytes, rng: Rng) -> bytes:
    """Another value in the place of a number, a string or a word."""
    text = data.decode("utf-8", "replace")
    tokens = list(re.finditer(r'-?\d[\d._eE+-]*|"[^"\n]*"|[A-Za-z_]\w*', text))
    if not tokens:
        return data
    token = tokens[rng.integers(len(tokens))]
    return (text[: token.start()] + ODD[rng.integers(len(ODD))] + text[token.end() :]).encode()


def lines(data: bytes, rng: Rng) -> bytes:
    """A line lost, twice, or in another place."""
    rows = data.split(b"\n")
    a, b = (int(rng.integers(len(rows))) for _ in range(2))
    kind = rng.integers(3)
    if kind == 0:
        del rows[a]
    elif kind == 1:
        rows.insert(b, rows[a])
    else:
        rows[a], rows[b] = rows[b], rows[a]
    return b"\n".join(rows)


def deep(data: bytes, rng: Rng) -> bytes:
    """Brackets in brackets, deeper than a parser that calls itself can follow."""
    return data + b"\nx = " + b"[" * 100_000 if rng.integers(2) else b"[" * 100_000


def other_encoding(data: bytes, rng: Rng) -> bytes:
    return data.decode("utf-8", "replace").encode("utf-16" if rng.integers(2) else "utf-8-sig")


TEXT = (*BINARY, *(odd_token,) * 8, *(lines,) * 4, deep, other_encoding)


def json_value(data: bytes, rng: Rng) -> bytes:
    """One key lost or more, or one value of another type."""
    root = json.loads(data)
    places: list[tuple[Any, Any]] = []

    def visit(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            visit(value[key])

    visit(root)
    holder, key = places[rng.integers(len(places))]
    kind = rng.integers(4)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder["unknown"] = holder.pop(key)
    else:
        holder[key] = VALUES[rng.integers(len(VALUES))]
    return json.dumps(root).encode()


JSON = (*TEXT, *(json_value,) * 24)


def member(data: bytes, rng: Rng) -> bytes:
    """One member of a zip archive damaged, lost or of another name; the archive is sound."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        chosen = old.namelist()[rng.integers(len(old.namelist()))]
        for name in old.namelist():
            content = old.read(name)
            if name == chosen:
                ways = JSON if content[:1] in (b"{", b"[") else BINARY
                kind = rng.integers(8)
                if kind == 0:
                    continue
                name = name[: int(rng.integers(len(name)))] + "x" if kind == 1 else name
                content = content if kind == 1 else ways[rng.integers(len(ways))](content, rng)
            new.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


ZIP = (*BINARY, *(member,) * 20)


def damaged(data: bytes, kind: str, rng: Rng) -> bytes:
    """The file with one damage or a few."""
    ways = {"binary": BINARY, "text": TEXT, "json": JSON, "zip": ZIP}[kind]
    for _ in range(int(rng.integers(1, 3)) if kind == "binary" else 1):
        data = ways[rng.integers(len(ways))](data, rng)
    return data
