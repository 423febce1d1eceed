"""The LMUFormer without neurons: the formulas, its checkpoint, its any-time curve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.lmuformer import build
from models.lmuformer.analog import AnalogLMUFormer
from models.lmuformer.anytime import Point, compiled_scores, curve, torch_scores
from models.lmuformer.train import CHECKPOINT, load_checkpoint

ANALOG = CHECKPOINT.with_name("lmuformer_ann.pt")
SMALL = {"n_mels": 12, "dim": 16, "order": 8, "theta": 16, "classes": 4, "spiking": False}


def small(**changes) -> AnalogLMUFormer:
    """A small untrained network with batch statistics far from 0 and 1, in eval mode."""
    torch.manual_seed(0)
    model = build(SMALL | changes)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            for value in (module.weight, module.bias, module.running_mean):
                torch.nn.init.normal_(value)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


def by_formula(w: dict[str, torch.Tensor], x: torch.Tensor, theta: int) -> torch.Tensor:
    """The published network from its formulas, channels first, the memory as a recurrence. x: [B,M,T] -> [B,T,K]."""

    def norm(name: str, y: torch.Tensor) -> torch.Tensor:
        mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return functional.batch_norm(y, mean, var, w[f"{name}.weight"], w[f"{name}.bias"])

    def point(name: str, y: torch.Tensor) -> torch.Tensor:
        return functional.conv1d(y, w[f"{name}.weight"][:, :, None], w[f"{name}.bias"])

    for k in range(4):
        x = norm(f"embed.norm{k}", functional.conv1d(x, w[f"embed.conv{k}.conv.weight"], padding=1).relu())
    x = x + functional.conv1d(x, w["embed.rpe_conv.conv.weight"], padding=1)
    order = w["mixer.h.weight"].shape[1] - x.shape[1]
    i, j = torch.arange(order, dtype=x.dtype)[:, None], torch.arange(order, dtype=x.dtype)[None]
    a = (2 * i + 1) / theta * torch.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    b = (2 * i + 1) / theta * (-1.0) ** i
    step = torch.linalg.matrix_exp(functional.pad(torch.cat((a, b), 1), (0, 0, 0, 1)))[:order]
    u, m, memories = point("mixer.u", x).relu(), torch.zeros(x.shape[0], order, dtype=x.dtype), []
    for t in range(x.shape[2]):
        m = torch.cat((m, u[:, :, t]), 1) @ step.T
        memories.append(m)
    h = point("mixer.h", torch.cat((torch.stack(memories, 2), x), 1)).relu()
    x = x + norm("mixer.proj_norm", point("mixer.proj", h))
    h = functional.gelu(norm("ffn.norm1", point("ffn.fc1", x)))
    x = x + norm("ffn.norm2", point("ffn.fc2", h)).relu()
    scores = point("head.linear", x).cumsum(2) / torch.arange(1, x.shape[2] + 1)
    return scores.transpose(1, 2)


def test_equals_the_published_formulas():
    """While T <= theta the memory's finite form is the published recurrence."""
    model = small(readout_window=0).double()
    features = torch.randn(3, 16, 12, dtype=torch.float64)
    with torch.no_grad():
        expected = by_formula(dict(model.state_dict()), features.transpose(1, 2), theta=16)
        torch.testing.assert_close(model.classify(features), expected, rtol=1e-9, atol=1e-9)


def test_shipped_checkpoint_loads():
    model = load_checkpoint(ANALOG)
    assert type(model) is AnalogLMUFormer
    assert ANALOG.stat().st_size <= 4_000_000
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    with np.load(ANALOG.with_name("calibration.npz")) as data:
        pcm, labels = torch.from_numpy(data["pcm"][:24]), data["labels"][:24]
    scores = torch_scores(model, pcm)
    assert scores.shape == (24, 100, 12)
    assert (scores[:, -1].argmax(1) == labels).mean() >= 0.9  # clips of the train split


def test_any_time_curve_of_known_scores():
    """Clip 0 is right from frame 3 on, clip 1 in its last frame only; the stream hears them one frame late."""
    scores, labels = np.zeros((2, 12, 3), np.int8), np.array([1, 2])
    scores[0, 3:, 1] = 5
    scores[1, 11, 2] = 5
    points = curve(scores, labels, delay=1, every=2)
    assert points == tuple(Point(n, a) for n, a in ((2, 0), (4, 0), (6, 0.5), (8, 0.5), (10, 0.5), (12, 1.0)))
    assert curve(scores, labels, delay=4, every=5) == (Point(5, 0.0), Point(10, 0.5), Point(12, 1.0))


@pytest.mark.parametrize(
    ("shape", "labels", "delay", "every"),
    [((2, 4), 2, 0, 1), ((2, 4, 3), 3, 0, 1), ((2, 4, 3), 2, 4, 1), ((2, 4, 3), 2, 0, 0)],
)
def test_any_time_curve_refuses_what_does_not_fit(shape, labels, delay, every):
    with pytest.raises(ValueError, match="expected"):
        curve(np.zeros(shape), np.zeros(labels, int), delay, every)


def test_compiled_scores_are_the_outputs_of_the_stream(lmuformer: Path):
    """The spiking network's C, streamed: one score per frame, classes as torch has them on these clips."""
    import edgec

    model = edgec.CompiledModel(lmuformer)
    with np.load(ANALOG.with_name("calibration.npz")) as data:
        pcm = torch.from_numpy(data["pcm"][:4])
    found = compiled_scores(model, pcm)
    model.close()
    expected = torch_scores(load_checkpoint(CHECKPOINT), pcm)
    assert found.shape == expected.shape == (4, 100, 12)
    assert (found[:, -1].argmax(1) == expected[:, -1].argmax(1)).all()
