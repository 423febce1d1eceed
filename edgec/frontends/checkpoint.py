"""Model files of torch: edgec checkpoints (.pt) and torch.export archives (.pt2). Nothing in them can run code."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_unflatten

from edgec.errors import FrontendError, join_problems
from edgec.frontends import shipped
from edgec.frontends.builder import MAX_ELEMENTS
from edgec.frontends.modules import from_module
from edgec.frontends.pytorch.archive import HOW_TO_EXPORT, clean_archive, is_torchscript, open_zip
from edgec.frontends.pytorch.importer import Outputs, TimeAxis, check_finite, from_exported
from edgec.ir.graph import Graph

FORMAT = "edgec-checkpoint-1"
WHAT = f'a dict(format="{FORMAT}", model=<shipped model>, config=..., state_dict=...)'


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary in an edgec checkpoint, entries checked. Only plain data and tensors are unpickled."""
    with open_zip(path) as archive:
        names = archive.namelist()
    if is_torchscript(names):
        raise FrontendError(f"{path}: this is a TorchScript file, which edgec does not read", hint=HOW_TO_EXPORT)
    if any(n.endswith("models/model.json") for n in names):
        raise FrontendError(f"{path}: this is a torch.export archive; rename it to {path.stem}.pt2")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        raise FrontendError(
            f"{path}: the file holds pickled Python objects, such as a whole module, and edgec never unpickles those",
            hint=HOW_TO_EXPORT,
        ) from err
    except Exception as err:  # torch.load raises many kinds for damaged files
        reason = (str(err).splitlines() or [""])[0]
        raise FrontendError(
            f"{path}: the file is damaged or not written by torch.save: {type(err).__name__} {reason}"
        ) from err
    return checked_entries(path, data)


def labels_of(path: Path) -> tuple[str, ...]:
    """Class names that an edgec checkpoint carries; none for any other file."""
    labels = read_checkpoint(path).get("labels", ()) if path.suffix.lower() in shipped.CHECKPOINTS else ()
    return tuple(map(str, labels)) if isinstance(labels, list | tuple) else ()


def slides(path: Path) -> bool:
    """Whether the network of a checkpoint streams by sliding its whole window: `SLIDING` in its model's package."""
    if path.suffix.lower() not in shipped.CHECKPOINTS or not path.is_file():
        return False
    name = read_checkpoint(path)["model"]
    return name in shipped.families() and bool(getattr(shipped.package(name), "SLIDING", False))


def checked_entries(path: Path, data: Any) -> dict[str, Any]:
    """The four entries, or FrontendError that says what the file is instead."""
    if not isinstance(data, dict):
        raise FrontendError(f"{path}: expected {WHAT}, found a {type(data).__name__}", hint=HOW_TO_EXPORT)
    if "format" not in data:
        is_state = bool(data) and all(isinstance(v, torch.Tensor) for v in data.values())
        found = (
            "a state_dict alone: weights without the network" if is_state else f"the keys {sorted(map(str, data))[:6]}"
        )
        raise FrontendError(f"{path}: expected {WHAT}, found {found}", hint=HOW_TO_EXPORT)
    if data["format"] != FORMAT:
        raise FrontendError(f"{path}: expected format {FORMAT!r}, found {str(data['format'])[:60]!r}")
    kinds = {"model": str, "config": dict, "state_dict": dict}
    wrong = [
        f"{key}: expected {kind.__name__}, found {type(data[key]).__name__ if key in data else 'nothing'}"
        for key, kind in kinds.items()
        if not isinstance(data.get(key), kind)
    ]
    if wrong:
        raise FrontendError(join_problems(f"{path}: the checkpoint is not complete:", wrong))
    return data


