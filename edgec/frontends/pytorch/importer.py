"""torch modules and exported programs to graphs."""

from __future__ import annotations

import io
import logging
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils._pytree import tree_map_only

from edgec.errors import FrontendError, join_problems
from edgec.frontends.builder import GraphBuilder
from edgec.frontends.pytorch.archive import check_inputs
from edgec.frontends.pytorch.aten import CONVERTERS, HINTS
from edgec.frontends.pytorch.call import Call, Constant, Expanded, Padded, call_of, needed_by, to_array
from edgec.frontends.pytorch.fake_quantize import GRIDS, MOVES, moved, switches_as_numbers
from edgec.frontends.pytorch.masks import mask_problems
from edgec.frontends.pytorch.source import source_line, source_of
from edgec.frontends.survey import unsupported
from edgec.ir.graph import Graph
from edgec.ir.types import DType, TensorType
from edgec.ir.verify import verify

TimeAxis = Any  # int | None | one of these per input | "guess"
GUESS = "guess"
Outputs = Sequence[str] | None
#: Operators that only make sense on sequences: a graph with one of them has its time on axis 1.
SEQUENCE_OPS = frozenset({"edgec::lif", "edgec::log_mel", "edgec::lmu_memory", "edgec::running_mean"})


class Failed:
    """Stands for the result of a call that could not be imported; what follows from it is not reported again."""


