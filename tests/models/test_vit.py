"""Vision transformer: timm's modules as the oracle, published counts, its budget."""

from __future__ import annotations

import importlib
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.vit import build, example_inputs
from models.vit.model import Config, VisionTransformer

FLASH = 1_600_000


def randomise(model: nn.Module, seed: int = 1) -> nn.Module:
    """Weights large enough for every branch to count."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
            else:
                parameter.normal_(0, 0.08, generator=generator)
    return model.eval()


def timm_twin(config: Config, model: nn.Module) -> nn.Module:
    """timm's transformer of the same sizes with the weights of ours."""
    pytest.importorskip("timm")
    theirs = importlib.import_module("timm.models.vision_transformer").VisionTransformer(
        img_size=config.size, patch_size=config.patch, num_classes=config.classes, embed_dim=config.dim,
        depth=config.depth, num_heads=config.heads, mlp_ratio=config.mlp_ratio,
        class_token=config.pool == "class", global_pool="token" if config.pool == "class" else "avg", fc_norm=False,
    )  # fmt: skip
    margin = (config.window - config.patch) // 2
    if margin:  # timm's patches do not overlap
        theirs.patch_embed.proj = nn.Conv2d(3, config.dim, config.window, config.patch, margin)
    theirs.load_state_dict(model.state_dict())
    return theirs.eval()


def test_deit_tiny_is_timms() -> None:
    timm = pytest.importorskip("timm")
    config = Config.deit_tiny()
    ours = build(asdict(config))
    theirs = timm.create_model("deit_tiny_patch16_224")
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == 5_717_416
    randomise(ours)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs.eval()(x), rtol=1e-4, atol=1e-4)


@given(
    patches=st.integers(1, 4), patch=st.sampled_from((2, 4)), margin=st.integers(0, 2), heads=st.integers(1, 3),
    width=st.sampled_from((4, 8)), ratio=st.sampled_from((1.0, 1.5, 4.0)), pool=st.sampled_from(("class", "mean")),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_every_size_is_timms(
    patches: int, patch: int, margin: int, heads: int, width: int, ratio: float, pool: str, seed: int
) -> None:
    config = Config(patches * patch, patch, patch + 2 * margin, heads * width, 2, heads, ratio, pool, 5)
    ours = randomise(VisionTransformer(config), seed)
    x = torch.randn(2, 3, config.size, config.size, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), timm_twin(config, ours)(x), rtol=1e-4, atol=1e-4)


def test_training_computes_what_inference_does() -> None:
    model = randomise(build(asdict(Config())))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        torch.testing.assert_close(model.train()(x), model.eval()(x), rtol=1e-4, atol=1e-5)


def test_shipped_sizes_fit_a_cortex_m7() -> None:
    config = Config()
    model = build(asdict(config)).eval()
    assert model(*example_inputs(asdict(config))).shape == (1, config.classes)
    assert sum(p.numel() for p in model.parameters()) < FLASH


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": 30}, "size 30, patch 4"),
        ({"heads": 5}, "dim 96, heads 5"),
        ({"window": 5}, "window 5"),
        ({"window": 2}, "window 2"),
        ({"pool": "max"}, "'max'"),
    ],
)
def test_wrong_sizes_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(asdict(replace(Config(), **change)))
