import numpy as np
import pytest
from hypothesis import given, settings

from edgec.errors import VerifyError
from edgec.ir.graph import Graph
from edgec.ir.text import parse_graph, parse_type, print_graph, print_type
from edgec.ir.types import DType, QuantParams, TensorType
from edgec.ir.verify import verify
from edgec.ops import OPS
from edgec.passes.streaming.make_streaming import MakeStreaming
from tests.graphs import streaming_nets

SMALL = """graph net
input %x : float32[1,4,2] t1
const %w : float32[2,1] = [1.0, -1.0]
const %b : float32[1] = [0.5]
%y = linear(%x, %w, %b) : float32[1,4,1] t1  # model.py:41
return %y
"""


@settings(max_examples=40, deadline=None)
@given(streaming_nets())
def test_text_round_trips(graph: Graph) -> None:
    for g in (graph, MakeStreaming().run(graph)):
        text = print_graph(g)
        parsed = parse_graph(text, OPS)
        verify(parsed)
        assert print_graph(parsed) == text
        assert (parsed.nodes, parsed.inputs, parsed.outputs, parsed.states) == (g.nodes, g.inputs, g.outputs, g.states)
        assert all(np.array_equal(parsed.consts[n].data, c.data) for n, c in g.consts.items())


@pytest.mark.parametrize(
    "t",
    [
        TensorType((1, 16), DType.I8, QuantParams((0.0235,), -3)),
        TensorType((3, 2), DType.I8, QuantParams((0.5, 0.25), 0, 1)),
        TensorType((1, 9, 33), DType.BIT, None, 1),
        TensorType((), DType.F32),
    ],
)
def test_types_round_trip(t: TensorType) -> None:
    assert parse_type(print_type(t)) == t


def test_spikes_are_packed_by_rows() -> None:
    t = TensorType((1, 3, 33), DType.BIT)
    assert (t.storage_shape, t.bytes) == ((1, 3, 2), 24)


def test_the_small_graph_parses() -> None:
    graph = parse_graph(SMALL, OPS)
    verify(graph)
    assert graph.nodes[0].source == ("model.py:41",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("linear(%x", "linier(%x", "line 5: unknown op 'linier'"),
        ("linear(%x", "linear(%z", "reads %z, which nothing before it defines"),
        (
            ": float32[1,4,1] t1  #",
            ": float32[1,4,9] t1  #",
            "its operands give float32[1,4,1] t1, the node says float32[1,4,9] t1",
        ),
        ("[1.0, -1.0]", "[1.0]", "line 3: expected 2 values for float32[2,1], found 1"),
        ("float32[2,1]", "floot32[2,1]", "line 3: expected a type"),
        ("return %y", "return %q", "returns %q, which nothing defines"),
        ("linear(%x, %w, %b)", "linear(%x, %w, %b) {depth=3}", "attributes of linear do not fit"),
        ("graph net\n", "", "expected a line `graph NAME`"),
    ],
)
def test_bad_text_is_one_clear_error(old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(VerifyError) as info:
        verify(parse_graph(SMALL.replace(old, new), OPS))
    assert message in str(info.value)


def test_the_verifier_shows_the_surroundings() -> None:
    text = SMALL.replace("%y = linear(%x", "%y = linear(%w")
    with pytest.raises(VerifyError) as info:
        verify(parse_graph(text, OPS))
    assert "model.py:41" in str(info.value)
    assert "  > %y = linear(%w, %w, %b)" in str(info.value)
