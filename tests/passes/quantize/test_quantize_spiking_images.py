"""Convolutional spiking networks in integers: what they cost in constants, and what their neurons do beside float."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

snn = pytest.importorskip("snntorch")

import edgec  # noqa: E402
from edgec.compiled import quantised  # noqa: E402
from edgec.frontends import load  # noqa: E402
from edgec.ir.evaluate import StepRunner, evaluate  # noqa: E402
from edgec.passes.quantize.assign_precision import Assignment  # noqa: E402
from edgec.passes.quantize.compare import compare  # noqa: E402
from edgec.passes.streaming.make_streaming import MakeStreaming  # noqa: E402
from edgec.stages import Stages, make_stages  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # spikingjelly still uses torch.jit

T = 12


class Images(nn.Module):
    """Conv, Leaky, pool, conv, Leaky, pool, linear, Leaky, frame by frame: x [1,T,2,16,16] -> spikes [1,T,5]."""

    def __init__(self, pool: type[nn.Module], reset: str = "subtract") -> None:
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(2, 8, 3, padding=1), snn.Leaky(beta=0.9, reset_mechanism=reset)
        self.conv2, self.lif2 = nn.Conv2d(8, 6, 3, padding=1), snn.Leaky(beta=0.8, reset_mechanism=reset)
        self.pool, self.fc, self.lif3 = pool(2), nn.Linear(6 * 16, 5), snn.Leaky(beta=0.7, threshold=0.2)

    def forward(self, x: Tensor) -> Tensor:
        m1, m2, m3 = self.lif1.init_leaky(), self.lif2.init_leaky(), self.lif3.init_leaky()
        out = []
        for t in range(x.shape[1]):
            s, m1 = self.lif1(self.conv1(x[:, t]), m1)
            s, m2 = self.lif2(self.conv2(self.pool(s)), m2)
            s, m3 = self.lif3(self.fc(self.pool(s).flatten(1)), m3)
            out.append(s)
        return torch.stack(out, 1)


class Signals(nn.Module):
    """The same of Conv1d along each frame, its neurons with a pool between and without: x [1,T,3,32] -> [1,T,4]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.lif1 = nn.Conv1d(3, 8, 5, padding=2), snn.Leaky(beta=0.8, threshold=0.3)
        self.pool, self.conv2 = nn.MaxPool1d(2), nn.Conv1d(8, 8, 3)
        self.lif2, self.fc = snn.Leaky(beta=0.9, threshold=0.3), nn.Linear(8 * 14, 4)

    def forward(self, x: Tensor) -> Tensor:
        m1, m2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        out = []
        for t in range(x.shape[1]):
            s, m1 = self.lif1(self.conv1(x[:, t]), m1)
            s, m2 = self.lif2(self.conv2(self.pool(s)), m2)
            out.append(self.fc(s.flatten(1)))
        return torch.stack(out, 1)


