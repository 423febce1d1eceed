"""Fewer bits for some layers or all: a trained network, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgec import frontends
from edgec.bits import read_bits
from edgec.compiled import CompiledModel, to_device
from edgec.errors import InputError, PassError
from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Graph
from edgec.ir.types import DType
from edgec.ops.conv import Conv2d
from edgec.passes.quantize.assign_precision import Assignment, is_layer, kept_wide
from edgec.passes.quantize.quantize import Quantize
from edgec.pipeline import compile_model
from edgec.stages import float_passes, transform
from tests.graphs import Builder, conv, lif

CLASSES, SIDE = 4, 12


def gratings(n: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Noisy stripes in four directions: images [N,1,SIDE,SIDE] and their classes."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, n)
    angle, phase = label * np.pi / CLASSES, rng.uniform(0, 2 * np.pi, n)
    y, x = np.mgrid[:SIDE, :SIDE]
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    images = np.sin(1.3 * along + phase[:, None, None]) + rng.normal(0, 0.8, (n, SIDE, SIDE))
    return images[:, None].astype(np.float32), label


@pytest.fixture(scope="module")
def trained() -> torch.nn.Module:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(16, 24, 3, 1, 1), torch.nn.ReLU(),
        torch.nn.Conv2d(24, 32, 1), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 1), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, CLASSES),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(120):
        x, label = (torch.from_numpy(a) for a in gratings(64, 100 + step))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), label).backward()
        optimizer.step()
    return net.eval()


def layers_of(net: torch.nn.Module) -> list[str]:
    graph = frontends.load(net, (torch.zeros(1, 1, SIDE, SIDE),), time_axis=None)
    graph = transform(graph, float_passes(), lambda stage: None)[-1]
    return [n.output for n in graph.nodes if is_layer(graph, n)]


def compiled(net: torch.nn.Module, out: Path, **options: Any) -> CompiledModel:
    example = (torch.zeros(1, 1, SIDE, SIDE),)
    data, _ = gratings(64, 1)
    return compile_model(net, "cortex-m4", out, example_inputs=example, time_axis=None, calibration=data, **options)


def decisions(model: CompiledModel, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of the integer reference."""
    graph, spec = model.graph(), model.manifest.inputs[0]
    found = []
    for x in images:
        (y,) = evaluate(graph, {graph.inputs[0].name: torch.from_numpy(to_device(x[None], spec).astype(np.int64))})
        found.append(int(y.argmax()))
    return np.array(found)


def sqnr_of(model: CompiledModel, net: torch.nn.Module) -> float:
    """Signal to error in dB of the C on the host against the module, on the first calibration inputs."""
    x, _ = gratings(64, 1)
    with model, torch.no_grad():
        real, got = net(torch.from_numpy(x[:8])).numpy(), model.run(x[:8]).reshape(8, CLASSES)
    return float(10 * np.log10(np.square(real).sum() / np.square(real - got).sum()))


def assert_same_bytes(model: CompiledModel, images: np.ndarray[Any, Any]) -> None:
    """The reference, C on the host and C on the emulated core."""
    graph, spec = model.graph(), model.manifest.inputs[0]
    with model.device("host") as host, model.device("unicorn") as core:
        for x in images:
            q = to_device(x[None], spec)
            (wanted,) = evaluate(graph, {graph.inputs[0].name: torch.from_numpy(q.astype(np.int64))})
            for device in (host, core):
                found = device.step([q])
                assert found is not None
                assert found[0].astype(np.int64).tobytes() == wanted.numpy().tobytes()


