"""Tiny .tflite files made with LiteRT's own schema, and what LiteRT's reference kernels compute."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

KINDS = {"int8": 9, "int32": 2, "float32": 0, "int64": 4, "uint8": 3}


@dataclass
class T:
    """A tensor: constant where `data` is given."""

    shape: tuple[int, ...]
    scale: float | list[float] | None = None
    zero: int = 0
    dtype: str = "int8"
    data: np.ndarray | None = None
    axis: int = 0


@dataclass
class Op:
    """One operator; `options` is an options object of the schema."""

    kind: str
    inputs: list[int]
    outputs: list[int]
    options: Any = None
    custom: str = ""


@dataclass
class Net:
    tensors: list[T]
    ops: list[Op]
    inputs: list[int] = field(default_factory=lambda: [0])
    outputs: list[int] = field(default_factory=list)

    def write(self, path: Path) -> Path:
        model = schema.ModelT()
        model.version, model.buffers, graph = 3, [schema.BufferT()], schema.SubGraphT()
        model.buffers[0].data = None
        graph.tensors, graph.operators, model.operatorCodes = [], [], []
        for k, t in enumerate(self.tensors):
            graph.tensors.append(self.tensor(model, t, k))
        for op in self.ops:
            graph.operators.append(self.operator(model, op))
        graph.inputs, graph.outputs = self.inputs, self.outputs or [self.ops[-1].outputs[0]]
        model.subgraphs = [graph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path

    def tensor(self, model: Any, t: T, number: int) -> Any:
        out = schema.TensorT()
        out.name, out.shape, out.type, out.buffer = (
            f"net/tensor{number};fused".encode(),
            list(t.shape),
            KINDS[t.dtype],
            0,
        )
        if t.data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(t.data, t.dtype).tobytes(), np.uint8)
            out.buffer = len(model.buffers)
            model.buffers.append(buffer)
        if t.scale is not None:
            scales = t.scale if isinstance(t.scale, list) else [t.scale]
            out.quantization = schema.QuantizationParametersT()
            out.quantization.scale, out.quantization.zeroPoint = scales, [t.zero] * len(scales)
            out.quantization.quantizedDimension = t.axis
        return out

    def operator(self, model: Any, op: Op) -> Any:
        code = schema.OperatorCodeT()
        number = getattr(schema.BuiltinOperator, op.kind)
        code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
        code.customCode = op.custom or None
        ones, threes = (
            ("RESHAPE", "RELU_N1_TO_1"),
            ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "CUSTOM", "FLOOR"),
        )
        code.version = 1 if op.kind in ones else 3 if op.kind in threes else 2
        out = schema.OperatorT()
        out.opcodeIndex, out.inputs, out.outputs = len(model.operatorCodes), op.inputs, op.outputs
        model.operatorCodes.append(code)
        if op.options is not None:
            out.builtinOptionsType = getattr(schema.BuiltinOptions, type(op.options).__name__.removesuffix("T"))
            out.builtinOptions = op.options
        return out


def options(name: str, **fields: Any) -> Any:
    """An options object, fields set."""
    made = getattr(schema, f"{name}T")()
    for key, value in fields.items():
        assert hasattr(made, key), key
        setattr(made, key, value)
    return made


def litert(path: Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs of LiteRT's reference kernels."""
    resolver = OpResolverType.BUILTIN_REF
    interpreter = Interpreter(str(path), experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    for detail, x in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], x)
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
