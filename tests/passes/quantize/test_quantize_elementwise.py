"""Normalisations, constants, functions of one element and broadcasting sums in integers: torch is the oracle."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgec import frontends
from edgec.backends.emit import write_folder
from edgec.device import open_device
from edgec.ir.evaluate import StepRunner, evaluate
from edgec.ir.graph import Graph
from edgec.ir.types import DType
from edgec.ops.integer.elementwise import QAffine
from edgec.ops.integer.requantize import QAdd
from edgec.passes.base import Pass
from edgec.passes.channels.drop_constant_channels import DropConstantChannels
from edgec.passes.quantize.assign_precision import Assignment
from edgec.passes.quantize.calibrate import evaluate_batches
from edgec.passes.quantize.compare import dequantize, requantized
from edgec.passes.streaming.make_streaming import MakeStreaming
from edgec.pipeline import calibrate_model, compile_model
from edgec.stages import Stages, make_stages
from edgec.target import load_target
from edgec.toolchain.manifest import read_manifest
from tests.passes.quantize.test_quantize_ops import run_both, typed

FLOOR = 30.0  # dB: each of these networks rounds to int8 a few times


class Formula(nn.Module):
    """A network written as a function of its layers and the input."""

    def __init__(self, formula: Callable[[Any, torch.Tensor], torch.Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.formula = formula
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.formula(self, x)


def norm(channels: int, kind: type[Any] = nn.BatchNorm2d) -> Any:
    """A batch norm as training leaves it."""
    layer = kind(channels)
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.3, 2.0)
    nn.init.uniform_(layer.weight, 0.5, 1.5)
    nn.init.normal_(layer.bias)
    return layer


def stages_of(module: nn.Module, data: torch.Tensor, time_axis: int | None = None, drop: Pass | None = None) -> Stages:
    """The graphs of a module, as `compile` makes them for int8."""
    graph = frontends.load(module.eval(), (data[:1],), time_axis=time_axis)
    stepper = None if time_axis is None else MakeStreaming()
    stages = make_stages(graph, "int8", data.numpy(), stepper, drop, Assignment(), lambda stage: None, None)
    assert not any(stages.step.type_of(o).dtype.is_float for n in stages.step.nodes for o in n.outputs)
    return stages


def outputs_of(graph: Graph, data: torch.Tensor) -> torch.Tensor:
    """What an integer graph says, in real numbers."""
    (v,) = graph.inputs
    found = []
    for values in evaluate_batches(graph, {v.name: requantized(data.double(), v.type)}):
        found.append(dequantize(values[graph.outputs[0]], graph.type_of(graph.outputs[0])))
    return torch.cat(found)


def sqnr(found: torch.Tensor, expected: torch.Tensor) -> float:
    error = (found.reshape(expected.shape) - expected).square().sum()
    return float(10 * torch.log10(expected.double().square().sum() / error.clamp(min=1e-30)))


def agreement(module: nn.Module, *shape: int, seed: int = 0) -> float:
    """Signal to error in dB of the integer network against the module on its calibration data."""
    torch.manual_seed(seed)
    data = torch.randn(24, *shape)
    stages = stages_of(module, data, drop=DropConstantChannels())
    found = outputs_of(stages.whole, data)
    assert torch.equal(outputs_of(stages.step, data), found)
    with torch.no_grad():
        return sqnr(found, torch.cat([module(x) for x in data.split(1)]))


NORMALISED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "alone over [B,C]": (lambda: norm(7, nn.BatchNorm1d), (7,)),
    "alone over [B,C,T]": (lambda: norm(5, nn.BatchNorm1d), (5, 9)),
    "alone over [B,C,H,W]": (lambda: norm(3), (3, 8, 7)),
    "before a padded convolution": (lambda: nn.Sequential(norm(3), nn.Conv2d(3, 8, 3, padding=1)), (3, 8, 7)),
    "before a convolution": (lambda: nn.Sequential(norm(3), nn.Conv2d(3, 8, 3, stride=2)), (3, 8, 7)),
    "before a depthwise convolution": (
        lambda: nn.Sequential(norm(5), nn.Conv2d(5, 5, 3, padding=1, groups=5)),
        (5, 6, 6),
    ),
    "before a sequence convolution": (
        lambda: nn.Sequential(norm(3, nn.BatchNorm1d), nn.Conv1d(3, 8, 3, padding=1)),
        (3, 17),
    ),
    "first, then relu": (lambda: nn.Sequential(norm(3), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1)), (3, 6, 6)),
    "twice in front": (lambda: nn.Sequential(norm(3), norm(3), nn.Conv2d(3, 4, 3, padding=1)), (3, 6, 6)),
    "after pooling": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AvgPool2d(2), norm(8), nn.Conv2d(8, 4, 2)),
        (3, 8, 8),
    ),
    "after a maximum, last": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), norm(8)), (3, 8, 8)),
    "between a pooled image and a layer": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), norm(8, nn.BatchNorm1d), nn.Linear(8, 4)
        ),
        (3, 8, 8),
    ),
    "first of a flattened image": (
        lambda: nn.Sequential(norm(3), nn.Flatten(), nn.Linear(3 * 30, 4)),
        (3, 5, 6),
    ),
    "beside a shortcut": (
        lambda: Formula(lambda s, x: x + s.conv(torch.relu(s.norm(x))), norm=norm(4), conv=nn.Conv2d(4, 4, 3, 1, 1)),
        (4, 6, 6),
    ),
}


@pytest.mark.parametrize(("classes", "gain"), [(512, 0.5), (512, 8.0), (1000, 0.5), (1000, 8.0), (4096, 8.0)])
def test_a_softmax_over_many_classes(classes: int, gain: float) -> None:
    """Nearly even probabilities and peaked ones; even ones over 4096 classes are a few of the 2**15 levels of a row."""
    torch.manual_seed(0)
    layer = nn.Linear(6, classes)
    nn.init.normal_(layer.weight, std=gain)
    assert agreement(nn.Sequential(layer, nn.Softmax(-1)), 6) > 25


@pytest.mark.parametrize("name", NORMALISED)
def test_a_batch_norm_anywhere(name: str) -> None:
    torch.manual_seed(0)
    make, shape = NORMALISED[name]
    assert agreement(make(), *shape) > FLOOR


class Standardised(nn.Module):
    """(x - mean) / std in front of a padded convolution; the constants have `rank` axes or are numbers."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        shape = (3, *[1] * (rank - 1)) if rank == 3 else (1, 3, 1, 1) if rank else (1,)
        self.register_buffer("mean", torch.randn(shape))
        self.register_buffer("deviation", torch.rand(shape) + 0.5)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv((x - self.mean) / self.deviation)
        return y


