"""Calls that compare, pick, reduce, resample and accumulate, on integers and truth values too, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import edgec
from edgec.errors import InputError, PassError
from edgec.frontends.modules import from_module
from edgec.ir.evaluate import evaluate
from edgec.ir.types import DType
from edgec.ir.verify import verify
from edgec.passes.canonicalize import Canonicalize
from tests.frontends.pytorch.test_torch_export import Call, outputs_of

X, Y = (torch.from_numpy(np.random.default_rng(k).normal(size=(1, 3, 6, 4)).astype(np.float32)) for k in range(2))
TOKENS = torch.tensor([[3, 0, 7, 2, 2]])
TABLE = torch.randn(8, 3)
CALLS = {
    "compare": lambda x, y: (torch.where(x > y, x, 2 * y), (x >= 0.5) & ~(y < x), torch.eq(x, x) | (y != y)),
    "functions": lambda x, y: (torch.sin(x) + y.cos() * x.tan(), torch.log1p(x.abs()) - torch.expm1(y), torch.asinh(x)),
    "rounding": lambda x, y: (torch.floor(3 * x) + y.ceil(), torch.round(4 * x), torch.trunc(y * 3), torch.sign(x)),
    "powers": lambda x, y: (x.abs() ** y, 2.0 ** x, x ** 3, x.abs() ** -0.5),
    "remainders": lambda x, y: (torch.remainder(x, 0.3), torch.fmod(x, y), torch.floor_divide(x, y)),
    "extremes": lambda x, y: (torch.maximum(x, y), torch.minimum(x, y), x.amax((1, 3)), y.amin(-1, keepdim=True)),
    "max with its place": lambda x, y: (x.max(2)[0], x.max(2)[1], y.min(-1, keepdim=True)[1]),
    "all of it": lambda x, y: (x.max(), y.min(), x.argmax(), (x > 9).any(), (x > -9).all()),
    "reductions": lambda x, y: (x.prod(1), torch.logsumexp(y, (2, 3)), x.argmin(2), (x > 0).any(-1), (y > -2).all(1)),
    "so far": lambda x, y: (x.cumsum(2), y.cumprod(-1)),
    "backwards": lambda x, y: (x.flip(1, 3), y[:, :, ::2], x[:, 1:, 1::3, ::2]),
    "casts": lambda x, y: ((x > 0).float() * y, (x * 10).to(torch.int32), (y > x).long() + 1, (x * 9).int() // 2),
    "masked": lambda x, y: (x * (y > 0), (y > 0) + 2 * x, (x > 0) * 3),
    "pads": lambda x, y: (F.pad(x[0], (1, 2), "reflect"), F.pad(y, (2, 1, 0, 3), "replicate"),
                          F.pad(x, (1, 1), value=2.0)),
    "circular": lambda x, y: F.pad(x, (1, 2, 3, 1), "circular"),
    "resizes": lambda x, y: (
        F.interpolate(x, scale_factor=2), F.interpolate(y, (9, 3), mode="bilinear"),
        F.interpolate(x, (5, 7), mode="bilinear", align_corners=True), F.interpolate(y, scale_factor=1.7),
    ),
    "picked": lambda x, y: (x.index_select(2, torch.tensor([5, 0, 0])), torch.gather(y, 3, (x.abs() * 1.2).long() % 4)),
    "scattered": lambda x, y: torch.zeros(1, 3, 6, 4).scatter_add(2, (y.abs() * 2).long() % 6, x),
    "log softmax": lambda x, y: (F.log_softmax(x, 2), y.log_softmax(-1)),
    "glu": lambda x, y: (F.glu(x, 2), F.glu(y, -1)),
    "turned": lambda x, y: (x.roll((1, -2), (2, 3)), y.repeat(1, 2, 1, 3), torch.tile(x, (2, 1))),
    "masked by a comparison": lambda x, y: (
        x.masked_fill(y > 0.3, -2.5), torch.clamp(x, y - 1, y + 1), x.clamp_max(0.4)
    ),
    "pools to any size": lambda x, y: (
        F.adaptive_avg_pool2d(x, (3, 2)), F.adaptive_avg_pool2d(y, (4, 3)), F.adaptive_avg_pool1d(x[0], 2),
        F.adaptive_avg_pool1d(y[0], 3),
    ),
    "shrinks": lambda x, y: (F.hardshrink(x), F.softshrink(y), F.threshold(x, 0.1, 20.0), torch.lerp(x, y, 0.3)),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_what_torch_computes(name: str) -> None:
    module = Call(CALLS[name]).eval()
    graph = from_module(module, (X, Y), "net")
    for g in (graph, Canonicalize().run(graph)):
        verify(g)
        named = {v.name: x for v, x in zip(g.inputs, (X, Y), strict=False)}
        for expected, found in zip(outputs_of(module, (X, Y)), evaluate(g, named), strict=True):
            torch.testing.assert_close(found.to(expected.dtype), expected, rtol=1e-5, atol=1e-5)


class Tagger(nn.Module):
    """Tokens to classes: an embedding, a gate of truth values, scores and their best."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(8, 6), nn.Linear(6, 4)

    def forward(self, tokens, keep):
        x = torch.where(keep.unsqueeze(-1), self.embed(tokens), torch.tensor(0.0))
        scores = self.out(torch.sin(x))
        return {"best": scores.argmax(-1), "sure": scores.amax(-1) > 0.2, "seen": (tokens * keep).cumsum(1)}


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory):
    torch.manual_seed(0)
    module, keep = Tagger().eval(), torch.tensor([[True, False, True, True, True]])
    folder = tmp_path_factory.mktemp("tagger") / "out"
    choices = {"precision": "float32", "streaming": False, "example_inputs": (TOKENS, keep)}
    model = edgec.compile(module, target="cortex-m4", out=folder, **choices)
    return module, keep, model


def test_integers_and_truth_values_through_a_compiled_library(tagger) -> None:
    module, keep, model = tagger
    with torch.no_grad():
        expected = module(TOKENS, keep)
    found = model.run({"tokens": TOKENS.numpy(), "keep": keep.numpy()})
    assert {k: found[k].dtype.name for k in expected} == {"best": "int32", "sure": "bool", "seen": "int32"}
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key].reshape(value.shape), value.numpy())
    header = (model.folder / f"{model.manifest.name}.h").read_text()
    assert "const int32_t" in header
    assert "const uint8_t" in header
    for wrong in (np.full((1, 5), 2.5, np.float32), np.full((1, 5), 2**40)):
        with pytest.raises(InputError, match="input 'tokens': expected int32, found"):
            model.run({"tokens": wrong, "keep": keep.numpy()})


def test_the_emulated_core_gives_the_hosts_bytes(tagger) -> None:
    from edgec.device import open_device

    pytest.importorskip("unicorn")
    _, keep, model = tagger
    inputs = [TOKENS.numpy().astype(np.int32), keep.numpy()]
    with open_device("host", model.folder, target="host") as host, open_device("unicorn", model.folder) as core:
        for a, b in zip(host.step(inputs), core.step(inputs), strict=True):
            np.testing.assert_array_equal(a, b)


def test_int8_refuses_data_by_name() -> None:
    module, keep = Tagger().eval(), torch.tensor([[True] * 5])
    graph = from_module(module, (TOKENS, keep), "net")
    assert [v.type.dtype for v in graph.inputs] == [DType.I32, DType.BOOL]
    from edgec.passes.quantize.quantize import Quantize

    with pytest.raises(PassError, match="these tensors hold data, no real values that have a scale:") as error:
        Quantize({}).run(graph)
    assert "%tokens is int32" in str(error.value)
