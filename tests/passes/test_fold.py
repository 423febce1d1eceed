"""fold_batchnorm: the same numbers from fewer nodes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgec.frontends import load
from edgec.frontends.builder import GraphBuilder
from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Const, Graph
from edgec.ir.text import parse_graph, print_graph
from edgec.ir.types import TensorType
from edgec.ir.verify import verify
from edgec.ops import OPS
from edgec.ops.conv import Conv1d
from edgec.passes.canonicalize import Canonicalize
from edgec.passes.fold_batchnorm import FoldBatchnorm
from edgec.passes.fuse import Fuse
from edgec.stages import float_passes, transform


def same(before: Graph, after: Graph) -> None:
    verify(after)
    rng = np.random.default_rng(0)
    inputs = {v.name: torch.from_numpy(rng.normal(size=v.type.shape).astype(np.float32)) for v in before.inputs}
    for a, b in zip(evaluate(before, inputs), evaluate(after, inputs), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)


def fold(text: str) -> str:
    before = parse_graph(text, OPS)
    verify(before)
    after = FoldBatchnorm().run(before)
    same(before, after)
    return print_graph(after)


HEAD = """\
graph net
input %x : float32[1,3,1] t1
const %w : float32[2,1,2] = [1.0, 2.0, 3.0, 4.0]
const %b : float32[2] = [1.0, 0.0]
const %s : float32[2] = [2.0, -1.0]
const %t : float32[2] = [0.5, 1.0]
"""


def test_an_affine_after_a_layer():
    assert (
        fold(
            HEAD
            + """\
%c = conv1d(%x, %w, %b) {pad=(1, 0)} : float32[1,3,2] t1  # net.py:1
%y = affine(%c, %s, %t) : float32[1,3,2] t1  # net.py:2
return %y
"""
        )
        == """\
graph net
input %x : float32[1,3,1] t1
const %w : float32[2,1,2] = [2.0, -2.0, 6.0, -4.0]
const %b : float32[2] = [2.5, 1.0]
%y = conv1d(%x, %w, %b) {pad=(1, 0)} : float32[1,3,2] t1  # net.py:1; net.py:2
return %y
"""
    )


def test_an_affine_stays_where_something_else_reads_the_layer():
    text = (
        HEAD
        + """\
%c = conv1d(%x, %w, %b) {pad=(1, 0)} : float32[1,3,2] t1
%n = affine(%c, %s, %t) : float32[1,3,2] t1
%r = relu(%n) : float32[1,3,2] t1
%y = add(%c, %r) : float32[1,3,2] t1
return %y
"""
    )
    assert fold(text) == text
    text = text.replace("return %y", "return %c, %r").replace("%y = add(%c, %r) : float32[1,3,2] t1\n", "")
    assert fold(text) == text


def test_affines_merge():
    assert (
        fold("""\
graph net
input %x : float32[1,2]
const %a : float32[2] = [2.0, 3.0]
const %b : float32[2] = [1.0, 1.0]
%m = affine(%x, %a, %b) : float32[1,2]
%y = affine(%m, %b, %a) {axis=1} : float32[1,2]
return %y
""")
        == """\
graph net
input %x : float32[1,2]
const %a_1 : float32[2] = [2.0, 3.0]
const %b_1 : float32[2] = [3.0, 4.0]
%y = affine(%x, %a_1, %b_1) {axis=1} : float32[1,2]
return %y
"""
    )


FORWARD = """\
graph net
input %x : float32[1,3,2] t1
const %w : float32[2,2,1] = [1.0, 2.0, 3.0, 4.0]
const %b : float32[1] = [1.0]
const %s : float32[2] = [2.0, -1.0]
const %t : float32[2] = [0.5, 1.0]
%r = relu(%x) : float32[1,3,2] t1
%n = affine(%r, %s, %t) : float32[1,3,2] t1
"""


def test_an_affine_goes_into_the_next_layer_where_nothing_is_padded():
    assert (
        fold(FORWARD + "%y = conv1d(%n, %w, %b) : float32[1,2,1] t1\nreturn %y\n")
        == """\
graph net
input %x : float32[1,3,2] t1
const %w : float32[2,2,1] = [2.0, -2.0, 6.0, -4.0]
const %b : float32[1] = [9.0]
%r = relu(%x) : float32[1,3,2] t1
%y = conv1d(%r, %w, %b) : float32[1,2,1] t1
return %y
"""
    )


def test_an_affine_stays_in_front_of_zero_padding_unless_it_only_scales():
    text = FORWARD + "%y = conv1d(%n, %w, %b) {pad=(1, 0)} : float32[1,3,1] t1\nreturn %y\n"
    assert fold(text) == text
    assert "affine" not in fold(text.replace("[0.5, 1.0]", "[0.0, 0.0]"))


def test_an_affine_in_front_of_a_neuron_stays():
    text = """\
