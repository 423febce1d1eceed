"""Windows and sums of generic kernels: their bounds against a count tap by tap, their C against torch."""

import itertools
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from edgec.backends.emit import write_folder
from edgec.device import open_device
from edgec.errors import CodegenError
from edgec.frontends.builder import GraphBuilder
from edgec.ir.types import DType, TensorType
from edgec.kernels import select
from edgec.ops import OPS
from edgec.ops.base import Site
from edgec.ops.lowering.sums import Axis
from edgec.ops.lowering.window import out_extent
from edgec.target import load_target
from edgec.toolchain.manifest import read_manifest
from tests.backends.kernel_tools import Case, build_c, prepare

SMALL = st.integers(0, 9)
SCOPE = {"T": type("T", (), {"max": staticmethod(max), "min": staticmethod(min)})}


def value(text: str, **names: int) -> int:
    """A TVMScript expression of integers."""
    return eval(text, SCOPE, names)


@given(
    extent=st.integers(1, 9), taps=st.integers(1, 6), stride=st.integers(1, 4), dilation=st.integers(1, 4),
    before=SMALL, after=SMALL,
)  # fmt: skip
def test_bounds_are_those_of_the_taps_on_inputs(extent, taps, stride, dilation, before, after):
    span = dilation * (taps - 1) + 1
    if extent + before + after < span:
        return
    axis = Axis(extent, out_extent(extent, taps, stride, (before, after), dilation), taps, stride, before, dilation)
    reaches_out = False
    for i in range(axis.outputs):
        on_inputs = [p for p in range(taps) if 0 <= value(axis.at("i", str(p)), i=i) < extent]
        first, last = (value(text, i=i) for text in axis.bounds("i"))
        assert list(range(first, last)) == on_inputs
        assert value(axis.test("i"), i=i) == (len(on_inputs) == taps)
        reaches_out |= len(on_inputs) < taps
    assert axis.clipped == reaches_out


def conv_case(rng: np.random.Generator, image: bool) -> tuple[dict[str, object], tuple[int, ...], tuple[int, ...]]:
    """Fields of a convolution, the shape of x and that of its weights [K..,C/groups,O]: filters larger than the input,
    padding larger than the filter, groups of every kind."""
    axes = 2 if image else 1
    while True:
        groups = int(rng.choice([1, 1, 2, 3, 5, 7]))
        inputs, outputs = int(rng.choice([1, 2, 3])), int(rng.choice([1, 1, 2, 3, 5, 9]))
        extents, taps = rng.integers(1, 8, axes), rng.integers(1, 6, axes)
        stride, dilation, pad = rng.integers(1, 4, axes), rng.integers(1, 4, axes), rng.integers(0, 5, 2 * axes)
        room = extents + pad[::2] + pad[1::2] - dilation * (taps - 1) - 1
        if (room >= 0).all():
            break
    lists = {"stride": stride, "dilation": dilation}
    fields = {k: tuple(map(int, v)) if image else int(v[0]) for k, v in lists.items()}
    x = (int(rng.integers(1, 3)), *map(int, extents), groups * inputs)
    return fields | {"groups": groups, "pad": tuple(map(int, pad))}, x, (*map(int, taps), inputs, groups * outputs)


def torch_conv(fields: dict[str, object], x: np.ndarray, w: np.ndarray, bias: np.ndarray, fill: int = 0) -> np.ndarray:
    """torch's own convolution of channels-last arrays, in float64."""
    axes = x.ndim - 2
    xs, ws, bs = (torch.from_numpy(v.astype(np.float64)) for v in (x, w, bias))
    pads = [fields["pad"][2 * k + side] for k in reversed(range(axes)) for side in (0, 1)]
    first = torch.movedim(F.pad(torch.movedim(xs, -1, 1), pads, value=float(fill)), 1, 1)
    weights = ws.permute(axes + 1, axes, *range(axes))
    convolve = F.conv2d if axes == 2 else F.conv1d
    y = convolve(first, weights, bs, fields["stride"], 0, fields["dilation"], fields["groups"])
    return torch.movedim(y, 1, -1).numpy()


def float_cases(rng: np.random.Generator) -> list[tuple[Case, np.ndarray]]:
    """Convolutions with what torch gives; every third has an activation."""
    found = []
    for k in range(24):
        fields, x, w = conv_case(rng, image=k % 3 > 0)
        values = [rng.normal(size=s).astype(np.float32) for s in (x, w, w[-1:])]
        op = OPS["conv2d" if k % 3 else "conv1d"](**fields, activation="relu" if k % 3 == 2 else "")
        expected = torch_conv(fields, *values)
        case = Case(f"k{k}", op, [TensorType(v.shape) for v in values], values)
        found.append((case, np.maximum(expected, 0) if op.activation else expected))
    return found


