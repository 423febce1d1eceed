"""ONNX files read into plain records. This is the only module that imports the `onnx_ir` package."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.errors import FrontendError, join_problems

Array = npt.NDArray[Any]
MAX_BYTES = 1 << 31  # a protobuf message is never larger
OPSETS = (11, 25)  # of the default operator set

#: what reading damaged fields raises
DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    RecursionError,
)


@dataclass(frozen=True)
class OnnxValue:
    """An input or output of the graph; `kind` is the element type's ONNX name."""

    name: str
    shape: tuple[int, ...]
    kind: str


@dataclass(frozen=True)
class OnnxNode:
    """One operator; an absent optional input is ""."""

    index: int
    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Where the user finds it: its number, kind and name, as far as they fit a C comment."""
        return f"node {self.index} {self.kind} {re.sub(r'[^A-Za-z0-9_./:-]', '_', self.name)[:80]}".rstrip()


@dataclass(frozen=True)
class OnnxModel:
    """The main graph of a file: `consts` by name, float32 or integers as they are stored."""

    nodes: tuple[OnnxNode, ...]
    consts: dict[str, Array]
    inputs: tuple[OnnxValue, ...]
    outputs: tuple[OnnxValue, ...]
    opset: int


def library() -> ModuleType:
    """The `onnx_ir` package, an optional dependency."""
    try:
        import onnx_ir
    except ImportError as err:
        raise FrontendError("reading an .onnx file needs onnx-ir", hint='pip install "edgec[onnx]"') from err
    return onnx_ir


def read_model(path: Path) -> OnnxModel:
    """The file as plain records. FrontendError for a damaged file, shapes that are not numbers or another opset."""
    ir = library()
    if path.is_dir():
        raise FrontendError(f"{path}: expected an .onnx file, found a directory")
    try:
        size = path.stat().st_size
        if not 0 < size < MAX_BYTES:
            raise FrontendError(f"{path}: {size} bytes, expected an ONNX model of at least one byte and below 2 GiB")
        model = ir.load(path)
        graph, opset = model.graph, model.opset_imports.get("", 0)
    except OSError as err:
        raise FrontendError(f"{path}: cannot be read: {err}") from err
    except FrontendError:
        raise
    except Exception as err:  # the protobuf reader raises many kinds for bytes that are not a model
        raise FrontendError(f"{path}: not an ONNX model, or damaged: {type(err).__name__} {err}") from err
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise FrontendError(
            f"{path}: operator set {opset}, expected {OPSETS[0]} to {OPSETS[1]}",
            hint="onnx.version_converter.convert_version changes it",
        )
    try:
        return Reader(str(path), graph).read(opset)
    except DAMAGE as err:
        raise FrontendError(f"{path}: the model is damaged: {type(err).__name__} {err}") from err


class Reader:
    """Walks the graph once."""

    def __init__(self, where: str, graph: Any) -> None:
        self.where, self.graph = where, graph

    def read(self, opset: int) -> OnnxModel:
        consts = {name: self.data(name, v.const_value) for name, v in self.graph.initializers.items()}
        nodes = []
        for index, node in enumerate(self.graph):
            attributes = {k: self.attribute(node, a) for k, a in node.attributes.items()}
            kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
            read = tuple("" if i is None else i.name for i in node.inputs)
            made = OnnxNode(index, node.name or "", kind, read, tuple(o.name for o in node.outputs), attributes)
            check_texts(made)
            if kind == "Constant":
                consts[made.outputs[0]] = constant_value(made)
            else:
                nodes.append(made)
        inputs = tuple(self.value(v) for v in self.graph.inputs if v.name not in consts)
        self.check_shapes(inputs)
        outputs = tuple(self.value(v) for v in self.graph.outputs)
        return OnnxModel(tuple(nodes), consts, inputs, outputs, opset)

    def value(self, v: Any) -> OnnxValue:
        """A dimension that is not a number is -1."""
        dims = () if v.shape is None else tuple(d if isinstance(d, int) else -1 for d in v.shape)
        return OnnxValue(v.name, dims, "unknown" if v.dtype is None else v.dtype.name)

    def check_shapes(self, inputs: tuple[OnnxValue, ...]) -> None:
        """FrontendError that names every input of unknown extent."""
        problems = [f"input {v.name} has shape {v.shape}" for v in inputs if not v.shape or min(v.shape) < 1]
        if problems:
            raise FrontendError(
                join_problems(f"{self.where}: inputs whose extents are not all numbers (-1):", problems),
                hint="fix them, batch 1: python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name NAME"
                " --input_shape 1,3,32,32 model.onnx fixed.onnx",
            )

    def attribute(self, node: Any, a: Any) -> Any:
        value = a.value
        return self.data(a.name, value) if hasattr(value, "numpy") else value

    def data(self, name: str, tensor: Any) -> Array:
        """A constant's array. FrontendError where its external data cannot be read."""
        if tensor is None:
            raise FrontendError(f"{self.where}: constant {name} has no data")
        try:
            return np.array(tensor.numpy())
        except Exception as err:  # the reader of the library asserts what a damaged tensor breaks
            raise FrontendError(
                f"{self.where}: the data of constant {name} cannot be read: {err}",
                hint="external data must lie beside the .onnx file, as it was saved",
            ) from err


def check_texts(node: OnnxNode) -> None:
    """ValueError for an operator without outputs or with a name that is no text, as damage makes them."""
    texts = (node.name, node.kind, *node.inputs, *node.outputs, *node.attributes)
    if not node.outputs or not node.outputs[0] or not all(isinstance(t, str) for t in texts):
        raise ValueError(f"node {node.index} has no outputs, or a name that is not text")


def constant_value(node: OnnxNode) -> Array:
    """What a Constant node holds."""
    for key, dtype in (("value", None), ("value_float", np.float32), ("value_floats", np.float32)):
        if key in node.attributes:
            return np.asarray(node.attributes[key], dtype)
    for key in ("value_int", "value_ints"):
        if key in node.attributes:
            return np.asarray(node.attributes[key], np.int64)
    raise ValueError(f"{node.label} holds {', '.join(node.attributes) or 'nothing'}")
