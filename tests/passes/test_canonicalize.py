"""canonicalize: each tensor computed once, in the plainest way, and no number changed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgec.frontends import load
from edgec.frontends.builder import GraphBuilder
from edgec.ir.evaluate import evaluate
from edgec.ir.graph import Graph, Node, Value
from edgec.ir.text import parse_graph, print_graph
from edgec.ir.types import DType, TensorType
from edgec.ir.verify import verify
from edgec.ops import OPS
from edgec.ops.base import Op, site_of
from edgec.passes.canonicalize import Canonicalize, Rewriter
from edgec.passes.own_outputs import OwnOutputs
from edgec.stages import float_passes, transform
from tests.fuzz.random_networks import network


def drawn(graph: Graph, seed: int = 0) -> dict[str, torch.Tensor]:
    """Inputs of a graph."""
    rng = np.random.default_rng(seed)
    return {
        v.name: torch.from_numpy(rng.normal(size=v.type.shape).astype(np.float32))
        if v.type.dtype is DType.F32
        else torch.from_numpy(rng.integers(*v.type.dtype.range, size=v.type.shape))
        for v in graph.inputs
    }


def canonical(before: Graph) -> Graph:
    """The canonical form: of the same numbers, types and names, and its own canonical form."""
    after = Canonicalize().run(before)
    verify(after)
    inputs = drawn(before)
    assert after.inputs == before.inputs
    assert (after.results or after.outputs) == (before.results or before.outputs)
    assert [after.type_of(o) for o in after.outputs] == [before.type_of(o) for o in before.outputs]
    for a, b in zip(evaluate(before, inputs), evaluate(after, inputs), strict=True):
        assert torch.equal(a, b)
    assert print_graph(Canonicalize().run(after)) == print_graph(after)
    return after


def form(text: str) -> str:
    """The nodes and results of the canonical form, with the constants they read."""
    before = parse_graph("graph net\n" + text, OPS)
    verify(before)
    lines = print_graph(canonical(before)).splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(("graph", "input")))


def test_an_identical_permute_of_many_branches_is_one() -> None:
    branches = "".join(
        f"%p{k} = permute(%x) {{perm=(0, 2, 1)}} : float32[1,3,2]  # net.py:{k}\n%y{k} = {op}(%p{k}) : float32[1,3,2]\n"
        for k, op in enumerate(("relu", "gelu", "tanh"))
    )
    assert (
        form(f"input %x : float32[1,2,3]\n{branches}return %y0, %y1, %y2\n")
        == """\
%p0 = permute(%x) {perm=(0, 2, 1)} : float32[1,3,2]  # net.py:0; net.py:1; net.py:2
%y0 = relu(%p0) : float32[1,3,2]
%y1 = gelu(%p0) : float32[1,3,2]
%y2 = tanh(%p0) : float32[1,3,2]
return %y0, %y1, %y2
"""
    )


def test_the_same_layer_on_equal_constants_is_one() -> None:
    assert (
        form("""\
input %x : float32[1,2]
const %w : float32[2,1] = [1.0, 2.0]
const %v : float32[2,1] = [1.0, 2.0]
const %u : float32[2,1] = [1.0, 3.0]
const %b : float32[1] = [0.5]
const %c : float32[1] = [0.5]
%l = linear(%x, %w, %b) : float32[1,1]
%m = linear(%x, %v, %c) : float32[1,1]
%n = linear(%x, %u, %c) : float32[1,1]
%s = add(%l, %m) : float32[1,1]
%t = add(%m, %l) : float32[1,1]
%d = sub(%l, %n) : float32[1,1]
%e = sub(%n, %m) : float32[1,1]
%y = concat(%s, %t, %d, %e) : float32[1,4]
return %y
""")
        == """\