def test_a_trained_network_in_few_bits(trained: torch.nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("unicorn")
    images, label = gratings(200, 7)
    with torch.no_grad():
        right = float((trained(torch.from_numpy(images)).argmax(1).numpy() == label).mean())
    assert right > 0.9
    first, second, third, fourth, head = layers_of(trained)
    mixed = {first: "w8a8", second: "w4a4", third: "w4a4", fourth: "w2a8", head: "w4a8"}
    few = compiled(trained, tmp_path / "mixed", bits=mixed)
    precisions = [r["precision"] for r in few.report["layers"] if " x " in r["precision"]]
    assert precisions == ["int8 x int8", "int4 x int4", "int4 x int4", "int8 x int2", "int8 x int4"]
    found = {r["variant"] for r in few.report["layers"]}
    assert found >= {"packed_dsp", "narrow_dsp"}
    (agreement,) = few.report["agreement"]["outputs"]
    assert agreement["positions"] == 8
    assert agreement["sqnr"] == pytest.approx(sqnr_of(few, trained), abs=0.1)
    (said,) = few.report["warnings"]  # half of the layers have 4-bit activations
    assert f"{agreement['sqnr']:.1f} dB, largest score the same in {agreement['same']} of 8" in said
    assert agreement["sqnr"] < 20
    assert (decisions(few, images) == label).mean() > right - 0.06
    assert_same_bytes(few, images[:3])

    all_four = compiled(trained, tmp_path / "four", weights=4)
    assert {r["precision"] for r in all_four.report["layers"] if " x " in r["precision"]} == {"int8 x int4"}
    assert (decisions(all_four, images) == label).mean() > right - 0.04
    assert_same_bytes(all_four, images[:2])
    full = compiled(trained, tmp_path / "eight")
    saved = full.report["totals"]["weights"] - all_four.report["totals"]["weights"]
    parameters = sum(p.numel() for p in trained.parameters() if p.ndim > 1)
    assert saved >= 0.4 * parameters


def spiking() -> Graph:
    b = Builder()
    spikes = lif(b, conv(b, b.input("x", 1, 20, 8), 16, 3, (1, 1)))
    return b.build(conv(b, spikes, 12, 3, (1, 1)))


def data_for(graph: Graph) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return {v.name: rng.normal(size=(8, *v.type.shape[1:])).astype(np.float32) for v in graph.inputs}


def test_layers_of_spikes_keep_eight_bits_and_refuse_fewer_by_name() -> None:
    graph = spiking()
    first, second = (n.output for n in graph.nodes if is_layer(graph, n))
    result = Quantize(data_for(graph), Assignment(4)).run(graph)
    kinds = {n.output: result.type_of(n.inputs[1]).dtype for n in result.nodes if n.op.name == "qconv1d"}
    assert kinds == {first: DType.I4, second: DType.I8}
    with pytest.raises(PassError, match="it reads spikes, whose weights have 8 bits; give it w8a8"):
        Quantize(data_for(graph), Assignment(8, {second: "w4a8"})).run(graph)


def test_layers_that_keep_eight_bits_are_named_and_nothing_else_is_an_error() -> None:
    graph = spiking()
    first, second = (n.output for n in graph.nodes if is_layer(graph, n))
    integers = Quantize(data_for(graph), Assignment(4)).run(graph)
    spikes = "it reads spikes, whose weights have 8 bits"
    assert kept_wide(graph, integers, Assignment(4)) == {second: spikes}
    assert kept_wide(graph, integers, Assignment(4, {second: "w8a8"})) == {}
    with pytest.raises(InputError, match=f"weights of 4 bits were asked for, and no layer(.|\n)*%{second}: {spikes}"):
        kept_wide(graph, integers, Assignment(4, {first: "w8a8"}))
    assert kept_wide(graph, Quantize(data_for(graph)).run(graph), Assignment()) == {}


def test_grouped_convolutions_keep_eight_bits() -> None:
    b = Builder()
    x = b.emit(Conv2d(groups=3), b.input("x", 1, 6, 6, 3, time=None), b.normal(3, 3, 1, 3), b.normal(3))
    graph = b.build(b.emit(Conv2d(), x, b.normal(1, 1, 3, 5), b.normal(5)))
    grouped = graph.nodes[0].output
    kept = kept_wide(graph, Quantize(data_for(graph), Assignment(2)).run(graph), Assignment(2))
    assert kept == {grouped: "a convolution with groups has weights of 8 bits"}


def test_what_cannot_be_chosen_is_named(tmp_path: Path, trained: torch.nn.Module) -> None:
    graph = spiking()
    names = ", ".join(n.output for n in graph.nodes if is_layer(graph, n))
    with pytest.raises(InputError, match=f"no layer 'other' to choose bits for(.|\n)*layers: {names}"):
        Quantize(data_for(graph), Assignment(8, {"other": "w4a4"})).run(graph)
    with pytest.raises(InputError, match=r"layer conv: unknown precision 'w3a8'(.|\n)*w8a8, w4a8, w4a4, w2a8, w2a4"):
        Assignment(8, {"conv": "w3a8"})
    with pytest.raises(InputError, match="bits of layers can be chosen where edgec quantises"):
        compiled(trained, tmp_path / "out", precision="float32", weights=4)
    assert not (tmp_path / "out").exists()


def test_bits_are_read_from_pairs_and_files(tmp_path: Path) -> None:
    toml, text = tmp_path / "bits.toml", tmp_path / "bits.json"
    toml.write_text('conv1 = "w4a4"\nhead = "w4a8"\n')
    text.write_text(json.dumps({"head": "w2a8"}))
    assert read_bits(["conv0=w8a8", str(toml), str(text)]) == {"conv0": "w8a8", "conv1": "w4a4", "head": "w2a8"}
    text.write_text("[1]")
    with pytest.raises(InputError, match="expected one precision for each layer"):
        read_bits([str(text)])
    with pytest.raises(InputError, match=r"none.toml: no such file"):
        read_bits([str(tmp_path / "none.toml")])
