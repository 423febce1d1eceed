"""Generated float libraries on the host against the reference, frame by frame."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from edgec.backends.emit import write_folder
from edgec.device import Device, open_device
from edgec.device.host import HostDevice
from edgec.errors import EdgecError
from edgec.ir.evaluate import StepRunner, evaluate
from edgec.ir.graph import Graph
from edgec.ops import Conv1d, Linear
from edgec.ops.elementwise import ACTIVATIONS
from edgec.passes.streaming.make_streaming import MakeStreaming
from edgec.target import load_target
from tests.graphs import Builder, conv, lif, streaming_nets

HOST = load_target("host")


def stream(device: Device, x: torch.Tensor) -> list[np.ndarray]:
    outs = [device.step([x[:, t : t + 1].numpy()]) for t in range(x.shape[1])]
    outs = [o[0] for o in outs if o is not None]
    while (o := device.flush()) is not None:
        outs.append(o[0])
    return outs


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(graph=streaming_nets())
def test_c_on_the_host_equals_the_reference(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("net")
    step = MakeStreaming().run(graph)
    write_folder(step, HOST, folder)
    x = torch.randn(graph.inputs[0].type.shape)
    expected = [o[0].numpy() for o in StepRunner(step).run({"x": x})]
    with open_device("host", folder) as device:
        found = stream(device, x)
        device.reset()
        again = stream(device, x)
    assert len(found) == len(expected)
    for e, f, g in zip(expected, found, again, strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(f, g)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    b = Builder(seed=3)
    x = b.input("x", 1, 12, 4)
    y = lif(b, conv(b, x, 6, 3, (1, 1)))
    graph = b.build(conv(b, y, 2, 3, (1, 1)))
    path = tmp_path_factory.mktemp("small")
    write_folder(MakeStreaming().run(graph), HOST, path)
    return path


def test_interleaved_instances_do_not_disturb_each_other(folder: Path) -> None:
    a, b = torch.randn(1, 12, 4), torch.randn(1, 12, 4)
    with open_device("host", folder) as alone:
        expected = {}
        for k, x in enumerate((a, b)):
            alone.reset()
            expected[k] = stream(alone, x)
    with open_device("host", folder, instances=2) as pair:
        found: dict[int, list[np.ndarray]] = {0: [], 1: []}
        for t in range(12):
            for k, x in enumerate((a, b)):
                pair.select(k)
                out = pair.step([x[:, t : t + 1].numpy()])
                found[k] += [] if out is None else [out[0]]
        for k in (1, 0):
            pair.select(k)
            while (out := pair.flush()) is not None:
                found[k].append(out[0])
    for k in (0, 1):
        np.testing.assert_array_equal(np.stack(found[k]), np.stack(expected[k]))


@pytest.fixture(scope="module")
def immediate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network without delay."""
    b = Builder(seed=3)
    x = b.input("x", 1, 12, 4)
    path = tmp_path_factory.mktemp("immediate")
    write_folder(MakeStreaming().run(b.build(conv(b, x, 2, 3, (2, 0)))), HOST, path)
    return path


@pytest.mark.parametrize("flushes", [1, 3])
@pytest.mark.parametrize("name", ["folder", "immediate"])
def test_step_after_flush_is_refused_until_reset(name: str, flushes: int, request: pytest.FixtureRequest) -> None:
    frame = [np.zeros((1, 1, 4), np.float32)]
    with open_device("host", request.getfixturevalue(name)) as device:
        first = device.step(frame)
        for _ in range(flushes):
            device.flush()
        with pytest.raises(EdgecError, match="EDGEC_E_FLUSHED"):
            device.step(frame)
        device.reset()
        again = device.step(frame)
        assert (again is None) == (first is None) == (device.manifest.delay > 0)


@pytest.mark.parametrize("which", ["state", "arena"])
def test_misaligned_memory_is_refused_by_step_and_flush(which: str, folder: Path) -> None:
    with open_device("host", folder) as device:
        assert isinstance(device, HostDevice)
        state, arena = device._states[0], device._arena
        away = np.zeros(state.size + arena.size + 72, np.uint8)
        away = away[-away.ctypes.data % 64 + 4 :][: state.size + arena.size]  # a multiple of 4, not of 8
        if which == "state":
            away[: state.size] = state
            state = away
        else:
            arena = away
        ports = [*device._inputs, *device._outputs]
        assert device._call("step", state, [arena, *ports]) == -1
        assert device._call("flush", state, [arena, *device._outputs]) == -1
        assert device._call("step", device._states[0], [device._arena, *ports]) == 0


def test_code_is_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    b = Builder(seed=3)
    x = b.input("x", 1, 12, 4)
    y = lif(b, conv(b, x, 6, 3, (1, 1)))
    write_folder(MakeStreaming().run(b.build(conv(b, y, 2, 3, (1, 1)))), HOST, tmp_path)
    for file in sorted(folder.iterdir()):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_library_has_no_heap_no_stdio_and_no_globals(folder: Path) -> None:
    text = (folder / "net.c").read_text()
    assert "malloc" not in text
    assert "printf" not in text
    top_level = [line for line in text.splitlines() if line.endswith(";") and line[:1].isalpha()]
    assert [line for line in top_level if not line.startswith(("static const", "EDGEC_STATIC_ASSERT"))] == []


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_fused_activations(activation: str, tmp_path: Path) -> None:
    b = Builder(seed=5)
    x = b.input("x", 1, 6, 4)
    y = b.emit(Conv1d(pad=(1, 1), activation=activation), x, b.normal(3, 4, 5), b.normal(5))
    graph = b.build(b.emit(Linear(activation=activation), y, b.normal(5, 3), b.normal(3)))
    write_folder(MakeStreaming().run(graph), HOST, tmp_path)
    data = torch.randn(1, 6, 4)
    with open_device("host", tmp_path) as device:
        found = np.concatenate(stream(device, data), 1)
    np.testing.assert_allclose(found, evaluate(graph, {"x": data})[0].numpy(), rtol=1e-5, atol=1e-5)
