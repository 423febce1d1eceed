"""Compile ECA-MobileNetV2 for a Cortex-M7 and classify pictures, on the emulated core and on this computer.

    python examples/image_classification.py [PICTURE ...]

A picture of any size is cut to its middle square and scaled to 32 x 32 pixels, the size of the images the network was
trained on; it knows ten classes. Both runs must give the same bytes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import edgec
from edgec.compiled import to_device, to_real

CAT = Path(__file__).resolve().parent.parent / "models" / "eca_mobilenetv2" / "images" / "cat.png"
SIZE = 32


def read_picture(path: Path, size: int = SIZE) -> np.ndarray:
    """The middle square of a picture as the network takes it: [1,3,size,size] float32 in [-2,2)."""
    from PIL import Image, ImageOps

    with Image.open(path) as picture:
        square = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
    pixels = np.asarray(square, np.float32).transpose(2, 0, 1)[None]
    return (pixels - 128.0) / 64.0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("pictures", nargs="*", type=Path, default=[CAT], help="files (default: the shipped cat.png)")
    a = arguments.parse_args()
    with tempfile.TemporaryDirectory() as work:
        model = edgec.compile("eca_mobilenetv2", target="cortex-m7", out=Path(work) / "m7")
        totals, labels, spec = model.report["totals"], model.report["labels"], model.manifest.inputs[0]
        print(f"eca_mobilenetv2 for cortex-m7: {totals['flash']:,} B flash, {totals['ram']:,} B RAM")
        with model.device("emulator", counting=True) as core, model.device("host") as host:
            for path in a.pictures:
                picture = [to_device(read_picture(path), spec)]
                found, expected = core.step(picture), host.step(picture)
                if found is None or expected is None or found[0].tobytes() != expected[0].tobytes():
                    raise SystemExit(f"{path}: the core and this computer disagree: {found} and {expected}")
                scores = to_real(found[0], model.manifest.outputs[0]).reshape(-1)
                best = np.argsort(-scores)[:3]
                print(f"{path.name}: " + ", ".join(f"{labels[k]} {scores[k]:.2f}" for k in best))
                print(f"  {core.counters.instructions:,} instructions on the core; the same bytes on this computer")
                core.reset()
                host.reset()


if __name__ == "__main__":
    main()