@pytest.mark.parametrize("rank", [0, 3, 4])
def test_a_normalisation_written_out(rank: int) -> None:
    torch.manual_seed(0)
    assert agreement(Standardised(rank), 3, 8, 8) > FLOOR


def test_a_normalisation_before_the_first_layer_has_its_channels_last() -> None:
    torch.manual_seed(0)
    graph = stages_of(Standardised(4), torch.randn(8, 3, 8, 8)).whole
    assert [n.op.name for n in graph.nodes][:2] == ["permute", "qaffine"]
    assert [n.op.axis for n in graph.nodes if isinstance(n.op, QAffine)] == [-1]


MAPS: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "divided": lambda s, x: s.a(x) / 3.0,
    "divided by a vector": lambda s, x: s.b(s.a(x) / s.vector),
    "number less": lambda s, x: 1.5 - s.a(x),
    "vector less": lambda s, x: s.vector - s.a(x),
    "a number over it": lambda s, x: 2.0 / (1 + torch.relu(s.a(x))),
    "one over a root": lambda s, x: s.b(torch.rsqrt(torch.relu(s.a(x)) + 0.5)),
    "by a row": lambda s, x: s.b(s.a(x) * s.rows),
    "by a matrix": lambda s, x: s.b(s.a(x) * s.matrix),
    "divided by a matrix": lambda s, x: s.b(s.a(x) / s.matrix.exp()),
    "a matrix more": lambda s, x: s.b(s.a(x) + s.matrix),
    "broadcast up to a matrix": lambda s, x: s.b(s.a(x).mean(1, keepdim=True) - s.matrix),
    "by a tensor": lambda s, x: s.b(s.a(x) / (1 + torch.relu(s.a(x)))),
    "twice a sigmoid": lambda s, x: 2 * torch.sigmoid(s.a(x)),
}


