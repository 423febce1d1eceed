"""The image classifiers' data and training loop, on a few made-up pictures."""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import multiprocessing

from models import checkpoint, cifar, cifar_training
from models.eca_mobilenetv2 import train as eca
from models.vit import train as vit


def write_archive(path: Path, per_class: int, size: int = cifar.SIZE) -> None:
    """Pictures of one colour for each class."""
    with zipfile.ZipFile(path, "w") as archive:
        for index, label in enumerate(cifar.LABELS):
            for number in range(per_class):
                file = io.BytesIO()
                Image.new("RGB", (size, size), (25 * index, 10 * number, 128)).save(file, "JPEG", quality=95)
                archive.writestr(f"{label}/{number:04}.jpg", file.getvalue())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of 4 training, 2 validation and 1 test pictures of each class."""
    monkeypatch.setattr(cifar, "HELD_OUT", 2)
    write_archive(tmp_path / "cifar10_jpeg_train.zip", 6)
    write_archive(tmp_path / "cifar10_jpeg_test.zip", 1)
    return tmp_path


def test_splits_hold_out_the_last_pictures_of_each_class(folder: Path) -> None:
    cache = folder / "cache"
    sizes = {"train": 4, "val": 2, "test": 1}
    for name, per_class in sizes.items():
        split = cifar.load_split(folder, name, cache)
        assert split.labels.bincount().tolist() == [per_class] * 10
        assert split.pixels.shape == (10 * per_class, 3, 32, 32)
        assert torch.equal(split.pixels, cifar.load_split(folder, name, cache).pixels)
    pixel = cifar.load_split(folder, "val").pixels[2, :, 0, 0]  # automobile, number 4
    assert (pixel.int() - torch.tensor([25, 40, 128])).abs().max() <= 4


def test_pixels_fit_int8_exactly() -> None:
    x = cifar.to_float(torch.arange(256, dtype=torch.uint8))
    assert torch.equal(x * 64, torch.arange(-128.0, 128.0))


def test_wrong_pictures_are_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / "large.zip", 1, size=40)
    with pytest.raises(ValueError, match=r"airplane/0000\.jpg: expected 32 x 32 pixels, found \(40, 40\)"):
        cifar.read_archive(tmp_path / "large.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("zebra/0000.jpg", b"")
    with pytest.raises(ValueError, match=r"zebra/0000\.jpg: expected a folder named airplane"):
        cifar.read_archive(tmp_path / "other.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(ValueError, match="found none"):
        cifar.read_archive(tmp_path / "empty.zip")


def test_augmentation_keeps_shape_range_and_seed() -> None:
    pixels = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    targets = cifar.soft_targets(torch.arange(6), 0.1)

    def changed() -> tuple[torch.Tensor, torch.Tensor]:
        augment = cifar.Augment(7, 1.0)
        return augment.mix(augment.cut(augment.zoom(augment.colour(augment.shift(pixels)))), targets, 1.0)

    x, mixed = changed()
    assert x.shape == pixels.shape
    assert x.min() >= -2
    assert x.max() <= 127 / 64
    torch.testing.assert_close(mixed.sum(1), torch.ones(6))
    assert all(map(torch.equal, changed(), (x, mixed)))


def test_a_shifted_picture_is_a_window_of_the_padded_one() -> None:
    pixels = torch.arange(32 * 32).reshape(1, 1, 32, 32).remainder(251).to(torch.uint8).expand(8, 3, 32, 32)
    padded = torch.nn.functional.pad(cifar.to_float(pixels[:1]), (4,) * 4, mode="reflect")[0]
    windows = padded.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    for picture in cifar.Augment(3, 0.0).shift(pixels):
        assert any(torch.equal(picture, w) or torch.equal(picture, w.flip(2)) for w in windows)


@pytest.mark.parametrize("family", [eca, vit])
def test_a_resumed_run_ends_as_one_without_a_break(family: object, folder: Path) -> None:
    common = ["--data", str(folder), "--batch", "20", "--threads", "1", "--no-bfloat16", "--warmup", "0.5"]

    def fit(work: str, epochs: int, *more: str) -> dict[str, torch.Tensor]:
        options = family.parse([*common, "--work", str(folder / work), *more])
        options.epochs = epochs
        trainer = family.Trainer(options)
        if epochs == 1:  # stop a run of two epochs after the first
            options.epochs = 2
            trainer.run_epoch()
            options.work.mkdir()
            trainer.save(options.work / "last.pt")
        else:
            trainer.fit()
        return trainer.average.state

    whole = fit("whole", 2)
    fit("broken", 1)
    resumed = fit("broken", 2, "--resume")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    name = family.Trainer.name
    model = checkpoint.load_checkpoint(folder / "whole" / "average.pt", name, family.Trainer.build)
    accuracy, loss, per_class = cifar_training.evaluate(model, cifar.load_split(folder, "test"))
    assert accuracy == pytest.approx(float(per_class.mean()))
    assert loss > 0
    other = "vit" if name != "vit" else "eca_mobilenetv2"
    with pytest.raises(ValueError, match=f"of {other}, found 'edgec-checkpoint-1' of '{name}'"):
        checkpoint.load_checkpoint(folder / "whole" / "average.pt", other, family.Trainer.build)


class Plain(vit.Trainer):
    """Gradient descent, in which the sum of gradients shows exactly."""

    def new_optimisers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD(self.model.parameters(), lr=self.options.lr)]


def one_of_two(rank: int, options: argparse.Namespace, meeting: str) -> None:
    cifar.HELD_OUT = 2  # as in `folder`, in a process of its own
    cifar_training.train_together(rank, Plain, options, meeting)


def test_two_processes_train_as_one(folder: Path) -> None:
    """Without batch norm, halves of a batch whose gradients are averaged are the batch."""
    common = ["--data", str(folder), "--batch", "20", "--threads", "1", "--no-bfloat16", "--epochs", "1", "--lr", "0.1"]
    alone = Plain(vit.parse([*common, "--work", str(folder / "alone")]))
    alone.fit()
    options = vit.parse([*common, "--work", str(folder / "together"), "--processes", "2"])
    multiprocessing.spawn(one_of_two, (options, f"file://{folder}/meeting"), nprocs=2)
    together = torch.load(folder / "together" / "last.pt", weights_only=True)["model"]
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-6)
