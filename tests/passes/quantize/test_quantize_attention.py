"""Transformers and gated mixers in integers: close to their float graphs, and the same bytes in C on every machine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgec import frontends
from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Graph
from edgec.ir.types import DType
from edgec.ir.verify import verify
from edgec.ops import Add, Concat, LayerNorm, Linear, MatMul, Mul, Permute, Relu, Sigmoid, Softmax, Sub
from edgec.passes.quantize.compare import Row, compare
from edgec.passes.quantize.quantize import Quantize
from edgec.pipeline import compile_model
from edgec.stages import float_passes, transform
from tests.graphs import Builder
from tests.passes.quantize.quantize_tools import assert_stays_in_int32, extreme_inputs, quantized, samples


class Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), heads

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (q @ k.transpose(-1, -2) * (c // self.heads) ** -0.5).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(n, t, c))


class Vision(nn.Module):
    """Patches, position constants, an optional class token, pre-norm blocks, a head."""

    def __init__(self, dim: int = 32, heads: int = 2, depth: int = 2, class_token: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 4, 4)
        self.place = nn.Parameter(0.3 * torch.randn(1, 16 + class_token, dim))
        self.token = nn.Parameter(torch.randn(1, 1, dim)) if class_token else None
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2 * depth + 1))
        self.attention = nn.ModuleList(Attention(dim, heads) for _ in range(depth))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)) for _ in range(depth)
        )
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x + self.place
        for k, (attention, mlp) in enumerate(zip(self.attention, self.mlp, strict=True)):
            x = x + attention(self.norms[2 * k](x))
            x = x + mlp(self.norms[2 * k + 1](x))
        x = self.norms[-1](x)
        return self.head(x[:, 0] if self.token is not None else x.mean(1))


class Mixer(nn.Module):
    """Two linear layers around a GELU, times the softmax of a linear map of the result."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))
        self.gate = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        return x * self.gate(x).softmax(-1)


class MixerLayer(nn.Module):
    """Mixes patches, then features, of [B,C,P,F], each beside a shortcut."""

    def __init__(self, patches: int, features: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(features) for _ in range(2))
        self.over_patches, self.over_features = Mixer(patches), Mixer(features)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.over_patches(self.norms[0](x).transpose(-1, -2)).transpose(-1, -2)
        return x + self.over_features(self.norms[1](x))


class Forecast(nn.Module):
    """Mixers on long and on short patches, then a head over all features."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = MixerLayer(16, 24), MixerLayer(8, 48)
        self.first, self.head = nn.Linear(16, 48), nn.Linear(8 * 48, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.fine(x.reshape(-1, 1, 16, 24)).reshape(-1, 1, 8, 48)
        return self.head(self.coarse(x).flatten(1))


def lively(module: nn.Module, seed: int = 0, factor: float = 2.0) -> nn.Module:
    """Random weights large enough that attention and gates are far from uniform."""
    torch.manual_seed(seed)
    for m in module.modules():
        if isinstance(m, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(m.weight, std=factor / np.sqrt(m.weight[0].numel()))
        elif isinstance(m, nn.LayerNorm):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, std=0.3)
    return module.eval()


def data_for(*shape: int, n: int = 32) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1))


def both(module: nn.Module, x: Tensor) -> tuple[Graph, Graph, list[Row]]:
    """The float graph as quantisation sees it, the integer graph, and their difference tensor by tensor."""
    imported = frontends.load(module, (x[:1],), time_axis=None)
    graph = transform(imported, float_passes(), lambda stage: None)[-1]
    integer = Quantize(x.numpy()).run(graph)
    verify(integer)
    return graph, integer, compare(graph, integer, {graph.inputs[0].name: x.numpy()})


@given(
    st.integers(0, 2**16), st.sampled_from([(8, 1), (24, 2), (36, 3)]), st.integers(1, 3), st.booleans(),
    st.sampled_from([0.7, 1.0, 1.5]),
)  # fmt: skip
@settings(max_examples=5, deadline=None)
def test_vision_transformers_stay_close(
    seed: int, size: tuple[int, int], depth: int, token: bool, factor: float
) -> None:
    module = lively(Vision(*size, depth, token), seed, factor)
    _, integer, rows = both(module, data_for(3, 16, 16))
    assert rows[-1].sqnr > 22
    assert min(r.own_sqnr for r in rows) > 30
    for kind in ("lo", "hi", "random"):
        assert_stays_in_int32(integer, extreme_inputs(integer, kind))


@pytest.mark.parametrize("norm_first", [True, False])
def test_torch_encoder_layers(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(48, 3, 96, batch_first=True, norm_first=norm_first, activation="gelu")
    assert both(lively(layer), data_for(16, 48))[2][-1].sqnr > 30


def test_timm_blocks() -> None:
    block = pytest.importorskip("timm").models.vision_transformer.Block
    module = nn.Sequential(*(block(48, 3, qkv_bias=True, qk_norm=k > 0, init_values=0.5 * k or None) for k in (0, 1)))
    assert both(lively(module, factor=1.5), data_for(16, 48))[2][-1].sqnr > 28


def test_gated_mixers() -> None:
    _, integer, rows = both(lively(Forecast(), factor=1.0), data_for(1, 8, 16))
    assert rows[-1].sqnr > 28
    gated = [r for r in rows if r.op == "qmul"]
    assert len(gated) == 4
    assert min(r.sqnr for r in gated) > 26
    assert all(n.type.dtype is DType.I16 for n in integer.nodes if n.op.name in ("qmul", "qsoftmax", "qadd"))


def test_a_gate_of_192_small_values_survives() -> None:
    """The gate's mean is 0.005: a unit of int8 probabilities would be nearly as large."""
    module = lively(MixerLayer(4, 192), factor=1.0)
    rows = both(module, data_for(1, 4, 192))[2]
    softmax, product = ([r for r in rows if r.op == op][-1] for op in ("qsoftmax", "qmul"))
    assert softmax.own_sqnr > 50
    assert product.own_sqnr > 33


