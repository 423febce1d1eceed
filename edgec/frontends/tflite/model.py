"""TFLite files (.tflite) read into plain records.

This is the only module that imports the `tflite` package, the flatbuffer schema as Python classes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.errors import FrontendError
from edgec.frontends.tflite.schema import Row

MAX_BYTES = 1 << 30
IDENTIFIER = b"TFL3"
HOW_TO_MAKE = (
    "convert with full integer quantisation: converter.optimizations = [tf.lite.Optimize.DEFAULT],"
    " converter.representative_dataset = ..., and"
    " converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]"
)
#: what a reader of damaged flatbuffers raises
DAMAGE = (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError, MemoryError, KeyError)


def label_of(name: str) -> str:
    """A tensor's name as far as it fits a C comment; converters join the names of fused ops by semicolons."""
    return re.sub(r"[^\w./:-]", "_", name.split(";")[0])[:80] or "tensor"


@dataclass(frozen=True)
class TfTensor:
    """One tensor; `data` is its constant value, `scales` is empty where it is not quantised."""

    name: str
    shape: tuple[int, ...]
    kind: str
    scales: tuple[float, ...] = ()
    zeros: tuple[int, ...] = ()
    axis: int = 0
    data: npt.NDArray[Any] | None = None

    @property
    def label(self) -> str:
        return label_of(self.name)


@dataclass(frozen=True)
class TfOp:
    """One operator; an absent optional input is -1."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TfModel:
    """The one subgraph of a file."""

    tensors: tuple[TfTensor, ...]
    ops: tuple[TfOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def schema() -> ModuleType:
    """The `tflite` package, an optional dependency."""
    try:
        import tflite
    except ImportError as err:
        raise FrontendError(
            "reading a .tflite file needs the flatbuffer schema", hint='pip install "edgec[tflite]"'
        ) from err
    return tflite  # type: ignore[no-any-return]


def names_of(enum: Any) -> dict[int, str]:
    """Numbers to names of one of the schema's enumerations."""
    return {v: k for k, v in vars(enum).items() if isinstance(v, int) and not k.startswith("_")}


def read_bytes(path: Path) -> bytes:
    """The file, if it can be a TFLite model at all."""
    if path.is_dir():
        raise FrontendError(f"{path}: expected a .tflite file, found a directory")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FrontendError(f"{path}: {size} bytes, more than the limit of {MAX_BYTES}")
        raw = path.read_bytes()
    except OSError as err:
        raise FrontendError(f"{path}: cannot be read: {err}") from err
    if not raw:
        raise FrontendError(f"{path}: the file is empty")
    if raw[4:8] != IDENTIFIER:
        raise FrontendError(
            f"{path}: not a TFLite model: expected {IDENTIFIER.decode()!r} at byte 4, found {raw[4:8]!r}"
        )
    return raw


def read_model(path: Path, rows: Mapping[str, Row]) -> TfModel:
    """The file as plain records, with the options that `rows` name.

    FrontendError for a damaged file or one with several subgraphs.
    """
    raw, tf = read_bytes(path), schema()
    try:
        model = tf.Model.GetRootAs(raw, 0)
        graphs = model.SubgraphsLength()
        if graphs == 1:
            return Reader(tf, model, len(raw), rows).read()
    except DAMAGE as err:
        raise FrontendError(f"{path}: the file is damaged or cut short: {type(err).__name__} {err}") from err
    raise FrontendError(
        f"{path}: expected one subgraph, found {graphs}", hint="control flow (IF, WHILE, CALL) is not supported"
    )


