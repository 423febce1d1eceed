"""Run a network as it was trained, in its own runtime: torch, onnxruntime or LiteRT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_flatten, tree_unflatten

from edgec.errors import InputError, ToolchainError
from edgec.frontends import checkpoint
from edgec.frontends.builder import safe_name
from edgec.frontends.shipped import TORCH_FILES, find_file
from edgec.frontends.tflite.model import label_of

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
        return Original("torch, the exported program", of_program(model))
    path = find_file(str(model))
    suffix = path.suffix.lower()
    if suffix == ".pt2":
        return Original(f"torch on {path.name}", of_program(checkpoint.read_archive(path)))
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
            return leaves(module(*map(tensor, inputs.values())))

    return run


def of_program(program: ExportedProgram) -> Callable[[Mapping[str, Array]], list[Array]]:
    """An exported program, called as it was exported."""
    module, (args, _) = program.module(), program.call_spec
    specs = zip(program.graph_signature.input_specs, program.graph.find_nodes(op="placeholder"), strict=True)
    examples = {node.name: node.meta["val"] for spec, node in specs if spec.kind is InputKind.USER_INPUT}
    names = [name for name, value in examples.items() if isinstance(value, torch.Tensor)]

    def run(inputs: Mapping[str, Array]) -> list[Array]:
        given = dict(zip(names, placed("the exported program", names, inputs), strict=True))
        values = [argument(value, given.get(name)) for name, value in examples.items()]
        positional, named = tree_unflatten(values, args)
        with torch.no_grad():
            return leaves(module(*positional, **named))

    return run


def argument(example: Any, x: Array | None) -> Any:
    """What stands where an exported program had a tensor, zeros where none is given, or a plain value, which stays."""
    if not isinstance(example, torch.Tensor):
        return example
    return torch.zeros(example.shape, dtype=example.dtype) if x is None else tensor(x)


def tensor(x: Array) -> torch.Tensor:
    """Real values as torch takes them, float32."""
    return torch.from_numpy(np.ascontiguousarray(x, np.float32))


def leaves(result: Any) -> list[Array]:
    """The tensors of a torch result, in the order of torch's pytrees."""
    return [leaf.numpy() for leaf in tree_flatten(result)[0] if isinstance(leaf, torch.Tensor)]


def placed(where: Any, names: Sequence[str], inputs: Mapping[str, Array]) -> list[Array | None]:
    """An input for each name of the original's: in order, or by name where the original has more. None is for one that
    was left out of the compiled model, as nothing reads it. InputError where they are another network's."""
    if len(names) == len(inputs):
        return list(inputs.values())
    own = [safe_name(name) for name in names]
    if not set(inputs) <= set(own):
        raise InputError(
            f"{where}: expected {len(inputs)} inputs ({', '.join(inputs)}), found {', '.join(names) or 'none'}"
        )
    return [inputs.get(name) for name in own]


def of_onnx(path: Path) -> Callable[[Mapping[str, Array]], list[Array]]:
    """onnxruntime without fused operators, which compute other numbers than the file says."""
    ort = runtime("onnxruntime", "onnxruntime", path)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as err:  # onnxruntime raises many kinds for damaged files
        raise InputError(f"{path}: onnxruntime cannot read it: {err}") from err
    values = session.get_inputs()

    def run(inputs: Mapping[str, Array]) -> list[Array]:
        given = {}
        for v, x in zip(values, placed(path, [v.name for v in values], inputs), strict=True):
            kind = v.type.removeprefix("tensor(").removesuffix(")")
            dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
            given[v.name] = np.zeros(v.shape, dtype) if x is None else x.astype(np.float32)
        return list(session.run(None, given))

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
        for detail, x in zip(details, placed(path, [label_of(d["name"]) for d in details], inputs), strict=True):
            levels = np.zeros(detail["shape"], detail["dtype"]) if x is None else stored(x, detail)
            interpreter.set_tensor(detail["index"], levels.reshape(detail["shape"]))
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