@pytest.mark.parametrize("name", MAPS)
def test_arithmetic_with_constants(name: str) -> None:
    torch.manual_seed(0)
    module = Formula(MAPS[name], a=nn.Linear(6, 8), b=nn.Linear(8, 3))
    module.vector, module.rows = nn.Parameter(torch.rand(8) + 0.5), nn.Parameter(torch.randn(5, 1))
    module.matrix = nn.Parameter(torch.randn(5, 8))
    assert agreement(module, 5, 6) > FLOOR


FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    **{
        type(m).__name__: m
        for m in (
            nn.Hardswish(), nn.Hardsigmoid(), nn.SiLU(), nn.GELU(), nn.ELU(0.7), nn.SELU(), nn.CELU(0.8), nn.Mish(),
            nn.LeakyReLU(0.1), nn.PReLU(), nn.Softplus(), nn.LogSigmoid(), nn.Softsign(), nn.Tanhshrink(), nn.Tanh(),
            nn.Sigmoid(), nn.Hardtanh(), nn.ReLU6(),
        )
    },
    "gelu with tanh": nn.GELU(approximate="tanh"),
    "softplus with beta": nn.Softplus(beta=2.5, threshold=30),
    "a slope for each channel": nn.PReLU(8),
    "hardswish written out": lambda x: x * nn.functional.relu6(x + 3) / 6,
    "exp": torch.exp,
    "abs": torch.abs,
    "log": lambda x: torch.log(x.abs() + 0.5),
    "sqrt": lambda x: torch.sqrt(torch.relu(x) + 0.1),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_one_element(name: str) -> None:
    torch.manual_seed(0)
    function = FUNCTIONS[name]
    layers = {"f": function} if isinstance(function, nn.Module) else {}
    module = Formula(lambda s, x: s.b(function(s.a(x))), a=nn.Linear(6, 8), b=nn.Linear(8, 4), **layers)
    with torch.no_grad():
        module.a.weight.mul_(3)
        data = torch.randn(64, 6)
        graph = frontends.load(module.eval(), (data[:1],), time_axis=None)
        (found,) = evaluate(graph, {graph.inputs[0].name: data[:1]})
        torch.testing.assert_close(found, module(data[:1]), rtol=1e-5, atol=1e-5)
    assert agreement(module, 6) > FLOOR


def test_a_level_where_a_function_is_no_number_has_its_neighbours_value() -> None:
    torch.manual_seed(0)
    module = Formula(lambda s, x: torch.log(torch.relu(s.a(x)) + 1.0), a=nn.Linear(6, 8))
    assert agreement(module, 6) > FLOOR


