"""PatchTSMixer of transformers and Tiny Time Mixer of granite-tsfm, their own modules unchanged, against themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgec
from edgec.errors import FrontendError
from edgec.frontends import load
from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Graph
from edgec.stages import float_passes, transform
from tests.tsfm_import import import_patchtsmixer, import_tinytimemixer

#: the 512 -> 96 models that granite publishes
GRANITE: dict[str, Any] = {
    "context_length": 512, "prediction_length": 96, "patch_length": 64, "patch_stride": 64, "d_model": 192,
    "num_layers": 2, "adaptive_patching_levels": 3, "expansion_factor": 2, "gated_attn": True, "norm_mlp": "LayerNorm",
    "mode": "common_channel", "scaling": "std", "use_decoder": True, "decoder_num_layers": 2, "decoder_d_model": 128,
    "decoder_adaptive_patching_levels": 0, "decoder_mode": "common_channel", "num_input_channels": 1,
}  # fmt: skip

PATCHTSMIXER: dict[str, dict[str, Any]] = {
    "defaults": {},
    "channels mixed": {"mode": "mix_channel", "num_input_channels": 3},
    "batch norm": {"norm_mlp": "BatchNorm"},
    "patches that overlap": {"patch_stride": 3},
    "self-attention": {"self_attn": True, "num_input_channels": 2},
    "no gate": {"gated_attn": False},
    "some channels forecast": {"num_input_channels": 3, "prediction_channel_indices": [0, 2]},
}


def patchtsmixer(**config: Any) -> nn.Module:
    package = import_patchtsmixer()
    torch.manual_seed(0)
    module: nn.Module = package.PatchTSMixerForPrediction(package.PatchTSMixerConfig(**({"scaling": "std"} | config)))
    return module.eval()


def tinytimemixer(**config: Any) -> nn.Module:
    package = import_tinytimemixer()
    torch.manual_seed(0)
    module: nn.Module = package.TinyTimeMixerForPrediction(package.TinyTimeMixerConfig(**config))
    return module.eval()


def series(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3 + 20


def forecast(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        y: Tensor = module(x).prediction_outputs
    return y


def folded(module: nn.Module, x: Tensor) -> Graph:
    return transform(load(module, (x,)), float_passes(), lambda stage: None)[-1]


def assert_same(graph: Graph, module: nn.Module, x: Tensor) -> None:
    found = evaluate(graph, {graph.inputs[0].name: x})
    assert len(found) == 1
    torch.testing.assert_close(found[0], forecast(module, x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("variant", PATCHTSMIXER)
def test_patchtsmixer_imports_unchanged(variant: str) -> None:
    config = PATCHTSMIXER[variant]
    module, x = patchtsmixer(**config), series(1, 32, config.get("num_input_channels", 1))
    graph = folded(module, x)
    assert_same(graph, module, x)
    whole = "prediction_channel_indices" not in config  # which picks channels of the mean and deviation
    names = [n.op.name for n in graph.nodes]
    assert (names.count("std_scale"), names.count("std_unscale")) == (1, int(whole))


def test_the_granite_configuration_imports_unchanged() -> None:
    module, x = tinytimemixer(**GRANITE), series(1, 512, 1)
    assert sum(p.numel() for p in module.parameters()) == 805_280
    graph = folded(module, x)
    assert_same(graph, module, x)
    names = [n.op.name for n in graph.nodes]
    assert {k: names.count(k) for k in ("linear", "layer_norm", "gelu", "softmax", "std_scale", "std_unscale")} == {
        "linear": 51, "layer_norm": 16, "gelu": 16, "softmax": 16, "std_scale": 1, "std_unscale": 1,
    }  # fmt: skip


def test_its_macs_are_the_published_count() -> None:
    graph = folded(tinytimemixer(**GRANITE), series(1, 512, 1))
    assert sum(n.op.cost(graph.input_types(n), n.types).macs for n in graph.nodes) == 7_806_976


def test_other_channels_and_decoders_of_granite() -> None:
    small = GRANITE | {
        "context_length": 64,
        "prediction_length": 8,
        "patch_length": 8,
        "patch_stride": 8,
        "d_model": 16,
    }
    for config in ({"num_input_channels": 3}, {"num_input_channels": 2, "decoder_mode": "mix_channel"}):
        module, x = tinytimemixer(**(small | config)), series(1, 64, config["num_input_channels"])  # type: ignore[call-overload]
        assert_same(folded(module, x), module, x)


@pytest.mark.parametrize("which", ["patchtsmixer", "tinytimemixer"])
def test_the_compiled_c_forecasts_what_the_module_does(which: str, tmp_path: Path) -> None:
    if which == "patchtsmixer":
        module, x = patchtsmixer(num_input_channels=2), series(1, 32, 2)
    else:
        module, x = tinytimemixer(**GRANITE), series(1, 512, 1)
    model = edgec.compile(module, "host", tmp_path / "out", precision="float32", example_inputs=(x,))
    found = model.step(x.numpy())
    assert found is not None
    np.testing.assert_allclose(found, forecast(module, x).numpy(), atol=1e-4)


def test_an_archive_of_them_is_read_without_their_classes(tmp_path: Path) -> None:
    module, x = patchtsmixer(), series(1, 32, 1)
    path = tmp_path / "mixer.pt2"
    torch.export.save(torch.export.export(module, (x,), strict=False), path)
    assert_same(load(path), module, x)
    assert len(load(path, outputs=["loc", "scale"]).outputs) == 2


def test_outputs_are_chosen_by_field(tmp_path: Path) -> None:
    module, x = patchtsmixer(num_input_channels=2), series(1, 32, 2)
    with torch.no_grad():
        expected = module(x)
    graph = load(module, (x,), outputs=["scale", "prediction_outputs"])
    scale, y = evaluate(graph, {graph.inputs[0].name: x})
    torch.testing.assert_close(scale, expected.scale)
    torch.testing.assert_close(y, expected.prediction_outputs, rtol=1e-5, atol=1e-4)
    with pytest.raises(FrontendError, match="found 'forecast'") as caught:
        load(module, (x,), outputs=["forecast"])
    assert "prediction_outputs, last_hidden_state, loc, scale" in str(caught.value)


class Several(nn.Module):
    """Returns a dict, or a tuple."""

    def __init__(self, as_dict: bool) -> None:
        super().__init__()
        self.as_dict = as_dict

    def forward(self, x: Tensor) -> dict[str, Tensor] | tuple[Tensor, Tensor]:
        return {"low": -x, "high": x * 2} if self.as_dict else (-x, x * 2)


def test_a_dict_or_tuple_gives_all_it_holds() -> None:
    x = torch.ones(1, 3)
    for as_dict, second in ((True, "high"), (False, "1")):
        assert len(load(Several(as_dict).eval(), (x,)).outputs) == 2
        graph = load(Several(as_dict).eval(), (x,), outputs=[second])
        torch.testing.assert_close(evaluate(graph, {"x": x})[0], x * 2)


class Patches(nn.Module):
    """unfold along an axis, as patches are made."""

    def __init__(self, axis: int, size: int, step: int) -> None:
        super().__init__()
        self.axis, self.size, self.step = axis, size, step

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x.unfold(self.axis, self.size, self.step))


@pytest.mark.parametrize(("axis", "size", "step"), [(1, 4, 4), (-2, 5, 5), (1, 4, 2), (1, 3, 5), (2, 2, 1), (1, 13, 1)])
def test_unfold(axis: int, size: int, step: int) -> None:
    x, module = torch.randn(1, 13, 3), Patches(axis, size, step).eval()
    graph = load(module, (x,))
    torch.testing.assert_close(evaluate(graph, {"x": x})[0], module(x))


class Spread(nn.Module):
    """Variance and deviation in their spellings."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.var(1), x.var((1, 2), unbiased=False), x.std(2, correction=3, keepdim=True), x.std(), x.sqrt()


def test_variance_and_deviation() -> None:
    x = torch.rand(1, 13, 5) + 0.5
    for found, expected in zip(evaluate(load(Spread().eval(), (x,)), {"x": x}), Spread()(x), strict=True):
        torch.testing.assert_close(found.reshape(expected.shape), expected)
