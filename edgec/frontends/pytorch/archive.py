"""Zip files from strangers: look before reading. And .pt2 archives, of which only harmless parts reach torch.

torch.export.load unpickles what an archive asks it to unpickle, imports modules that a tree description names and
evaluates shape expressions. So an archive is taken apart here, checked, and put together anew from what was checked.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from edgec.errors import FrontendError
from edgec.files import is_zip

MAX_BYTES = 1 << 30
MAX_RATIO = 100
MAX_MEMBERS = 20_000
SMALL = 1 << 20  # archives below this may compress as well as they like

HOW_TO_EXPORT = "export it: torch.export.save(torch.export.export(model.eval(), example_inputs), 'model.pt2')"

_TARGET = re.compile(r"torch\.ops\.(aten|edgec|quantized_decomposed)\.\w+(\.\w+)?|_operator\.getitem")
_WEIGHT = re.compile(r"data/weights/weight_\d+")
_CONSTANT = re.compile(r"data/constants/tensor_\d+")
_TREE_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")


def open_zip(path: Path) -> zipfile.ZipFile:
    """The archive, after its directory has been checked: sizes, compression, names. FrontendError otherwise."""
    if path.is_dir():
        raise FrontendError(f"{path}: expected a model file, found a directory")
    if path.stat().st_size == 0:
        raise FrontendError(f"{path}: the file is empty")
    if not is_zip(path):
        raise FrontendError(f"{path}: not a model file of torch (a zip archive), or cut short", hint=HOW_TO_EXPORT)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as err:
        raise FrontendError(f"{path}: damaged zip archive: {err}") from err
    members = archive.infolist()
    total = sum(m.file_size for m in members)
    packed = sum(m.compress_size for m in members)
    problem = None
    if total > MAX_BYTES:
        problem = f"unpacks to {total} bytes, more than the limit of {MAX_BYTES}"
    elif total > SMALL and total > MAX_RATIO * max(packed, 1):
        problem = f"unpacks to {total} bytes from {packed}, as a zip bomb does"
    elif len(members) > MAX_MEMBERS:
        problem = f"has {len(members)} members, more than the limit of {MAX_MEMBERS}"
    elif len({m.filename for m in members}) != len(members):
        problem = "has two members of the same name"
    elif any(m.filename.startswith("/") or ".." in m.filename.split("/") for m in members):
        problem = "has a member that would lie outside"
    if problem is not None:
        archive.close()
        raise FrontendError(f"{path}: refused, the archive {problem}")
    return archive


def read_members(path: Path) -> dict[str, bytes]:
    """Every member without the leading folder torch puts them in."""
    with open_zip(path) as archive:
        try:
            members = {m.filename: archive.read(m) for m in archive.infolist() if not m.is_dir()}
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError) as err:
            raise FrontendError(f"{path}: damaged zip archive: {err}") from err
    roots = {name.split("/")[0] for name in members}
    if len(roots) != 1:
        return members
    return {name.split("/", 1)[1]: data for name, data in members.items() if "/" in name}


def is_torchscript(names: Any) -> bool:
    """Whether these are the members of a TorchScript file."""
    return any(re.search(r"(^|/)(constants\.pkl|code/.*)$", n) for n in names)


def clean_archive(path: Path) -> io.BytesIO:
    """A .pt2 archive made anew from the checked parts of the one at `path`."""
    members = read_members(path)
    if is_torchscript(members):
        raise FrontendError(f"{path}: this is a TorchScript file, which edgec does not read", hint=HOW_TO_EXPORT)
    if "models/model.json" not in members:
        raise FrontendError(
            f"{path}: expected a torch.export archive with models/model.json, found none", hint=HOW_TO_EXPORT
        )
    refuse_binaries(path, members)
    kept = {"archive_format": b"pt2", "byteorder": b"little"}
    if members.get("byteorder", b"little") != b"little":
        raise FrontendError(f"{path}: expected a little-endian archive")
    for name in ("archive_version", ".data/version"):
        kept[name] = members.get(name, b"")
        if not re.fullmatch(rb"\d{1,3}\n?", kept[name]):
            raise FrontendError(f"{path}: {name} is not a number, found {kept[name][:20]!r}")
    check_inputs(str(path), sample_inputs(members.get("data/sample_inputs/model.pt", b"")))
    kept["models/model.json"] = json.dumps(clean_program(path, parsed(path, members, "models/model.json"))).encode()
    for kind, pattern in (("weights", _WEIGHT), ("constants", _CONSTANT)):
        config_name = f"data/{kind}/model_{kind}_config.json"
        config = clean_payload(path, kind, parsed(path, members, config_name), members)
        kept[config_name] = json.dumps(config).encode()
        kept.update({n: d for n, d in members.items() if pattern.fullmatch(n)})
    empty = io.BytesIO()
    torch.save(((), {}), empty)
    kept["data/sample_inputs/model.pt"] = empty.getvalue()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(kept.items()):
            archive.writestr(zipfile.ZipInfo(f"model/{name}"), data)
    out.seek(0)
    return out


def sample_inputs(data: bytes) -> Any:
    """The tensors a program was exported with, plain data only; nothing where they cannot be read so."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            packed = any(m.compress_type != zipfile.ZIP_STORED for m in archive.infolist())
        return () if packed else torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # any damage: the program is complete without them
        return ()