def test_queries_keys_and_values_have_their_own_scales() -> None:
    module = Vision(depth=1)
    with torch.no_grad():
        module.attention[0].qkv.weight[64:] *= 30  # the values
    _, integer, _ = both(module.eval(), data_for(3, 16, 16))
    scores, mixed = (n for n in integer.nodes if n.op.name == "qmatmul")
    scale_of = [integer.type_of(i).quant for i in (*scores.inputs, mixed.inputs[1])]
    assert all(q is not None and q.zero_point == 0 for q in scale_of)
    assert scale_of[2].scale[0] > 10 * max(scale_of[0].scale[0], scale_of[1].scale[0])
    assert scores.op.transpose_b
    assert "slice" not in [n.op.name for n in integer.nodes]


def test_a_pre_norm_trunk_is_int16_from_the_patches_to_the_last_norm() -> None:
    _, integer, _ = both(Vision(class_token=True).eval(), data_for(3, 16, 16))
    sums = [n for n in integer.nodes if n.op.name in ("qadd", "concat")]
    assert len(sums) == 6
    assert {integer.type_of(i).dtype for n in sums for i in (*n.inputs, *n.outputs)} == {DType.I16}
    assert len({integer.type_of(i).quant for n in sums for i in (*n.inputs, *n.outputs)}) == 1
    norms = [n for n in integer.nodes if n.op.name == "qlayer_norm"]
    assert all(integer.type_of(n.inputs[0]).dtype is DType.I16 and n.type.dtype is DType.I8 for n in norms)


def start(*shape: int) -> tuple[Builder, str]:
    b = Builder()
    return b, b.input("x", 1, *shape, time=None)


def linear(b: Builder, x: str, outputs: int, scale: float = 1.0) -> str:
    c = b.types[x].shape[-1]
    return b.emit(Linear(), x, b.normal(c, outputs, scale=scale / np.sqrt(c)), b.normal(outputs))


def sqnr(graph: Graph) -> float:
    data = samples(graph)
    return compare(graph, quantized(graph, data), data)[-1].sqnr


def test_a_single_sum_before_a_norm_is_int16() -> None:
    b, x = start(9, 8)
    total = b.emit(Add(), linear(b, x, 8), linear(b, x, 8))
    graph = b.build(linear(b, b.emit(LayerNorm(), total, b.normal(8), b.normal(8)), 3))
    add = next(n for n in quantized(graph).nodes if n.op.name == "qadd")
    assert add.type.dtype is DType.I16
    assert sqnr(graph) > 30


@pytest.mark.parametrize("op", [Add(), Sub()])
def test_constants_that_are_no_vectors(op: Any) -> None:
    b, x = start(9, 8)
    y = b.emit(op, b.emit(Relu(), linear(b, x, 8)), b.normal(1, 9, 8))
    z = b.emit(op, b.normal(9, 1), y)
    assert sqnr(b.build(linear(b, z, 4))) > 30


def test_a_difference_of_computed_tensors() -> None:
    b, x = start(9, 8)
    assert sqnr(b.build(b.emit(Sub(), linear(b, x, 8), linear(b, x, 8)))) > 30


