"""Instructions of an image network on an ARM CPU, beside those of the interpreters: DeiT-Tiny in float32.

    python -m bench.arm_cpu > bench/arm_cpu.txt

timm's module unchanged with random weights; one image, one thread, counted under qemu-aarch64 (Cortex-A53) by a plugin,
from the call of the step to its return. The peers were counted the same way, a whole call of the runtime: LiteRT 2.3
with XNNPACK and onnxruntime 1.32 from their arm64 wheels, the same network exported by each one's own tools.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import timm
import torch

import edgec
from edgec.profile.counts import Row, profile

PEERS = (("LiteRT, XNNPACK", 715e6), ("onnxruntime", 478e6))
SHOWN = 8  # ops in the table


def by_op(rows: tuple[Row, ...]) -> list[tuple[str, str, float, int]]:
    """Instructions and MACs of each op and kernel variant together, the costliest first."""
    found: dict[tuple[str, str], tuple[float, int]] = {}
    for row in rows:
        count, macs = found.get((row.op, row.variant), (0.0, 0))
        found[row.op, row.variant] = count + row.mean, macs + row.macs
    return sorted(((op, variant, *sums) for (op, variant), sums in found.items()), key=lambda r: -r[2])


def main() -> None:
    torch.manual_seed(0)
    module = timm.create_model("deit_tiny_patch16_224", pretrained=False).eval()
    image = torch.randn(1, 3, 224, 224)
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "deit"
        model = edgec.compile(module, "cortex-a53", out, precision="float32", example_inputs=(image,))
        with model.device("qemu-aarch64") as device:
            found = device.step([image.numpy()])
        counts = profile(model, image.numpy())
    assert found is not None
    with torch.no_grad():
        error = float(np.abs(found[0] - module(image).numpy()).max())
    macs = model.report["totals"]["macs"]
    print("$ python -m bench.arm_cpu")
    print(
        f"DeiT-Tiny 224 x 224, float32, Cortex-A53: {macs / 1e6:,.1f} M MACs, largest difference from torch {error:.1e}"
    )
    print(f"  {'edgec':16s} {model.report['totals']['instructions_worst'] / 1e6:7.1f} M instructions")
    for name, count in PEERS:
        print(f"  {name:16s} {count / 1e6:7.1f} M")
    print("of edgec's, by op and kernel:")
    for op, variant, count, ops_macs in by_op(counts.rows)[:SHOWN]:
        per_mac = f"{count / ops_macs:.3f} per MAC" if ops_macs else ""
        print(f"  {op or '(step)':16s} {variant:16s} {count / 1e6:7.1f} M {per_mac}")


if __name__ == "__main__":
    main()
