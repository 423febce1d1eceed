"""The .tflite frontend: MLPerf Tiny's networks byte for byte on every machine, and files that cannot be imported."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("tflite")

from edgec import frontends
from edgec.backends.emit import write_folder
from edgec.compiled import CompiledModel
from edgec.errors import FrontendError, InputError
from edgec.ir.evaluate import evaluate
from edgec.pipeline import compile_model
from edgec.target import load_target

DATA = Path(__file__).resolve().parents[2] / "data" / "mlperf_tiny"
MODELS = {"kws": "kws_ref_model.tflite", "ic": "pretrainedResnet_quant.tflite"}


def vectors(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and what LiteRT's reference kernels make of them."""
    with np.load(DATA / f"{name}_vectors.npz") as data:
        return data["x_i8"], data["y_i8"]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, CompiledModel]:
    """Compiled for the Cortex-M4 through the API, whole window by itself."""
    name = request.param
    stages: list[str] = []
    out = tmp_path_factory.mktemp("tflite") / name
    compiled = compile_model(DATA / MODELS[name], "cortex-m4", out, progress=stages.append)
    assert "whole window" in stages
    assert "no input names a time axis" in compiled.report["how"]["window"]
    return name, compiled


def test_reference_is_litert(model: tuple[str, CompiledModel]) -> None:
    name, compiled = model
    graph = compiled.graph()
    for x, y in zip(*vectors(name), strict=True):
        (found,) = evaluate(graph, {graph.inputs[0].name: torch.from_numpy(x[None])})
        np.testing.assert_array_equal(found.numpy()[0], y)


def on_device(compiled: CompiledModel, kind: str, name: str, count: int) -> None:
    with compiled.device(kind) as device:
        for x, y in list(zip(*vectors(name), strict=True))[:count]:
            device.reset()
            found = device.step([x[None]])
            assert found is not None
            np.testing.assert_array_equal(found[0].reshape(-1), y)


def test_c_on_the_host(model: tuple[str, CompiledModel]) -> None:
    """The code for the M4, its DSP kernels by their portable twins."""
    name, compiled = model
    on_device(compiled, "host", name, 5)


def test_generic_c_on_the_host(model: tuple[str, CompiledModel], tmp_path: Path) -> None:
    name, compiled = model
    write_folder(compiled.graph(), load_target("host"), tmp_path)
    on_device(CompiledModel(tmp_path), "host", name, 5)


def test_emulated_m4(model: tuple[str, CompiledModel]) -> None:
    pytest.importorskip("unicorn")
    name, compiled = model
    on_device(compiled, "unicorn", name, 1)


def test_real_values_in_and_out(model: tuple[str, CompiledModel]) -> None:
    name, compiled = model
    (x, *_), (y, *_) = vectors(name)
    q = compiled.graph().inputs[0].type.quant
    assert q is not None
    scores = compiled.step((x.astype(np.float32) - q.zero_point) * np.float32(q.scale[0]))
    np.testing.assert_array_equal(scores.reshape(-1), (y.astype(np.float32) + 128) / 256)


def test_sources_name_operators() -> None:
    graph = frontends.load(DATA / MODELS["kws"])
    assert graph.nodes[0].source == ("operator 0 CONV_2D functional_1/activation/Relu",)
    assert graph.inputs[0].type.time_axis is None


# ---- files that cannot be imported ----


def refused(path: Path) -> str:
    with pytest.raises(FrontendError) as err:
        frontends.load(path)
    return str(err.value)


def test_random_bytes_empty_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"")
    assert "is empty" in refused(path)
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    assert "not a TFLite model" in refused(path)
    rng = np.random.default_rng(0)
    for _ in range(50):
        path.write_bytes(rng.bytes(4) + b"TFL3" + rng.bytes(300))
        refused(path)
    folder = tmp_path / "d.tflite"
    folder.mkdir()
    assert "directory" in refused(folder)


def test_truncated_files(tmp_path: Path) -> None:
    raw, path = (DATA / MODELS["kws"]).read_bytes(), tmp_path / "cut.tflite"
    for size in range(9, len(raw), 997):
        path.write_bytes(raw[:size])
        assert str(path) in refused(path)


def test_flipped_bytes_never_crash(tmp_path: Path) -> None:
    """A damaged file is imported as another network or refused, never another exception."""
    raw, path = (DATA / MODELS["kws"]).read_bytes(), tmp_path / "bad.tflite"
    rng = np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(raw)
        for at in rng.integers(0, len(raw), 40):
            data[at] = int(rng.integers(256))
        path.write_bytes(bytes(data))
        with contextlib.suppress(FrontendError):
            frontends.load(path)


