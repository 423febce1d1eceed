"""Channels of very different reach: one scale of 8 bits serves them badly, so layers over frames read them in 16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgec import frontends
from edgec.ir.evaluate import StepRunner, evaluate
from edgec.ir.graph import Graph
from edgec.ir.types import DType
from edgec.passes.quantize.calibrate import Statistics, calibrate
from edgec.passes.quantize.compare import compare
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.streaming.make_streaming import MakeStreaming
from edgec.pipeline import compile_model
from edgec.stages import float_passes, transform
from tests.passes.quantize.quantize_tools import assert_stays_in_int32, extreme_inputs, quantized


class Spread(nn.Module):
    """Twice convolution, ReLU and batch norm, in this order, then a linear layer per frame; x: [B,T,8] -> [B,T,4].

    The batch norms let one channel in 32 reach `spread` times as far as the others.
    """

    def __init__(self, spread: float, dim: int = 32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv0, self.norm0 = nn.Conv1d(8, dim, 3, padding=1), nn.BatchNorm1d(dim)
        self.conv1, self.norm1 = nn.Conv1d(dim, dim, 3, padding=1), nn.BatchNorm1d(dim)
        self.head = nn.Linear(dim, 4)
        with torch.no_grad():
            for norm, layer in ((self.norm0, self.conv1), (self.norm1, self.head)):
                norm.weight[5] = spread
                norm.bias.normal_(0.0, 0.1)
                norm.running_var.uniform_(0.5, 2.0)
                layer.weight[:, 5] /= spread**0.5
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm0(self.conv0(x.transpose(1, 2)).relu())
        h = self.norm1(self.conv1(h).relu())
        y: Tensor = self.head(h.transpose(1, 2))
        return y


def data(n: int = 24) -> Tensor:
    return torch.randn(n, 20, 8, generator=torch.Generator().manual_seed(1))


def folded(spread: float) -> Graph:
    imported = frontends.load(Spread(spread), (data(1),), time_axis=1)
    return transform(imported, float_passes(), lambda stage: None)[-1]


def read_types(graph: Graph) -> list[DType]:
    """What the layers with weights read."""
    return [graph.type_of(n.inputs[0]).dtype for n in graph.nodes if n.op.name in ("qconv1d", "qlinear")]


def test_the_estimate_is_the_error_of_rounding() -> None:
    values = torch.randn(4, 500, 8, generator=torch.Generator().manual_seed(2)).numpy() * np.geomspace(0.1, 10, 8)
    graph = folded(1.0)
    found = calibrate(graph, values[:, :20].astype(np.float32))[graph.inputs[0].name]
    assert isinstance(found, Statistics)
    held = values[:, :20]
    lo, hi = found.clip()
    step = (hi - lo) / 255
    rounded = np.clip(np.round((held - lo) / step), 0, 255) * step + lo
    assert found.sqnr() == pytest.approx(10 * np.log10(np.mean(held**2) / np.mean((rounded - held) ** 2)), abs=1.0)


def test_only_what_8_bits_serve_badly_is_read_in_16() -> None:
    assert read_types(quantized(folded(1.0), data().numpy())) == [DType.I8] * 3
    assert read_types(quantized(folded(20.0), data().numpy())) == [DType.I8, DType.I16, DType.I8]


def test_what_no_frame_carries_stays_in_8_bits() -> None:
    """Without a time axis the same network is a window a call, whose kernels are for int8."""
    imported = frontends.load(Spread(20.0), (data(1),), time_axis=None)
    graph = transform(imported, float_passes(), lambda stage: None)[-1]
    assert read_types(quantized(graph, data().numpy())) == [DType.I8] * 3


def test_spread_channels_stay_close_to_torch() -> None:
    graph, x = folded(20.0), data()
    integer = quantized(graph, x.numpy())
    assert compare(graph, integer, {graph.inputs[0].name: x.numpy()})[-1].sqnr > 34
    name, out = integer.inputs[0].name, integer.type_of(integer.outputs[0])
    assert integer.inputs[0].type.quant is not None
    assert out.quant is not None
    quant = integer.inputs[0].type.quant
    q = (x[:1].double() / quant.scale[0]).round().add(quant.zero_point).clamp(-128, 127).to(torch.int64)
    with torch.no_grad():
        expected = Spread(20.0)(((q - quant.zero_point) * quant.scale[0]).float())
    found = (evaluate(integer, {name: q})[0] - out.quant.zero_point) * out.quant.scale[0]
    assert float((found - expected).abs().max()) < 4 * out.quant.scale[0]


@pytest.mark.parametrize("kind", ["lo", "hi", "random", "turns"])
def test_sums_of_16_bits_stay_in_int32(kind: str) -> None:
    integer = quantized(folded(20.0), data().numpy())
    assert_stays_in_int32(integer, extreme_inputs(integer, kind))


def test_streamed_in_integers_it_is_the_whole_sequence() -> None:
    whole = Quantize(data().numpy()).run(folded(20.0))
    inputs = extreme_inputs(whole, "random")
    streamed = torch.cat([o[0] for o in StepRunner(MakeStreaming().run(whole)).run(inputs)], 1)
    assert torch.equal(streamed, evaluate(whole, inputs)[0])


def test_c_gives_the_bytes_of_the_reference(tmp_path: Path) -> None:
    x = data().numpy()
    model: Any = compile_model(
        Spread(20.0), "cortex-m7", tmp_path / "out", calibration=x, example_inputs=(data(1),), time_axis=1
    )
    whole = model.graph("whole")
    quant = whole.inputs[0].type.quant
    q = np.clip(np.round(x[0] / quant.scale[0]) + quant.zero_point, -128, 127).astype(np.int8)
    expected = evaluate(whole, {whole.inputs[0].name: torch.from_numpy(q)[None]})[0].numpy()[0]
    for kind in ("host", "unicorn"):
        with model.device(kind) as device:
            outs = [device.step([frame.reshape(1, 1, -1)]) for frame in q]
            outs = [o for o in outs if o is not None]
            while (out := device.flush()) is not None:
                outs.append(out)
        np.testing.assert_array_equal(np.stack([o[0].reshape(-1) for o in outs]), expected, err_msg=kind)
    variants = [layer["variant"] for layer in model.report["layers"] if layer["op"] == "qconv1d"]
    assert variants == ["dense_dsp", "wide_dsp"]
