"""Both LMUFormers: their sizes, their delay, their export; the checkpoint of the spiking one."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from models.lmuformer import build, network
from models.lmuformer.analog import AnalogLMUFormer
from models.lmuformer.model import Config, LMUFormer, SpikingLMUFormer
from models.lmuformer.train import CHECKPOINT, load_checkpoint

SMALL = {"n_mels": 12, "dim": 16, "order": 8, "theta": 16, "classes": 4}
BOTH = pytest.mark.parametrize("spiking", [True, False], ids=["spiking", "analog"])


def small(spiking: bool, **changes) -> LMUFormer:
    """A small untrained network whose batch statistics make neurons fire."""
    torch.manual_seed(0)
    model = build(SMALL | changes | {"spiking": spiking})
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.constant_(module.weight, 2.0)
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(8, 6400) * 0.1)
    return model.eval()


@pytest.mark.parametrize(("kind", "size"), [(SpikingLMUFormer, 1_689_894), (AnalogLMUFormer, 1_621_796)])
def test_published_size(kind, size):
    model = network(Config.published(spiking=kind is SpikingLMUFormer))
    assert type(model) is kind
    assert sum(parameter.numel() for parameter in model.parameters()) == size


def test_a_config_without_the_field_is_the_spiking_network():
    assert type(build({})) is SpikingLMUFormer
    assert Config.published() == Config.published(spiking=True)


@pytest.mark.parametrize("strict", [False, True])
@BOTH
def test_export_keeps_one_node_per_operator(spiking, strict):
    model = network(Config(spiking=spiking)).eval()
    program = torch.export.export(model, (torch.zeros(1, 16000),), strict=strict)
    targets = Counter(str(node.target) for node in program.graph.nodes)
    assert targets["edgec.log_mel.default"] == 1
    assert targets["edgec.lif.default"] == (11 if spiking else 0)
    assert targets["edgec.lmu_memory.default"] == 1
    assert targets["edgec.running_mean.default"] == 1
    assert targets["aten.conv1d.default"] == 5
    pcm = torch.randn(1, 16000) * 0.1
    torch.testing.assert_close(program.module()(pcm), model(pcm))


@pytest.mark.parametrize(("causal", "delay"), [(True, 0), (False, 5)])
@BOTH
def test_embedding_looks_exactly_the_delay_ahead(spiking, causal, delay):
    model = small(spiking, causal=causal)
    features = model.features(torch.randn(16, 6400) * 0.1)
    changed = features.clone()
    changed[:, 30:] += 1.0
    with torch.no_grad():
        before, after = model.embed(features), model.embed(changed)
    assert torch.equal(before[:, : 30 - delay], after[:, : 30 - delay])
    assert not torch.equal(before[:, 30 - delay], after[:, 30 - delay])


@BOTH
def test_training_reaches_every_parameter(spiking):
    model = small(spiking).train()
    model(torch.randn(8, 4800) * 0.1)[:, -1].square().sum().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_build_refuses_an_unknown_key():
    with pytest.raises(TypeError, match="width"):
        build({"width": 3})


def test_shipped_checkpoint_loads():
    model = load_checkpoint(CHECKPOINT)
    assert CHECKPOINT.stat().st_size <= 4_000_000
    assert model(torch.zeros(1, 16000)).shape == (1, 100, 12)