const %w : float32[2,1] = [1.0, 2.0]
const %u : float32[2,1] = [1.0, 3.0]
const %b : float32[1] = [0.5]
const %c : float32[1] = [0.5]
%l = linear(%x, %w, %b) : float32[1,1]
%n = linear(%x, %u, %c) : float32[1,1]
%s = add(%l, %l) : float32[1,1]
%d = sub(%l, %n) : float32[1,1]
%e = sub(%n, %l) : float32[1,1]
%y = concat(%s, %s, %d, %e) : float32[1,4]
return %y
"""
    )


def test_two_neurons_with_the_same_input_are_one_and_with_another_threshold_two() -> None:
    text = form("""\
input %x : float32[1,4,2] t1
const %beta : float32[1] = [0.5]
const %low : float32[1] = [0.5]
const %high : float32[1] = [1.0]
%a = lif(%x, %beta, %low) : float32[1,4,2] t1
%b = lif(%x, %beta, %beta) : float32[1,4,2] t1
%c = lif(%x, %beta, %high) : float32[1,4,2] t1
%y = concat(%a, %b, %c) : float32[1,4,6] t1
return %y
""")
    assert text.count("lif(") == 2
    assert "concat(%a, %a, %c)" in text


def test_integer_nodes_are_merged_and_moves_cancel() -> None:
    assert (
        form(
            """\
input %x : int8[1,2,3] q(0.5,-3)
const %table : int8[256] = [MANY]
%a = reshape(%x) {shape=(1, 6)} : int8[1,6] q(0.5,-3)
%b = reshape(%a) {shape=(1, 3, 2)} : int8[1,3,2] q(0.5,-3)
%c = qlut(%b, %table) {scale=0.5} : int8[1,3,2] q(0.5,0)
%d = reshape(%x) {shape=(1, 3, 2)} : int8[1,3,2] q(0.5,-3)
%e = qlut(%d, %table) {scale=0.5} : int8[1,3,2] q(0.5,0)
%f = concat(%c, %e) : int8[1,3,4] q(0.5,0)
%g = permute(%f) {perm=(0, 2, 1)} : int8[1,4,3] q(0.5,0)
%y = permute(%g) {perm=(0, 2, 1)} : int8[1,3,4] q(0.5,0)
return %y
""".replace("MANY", ", ".join(map(str, range(-128, 128))))
        ).replace(", ".join(map(str, range(-128, 128))), "MANY")
        == """\
