"""Every TFLite operator against LiteRT's reference kernels: random shapes, scales and values, byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("tflite")
pytest.importorskip("ai_edge_litert")

from edgec import frontends
from edgec.errors import FrontendError
from edgec.frontends.tflite.model import names_of
from edgec.frontends.tflite.numbers import softmax_table
from edgec.frontends.tflite.ops import CONVERTERS
from edgec.ir.evaluate import evaluate
from edgec.ir.types import DType, TensorType
from edgec.ops.integer.tflite import TfliteAdd, TfliteSoftmax
from tests.frontends.tflite.tflite_models import Net, Op, T, litert, options
from tests.passes.quantize.test_quantize_ops import run_both

Rng = np.random.Generator


def int8(rng: Rng, *shape: int, low: int = -128) -> np.ndarray:
    return rng.integers(low, 128, shape).astype(np.int8)


def convolution(rng: Rng) -> Net:
    depthwise, multi = bool(rng.integers(2)), int(rng.integers(1, 3))
    h, w, c, kh, kw = (int(n) for n in rng.integers(1, 8, 5))
    stride, dilation, same = rng.integers(1, 4, 2), rng.integers(1, 3, 2), bool(rng.integers(2))
    h, w = max(h, (kh - 1) * int(dilation[0]) + 1), max(w, (kw - 1) * int(dilation[1]) + 1)
    o = c * multi if depthwise else int(rng.integers(1, 9))
    shape, axis = ((1, kh, kw, o), 3) if depthwise else ((o, kh, kw, c), 0)
    per_channel = bool(rng.integers(2)) or depthwise
    scales = [float(s) for s in rng.uniform(0.001, 0.02, o if per_channel else 1)]
    fields = {
        "padding": 0 if same else 1, "strideH": int(stride[0]), "strideW": int(stride[1]),
        "dilationHFactor": int(dilation[0]), "dilationWFactor": int(dilation[1]),
        "fusedActivationFunction": int(rng.choice([0, 1, 3])),
    }  # fmt: skip
    if depthwise:
        fields |= {"depthMultiplier": multi, "strideW": fields["strideH"]}
    out = [
        -(-n // int(s)) if same else (n - (k - 1) * int(d) - 1) // int(s) + 1
        for n, k, s, d in zip((h, w), (kh, kw), (fields["strideH"], fields["strideW"]), dilation, strict=True)
    ]
    tensors = [
        T((2, h, w, c), 0.05, int(rng.integers(-128, 128))),
        T(shape, scales, 0, data=int8(rng, *shape, low=-127), axis=axis),
        T((o,), [0.05 * s for s in scales], dtype="int32", data=rng.integers(-3000, 3000, o)),
        T((2, *out, o), float(rng.uniform(0.01, 0.2)), int(rng.integers(-128, 128))),
    ]
    kind, name = ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if depthwise else ("CONV_2D", "Conv2DOptions")
    return Net(tensors, [Op(kind, [0, 1, 2], [3], options(name, **fields))])


def fully_connected(rng: Rng) -> Net:
    rows, i, o = int(rng.integers(1, 4)), int(rng.integers(1, 70)), int(rng.integers(1, 9))
    scale, with_bias = float(rng.uniform(0.001, 0.02)), bool(rng.integers(2))
    tensors = [
        T((rows, i), 0.05, int(rng.integers(-128, 128))),
        T((o, i), scale, data=int8(rng, o, i, low=-127)),
        T((o,), float(np.float32(0.05) * np.float32(scale)), dtype="int32", data=rng.integers(-9999, 9999, o)),
        T((rows, o), float(rng.uniform(0.01, 0.2)), int(rng.integers(-128, 128))),
    ]
    made = options("FullyConnectedOptions", fusedActivationFunction=int(rng.choice([0, 1, 3])))
    return Net(tensors, [Op("FULLY_CONNECTED", [0, 1, 2 if with_bias else -1], [3], made)])


def pool(rng: Rng) -> Net:
    h, w, c = (int(n) for n in rng.integers(3, 9, 3))
    kh, kw, sh, sw = (int(n) for n in rng.integers(1, 4, 4))
    same, average = bool(rng.integers(2)), bool(rng.integers(2))
    out = [-(-n // s) if same else (n - k) // s + 1 for n, k, s in ((h, kh, sh), (w, kw, sw))]
    scale, zero = 0.04, int(rng.integers(-128, 128))
    fields = {"padding": 0 if same else 1, "strideH": sh, "strideW": sw, "filterHeight": kh, "filterWidth": kw}
    made = options("Pool2DOptions", fusedActivationFunction=int(rng.choice([0, 1, 3])), **fields)
    kind = "AVERAGE_POOL_2D" if average else "MAX_POOL_2D"
    return Net([T((2, h, w, c), scale, zero), T((2, *out, c), scale, zero)], [Op(kind, [0], [1], made)])


def add(rng: Rng) -> Net:
    kind = str(rng.choice(["ADD", "SUB"]))
    a, b, y = (T((2, 5, 3), float(rng.uniform(0.02, 0.1)), int(rng.integers(-128, 128))) for _ in range(3))
    inputs = [0, 1]
    match rng.integers(4):
        case 0:
            b.shape, b.data, inputs = (3,), int8(rng, 3), [0]
        case 1:
            b.shape = [(2, 1, 3), (1, 5, 1), (5, 3), (1, 1, 1)][rng.integers(4)]
        case 2:
            a.shape, b.shape = (2, 1, 3), (1, 5, 1)
    made = options("AddOptions" if kind == "ADD" else "SubOptions", fusedActivationFunction=int(rng.choice([0, 1, 3])))
    return Net([a, b, y], [Op(kind, [0, 1], [2], made)], inputs)


def softmax(rng: Rng) -> Net:
    rows, c = int(rng.integers(1, 5)), int(rng.choice([1, 2, 10, 12, 100, 500, 512, 1000, 2048, 4096]))
    few = [0.001, 0.02] if c < 512 else []  # LiteRT aborts where the sum of exponentials reaches 512
    x = T((rows, c), float(rng.choice([*few, 0.145, 0.3, 1.0])), int(rng.integers(-128, 128)))
    made = options("SoftmaxOptions", beta=float(rng.choice([1.0, 0.5])))
    return Net([x, T((rows, c), 1 / 256, -128)], [Op("SOFTMAX", [0], [1], made)])


def unary(rng: Rng) -> Net:
    kind = str(rng.choice(["RELU", "RELU6", "RELU_N1_TO_1", "QUANTIZE"]))
    x, y = (T((1, 4, 64), float(rng.uniform(0.01, 0.1)), int(rng.integers(-128, 128))) for _ in range(2))
    return Net([x, y], [Op(kind, [0], [1], options("QuantizeOptions") if kind == "QUANTIZE" else None)])


def moves(rng: Rng) -> Net:
    """PAD, PADV2, CONCATENATION, TRANSPOSE and RESHAPE, one after the other."""
    q = (0.03, int(rng.integers(-128, 128)))
    amounts = rng.integers(0, 3, (4, 2))
    amounts[0] = 0
    padded = tuple(n + int(p.sum()) for n, p in zip((1, 4, 5, 3), amounts, strict=True))
    axis = int(rng.integers(1, 4))
    joined = tuple(n * (2 if k == axis else 1) for k, n in enumerate(padded))
    flat = (1, int(np.prod(joined)))
    perm = rng.permutation(4)
    turned = tuple(joined[p] for p in perm)
    tensors = [
        T((1, 4, 5, 3), *q), T((4, 2), dtype="int32", data=amounts), T(padded, *q), T(padded, *q),
        T((1,), *q, data=int8(rng, 1)), T(joined, *q), T((2,), dtype="int32", data=np.array(flat)), T(flat, *q),
        T((4,), dtype="int32", data=perm), T(turned, *q),
    ]  # fmt: skip
    ops = [
        Op("PAD", [0, 1], [2], options("PadOptions")),
        Op("PADV2", [0, 1, 4], [3], options("PadV2Options")),
        Op("CONCATENATION", [2, 3], [5], options("ConcatenationOptions", axis=axis)),
        Op("TRANSPOSE", [5, 8], [9], options("TransposeOptions")),
        Op("RESHAPE", [9, 6], [7], options("ReshapeOptions", newShape=list(flat))),
    ]
    return Net(tensors, ops)


def multiply(rng: Rng) -> Net:
    """Same shapes, one row or pixel for all, and constants."""
    shapes = [(2, 4, 5, 3), (2, 4, 5, 3)]
    other = int(rng.integers(4))
    shapes[1] = ((2, 4, 5, 3), (2, 1, 1, 3), (3,), (1, 4, 5, 3))[other]
    a, b = (T(s, float(rng.uniform(0.02, 0.1)), int(rng.integers(-128, 128))) for s in shapes)
    inputs = [0, 1]
    if rng.integers(2) or other == 2:
        b.data, inputs = int8(rng, *b.shape), [0]
    y = T((2, 4, 5, 3), float(rng.uniform(0.05, 0.4)), int(rng.integers(-128, 128)))
    made = options("MulOptions", fusedActivationFunction=int(rng.choice([0, 1, 3])))
    return Net([a, b, y], [Op("MUL", [0, 1], [2], made)], inputs)


def mean(rng: Rng) -> Net:
    """Over any axes, on the same scale or another."""
    shape = (2, *(int(n) for n in rng.integers(1, 9, 3)))
    axes = sorted(rng.choice(4, int(rng.integers(1, 4)), replace=False).tolist())
    if rng.integers(2):
        axes = [1, 2]
    keep = bool(rng.integers(2))
    out = tuple(1 if k in axes else n for k, n in enumerate(shape) if keep or k not in axes)
    x = T(shape, 0.04, int(rng.integers(-128, 128)))
    y = T(out, 0.04, x.zero) if rng.integers(2) else T(out, float(rng.uniform(0.01, 0.1)), int(rng.integers(-128, 128)))
    signed = [a - 4 if rng.integers(2) else a for a in axes]
    made = options("ReducerOptions", keepDims=keep)
    return Net([x, T((len(axes),), dtype="int32", data=np.array(signed)), y], [Op("MEAN", [0, 1], [2], made)])


def curve(rng: Rng) -> Net:
    """Every level of LOGISTIC and TANH."""
    kind, scale, zero = [("LOGISTIC", 1 / 256, -128), ("TANH", 1 / 128, 0)][int(rng.integers(2))]
    x = T(
        (1, 4, 256),
        float(rng.choice([0.001, 0.01, 0.05, 0.1])) * float(rng.uniform(0.5, 2)),
        int(rng.integers(-128, 128)),
    )
    return Net([x, T((1, 4, 256), scale, zero)], [Op(kind, [0], [1])])


MAKERS = [convolution, fully_connected, pool, add, multiply, mean, softmax, unary, curve, moves]


@pytest.mark.parametrize("maker", MAKERS, ids=lambda m: m.__name__)
def test_reference_is_litert(maker: object, tmp_path: Path) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        net: Net = maker(rng)  # type: ignore[operator]
        path = net.write(tmp_path / f"{seed}.tflite")
        inputs = [int8(rng, *net.tensors[k].shape) for k in net.inputs]
        graph = frontends.load(path)
        values = {v.name: torch.from_numpy(x) for v, x in zip(graph.inputs, inputs, strict=True)}
        expected = litert(path, inputs)
        for found, wanted in zip(evaluate(graph, values), expected, strict=True):
            np.testing.assert_array_equal(found.numpy(), wanted, err_msg=f"{net.ops[0]} seed {seed}")


def refused(net: Net, path: Path) -> str:
    with pytest.raises(FrontendError) as caught:
        frontends.load(net.write(path))
    return str(caught.value)


def test_operators_bind_by_the_roles_of_their_inputs(tmp_path: Path) -> None:
    path, x, y = tmp_path / "net.tflite", T((1, 4), 0.1), T((1, 4), 0.1)
    weights = T((4, 4), 0.01, data=np.ones((4, 4), np.int8))
    dense = options("FullyConnectedOptions")
    for inputs in ([0, 1], [0, 1, -1]):
        graph = frontends.load(Net([x, weights, y], [Op("FULLY_CONNECTED", inputs, [2], dense)]).write(path))
        assert [n.op.name for n in graph.nodes] == ["reshape", "qlinear", "requantize"]
    wrong = {
        "filter is missing": Op("FULLY_CONNECTED", [0, -1], [2], dense),
        "4 inputs, expected 3 at most": Op("FULLY_CONNECTED", [0, 1, -1, 0], [2], dense),
        "2 inputs, expected 1 at most": Op("RELU", [0, 1], [2]),
        "values is missing": Op("CONCATENATION", [0, -1], [2], options("ConcatenationOptions", axis=1)),
        "perm (net/tensor0) is computed, expected a constant of INT32": Op("TRANSPOSE", [0, 0], [2]),
        "fused activation TANH is not supported": Op(
            "ADD", [0, 0], [2], options("AddOptions", fusedActivationFunction=4)
        ),
    }
    for message, op in wrong.items():
        assert message in refused(Net([x, weights, y], [op]), path)


#: fields of options that the table leaves out: the file says which shape comes out; what is of other element types
LEFT_OUT = {"DepthMultiplier", "KeepNumDims", "AsymmetricQuantizeInputs", "PotScaleInt16", "QuantizedBiasType"}


@pytest.mark.parametrize("kind", [k for k, row in CONVERTERS.items() if row.options])
def test_every_field_of_options_is_in_the_table_or_left_out_on_purpose(kind: str) -> None:
    """Defaults too are those of TFLite's schema: what an empty table of options gives."""
    import flatbuffers
    import tflite

    row, cls = CONVERTERS[kind], getattr(tflite, CONVERTERS[kind].options)
    fields = {name for name in vars(cls) if name[0].isupper() and "GetRootAs" not in name and name != "Init"}
    assert {p.name for p in row.fields} == {f for f in fields if "BufferHasIdentifier" not in f} - LEFT_OUT
    builder = flatbuffers.Builder(16)
    builder.StartObject(0)
    builder.Finish(builder.EndObject())
    empty = cls.GetRootAs(builder.Output(), 0)
    for p in row.fields:
        value = getattr(empty, p.name)()
        enum = {"Padding": tflite.Padding, "FusedActivationFunction": tflite.ActivationFunctionType}.get(p.name)
        assert p.default == (names_of(enum)[value] if enum else value)


