import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.ir.graph import Graph, State
from edgec.ir.types import DType, TensorType
from edgec.ops import Add, LayerNorm, Relu, Reshape
from edgec.passes.streaming.make_streaming import MakeStreaming
from edgec.plan import arena, make_plan
from edgec.plan.arena import ALIGN, Buffer, lower_bound, place
from edgec.plan.state import HEADER_BYTES, alignment, lay_out
from tests.graphs import Builder, conv, lif, streaming_nets


@st.composite
def buffers(draw: st.DrawFn) -> list[Buffer]:
    rows = draw(st.lists(st.tuples(st.integers(1, 4000), st.integers(0, 30), st.integers(0, 10)), max_size=25))
    return [Buffer(f"b{k}", size, first, first + length) for k, (size, first, length) in enumerate(rows)]


@settings(deadline=None)
@given(buffers())
def test_buffers_alive_together_never_overlap(rows: list[Buffer]) -> None:
    placement = place(rows)
    total, offsets = placement.bytes, placement.offsets
    assert total >= placement.lower_bound >= lower_bound(rows)
    for a in rows:
        assert offsets[a.name] % ALIGN == 0
        assert offsets[a.name] + a.size <= total
        for b in rows:
            if a is not b and a.overlaps(b):
                assert offsets[a.name] + a.size <= offsets[b.name] or offsets[b.name] + b.size <= offsets[a.name]


def brute_force(rows: list[Buffer]) -> int:
    """The least arena: every order, each buffer below or on top of what is there."""
    best = sum(b.padded for b in rows)
    for order in itertools.permutations(rows):
        placed: list[tuple[int, Buffer]] = []
        for b in order:
            alive = [(at, o) for at, o in placed if o.overlaps(b)]
            tops = sorted({0, *(at + o.padded for at, o in alive)})
            fits = (t for t in tops if all(t + b.padded <= at or at + o.padded <= t for at, o in alive))
            placed.append((next(fits), b))
        best = min(best, max(at + b.padded for at, b in placed))
    return best


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=6))
def test_small_arenas_are_the_smallest_there_are(rows: list[tuple[int, int, int]]) -> None:
    placement = place([Buffer(f"b{k}", size, at, at + length) for k, (size, at, length) in enumerate(rows)])
    least = brute_force([Buffer(f"b{k}", size, at, at + length) for k, (size, at, length) in enumerate(rows)])
    assert placement.bytes == placement.lower_bound == least


def test_where_greedy_orders_fail_the_search_reaches_the_bound_and_is_repeatable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(5)
    rows = [
        Buffer(f"b{k}", int(rng.integers(1, 4000)), int(first), int(first + rng.integers(0, 10)))
        for k, first in enumerate(rng.integers(0, 30, 20))
    ]
    found = place(rows)
    assert found.bytes == found.lower_bound == lower_bound(rows) == 14256
    assert place(rows) == found
    monkeypatch.setattr(arena, "_search", lambda buffers, greedy: greedy)
    assert place(rows).bytes == 14816


@given(st.lists(st.tuples(st.sampled_from(list(DType)), st.integers(1, 70)), max_size=12))
def test_state_members_are_aligned_and_apart(rows: list[tuple[DType, int]]) -> None:
    states = [State(f"s{k}", TensorType((1, n), dtype)) for k, (dtype, n) in enumerate(rows)]
    size, members = lay_out(states)
    end = HEADER_BYTES
    for m in members:
        assert m.offset == end
        assert m.offset % alignment(m.state) == 0
        end = m.end
    assert end <= size < end + 8
    assert size % 8 == 0


@settings(max_examples=30, deadline=None)
@given(streaming_nets())
def test_every_tensor_has_a_place(graph: Graph) -> None:
    step = MakeStreaming().run(graph)
    plan = make_plan(step, lambda op, site: ("generic", op.lower(site)))
    for node in step.nodes:
        assert all(o in plan.places for o in node.outputs)
    assert plan.arena_bytes >= plan.arena_lower_bound


def test_a_chain_needs_two_buffers_and_delay_lines_none() -> None:
    b = Builder()
    x = b.input("x", 1, 5, 8)
    for _ in range(4):
        x = lif(b, conv(b, x, 8, 3, (1, 1)))
    plan = make_plan(MakeStreaming().run(b.build(x)), lambda op, site: ("generic", op.lower(site)))
    assert plan.arena_bytes == plan.arena_lower_bound == 2 * 8 * 4
    lines = [p for n, p in plan.places.items() if n.endswith("_delay_line")]
    assert len(lines) == 4
    assert {p.storage for p in lines} == {"state"}


def test_an_elementwise_output_takes_the_memory_of_an_operand_that_dies() -> None:
    b = Builder()
    x = conv(b, b.input("x", 1, 5, 8), 8, 1, (0, 0))
    y = b.emit(Relu(), b.emit(Relu(), x))
    graph = b.build(conv(b, b.emit(Add(), y, y), 8, 1, (0, 0)))
    plan = make_plan(MakeStreaming().run(graph), lambda op, site: ("generic", op.lower(site)))
    assert plan.arena_bytes == plan.arena_lower_bound == 2 * 8 * 4  # y + y reads one operand twice: not in place
    assert [c.node.op.name for c in plan.calls if c.in_place] == ["relu", "relu"]


def test_an_operand_that_lives_on_is_not_overwritten() -> None:
    b = Builder()
    x = conv(b, b.input("x", 1, 5, 8), 8, 1, (0, 0))
    y = b.emit(Relu(), x)
    plan = make_plan(
        MakeStreaming().run(b.build(conv(b, b.emit(Add(), x, y), 8, 1, (0, 0)))),
        lambda op, site: ("generic", op.lower(site)),
    )
    assert [c.node.op.name for c in plan.calls if c.in_place] == ["add"]


def test_a_view_of_an_output_that_took_an_operands_memory_keeps_it_alive() -> None:
    """relu overwrites the sum; the sum's memory must live as long as the relu's view is read."""
    b = Builder()
    total = b.emit(Add(), b.input("x", 1, 4, 6, time=None), b.normal(1, 4, 6))
    view = b.emit(Reshape((1, 2, 12)), b.emit(Relu(), total))
    scaled = b.emit(LayerNorm(), view, b.normal(12), b.normal(12))
    graph = b.build(b.emit(Relu(), b.emit(Add(), scaled, view)))
    plan = make_plan(graph, lambda op, site: ("generic", op.lower(site)))
    apart = plan.places[view].offset, plan.places[scaled].offset
    assert plan.places[view].offset == plan.places[total].offset
    assert abs(apart[0] - apart[1]) >= 24 * 4