graph net
input %x : float32[1,3,2] t1
const %s : float32[2] = [2.0, -1.0]
const %t : float32[2] = [0.5, 1.0]
const %beta : float32[1] = [0.5]
%n = affine(%x, %s, %t) : float32[1,3,2] t1
%y = lif(%n, %beta, %beta) : float32[1,3,2] t1
return %y
"""
    assert fold(text) == text


def test_a_shared_weight_is_not_changed_for_the_other_reader():
    out = fold("""\
graph net
input %x : float32[1,2]
const %w : float32[2,2] = [1.0, 0.0, 0.0, 1.0]
const %z : float32[2] = [0.0, 0.0]
const %s : float32[2] = [2.0, 3.0]
%a = linear(%x, %w, %z) : float32[1,2]
%b = affine(%a, %s, %s) : float32[1,2]
%c = linear(%b, %w, %z) : float32[1,2]
return %c
""")
    assert "affine" not in out


SCALED = """\
graph net
input %x : float32[1,3,2]
const %m : float32[2] = [0.5, -1.0]
const %s : float32[2] = [2.0, 3.0]
const %w : float32[3,2,1] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
const %v : float32[2,1] = [3.0, 1.0]
const %z : float32[1] = [0.0]
const %two : float32[1] = [2.0]
const %five : float32[1] = [5.0]
const %far : float32[1] = [300.0]
const %mask : float32[2] = [0.0, -1e30]
const %rows : float32[3,1] = [1.0, 2.0, 4.0]
"""

#: nodes on the constants above and what is left of them
MAPS = {
    "a standardised input": (
        "%a = sub(%x, %m) : T\n%b = div(%a, %s) : T\n%y = relu(%b) : T\n",
        "%b = affine(%x, %b_scale, %b_shift) {axis=2} : T\n%y = relu(%b) : T\n",
    ),
    "a standardised input of a convolution": (
        "%a = sub(%x, %m) : T\n%b = div(%a, %s) : T\n%y = conv1d(%b, %w, %z) : float32[1,1,1]\n",
        "%y = conv1d(%x, %w, %z) : float32[1,1,1]\n",
    ),
    "one in front of zero padding": (
        "%a = sub(%x, %m) : T\n%b = div(%a, %s) : T\n%y = conv1d(%b, %w, %z) {pad=(1, 1)} : float32[1,3,1]\n",
        "%b = affine(%x, %b_scale, %b_shift) {axis=2} : T\n"
        "%y = conv1d(%b, %w, %z) {pad=(1, 1)} : float32[1,3,1]\n",
    ),
    "a quotient in front of zero padding": (
        "%b = div(%x, %s) : T\n%y = conv1d(%b, %w, %z) {pad=(1, 1)} : float32[1,3,1]\n",
        "%y = conv1d(%x, %w, %z) {pad=(1, 1)} : float32[1,3,1]\n",
    ),
    "a result in the user's unit": (
        "%a = linear(%x, %v, %z) : float32[1,3,1]\n%b = sub(%five, %a) : float32[1,3,1]\n"
        "%c = div(%b, %two) : float32[1,3,1]\n%y = add(%c, %far) : float32[1,3,1]\n",
        "%y = linear(%x, %v, %z) : float32[1,3,1]\n",
    ),
    "numbers": (
        "%a = mul(%x, %two) : T\n%b = div(%a, %five) : T\n%c = relu(%b) : T\n%d = add(%c, %two) : T\n"
        "%e = sub(%d, %five) : T\n%f = relu(%e) : T\n%g = mul(%f, %five) : T\n%h = add(%g, %two) : T\n"
        "%y = relu(%h) : T\n",
        "%b = mul(%x, %b_scale) : T\n%c = relu(%b) : T\n%e = add(%c, %e_shift) : T\n%f = relu(%e) : T\n"
        "%h = affine(%f, %h_scale, %h_shift) {axis=0} : T\n%y = relu(%h) : T\n",
    ),
    "a difference that cancels": ("%a = sub(%x, %far) : T\n%y = mul(%a, %five) : T\n",) * 2,
    "a mask": (
        "%a = mul(%x, %five) : T\n%b = add(%a, %mask) : T\n%y = softmax(%b) : T\n",
    )
    * 2,
    "a mask behind a layer": (
        "%a = linear(%x, %v, %z) : float32[1,3,1]\n%b = reshape(%a) {shape=(1, 3)} : float32[1,3]\n"
        "%c = concat(%b, %b) : float32[1,6]\n%d = reshape(%c) {shape=(1, 3, 2)} : T\n"
        "%e = add(%d, %mask) : T\n%y = softmax(%e) : T\n",
    )
    * 2,
    "two axes": ("%a = mul(%x, %s) : T\n%y = div(%a, %rows) : T\n",) * 2,
    "a result between": ("%a = mul(%x, %s) : T\n%y = add(%a, %m) : T\n%k = relu(%a) : T\n",) * 2,
    "one number over x": ("%a = div(%five, %x) : T\n%y = mul(%a, %s) : T\n",) * 2,
}  # fmt: skip


@pytest.mark.parametrize("case", MAPS)
def test_arithmetic_with_constants_folds_as_a_map(case):
    before, left = (text.replace(": T", ": float32[1,3,2]") for text in MAPS[case])
    tail = "return %y, %k\n" if "%k" in before else "return %y\n"
    found = [
        line for line in fold(SCALED + before + tail).splitlines(keepends=True) if line.startswith(("%", "return"))
    ]
    assert "".join(found) == left + tail


def test_a_map_that_differs_from_frame_to_frame_stays():
    """It must be refused as what it is when the step is made."""
    text = """\
