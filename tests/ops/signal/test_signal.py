"""The audio front end: float and integer reference, their distance, the generated C, streaming, cost on Cortex-M7."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.backends.emit import write_folder
from edgec.backends.kernel import NamedKernel
from edgec.device import open_device
from edgec.ir.evaluate import StepRunner, evaluate
from edgec.ir.graph import Graph, Node, Value
from edgec.ir.text import parse_graph, print_graph
from edgec.ir.types import DType, QuantParams, TensorType
from edgec.nn.log_mel import log_mel
from edgec.ops import OPS
from edgec.ops.base import Site
from edgec.ops.signal.log_mel import PCM_SCALE, LogMel, QLogMel, fft_integer, to_integer
from edgec.ops.signal.tables import mel_segments, radices, spectrum_bits
from edgec.passes.streaming.make_streaming import MakeStreaming
from edgec.signal_math import mel_matrix
from edgec.target import load_target
from tests.backends.kernel_tools import Library, build_c
from tests.conftest import shipped_clips

STEP = 0.001  # of int16 features
RATE = 16000
FRONTS = [
    {},
    {"n_mels": 128, "offset": -6.845978, "scale": 0.0898},
    {"sample_rate": 8000, "frame": 255, "hop": 80, "n_fft": 256, "n_mels": 20, "f_max": 3800.0, "preemphasis": 0.0},
    {"frame": 640, "hop": 320, "n_fft": 1024, "n_mels": 64, "f_min": 60.0},
    {"frame": 256, "n_fft": 256, "n_mels": 128, "f_min": 32.0},  # the first filters hold no bin
    {"frame": 32, "hop": 16, "n_fft": 32, "n_mels": 3, "preemphasis": 1.0},
]


def pcm_type(samples: int, dtype: DType = DType.I16, batch: int = 1) -> TensorType:
    return TensorType((batch, samples), dtype, QuantParams((PCM_SCALE,)) if dtype is DType.I16 else None, 1)


def fine(op: LogMel) -> QLogMel:
    """The integer form with int16 features, for measuring."""
    return to_integer(op, STEP, 0, "int16")


def wide(pcm: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(pcm, dtype=np.int64)).reshape(-1, np.shape(pcm)[-1])


def distance(op: LogMel, pcm: np.ndarray) -> torch.Tensor:
    """Absolute difference of the features, integer against float64, before the op's scale."""
    exact = op.reference(wide(pcm).double() * PCM_SCALE)
    return (fine(op).reference(wide(pcm)).double() * STEP - exact).abs() / abs(op.scale)


def tone(level: float, start: float, stop: float, samples: int = RATE) -> np.ndarray:
    """A chirp."""
    t = np.arange(samples) / RATE
    phase = 2 * np.pi * (start * t + (stop - start) * t**2 * RATE / samples / 2)
    return np.rint(level * np.sin(phase)).astype(np.int16)