const %table : int8[256] = [MANY]
%b = reshape(%x) {shape=(1, 3, 2)} : int8[1,3,2] q(0.5,-3)
%c = qlut(%b, %table) {scale=0.5} : int8[1,3,2] q(0.5,0)
%y = concat(%c, %c) : int8[1,3,4] q(0.5,0)
return %y
"""
    )


#: nodes on x and the constants below, and what is left of them
IDENTITIES = {
    "dead": ("%a = gelu(%x) : T\n%y = relu(%x) : T\n", "%y = relu(%x) : T\n"),
    "sum with zero": ("%a = relu(%x) : T\n%y = add(%zero, %a) : T\n", "%y = relu(%x) : T\n"),
    "difference to zero": ("%a = relu(%x) : T\n%y = sub(%a, %zero) : T\n", "%y = relu(%x) : T\n"),
    "product with one": ("%a = relu(%x) : T\n%y = mul(%ones, %a) : T\n", "%y = relu(%x) : T\n"),
    "quotient by one": ("%a = relu(%x) : T\n%y = div(%a, %one) : T\n", "%y = relu(%x) : T\n"),
    "affine": ("%a = relu(%x) : T\n%y = affine(%a, %ones, %zeros) : T\n", "%y = relu(%x) : T\n"),
    "not an affine": ("%y = affine(%x, %ones, %ones) : T\n", "%y = affine(%x, %ones, %ones) : T\n"),
    "zero minus x": ("%y = sub(%zero, %x) : T\n", "%y = sub(%zero, %x) : T\n"),
    "moves": (
        "%a = relu(%x) : T\n%b = reshape(%a) {shape=(1, 2, 2)} : T\n%c = slice(%b) {axis=1, stop=2} : T\n"
        "%d = pad(%c) {amounts=(0, 0, 0, 0, 0, 0)} : T\n%e = concat(%d) : T\n%f = copy(%e) : T\n"
        "%g = permute(%f) {perm=(0, 1, 2)} : T\n%y = gelu(%g) : T\n",
        "%a = relu(%x) : T\n%y = gelu(%a) : T\n",
    ),
    "cancelling permutes, the first read elsewhere": (
        "%a = permute(%x) {perm=(0, 2, 1)} : T\n%b = tanh(%a) : T\n%c = permute(%a) {perm=(0, 2, 1)} : T\n"
        "%y = add(%b, %c) : T\n",
        "%a = permute(%x) {perm=(0, 2, 1)} : T\n%b = tanh(%a) : T\n%y = add(%b, %x) : T\n",
    ),
    "turning permutes": (
        "%a = permute(%x) {perm=(2, 0, 1)} : float32[2,1,2]\n%y = permute(%a) {perm=(2, 0, 1)} : float32[2,2,1]\n",
        "%y = permute(%x) {perm=(1, 2, 0)} : float32[2,2,1]\n",
    ),
    "slices": (
        "%w = concat(%x, %x) : float32[1,2,4]\n%a = slice(%w) {start=1, stop=4} : float32[1,2,3]\n"
        "%b = slice(%a) {axis=2, start=1, stop=2} : float32[1,2,1]\n%c = slice(%w) {start=2, stop=3} : float32[1,2,1]\n"
        "%y = add(%b, %c) : float32[1,2,1]\n",
        "%w = concat(%x, %x) : float32[1,2,4]\n%b = slice(%w) {axis=2, start=2, stop=3} : float32[1,2,1]\n"
        "%y = add(%b, %b) : float32[1,2,1]\n",
    ),
    "pads": (
        "%a = pad(%x) {amounts=(0, 0, 0, 0, 1, 0)} : float32[1,2,3]\n"
        "%y = pad(%a) {amounts=(0, 0, 1, 0, 1, 2)} : float32[1,3,6]\n",
        "%y = pad(%x) {amounts=(0, 0, 1, 0, 2, 2)} : float32[1,3,6]\n",
    ),
    "pads of different values": (
        "%a = pad(%x) {amounts=(0, 0, 0, 0, 1, 0), value=1.0} : float32[1,2,3]\n"
        "%y = pad(%a) {amounts=(0, 0, 0, 0, 0, 1)} : float32[1,2,4]\n",
    )
    * 2,
    "relu of relu": ("%a = relu(%x) : T\n%b = relu(%a) : T\n%y = add(%a, %b) : T\n",
                     "%a = relu(%x) : T\n%y = add(%a, %a) : T\n"),
    "clamps": (
        "%a = relu(%x) : T\n%b = clip(%a) {low=-1.0, high=7.0} : T\n%y = clip(%b) {low=-2.0, high=6.0} : T\n",
        "%y = relu6(%x) : T\n",
    ),
    "a clamp of a clamp that is read": (
        "%a = relu(%x) : T\n%b = relu6(%a) : T\n%y = add(%a, %b) : T\n",
    )
    * 2,
    "bounds apart": (
        "%a = clip(%x) {low=-2.0, high=-1.0} : T\n%y = relu(%a) : T\n",
        "%y = clip(%x) {low=0.0, high=0.0} : T\n",
    ),
    "a clamp of everything": ("%a = gelu(%x) : T\n%y = clip(%a) : T\n", "%y = gelu(%x) : T\n"),
    "mean of one element": (
        "%a = slice(%x) {axis=2, stop=1} : float32[1,2,1]\n%y = mean(%a) {axis=2} : float32[1,2]\n",
        "%a = slice(%x) {axis=2, stop=1} : float32[1,2,1]\n%y = reshape(%a) {shape=(1, 2)} : float32[1,2]\n",
    ),
    "pool of one element": (
        "%a = reshape(%x) {shape=(1, 1, 2, 2)} : float32[1,1,2,2]\n%b = max_pool2d(%a) : float32[1,1,2,2]\n"
        "%y = avg_pool2d(%b) : float32[1,1,2,2]\n",
        "%y = reshape(%x) {shape=(1, 1, 2, 2)} : float32[1,1,2,2]\n",
    ),
    "constant first": ("%y = mul(%three, %x) : T\n", "%y = mul(%x, %three) : T\n"),
    "third": ("%y = div(%x, %three) : T\n", "%y = div(%x, %three) : T\n"),
    "constants": (
        "%a = add(%ones, %zeros) : float32[2]\n%b = mul(%a, %three) : float32[2]\n%y = mul(%x, %b) : T\n",
        "%y = mul(%x, %b) : T\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", IDENTITIES)
def test_what_changes_nothing_goes(case: str) -> None:
    given_, left = (text.replace(": T", ": float32[1,2,2]") for text in IDENTITIES[case])
    consts = {"zero": [0.0], "one": [1.0], "three": [3.0], "ones": [1.0, 1.0], "zeros": [0.0, 0.0]}
    declared = "".join(f"const %{n} : float32[{len(v)}] = {v}\n" for n, v in consts.items())
    text = form(f"input %x : float32[1,2,2]\n{declared}{given_}return %y\n")
    assert "".join(line for line in text.splitlines(keepends=True) if not line.startswith("const")) == (
        f"{left}return %y\n"
    )


def test_differences_and_halves_are_written_as_sums_and_products() -> None:
    assert (
        form("""\