SUMS: dict[str, tuple[Callable[[Any, torch.Tensor], torch.Tensor], tuple[int, ...]]] = {
    "image and vector": (lambda s, x: (y := s.image(x)) + s.vector(y.mean((2, 3), keepdim=True)), (3, 7, 6)),
    "vector and image": (lambda s, x: s.vector((y := s.image(x)).mean((2, 3), keepdim=True)) + y, (3, 7, 6)),
    "image less its mean": (lambda s, x: (y := s.image(x)) - y.mean((2, 3), keepdim=True), (3, 7, 6)),
    "mean less the image": (lambda s, x: (y := s.image(x)).mean((2, 3), keepdim=True) - y, (3, 7, 6)),
    "then relu": (lambda s, x: torch.relu((y := s.image(x)) - s.vector(y.mean((2, 3), keepdim=True))), (3, 7, 6)),
    "rows and a row": (lambda s, x: (y := s.a(x)) + s.b(y.mean(1, keepdim=True)), (5, 6)),
    "rows and a vector": (lambda s, x: (y := s.a(x)) + s.b(y.mean(1)), (5, 6)),
    "rows and a column": (lambda s, x: s.a(x) - s.column(x), (5, 6)),
    "both": (lambda s, x: s.a(x).unsqueeze(2) + s.a(x).unsqueeze(1), (5, 6)),
    "then a layer norm": (lambda s, x: s.norm((y := s.a(x)) + s.b(y.mean(1, keepdim=True))), (5, 6)),
    "product with a column": (lambda s, x: s.a(x) * s.column(x), (5, 6)),
}


