"""How exactly the graph of an ONNX QDQ network agrees with onnxruntime: every quantised tensor, level by level; and
what it costs on a Cortex-M4, beside the same network as .tflite.

    python bench/onnx_qdq.py [--write]

Both trained networks of tests/data/mlperf_tiny, and its ResNet8 quantised anew by onnxruntime's defaults, per channel.
- `alone`: each operator reads onnxruntime's own levels, so a difference is its own rounding.
- `in depth`: each operator reads what ours before it gave, and a level that differs is carried on.
- `fused`: in depth, against onnxruntime with its optimisations, as it runs by default.
- `theirs`: onnxruntime without its optimisations against onnxruntime with them.
In the first two it runs without them: each operator is computed in float32 between its quantisers.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from edgec import frontends
from edgec.device import open_device
from edgec.frontends.builder import safe_name
from edgec.frontends.onnx.model import read_model
from edgec.ir.evaluate import run_node
from edgec.ir.graph import Graph
from edgec.pipeline import compile_model
from edgec.profile.timing.frames import count_frames
from edgec.stages import passes_for, transform
from edgec.target import load_target
from edgec.toolchain import image_sizes
from edgec.toolchain.manifest import read_manifest

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "tests" / "data" / "mlperf_tiny"
NETWORKS = {"kws_dscnn_qdq": "kws_clips", "ic_resnet8_qdq": "ic_vectors"}
TWINS = {"kws_dscnn_qdq": "kws_ref_model", "ic_resnet8_qdq": "pretrainedResnet_quant"}


def per_channel(path: Path) -> Path:
    """The trained ResNet8 with a scale per output channel: its weights as real numbers, quantised anew."""
    model, stored = onnx.load(DATA / "ic_resnet8_qdq.onnx"), {}
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
            values, scale, zero = (tensors[name].astype(np.float32) for name in node.input)
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            each = [-1 if k == axis else 1 for k in range(values.ndim)] if scale.size > 1 else ()
            tensors[node.output[0]] = (values - zero.reshape(each)) * scale.reshape(each)
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            stored[node.output[0]] = stored.get(node.input[0], node.input[0])
        else:
            nodes.append(node)
    for node in nodes:
        node.input[:] = [stored.get(name, name) for name in node.input]
    for output in model.graph.output:
        output.name = stored.get(output.name, output.name)
    read = {name for node in nodes for name in node.input}
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in tensors.items() if name in read)
    onnx.save(model, path.with_suffix(".float.onnx"))
    quantize_static(path.with_suffix(".float.onnx"), path, Images(), per_channel=True)
    return path


class Images(CalibrationDataReader):
    """The test vectors as real numbers, for calibration."""

    def __init__(self) -> None:
        v = read_model(DATA / "ic_resnet8_qdq.onnx").inputs[0]
        self.inputs = iter([{v.name: x.reshape(v.shape)} for x in images().astype(np.float32)[::12]])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.inputs, None)


def images() -> np.ndarray:
    """Sixty int8 images: each of the five test vectors as it is, turned over, and moved by one to five pixels."""
    with np.load(DATA / "ic_vectors.npz") as data:
        x = data["x_i8"].reshape(-1, 32, 32, 3)
    moved = [np.roll(y, k, axis=(1, 2)) for y in (x, x[:, :, ::-1]) for k in range(6)]
    return np.stack(moved, 1).reshape(-1, 32, 32, 3)


def agreement(name_of: str, path: Path, inputs: np.ndarray) -> str:
    """Levels compared, levels that differ, and by how much: each operator alone, and in depth."""
    graph = transform(frontends.load(path), passes_for("int8", None, None, None), lambda stage: None)[-1]
    model = onnx.load(path)
    held = {n.output[0]: integers_of(graph, n) for n in model.graph.node if n.op_type == "QuantizeLinear"}
    tensors = [t for t, name in held.items() if name is not None]
    plain, fused = session_of(model, tensors, fused=False), session_of(model, tensors[-1:], fused=True)
    v = graph.inputs[0]
    counts = {mode: np.zeros((len(tensors), 3), np.int64) for mode in ("alone", "in depth", "fused", "theirs")}
    for x in inputs.reshape(-1, *v.type.shape):
        real = (x.astype(np.float32) - v.type.quant.zero_point) * np.float32(v.type.quant.scale[0])
        feed = {plain.get_inputs()[0].name: real}
        shapes = {t: graph.type_of(held[t]).shape for t in tensors}
        wanted = {t: our_axes(shapes[t], y) for t, y in zip(tensors, plain.run(tensors, feed), strict=True)}
        last = our_axes(shapes[tensors[-1]], fused.run(tensors[-1:], feed)[0])
        theirs = {held[t]: y for t, y in wanted.items()}
        alone, deep = levels_of(graph, x, theirs), levels_of(graph, x, {})
        for k, t in enumerate(tensors):
            name = held[t]
            add(counts["alone"][k], alone[name].numpy() - wanted[t])
            add(counts["in depth"][k], deep[name].numpy() - wanted[t])
        add(counts["fused"][-1], deep[name].numpy() - last)
        add(counts["theirs"][-1], wanted[t] - last)
    lines = [f"{name_of}, {len(inputs)} inputs"]
    parts = [("alone", "all tensors"), ("in depth", "all tensors"), *((mode, "class scores") for mode in counts)]
    for mode, part in parts:
        c = counts[mode] if part == "all tensors" else counts[mode][-1:]
        total, differ, most = c[:, 0].sum(), c[:, 1].sum(), c[:, 2].max()
        lines.append(f"  {mode:<9}{part:<13}{total:>10,} levels, {differ:>6,} differ, by at most {most}")
    return "\n".join(lines)


def session_of(model: onnx.ModelProto, tensors: list[str], fused: bool) -> ort.InferenceSession:
    """onnxruntime with these tensors as outputs, its operators fused or as they stand."""
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    del seen.graph.output[:]
    seen.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors)
    options, level = ort.SessionOptions(), ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if fused else level.ORT_DISABLE_ALL
    return ort.InferenceSession(seen.SerializeToString(), options, providers=["CPUExecutionProvider"])


def add(count: np.ndarray, error: np.ndarray) -> None:
    """Levels compared, those that differ, and by how much at most."""
    count[:] = count[0] + error.size, count[1] + (error != 0).sum(), max(count[2], np.abs(error).max())


def integers_of(graph: Graph, node: onnx.NodeProto) -> str | None:
    """The graph's tensor for what a QuantizeLinear gives; None where it has none of its own."""
    known = {o for n in graph.nodes for o in n.outputs} | {v.name for v in graph.inputs}
    name = safe_name(node.input[0])
    return next((n for n in (f"{name}_i8", name) if n in known), None)


