"""ECA-MobileNetV2: published counts, torchvision's MobileNetV2 and timm's attention as oracles, its budget."""

from __future__ import annotations

import importlib
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.eca_mobilenetv2 import build, example_inputs
from models.eca_mobilenetv2.model import Config, Eca, EcaMobileNetV2, InvertedResidual

FLASH, RAM = 1_600_000, 512 * 1024


def randomise(model: nn.Module) -> nn.Module:
    """Random statistics and attention, so that every weight counts."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
            if isinstance(module, Eca):
                module.conv.weight.normal_(0, 2.0, generator=generator)
    return model.eval()


def test_published_counts() -> None:
    model = EcaMobileNetV2(Config.published())
    attention = [m for m in model.modules() if isinstance(m, Eca)]
    assert sum(p.numel() for p in model.parameters()) == 3_504_903
    assert sum(p.numel() for m in attention for p in m.parameters()) == 31
    assert [m.conv.kernel_size[0] for m in attention] == [1] * 10 + [3] * 7
    assert sum(isinstance(m, InvertedResidual) for m in model.modules()) == 17
    assert sum(m.residual for m in model.blocks) == 10


def test_without_attention_it_is_torchvisions_mobilenet_v2() -> None:
    """With its weights at 0 the gate is 1/2 in every block, which torchvision's last norm of a block can hold."""
    theirs = pytest.importorskip("torchvision").models.mobilenet_v2()
    randomise(theirs)
    ours = EcaMobileNetV2(Config.published()).eval()
    names = [name for name in ours.state_dict() if ".eca." not in name]
    state = dict(zip(names, theirs.state_dict().values(), strict=True))
    ours.load_state_dict(
        state | {name: torch.zeros_like(v) for name, v in ours.state_dict().items() if ".eca." in name}
    )
    with torch.no_grad():
        for block in theirs.features[1:-1]:
            block.conv[-1].weight.mul_(0.5)
            block.conv[-1].bias.mul_(0.5)
        x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(ours(x), theirs(x))


@given(channels=st.integers(1, 40), size=st.integers(1, 9), kernel=st.sampled_from((1, 3)), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_attention_is_timms(channels: int, size: int, kernel: int, seed: int) -> None:
    pytest.importorskip("timm")
    theirs = importlib.import_module("timm.layers").EcaModule(kernel_size=3)
    ours = Eca(kernel)
    with torch.no_grad():
        torch.manual_seed(seed)
        ours.conv.weight.normal_()
        if kernel == 1:  # timm's smallest is 3: zeros on both sides
            theirs.conv.weight.zero_()
            theirs.conv.weight[:, :, 1] = ours.conv.weight[:, :, 0]
        else:
            theirs.load_state_dict(ours.state_dict())
        x = torch.randn(2, channels, size, size + 1)
        torch.testing.assert_close(ours(x), theirs(x))


def test_attention_stands_between_the_last_norm_and_the_sum() -> None:
    block = randomise(InvertedResidual(8, 8, stride=1, expansion=6, kernel=3))
    x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        y = block.norm(block.project(block.depthwise(block.expand(x))))
        gate = torch.sigmoid(torch.conv1d(y.mean((2, 3))[:, None], block.eca.conv.weight, padding=1))[:, 0]
        torch.testing.assert_close(block(x), x + y * gate[:, :, None, None])


def test_widths_are_cut_off_to_whole_channels() -> None:
    model = EcaMobileNetV2(replace(Config(), width=0.35, last=100))
    assert model.stem[0].out_channels == 11
    assert [block.project.out_channels for block in model.blocks] == [5, 8, 8] + [11] * 3 + [22] * 4 + [33] * 3 + [
        56, 56, 56, 112,
    ]  # fmt: skip


def test_shipped_sizes_fit_a_cortex_m7() -> None:
    config = Config()
    model = build(asdict(config)).eval()
    sizes = {}

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        sizes[module] = inputs[0][0].numel() + output[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        scores = model(*example_inputs(asdict(config)))
    assert scores.shape == (1, config.classes)
    assert sum(p.numel() for p in model.parameters()) < FLASH
    assert max(sizes.values()) < RAM // 4


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="7 strides"):
        build(asdict(replace(Config(), strides=(1, 2))))
    with pytest.raises(ValueError, match="stem"):
        build(asdict(replace(Config(), width=0.01)))
    with pytest.raises(TypeError, match="colour"):
        build({"colour": "blue"})
