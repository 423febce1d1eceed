"""The library of one model: header, source with weights and step function, and the manifest that tools read."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgec.backends.environment import environment
from edgec.backends.names import LOCALS, MEMBERS, comment_safe, identifier, unlike
from edgec.backends.weights import binary_consts, weight_files
from edgec.errors import CodegenError
from edgec.ir.graph import Graph, Node, When, numbered
from edgec.ir.text import print_type
from edgec.ir.types import DType, TensorType
from edgec.plan.calls import Call, Copy, Loop, Offset
from edgec.plan.plan import Plan

CTYPES = {"int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "int64": "int64_t", "uint8": "uint8_t",
          "uint16": "uint16_t", "uint32": "uint32_t", "float32": "float", "bit": "uint32_t"}  # fmt: skip
SIZES = {c: np.dtype("uint32" if k == "bit" else k).itemsize for k, c in CTYPES.items()}
VERSION = "0.1.0"
FUNCTIONS = ("init", "reset", "step", "flush", "free")  # of a library, behind its name
_FRAME_LIMIT = 1 << 31


def literal(value: Any, dtype: str) -> str:
    """One C constant."""
    if dtype == "float32":
        text = f"{float(value):.9g}"
        if not math.isfinite(float(value)):
            raise CodegenError(f"constant {text} cannot be written as C; the model holds a value that is not finite")
        return text + ("f" if any(c in text for c in ".e") else ".0f")
    value = int(value)
    if dtype == "int64":
        return f"INT64_C({value})"
    if dtype == "uint32":
        return f"{value}u"
    return str(value) if value != -(1 << 31) else "(-2147483647 - 1)"


def values_text(data: np.ndarray[Any, Any]) -> str:
    """Initialiser values, wrapped."""
    flat, dtype = data.reshape(-1).tolist(), data.dtype.name
    words = list(map(str, flat)) if data.dtype.itemsize <= 2 else [literal(v, dtype) for v in flat]
    per_line = 24 if data.dtype.itemsize == 1 else 12
    return "\n".join("    " + ", ".join(words[k : k + per_line]) + "," for k in range(0, len(words), per_line))


def memory_dtype(t: TensorType) -> str:
    """Element type in memory: spikes are words there."""
    return t.dtype.storage


#: what the user calls the inputs, and the outputs
Names = tuple[Sequence[str], Sequence[str]]


@dataclass(frozen=True)
class Port:
    """An input or output of the C API."""

    field: str
    ctype: str
    count: int
    comment: str
    type: TensorType

    def manifest(self) -> dict[str, Any]:
        q = self.type.quant
        return {
            "name": self.field, "parameter": self.field, "ctype": self.ctype,
            "dtype": "bool" if self.type.dtype is DType.BOOL else memory_dtype(self.type),
            "shape": list(self.type.storage_shape), "bytes": self.type.bytes,
            "scale": q.scale[0] if q else None if self.type.dtype.is_data else 1.0,
            "zero_point": q.zero_point if q else 0, "time_axis": self.type.time_axis,
            "spikes": self.type.shape[-1] if self.type.dtype is DType.BIT else None,
        }  # fmt: skip


def ports(plan: Plan) -> tuple[list[Port], list[Port]]:
    """Inputs and outputs as C parameters."""
    graph = plan.graph
    functions = (f"{graph.name}_{part}".lower() for part in ("state", *FUNCTIONS))
    used = {*LOCALS, *functions, *(symbol.lower() for symbol in const_symbols(plan).values())}

    def port(name: str, stem: str) -> Port:
        t = graph.type_of(name)
        field = unlike(name, stem, used)
        return Port(field, CTYPES[memory_dtype(t)], math.prod(t.storage_shape), print_type(t), t)

    return [port(v.name, "in") for v in graph.inputs], [port(o, "out") for o in graph.outputs]


def condition(when: When, flush_steps: int, frame: str = "frame") -> str:
    """C condition under which a node runs; empty when it always does."""
    parts = []
    if when.first:
        parts.append(f"{frame} >= {when.first}u")
    if when.last < flush_steps:
        parts.append(f"flushed <= {when.last}u")
    if when.period > 1:
        parts.append(f"({frame} - {when.first}u) % {when.period}u == 0u")
    return " && ".join(parts)


def const_symbols(plan: Plan) -> dict[str, str]:
    """The C symbol of every constant; those that are not static carry the model's name."""
    binary, model = binary_consts(plan.consts), plan.graph.name
    symbols: dict[str, str] = {}
    taken = {f"{model}_{part}" for part in ("state", *FUNCTIONS)}
    for name in plan.consts:
        stem = f"{model}_c_{identifier(name)}" if name in binary else f"c_{identifier(name)}"
        symbols[name] = next(n for n in numbered(stem) if n not in taken)
        taken.add(symbols[name])
    return symbols