input %x : float32[1,2]
const %c : float32[2] = [0.5, -3.0]
const %h : float32[2] = [8.0, -0.25]
%a = sub(%x, %c) : float32[1,2]
%y = div(%a, %h) : float32[1,2]
%z = sub(%x, %c) : float32[1,2]
return %y, %z
""")
        == """\
const %c_1 : float32[2] = [-0.5, 3.0]
const %h_1 : float32[2] = [0.125, -4.0]
%z = add(%x, %c_1) : float32[1,2]
%y = mul(%z, %h_1) : float32[1,2]
return %y, %z
"""
    )


def test_a_mean_over_one_frame_stays_a_mean() -> None:
    text = "%y = mean(%x) : float32[1,2]\nreturn %y\n"
    assert form("input %x : float32[1,1,2] t1\n" + text) == text


def test_a_constant_does_not_grow_without_bound() -> None:
    builder = GraphBuilder("net")
    x = builder.input("x", TensorType((1, 1)))
    wide, high = (builder.const(n, np.ones(s, np.float32)) for n, s in (("w", (1, 1 << 13)), ("h", (1 << 13, 1))))
    table = builder.emit(OPS["add"](), wide, high)
    cut = builder.emit(OPS["slice"](axis=0, start=0, stop=1), builder.emit(OPS["add"](), x, table))
    after = Canonicalize().run(builder.build((builder.emit(OPS["slice"](axis=1, start=0, stop=1), cut),)))
    assert [n.op.name for n in after.nodes] == ["add", "add", "slice", "slice"]


def test_results_keep_their_names_and_own_memory() -> None:
    """A result that equals an input stays a node; one that equals another result shares its tensor until it is
    copied."""
    text = """\