def test_a_difference_in_a_residual_stream() -> None:
    b, x = start(9, 8)
    y = linear(b, x, 8)
    for _ in range(2):
        y = b.emit(Sub(), y, linear(b, b.emit(LayerNorm(), y, b.normal(8), b.normal(8)), 8))
    graph = b.build(linear(b, y, 4))
    assert [n.op.mb for n in quantized(graph).nodes if n.op.name == "qadd"] == [-1, -1]
    assert sqnr(graph) > 30


def test_constants_join_computed_tensors() -> None:
    b, x = start(9, 8)
    joined = b.emit(Concat(1), b.normal(1, 2, 8), linear(b, x, 8), b.normal(1, 1, 8))
    assert sqnr(b.build(linear(b, joined, 4))) > 30


def test_products_of_what_is_already_stored_keep_its_zero_points() -> None:
    """Tables write int8 with zero points, and both factors of a matrix product may have one."""
    b, x = start(9, 8)
    gate, y = b.emit(Sigmoid(), linear(b, x, 8)), b.emit(Relu(), linear(b, x, 8))
    graph = b.build(b.emit(MatMul(True), b.emit(Mul(), y, gate), gate))
    data = samples(graph)
    integer = quantized(graph, data)
    product = next(n for n in integer.nodes if n.op.name == "qmatmul")
    assert product.op.zb == -128
    assert compare(graph, integer, data)[-1].sqnr > 30


def test_a_product_with_a_constant_matrix() -> None:
    b, x = start(9, 8)
    assert sqnr(b.build(b.emit(MatMul(), linear(b, x, 8), b.normal(1, 8, 5)))) > 30


def test_logits_reach_a_softmax_as_accumulators_or_in_16_bits() -> None:
    b, x = start(9, 8)
    scores = b.emit(MatMul(True), linear(b, x, 8), linear(b, x, 8))
    moved = b.emit(Softmax(), b.emit(Permute((0, 2, 1)), scores))
    straight = b.emit(Softmax(), b.emit(Mul(), scores, b.const([0.3])))
    graph = b.build(b.emit(Add(), straight, moved))
    integer = quantized(graph)
    read = [integer.type_of(n.inputs[0]).dtype for n in integer.nodes if n.op.name == "qsoftmax"]
    assert sorted(read) == [DType.I16, DType.I32]
    assert sqnr(graph) > 25


def test_probabilities_leave_as_int8_of_a_fixed_scale() -> None:
    b, x = start(8)
    graph = b.build(b.emit(Softmax(), linear(b, x, 5, 3.0)))
    integer = quantized(graph)
    quant = integer.type_of(integer.outputs[0]).quant
    assert quant is not None
    assert (quant.scale[0], quant.zero_point) == (1 / 256, -128)
    assert sqnr(graph) > 30


@pytest.fixture(scope="module", params=[Vision(16, 2, 1, True), Forecast()], ids=["vision", "forecast"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    module = lively(request.param)
    x = data_for(3, 16, 16) if isinstance(module, Vision) else data_for(1, 8, 16)
    out = tmp_path_factory.mktemp("attention") / "out"
    return compile_model(module, "cortex-m7", out, calibration=x.numpy(), example_inputs=(x[:1],), time_axis=None), x


@pytest.mark.parametrize("kind", ["host", "unicorn"])
def test_c_gives_the_bytes_of_the_reference(folder: Any, kind: str) -> None:
    if kind == "unicorn":
        pytest.importorskip("unicorn")
    model, x = folder
    graph = model.graph("step")
    quant = graph.inputs[0].type.quant
    q = np.clip(np.round(x.numpy() / quant.scale[0]) + quant.zero_point, -128, 127).astype(np.int8)
    with model.device(kind) as device:
        for frame in (q[:1], q[1:2], np.full_like(q[:1], 127), np.full_like(q[:1], -128)):
            expected = evaluate(graph, {graph.inputs[0].name: torch.from_numpy(frame)})[0].numpy()
            found = device.step([frame])
            np.testing.assert_array_equal(found[0].reshape(-1), expected.reshape(-1))


def test_the_report_counts_the_products(folder: Any) -> None:
    model, _ = folder
    layers = {layer["name"]: layer for layer in model.report["layers"]}
    products = [layer for layer in layers.values() if layer["op"] in ("qmatmul", "qmul")]
    assert products
    assert all(layer["macs"] > 0 for layer in products)
    assert Path(model.folder, "report.json").is_file()
