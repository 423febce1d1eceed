"""Chains that run in steps: the schedule against the whole layers, the C against the reference, arenas that shrink."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import edgec
from edgec.backends.emit import write_folder
from edgec.device import open_device
from edgec.errors import BudgetError
from edgec.ir.evaluate import evaluate, evaluate_all
from edgec.ir.graph import Const, Graph, Node, Value
from edgec.ir.types import DType, TensorType
from edgec.ops import Permute, QAffine, QConv2dRequantize, QLut
from edgec.plan import Plan, Tiling, regions
from edgec.plan.regions import Region, chains, layer_of
from edgec.plan.tiles import Fetch, Keep, Store
from edgec.profile.budget import Budget
from edgec.target import load_target
from edgec.toolchain.manifest import read_manifest

Spec = tuple[tuple[int, int], dict, int]  # kernel, fields of the op, channels made


def chain(h: int, w: int, channels: int, layers: list[Spec]) -> Graph:
    """Layers one after the other, between two permutes: neither end is an input or output of the graph."""
    rng = np.random.default_rng(h * w)
    x = TensorType((1, channels, h, w), DType.I8)
    consts, nodes = {}, [Node(Permute((0, 2, 3, 1)), ("x",), ("y0",), Permute((0, 2, 3, 1)).infer([x]), ("net.py:1",))]
    for k, (kernel, fields, out) in enumerate(layers):
        inside = nodes[-1].type.shape[3]
        if kernel == (0, 0):
            op = QAffine(shift=4, zero_point=2)
            arrays = [rng.integers(-30, 30, inside).astype(np.int32) for _ in range(2)]
        elif kernel == (0, 1):
            op, arrays = QLut(), [rng.integers(-128, 128, 256).astype(np.int8)]
        else:
            op = QConv2dRequantize(pad_value=-7, zero_point=3, **fields)
            arrays = [
                rng.integers(-127, 128, (*kernel, inside // op.groups, out)).astype(np.int8),
                *(rng.integers(*r, out).astype(np.int32) for r in ((-999, 999), (1 << 30, 1 << 31), (38, 41))),
            ]
        values = {f"c{k}_{j}": Const(a, TensorType(a.shape, DType(a.dtype.name))) for j, a in enumerate(arrays)}
        types = op.infer([nodes[-1].type, *(c.type for c in values.values())])
        nodes.append(Node(op, (nodes[-1].output, *values), (f"y{k + 1}",), types, ("net.py:1",)))
        consts |= values
    back = Permute((0, 3, 1, 2))
    nodes.append(Node(back, (nodes[-1].output,), ("out",), back.infer([nodes[-1].type]), ("net.py:1",)))
    return Graph("chain", (Value("x", x),), consts, tuple(nodes), ("out",))


def block(h: int, w: int, stride: int = 1, wide: int = 24, before: int = 1) -> Graph:
    """Expand, depthwise, project: the inverted residual of MobileNetV2."""
    pad = (before, 1, before, 1)
    return chain(h, w, 8, [((1, 1), {}, wide), ((3, 3), {"pad": pad, "groups": wide, "stride": (stride, stride)}, wide),
                           ((1, 1), {}, 8)])  # fmt: skip


def with_zones(graph: Graph) -> Graph:
    """The same with a bias of their own for the first and last rows and columns of convolutions without groups."""
    rng, consts, nodes = np.random.default_rng(3), dict(graph.consts), []
    for node in graph.nodes:
        if isinstance(node.op, QConv2dRequantize) and node.op.groups == 1:
            row, col = ((1, *[0] * (n - 2), 2)[:n] for n in node.type.shape[1:3])
            bias = rng.integers(-9999, 9999, (3, 3, node.type.shape[3])).astype(np.int32)
            consts[node.inputs[2]] = Const(bias, TensorType(bias.shape, DType.I32))
            node = dataclasses.replace(node, op=dataclasses.replace(node.op, row_zone=row, col_zone=col))
        nodes.append(node)
    return dataclasses.replace(graph, nodes=tuple(nodes), consts=consts)


def values_of(graph: Graph) -> np.ndarray:
    return np.random.default_rng(1).integers(-128, 128, graph.inputs[0].type.shape).astype(np.int8)


@st.composite
def layer_lists(draw: st.DrawFn) -> list[Spec]:
    found: list[Spec] = []
    for _ in range(draw(st.integers(2, 4))):
        kernel, dilation = draw(st.sampled_from([(0, 0), (1, 1), (3, 3), (5, 3), (2, 2)])), draw(st.integers(1, 2))
        pads = [draw(st.integers(0, max(0, (k - 1) * dilation))) for k in kernel for _ in range(2)]
        stride = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
        found.append((kernel, {"pad": tuple(pads), "stride": stride, "dilation": (dilation, dilation)}, 4))
    return found


@settings(max_examples=60, deadline=None)
@given(layer_lists(), st.integers(9, 21), st.integers(9, 17), st.integers(1, 5), st.integers(1, 3), st.booleans())
def test_the_steps_of_a_chain_make_every_row_of_it(
    specs: list[Spec], h: int, w: int, rows: int, strips: int, zones: bool
) -> None:
    """The references of the parts, on tiles that hold nothing but what the schedule says, against the whole layers."""
    try:
        graph = chain(h, w, 4, specs)
    except ValueError:
        return  # an image smaller than a kernel
    graph = with_zones(graph) if zones else graph
    first, last = 1, len(specs)
    whole = evaluate_all(graph, {"x": torch.from_numpy(values_of(graph).astype(np.int64))})
    layers = tuple(layer_of(graph, n) for n in graph.nodes[first : last + 1])
    source, expected = whole["y0"], whole[f"y{last}"]
    region = Region(first, last, rows, min(strips, expected.shape[2]), layers)
    found = torch.full_like(expected, -999)
    for plan in region.schedules:
        tiles = [torch.full((1, n, b - a, 4), -999) for n, (a, b) in zip(plan.capacity, plan.cols, strict=True)]
        if region.strips == 1:
            tiles[0], tiles[last] = source, found
        for action in (a for step in plan.steps for a in step):
            if isinstance(action, Keep):
                tile = tiles[action.tensor]
                tile[:, action.to : action.to + action.count] = tile[
                    :, action.start : action.start + action.count
                ].clone()
            elif isinstance(action, Fetch):
                left, right = plan.cols[0]
                rows_in = source[:, action.first : action.first + action.count, left:right]
                tiles[0][:, action.to : action.to + action.count] = rows_in
            elif isinstance(action, Store):
                left, right = plan.cols[last]
                found[:, action.first : action.first + action.count, left:right] = tiles[last][:, : action.count]
            else:
                x = tiles[action.layer][:, action.read : action.read + action.rows]
                operands = [whole[i] for i in graph.nodes[first + action.layer].inputs[1:]]
                y = action.op.reference(x, *operands)
                assert y.shape[1:3] == (action.made, action.wide[1] - action.wide[0])
                tiles[action.layer + 1][:, action.write : action.write + action.made] = y
    assert torch.equal(found, expected)
    if region.strips == 1:
        assert region.macs() <= sum(x.op.cost(x.inputs, (x.output,)).macs for x in layers), "no row is made twice"


def run(graph: Graph, folder: Path, arena: int | None, device: str = "host", target: str = "host") -> Plan:
    """Compile for cores with DSP instructions, run, compare with the reference byte for byte."""
    goal = dataclasses.replace(load_target("cortex-m7"), name=target)
    plan = write_folder(graph, goal, folder, tiling=Tiling(arena))
    with open_device(device, folder, read_manifest(folder), load_target(target)) as opened:
        found = opened.step([values_of(graph)])
    assert found is not None
    expected = evaluate(graph, {"x": torch.from_numpy(values_of(graph).astype(np.int64))})[0].numpy()
    assert found[0].reshape(-1).tolist() == expected.reshape(-1).tolist()
    return plan


@pytest.mark.parametrize(
    "graph",
    [
        block(16, 16),
        block(16, 12, stride=2),
        block(12, 16, stride=2, before=0),
        block(9, 8, wide=28),
        block(7, 5),
        with_zones(block(12, 12)),
    ],
    ids=["even", "stride", "tflite", "odd", "small", "zones"],
)
def test_an_inverted_residual_without_its_wide_tensor(tmp_path: Path, graph: Graph) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "steps").mkdir()
    whole = write_folder(graph, load_target("host"), tmp_path / "whole")
    plan = run(graph, tmp_path / "steps", 1)
    assert plan.arena_bytes < whole.arena_bytes
    assert plan.regions
    inner = [o for r in plan.regions for n in graph.nodes[r.first : r.last] for o in n.outputs]
    assert set(inner) == plan.tiles
    assert all(n.outputs == () for n in read_manifest(tmp_path / "steps").nodes if n.id + 1 in inner)
    assert [c.index for c in plan.calls] == list(range(len(graph.nodes)))


def test_a_table_between_convolutions_takes_part(tmp_path: Path) -> None:
    """It has no rule for parts: that each pixel is made of the one at its place follows from its axes."""
    pad = (1, 1, 1, 1)
    table, middle = ((0, 1), {}, 24), ((3, 3), {"pad": pad, "groups": 24}, 24)
    graph = chain(16, 12, 8, [((1, 1), {}, 24), table, middle, table, ((1, 1), {}, 8)])
    (tmp_path / "whole").mkdir()
    (tmp_path / "steps").mkdir()
    whole = write_folder(graph, load_target("host"), tmp_path / "whole")
    plan = run(graph, tmp_path / "steps", 1)
    assert [(r.first, r.last) for r in plan.regions] == [(1, 5)]
    assert plan.arena_bytes < whole.arena_bytes / 2


def test_on_the_emulated_core(tmp_path: Path) -> None:
    pytest.importorskip("unicorn")
    plan = run(with_zones(block(16, 16)), tmp_path, None, "unicorn", "cortex-m7")
    assert [r.strips for r in plan.regions] == [1]
    assert any(c.in_place for c in plan.every_call), "the depthwise rows lie in the tile they come from"


def test_strips_of_columns_make_the_arena_smaller_still(tmp_path: Path) -> None:
    """Three windows in a row over a wide image: lines of it are what is large."""
    pad = (1, 1, 1, 1)
    layers: list[Spec] = [((3, 3), {"pad": pad}, 16), ((3, 3), {"pad": pad, "stride": (2, 2)}, 16),
                          ((3, 3), {"pad": pad, "stride": (2, 2)}, 8)]  # fmt: skip
    graph = with_zones(chain(24, 48, 4, layers))
    (tmp_path / "lines").mkdir()
    (tmp_path / "strips").mkdir()
    lines = run(graph, tmp_path / "lines", 14_000)
    assert lines.arena_bytes <= 14_000
    assert {r.strips for r in lines.regions} == {1}
    strips = run(graph, tmp_path / "strips", 1)
    assert strips.arena_bytes < lines.arena_bytes
    (region,) = strips.regions
    assert region.strips > 1
    whole = sum(x.op.cost(x.inputs, (x.output,)).macs for x in region.layers)
    assert whole < region.macs() < 2 * whole, "columns at the edges of strips are computed twice"


@pytest.mark.parametrize("strips", [2, 3, 5])
def test_leading_convolutions_in_patches(tmp_path: Path, strips: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start of a MobileNetV1: strips have edges of their own, and of their steps only some are turns of a loop."""
    pad, same = (0, 1, 0, 1), (1, 1, 1, 1)
    layers: list[Spec] = [((3, 3), {"pad": pad, "stride": (2, 2)}, 8), ((3, 3), {"pad": same, "groups": 8}, 8),
                          ((1, 1), {}, 16), ((3, 3), {"pad": pad, "stride": (2, 2), "groups": 16}, 16)]  # fmt: skip
    graph = chain(48, 48, 3, layers)
    monkeypatch.setattr(regions, "STRIPS", (strips,))
    plan = run(graph, tmp_path, 1)
    assert {r.strips for r in plan.regions} == {strips}
    steps = [o.step for loop in plan.program for item in loop.items for o in item.at.values()]
    assert min(steps) >= 0
    assert max(steps) > 0


