"""Foreign models to graphs. `load` takes a shipped model's name, a file, a torch module or an exported program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.errors import FrontendError
from edgec.frontends.shipped import GRAPH_FILES, find_file

if TYPE_CHECKING:
    import torch

    from edgec.ir.graph import Graph


def load(
    model: Any,
    example_inputs: Sequence[torch.Tensor] | torch.Tensor | None = None,
    *,
    name: str | None = None,
    time_axis: int | Sequence[int | None] | str | None = "guess",
    step: bool = False,
    outputs: Sequence[str] | None = None,
) -> Graph:
    """The graph of a model. FrontendError says why it cannot be imported and what to do.

    model: the name of a shipped model ("lmuformer"), the path of a .pt, .pt2, .tflite or .onnx file, a torch module
    (then `example_inputs` is needed) or a torch.export.ExportedProgram. time_axis: which axis of the inputs counts
    frames. step: the module takes one frame per call and its neurons keep their state; example_inputs are then one
    frame. outputs: which results to return, by field or key; by default all, but of a record (a transformers
    ModelOutput) the first field alone, such as its prediction_outputs.
    """
    if isinstance(time_axis, str) and time_axis != "guess":
        raise FrontendError(f"time_axis: expected an axis, None or 'guess', found {time_axis!r}")
    if example_inputs is not None:
        example_inputs = _examples(example_inputs)
    if isinstance(model, str | Path):
        return _load_file(str(model), example_inputs, name, time_axis, outputs)
    from torch import nn
    from torch.export import ExportedProgram

    from edgec.frontends.modules import from_module
    from edgec.frontends.pytorch.importer import from_exported

    if isinstance(model, ExportedProgram):
        return from_exported(model, name or "model", time_axis, outputs)
    if not isinstance(model, nn.Module):
        raise FrontendError(
            "expected a shipped model's name, a file, a torch module or an exported program,"
            f" found {type(model).__name__}"
        )
    label = name or type(model).__name__.lower()
    if example_inputs is None:
        raise FrontendError(
            f"{label}: a torch module needs example_inputs, a tuple of tensors of the shapes it will see"
        )
    if step:
        from edgec.frontends.neurons.importer import from_step_module

        return from_step_module(model, example_inputs, label)
    return from_module(model, example_inputs, label, time_axis, outputs)


def _examples(given: Any) -> tuple[Any, ...]:
    """Example inputs as a tuple, an argument of forward each; the only one may stand without it."""
    import torch

    inputs = (given,) if isinstance(given, torch.Tensor) else given
    if not isinstance(inputs, (tuple, list)) or not inputs:
        raise FrontendError(f"example_inputs: expected a tuple of tensors, found {type(given).__name__} {given!r:.40}")
    for k, x in enumerate(inputs):
        if hasattr(x, "__array__") and not isinstance(x, torch.Tensor):
            raise FrontendError(
                f"example_inputs: expected tensors, found {type(x).__name__} at place {k}",
                hint="torch.from_numpy makes one of an array",
            )
    return tuple(inputs)


def _load_file(model: str, example_inputs: Any, name: str | None, time_axis: Any, outputs: Any) -> Graph:
    """A file by its suffix, or a shipped model by its name."""
    path = find_file(model)
    label, suffix = name or path.stem, path.suffix.lower()
    if suffix in GRAPH_FILES:
        return _load_graph(path, label, time_axis, outputs)
    from edgec.frontends import checkpoint

    if suffix == ".pt2":
        return checkpoint.load_archive(path, label, time_axis, outputs)
    return checkpoint.load_checkpoint(path, label, example_inputs, time_axis, outputs)


def _load_graph(path: Path, label: str, time_axis: Any, outputs: Any) -> Graph:
    """A file that holds a graph."""
    suffix = path.suffix.lower()
    if outputs is not None:
        raise FrontendError(f"{path}: outputs of a {suffix} file cannot be chosen; it returns all of them")
    if suffix == ".onnx":
        from edgec.frontends.onnx.importer import load_onnx

        return load_onnx(path, label, time_axis)
    from edgec.frontends.tflite.importer import load_tflite

    return load_tflite(path, label, time_axis)
