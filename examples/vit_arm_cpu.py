"""Compile a vision transformer for a 64-bit ARM CPU, run it under qemu-aarch64 and compare it with torch.

    python examples/vit_arm_cpu.py [PICTURE ...] [--precision int8|float32] [--deit]

--deit takes DeiT-Tiny from timm (5.7 million parameters, random weights) in place of the shipped network: its scores
mean nothing, but torch and the compiled code must agree on them. Without qemu-aarch64 the same network runs as C on
this computer.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from image_classification import CAT, read_picture

import edgec
from edgec.compiled import CompiledModel, to_device, to_real
from edgec.frontends import shipped
from edgec.frontends.checkpoint import build_model, read_checkpoint


def shipped_vit(precision: str, target: str, out: Path) -> tuple[torch.nn.Module, CompiledModel]:
    """The shipped network in torch and compiled."""
    path = shipped.file_of("vit")
    return build_model(path, read_checkpoint(path)), edgec.compile("vit", target, out, precision=precision)


def deit_tiny(target: str, out: Path) -> tuple[torch.nn.Module, CompiledModel]:
    """timm's DeiT-Tiny with random weights in torch and compiled, in float32."""
    try:
        import timm
    except (ImportError, RuntimeError) as err:  # torchvision made for another torch raises the latter
        raise SystemExit(f"--deit needs timm, and a torchvision made for this torch: {err}") from err
    torch.manual_seed(0)
    module = timm.create_model("deit_tiny_patch16_224").eval()
    example = (torch.zeros(1, 3, 224, 224),)
    return module, edgec.compile(module, target, out, precision="float32", example_inputs=example)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("pictures", nargs="*", type=Path, default=[CAT], help="files (default: the shipped cat.png)")
    arguments.add_argument("--precision", default="int8", choices=("int8", "float32"))
    arguments.add_argument("--deit", action="store_true", help="DeiT-Tiny of timm in float32, pictures of 224 x 224")
    a = arguments.parse_args()
    emulated = shutil.which("qemu-aarch64") is not None
    target, kind = ("cortex-a53", "qemu-aarch64") if emulated else ("host", "host")
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "vit"
        module, model = deit_tiny(target, out) if a.deit else shipped_vit(a.precision, target, out)
        totals, spec = model.report["totals"], model.manifest.inputs[0]
        print(f"{model.manifest.name} for {target}: {totals['macs']:,} MACs an image, {totals['flash']:,} B flash")
        print(f"  instructions: {model.report['how'].get('instructions', 'not counted on this computer')}")
        with model.device(kind) as device:
            for path in a.pictures:
                x = read_picture(path, 224 if a.deit else 32)
                found = device.step([to_device(x, spec)])
                assert found is not None
                scores = to_real(found[0], model.manifest.outputs[0]).reshape(-1)
                with torch.no_grad():
                    expected = module(torch.from_numpy(x))[0].numpy()
                names = model.report["labels"] or [str(k) for k in range(len(scores))]
                error = float(np.abs(scores - expected).max() / np.abs(expected).max())
                print(f"{path.name} on {kind}: {names[scores.argmax()]}; torch: {names[expected.argmax()]}")
                print(f"  largest difference of a score: {100 * error:.3g} % of the largest score")
                device.reset()


if __name__ == "__main__":
    main()
