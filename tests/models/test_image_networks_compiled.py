"""The shipped image networks, compiled: the same bytes from the reference, the host's C and the emulated M7."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import edgec
from edgec.compiled import to_device, to_real
from edgec.frontends.checkpoint import build_model, read_checkpoint
from edgec.ir.evaluate import evaluate
from edgec.target import load_target
from models.cifar import LABELS, to_float

FOLDER = Path(__file__).resolve().parents[2] / "models"
CAT = FOLDER / "eca_mobilenetv2" / "images" / "cat.png"
NAMES = ("eca_mobilenetv2", "vit")


def images() -> list[tuple[str, np.ndarray]]:
    """A photograph, soft shapes, and noise over the whole range: [1,3,32,32] float32 in [-2,2)."""
    with Image.open(CAT) as picture:
        cat = torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1)
    rng = np.random.default_rng(0)
    found = [("cat", to_float(cat).numpy())]
    for k, cells in enumerate((2, 4, 8)):
        coarse = torch.from_numpy(rng.uniform(-1.5, 1.5, (1, 3, cells, cells)).astype(np.float32))
        soft = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear", align_corners=False)
        found.append((f"shapes {k}", soft[0].numpy()))
    noise = torch.from_numpy(rng.integers(0, 256, (3, 32, 32)).astype(np.uint8))
    return [(label, x[None]) for label, x in [*found, ("noise", to_float(noise).numpy())]]


IMAGES = images()


def checkpoint(name: str) -> Path:
    return FOLDER / name / f"{name}.pt"


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> edgec.CompiledModel:
    """Compiled for the Cortex-M7, int8, from the name alone: its calibration statistics ship beside it."""
    return edgec.compile(request.param, "cortex-m7", tmp_path_factory.mktemp(request.param) / "m7", emit_kind="image")


def test_reference_host_and_emulated_core_give_the_same_bytes(model: edgec.CompiledModel) -> None:
    whole, spec = model.graph("whole"), model.manifest.inputs[0]
    with model.device("host") as host, model.device("unicorn") as core:
        for label, x in IMAGES:
            q = to_device(x, spec)
            expected = evaluate(whole, {whole.inputs[0].name: torch.from_numpy(q.astype(np.int64))})[0].numpy()
            found = host.step([q])
            assert found is not None
            np.testing.assert_array_equal(found[0].reshape(expected.shape), expected, err_msg=f"{label}: host")
            if label in ("cat", "noise"):
                emulated = core.step([q])
                assert emulated is not None
                np.testing.assert_array_equal(emulated[0], found[0], err_msg=f"{label}: emulated core")


def test_the_scores_are_near_those_of_torch(model: edgec.CompiledModel) -> None:
    path = checkpoint(model.manifest.name)
    module = build_model(path, read_checkpoint(path))
    x = IMAGES[0][1]
    with torch.no_grad():
        expected = module(torch.from_numpy(x))[0].numpy()
    found = model.step(x)
    assert found is not None
    assert found.argmax() == expected.argmax()
    assert np.abs(found.reshape(-1) - expected).max() < 0.15 * np.abs(expected).max()


@pytest.mark.parametrize("model", ["eca_mobilenetv2"], indirect=True)
def test_the_cat_is_a_cat(model: edgec.CompiledModel) -> None:
    scores = model.step(IMAGES[0][1])
    assert scores is not None
    assert LABELS[int(scores.argmax())] == "cat"


@pytest.mark.parametrize("model", ["eca_mobilenetv2"], indirect=True)
def test_every_attention_is_one_kernel_on_an_int16_stream(model: edgec.CompiledModel) -> None:
    """17 blocks; the ten that add do so at int16, at one scale for each of the stages whose adds chain."""
    whole = model.graph("whole")
    ops = Counter(n.op.name for n in whole.nodes)
    assert ops["qeca"] == 17
    assert ops["qadd"] == 10
    assert not {"qlut", "qmul", "qconv1d"} & set(ops)
    filters = [whole.consts[n.inputs[1]].data.size for n in whole.nodes if n.op.name == "qeca"]
    assert filters == [1] * 10 + [3] * 7


def test_it_fits_the_part(model: edgec.CompiledModel) -> None:
    part, totals = load_target("cortex-m7"), model.report["totals"]
    assert totals["flash"] < part.flash_bytes
    assert totals["ram"] < part.ram_bytes // 2


@pytest.mark.parametrize("name", NAMES)
def test_a_float_build_equals_the_users_module(name: str, tmp_path: Path) -> None:
    module = build_model(checkpoint(name), read_checkpoint(checkpoint(name)))
    built = edgec.compile(checkpoint(name), "host", tmp_path / "f32", precision="float32")
    with built.device("host") as device:
        for label, x in IMAGES:
            with torch.no_grad():
                expected = module(torch.from_numpy(x)).numpy()
            out = device.step([to_device(x, built.manifest.inputs[0])])
            assert out is not None
            found = to_real(out[0], built.manifest.outputs[0]).reshape(expected.shape)
            np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=label)