def integer_cases(rng: np.random.Generator) -> list[tuple[Case, np.ndarray]]:
    """The same on int8 and int16 with padding of any value of the type."""
    found = []
    for k in range(24):
        fields, x, w = conv_case(rng, image=k % 2 > 0)
        dtype = DType.I16 if k % 4 == 3 else DType.I8
        low, high = dtype.range
        values = [rng.integers(low, high + 1, x), rng.integers(-127, 128, w), rng.integers(-9999, 9999, w[-1])]
        fill = int(rng.integers(low, high + 1)) if k % 3 else 0
        kinds = (dtype, DType.I8, DType.I32)
        types = [TensorType(v.shape, t) for v, t in zip(values, kinds, strict=True)]
        op = OPS["qconv2d" if k % 2 else "qconv1d"](**fields, pad_value=fill)
        found.append((Case(f"k{k}", op, types, values), torch_conv(fields, *values, fill=fill)))
    return found


@pytest.mark.parametrize(("make", "seed"), list(itertools.product((float_cases, integer_cases), range(2))))
def test_convolutions_of_odd_shapes_give_what_torch_gives(make, seed, tmp_path):
    rng = np.random.default_rng(seed)
    cases = [(prepare(case, rng), expected) for case, expected in make(rng)]
    library = build_c([case.named for case, _ in cases], tmp_path, cc="zig" if seed else None)
    for case, expected in cases:
        got = library(case.symbol, case.arrays)["y"].reshape(expected.shape)
        if make is integer_cases:
            np.testing.assert_array_equal(got, expected, err_msg=str(case.op))
        else:
            np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-5, err_msg=str(case.op))


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m0plus", "cortex-m55"])
def test_emulated_cores_give_what_torch_gives(target, tmp_path):
    if target == "cortex-m55" and shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed")
    pytest.importorskip("unicorn")
    rng, build = np.random.default_rng(5), GraphBuilder("sums")
    cases, outputs = [*float_cases(rng)[:9], *integer_cases(rng)[:9]], []
    for case, _ in cases:
        x, *consts = zip(case.types, case.values, strict=True)
        names = [build.const(f"{case.symbol}_{k}", v.astype(t.dtype.storage)) for k, (t, v) in enumerate(consts)]
        outputs.append(build.emit(case.op, build.input("x", x[0]), *names))
    part = load_target(target)
    write_folder(build.build(tuple(outputs)), part, tmp_path)
    frame = [case.values[0].astype(case.types[0].dtype.storage) for case, _ in cases]
    with open_device(part.devices[0], tmp_path, read_manifest(tmp_path), part) as device:
        found = device.step(frame)
    for (case, expected), got in zip(cases, found, strict=True):
        close = {"rtol": 2e-5, "atol": 1e-5} if got.dtype == np.float32 else {"rtol": 0, "atol": 0}
        np.testing.assert_allclose(got.reshape(expected.shape), expected, **close, err_msg=str(case.op))


@pytest.mark.parametrize("kind", ["max_pool2d", "avg_pool2d"])
def test_pools_of_odd_shapes_give_what_torch_gives(kind, tmp_path):
    rng, cases = np.random.default_rng(0), []
    windows = (
        ((3, 2), (2, 1), (1, 1, 1, 1)), ((5, 5), (1, 3), (2, 2, 2, 2)), ((2, 2), (2, 2), (0, 0, 0, 0)),
        ((4, 7), (3, 2), (2, 2, 3, 3)),
    )  # fmt: skip
    for k, (kernel, stride, pad) in enumerate(windows):
        x = rng.normal(size=(2, 7, 6, (13, 3, 8, 1)[k])).astype(np.float32)
        first = torch.from_numpy(x).permute(0, 3, 1, 2)
        pool = F.max_pool2d if kind == "max_pool2d" else F.avg_pool2d
        fewer = {} if kind == "max_pool2d" else {"count_include_pad": bool(k % 2)}
        expected = pool(first, kernel, stride, (pad[0], pad[2]), **fewer).permute(0, 2, 3, 1).numpy()
        counted = {} if kind == "max_pool2d" or k % 2 else {"counted": (0, 0, 0, 0)}
        op = OPS[kind](kernel=kernel, stride=stride, pad=pad, **counted)
        cases.append((prepare(Case(f"k{k}", op, [TensorType(x.shape)], [x]), rng), expected))
    library = build_c([case.named for case, _ in cases], tmp_path)
    for case, expected in cases:
        got = library(case.symbol, case.arrays)["y"].reshape(expected.shape)
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6, err_msg=str(case.op))


def test_padding_around_computed_weights_is_refused():
    """Its share of the sums cannot be taken into the bias."""
    types = (TensorType((1, 4, 2), DType.I8), TensorType((3, 2, 5), DType.I8), TensorType((5,), DType.I32))
    op = OPS["qconv1d"](pad=(1, 1), pad_value=3)
    with pytest.raises(CodegenError, match="weights that are computed"):
        select(op, Site(types, op.infer(types)), ("none",))