def build_model(path: Path, data: dict[str, Any]) -> nn.Module:
    """The network of a checkpoint with its weights, in eval mode."""
    try:
        package = shipped.package(data["model"])
    except FrontendError as err:
        raise FrontendError(
            f"{path}: the checkpoint names an unknown model: {err.message}", hint=HOW_TO_EXPORT
        ) from err
    try:
        module: nn.Module = package.build(data["config"])
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError, OverflowError, MemoryError) as err:
        raise FrontendError(f"{path}: {data['model']} cannot be built from the config in the file: {err}") from err
    compare_weights(path, module.state_dict(), data["state_dict"])
    check_finite(str(path), data["state_dict"])
    module.load_state_dict(data["state_dict"])
    return module.eval()


def compare_weights(path: Path, built: dict[str, torch.Tensor], found: dict[Any, Any]) -> None:
    """FrontendError with both sides of every difference between the config's network and the weights."""
    problems = [f"{k}: the config needs it, the state_dict lacks it" for k in built if k not in found]
    problems += [
        f"{k}: in the state_dict, but the config's network has no such weight" for k in found if k not in built
    ]
    for key in built:
        value = found.get(key)
        if value is None:
            continue
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            problems.append(f"{key}: expected a dense tensor, found {type(value).__name__}")
        elif value.shape != built[key].shape:
            problems.append(
                f"{key}: the config builds shape {tuple(built[key].shape)}, the state_dict has {tuple(value.shape)}"
            )
    if problems:
        shown = problems[:12] + ([f"and {len(problems) - 12} more"] if len(problems) > 12 else [])
        raise FrontendError(join_problems(f"{path}: config and state_dict disagree:", shown))


def example_of(package: Any, config: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    """Inputs of a shipped model: its own example_inputs(config), or 100 frames of PCM."""
    if hasattr(package, "example_inputs"):
        return tuple(package.example_inputs(config))
    hop = int(config.get("hop", 160))
    return (torch.zeros(1, 100 * hop),)


def load_checkpoint(
    path: Path,
    name: str,
    example_inputs: Sequence[torch.Tensor] | None,
    time_axis: TimeAxis,
    outputs: Outputs = None,
) -> Graph:
    """An edgec checkpoint as a graph."""
    data = read_checkpoint(path)
    module = build_model(path, data)
    if example_inputs is None:
        example_inputs = example_of(shipped.package(data["model"]), data["config"])
    return from_module(module, example_inputs, name, time_axis, outputs)


def load_archive(path: Path, name: str, time_axis: TimeAxis, outputs: Outputs = None) -> Graph:
    """A torch.export archive as a graph."""
    return from_exported(read_archive(path), name, time_axis, outputs)


def read_archive(path: Path) -> ExportedProgram:
    """The program of a torch.export archive. What torch reads is an archive made anew from checked parts."""
    from torch.export.pt2_archive._package import load_pt2

    import edgec.nn  # noqa: F401  registers the edgec:: operators an archive may call

    source = clean_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ep = load_pt2(source).exported_programs["model"]
    except Exception as err:  # whatever torch's reader raises on a damaged archive
        reason = (str(err).splitlines() or [""])[0]
        raise FrontendError(f"{path}: torch cannot read the archive: {type(err).__name__} {reason}") from err
    check_finite(str(path), {k: v for k, v in {**ep.state_dict, **ep.constants}.items() if isinstance(v, torch.Tensor)})
    restore_samples(ep)
    return ep


def restore_samples(ep: ExportedProgram) -> None:
    """Give the program zeros as its sample inputs, whose own pickle was not read: torch rewrites programs with them."""
    names = set(ep.graph_signature.user_inputs)
    values = [n.meta["val"] for n in ep.graph.nodes if n.op == "placeholder" and n.name in names]
    for v in values:
        if isinstance(v, torch.Tensor) and v.numel() > MAX_ELEMENTS:
            raise FrontendError(
                f"an input of shape {tuple(v.shape)} is larger than the limit of {MAX_ELEMENTS} elements"
            )
    leaves = [torch.zeros(v.shape, dtype=v.dtype) if isinstance(v, torch.Tensor) else v for v in values]
    ep.example_inputs = tree_unflatten(leaves, ep.call_spec.in_spec)