def signals() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(RATE)
    found = {f"noise of {level}": np.rint(noise * level).astype(np.int16) for level in (0.6, 3, 30, 1000, 8000)}
    found |= {f"chirp of {level}": tone(level, 50, 7900) for level in (2, 100, 5000, 32767)}
    found["silence"] = np.zeros(RATE, np.int16)
    found["square wave"] = np.where(np.arange(RATE) // 40 % 2, 32767, -32768).astype(np.int16)
    found["offset"] = np.full(RATE, -32768, np.int16)
    found["noise with offset"] = np.rint(noise * 20 + 12000).astype(np.int16)
    found["impulses"] = np.where(np.arange(RATE) % 700 == 5, 32767, 0).astype(np.int16)
    return found


# ---- references


@pytest.mark.parametrize("front", FRONTS, ids=str)
def test_float_reference_is_the_torch_op(front: dict[str, Any]) -> None:
    op = LogMel(**front)
    pcm = torch.randn(2, 6 * op.hop, generator=torch.Generator().manual_seed(1)).double() * 0.1
    arguments = [getattr(op, f.name) for f in fields(op) if f.name != "padded"]
    torch.testing.assert_close(op.reference(pcm), log_mel(pcm, *arguments), rtol=0, atol=1e-9)
    assert op.infer([pcm_type(6 * op.hop, DType.F32, 2)])[0].shape == (2, 6, op.n_mels)


@pytest.mark.parametrize("front", FRONTS, ids=str)
def test_segments_are_the_mel_filters(front: dict[str, Any]) -> None:
    op = LogMel(**front)
    arguments = (op.sample_rate, op.n_fft, op.n_mels, op.f_min, op.f_max)
    seg = mel_segments(*arguments)
    matrix = np.zeros((op.n_mels + 2, op.n_fft // 2 + 1))
    bins = seg.first + np.arange(seg.bins)
    matrix[seg.of_bin + 1, bins] = seg.rising
    matrix[seg.of_bin, bins] = 1 - seg.rising
    np.testing.assert_allclose(matrix[1:-1], mel_matrix(*arguments), atol=1e-12)


def test_filters_without_bins_are_among_the_front_ends() -> None:
    assert LogMel(**FRONTS[4]).segments().bounds[:4] == (0, 0, 0, 1)


@pytest.mark.parametrize("size", [8, 16, 32, 128, 256, 512])
def test_integer_fft(size: int) -> None:
    assert np.prod(radices(size)) == size
    generator = torch.Generator().manual_seed(size)
    re, im = (torch.randint(-(1 << 20), 1 << 20, (3, size), generator=generator) for _ in range(2))
    got = fft_integer((re, im))
    expected = torch.fft.fft(torch.complex(re.double(), im.double()))
    error = torch.complex(got[0].double(), got[1].double()) - expected
    assert error.abs().max() < 4.0 * size**0.5


@pytest.mark.parametrize("name", list(signals()))
def test_integer_features_are_near_the_float_ones(name: str) -> None:
    error = distance(LogMel(), signals()[name])
    assert error.max() < 0.02, f"{error.max():.4f}"


def test_integer_features_of_speech() -> None:
    """Within 0.02 of float64 on shipped clips, loud or a hundred times quieter; on average within a step."""
    clips = np.stack([pcm[:RATE] for _, pcm in shipped_clips() if len(pcm) >= RATE])[::3]
    for quieter in (1, 100):
        error = distance(LogMel(), clips // quieter)
        assert error.max() < 0.02
        assert error.mean() < STEP


@pytest.mark.parametrize("front", FRONTS[1:4], ids=str)
def test_other_front_ends_in_integers(front: dict[str, Any]) -> None:
    pcm = np.rint(np.random.default_rng(3).standard_normal(6400) * 2000).astype(np.int16)
    assert distance(LogMel(**front), pcm).max() < 0.05


def test_int8_features_are_the_rounded_float_ones() -> None:
    op, pcm = LogMel(offset=-6.8, scale=0.18), tone(9000, 100, 7000)
    got = to_integer(op, 0.02, -5).reference(wide(pcm))
    exact = op.reference(wide(pcm).double() * PCM_SCALE) / 0.02 - 5
    assert got.min() >= -128
    assert got.max() <= 127
    assert (got - exact.clamp(-128, 127)).abs().max() < 0.7


# ---- overflow


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nothing_leaves_32_bits(data: st.DataObject) -> None:
    op = fine(LogMel(padded=False))
    extremes = st.sampled_from([-32768, -32767, 0, 32766, 32767])
    value = data.draw(st.sampled_from([extremes, st.integers(-32768, 32767)]))
    period = data.draw(st.integers(1, 400))
    x = wide(np.resize(data.draw(st.lists(value, min_size=period, max_size=period)), 400))
    check_headroom(op, x)


@pytest.mark.parametrize("period", [2, 4, 8, 16, 32, 64, 128, 3, 5, 7])
def test_headroom_of_square_waves(period: int) -> None:
    check_headroom(fine(LogMel(padded=False)), wide(np.where(np.arange(400) % period < period // 2, 32767, -32768)))


def check_headroom(op: QLogMel, x: torch.Tensor) -> None:
    most = torch.where(x < 0, ~x, x).max()
    exponent = torch.tensor([15 - int(most).bit_length()])
    k = op.scales()
    y = op.windowed(x, exponent)
    assert y.abs().max() <= 2 ** (k.spectrum + 1) + 1
    re, im = fft_integer(
        (torch.nn.functional.pad(y, (0, 112))[..., 0::2], torch.nn.functional.pad(y, (0, 112))[..., 1::2])
    )
    mirrored = [part[..., 1:].flip(-1) for part in (re, im)]
    pairs = [re[..., 1:] + mirrored[0], im[..., 1:] - mirrored[1], im[..., 1:] + mirrored[1], re[..., 1:] - mirrored[0]]
    assert max(int(p.abs().max()) for p in (re, im, *pairs)) < 2**31
    assert (op.mel_energies(y) > 0).all()


def test_spectrum_bits() -> None:
    assert spectrum_bits(400, 512) == 22
    assert spectrum_bits(640, 1024) == 21
    assert spectrum_bits(32, 32) <= 28


# ---- generated C


def library(op: LogMel | QLogMel, pcm: TensorType, folder: Path) -> Any:
    """The op as a function on PCM arrays, through its generated C."""
    outputs = op.infer([pcm])
    kernel = op.lower(Site((pcm,), outputs))
    built: Library = build_c([NamedKernel("f", kernel, frozenset({"y", "z"}))], folder)
    empty = {n: np.zeros(shape, kind) for n, shape, kind in kernel.params if n not in kernel.consts}

    def call(x: np.ndarray) -> np.ndarray:
        features: np.ndarray = built("f", {**empty, **kernel.consts, "x": x})["y"].reshape(outputs[0].shape)
        return features

    return call


def loud_and_quiet(count: int, shape: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    found = [
        np.zeros(shape),
        np.full(shape, -32768),
        np.where(np.arange(shape[1]) % 2, 32767, -32768) + np.zeros(shape),
    ]
    found += [np.where(np.arange(shape[1]) % 2, 0, -1) + np.zeros(shape)]
    while len(found) < count:
        top = 2.0 ** rng.uniform(0, 15)
        found.append(np.clip(rng.standard_normal(shape) * top, -32768, 32767))
    return [x.astype(np.int16) for x in found]


@pytest.mark.parametrize("front", FRONTS, ids=str)
@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_c_gives_the_bytes_of_the_reference(front: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    base = LogMel(**front, padded=False)
    op = to_integer(base, 0.1 * abs(base.scale), 30, "int8") if dtype == "int8" else fine(base)
    f = library(op, pcm_type(op.frame), tmp_path)
    for x in loud_and_quiet(30, (1, op.frame)):
        np.testing.assert_array_equal(f(x), op.reference(wide(x)).numpy())


@pytest.mark.parametrize(("op", "types"), QLogMel.samples(), ids=lambda v: str(v)[:40])
def test_c_of_several_frames(op: QLogMel, types: tuple[TensorType], tmp_path: Path) -> None:
    pcm = TensorType((2, types[0].shape[1] * 2), DType.I16, None, 1)
    f = library(op, pcm, tmp_path)
    for x in loud_and_quiet(8, pcm.shape):
        np.testing.assert_array_equal(f(x), op.reference(wide(x)).numpy())


@pytest.mark.parametrize(("op", "types"), LogMel.samples(), ids=lambda v: str(v)[:40])
def test_float_c_is_near_the_reference(op: LogMel, types: tuple[TensorType], tmp_path: Path) -> None:
    f = library(op, types[0], tmp_path)
    x = (np.random.default_rng(7).standard_normal(types[0].shape) * 0.1).astype(np.float32)
    exact = op.reference(torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(f(x), exact, rtol=0, atol=2e-4 * abs(op.scale))


# ---- streaming


def graph_of(op: LogMel | QLogMel, pcm: TensorType) -> Graph:
    (kind,) = op.infer([pcm])
    return Graph("front", (Value("pcm", pcm),), {}, (Node(op, ("pcm",), ("features",), (kind,)),), ("features",))


@pytest.mark.parametrize("integer", [False, True])
def test_step_by_step_is_the_whole(integer: bool) -> None:
    op: Any = to_integer(LogMel(), 0.1, 30) if integer else LogMel()
    graph = graph_of(op, pcm_type(4800, DType.I16 if integer else DType.F32))
    pcm = torch.from_numpy(tone(3000, 200, 5000, 4800).reshape(1, -1).astype(np.float64))
    pcm = pcm.long() if integer else (pcm * PCM_SCALE).float()
    step = MakeStreaming().run(graph)
    assert step.delay == 0
    assert step.inputs[0].type.shape == (1, 160)
    frames = torch.cat([out for (out,) in StepRunner(step).run({"pcm": pcm})], 1)
    (whole,) = evaluate(graph, {"pcm": pcm})
    if integer:
        assert torch.equal(frames, whole)
    else:
        torch.testing.assert_close(frames, whole, rtol=0, atol=1e-4)


def test_on_the_cortex_m7(tmp_path: Path) -> None:
    """The same bytes as the reference, frame by frame, and few enough instructions for a 10 ms hop."""
    pytest.importorskip("unicorn")
    step = MakeStreaming().run(graph_of(to_integer(LogMel(), 0.1, 30), pcm_type(3200)))
    write_folder(step, load_target("cortex-m7"), tmp_path)
    pcm = tone(6000, 100, 7000, 3200).reshape(1, -1)
    expected = [out.numpy() for (out,) in StepRunner(step).run({"pcm": torch.from_numpy(pcm)})]
    with open_device("unicorn", tmp_path, counting=True) as device:
        for t, features in enumerate(expected):
            outputs = device.step([pcm[:, 160 * t : 160 * t + 160]])
            assert outputs is not None
            np.testing.assert_array_equal(outputs[0].reshape(features.shape), features)
            assert 10_000 < device.counters.instructions < 30_000


# ---- the ops as ops


@pytest.mark.parametrize(("op", "types"), [*LogMel.samples(), *QLogMel.samples()], ids=lambda v: str(v)[:40])
def test_text_round_trips(op: LogMel | QLogMel, types: tuple[TensorType]) -> None:
    text = print_graph(graph_of(op, types[0]))
    assert print_graph(parse_graph(text, OPS)) == text


def test_to_integer_keeps_the_front_end() -> None:
    op = to_integer(LogMel(n_mels=20, hop=200, scale=0.5, padded=False), 0.02, -3, "int8")
    assert (op.n_mels, op.hop, op.scale, op.padded) == (20, 200, 0.5, False)
    assert op.infer([pcm_type(400)]) == (TensorType((1, 1, 20), DType.I8, QuantParams((0.02,), -3), 1),)


def test_cost() -> None:
    pcm = pcm_type(1600, DType.F32)
    assert LogMel().cost([pcm], LogMel().infer([pcm])).macs == 10 * (800 + 4 * 3 * 3 * 64 + 512 + 512 + 255)


@pytest.mark.parametrize(
    ("op", "pcm", "text"),
    [
        (LogMel(), pcm_type(401, DType.F32), "expected a multiple of hop=160 samples, found 401"),
        (LogMel(padded=False), pcm_type(399, DType.F32), "399 samples are fewer than a frame of 400"),
        (LogMel(), pcm_type(1600), "expected float32 PCM, found int16"),
        (LogMel(n_fft=500), pcm_type(1600, DType.F32), "n_fft must be a power of two from 16 to 4096, found 500"),
        (LogMel(hop=401), pcm_type(1600, DType.F32), "expected hop <= frame <= n_fft, found 401, 400, 512"),
        (QLogMel(), pcm_type(1600, DType.F32), "expected int16 PCM, found float32"),
        (QLogMel(dtype="int4"), pcm_type(1600), "expected dtype int8 or int16, found 'int4'"),
        (QLogMel(out_scale=1e-12), pcm_type(1600), "do not fit integers of scale 1e-12"),
    ],
)
def test_what_does_not_fit_is_an_error(op: LogMel | QLogMel, pcm: TensorType, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        op.infer([pcm])