class Writer:
    """Collects the pieces of model.c; one per library."""

    def __init__(self, plan: Plan, symbols: Mapping[tuple[int, int], str], cycles: bool = False) -> None:
        self.cycles = cycles  # whether the step reads the cycle counter behind each layer
        self.plan, self.graph, self.symbols = plan, plan.graph, symbols
        self.inputs, self.outputs = ports(plan)
        self.fills: dict[tuple[str, int, str], str] = {}
        used = set(MEMBERS)
        self.fields = {m.state.name: unlike(m.state.name, "state", used) for m in plan.members}
        self.binary = binary_consts(plan.consts)
        self.const_symbols = const_symbols(plan)

    def unit(self, name: str) -> int:
        """Bytes of what a pointer to a tensor's memory points to."""
        place = self.plan.places[name]
        ports = {"input": self.inputs, "output": self.outputs}.get(place.storage)
        if ports is not None:
            return SIZES[ports[place.offset].ctype]
        if place.storage == "arena":
            return 1
        member = next(m for m in self.plan.members if m.offset == place.offset)
        return SIZES[CTYPES[member.state.type.dtype.value]]

    def when_of(self, name: str) -> When:
        node = self.graph.producer(name)
        return When() if node is None else node.when

    def ready(self) -> str:
        """C condition under which a call gives outputs: that of the latest of them."""
        latest = max((self.when_of(o) for o in self.graph.outputs), key=lambda when: when.first)
        return condition(latest, self.graph.flush_steps, "s->frame") or "1"

    def argument(self, call: Call, name: str, dtype: str) -> str:
        """C expression of one kernel argument."""
        if name in self.plan.consts:
            return self.const_symbols[name]
        kind = CTYPES[dtype]
        text = self.address(name, kind, call.at.get(name, Offset(0)))
        if name in call.node.inputs and self.when_of(name).last < call.node.when.last:
            fill = self.fill(call.node, self.graph.type_of(name))
            text = f"flushed > {self.when_of(name).last}u ? {fill} : {text}"
        return text

    def address(self, name: str, kind: str, at: Offset) -> str:
        """C expression of a pointer to `kind` into a tensor's memory."""
        place = self.plan.places[name]
        if place.storage == "input":
            text, own = self.inputs[place.offset].field, self.inputs[place.offset].ctype
        elif place.storage == "output":
            text, own = self.outputs[place.offset].field, self.outputs[place.offset].ctype
        elif place.storage == "state":
            member = next(m for m in self.plan.members if m.offset == place.offset)
            text, own = f"s->{self.fields[member.state.name]}", CTYPES[memory_dtype(member.state.type)]
        else:
            where = moved("arena", Offset(place.offset + at.start, at.step), 1)
            return f"({kind} *)(void *)({where})" if kind != "void" else where
        text = moved(text, at, SIZES[own])
        return (
            text
            if own == kind or kind == "void"
            else f"({kind} *)(void *)({text})"
            if at != Offset(0)
            else f"({kind} *)(void *){text}"
        )

    def fill(self, node: Node, t: TensorType) -> str:
        """A constant frame of padding, for delay lines behind the end of the input."""
        value = literal(getattr(node.op, "fill", 0), "float32" if t.dtype.is_float else "int32")
        key = (CTYPES[memory_dtype(t)], math.prod(t.storage_shape), value)
        return self.fills.setdefault(key, f"fill_{len(self.fills)}")

    def call_text(self, call: Call) -> str:
        args = [self.argument(call, n, p[2]) for n, p in zip(call.args, call.kernel.params, strict=True)]
        return f"{self.symbols[call.key]}({', '.join(args)})"

    def copy_lines(self, copy: Copy) -> list[str]:
        """A copy as C: one row may overlap where it comes from."""
        to, source = (self.address(n, "void", copy.at[k]) for k, n in (("to", copy.to), ("source", copy.source)))
        if copy.rows == 1:
            return [f"edgec_memmove({to}, {source}, {copy.bytes}u);"]
        to, source = (
            self.address(n, "void", replace(copy.at[k], step=0)) + f" + row * {p // self.unit(n)}u"
            + per_turn(copy.at[k].step, self.unit(n))
            for k, n, p in (("to", copy.to, copy.to_pitch), ("source", copy.source, copy.source_pitch))
        )  # fmt: skip
        head = f"for (uint32_t row = 0u; row < {copy.rows}u; ++row) {{"
        return [head, f"    edgec_memcpy({to}, {source}, {copy.bytes}u);", "}"]

    def loop_lines(self, loop: Loop) -> list[str]:
        """The calls and copies of a loop."""
        lines = []
        for item in loop.items:
            if isinstance(item, Copy):
                lines += self.copy_lines(item)
            else:
                lines += [f"/* {self.call_comment(item)} */", f"{self.call_text(item)};", f"EDGEC_MARK({item.index});"]
                lines += [f"edgec_cycles_add(cycles, {item.index}u, &since);"] if self.cycles else []
        if loop.count == 1:
            return lines
        head = f"for (uint32_t turn = 0u; turn < {loop.count}u; ++turn) {{"
        return [head, *(f"    {line}" for line in lines), "}"]

    def call_comment(self, call: Call) -> str:
        node = call.node
        types = " -> ".join(", ".join(print_type(t) for t in ts) for ts in (call.inputs[:1], node.types))
        source = f"  ({'; '.join(node.source)})" if node.source else ""
        return comment_safe(f"{call.index}: {node.op.name} [{call.variant}] {types}{source}")

    def groups(self) -> list[dict[str, Any]]:
        """Lines of the program in order, and its calls; neighbours with the same condition share one if."""
        groups: list[dict[str, Any]] = []
        for loop in self.plan.program:
            calls = [item for item in loop.items if isinstance(item, Call)]
            test = condition(calls[0].node.when, self.graph.flush_steps)
            if not groups or groups[-1]["condition"] != test:
                groups.append({"condition": test, "calls": [], "lines": [], "indent": "    " if test else ""})
            groups[-1]["lines"] += self.loop_lines(loop)
            groups[-1]["calls"] += [
                {"comment": self.call_comment(c), "text": self.call_text(c), "id": c.index} for c in calls
            ]
        return groups

    def const_rows(self) -> list[dict[str, Any]]:
        """Constants and padding frames; `text` is None for what lies in <name>_weights.bin."""
        rows = []
        for name, data in self.plan.consts.items():
            comment = comment_safe(f"{name} {data.dtype.name}{list(data.shape)}")
            ctype, count = CTYPES[data.dtype.name], max(1, data.size)
            rows.append({"symbol": self.const_symbols[name], "ctype": ctype, "count": count,
                         "comment": comment, "text": None if name in self.binary else values_text(data),
                         "section": section_text(self.plan.homes.get(name))})  # fmt: skip
        for (ctype, count, value), symbol in self.fills.items():
            rows.append({"symbol": symbol, "ctype": ctype, "count": count, "comment": "padding",
                         "text": "    " + ", ".join([value] * count), "section": ""})  # fmt: skip
        return rows

    def member_rows(self) -> list[dict[str, Any]]:
        rows = []
        for m in self.plan.members:
            t = m.state.type
            init = literal(m.state.init, "float32" if t.dtype.is_float else "int32") if m.state.init else ""
            if init and t.dtype is DType.BIT:
                raise CodegenError(f"state {m.state.name}: spikes start at 0, found {m.state.init}")
            rows.append({"ctype": CTYPES[memory_dtype(t)], "field": self.fields[m.state.name], "init": init,
                         "count": math.prod(t.storage_shape), "comment": print_type(t)})  # fmt: skip
        return rows


