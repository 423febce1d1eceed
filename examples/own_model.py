"""A torch module of your own as a stream on a microcontroller: docs/streaming.md goes through it.

python examples/own_model.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

import edgec


class Sounds(nn.Module):
    """PCM in [-1,1) [B,N] -> scores of 3 sounds, every 10 ms [B,T,3]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = edgec.nn.LogMel(n_mels=20, offset=-4.0, scale=0.3)
        self.first = nn.Conv1d(20, 16, 5, padding=2)
        self.second = nn.Conv1d(16, 16, 3, padding=1)
        self.scores = nn.Linear(16, 3)
        self.mean = edgec.nn.RunningMean(window=25)

    def forward(self, pcm: torch.Tensor) -> torch.Tensor:
        x = self.features(pcm).transpose(1, 2)
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.mean(self.scores(x.transpose(1, 2)))


class Excited(Sounds):
    """The same with each channel weighted by its mean over the whole clip."""

    def forward(self, pcm: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(self.features(pcm).transpose(1, 2)))
        x = torch.relu(self.second(x * torch.sigmoid(x.mean(2, keepdim=True))))
        return self.mean(self.scores(x.transpose(1, 2)))


def clips(count: int) -> torch.Tensor:
    """Seconds of a tone in noise at 16 kHz [count,16000], in [-1,1)."""
    random = torch.Generator().manual_seed(1)
    pitch = 200 + 1800 * torch.rand(count, 1, generator=random)
    tone = torch.sin(2 * torch.pi * pitch * torch.arange(16000) / 16000)
    return 0.3 * tone + 0.1 * torch.randn(count, 16000, generator=random).clamp(-3, 3)


def stream(model: edgec.CompiledModel, samples: np.ndarray) -> np.ndarray:
    """Scores [T,3] of int16 samples that come in 160 at a time."""
    model.reset()
    outputs = []
    for t, frame in enumerate(samples.reshape(-1, 160)):
        scores = model.step(frame)
        if scores is None:
            print(f"frame {t}: no scores yet")
        else:
            outputs.append(scores.reshape(3))
    while (scores := model.flush()) is not None:
        outputs.append(scores.reshape(3))
    return np.stack(outputs)


def main() -> None:
    torch.manual_seed(0)
    module, pcm = Sounds().eval(), clips(32)
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "sounds"
        model = edgec.compile(module, target="cortex-m7", out=out, example_inputs=(pcm[:1],), calibration=pcm.numpy())
        spec, totals = model.manifest.inputs[0], model.report["totals"]
        print(f"a call takes {spec.dtype}{list(spec.shape)}; delay {model.manifest.delay} frames")
        print(f"flash {totals['flash']:,} B, RAM {totals['ram']:,} B")
        print(f"{totals['instructions_worst']:,} instructions in the worst frame")

        samples = (pcm[0].numpy() * 32768).astype(np.int16)
        found = stream(model, samples)
        with torch.no_grad():
            expected = module(torch.from_numpy(samples[None] / np.float32(32768)))[0].numpy()
        error = np.abs(found - expected).max() / np.abs(expected).max()
        print(f"{len(found)} scores of {len(samples) // 160} frames, within {100 * error:.1f} % of torch's")
        model.close()

        try:
            edgec.compile(Excited().eval(), out=Path(work) / "no", example_inputs=(pcm[:1],), calibration=pcm.numpy())
        except edgec.EdgecError as err:
            print(err)


if __name__ == "__main__":
    main()