class Jelly(nn.Module):
    """spikingjelly's layers over the whole sequence: x [1,T,2,8,8] -> spikes [1,T,5]."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
            from spikingjelly.activation_based import layer
        self.body = nn.Sequential(
            layer.Conv2d(2, 6, 3, padding=1, step_mode="m"),
            neuron.LIFNode(step_mode="m", v_threshold=0.3),
            layer.AvgPool2d(2, step_mode="m"),
            layer.Conv2d(6, 8, 3, padding=1, step_mode="m"),
            neuron.IFNode(step_mode="m", v_threshold=0.5),
            layer.MaxPool2d(2, step_mode="m"),
            layer.Flatten(step_mode="m"),
            layer.Linear(32, 5, step_mode="m"),
            neuron.LIFNode(step_mode="m", v_threshold=0.3),
        )

    def forward(self, x: Tensor) -> Tensor:
        for node in self.body:
            if hasattr(node, "reset"):
                node.reset()
        return self.body(x.transpose(0, 1)).transpose(0, 1)


NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "max": (lambda: Images(nn.MaxPool2d), (2, 16, 16)),
    "average": (lambda: Images(nn.AvgPool2d, "zero"), (2, 16, 16)),
    "signals": (Signals, (3, 32)),
    "spikingjelly": (Jelly, (2, 8, 8)),
}


def integer(module: nn.Module, shape: tuple[int, ...]) -> tuple[Stages, np.ndarray]:
    """The network in integers, and data of the kind that it was calibrated with."""
    rng = np.random.default_rng(3)
    data = rng.random((6, T, *shape), np.float32)
    graph = load(module, (torch.from_numpy(data[:1]),), time_axis=1)
    stages = make_stages(graph, "int8", data, MakeStreaming(), None, Assignment(), lambda stage: None, None)
    return stages, rng.random((3, T, *shape), np.float32)


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[Stages, np.ndarray, nn.Module]:
    torch.manual_seed(0)
    make, shape = NETWORKS[request.param]
    module = make().eval()
    with torch.no_grad():
        for m in module.modules():
            if isinstance(m, (nn.Conv1d, nn.Conv2d)):
                m.weight *= 3
    return *integer(module, shape), module


def test_constants_are_those_of_the_layers(network: Any) -> None:
    """Weights, biases, scales and a few numbers for each layer of neurons: nothing grows with the number of neurons."""
    stages, _, module = network
    weights = sum(p.numel() for p in module.parameters() if p.ndim > 1)
    outputs = sum(p.numel() for p in module.parameters() if p.ndim == 1)
    assert sum(c.data.nbytes for c in stages.step.consts.values()) <= weights + 24 * outputs + 64


def test_neurons_do_what_the_module_s_do(network: Any) -> None:
    """The float graph's spikes are the module's; each layer's own rounding flips under 1 % of its spikes, and the
    first layer's rounding of weights and inputs under 2 %."""
    stages, data, module = network
    x = torch.from_numpy(data[:1])
    with torch.no_grad():
        expected = module(x)
    torch.testing.assert_close(evaluate(stages.reference, {stages.reference.inputs[0].name: x})[0], expected)
    rows = compare(stages.reference, stages.whole, {stages.reference.inputs[0].name: data})
    layers = [r for r in rows if r.is_spikes and r.op.startswith("qlif")]
    found = [(r.name, r.float_rate, r.flips, r.own_flips) for r in layers]
    assert layers
    assert all(r.float_rate > 0.01 and r.own_flips < 0.01 for r in layers), found
    assert layers[0].flips < 0.02
    assert all(abs(r.rate - r.float_rate) < 0.03 for r in layers), found


def test_steps_give_the_whole_sequence_bit_for_bit(network: Any) -> None:
    stages, data, _ = network
    name, t = stages.whole.inputs[0].name, stages.whole.inputs[0].type
    scale, zero = t.quant.scale[0], t.quant.zero_point
    x = torch.from_numpy(np.clip(np.floor(data[:1] / scale + 0.5) + zero, -128, 127).astype(np.int64))
    whole, runner = evaluate(stages.whole, {name: x})[0], StepRunner(stages.step)
    for frame in range(T):
        (found,) = runner.step({name: x[:, frame : frame + 1]})
        assert torch.equal(found, whole[:, frame : frame + 1])


def test_the_emulated_core_gives_the_reference_s_spikes(tmp_path: Path) -> None:
    """Compiled for a Cortex-M4: step reference == C here == emulated core; no layer falls to generic code."""
    pytest.importorskip("unicorn")
    torch.manual_seed(0)
    rng = np.random.default_rng(3)
    data = rng.random((6, T, 2, 16, 16), np.float32)
    model = edgec.compile(
        Images(nn.MaxPool2d).eval(), "cortex-m4", tmp_path / "out", calibration=data,
        example_inputs=(torch.from_numpy(data[:1]),), time_axis=1,
    )  # fmt: skip
    report = model.report
    assert report["totals"]["flash"] < 12_000
    variants = {r["op"]: r["variant"] for r in report["layers"]}
    assert variants["qconv2d_requantize"] == "windows_dsp"
    assert variants["qunpack"] == "unpack"
    x, runner = quantised(data[:1], model.manifest.inputs[0]), StepRunner(model.graph("step"))
    fired = 0
    with model.device("host") as host, model.device("unicorn") as core:
        for frame in range(T):
            (expected,) = runner.step({"x": torch.from_numpy(x[:, frame : frame + 1].astype(np.int64))})
            (here,), (there,) = host.step([x[:, frame : frame + 1]]), core.step([x[:, frame : frame + 1]])
            spikes = expected.numpy().reshape(-1)
            assert int(here.reshape(-1)[0]) == int((spikes << np.arange(5)).sum())
            np.testing.assert_array_equal(there, here)
            fired += int(spikes.sum())
    assert fired