def moved(text: str, at: Offset, size: int) -> str:
    """A pointer to elements of `size` bytes, moved."""
    return text + (f" + {at.start // size}" if at.start else "") + per_turn(at.step, size)


def per_turn(step: int, size: int) -> str:
    """What a turn of the loop moves a pointer by. Never back: a negative factor would wrap at 32 bits, which is a
    pointer's width on the device only."""
    assert step >= 0, "only the ends of a chain move, and they move forward"
    return f" + turn * {step // size}u" if step else ""


def section_text(region: str | None) -> str:
    """Attribute of a constant that start-up copies to a fast memory."""
    return "" if region is None else f' EDGEC_SECTION(".edgec_{region}")'


def mentions(name: str, text: str) -> bool:
    """Whether C text uses a name."""
    return re.search(rf"\b{name}\b", text) is not None


def wrap_frame(graph: Graph) -> int:
    """Where the frame counter continues after its limit: past every start, in phase with every period."""
    period = math.lcm(*(n.when.period for n in graph.nodes), 1)
    return _FRAME_LIMIT - period * ((_FRAME_LIMIT >> 1) // period)


def write_library(
    plan: Plan,
    kernels: str,
    symbols: Mapping[tuple[int, int], str],
    *,
    summary: str,
    target: str,
    headers: Sequence[str],
    cycles: bool = False,
) -> dict[str, str]:
    """Text of <name>.h and <name>.c. `kernels` is the C text that defines (or declares) the kernel functions; with
    `cycles` the step reads the cycle counter around each layer."""
    graph, writer = plan.graph, Writer(plan, symbols, cycles)
    groups = writer.groups()
    calls = " ".join(c["text"] for g in groups for c in g["calls"])
    text = calls + " ".join(g["condition"] for g in groups)
    pointers = ("s", "arena", *(p.field for p in writer.inputs + writer.outputs))
    used = max((m.end for m in plan.members), default=16)
    context = {
        "name": graph.name, "NAME": graph.name.upper(), "version": VERSION, "summary": summary, "target": target,
        "headers": headers, "inputs": writer.inputs, "outputs": writer.outputs, "groups": groups, "kernels": kernels,
        "consts": writer.const_rows(), "members": writer.member_rows(), "tail": plan.state_bytes - used,
        "state_bytes": plan.state_bytes, "arena_bytes": max(8, plan.arena_bytes), "delay": graph.delay,
        "flush_steps": graph.flush_steps, "ready": writer.ready(),
        "uses_frame": mentions("frame", text), "uses_flushed": mentions("flushed", text),
        "wrap_at": _FRAME_LIMIT - 1, "wrap_to": wrap_frame(graph), "magic": zlib.crc32(graph.name.encode()) | 1,
        "layers": [(c.index, comment_safe(f"{c.node.op.name}, {c.node.outputs[0]}")) for c in plan.calls if cycles],
        "slots": slots(plan),
        "unused": [n for n in pointers if not mentions(n, calls)],
    }  # fmt: skip
    env = environment()
    return {
        f"{graph.name}.h": env.get_template("model.h.j2").render(context),
        f"{graph.name}.c": env.get_template("model.c.j2").render(context),
    }


def slots(plan: Plan) -> int:
    """Entries of an array with one for each layer's id."""
    return max((c.index for c in plan.calls), default=0) + 1


def write_weights(plan: Plan, folder: Path, prefix: str = "") -> list[str]:
    """The files of a large model's constants, `prefix` before their symbols; the sources among them."""
    symbols = {name: prefix + symbol for name, symbol in const_symbols(plan).items()}
    files = weight_files(plan.graph.name, VERSION, plan.consts, symbols)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [name for name in files if name.endswith(".S")]


def named(specs: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Inputs or outputs under what the user calls them; one whose name is not its alone has that of its parameter."""
    free = [n if names.count(n) == 1 else s["parameter"] for s, n in zip(specs, names, strict=True)]
    return [s | {"name": n if free.count(n) == 1 else s["parameter"]} for s, n in zip(specs, free, strict=True)]


def manifest(
    plan: Plan, symbols: Mapping[tuple[int, int], str], *, target: str, sources: Sequence[str], cycles: bool = False,
    names: Names | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What devices and reports need to know about a library; JSON-able. names: see `named`."""
    graph, symbols_of = plan.graph, const_symbols(plan)
    inputs, outputs = ([p.manifest() for p in found] for found in ports(plan))
    if names is not None:
        inputs, outputs = named(inputs, names[0]), named(outputs, names[1])
    return {
        "name": graph.name, "prefix": graph.name, "target": target, "version": VERSION, "sources": list(sources),
        "state_bytes": plan.state_bytes, "arena_bytes": max(8, plan.arena_bytes),
        "arena_lower_bound": plan.arena_lower_bound,
        "regions": {k.strip("()"): r for k, r in plan.homes.items() if k not in plan.consts},
        "delay": graph.delay, "flush_steps": graph.flush_steps, "cycles": slots(plan) if cycles else 0,
        "inputs": inputs, "outputs": outputs,
        "nodes": [_node_row(plan, call, symbols, symbols_of) for call in plan.calls],
    }  # fmt: skip


def _slot(plan: Plan, name: str, t: TensorType) -> dict[str, Any]:
    """Where a tensor lies, for tools that read it out of a running model. Spikes are words there."""
    place, q = plan.places[name], t.quant
    offset = place.offset
    if place.storage == "output":
        offset = sum(plan.graph.type_of(o).bytes for o in plan.graph.outputs[: place.offset])
    return {"name": name, "dtype": memory_dtype(t), "shape": list(t.storage_shape), "storage": place.storage,
            "offset": offset, "bytes": t.bytes, "type": print_type(t), "scale": list(q.scale) if q else [1.0],
            "zero_point": q.zero_point if q else 0}  # fmt: skip


def _node_row(
    plan: Plan, call: Call, symbols: Mapping[tuple[int, int], str], names: Mapping[str, str]
) -> dict[str, Any]:
    node, inputs = call.node, plan.graph.input_types(call.node)
    consts = [a for a in dict.fromkeys(call.args) if a in plan.consts]
    when = [node.when.first, node.when.last, node.when.period]
    return {"id": call.index, "symbol": symbols[call.key], "op": node.op.name, "variant": call.variant,
            "source": "; ".join(node.source), "inputs": list(node.inputs), "when": when,
            "outputs": [_slot(plan, name, t) for name, t in zip(node.outputs, node.types, strict=True)
                        if name not in plan.tiles],
            "macs": node.op.cost(inputs, node.types).macs, "consts": [names[c] for c in consts],
            "const_bytes": sum(plan.consts[c].nbytes for c in consts)}  # fmt: skip