graph net
input %x : float32[1,2]
const %zero : float32[1] = [0.0]
%same = add(%x, %zero) : float32[1,2]
%a = relu(%same) : float32[1,2]
%b = relu(%a) : float32[1,2]
%c = relu(%x) : float32[1,2]
%d = gelu(%b) : float32[1,2]
%last = add(%d, %zero) : float32[1,2]
return %same, %b, %c, %last
"""
    after = canonical(parse_graph(text, OPS))
    assert [(n.op.name, n.inputs, n.output) for n in after.nodes] == [
        ("add", ("x", "zero"), "same"), ("relu", ("x",), "b"), ("gelu", ("b",), "last"),
    ]  # fmt: skip
    assert after.outputs == ("same", "b", "b", "last")
    assert after.results == ("same", "b", "c", "last")
    own = OwnOutputs().run(after)
    assert len(set(own.outputs)) == 4


SAMPLES = [(name, op, types) for name, kind in OPS.items() for op, types in kind.samples()]


@pytest.mark.parametrize(("name", "op", "types"), SAMPLES, ids=[f"{s[0]}-{k}" for k, s in enumerate(SAMPLES)])
def test_every_op_is_computed_once(name: str, op: Op, types: tuple[TensorType, ...]) -> None:
    """Also ops that only stand in step graphs, of which a whole-sequence graph has the structure."""
    inputs = tuple(Value(f"x{k}", t) for k, t in enumerate(types))
    made = op.infer(types)
    nodes = tuple(
        Node(op, tuple(v.name for v in inputs), tuple(f"y{k}_{n}" for n in range(len(made))), made, (f"net.py:{k}",))
        for k in range(3)
    )
    graph = Graph("net", inputs, {}, nodes, ("y0_0", "y1_0", "y2_0"))
    after = Canonicalize().run(graph)
    assert len(after.nodes) == (3 if op.equals(site_of(graph, nodes[0])) is not None and made[0] == types[0] else 1)
    assert after.results in ((), graph.outputs)


@st.composite
def graphs(draw) -> str:
    """The text of random nets of moves, arithmetic with plain constants, clamps and functions, often repeated."""
    builder = GraphBuilder("random")
    rank = draw(st.integers(1, 4))
    shape = tuple(draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank)))
    axis = draw(st.sampled_from([None, *range(rank)]))
    pool = [builder.input("x", TensorType(shape, time_axis=axis))]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    for _ in range(draw(st.integers(1, 14))):
        x = draw(st.sampled_from([p for p in pool if builder.type_of(p).shape]))
        try:
            pool.append(random_node(draw, builder, x, pool, rng))
        except (ValueError, IndexError):
            continue  # the op refuses these operands
    return print_graph(builder.build(tuple(draw(st.lists(st.sampled_from(pool), min_size=1, max_size=4)))))


def random_node(draw, builder: GraphBuilder, x: str, pool: list[str], rng: np.random.Generator) -> str:
    t = builder.type_of(x)
    rank = len(t.shape)
    axis = draw(st.integers(0, rank - 1))
    kinds = ["permute", "permute", "reshape", "reshape", "slice", "pad", "concat", "clamp", "clamp", "function"]
    kind = draw(st.sampled_from([*kinds, "const", "const", "const", "binary", "mean", "affine"]))
    if kind == "permute":
        return builder.emit(OPS["permute"](tuple(draw(st.permutations(range(rank))))), x)
    if kind == "reshape":
        shape = draw(st.sampled_from([(t.size,), (*t.shape, 1), (1, *t.shape), t.shape, t.shape[::-1]]))
        places = [k for k, n in enumerate(shape) if n == t.frames]
        return builder.emit(OPS["reshape"](shape, draw(st.sampled_from(places)) if places else None), x)
    if kind == "slice":
        start = draw(st.integers(0, t.shape[axis] - 1))
        return builder.emit(OPS["slice"](axis, start, draw(st.integers(start + 1, t.shape[axis]))), x)
    if kind == "pad":
        amounts = tuple(draw(st.lists(st.integers(0, 1), min_size=2 * rank, max_size=2 * rank)))
        return builder.emit(OPS["pad"](amounts, draw(st.sampled_from([0.0, 1.0]))), x)
    if kind == "concat":
        return builder.emit(OPS["concat"](axis=axis), *(x, draw(st.sampled_from(pool)))[: draw(st.integers(1, 2))])
    if kind == "clamp":
        bounds = st.sampled_from([None, -1.0, 0.0, 0.5, 6.0])
        clip = OPS["clip"](draw(bounds), draw(bounds))
        return builder.emit(draw(st.sampled_from([OPS["relu"](), OPS["relu6"](), clip])), x)
    if kind == "function":
        return builder.emit(OPS[draw(st.sampled_from(["gelu", "abs", "tanh", "copy"]))](), x)
    if kind == "mean":
        return builder.emit(OPS["mean"](axis=axis), x)
    if kind == "affine":
        values = [np.full(t.shape[axis], draw(st.sampled_from([0.0, 1.0, 1.5])), np.float32) for _ in range(2)]
        return builder.emit(OPS["affine"](axis=axis), x, builder.const("s", values[0]), builder.const("t", values[1]))
    op = OPS[draw(st.sampled_from(["add", "sub", "mul", "div"]))]()
    if kind == "binary":
        return builder.emit(op, x, draw(st.sampled_from(pool)))
    shape = tuple(n if draw(st.booleans()) else 1 for n in t.shape)[draw(st.integers(0, rank)) :]
    value = draw(st.sampled_from([0.0, 1.0, 4.0, 3.0, None]))
    data = rng.normal(size=shape) if value is None else np.full(shape, value)
    c = builder.const(f"c{draw(st.integers(0, 2))}", data.astype(np.float32))
    return builder.emit(op, *((x, c) if draw(st.booleans()) else (c, x)))


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal numbers, what is no number being equal to itself."""
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


