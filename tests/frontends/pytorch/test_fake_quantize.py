"""Networks that torch has quantised: fake quantisation (QAT) and quantize with dequantize (pt2e), against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.quantization as ao
from torch import Tensor, nn

from edgec import frontends
from edgec.errors import FrontendError, InputError, PassError
from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Graph
from edgec.ops.snap import Snap
from edgec.passes.quantize.compare import dequantize
from edgec.pipeline import compile_model
from edgec.stages import passes_for, transform

fake = torch.fake_quantize_per_tensor_affine
pairs = torch.ops.quantized_decomposed
SHAPE = (1, 3, 7, 5)


def quantised(graph: Graph, calibration: Any = None) -> Graph:
    return transform(graph, passes_for("int8", calibration, None, None), lambda stage: None)[-1]


def integers(graph: Graph, x: Tensor) -> Tensor:
    q = graph.inputs[0].type.quant
    assert q is not None
    return ((x / q.scale[0]).round() + q.zero_point).clamp(-128, 127).to(torch.int8)


def same_levels(graph: Graph, net: Any, samples: list[Tensor], most: float = 1.0) -> None:
    """The integer graph gives torch's levels, a few by one, and the float graph torch's numbers but for such levels."""
    whole, t = quantised(graph), None
    found, reals, wanted = [], [], []
    for x in samples:
        t = whole.type_of(whole.outputs[0])
        found.append(dequantize(evaluate(whole, {whole.inputs[0].name: integers(whole, x)})[0], t))
        reals.append(evaluate(graph, {graph.inputs[0].name: x})[0])
        wanted.append(net(x))
    assert t is not None
    assert t.quant is not None
    step, given = t.quant.scale[0], torch.stack(wanted)
    assert len(given.unique()) > 10
    for y in (torch.stack(found), torch.stack(reals)):
        levels = ((y - given) / step).abs()
        assert levels.max() <= most + 0.01
        assert (levels > 0.5).float().mean() < 0.02


class Hand(nn.Module):
    """Residual block between quantisers called by hand; int8 and uint8, weights with a scale for all or for each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn, self.second = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Conv2d(5, 5, 1)
        self.linear = nn.Linear(5 * 35, 7)
        for number in (self.bn.running_mean, self.bn.weight.data):
            number.add_(torch.rand(5) / 3)
        self.register_buffer("scales", self.second.weight.detach().abs().amax((1, 2, 3)) / 127)
        self.register_buffer("zeros", torch.zeros(5, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        x = fake(x, 0.0273, 3, -128, 127)
        w = fake(self.conv.weight, 0.00151, 0, -127, 127)
        a = fake(torch.relu(self.bn(nn.functional.conv2d(x, w, self.conv.bias, padding=1))), 0.0137, 0, 0, 255)
        w = torch.fake_quantize_per_channel_affine(self.second.weight, self.scales, self.zeros, 0, -127, 127)
        b = fake(nn.functional.conv2d(a, w, self.second.bias), 0.0131, 117, 0, 255)
        c = fake(a + b, 0.0191, 5, 0, 127)
        w = fake(self.linear.weight, 0.00063, 0, -128, 127)
        return fake(nn.functional.linear(torch.flatten(c, 1), w, self.linear.bias), 0.0217, -11, -128, 127)


class Pairs(nn.Module):
    """The same in the form of pt2e: integer weights, and a bias in units of its layer's sums."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.register_buffer("w", torch.randint(-127, 128, (5, 3, 3), dtype=torch.int8))
        self.register_buffer("w_scales", torch.rand(5) * 0.003 + 0.002)
        self.register_buffer("w_zeros", torch.zeros(5, dtype=torch.int64))
        self.register_buffer("bias", torch.randint(-9000, 9000, (5,), dtype=torch.int32))
        self.register_buffer("v", torch.randint(-128, 128, (7, 45), dtype=torch.int8))
        self.register_buffer("scale", torch.tensor(0.0413))
        self.register_buffer("zero", torch.tensor(-7))

    def forward(self, x: Tensor) -> Tensor:
        grid = (0.0231, 4, -128, 127, torch.int8)
        x = pairs.dequantize_per_tensor(pairs.quantize_per_tensor(x, *grid), *grid)
        w = pairs.dequantize_per_channel(self.w, self.w_scales, self.w_zeros, 0, -127, 127, torch.int8)
        bias = pairs.dequantize_per_channel(
            self.bias, self.w_scales * 0.0231, self.w_zeros, 0, -(2**31), 2**31 - 1, torch.int32
        )
        grid = (0.0313, 0, 0, 255, torch.uint8)
        x = torch.relu(nn.functional.conv1d(x, w, bias))
        x = pairs.dequantize_per_tensor(pairs.quantize_per_tensor(x, *grid), *grid)
        v = pairs.dequantize_per_tensor(self.v, 0.00131, 0, -128, 127, torch.int8)
        x, grid = torch.flatten(x, 1) @ v.t(), (self.scale, self.zero, -128, 127, torch.int8)
        return pairs.dequantize_per_tensor.tensor(pairs.quantize_per_tensor.tensor(x, *grid), *grid)


def samples(shape: tuple[int, ...], count: int = 20) -> list[Tensor]:
    torch.manual_seed(2)
    return [torch.randn(shape) for _ in range(count)]


def test_quantisers_called_by_hand(tmp_path: Path) -> None:
    net = Hand().eval()
    graph = frontends.load(net, torch.zeros(SHAPE))
    assert sum(isinstance(n.op, Snap) for n in graph.nodes) == 5
    assert sum(c.type.quant is not None for c in graph.consts.values()) == 3
    with torch.no_grad():
        same_levels(graph, net, samples(SHAPE))
        compiled = compile_model(net, "host", tmp_path / "out", example_inputs=torch.zeros(SHAPE))
        whole = quantised(graph)
        for x in samples(SHAPE, 5):
            (y,) = evaluate(whole, {"x": integers(whole, x)})
            levels = np.rint(compiled.run(integers(whole, x).numpy())[0] / 0.0217) - 11
            np.testing.assert_array_equal(levels, y.numpy())


def test_pairs_in_a_file(tmp_path: Path) -> None:
    """A .pt2 with weights stored as integers; per channel, per tensor and with scales that are tensors."""
    net, path = Pairs().eval(), tmp_path / "net.pt2"
    torch.export.save(torch.export.export(net, (torch.zeros(1, 3, 11),)), path)
    graph = frontends.load(path)
    kept = {n: c for n, c in quantised(graph).consts.items() if c.data.dtype == np.int8 and c.data.size == 45}
    (weights,) = kept.values()
    np.testing.assert_array_equal(weights.data.reshape(3, 3, 5), net.w.permute(2, 1, 0).numpy())
    same_levels(graph, net, samples((1, 3, 11)))


class Trained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.dq = ao.QuantStub(), ao.DeQuantStub()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU()
        self.linear, self.last = nn.Linear(5 * 35, 7), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(self.q(x))))
        return self.dq(self.last(self.linear(torch.flatten(x, 1))))


def trained(backend: str) -> nn.Module:
    torch.manual_seed(3)
    net = Trained().train()
    net.qconfig = ao.get_default_qat_qconfig(backend)
    net = ao.prepare_qat(ao.fuse_modules_qat(net, [["conv", "bn", "relu"]]))
    for _ in range(4):
        net(torch.randn(4, *SHAPE[1:]))
    return net.eval()


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated", "ignore:Please use quant_min and quant_max")
@pytest.mark.parametrize("backend", ["qnnpack", "x86"])
def test_prepare_qat(backend: str) -> None:
    """Weights folded with a batch norm, per tensor or per channel; activations of 8 or, for x86, 7 bits."""
    net = trained(backend)
    with pytest.raises(FrontendError, match=r"observer is on.*disable_observer"):
        frontends.load(net, torch.zeros(SHAPE))
    net.apply(ao.disable_observer)
    with torch.no_grad():
        same_levels(frontends.load(net, torch.zeros(SHAPE)), net, samples(SHAPE))
    net.apply(ao.disable_fake_quant)
    assert not any(isinstance(n.op, Snap) for n in frontends.load(net, torch.zeros(SHAPE)).nodes)


class Observed(nn.Module):
    """Quantisers that are modules of their own; one whose scale is fixed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        quantiser = ao.FakeQuantize.with_args(observer=ao.MovingAverageMinMaxObserver, quant_min=0, quant_max=255)
        self.first, self.linear, self.middle = quantiser(), nn.Linear(9, 7), quantiser()
        self.last = ao.default_fixed_qparams_range_0to1_fake_quant()
        self.weight = ao.default_per_channel_weight_fake_quant()

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.linear(self.first(x), self.weight(self.linear.weight), self.linear.bias)
        return self.last(torch.sigmoid(self.middle(y)))


def test_modules_that_fake_quantise() -> None:
    net = Observed()
    net(torch.randn(64, 9))
    net.eval()
    with pytest.raises(FrontendError, match=r"observer of a FakeQuantize is on(?s:.*)disable_observer"):
        frontends.load(net, torch.zeros(1, 9))
    net.apply(ao.disable_observer)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with torch.no_grad():
        same_levels(frontends.load(net, torch.zeros(1, 9)), net, samples((1, 9), 60))
    assert list(net.state_dict()) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


class Half(nn.Module):
    """Only its input is quantised."""

    def __init__(self, *grid: Any) -> None:
        super().__init__()
        self.grid, self.linear = grid, nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.tanh(self.linear(fake(x, *self.grid)) @ torch.ones(5, 6)))


def test_what_has_no_scale_is_calibrated_or_listed(tmp_path: Path) -> None:
    net, x = Half(0.0271, 3, -128, 127).eval(), torch.randn(40, 1, 6)
    graph = frontends.load(net, x[0])
    with pytest.raises(PassError, match=r"(?s)no scale is given for these tensors.*%linear"):
        quantised(graph)
    whole = quantised(graph, x.numpy())
    assert whole.inputs[0].type.quant is not None
    assert whole.inputs[0].type.quant.zero_point == 3
    plain = nn.Linear(6, 5).eval()
    with pytest.raises(InputError, match="needs calibration data"):
        compile_model(plain, "host", tmp_path / "out", example_inputs=x[0])


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ((0.1, 0, -32768, 32767), r"integers from -32768 to 32767: expected them within -128\.\.127 or 0\.\.255"),
        ((0.0, 0, -128, 127), "scale 0, expected a positive number"),
    ],
)
def test_ranges_that_do_not_fit_are_refused(grid: Any, message: str) -> None:
    with pytest.raises(FrontendError, match=message):
        frontends.load(Half(*grid).eval(), torch.zeros(1, 6))


def test_a_computed_tensor_has_one_scale() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            zeros = torch.zeros(6, dtype=torch.int32)
            return torch.fake_quantize_per_channel_affine(x, torch.full((6,), 0.1), zeros, 1, -128, 127)

    with pytest.raises(FrontendError, match="6 scales: expected one for a tensor that is computed"):
        frontends.load(Net().eval(), torch.zeros(1, 6))
