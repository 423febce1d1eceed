"""Tiny Time Mixer: granite's own module as the oracle, its size, its training, its checkpoint."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ttm import build, example_inputs
from models.ttm.data import BORDERS, CHANNELS, load_series, windows
from models.ttm.model import TTM, Config, StdScaler
from models.ttm.train import CHECKPOINT, Trainer, evaluate, load_checkpoint, parse
from tests.tsfm_import import import_tinytimemixer

# granite's names of what a mixer layer holds
PARTS = {
    "norm.norm": "{}_norm",
    "mlp.fc1": "{}_mixer.fc1",
    "mlp.fc2": "{}_mixer.fc2",
    "gating_block.attn_layer": "{}_mixer.gate.linear",
}


def granite(config: Config) -> torch.nn.Module:
    """TinyTimeMixerForPrediction of the same sizes, untrained."""
    module = import_tinytimemixer()
    return module.TinyTimeMixerForPrediction(
        module.TinyTimeMixerConfig(
            context_length=config.context, prediction_length=config.horizon, patch_length=config.patch,
            patch_stride=config.patch, d_model=config.dim, num_layers=config.layers,
            adaptive_patching_levels=config.levels, expansion_factor=config.expansion, scaling="std",
            decoder_num_layers=config.decoder_layers, decoder_d_model=config.decoder_dim, gated_attn=True,
            norm_mlp="LayerNorm", mode="common_channel", decoder_mode="common_channel", num_input_channels=1,
            dropout=0.0, head_dropout=0.0,
        )
    ).eval()  # fmt: skip


def layer_names(theirs: str, ours: str) -> dict[str, str]:
    """granite's name -> ours, for the parts of one mixer layer."""
    return {
        f"{theirs}.{axis}_mixer.{part}": f"{ours}.{name.format(axis)}"
        for axis in ("patch", "feature")
        for part, name in PARTS.items()
    }


