"""--tune: variants are measured once, the fastest is kept, and the bytes stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("unicorn")

from edgec.cli import main
from edgec.device import open_device
from edgec.errors import InputError, TargetError
from edgec.ir.graph import Const, Graph, Node, Value
from edgec.ir.types import DType, TensorType
from edgec.kernels import candidates, select
from edgec.ops import QConv2dRequantize, QLinear
from edgec.pipeline import compile_model
from edgec.plan.calls import site_of
from edgec.profile import tune
from edgec.target import load_target
from edgec.toolchain.manifest import TensorSpec

TARGET = load_target("cortex-m4")


def small_net() -> Graph:
    """Two convolutions: 1x1 from 8 to 16 channels, then 3x3 back to 8, on an image of 6 x 6."""
    rng = np.random.default_rng(0)
    x = Value("x", TensorType((1, 6, 6, 8), DType.I8))
    consts: dict[str, Const] = {}
    nodes: list[Node] = []
    before, t = "x", x.type
    for k, (side, channels, pad) in enumerate([(1, 16, (0, 0, 0, 0)), (3, 8, (1, 1, 1, 1))]):
        arrays = {
            "w": rng.integers(-90, 90, (side, side, t.shape[3], channels)).astype(np.int8),
            "bias": rng.integers(-999, 999, channels).astype(np.int32),
            "multiplier": rng.integers(1 << 30, 1 << 31, channels).astype(np.int32),
            "shift": np.full(channels, 40, np.int32),
        }
        names = [f"{name}{k}" for name in arrays]
        consts |= {f"{n}{k}": Const(a, TensorType(a.shape, DType(a.dtype.name))) for n, a in arrays.items()}
        op = QConv2dRequantize(pad=pad, rounding="tflite")
        types = op.infer([t, *[consts[n].type for n in names]])
        nodes.append(Node(op, (before, *names), (f"y{k}",), types, (f"net.py:{k}",)))
        before, (t,) = f"y{k}", types
    return Graph("small", (x,), consts, tuple(nodes), (before,))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measured once for all tests here."""
    path = tmp_path_factory.mktemp("tune") / "deep" / "cache.json"
    assert tune.tune_kernels(small_net(), TARGET, path).measured == 2
    return path


def no_emulator(*args: Any) -> dict[str, int]:
    raise AssertionError("the cache holds everything")


def test_every_rule_that_fits_is_a_candidate() -> None:
    graph = small_net()
    for node in graph.nodes:
        site = site_of(graph, node)
        found = candidates(node.op, site, TARGET.isa)
        assert found[0][0] == select(node.op, site, TARGET.isa)[0]
        names = [variant for variant, _ in found]
        assert names[-1] == "generic"
        assert {"windows_dsp", "conv_dsp"} < set(names)
        assert len(set(names)) == len(names)


def test_never_slower_and_the_report_says_why(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "measure", no_emulator)
    plain = compile_model(small_net(), TARGET, tmp_path / "plain")
    tuned = compile_model(small_net(), TARGET, tmp_path / "tuned", tune=cache)
    assert tuned.report["totals"]["cycles_worst"] <= plain.report["totals"]["cycles_worst"]
    assert "2 kernels chosen by modelled cycles" in tuned.report["how"]["tune"]
    assert "0 layers measured now, 2 from the cache" in tuned.report["how"]["tune"]
    for layer, costs in zip(tuned.report["layers"], tuned.report["tuned"]["layers"], strict=True):
        assert costs[layer["variant"]] == min(costs.values())
    assert "tuned" not in plain.report


def test_measured_again_the_file_is_the_same(cache: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.json"
    tune.tune_kernels(small_net(), TARGET, again)
    assert again.read_bytes() == cache.read_bytes()


def test_the_cheapest_wins_and_the_bytes_stay(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache in which the generic kernel is the fastest is believed."""
    data = json.loads(cache.read_text())
    for entry in data["entries"].values():
        entry["costs"]["generic"] = 1
    other = tmp_path / "other.json"
    other.write_text(json.dumps(data))
    monkeypatch.setattr(tune, "measure", no_emulator)
    x = np.random.default_rng(1).integers(-128, 128, (1, 6, 6, 8)).astype(np.int8)
    outputs = []
    for name, path in (("fast", cache), ("generic", other)):
        model = compile_model(small_net(), TARGET, tmp_path / name, tune=path)
        with open_device("unicorn", model.folder) as device:
            (y,) = device.step([x]) or [np.empty(0)]
            outputs.append(y)
    assert {r["variant"] for r in model.report["layers"]} == {"generic"}
    np.testing.assert_array_equal(*outputs)


def test_spikes_come_at_the_layers_own_rate() -> None:
    spec = TensorSpec("i0_0", "uint32_t", "uint32", (1, 400), 1600)
    for op, rate in ((QLinear(spike_rate=0.4), 0.4), (QLinear(), tune.SPIKES), (QConv2dRequantize(), tune.SPIKES)):
        words = tune.random_input(spec, 0, tune.rate_of(op))
        assert np.unpackbits(words.view(np.uint8)).mean() == pytest.approx(rate, abs=0.02)
    assert tune.key_of(QLinear(spike_rate=0.4), [], TARGET) != tune.key_of(QLinear(), [], TARGET)


def test_keys_depend_on_what_a_measurement_depends_on() -> None:
    graph = small_net()
    node = graph.nodes[0]
    found = candidates(node.op, site_of(graph, node), TARGET.isa)
    keys = {
        tune.key_of(node.op, found, TARGET),
        tune.key_of(node.op, found[1:], TARGET),
        tune.key_of(node.op, found, load_target("cortex-m7")),
    }
    assert len(keys) == 3


@pytest.mark.parametrize(
    "text",
    ["", "[1]", "{}", '{"version": 1, "entries": [3]}', '{"version": 1, "entries": {"a": {"costs": {}}}}',
     '{"version": 1, "entries": {"a": {"costs": {"generic": "few"}}}}'],
)  # fmt: skip
def test_a_damaged_cache_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"(?s)c\.json cannot be read as a tuning cache.*delete it"):
        tune.tune_kernels(small_net(), TARGET, path)
    assert path.read_text() == text


def test_an_entry_that_lacks_a_variant_is_measured_again(cache: Path, tmp_path: Path) -> None:
    data = json.loads(cache.read_text())
    del next(iter(data["entries"].values()))["costs"]["generic"]
    path = tmp_path / "c.json"
    path.write_text(json.dumps(data))
    assert tune.tune_kernels(small_net(), TARGET, path).measured == 1
    assert path.read_bytes() == cache.read_bytes()


def test_a_cache_of_another_version_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"version": 0, "entries": {"a": 1}}')
    assert tune.read_cache(path) == {}


def test_targets_that_nothing_counts_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TargetError, match="no emulator measures kernels for host"):
        tune.tune_kernels(small_net(), load_target("host"), tmp_path / "c.json")
    path, out = tmp_path / "bad.json", tmp_path / "o"
    path.write_text("{")
    model = Path(__file__).resolve().parents[1] / "data" / "mlperf_tiny" / "kws_ref_model.tflite"
    assert main(["compile", str(model), "--target", "cortex-m4", "--tune", str(path), "-o", str(out)]) == 2
    assert "tuning cache" in capsys.readouterr().err
    assert not out.exists()
