"""Pooling windows at the edges, with every padding, ceil_mode and divisor, against onnxruntime and against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from edgec import frontends
from edgec.ir.evaluate import evaluate

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
AXIS = st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3))


def quantised_pool(path: Path, shape: tuple[int, ...], kind: str, ratio: float, **attributes: Any) -> tuple[Path, Path]:
    """One pool between quantisers, and the same without the last one; `ratio` is input scale over output scale."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    scales = (0.05, 0.05 if kind == "MaxPool" else 0.05 / ratio)
    consts = [numpy_helper.from_array(np.array(s, np.float32), f"s{k}") for k, s in enumerate(scales)]
    zeros = (9, 9 if kind == "MaxPool" else -20)
    consts += [numpy_helper.from_array(np.array(z, np.int8), f"z{k}") for k, z in enumerate(zeros)]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s0", "z0"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s0", "z0"], ["xr"]),
        helper.make_node(kind, ["xr"], ["y"], **attributes),
        helper.make_node("QuantizeLinear", ["y", "s1", "z1"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "s1", "z1"], ["out"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    paths = path, path.with_suffix(".real.onnx")
    for file, result in zip(paths, ("out", "y"), strict=True):
        y = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes if result == "out" else nodes[:3], "pool", [x], [y], consts)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), file)
    return paths


@SETTINGS
@given(
    axes=st.lists(AXIS, min_size=1, max_size=2), kind=st.sampled_from(["AveragePool", "AveragePool", "MaxPool"]),
    ceil=st.booleans(), include=st.booleans(), ratio=st.sampled_from([0.3, 1.0, 2.7, 10.0]),
    auto=st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_onnx(
    axes: list[tuple[int, ...]], kind: str, ceil: bool, include: bool, ratio: float, auto: str, seed: int,
    tmp_path: Path,
) -> None:  # fmt: skip
    """One rounding: at most half a level from what onnxruntime's pool gives in float32."""
    pytest.importorskip("onnx_ir")
    pytest.importorskip("onnxruntime")
    from tests.frontends.onnx.onnx_models import onnxruntime, quantised
    from tests.frontends.onnx.test_onnx import integers

    extents, kernel, strides, *pads = ([a[k] for a in axes] for k in range(5))
    pads = [[min(p, k - 1) for p, k in zip(side, kernel, strict=True)] for side in pads]
    padded = [sum(n) for n in zip(extents, *(pads if auto == "NOTSET" else []), strict=True)]
    assume(auto.startswith("SAME") or all(n >= k for n, k in zip(padded, kernel, strict=True)))
    tail = [(n - 1) % s + 1 - k for n, s, k in zip(extents, strides, kernel, strict=True)]
    assume(not auto.startswith("SAME") or max(tail) <= 0)  # onnxruntime refuses a negative padding
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "ceil_mode": int(ceil)}
    attributes |= {"pads": [*pads[0], *pads[1]]} if auto == "NOTSET" else {"auto_pad": auto}
    attributes |= {"count_include_pad": int(include)} if kind == "AveragePool" else {}
    path, real = quantised_pool(tmp_path / "pool.onnx", (1, 3, *extents), kind, ratio, **attributes)
    x = np.random.default_rng(seed).normal(0, 3, (1, 3, *extents)).astype(np.float32)
    wanted = onnxruntime(real, x)
    graph = quantised(path)
    (found,) = evaluate(graph, {"x": torch.from_numpy(integers(graph, x))})
    quant = graph.type_of(graph.outputs[0]).quant
    assert quant is not None
    assert tuple(found.shape) == wanted.shape == onnxruntime(path, x).shape
    levels = np.clip(wanted.astype(np.float64) / quant.scale[0] + quant.zero_point, -128, 127)
    assert np.abs(found.numpy() - levels).max() <= 0.5 + 1e-4


@SETTINGS
@given(
    axes=st.lists(AXIS, min_size=1, max_size=2), average=st.booleans(), ceil=st.booleans(), include=st.booleans(),
    override=st.sampled_from([None, None, 3]), seed=st.integers(0, 99),
)  # fmt: skip
def test_torch(
    axes: list[tuple[int, ...]], average: bool, ceil: bool, include: bool, override: int | None, seed: int
) -> None:
    extents, kernel, strides, wanted = ([a[k] for a in axes] for k in range(4))
    pads = [min(p, k // 2) for p, k in zip(wanted, kernel, strict=True)]
    assume(all(n + 2 * p >= k for n, p, k in zip(extents, pads, kernel, strict=True)))
    name = f"{'Avg' if average else 'Max'}Pool{len(axes)}d"
    options: dict[str, Any] = {"count_include_pad": include} if average else {}
    if average and len(axes) == 2 and override:
        options["divisor_override"] = override
    pool = getattr(nn, name)(kernel, strides, pads, ceil_mode=ceil, **options).eval()
    torch.manual_seed(seed)
    x = torch.randn(1, 3, *extents)
    graph = frontends.load(pool, (x,))
    (found,) = evaluate(graph, {graph.inputs[0].name: x})
    torch.testing.assert_close(found, pool(x))