def test_a_time_axis_is_refused() -> None:
    with pytest.raises(FrontendError, match="takes its whole window"):
        frontends.load(DATA / MODELS["kws"], time_axis=1)


def test_float_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="comes quantised to int8"):
        compile_model(DATA / MODELS["kws"], "cortex-m4", tmp_path / "o", precision="float32")


def test_float_model(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    from tests.frontends.tflite.tflite_models import Net, Op, T

    net = Net([T((1, 4), dtype="float32"), T((1, 4), dtype="float32")], [Op("RELU", [0], [1])])
    message = refused(net.write(tmp_path / "float.tflite"))
    assert "not int8-quantised: 2 of its 2 activation tensors are not INT8" in message
    assert "representative_dataset" in message


def test_every_unsupported_operator_is_listed(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    from tests.frontends.tflite.tflite_models import Net, Op, T

    tensors = [T((1, 4), 0.1) for _ in range(5)]
    ops = [Op("FLOOR", [0], [1]), Op("CUSTOM", [1], [2], custom="Mine"), Op("RELU", [2], [3]), Op("FLOOR", [3], [4])]
    message = refused(Net(tensors, ops).write(tmp_path / "ops.tflite"))
    assert "FLOOR is not supported (2 times, first at operator 0 FLOOR net/tensor1)" in message
    assert "custom operator 'Mine' is not supported (once, at operator 1" in message
    assert "supported operators: ADD, AVERAGE_POOL_2D" in message


def test_float_edges_become_int8(tmp_path: Path) -> None:
    """QUANTIZE at a float input and DEQUANTIZE at a float output: the library takes and gives int8."""
    pytest.importorskip("ai_edge_litert")
    from tests.frontends.tflite.tflite_models import Net, Op, T, options

    tensors = [T((1, 4), dtype="float32"), T((1, 4), 0.1, 3), T((1, 4), 0.05, -7), T((1, 4), dtype="float32")]
    ops = [
        Op("QUANTIZE", [0], [1], options("QuantizeOptions")),
        Op("RELU", [1], [2]),
        Op("DEQUANTIZE", [2], [3], options("DequantizeOptions")),
    ]
    graph = frontends.load(Net(tensors, ops).write(tmp_path / "edges.tflite"))
    assert [n.op.name for n in graph.nodes] == ["qlut"]
    assert graph.inputs[0].type.quant is not None
    assert graph.inputs[0].type.quant.zero_point == 3


# ---- the structures of MLPerf Tiny whose files are not here ----


@pytest.mark.parametrize(("name", "macs"), [("visual_wake_words", 7_489_664), ("anomaly_detection", 264_192)])
def test_structures_of_mlperf_tiny(name: str, macs: int, tmp_path: Path) -> None:
    """LiteRT's reference kernels, the reference, C on the host and the emulated Cortex-M4 give the same bytes, though
    constant channels go."""
    pytest.importorskip("ai_edge_litert")
    from tests.frontends import mlperf_nets
    from tests.frontends.tflite.tflite_models import litert

    path = getattr(mlperf_nets, name)().write(tmp_path / "net.tflite")
    graph, rng = frontends.load(path), np.random.default_rng(0)
    assert sum(n.op.cost(graph.input_types(n), n.types).macs for n in graph.nodes) == macs
    compiled = compile_model(path, "cortex-m4", tmp_path / "out")
    if name == "visual_wake_words":
        assert compiled.report["dropped"]["channels"] > 500
    shape = graph.inputs[0].type.shape
    noise = [rng.normal(rng.uniform(-80, 80, shape[-1]), 40, shape) for _ in range(3)]
    inputs = [np.clip(np.round(n), -128, 127).astype(np.int8) for n in noise]
    wanted = [litert(path, [x])[0] for x in inputs]
    assert len({w.tobytes() for w in wanted}) == 3
    for x, y in zip(inputs, wanted, strict=True):
        (found,) = evaluate(compiled.graph(), {graph.inputs[0].name: torch.from_numpy(x)})
        np.testing.assert_array_equal(found.numpy(), y)
    for kind, count in (("host", 3), ("unicorn", 1)):
        with compiled.device(kind) as device:
            for x, y in list(zip(inputs, wanted, strict=True))[:count]:
                out = device.step([x])
                assert out is not None
                np.testing.assert_array_equal(out[0].reshape(-1), y.reshape(-1))
