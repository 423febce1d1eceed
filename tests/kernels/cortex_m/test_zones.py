"""Convolutions whose bias depends on the place: the reference, C on the host and C on the emulated cores agree."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.ir.graph import Graph
from edgec.ir.text import parse_graph, print_graph
from edgec.ir.types import DType, TensorType
from edgec.ir.verify import verify
from edgec.kernels import takes_zones
from edgec.ops import OPS, QConv2d, QConv2dRequantize
from edgec.ops.integer.conv import zone_deltas
from edgec.target import list_targets, load_target
from tests.conftest import needs
from tests.kernels.every_kernel import Bench, Builder

HOSTS = [
    (("generic",), "gcc"), (("arm_dsp", "generic"), "zig"), (("scalar", "generic"), "gcc"),
    (("helium", "arm_dsp", "generic"), "zig"),
]  # fmt: skip
CORES = [
    ("cortex-m4", "zig"),
    ("cortex-m7", "gcc"),
    ("cortex-m33", "zig"),
    ("cortex-m3", "zig"),
    ("cortex-m0plus", "zig"),
]
#: image, kernel, outputs, fields of the convolution
SHAPES = (
    ((1, 6, 6, 12), (1, 1), 16, {}),
    ((1, 3, 3, 20), (1, 1), 9, {}),
    ((2, 5, 4, 8), (1, 1), 8, {}),
    ((1, 5, 7, 3), (3, 3), 8, {"pad": (1, 1, 1, 1), "pad_value": -77}),
    ((1, 6, 5, 8), (3, 3), 8, {"pad": (1, 1, 1, 1), "pad_value": 5}),
    ((1, 9, 8, 8), (3, 3), 7, {"stride": (2, 2), "pad": (0, 1, 0, 1), "pad_value": 9}),
    ((2, 4, 4, 8), (2, 3), 12, {"pad": (1, 0, 1, 1)}),
    ((1, 2, 2, 4), (1, 1), 4, {}),
    ((1, 1, 2, 4), (1, 1), 4, {}),
)
#: type, zero point, lowest and highest level, rounding, and shifts
FINISHES = (
    ("int8", -7, -128, 127, "tflite", (33, 45)), ("int8", 3, 3, 99, "single", (33, 44)),
    ("int8", -128, -128, 127, "tflite", (31, 44)), ("int8", -30, 5, 127, "tflite", (33, 40)),
    ("int8", -9, -128, 127, "single", (26, 40)), ("int16", 0, -32768, 32767, "single", (26, 36)),
)  # fmt: skip


def zones(b: Builder, extent: int) -> tuple[int, ...]:
    """Zones at both ends and within, the first one the commonest."""
    kinds = np.zeros(extent, int)
    kinds[: int(b.ints(0, 2))], kinds[extent - int(b.ints(0, 2)) :] = 1, 2
    kinds[int(b.ints(0, extent))] = int(b.ints(0, 3))
    return tuple(kinds.tolist())


def add(b: Builder, image: tuple[int, ...], kernel: tuple[int, int], o: int, fields: dict[str, object]) -> None:
    """The convolution as sums and with every way to requantise them."""
    x, w = (TensorType(image, DType.I8), 128), b.int8(*kernel, image[3], o)
    _, h, v, _ = QConv2d(**fields).infer([x[0], TensorType(w.shape, DType.I8), TensorType((o,), DType.I32)])[0].shape
    for finish in (None, *FINISHES):
        placed = {"row_zone": zones(b, h), "col_zone": zones(b, v), **fields}
        bias = b.ints(-9999, 9999, o) + b.ints(-9999, 9999, 3, 3, o) * b.ints(1, 40)  # with 16 bits and with more
        if finish is None:
            b.add(QConv2d(**placed), x, (w, "int8"), (bias, "int32"))
            continue
        dtype, zero, lo, hi, rounding, shifts = finish
        op = QConv2dRequantize(dtype=dtype, zero_point=zero, lo=lo, hi=hi, rounding=rounding, **placed)
        b.add(
            op, x, (w, "int8"), (bias, "int32"), (b.ints(1 << 30, 1 << 31, o), "int32"), (b.ints(*shifts, o), "int32")
        )


def zoned() -> tuple[Graph, dict[str, int]]:
    """The graph, and how far the values of each input reach."""
    b = Builder()
    for shape in SHAPES:
        add(b, *shape)
    return b.graph(), b.reach


@pytest.mark.parametrize(("isa", "cc"), HOSTS, ids=lambda p: p if isinstance(p, str) else p[0])
def test_host(isa: tuple[str, ...], cc: str) -> None:
    if cc != "zig" and shutil.which(cc) is None:
        pytest.skip(f"{cc} is not installed")
    bench = Bench("host", "host", isa, cc=cc, make=zoned)
    found = {call.variant for call in bench.plan.calls}
    dsp = {"rows_dsp", "windows_dsp"}
    kernels = {"arm_dsp": dsp, "scalar": {"rows", "windows"}, "helium": {"linear_mve", "windows_mve", *dsp}}
    assert found == kernels.get(isa[0], set()) | {"generic"}
    with bench.device:
        bench.check_seeded((0.0, 1.0, 0.0, 1.0))


@pytest.mark.parametrize(("target", "toolchain"), CORES)
def test_emulated_core(target: str, toolchain: str) -> None:
    pytest.importorskip("unicorn")
    if toolchain == "gcc" and shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    bench = Bench("unicorn", target, toolchain=toolchain, make=zoned)
    with bench.device:
        bench.check_seeded((0.0, 1.0, 0.0, 1.0))


@needs("qemu-system-arm")
def test_emulated_m55() -> None:
    bench = Bench("qemu", "cortex-m55", make=zoned)
    with bench.device:
        bench.check_seeded((0.0, 1.0, 0.0, 1.0))


def test_zones_are_for_targets_whose_convolutions_keep_their_kernels() -> None:
    found = {name: takes_zones(load_target(name).isa) for name in list_targets()}
    assert [name for name, takes in found.items() if not takes] == ["cortex-a53"]


def test_text_round_trip() -> None:
    graph, _ = zoned()
    text = print_graph(graph)
    assert "row_zone=(" in text
    assert print_graph(parse_graph(text, OPS)) == text


@pytest.mark.parametrize("change", [{"row_zone": (0, 1)}, {"col_zone": (0,)}, {"row_zone": (0, 0, 3)}])
def test_zones_that_do_not_fit_are_refused(change: dict[str, tuple[int, ...]]) -> None:
    b = Builder()
    x, w, bias = (TensorType((1, 3, 2, 4), DType.I8), 128), b.int8(1, 1, 4, 4), b.ints(-9, 9, 2, 2, 4)
    op = QConv2d(row_zone=(0, 1, 0), col_zone=(0, 1))
    b.add(op, x, (w, "int8"), (bias, "int32"))
    verify(b.graph())
    with pytest.raises(ValueError, match=r"expected zones of 3 rows and 2 columns|expected int32 bias"):
        dataclasses.replace(op, **change).infer([b.graph().type_of(n) for n in ("x0", "c0", "c1")])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_a_part_has_the_zones_of_its_place(h: int, v: int, seed: int) -> None:
    b = Builder()
    b.rng = np.random.default_rng(seed)
    op = QConv2d(pad=(1, 1, 1, 1), row_zone=zones(b, h), col_zone=zones(b, v))
    types = [TensorType(s, DType.I8) for s in ((1, h, v, 4), (3, 3, 4, 8))]
    top, left = int(b.ints(0, h)), int(b.ints(0, v))
    part = op.part(types, (top, h), (left, v)).op
    assert (part.row_zone, part.col_zone) == (op.row_zone[top:], op.col_zone[left:])


def test_deltas_take_16_bits_or_32() -> None:
    bias = np.array([[[5, 7]], [[5 + 32767, 7 - 32767]]])
    deltas = zone_deltas(bias)
    assert deltas.tolist() == [[[0, 0]], [[32767, -32767]]]
    assert [deltas.dtype, zone_deltas(2 * bias).dtype] == ["int16", "int32"]
    assert zone_deltas(bias << 20) is None