class Reader:
    """Walks the flatbuffer once."""

    def __init__(self, tf: ModuleType, model: Any, size: int, rows: Mapping[str, Row]) -> None:
        self.tf, self.model, self.size, self.rows = tf, model, size, rows
        self.graph = model.Subgraphs(0)
        self.builtins, self.kinds = names_of(tf.BuiltinOperator), names_of(tf.TensorType)

    def read(self) -> TfModel:
        tensors = tuple(self.tensor(self.graph.Tensors(k)) for k in range(self.bounded(self.graph.TensorsLength())))
        ops = tuple(self.op(k, len(tensors)) for k in range(self.bounded(self.graph.OperatorsLength())))
        inputs = self.indices(self.graph.InputsAsNumpy(), len(tensors), "subgraph", 0)
        return TfModel(tensors, ops, inputs, self.indices(self.graph.OutputsAsNumpy(), len(tensors), "subgraph", 0))

    def bounded(self, count: int) -> int:
        """A length of a vector of offsets, each of four bytes of the file."""
        if count > self.size // 4:
            raise ValueError(f"{count} entries in a file of {self.size} bytes")
        return count

    def indices(self, found: Any, count: int, what: str, lowest: int) -> tuple[int, ...]:
        """Tensor numbers; the schema's accessors give 0 for an absent vector."""
        numbers = tuple(int(k) for k in found) if isinstance(found, np.ndarray) else ()
        if any(not lowest <= k < count for k in numbers):
            raise ValueError(f"{what} names tensor {max(numbers)} of {count}")
        return numbers

    def tensor(self, t: Any) -> TfTensor:
        shape = tuple(int(n) for n in t.ShapeAsNumpy()) if t.ShapeLength() else ()
        if any(n < 0 for n in shape):
            raise ValueError(f"tensor of shape {shape}")
        quant, kind = t.Quantization(), self.kinds.get(t.Type(), str(t.Type()))
        scales: tuple[float, ...] = ()
        zeros: tuple[int, ...] = ()
        axis = 0
        if quant is not None and quant.ScaleLength():
            scales, axis = tuple(float(s) for s in quant.ScaleAsNumpy()), int(quant.QuantizedDimension())
            zeros = tuple(int(z) for z in quant.ZeroPointAsNumpy()) if quant.ZeroPointLength() else (0,) * len(scales)
        name = (t.Name() or b"").decode("utf-8", "replace")
        return TfTensor(name, shape, kind, scales, zeros, axis, self.data(t, shape, kind))

    def data(self, t: Any, shape: tuple[int, ...], kind: str) -> npt.NDArray[Any] | None:
        """The constant in the tensor's buffer; None for an empty one or an element type we do not compute in."""
        if not 0 <= t.Buffer() < self.model.BuffersLength():
            raise ValueError(f"buffer {t.Buffer()} of {self.model.BuffersLength()}")
        buffer = self.model.Buffers(t.Buffer())
        types = {"INT8": "<i1", "UINT8": "<u1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FLOAT32": "<f4"}
        if not buffer.DataLength() or kind not in types:
            return None
        values = np.frombuffer(buffer.DataAsNumpy().tobytes(), types[kind])
        return values.reshape(shape).copy()

    def op(self, index: int, tensors: int) -> TfOp:
        op = self.graph.Operators(index)
        if not 0 <= op.OpcodeIndex() < self.model.OperatorCodesLength():
            raise ValueError(f"operator code {op.OpcodeIndex()}")
        code = self.model.OperatorCodes(op.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        kind = self.builtins.get(number, f"operator {number}")
        if kind == "CUSTOM":
            kind = f"custom operator {(code.CustomCode() or b'').decode('utf-8', 'replace')!r}"
        inputs = self.indices(op.InputsAsNumpy(), tensors, f"operator {index}", -1)
        outputs = self.indices(op.OutputsAsNumpy(), tensors, f"operator {index}", 0)
        return TfOp(index, kind, inputs, outputs, self.options(op, kind))

    def options(self, op: Any, kind: str) -> dict[str, Any]:
        table = op.BuiltinOptions()
        if kind not in self.rows or not self.rows[kind].options:
            return {}
        options = getattr(self.tf, self.rows[kind].options)()
        if table is None:
            raise ValueError(f"{kind} without options")
        options.Init(table.Bytes, table.Pos)
        values = {p.name: getattr(options, p.name)() for p in self.rows[kind].fields}
        for f, enum in (("FusedActivationFunction", "ActivationFunctionType"), ("Padding", "Padding")):
            if f in values:
                values[f] = names_of(getattr(self.tf, enum)).get(values[f], str(values[f]))
        return values
