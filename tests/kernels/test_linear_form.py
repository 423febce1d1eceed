"""TFLite's add with one rounding: the same level for every pair of operands, or no such form."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.ir.graph import Graph
from edgec.ir.types import DType, TensorType
from edgec.ops.integer.tflite import TfliteAdd
from edgec.ops.lowering.linear_form import LEVELS
from tests.kernels.every_kernel import Bench
from tests.kernels.node_builder import Builder

LEVEL, FACTOR = st.integers(-128, 127), st.integers(1 << 30, (1 << 31) - 1)
#: found by trying: a sum that rises by many levels, whose steps leave a line no room
FORMLESS = TfliteAdd(0.1, -60, -41, 119, 1657502278, 6, 1284513999, 6, 2143340282, 13)
#: halves away from zero; a difference; bounds of an activation
ADDS = (
    TfliteAdd(sy=19), TfliteAdd(0.1, 4, -128, 9, 1 << 30, 0, 1234567890, 2, 2000000000, 19, -1),
    TfliteAdd(0.1, 4, -128, 9, 1 << 30, 0, 1234567890, 2, 2000000000, 18, 1, -20, 50), FORMLESS,
)  # fmt: skip


@st.composite
def adds(draw: st.DrawFn) -> TfliteAdd:
    """Factors as they are between like scales, powers of two among them."""
    (ma, mb, my), (za, zb, zy) = ([draw(s) for _ in range(3)] for s in (st.just(1 << 30) | FACTOR, LEVEL))
    sa, sb, sy = draw(st.integers(0, 4)), draw(st.integers(0, 4)), draw(st.integers(15, 24))
    lo, hi = sorted([draw(LEVEL), draw(LEVEL)])
    return TfliteAdd(0.1, zy, za, zb, ma, sa, mb, sb, my, sy, draw(st.sampled_from([1, -1])), lo, hi)


@settings(max_examples=60, deadline=None)
@given(adds())
def test_a_form_gives_every_level(op: TfliteAdd) -> None:
    form, a, b = op.linear(), LEVELS[:, None], LEVELS[None]
    if form is None:
        return
    partial = a * form.fa + form.constant
    total = partial + b * form.fb
    assert max(abs(partial).max(), abs(total).max(), abs(b * form.fb).max()) < 1 << 31
    assert np.array_equal((total >> form.shift).clip(op.lo, op.hi), op.levels(a, b))


def every_pair() -> tuple[Graph, dict[str, int]]:
    b = Builder()
    for op in ADDS:
        x = (TensorType((1, 256, 256), DType.I8), 128)
        b.add(op, x, x)
    return b.graph(), b.reach


@pytest.mark.parametrize("target", ["host", "cortex-m4", "cortex-m0plus"])
def test_every_pair_of_operands(target: str) -> None:
    """Reference, C on the host and on emulated cores; one of the adds has no form."""
    assert [op.linear() is None for op in ADDS] == [False, False, False, True]
    if target != "host":
        pytest.importorskip("unicorn")
    elif shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    bench = Bench("host" if target == "host" else "unicorn", target, ("generic",), make=every_pair)
    pairs = np.broadcast_arrays(LEVELS[:, None], LEVELS[None])
    frame = {v.name: pairs[k % 2][None] for k, v in enumerate(bench.graph.inputs)}
    with bench.device:
        bench.check([frame])