graph net
input %x : float32[1,3,2] t1
const %s : float32[2] = [2.0, 3.0]
const %rows : float32[3,1] = [1.0, 2.0, 4.0]
%a = mul(%x, %rows) : float32[1,3,2] t1
%b = div(%a, %rows) : float32[1,3,2] t1
%y = relu(%b) : float32[1,3,2] t1
return %y
"""
    assert fold(text) == text.replace("const %s : float32[2] = [2.0, 3.0]\n", "")


def test_factors_far_apart_stay_out_of_int8_weights():
    text = FORWARD.replace("[2.0, -1.0]", "[2.0, -0.25]") + "%y = conv1d(%n, %w, %b) : float32[1,2,1] t1\nreturn %y\n"
    graph = parse_graph(text, OPS)
    assert len(FoldBatchnorm().run(graph).nodes) == 2
    assert len(FoldBatchnorm(spread=8.0).run(graph).nodes) == 2
    assert len(FoldBatchnorm(spread=4.0).run(graph).nodes) == 3


class Photograph(nn.Module):
    """Bytes 0 to 255 to a network that normalises by itself, with a stem without padding."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Buffer(torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.std = nn.Buffer(torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
        self.stem, self.head = nn.Conv2d(3, 5, 4, stride=4), nn.Linear(5, 2)

    def forward(self, image):
        return self.head(torch.relu(self.stem((image / 255.0 - self.mean) / self.std)).mean((2, 3)))


class Weather(nn.Module):
    """Two readings in units of their own, and a forecast in degrees."""

    def __init__(self):
        super().__init__()
        self.hidden, self.wind, self.out = nn.Linear(3, 7), nn.Linear(1, 7, bias=False), nn.Linear(7, 1)

    def forward(self, state, wind):
        x = self.hidden((state - torch.tensor([3.0, 0.5, -7.0])) / torch.tensor([1.5, 0.3, 9.0]))
        return 21.5 - 3 * self.out(torch.tanh(x + self.wind(wind / 12.5) / 0.7 - 0.1))