def target_name(target: Any) -> str:
    """`aten::conv1d` for torch.ops.aten.conv1d.default."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name).removesuffix("_") if target._schema.is_mutable else str(target._schema.name)
    return f"{getattr(target, '__module__', '')}::{getattr(target, '__name__', target)}"


def check_ready(module: nn.Module, name: str) -> None:
    """FrontendError for a module in training mode or with weights that are no numbers."""
    training = sorted(path or "(the model itself)" for path, m in module.named_modules() if m.training)
    if training:
        shown = ", ".join(training[:4]) + (", ..." if len(training) > 4 else "")
        raise FrontendError(
            f"{name}: the module is in training mode ({shown})", hint="call model.eval() before the import"
        )
    check_finite(name, {**dict(module.named_parameters()), **dict(module.named_buffers())})


def export(module: nn.Module, example_inputs: tuple[torch.Tensor, ...], name: str) -> ExportedProgram:
    """torch.export with its failure told in one error.

    Each input is copied: the exporter takes two inputs that are one tensor for one input.
    """
    example_inputs = tree_map_only(torch.Tensor, lambda x: x.detach().clone(), example_inputs)
    try:
        with torch.no_grad(), quiet(), switches_as_numbers(module, name):
            ep: ExportedProgram = torch.export.export(module, example_inputs, strict=False)
            return ep
    except FrontendError:
        raise
    except Exception as err:  # torch.export raises whatever the user's forward raises
        reason = str(err).strip().splitlines() or [type(err).__name__]
        line = source_line("".join(traceback.format_tb(err.__traceback__)))
        where = f" at {line}" if line else ""
        raise FrontendError(
            f"{name}: torch.export cannot trace the module{where}: {type(err).__name__}: {reason[0]}",
            hint="forward must not branch on tensor values; check that it runs on the example inputs",
        ) from err


def from_exported(
    ep: ExportedProgram, name: str = "model", time_axis: TimeAxis = GUESS, outputs: Outputs = None
) -> Graph:
    """Import an exported program (training IR or functional ATen)."""
    check_inputs(name, ep.example_inputs)
    return Importer(without_mutation(ep), name, outputs=outputs).run(time_axis)


def chosen_outputs(ep: ExportedProgram, name: str, outputs: Outputs) -> list[int]:
    """Which of the results the graph returns, by their place.

    outputs: names of fields or keys, or places such as "0". By default all of a tuple, list or dict, and the first
    field of a record (transformers' ModelOutput, an OrderedDict), which is what indexing it with [0] gives: the
    forecast or the logits, without the hidden states and statistics beside them.
    """
    spec = ep.call_spec.out_spec
    if spec is None:
        return list(range(sum(o.kind is OutputKind.USER_OUTPUT for o in ep.graph_signature.output_specs)))
    fields = spec.context if isinstance(spec.context, list) and len(spec.context) == spec.num_leaves else []
    places = [str(k) for k in range(spec.num_leaves)]
    if outputs is None:
        return [0] if fields and spec.type is not dict else list(range(spec.num_leaves))
    known = {n: k for names in (places, fields) for k, n in enumerate(names)}
    unknown = [o for o in outputs if o not in known]
    if unknown or not outputs:
        raise FrontendError(
            f"{name}: expected outputs of the model, found {repr(unknown[0]) if unknown else 'none'}",
            hint=f"one or more of {', '.join(map(str, fields or places))}",
        )
    return [known[o] for o in outputs]


def called(ep: ExportedProgram, chosen: Sequence[int], outputs: Sequence[str]) -> tuple[str, ...]:
    """What the user calls the results: keys and fields in what forward returns, else the names of the tensors."""
    spec = ep.call_spec.out_spec
    paths = [] if spec is None else list(key_paths(spec))
    if len(paths) != len(ep.graph_signature.user_outputs):
        return tuple(outputs)
    keys = [".".join(paths[k]) for k in chosen]
    return tuple(key or name for key, name in zip(keys, outputs, strict=True))


def key_paths(spec: Any) -> Iterator[tuple[str, ...]]:
    """For every leaf of a pytree, the keys that lead to it; places in tuples and lists count where keys follow."""
    if spec.is_leaf():
        yield ()
        return
    children = spec.children() if callable(getattr(spec, "children", None)) else spec.children_specs
    keyed = isinstance(spec.context, list) and len(spec.context) == len(children)
    for key, child in zip(spec.context if keyed else range(len(children)), children, strict=True):
        for path in key_paths(child):
            yield (str(key), *path) if keyed or path else ()


def without_mutation(ep: ExportedProgram) -> ExportedProgram:
    """The same program with in-place calls made functional and every other call as it is."""
    mutates = any(is_mutable(node.target) for node in ep.graph.nodes if node.op == "call_function")
    if not mutates:
        return ep
    with quiet():
        functional: ExportedProgram = ep.run_decompositions({})
    return functional


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporter says about itself: warnings, log lines, and graphs where it fails."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def is_mutable(target: Any) -> bool:
    """Whether a call changes one of its operands."""
    # detach_ changes no value, nor does an observer that is off; one that is on is refused
    harmless = target in (torch.ops.aten.detach_.default, torch.ops.aten.fused_moving_avg_obs_fake_quant.default)
    return isinstance(target, torch._ops.OpOverload) and bool(target._schema.is_mutable) and not harmless


def check_finite(name: str, tensors: dict[str, torch.Tensor]) -> None:
    """FrontendError for weights with NaN or infinity; -inf in what is no parameter may be a mask."""
    bad = [
        f"{key}: {count} of {t.numel()} values are not finite"
        for key, t in tensors.items()
        if (count := int((~torch.isfinite(t) & (isinstance(t, nn.Parameter) | ~torch.isneginf(t))).sum()))
    ]
    if bad:
        raise FrontendError(
            join_problems(f"{name}: weights with NaN or infinity:", bad),
            hint="the training diverged; use an earlier checkpoint",
        )


class Importer:
    """One walk over an exported program."""

    def __init__(self, ep: ExportedProgram, name: str, prefix: str = "", outputs: Outputs = None) -> None:
        self.ep = ep
        self.chosen = chosen_outputs(ep, name, outputs)
        self.name = name
        self.prefix = prefix  # of a module put around the user's own
        self.builder = GraphBuilder(name)
        self.env: dict[fx.Node, Any] = {}
        self.buffers: dict[str, Constant] = {}  # what is stored, by its path
        self.problems: list[str] = []

    def run(self, time_axis: TimeAxis) -> Graph:
        axes = self.time_axes(time_axis)
        specs = self.ep.graph_signature.input_specs
        placeholders = [n for n in self.ep.graph.nodes if n.op == "placeholder"]
        live = self.live()
        for node, spec in zip(placeholders, specs, strict=True):
            if spec.kind is InputKind.USER_INPUT:
                self.env[node] = self.user_input(node, axes, node in live)
            else:
                self.env[node] = Constant(str(spec.target).removeprefix(self.prefix), self.stored(spec))
                self.buffers[str(spec.target)] = self.env[node]
        calls = [n for n in self.ep.graph.nodes if n.op == "call_function" and n in live]
        self.problems += unsupported(self.unknown(calls), HINTS)
        for node in calls:
            self.env[node] = self.convert(node)
        outputs = self.outputs()
        if self.problems:
            raise FrontendError(join_problems(f"{self.name}: the model cannot be imported:", self.problems))
        graph = self.builder.build(outputs)
        problems = mask_problems(graph, frozenset(self.builder.masks.intersection(graph.consts)))
        if problems:
            raise FrontendError(join_problems(f"{self.name}: the model cannot be imported:", problems))
        verify(graph)
        return replace(graph, results=called(self.ep, self.chosen, outputs))

    def live(self) -> set[fx.Node]:
        """What a returned result or a changed buffer needs; what else the model computes is not imported."""
        (output,) = (n for n in self.ep.graph.nodes if n.op == "output")
        specs, values = self.ep.graph_signature.output_specs, output.args[0]
        results = [v for s, v in zip(specs, values, strict=True) if s.kind is OutputKind.USER_OUTPUT]
        changed = [v for s, v in zip(specs, values, strict=True) if s.kind is not OutputKind.USER_OUTPUT]
        return needed_by([v for v in (*changed, *(results[k] for k in self.chosen)) if isinstance(v, fx.Node)])

    def unknown(self, calls: Sequence[fx.Node]) -> list[tuple[str, str]]:
        """Name and place of each call that nothing here converts; one on constants alone is left to torch."""
        constant = {n for n, v in self.env.items() if isinstance(v, Constant)}
        found = []
        for node in calls:
            random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", [])
            if constant.issuperset(node.all_input_nodes) and not random:
                constant.add(node)
            elif not self.is_known(target_name(node.target)):
                found.append((target_name(node.target), source_of(node.meta, node.name, self.prefix)[0]))
        return found

    def is_known(self, target: str) -> bool:
        return target in CONVERTERS

    def input_name(self, node: fx.Node) -> str:
        return node.name

    def user_inputs(self) -> list[fx.Node]:
        names = set(self.ep.graph_signature.user_inputs)
        return [n for n in self.ep.graph.nodes if n.op == "placeholder" and n.name in names]

    def time_axes(self, time_axis: TimeAxis) -> dict[fx.Node, int | None]:
        """The time axis of every input."""
        nodes = self.user_inputs()
        if isinstance(time_axis, dict):
            return time_axis
        if time_axis == GUESS:
            time_axis = self.guess_time({target_name(n.target) for n in self.ep.graph.nodes if n.op == "call_function"})
        if time_axis is None or isinstance(time_axis, int):
            return dict.fromkeys(nodes, time_axis)
        if len(time_axis) != len(nodes):
            raise FrontendError(
                f"{self.name}: expected one time axis for each of {len(nodes)} inputs, found {len(time_axis)}"
            )
        return {n: None if a is None else int(a) for n, a in zip(nodes, time_axis, strict=True)}

    def guess_time(self, calls: set[str]) -> TimeAxis:
        return 1 if calls & SEQUENCE_OPS else None

    def user_input(self, node: fx.Node, axes: dict[fx.Node, int | None], read: bool) -> Any:
        """The graph's input; None for one that cannot be such and that nothing reads, which is left out."""
        value = node.meta["val"]
        if not isinstance(value, torch.Tensor):
            return value
        problem = misfit(value, axes[node])
        if problem is None:
            axis = axes[node]
            axis = None if axis is None else axis % value.dim()
            try:
                kind = TensorType(tuple(value.shape), ELEMENTS[value.dtype], None, axis)
                return self.builder.input(self.input_name(node), kind)
            except ValueError as err:
                problem = f": {err}"
        if not read:
            return None
        self.problems.append(f"input {node.name}{problem}")
        return Failed()

    def stored(self, spec: Any) -> torch.Tensor:
        """A weight, buffer or tensor constant by its path."""
        value = (
            self.ep.constants.get(spec.target)
            if spec.target in self.ep.constants
            else self.ep.state_dict.get(spec.target)
        )
        if not isinstance(value, torch.Tensor):
            raise FrontendError(f"{self.name}: {spec.target} is not a tensor, found {type(value).__name__}")
        return value.detach()

    def convert(self, node: fx.Node) -> Any:
        """The value of one call; a problem is noted and stands as Failed."""
        target, source = target_name(node.target), source_of(node.meta, node.name, self.prefix)
        if any(isinstance(self.env[n], Failed) for n in node.all_input_nodes):
            return Failed()
        folded = self.fold(node)
        if folded is not None:
            return folded
        if target not in CONVERTERS:
            return Failed()  # reported before anything was converted
        self.builder.source = source
        try:
            return self.call(node, target).convert(CONVERTERS[target])
        except (ValueError, IndexError) as err:
            self.problems.append(f"{target} at {source[0]}: {err}")
            return Failed()

    def call(self, node: fx.Node, target: str) -> Call:
        return call_of(self.builder, node, target, self.prefix, self.env.__getitem__)

    def check_output(self, node: Any) -> str | None:
        """Why this node may not be an output."""
        return None

    def fold(self, node: fx.Node) -> Constant | tuple[Constant, ...] | None:
        """The value of a call on constants alone, by torch itself; None for another call."""
        operands, target = [self.env[n] for n in node.all_input_nodes], target_name(node.target)
        tags = getattr(node.target, "tags", [])
        if any(not isinstance(v, Constant) for v in operands) or torch.Tag.nondeterministic_seeded in tags:
            return None
        if not isinstance(node.target, torch._ops.OpOverload) or target in GRIDS:
            return None
        if target in MOVES and operands[0].grid is not None:
            return moved(node, operands[0])
        args = fx.node.map_arg(node.args, lambda n: self.env[n].plain)
        kwargs = fx.node.map_arg(node.kwargs, lambda n: self.env[n].plain)
        with torch.no_grad():
            value = node.target(*args, **kwargs)
        if isinstance(value, torch.Tensor):
            return Constant(node.name, value)
        if isinstance(value, list | tuple) and all(isinstance(v, torch.Tensor) for v in value):
            return tuple(Constant(f"{node.name}_{k}", v) for k, v in enumerate(value))
        return None

    def outputs(self) -> tuple[str, ...]:
        """Names of what the model returns, as far as it is chosen; a constant output is a problem."""
        (node,) = (n for n in self.ep.graph.nodes if n.op == "output")
        names, results = [], []
        for spec, value in zip(self.ep.graph_signature.output_specs, node.args[0], strict=True):
            if spec.kind is not OutputKind.USER_OUTPUT:
                result = self.env.get(value)
                if isinstance(result, Failed) or (result and result is self.buffers.get(str(spec.target))):
                    continue  # reported, or an observer that is off, which gives what it was given
                self.problems.append(
                    f"the model changes its own {spec.target or spec.arg}; state between calls must be a neuron's"
                )
                continue
            results.append(value)
        for value in (results[k] for k in self.chosen):
            result = self.env[value] if isinstance(value, fx.Node) else value
            problem = self.check_output(value)
            if problem is not None:
                self.problems.append(problem)
            elif isinstance(result, str):
                names.append(result)
            elif isinstance(result, Constant) and result.value.is_floating_point():
                names.append(self.builder.const(result.name, to_array(result.value)))
            elif not isinstance(result, Failed):
                self.problems.append(f"an output is {describe(result)}")
        return tuple(names)


#: element types of inputs; on a device int64 is int32, and what is given is checked against its range
ELEMENTS = {
    torch.float32: DType.F32, torch.int64: DType.I32, torch.int32: DType.I32, torch.int16: DType.I16,
    torch.int8: DType.I8, torch.uint8: DType.U8, torch.bool: DType.BOOL,
}  # fmt: skip


def misfit(value: torch.Tensor, axis: int | None) -> str | None:
    """Why no graph has such an input, in words that follow its name; None where one may."""
    shape = tuple(value.shape)
    if not all(isinstance(n, int) for n in shape):
        return f" has dynamic shape {shape}; export it with fixed shapes"
    if value.dtype not in ELEMENTS:
        return f" has element type {value.dtype}; expected {', '.join(map(str, ELEMENTS))}"
    if axis is not None and not -len(shape) <= axis < len(shape):
        return f": time axis {axis} is not an axis of shape {shape}"
    if (axis is None or axis % len(shape) != 0) and (not shape or shape[0] != 1):
        return f" has batch {shape[:1]}; export it with batch 1"
    return None


def describe(value: Any) -> str:
    """A value that is no result of the inputs, in words."""
    if isinstance(value, Padded):
        return "a tensor with zero padding, which only a convolution or a pooling right behind it takes over"
    if isinstance(value, Expanded):
        return "an expanded tensor, which only arithmetic takes over: return it without its copies"
    found = f"the constant {value.name}" if isinstance(value, Constant) else f"a {type(value).__name__}"
    return f"{found}, which is no result of the inputs"
