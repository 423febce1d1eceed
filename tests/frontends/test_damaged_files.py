"""Model files with damage: an import succeeds or gives one clear error, never a traceback. Seeds are fixed."""

from __future__ import annotations

import io
import random
import re
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from edgec import frontends
from edgec.errors import EdgecError

DATA = Path(__file__).resolve().parents[1] / "data" / "mlperf_tiny"
WORDS = (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x80", b"\1\0\0\0")
VALUES = ("-1", "0", "99999999999", "null", "true", '""', '"x"', "[]", "{}", "1e400")
TOKEN = re.compile(r'-?\d+|"[^"]*"|true|false|null')


def damaged(rng: random.Random, raw: bytes) -> bytes:
    """Bits turned, bytes changed, inserted or cut out, extreme words, or the end cut off; often near an end."""
    found, kind = bytearray(raw), rng.randrange(6)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not found:
            break
        near = min(len(found), rng.choice((len(found), 2000)))
        at = rng.choice((rng.randrange(near), len(found) - 1 - rng.randrange(near)))
        if kind == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            found[at] = rng.randrange(256)
        elif kind == 2:
            found[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 3:
            del found[at : at + rng.randrange(1, 9)]
        elif kind == 4:
            del found[at:]
        else:
            found[at : at + 4] = rng.choice(WORDS)
    return bytes(found)


def damaged_json(rng: random.Random, text: str) -> str:
    """Some of its values changed for others: it stays JSON, mostly."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        tokens = list(TOKEN.finditer(text))
        at = rng.choice(tokens)
        text = text[: at.start()] + rng.choice((*VALUES, rng.choice(tokens).group())) + text[at.end() :]
    return text


def damaged_member(rng: random.Random, raw: bytes) -> bytes:
    """A zip archive that is whole, one of whose members is not."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w") as new:
        hurt = rng.choice(old.namelist())
        for name in old.namelist():
            data = old.read(name)
            if name == hurt and name.endswith("model.json") and rng.random() < 0.8:
                data = damaged_json(rng, data.decode()).encode()
            elif name == hurt:
                data = damaged(rng, data)
            new.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def check(raw: bytes, suffix: str, seeds: range, folder: Path) -> None:
    """Every damaged file is imported or refused."""
    path, refused = folder / f"damaged{suffix}", 0
    for seed in seeds:
        rng = random.Random(seed)
        inside = raw[:2] == b"PK" and rng.random() < 0.8
        path.write_bytes(damaged_member(rng, raw) if inside else damaged(rng, raw))
        try:
            frontends.load(path)
        except EdgecError:
            refused += 1
        except Exception as err:
            raise AssertionError(f"seed {seed}: {type(err).__name__} {err}") from err
    assert refused > len(seeds) / 4


def share(few: int, many: int) -> pytest.MarkDecorator:
    """A few seeds with every change, many more at night."""
    night = pytest.param(range(few, many), marks=pytest.mark.nightly, id="nightly")
    return pytest.mark.parametrize("seeds", [pytest.param(range(few), id="few"), night])


@share(80, 1500)
@pytest.mark.parametrize("block", ["branches", "constants", "gates", "pools", "sequence"])
def test_onnx(block: str, seeds: range, tmp_path: Path) -> None:
    pytest.importorskip("onnx_ir")
    pytest.importorskip("onnxruntime")
    from tests.frontends.onnx import test_onnx
    from tests.frontends.onnx.onnx_models import Net

    net = Net(1, 3, 8, 8)
    getattr(test_onnx, block)(net)
    check(net.quantized(tmp_path / "net.onnx").read_bytes(), ".onnx", seeds, tmp_path)


@share(60, 800)
@pytest.mark.parametrize("name", ["kws_ref_model.tflite", "pretrainedResnet_quant.tflite", "kws_dscnn_qdq.onnx"])
def test_real_networks(name: str, seeds: range, tmp_path: Path) -> None:
    pytest.importorskip("tflite" if name.endswith(".tflite") else "onnx_ir")
    check((DATA / name).read_bytes(), Path(name).suffix, seeds, tmp_path)


@share(40, 600)
def test_export_archives(seeds: range, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module, (torch.randn(1, 3, 8, 8),)), tmp_path / "net.pt2")
        check((tmp_path / "net.pt2").read_bytes(), ".pt2", seeds, tmp_path)