class Pressure(nn.Module):
    """Pascals near 101,325: the difference is what counts."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer((x - 101325.0) / 300.0)


@pytest.mark.parametrize(
    ("module", "inputs", "left"),
    [
        (Photograph(), (torch.rand(1, 3, 8, 8) * 255,), {"conv2d", "relu", "mean", "linear", "permute", "reshape"}),
        (Weather(), (torch.randn(1, 3) * 4, torch.rand(1, 1) * 30), {"linear", "add", "tanh"}),
        (Pressure(), (101325 + torch.randn(1, 4) * 250,), {"add", "div", "linear"}),
    ],
)
def test_units_and_normalisations_cost_nothing_and_round_as_torch_does(module, inputs, left):
    torch.manual_seed(0)
    module = module.eval().requires_grad_(False)
    graph = transform(load(module, inputs, name="net", time_axis=None), float_passes(), lambda stage: None)[-1]
    assert {n.op.name for n in graph.nodes} <= left
    (got,) = evaluate(graph, dict(zip((v.name for v in graph.inputs), inputs, strict=True)))
    torch.testing.assert_close(got, module(*inputs), rtol=1e-5, atol=1e-5)


@st.composite
def chains(draw):
    """Random chains of affine maps, arithmetic with constants, layers and elementwise ops, with side exits."""
    builder = GraphBuilder("random")
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    c = draw(st.sampled_from([2, 4]))
    pool = [builder.input("x", TensorType((1, 7, c), time_axis=1))]
    shared = {}

    def value(stem, *shape):
        if draw(st.integers(0, 4)) or (stem, shape) not in shared:
            shared[stem, shape] = builder.const(stem, rng.normal(size=shape).astype(np.float32))
        return shared[stem, shape]

    for _ in range(draw(st.integers(1, 10))):
        x = pool[-1] if draw(st.integers(0, 3)) else draw(st.sampled_from(pool))
        channels = builder.type_of(x).shape[-1]
        kind = draw(st.sampled_from(["affine"] * 3 + ["map"] * 4 + ["conv1d", "conv1d", "linear", "relu", "add"]))
        if kind == "affine":
            shift = (
                builder.const("zero", np.zeros(channels, np.float32)) if draw(st.booleans()) else value("t", channels)
            )
            pool.append(
                builder.emit(OPS["affine"](axis=draw(st.sampled_from([-1, 2]))), x, value("s", channels), shift)
            )
        elif kind == "map":
            extents = builder.type_of(x).shape
            axis = draw(st.sampled_from([None, 1, 2, 2]))
            shape = (1,) if axis is None else tuple(n if k == axis else 1 for k, n in enumerate(extents))[axis:]
            c = builder.const("c", rng.uniform(0.5, 2, shape).astype(np.float32) * draw(st.sampled_from([1, -1])))
            op = OPS[draw(st.sampled_from(["add", "sub", "mul", "div"]))]()
            pool.append(builder.emit(op, *((x, c) if op.name == "div" or draw(st.booleans()) else (c, x))))
        elif kind == "conv1d":
            groups = draw(st.sampled_from([1, 2]))
            k = draw(st.integers(1, 3))
            pads = draw(st.sampled_from([(0, 0), (1, 1), (2, 0)]))
            op = OPS["conv1d"](
                pad=pads if builder.type_of(x).shape[1] < 5 or draw(st.booleans()) else (0, 0), groups=groups
            )
            try:
                pool.append(builder.emit(op, x, value("w", k, channels // groups, 4), value("b", 4)))
            except ValueError:
                continue
        elif kind == "linear":
            pool.append(builder.emit(OPS["linear"](), x, value("w", channels, 4), value("b", 4)))
        elif kind == "relu":
            pool.append(builder.emit(OPS["relu"](), x))
        else:
            other = draw(st.sampled_from(pool))
            if builder.type_of(other) == builder.type_of(x):
                pool.append(builder.emit(OPS["add"](), x, other))
    outputs = {pool[-1], *draw(st.lists(st.sampled_from(pool), max_size=1))}
    return builder.build(tuple(sorted(outputs)))


@given(chains())
@settings(max_examples=300, deadline=None)
def test_random_chains_keep_their_meaning(graph):
    after = FoldBatchnorm().run(graph)
    verify(after)
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=graph.inputs[0].type.shape).astype(np.float32))
    for a, b in zip(evaluate(graph, {"x": x}), evaluate(after, {"x": x}), strict=True):
        scale = float(a.abs().max()) + 1
        assert float((a - b).abs().max()) <= 1e-4 * scale
    assert len(after.nodes) <= len(graph.nodes)


@given(chains())
@settings(max_examples=50, deadline=None)
def test_constant_inputs_fold_away(graph):
    """With the input as a constant everything but the outputs goes."""
    t = graph.inputs[0].type
    consts = {**graph.consts, "x": Const(np.ones(t.shape, np.float32), t)}
    folded = Canonicalize().run(Graph("net", (), consts, graph.nodes, graph.outputs))
    assert {n.outputs[0] for n in folded.nodes} <= set(graph.outputs)
    same(Graph("net", (), consts, graph.nodes, graph.outputs), folded)


@dataclass(frozen=True)
class OwnConv(Conv1d):
    """A layer that no pass names."""

    name: ClassVar[str] = "own_conv"


def test_a_layer_of_another_class_takes_in_maps_and_activations():
    text = """\
%a = affine(%x, %g, %h) : float32[1,3,1] t1  # net.py:1
%c = own_conv(%a, %w, %b) : float32[1,2,2] t1  # net.py:2
%m = affine(%c, %s, %t) : float32[1,2,2] t1  # net.py:3
%y = relu(%m) : float32[1,2,2] t1  # net.py:4
return %y
"""
    more = "const %g : float32[1] = [3.0]\nconst %h : float32[1] = [-1.0]\n"
    before = parse_graph(HEAD + more + text, OPS | {"own_conv": OwnConv})
    after = Fuse().run(FoldBatchnorm().run(before))
    assert [n.op for n in after.nodes] == [OwnConv(activation="relu")]
    same(before, after)
