"""How exactly the graph of an ONNX QDQ network agrees with onnxruntime: every quantised tensor, level by level; and
what it costs on a Cortex-M4, beside the same network as .tflite.

    python bench/onnx_qdq.py [--write]

Both trained networks of tests/data/mlperf_tiny. onnxruntime runs without graph optimisations, so each operator is
computed in float32 between its quantisers. A level that differs is carried on: the first convolution shows how often
one operator differs by itself.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch

from edgec.device import open_device
from edgec.frontends.builder import GraphBuilder
from edgec.frontends.onnx import Walker
from edgec.frontends.onnx_model import read_model
from edgec.frontends.onnx_values import Stored
from edgec.ir.evaluate import evaluate_all
from edgec.pipeline import compile_model
from edgec.profile.frames import count_frames
from edgec.target import load_target
from edgec.toolchain import image_sizes
from edgec.toolchain.manifest import read_manifest

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "tests" / "data" / "mlperf_tiny"
NETWORKS = {"kws_dscnn_qdq": "kws_clips", "ic_resnet8_qdq": "ic_vectors"}
TWINS = {"kws_dscnn_qdq": "kws_ref_model", "ic_resnet8_qdq": "pretrainedResnet_quant"}


def agreement(name: str, inputs: np.ndarray) -> str:
    """Levels compared, levels that differ, and by how much."""
    path = DATA / f"{name}.onnx"
    walker = Walker(read_model(path), GraphBuilder(name))
    assert not walker.walk()
    graph = walker.build.build(walker.outputs)
    model = onnx.load(path)
    tensors = [n.output[0] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    model.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    v = graph.inputs[0]
    counts = np.zeros((len(tensors), 3), np.int64)  # levels, those that differ, by how much
    for x in inputs.reshape(-1, *v.type.shape):
        real = (x.astype(np.float32) - v.type.quant.zero_point) * np.float32(v.type.quant.scale[0])
        with torch.no_grad():
            found = evaluate_all(graph, {v.name: torch.from_numpy(x)})
        outputs = session.run(tensors, {session.get_inputs()[0].name: real})
        for k, (tensor, wanted) in enumerate(zip(tensors, outputs, strict=True)):
            stored = walker.values[tensor]
            assert isinstance(stored, Stored)
            levels = found[stored.name].permute(*(stored.axes.index(a) for a in range(len(stored.axes)))).numpy()
            error = np.abs(levels - wanted.astype(np.int64))
            counts[k] = *(counts[k, :2] + (error.size, (error > 0).sum())), max(counts[k, 2], error.max())
    parts = {"first convolution": counts[1:2], "all tensors": counts, "class scores": counts[-1:]}
    lines = [f"{name}, {len(inputs)} inputs"]
    for part, c in parts.items():
        levels, differ, most = c[:, 0].sum(), c[:, 1].sum(), c[:, 2].max()
        lines.append(f"  {part:<18}{levels:>10,} levels, {differ:>5,} differ, by at most {most}")
    return "\n".join(lines)


def cost(file: str, x: np.ndarray) -> str:
    """Instructions of one inference on the emulated Cortex-M4 and flash of the linked image."""
    target = load_target("cortex-m4")
    with tempfile.TemporaryDirectory(prefix="edgec-bench-") as work:
        folder = Path(work) / "out"
        compile_model(DATA / file, target, folder)
        shape = read_manifest(folder).inputs[0].shape
        with open_device(target.devices[0], folder, build_dir=work, counting=True) as device:
            run = count_frames(device, [[x.reshape(shape)]], target)
        flash = image_sizes(next(Path(work).glob("*.elf"))).image_flash
    return f"{max(run.instructions):>10,} instructions, {flash:>6,} B of flash"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--write", action="store_true", help="replace bench/onnx_qdq.txt")
    a = arguments.parse_args()
    lines = ["$ python bench/onnx_qdq.py"]
    for name, vectors in NETWORKS.items():
        with np.load(DATA / f"{vectors}.npz") as data:
            lines.append(agreement(name, data["x_i8"]))
            for file in (f"{name}.onnx", f"{TWINS[name]}.tflite"):
                lines.append(f"  {file:<30}{cost(file, data['x_i8'][0])}")
    print("\n".join(lines))
    if a.write:
        (HERE / "onnx_qdq.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
