"""Run a network as it was trained, in its own runtime: torch, onnxruntime or LiteRT."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_flatten

from edgec.errors import InputError, ToolchainError
from edgec.frontends import checkpoint
from edgec.frontends.shipped import TORCH_FILES, find_file

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Original:
    """A network in its own runtime. `run` takes real whole-sequence inputs by name, in order, and gives its outputs:
    float, or integers with the scale and zero point the file gives them (None: it gives none). `any_length` says
    whether it takes sequences of other lengths, `how` what runs it."""

    how: str
    run: Callable[[Mapping[str, Array]], list[Array]]
    any_length: bool = False


def load_original(model: Any) -> Original:
    """The runtime of a torch module, an exported program, a shipped model's name, or a model file."""
    if isinstance(model, nn.Module):
        return Original("torch, the module itself", of_module(model.eval()), any_length=True)
    if isinstance(model, ExportedProgram):
        return Original("torch, the exported program", of_module(model.module()))
    path = find_file(str(model))
    suffix = path.suffix.lower()
    if suffix == ".pt2":
        return Original(f"torch on {path.name}", of_module(checkpoint.read_archive(path).module()))
    if suffix in TORCH_FILES:
        module = checkpoint.build_model(path, checkpoint.read_checkpoint(path))
        return Original(f"torch on {path.name}", of_module(module), any_length=True)
    if suffix == ".onnx":
        return Original(f"onnxruntime on {path.name}", of_onnx(path))
    if suffix == ".tflite":
        return Original(f"LiteRT on {path.name}", of_tflite(path))
    raise InputError(f"{path}: unknown kind of model file {suffix!r}", hint="one of .pt, .pt2, .onnx, .tflite")


def runtime(module: str, package: str, path: Path) -> Any:
    """An optional package, or a ToolchainError that says how to get it."""
    try:
        return import_module(module)
    except ImportError as err:
        raise ToolchainError(
            f"{path} runs on {package}, which is not installed", hint=f"pip install {package}"
        ) from err


def of_module(module: Any) -> Callable[[Mapping[str, Array]], list[Array]]:
    """Positional inputs; results in the order of torch's pytrees."""

    def run(inputs: Mapping[str, Array]) -> list[Array]:
        with torch.no_grad():
            result = module(*(torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in inputs.values()))
        return [leaf.numpy() for leaf in tree_flatten(result)[0] if isinstance(leaf, torch.Tensor)]

    return run


def of_onnx(path: Path) -> Callable[[Mapping[str, Array]], list[Array]]:
    """onnxruntime without fused operators, which compute other numbers than the file says."""
    ort = runtime("onnxruntime", "onnxruntime", path)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as err:  # onnxruntime raises many kinds for damaged files
        raise InputError(f"{path}: onnxruntime cannot read it: {err}") from err
    names = [v.name for v in session.get_inputs()]

    def run(inputs: Mapping[str, Array]) -> list[Array]:
        if len(names) != len(inputs):
            raise InputError(f"{path}: expected {len(inputs)} inputs ({', '.join(inputs)}), found {', '.join(names)}")
        given = dict(zip(names, inputs.values(), strict=True))
        return list(session.run(None, {name: x.astype(np.float32) for name, x in given.items()}))

    return run


def of_tflite(path: Path) -> Callable[[Mapping[str, Array]], list[Array]]:
    """LiteRT's reference kernels; integers in and out are real values in the file's own scales."""
    lite = runtime("ai_edge_litert.interpreter", "ai-edge-litert", path)
    try:
        interpreter = lite.Interpreter(str(path), experimental_op_resolver_type=lite.OpResolverType.BUILTIN_REF)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as err:
        raise InputError(f"{path}: LiteRT cannot read it: {err}") from err

    def run(inputs: Mapping[str, Array]) -> list[Array]:
        details = interpreter.get_input_details()
        if len(details) != len(inputs):
            raise InputError(f"{path}: expected {len(inputs)} inputs ({', '.join(inputs)}), found {len(details)}")
        for detail, x in zip(details, inputs.values(), strict=True):
            interpreter.set_tensor(detail["index"], stored(x, detail).reshape(detail["shape"]))
        interpreter.invoke()
        return [real(interpreter.get_tensor(d["index"]), d) for d in interpreter.get_output_details()]

    return run


def stored(x: Array, detail: Mapping[str, Any]) -> Array:
    """Real values in a TFLite tensor's numbers."""
    scale, zero = detail["quantization"]
    if not scale:
        return np.asarray(x, detail["dtype"])
    info = np.iinfo(detail["dtype"])
    levels = np.round(x / np.float32(scale)) + zero
    return np.asarray(np.clip(levels, info.min, info.max), detail["dtype"])


def real(x: Array, detail: Mapping[str, Any]) -> Array:
    """A TFLite tensor in real values."""
    scale, zero = detail["quantization"]
    return np.asarray((x.astype(np.float32) - zero) * np.float32(scale)) if scale else x
