"""QConv1d over several positions: the kernels of images serve it, on every instruction set."""

from __future__ import annotations

import shutil

import pytest

from edgec.ir.graph import Graph
from edgec.ir.types import DType, TensorType
from edgec.ops import QConv1d
from tests.kernels.every_kernel import Bench
from tests.kernels.node_builder import Builder, frame_type


def lines() -> tuple[Graph, dict[str, int]]:
    """Lines with and without a time axis, padded, strided, dilated, in groups, of one and of several images."""
    b = Builder(seed=3)
    for op, shape, k, outputs in (
        (QConv1d(), (1, 20, 8), 3, 12), (QConv1d(pad=(2, 1), pad_value=-9), (1, 17, 16), 5, 16),
        (QConv1d(stride=2, pad=(1, 1), pad_value=-128), (1, 31, 3), 3, 7), (QConv1d(dilation=2), (1, 24, 8), 3, 8),
        (QConv1d(groups=2, pad=(1, 1)), (1, 12, 8), 3, 8), (QConv1d(), (2, 9, 4), 2, 20), (QConv1d(), (1, 8, 40), 1, 5),
        (QConv1d(groups=16), (1, 12, 16), 3, 16),
    ):  # fmt: skip
        for x in (TensorType(shape, DType.I8), frame_type(DType.I8, *shape)):
            w = b.int8(k, shape[2] // op.groups, outputs)
            b.add(op, (x, 128), (w, "int8"), (b.ints(-9999, 9999, outputs), "int32"))
    return b.graph(), b.reach


HOSTS = {
    ("arm_dsp", "generic"): "windows_dsp", ("scalar", "generic"): "windows", ("neon", "generic"): "windows_neon",
    ("helium", "arm_dsp", "generic"): "windows_mve",
}  # fmt: skip


@pytest.mark.parametrize("isa", HOSTS, ids=lambda i: i[0])
def test_host(isa: tuple[str, ...]) -> None:
    cc = "zig" if isa[0] == "helium" else "gcc"
    if cc != "zig" and shutil.which(cc) is None:
        pytest.skip(f"{cc} is not installed")
    bench = Bench("host", "host", isa, cc=cc, make=lines)
    assert HOSTS[isa] in {call.variant for call in bench.plan.calls}
    with bench.device:
        bench.check_seeded((0.5, 0.5, 1.0))


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m0plus"])
def test_emulated_core(target: str) -> None:
    pytest.importorskip("unicorn")
    bench = Bench("unicorn", target, make=lines)
    with bench.device:
        bench.check_seeded((0.5, 1.0))
