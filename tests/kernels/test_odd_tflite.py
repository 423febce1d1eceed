"""Quantised files with odd outputs, as TFLite writes them: LiteRT, C on this computer and an emulated core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tflite")
pytest.importorskip("ai_edge_litert")

import edgec
from tests.frontends.tflite.tflite_models import Net, Op, T, litert, options

SIZE, CHANNELS = 6, 16


def network(rng: np.random.Generator, activation: int) -> Net:
    """A convolution, a depthwise and a pointwise one, each with outputs that are empty, nearly dead, and steep."""
    tensors, ops, x_scale = [T((1, SIZE, SIZE, CHANNELS), 0.05, 3)], [], 0.05
    for kind, shape, axis in (
        ("CONV_2D", (CHANNELS, 3, 3, CHANNELS), 0), ("DEPTHWISE_CONV_2D", (1, 3, 3, CHANNELS), 3),
        ("CONV_2D", (CHANNELS, 1, 1, CHANNELS), 0),
    ):  # fmt: skip
        w, scales = rng.integers(-127, 128, shape).astype(np.int8), rng.uniform(0.001, 0.004, CHANNELS)
        bias, y_scale = rng.integers(-3000, 3000, CHANNELS), 0.08
        at = (slice(None),) * axis
        for output, value in ((0, 1 << 30), (CHANNELS - 1, -(1 << 29))):
            w[(*at, output)], bias[output], scales[output] = 0, value, 1e-9
        scales[4], bias[4] = 2e-8, round(1.5 * y_scale / (x_scale * 2e-8))
        scales[9], bias[9] = 5e-8, round(30.5 * y_scale / (x_scale * 5e-8))
        scales[11] = 0.05
        first = len(tensors)
        tensors += [
            T(shape, [float(s) for s in scales], 0, data=w, axis=axis),
            T((CHANNELS,), [float(x_scale * s) for s in scales], dtype="int32", data=bias),
            T((1, SIZE, SIZE, CHANNELS), y_scale, -128 if activation else 5),
        ]
        fields = {"padding": 0, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
        name = "Conv2DOptions" if kind == "CONV_2D" else "DepthwiseConv2DOptions"
        if kind != "CONV_2D":
            fields["depthMultiplier"] = 1
        made = options(name, fusedActivationFunction=activation, **fields)
        ops.append(Op(kind, [0 if first == 1 else first - 1, first, first + 1], [first + 2], made))
        x_scale = y_scale
    return Net(tensors, ops)


@pytest.mark.parametrize(("activation", "target"), [(0, "cortex-m4"), (1, "cortex-m7"), (3, "cortex-m0plus")])
def test_the_bytes_are_litert_s(activation: int, target: str, tmp_path: Path) -> None:
    pytest.importorskip("unicorn")
    rng = np.random.default_rng(activation)
    path = network(rng, activation).write(tmp_path / "odd.tflite")
    model = edgec.compile(path, target, tmp_path / "out")
    variants = {row["variant"] for row in model.report["layers"] if row["op"].startswith("qconv")}
    assert "generic" not in variants
    with model.device("host") as host, model.device("unicorn") as core:
        for _ in range(4):
            x = rng.integers(-128, 128, (1, SIZE, SIZE, CHANNELS)).astype(np.int8)
            (expected,) = litert(path, [x])
            (here,), (there,) = host.step([x]), core.step([x])
            np.testing.assert_array_equal(here.reshape(-1), expected.reshape(-1))
            np.testing.assert_array_equal(there, here)
            assert len(np.unique(expected)) > 20
