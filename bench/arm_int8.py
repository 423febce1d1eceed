"""Instructions of int8 networks on an ARM CPU without dot products, beside those of the interpreters.

    python -m bench.arm_int8 > bench/arm_int8.txt

MLPerf Tiny's KWS (DS-CNN) and IC (ResNet8) from their .tflite files, one inference of each recorded vector, its output
bytes compared with those of LiteRT's reference kernels; and the shipped ECA-MobileNetV2 and ViT, int8 beside float32.
Counted under qemu-aarch64 (Cortex-A53) by a plugin, from the call of the step to its return, the most of any vector.
The peers were counted the same way, one thread, a whole call of the runtime: LiteRT 2.3 (XNNPACK) on the same .tflite
files and onnxruntime 1.32 on the same networks in QDQ form, from their arm64 wheels.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from bench.arm_cpu import by_op
from edgec.compiled import CompiledModel
from edgec.pipeline import compile_model
from edgec.profile.counts import profile

DATA = Path(__file__).resolve().parents[1] / "tests" / "data" / "mlperf_tiny"
#: name, file, vectors, and what LiteRT and onnxruntime take
TINY = (
    ("KWS DS-CNN", "kws_ref_model.tflite", "kws_vectors.npz", 1.34e6, 1.49e6),
    ("IC ResNet8", "pretrainedResnet_quant.tflite", "ic_vectors.npz", 5.01e6, 5.57e6),
)
SHIPPED = ("eca_mobilenetv2", "vit")
SHOWN = 5  # ops of each network


def exact_vectors(model: CompiledModel, vectors: Path) -> tuple[int, int, int]:
    """How many recorded outputs are met byte for byte, of how many, and the most instructions of any."""
    with np.load(vectors) as data:
        pairs = list(zip(data["x_i8"], data["y_i8"], strict=True))
    exact, most = 0, 0
    with model.device("qemu-aarch64", counting=True) as device:
        for x, y in pairs:
            device.reset()
            (found,) = device.step([x[None]]) or [np.empty(0)]
            exact, most = exact + np.array_equal(found.reshape(-1), y), max(most, device.counters.instructions)
    return exact, len(pairs), most


def print_ops(model: CompiledModel, x: np.ndarray) -> None:
    """The costliest ops and kernels."""
    for op, variant, count, macs in by_op(profile(model, x).rows)[:SHOWN]:
        per_mac = f"{count / macs:.3f} per MAC" if macs else ""
        print(f"    {op or '(step)':20s} {variant:16s} {count / 1e6:7.3f} M {per_mac}".rstrip())


def main() -> None:
    print("$ python -m bench.arm_int8")
    with tempfile.TemporaryDirectory() as work:
        for name, file, vectors, litert, onnxruntime in TINY:
            model = compile_model(DATA / file, "cortex-a53", Path(work) / file)
            exact, of, count = exact_vectors(model, DATA / vectors)
            macs = model.report["totals"]["macs"]
            print(f"{name}: {macs / 1e6:.2f} M MACs, Cortex-A53, {exact} of {of} vectors as LiteRT's reference kernels")
            print(f"  {'edgec':20s} {count / 1e6:7.2f} M instructions, {count / macs:.3f} per MAC")
            for peer, taken in (("LiteRT, XNNPACK", litert), ("onnxruntime, QDQ", onnxruntime)):
                print(f"  {peer:20s} {taken / 1e6:7.2f} M")
            with np.load(DATA / vectors) as data:
                print_ops(model, data["x_i8"][:1])
        for name in SHIPPED:
            for precision in ("int8", "float32"):
                model = compile_model(name, "cortex-a53", Path(work) / name / precision, precision=precision)
                totals = model.report["totals"]
                print(f"{name}, {precision}: {totals['instructions_worst'] / 1e6:.2f} M instructions", end="")
                print(f", {totals['instructions_worst'] / totals['macs']:.3f} per MAC of {totals['macs'] / 1e6:.1f} M")


if __name__ == "__main__":
    main()