def test_compile_makes_the_arena_fit_the_ram_asked_for(tmp_path: Path) -> None:
    """The plain plan needs 20 KB, steps cost least at 6 KB, strips of columns less still; then it is an error."""
    graph, data = block(24, 24, wide=32), values_of(block(24, 24, wide=32))

    def compiled(ram: int | None, name: str) -> dict:
        budget = Budget(ram=ram) if ram else None
        return edgec.compile(graph, "cortex-m4", tmp_path / name, calibration=data, budget=budget).report

    free = compiled(None, "free")
    asked = free["totals"]["ram"] - 200
    small = compiled(asked, "small")
    assert small["totals"]["ram"] <= asked
    assert small["totals"]["instructions_mean"] > free["totals"]["instructions_mean"]
    assert small["steps"][0]["rows"] < free["steps"][0]["rows"] or small["steps"][0]["strips"] > 1
    with pytest.raises(BudgetError, match="strips of columns that need least already"):
        compiled(1000, "least")
    assert not (tmp_path / "least").exists()


def test_without_gain_nothing_runs_in_steps(tmp_path: Path) -> None:
    graph = chain(8, 8, 8, [((1, 1), {}, 8), ((1, 1), {}, 8)])
    assert run(graph, tmp_path, None).regions == ()


class Rows(torch.nn.Module):
    """What differs from row to row, or from column to column, is no layer of a chain."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 6, 3), torch.nn.Conv2d(6, 4, 3)
        self.gain = torch.linspace(0.5, 2, 7).reshape(shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x) * self.gain + 0.1))


@pytest.mark.parametrize("shape", [(7,), (7, 1)])
def test_maps_along_rows_and_columns_between_convolutions(tmp_path: Path, shape: tuple[int, ...]) -> None:
    module, data = Rows(*shape).eval(), torch.randn(16, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    compiled = edgec.compile(module, "host", tmp_path / "out", calibration=data.numpy(), example_inputs=(data[:1],))
    expected = module(data[:1]).detach().numpy()
    assert np.abs(compiled.run(data[:1].numpy()) - expected).max() < 0.05 * np.abs(expected).max()


def test_chains_end_where_a_tensor_is_used_twice() -> None:
    graph = block(8, 8)
    assert chains(graph) == [(1, 3)]
    twice = dataclasses.replace(graph, outputs=("out", "y2"))
    assert chains(twice) == [(1, 2)]
