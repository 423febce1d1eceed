"""Measure the shipped LMUFormer: accuracy of torch and of the compiled C, sizes, counted instructions.

    python bench/lmuformer.py [--data ../shared/data/speech_commands]

Writes bench/lmuformer.json, from which docs/generate.py makes the tables of README.md. Accuracy needs the data set; the
rest is measured on the clips that ship with the model. Nothing here is timed: instructions are counted on the emulated
core.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import edgec
from edgec.compiled import CompiledModel, frames, to_device
from edgec.frontends.checkpoint import build_model, read_checkpoint
from edgec.profile.clips import read_wav

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "lmuformer"
RESULT = ROOT / "bench" / "lmuformer.json"


def test_split(data: Path, labels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """PCM [490,16000] int16 and class numbers of the speaker-disjoint test split."""
    import soundfile

    with (data / "labels.csv").open(newline="", encoding="utf-8") as f:
        rows = [r for r in csv.DictReader(f) if r["split"] == "test"]
    clips = np.zeros((len(rows), 16000), np.int16)
    with zipfile.ZipFile(data / "clips_flac.zip") as archive:
        members = {name.removeprefix("clips/"): name for name in archive.namelist()}
        for k, row in enumerate(rows):
            name = next((m for key, m in members.items() if key.endswith(row["path"])), row["path"])
            pcm, _ = soundfile.read(io.BytesIO(archive.read(name)), dtype="int16")
            clips[k, : min(16000, len(pcm))] = pcm[:16000]
    return clips, np.array([labels.index(r["label12"]) for r in rows])


def torch_predictions(clips: np.ndarray) -> np.ndarray:
    """Classes by the user's own module, whole clips at once."""
    path = MODEL / "lmuformer.pt"
    module = build_model(path, read_checkpoint(path))
    found = []
    with torch.no_grad():
        for part in torch.from_numpy(clips).float().div(32768).split(32):
            found.append(module(part)[:, -1].argmax(-1).numpy())
    return np.concatenate(found)


def compiled_predictions(model: CompiledModel, clips: np.ndarray) -> np.ndarray:
    """Classes by the compiled C on the host, streamed frame by frame and flushed."""
    return np.array([int(model.run(clip)[-1].argmax()) for clip in clips])


def count_instructions(model: CompiledModel) -> dict[str, Any]:
    """Instructions of every frame of the shipped clips on the emulated core."""
    spec, counts = model.manifest.inputs[0], []
    with model.device("unicorn", counting=True) as device:
        for path in sorted((MODEL / "clips").glob("*.wav")):
            device.reset()
            for frame in frames(read_wav(path, 16000), spec):
                device.step([to_device(frame, spec)])
                counts.append(device.counters.instructions)
        stack = device.memory()["stack_bytes"]
    return {"frames": len(counts), "worst": max(counts), "mean": float(np.mean(counts)), "stack": stack}


def measure(precision: str, data: Path | None, folder: Path) -> dict[str, Any]:
    """Everything about one precision."""
    model = edgec.compile(MODEL / "lmuformer.pt", "cortex-m7", folder, precision=precision)
    totals = model.report["totals"]
    counted = count_instructions(model)
    result = {
        "flash": totals["flash"], "weights": totals["weights"], "state": totals["state"], "arena": totals["arena"],
        "stack": counted["stack"], "delay": totals["delay"], "macs": totals["macs"], "frames": counted["frames"],
        "instructions_worst": counted["worst"], "instructions_mean": round(counted["mean"]),
        "instructions_per_mac": round(counted["mean"] / totals["macs"], 3),
    }  # fmt: skip
    if data is not None:
        clips, truth = test_split(data, list(model.report["labels"]))
        result["accuracy"] = round(float((compiled_predictions(model, clips) == truth).mean()), 4)
    model.close()
    return result


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "speech_commands")
    data: Path | None = arguments.parse_args().data
    if data is not None and not data.is_dir():
        print(f"{data}: no such folder, accuracy is left out")
        data = None
    result: dict[str, Any] = {"model": "lmuformer", "target": "cortex-m7"}
    if data is not None:
        labels = read_checkpoint(MODEL / "lmuformer.pt")["labels"]
        clips, truth = test_split(data, list(labels))
        result["clips"] = len(clips)
        result["torch_accuracy"] = round(float((torch_predictions(clips) == truth).mean()), 4)
    for precision in ("int8", "float32"):
        with tempfile.TemporaryDirectory() as work:
            result[precision] = measure(precision, data, Path(work) / precision)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