@given(graphs(), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_random_graphs_keep_every_number(text: str, seed: int) -> None:
    graph = parse_graph(text, OPS)
    after = Canonicalize().run(graph)
    verify(after)
    inputs = drawn(graph, seed)
    for a, b in zip(evaluate(graph, inputs), evaluate(after, inputs), strict=True):
        assert equal(a, b)
    assert [after.type_of(o) for o in after.outputs] == [graph.type_of(o) for o in graph.outputs]
    assert (after.results or after.outputs) == graph.outputs
    assert len(after.nodes) <= len(graph.nodes)
    again = Canonicalize().run(after)
    assert print_graph(again) == print_graph(after)
    returned = {o for o in after.outputs if after.producer(o) is not None}
    twins = Counter((n.op, n.inputs, n.types) for n in after.nodes if n.output not in returned)
    assert not twins or max(twins.values()) == 1


@pytest.mark.parametrize("seed", range(18))
def test_random_networks_keep_every_number(seed: int) -> None:
    case = network(seed)
    graph = load(case.module, case.inputs, name="net")
    after = canonical(graph)
    assert len(after.nodes) <= len(graph.nodes)


def chain(length: int) -> Graph:
    """Products of one element each, on permutes that are computed twice and turned back."""
    builder = GraphBuilder("net")
    x = builder.input("x", TensorType((1, 2, 3)))
    for k in range(length // 4):
        a, b = (builder.emit(OPS["permute"]((0, 2, 1)), x) for _ in range(2))
        c = builder.const(f"c{k}", np.full(1, k + 2, np.float32))
        x = builder.emit(OPS["mul"](), builder.emit(OPS["permute"]((0, 2, 1)), b if k % 2 else a), c)
    return builder.build((x,))


def test_two_thousand_nodes_are_each_looked_at_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, visit = Counter[int](), Rewriter.visit
    for length in (200, 2000):
        monkeypatch.setattr(Rewriter, "visit", lambda self, node, n=length: (seen.update([n]), visit(self, node))[1])
        assert len(Canonicalize().run(chain(length)).nodes) == length // 4
    assert seen[2000] == 10 * seen[200] <= 2 * 2000


class Branches(nn.Module):
    """Layers that each turn the same image's rows and columns round for themselves, and scale what they read."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(6, 5, k % 4 + 1, padding="same") for k in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum(layer(x.transpose(1, 2) / 4 - 0.5).mean(-1) for layer in self.layers)  # type: ignore[return-value]


class Twice(nn.Module):
    """One encoder on two inputs, on the first again for a second head, and results that are each other."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.ReLU(), nn.Linear(9, 3))
        self.register_buffer("offset", torch.tensor([0.25, -0.5, 0.0]))

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, ...]:
        a, b = self.encoder(left), self.encoder(right)
        again = self.encoder(left) - self.offset
        return a * b, again, a - self.offset, (left * 1).relu().relu() + 0


class Flipped(nn.Module):
    """A window whose axes are turned three times on the way to a recurrence over frames, time first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.permute(2, 0, 1).permute(1, 2, 0).permute(0, 2, 1)
        z = x.permute(0, 2, 1).reshape(1, 4, 2, 3).reshape(1, 8, 3).reshape(1, 4, 6)
        return torch.cat([y + z, torch.clamp(torch.relu(y), max=1.5).clamp(min=-1)], 2)


@pytest.mark.parametrize(
    ("module", "shapes", "left"),
    [
        (Branches(23), [(1, 11, 6)], {"permute": 2, "mul": 1, "add": 23}),
        (Twice(), [(1, 7), (1, 7)], {"linear": 4, "relu": 3, "add": 1, "mul": 1}),
        (Flipped(), [(1, 6, 4)], {"permute": 1, "clip": 1, "add": 1, "concat": 1}),
    ],
)
def test_networks_as_users_write_them(module: nn.Module, shapes: list[tuple[int, ...]], left: dict[str, int]) -> None:
    """Against torch: nodes that are left, the numbers after all float passes, and every result in its place."""
    torch.manual_seed(0)
    inputs = tuple(torch.randn(s) for s in shapes)
    graph = load(module.eval().requires_grad_(False), inputs, name="net", time_axis=None)
    after = canonical(graph)
    found = Counter(n.op.name for n in after.nodes)
    assert {k: found[k] for k in left} == left
    expected = module(*inputs)
    for step in (graph, transform(graph, float_passes(), lambda stage: None)[-1]):
        got = evaluate(step, dict(zip((v.name for v in step.inputs), inputs, strict=True)))
        for a, b in zip(got, expected if isinstance(expected, tuple) else (expected,), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_maps_that_cancel_leave_nothing() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = -((torch.relu(x) * 3 / 3).transpose(1, 2) - 0.5)
            return torch.tanh(-(y.transpose(1, 2) - 0.5))

    x = torch.randn(1, 4, 6)
    graph = transform(load(Net().eval(), (x,), name="net", time_axis=None), float_passes(), lambda stage: None)[-1]
    assert [n.op.name for n in graph.nodes] == ["relu", "tanh"]
    torch.testing.assert_close(evaluate(graph, {"x": x})[0], Net()(x))


def test_a_quantised_file_with_equal_branches_gives_onnxruntimes_levels(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from tests.frontends.onnx.onnx_models import Net, normal, onnxruntime

    net = Net(1, 3, 9, 5)
    w, b = net.rng.normal(0, 0.4, (4, 3, 3, 3)), net.rng.normal(0, 0.1, 4)
    arms = [net.node("Conv", "input", net.const(w), net.const(b), pads=[1] * 4) for _ in range(3)]
    total = net.node("Add", net.node("Relu", arms[0]), net.node("Relu", arms[1]))
    net.node("Concat", total, net.node("Relu", arms[2]), axis=1)
    net.node("Reshape", net.x, net.const([1, 8, 45], "int64"))
    net.node("Reshape", net.x, net.const([1, 360], "int64"))
    net.dense(360, 5)
    path = net.quantized(tmp_path / "net.onnx")
    graph = load(path)
    after = canonical(graph)
    convs, merged = (sum("conv" in n.op.name for n in g.nodes) for g in (graph, after))
    assert (convs, merged) == (3, 1)
    x = normal(net.rng, net.shape)
    (got,) = evaluate(after, {after.inputs[0].name: torch.from_numpy(x)})
    step = after.producer(after.outputs[0]).op.grid.scale
    assert np.abs(got.numpy() - onnxruntime(path, x)).max() <= 1.001 * step
