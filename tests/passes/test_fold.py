"""fold_batchnorm: the same numbers from fewer nodes."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.frontends.builder import GraphBuilder
from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Const, Graph
from edgec.ir.text import parse_graph, print_graph
from edgec.ir.types import TensorType
from edgec.ir.verify import verify
from edgec.ops import OPS
from edgec.passes.canonicalize import Canonicalize
from edgec.passes.fold_batchnorm import FoldBatchnorm


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
%y = affine(%x, %a_1, %b_1) : float32[1,2]
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


@st.composite
def chains(draw):
    """Random chains of affine maps, convolutions, linear layers and elementwise ops, with side exits."""
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
        kind = draw(st.sampled_from(["affine"] * 4 + ["conv1d", "conv1d", "linear", "relu", "add"]))
        if kind == "affine":
            shift = (
                builder.const("zero", np.zeros(channels, np.float32)) if draw(st.booleans()) else value("t", channels)
            )
            pool.append(
                builder.emit(OPS["affine"](axis=draw(st.sampled_from([-1, 2]))), x, value("s", channels), shift)
            )
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