@pytest.mark.parametrize("classes", [511, 512, 1000, 1024, 4096, 8192, 9001])
def test_softmax_of_many_classes_in_c(classes: int, tmp_path: Path) -> None:
    """Rows spread out, close together and all equal; where LiteRT aborts, no probability reaches 1/512."""
    rng = np.random.default_rng(classes)
    x = rng.integers(-128, 128, (4, classes)).astype(np.int8)
    x[1], x[2], x[3, 0] = x[1] // 64, -128, 127
    table = softmax_table(1.0, 0.05).astype(np.int32)
    types = [TensorType(x.shape, DType.I8), TensorType(table.shape, DType.I32)]
    run_both(TfliteSoftmax(), types, [x, table], tmp_path)
    found = TfliteSoftmax().reference(torch.from_numpy(x).long(), torch.from_numpy(table).long()).numpy()
    assert np.abs((found[2] + 128) / 256 - 1 / classes).max() <= 1 / 512


@pytest.mark.parametrize("roundings", [1, 3])
@pytest.mark.parametrize("shapes", [((2, 1, 4, 3), (1, 5, 1, 3)), ((2, 5, 3), (3,)), ((1, 1, 7), (1, 4, 7))])
def test_a_broadcasting_sum_in_c(
    shapes: tuple[tuple[int, ...], ...], roundings: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    op = TfliteAdd(0.05, 3, -5, 9, 1518500250, 1, 1073741824, 2, 1234567891, 16, -1)
    assert op.linear() is not None
    if roundings == 3:
        monkeypatch.setattr(TfliteAdd, "linear", lambda self: None)
    run_both(op, [TensorType(s, DType.I8) for s in shapes], [int8(rng, *s) for s in shapes], tmp_path)