def summed(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    formula, shape = SUMS[name]
    layers = {"image": nn.Conv2d(3, 8, 3, padding=1), "vector": nn.Conv2d(8, 8, 1)}
    if len(shape) == 2:
        layers = {"a": nn.Linear(6, 8), "b": nn.Linear(8, 8), "column": nn.Linear(6, 1), "norm": nn.LayerNorm(8)}
    return Formula(formula, **layers), shape


@pytest.mark.parametrize("name", SUMS)
def test_broadcasting_arithmetic_of_computed_tensors(name: str) -> None:
    torch.manual_seed(0)
    module, shape = summed(name)
    assert agreement(module, *shape) > FLOOR


@st.composite
def broadcast_pairs(draw: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes of up to four axes that broadcast."""
    full = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    a, b = (tuple(n if draw(st.booleans()) else 1 for n in full) for _ in range(2))
    return a, b[draw(st.integers(0, len(b) - 1)) :]


@given(broadcast_pairs(), st.integers(0, 2**16), st.sampled_from([DType.I8, DType.I16]))
@settings(max_examples=8, deadline=None)
def test_a_broadcasting_sum_in_c(pair: tuple[Any, Any], seed: int, dtype: DType) -> None:
    rng, (a, b) = np.random.default_rng(seed), pair
    values = [rng.integers(*dtype.range, s, endpoint=True).astype(dtype.value) for s in (a, b)]
    bits = 8 if dtype is DType.I8 else 0
    op = QAdd(dtype.value, 0.1, 3, -5, 9, 300 if bits else 1, -170 if bits else -1, bits, *dtype.range)
    expected = (values[0].astype(np.int64) + 5) * op.ma + (values[1].astype(np.int64) - 9) * op.mb
    expected = ((expected + (1 << bits >> 1)) >> bits) + 3
    found = op.reference(*(torch.from_numpy(v).long() for v in values)).numpy()
    np.testing.assert_array_equal(found, expected.clip(*dtype.range))
    with tempfile.TemporaryDirectory() as folder:
        run_both(op, [typed(s, dtype) for s in (a, b)], values, Path(folder))


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (1, 4, 4), (2, 3)])
def test_an_affine_map_along_an_earlier_axis_in_c(shape: tuple[int, ...], tmp_path: Path) -> None:
    rng, axis = np.random.default_rng(0), len(shape) - 2 if len(shape) < 4 else 1
    x = rng.integers(-128, 128, shape).astype(np.int8)
    multiplier, offset = (rng.integers(-(2**15), 2**15, shape[axis]).astype(np.int32) for _ in range(2))
    vec = typed((shape[axis],), DType.I32)
    run_both(
        QAffine("int8", 0.1, -7, 14, axis=axis), [typed(x.shape, DType.I8), vec, vec], [x, multiplier, offset], tmp_path
    )


def block() -> nn.Module:
    """A normalisation, hardswish, squeeze and excite, a broadcast sum, and a batch norm on images."""
    torch.manual_seed(0)
    return Formula(
        lambda s, x: s.last(
            (y := s.gated(s.wide(s.first(x)))) - s.squeeze(y.mean((2, 3), keepdim=True))
        ),
        first=norm(3),
        wide=nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), norm(6), nn.Hardswish()),
        gated=Formula(
            lambda s, x: x * s.gate(x.mean((2, 3), keepdim=True)),
            gate=nn.Sequential(nn.Conv2d(6, 3, 1), nn.SiLU(), nn.Conv2d(3, 6, 1), nn.Hardsigmoid()),
        ),
        squeeze=nn.Conv2d(6, 6, 1),
        last=nn.Sequential(nn.ELU(), norm(6)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def blocks() -> tuple[Graph, Graph]:
    """Integer graphs: a block whose normalisation moved, and one whose only op is on channels that come second."""
    data = torch.randn(16, 3, 9, 7)
    return stages_of(block(), data).whole, stages_of(norm(3), data).whole


@pytest.mark.parametrize(
    ("device", "target"),
    [("host", "host"), ("unicorn", "cortex-m4"), ("unicorn", "cortex-m7"), ("unicorn", "cortex-m0plus")],
)
def test_reference_host_and_emulated_cores_give_the_same_bytes(
    blocks: tuple[Graph, Graph], device: str, target: str, tmp_path: Path
) -> None:
    pytest.importorskip("unicorn")
    for k, graph in enumerate(blocks):
        folder = tmp_path / str(k)
        folder.mkdir()
        write_folder(graph, load_target(target), folder)
        (v,) = graph.inputs
        rng = np.random.default_rng(1)
        with open_device(device, folder, read_manifest(folder), load_target(target)) as opened:
            for _ in range(2):
                x = rng.integers(-128, 128, v.type.shape).astype(np.int8)
                found = opened.step([x])
                assert found is not None
                expected = evaluate(graph, {v.name: torch.from_numpy(x)})[0].numpy()
                np.testing.assert_array_equal(found[0].reshape(expected.shape), expected)


def test_the_block_agrees_with_torch() -> None:
    assert agreement(block(), 3, 9, 7) > FLOOR


def test_a_normalised_stream_gives_the_frames_of_the_whole_sequence() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        norm(4, nn.BatchNorm1d),
        nn.Conv1d(4, 6, 3, padding=1),
        nn.Hardswish(),
        nn.Conv1d(6, 5, 1),
        norm(5, nn.BatchNorm1d),
    )
    data = torch.randn(16, 4, 20)
    stages = stages_of(module, data, time_axis=2)
    whole, step = stages.whole, stages.step
    (v,) = whole.inputs
    x = requantized(data[:1].double(), v.type)
    (expected,) = evaluate(whole, {v.name: x})
    frames = [out[0] for out in StepRunner(step).run({v.name: x})]
    assert torch.equal(torch.cat(frames, 2), expected)


def test_statistics_of_a_quotient_serve_a_compile(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Formula(lambda s, x: (s.a(x) - 0.3) / (1 + torch.relu(s.a(x))), a=nn.Linear(6, 8)).eval()
    data = torch.randn(16, 6)
    torch.export.save(torch.export.export(module, (data[:1],)), tmp_path / "net.pt2")
    np.savez(tmp_path / "data.npz", x=data.numpy())
    ranges = calibrate_model(tmp_path / "net.pt2", tmp_path / "data.npz", tmp_path / "ranges.npz")
    model = compile_model(tmp_path / "net.pt2", "host", tmp_path / "out", calibration=ranges, precision="int8")
    with torch.no_grad():
        expected = module(data[:1])
    assert sqnr(torch.from_numpy(np.asarray(model.run(data[:1].numpy()))), expected) > FLOOR