def our_axes(shape: tuple[int, ...], levels: np.ndarray) -> np.ndarray:
    """onnxruntime's levels as our int8, images with their channels last."""
    levels = levels.astype(np.int64) - (128 if levels.dtype == np.uint8 else 0)
    return levels if levels.shape == shape else levels.transpose(0, 2, 3, 1)


def levels_of(graph: Graph, x: np.ndarray, theirs: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Every tensor as ours computes it; a later node reads `theirs` where there is one."""
    values = {n: torch.from_numpy(c.data.astype(np.int64)) for n, c in graph.consts.items()}
    values[graph.inputs[0].name] = torch.from_numpy(x.astype(np.int64))
    found = dict(values)
    for node in graph.nodes:
        run_node(node, values, None)
        for name in node.outputs:
            found[name] = values[name]
            if name in theirs:
                values[name] = torch.from_numpy(theirs[name])
    return found


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
            lines.append(agreement(name, DATA / f"{name}.onnx", data["x_i8"]))
            for file in (f"{name}.onnx", f"{TWINS[name]}.tflite"):
                lines.append(f"  {file:<30}{cost(file, data['x_i8'][0])}")
    with tempfile.TemporaryDirectory(prefix="edgec-bench-") as work:
        lines.append(agreement("ic_resnet8 per channel", per_channel(Path(work) / "per_channel.onnx"), images()))
    print("\n".join(lines))
    if a.write:
        (HERE / "onnx_qdq.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