def check_inputs(name: str, inputs: Any) -> None:
    """FrontendError where one tensor was given for two inputs of an exported program."""
    tensors = [t for t in tree_leaves(inputs) if isinstance(t, torch.Tensor)]
    if len({id(t) for t in tensors}) < len(tensors):
        raise FrontendError(
            f"{name}: exported with the same tensor as two of its inputs, which torch.export takes for one",
            hint="export it with a tensor of its own for each input",
        )


def refuse_binaries(path: Path, members: dict[str, bytes]) -> None:
    """Compiled code is not a model."""
    found = [n for n in members if n.startswith("data/aotinductor") or n.endswith((".so", ".dll", ".dylib"))]
    if found:
        raise FrontendError(f"{path}: refused, the archive holds compiled code ({found[0]})", hint=HOW_TO_EXPORT)


def parsed(path: Path, members: dict[str, bytes], name: str) -> dict[str, Any]:
    """A JSON member."""
    if name not in members:
        raise FrontendError(f"{path}: the archive lacks {name}", hint=HOW_TO_EXPORT)
    try:
        value = json.loads(members[name])
    except (ValueError, RecursionError) as err:
        raise FrontendError(f"{path}: {name} is not JSON: {err}") from err
    if not isinstance(value, dict):
        raise FrontendError(f"{path}: {name} is not a JSON object")
    return value


def clean_payload(path: Path, kind: str, config: dict[str, Any], members: dict[str, bytes]) -> dict[str, Any]:
    """The list of weights or constants, none of which may be a pickle."""
    pattern = _WEIGHT if kind == "weights" else _CONSTANT
    entries = config.get("config")
    if not isinstance(entries, dict):
        raise FrontendError(f"{path}: the list of {kind} is damaged")
    for name, entry in entries.items():
        file = f"data/{kind}/{entry.get('path_name')}" if isinstance(entry, dict) else ""
        if not isinstance(entry, dict) or entry.get("use_pickle") or not pattern.fullmatch(file):
            raise FrontendError(
                f"{path}: refused, {kind[:-1]} {name} is a pickled object, which could run code when it is read",
                hint="export the model on the CPU with plain dense tensors as weights",
            )
        if file not in members:
            raise FrontendError(f"{path}: the archive lacks {file}, the values of {name}")
        try:
            elements = prod(int(size["as_int"]) for size in entry["tensor_meta"]["sizes"])
        except (KeyError, TypeError, ValueError) as err:
            raise FrontendError(f"{path}: the shape of {name} is damaged") from err
        if not 0 <= elements <= MAX_BYTES:
            raise FrontendError(f"{path}: refused, {name} has {elements} elements, more than the limit of {MAX_BYTES}")
    return {"config": entries}


def clean_program(path: Path, program: dict[str, Any]) -> dict[str, Any]:
    """The program without expressions, foreign calls, tree descriptions of other types and guard code."""
    problems: list[str] = []

    def visit(value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                visit(item)
        elif isinstance(value, dict):
            if "expr_str" in value:
                problems.append(f"a symbolic size ({str(value['expr_str'])[:40]!r}); export with fixed shapes")
            for key, item in value.items():
                if key == "out_spec":
                    value[key] = item = without_class(item)
                if key in ("in_spec", "out_spec"):
                    check_tree(item, problems)
                visit(item)

    try:
        visit(program)
        for node in program["graph_module"]["graph"]["nodes"]:
            if not _TARGET.fullmatch(node["target"]):
                problems.append(f"the call {str(node['target'])[:60]!r}, which is no ATen or edgec operator")
            kept = ("stack_trace", "nn_module_stack")
            node["metadata"] = {k: v for k, v in node["metadata"].items() if k in kept and isinstance(v, str)}
    except (KeyError, TypeError, AttributeError, RecursionError) as err:
        raise FrontendError(f"{path}: the program in the archive is damaged: {type(err).__name__} {err}") from err
    if problems:
        raise FrontendError(
            f"{path}: refused, the program has {'; '.join(dict.fromkeys(problems))}", hint=HOW_TO_EXPORT
        )
    program["guards_code"] = []
    return program


def without_class(text: Any) -> Any:
    """The description of an output record (a class with named fields, such as a transformers ModelOutput) as that of an
    OrderedDict, so that its class is never looked up; anything else as it is."""
    version, tree = json.loads(text) if text else (0, None)
    if not isinstance(tree, dict) or tree.get("type") in _TREE_TYPES:
        return text
    fields, children = json.loads(tree["context"]), tree["children_spec"]
    flat = all(isinstance(c, dict) and c.get("type") is None for c in children)
    named = isinstance(fields, list) and len(fields) == len(children) and all(isinstance(f, str) for f in fields)
    return json.dumps([version, tree | {"type": "collections.OrderedDict"}]) if flat and named else text


def check_tree(text: Any, problems: list[str]) -> None:
    """A description of how inputs and outputs are nested may only name plain containers."""

    def visit(value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                visit(item)
        elif isinstance(value, dict):
            if "type" in value and value["type"] not in _TREE_TYPES:
                problems.append(
                    f"a container of type {str(value['type'])[:60]!r} as input or output; use tuples, lists and dicts"
                )
            for item in value.values():
                visit(item)

    if text:
        visit(json.loads(text))