def twin(config: Config) -> tuple[torch.nn.Module, TTM]:
    """granite's module and ours with the same random weights, large enough for every branch to count."""
    theirs, ours = granite(config), TTM(config).eval()
    names = {
        "backbone.encoder.patcher": "patcher",
        "decoder.adapter": "adapter",
        "head.base_forecast_block": "head",
    }
    mixers = "backbone.encoder.mlp_mixer_encoder.mixers"
    for level in range(max(1, config.levels)):
        for k in range(config.layers):
            # without levels granite has no level in its names either
            theirs_at = f"{mixers}.{level}.mixer_layers.{k}" if config.levels else f"{mixers}.{k}"
            names |= layer_names(theirs_at, f"encoder.{level}.layers.{k}")
    for k in range(config.decoder_layers):
        names |= layer_names(f"decoder.decoder_block.mixers.{k}", f"decoder.{k}")
    state = theirs.state_dict()
    assert len(state) == 2 * len(names)
    generator = torch.Generator().manual_seed(1)
    for value in state.values():
        value.copy_(torch.randn(value.shape, generator=generator) * value.shape[-1] ** -0.5)
    theirs.load_state_dict(state)
    ours.load_state_dict({f"{names[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in state.items()})
    return theirs, ours


def compare(config: Config, past: torch.Tensor) -> None:
    theirs, ours = twin(config)
    with torch.no_grad():
        expected = theirs(past).prediction_outputs
        found = ours(past)
    assert found.shape == (past.shape[0], config.horizon, past.shape[2])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_published_configuration_has_the_published_size():
    assert sum(p.numel() for p in build({}).parameters()) == 805_280
    assert Config() == Config(512, 96, 64, 192, 3, 2, 2, 128, 2)


def test_equals_granite():
    torch.manual_seed(2)
    past = torch.randn(3, 512, 1).cumsum(1) * torch.tensor([0.1, 1.0, 20.0]).view(3, 1, 1)
    compare(Config(), past)


@settings(max_examples=8, deadline=None)
@given(
    patches=st.integers(2, 4), patch=st.integers(2, 9), levels=st.integers(0, 3), quarter=st.integers(5, 9),
    layers=st.integers(1, 2), expansion=st.integers(1, 3), decoder=st.integers(1, 9), horizon=st.integers(1, 7),
)  # fmt: skip
def test_equals_granite_at_other_sizes(patches, patch, levels, quarter, layers, expansion, decoder, horizon):
    config = Config(patches * patch, horizon, patch, 4 * quarter, levels, layers, expansion, decoder, 1)
    compare(config, torch.randn(2, patches * patch, 1, generator=torch.Generator().manual_seed(3)))


def small(**changes) -> TTM:
    """A small untrained network in eval mode."""
    torch.manual_seed(0)
    sizes = {"context": 32, "horizon": 8, "patch": 8, "dim": 16, "levels": 2, "decoder_dim": 12}
    return TTM(Config(**(sizes | changes))).eval()


def test_channels_do_not_mix():
    model, past = small(), torch.randn(2, 32, 5)
    together = model(past)
    apart = torch.cat([model(past[:, :, k : k + 1]) for k in range(5)], 2)
    torch.testing.assert_close(together, apart)


def test_the_unit_of_the_series_does_not_matter():
    """Scaler and its inverse: f(a x + b) = a f(x) + b, as far as eps under the root allows."""
    model, past = small(), torch.randn(4, 32, 1)
    torch.testing.assert_close(model(25.0 * past - 300.0), 25.0 * model(past) - 300.0, rtol=1e-4, atol=2e-3)


def test_a_constant_window_forecasts_its_neighbourhood():
    """Variance 0: the scale is sqrt(eps), nothing divides by zero."""
    forecast = small()(torch.full((1, 32, 1), 7.5)).detach()
    assert bool(forecast.isfinite().all())
    assert float((forecast - 7.5).abs().max()) < 0.1


def test_scaler_against_numpy():
    x = np.random.default_rng(0).normal(3.0, 2.0, (2, 20, 3)).astype(np.float32)
    scaled, mean, scale = (t.numpy() for t in StdScaler()(torch.from_numpy(x)))
    np.testing.assert_allclose(mean, x.mean(1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(scale, np.sqrt(x.var(1, keepdims=True) + 1e-5), rtol=1e-5)
    np.testing.assert_allclose(scaled * scale + mean, x, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": 500}, "multiple of patch, found 500 and 64"),
        ({"dim": 190}, "multiple of 2.*found 190"),
        ({"horizon": 0}, "horizon must be"),
        ({"dropout": 1.5}, "dropout must lie"),
    ],
)
def test_build_refuses_bad_sizes(changes, message):
    with pytest.raises(ValueError, match=message):
        build(changes)


def test_build_refuses_an_unknown_key():
    with pytest.raises(TypeError, match="width"):
        build({"width": 3})


def write_csv(path: Path, rows: int = BORDERS["test"][1], header: tuple[str, ...] = ("date", *CHANNELS)) -> Path:
    """A made-up file in ETTh1's format: sums of daily waves and noise."""
    hours = np.arange(rows)[:, None]
    noise = np.random.default_rng(0).normal(0, 0.1, (rows, 7))
    values = np.sin(hours * 2 * np.pi / 24 + np.arange(7)) * np.arange(1, 8) + np.arange(7) + noise
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([str(k), *(f"{v:.4f}" for v in row)] for k, row in enumerate(values))
    return path


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("ett") / "ETTh1.csv")


def test_the_protocol(made_up: Path):
    """12/4/4 months, statistics of the train split alone; the first test window forecasts the split's first row."""
    series = load_series(made_up)
    raw = np.loadtxt(made_up, delimiter=",", skiprows=1)[:, 1:]
    np.testing.assert_allclose(series.mean.numpy(), raw[:8640].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(series.std.numpy(), raw[:8640].std(0), rtol=1e-5)
    standard = (raw - raw[:8640].mean(0)) / raw[:8640].std(0)
    assert len(series.split("train", 512)) == 8640
    test = windows(series.split("test", 512), 608)
    assert test.shape == (2785, 608, 7)
    np.testing.assert_allclose(test[0, 512:].numpy(), standard[11520:11616], atol=1e-5)
    np.testing.assert_allclose(test[-1, 512:].numpy(), standard[14304:14400], atol=1e-5)
    np.testing.assert_allclose(windows(series.split("val", 512), 608)[0, 512:].numpy(), standard[8640:8736], atol=1e-5)


def test_mse_is_the_mean_over_windows_hours_and_channels():
    model, rows = small(), torch.randn(60, 3)
    result = evaluate(model, rows, model.config, batch=5)
    errors = torch.stack([model(rows[None, k : k + 32])[0] - rows[k + 32 : k + 40] for k in range(21)]).detach()
    assert result["mse"] == pytest.approx(float(errors.square().mean()), rel=1e-5)
    assert result["mae"] == pytest.approx(float(errors.abs().mean()), rel=1e-5)
    assert result["per_channel"] == pytest.approx(errors.square().mean((0, 1)).tolist(), rel=1e-5)


def test_another_file_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="expected the columns date,HUFL"):
        load_series(write_csv(tmp_path / "a.csv", 3, ("when", *CHANNELS)))
    with pytest.raises(ValueError, match="at least 14400 hourly rows, found 30"):
        load_series(write_csv(tmp_path / "b.csv", 30))
    text = write_csv(tmp_path / "c.csv").read_text().splitlines()
    text[5] = "4,nan" + ",1" * 6
    (tmp_path / "c.csv").write_text("\n".join(text))
    with pytest.raises(ValueError, match="line 6 holds a value that is not finite"):
        load_series(tmp_path / "c.csv")
    text[5] = "4,x" + ",1" * 6
    (tmp_path / "c.csv").write_text("\n".join(text))
    with pytest.raises(ValueError, match="seven numbers"):
        load_series(tmp_path / "c.csv")
    (tmp_path / "d.csv").write_text("")
    with pytest.raises(ValueError, match="expected the columns"):
        load_series(tmp_path / "d.csv")


def train(data: Path, work: Path, *extra: str) -> dict[str, torch.Tensor]:
    """Two tiny epochs; the weights after them."""
    options = parse(
        ["--data", str(data), "--work", str(work), "--epochs", "2", "--steps", "2", "--batch", "4", "--threads", "1",
         "--val-stride", "400", "--no-bfloat16", *extra]
    )  # fmt: skip
    trainer = Trainer(options)
    trainer.fit()
    return trainer.average.state


def test_training_is_seeded_and_resumes(made_up: Path, tmp_path: Path, monkeypatch, capsys):
    straight = train(made_up, tmp_path / "a")
    assert (tmp_path / "a" / "best.pt").is_file()
    run_epoch = Trainer.run_epoch

    def interrupted(self: Trainer) -> float:
        if self.epoch == 1:
            raise KeyboardInterrupt
        return run_epoch(self)

    monkeypatch.setattr(Trainer, "run_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(made_up, tmp_path / "b")
    monkeypatch.setattr(Trainer, "run_epoch", run_epoch)
    resumed = train(made_up, tmp_path / "b", "--resume")
    for name, value in straight.items():
        assert torch.equal(resumed[name], value), name
    assert "epoch 2/2" in capsys.readouterr().out


def test_shipped_checkpoint_loads():
    model = load_checkpoint(CHECKPOINT)
    assert CHECKPOINT.stat().st_size <= 4_000_000
    assert sum(p.numel() for p in model.parameters()) == 805_280
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    (past,) = example_inputs({})
    assert past.shape == (1, 512, 1)
    wave = torch.sin(torch.arange(608) * 2 * torch.pi / 24)[None, :, None]
    forecast = model(wave[:, :512]).detach()
    # a network trained on hourly data continues a daily wave far better than its mean, whose error is 0.5
    assert float((forecast - wave[:, 512:]).square().mean()) < 0.05
