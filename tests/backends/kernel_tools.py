"""Build kernels on this machine and call them with numpy arrays."""

import ctypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgec.backends.c import emit_c
from edgec.backends.kernel import NamedKernel
from edgec.ir.evaluate import as_tensor
from edgec.ir.types import TensorType
from edgec.ops.base import Kernel, Site
from edgec.runtime import runtime_file
from edgec.toolchain.shared import build_plain_shared

INCLUDES = '#include "edgec_simd.h"\n#include "edgec_map.h"\n'
RUNTIME = ("-I", str(runtime_file("edgec.h").parent))
Arrays = dict[str, np.ndarray]
Family = Callable[[np.random.Generator], Iterable[tuple[Any, list[TensorType]]]]


def kernel(body: str, *params: tuple[str, tuple[int, ...], str], writable: str, symbol: str = "f") -> NamedKernel:
    """A kernel written in a test; `writable` names parameters, separated by spaces."""
    return NamedKernel(symbol, Kernel(body, params), frozenset(writable.split()))


class Library:
    """A shared library of kernels."""

    def __init__(self, path: Path, kernels: Sequence[NamedKernel]) -> None:
        self.library = ctypes.CDLL(str(path))
        self.kernels = {k.symbol: k for k in kernels}

    def __call__(self, symbol: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Run one kernel on copies of the arrays and return them all afterwards."""
        params = self.kernels[symbol].kernel.params
        copies = {n: np.ascontiguousarray(arrays[n], dtype=d).reshape(shape).copy() for n, shape, d in params}
        getattr(self.library, symbol)(*[ctypes.c_void_p(copies[n].ctypes.data) for n, _, _ in params])
        return copies


def build(
    text: str, kernels: Sequence[NamedKernel], folder: Path, cc: str | None = None, name: str = "kernels"
) -> Library:
    """Compile C text with every warning an error."""
    source = folder / f"{name}.c"
    source.write_text(INCLUDES + text, encoding="utf-8")
    return Library(build_plain_shared(source, folder / f"{name}_{cc}.so", cc=cc, flags=RUNTIME), kernels)


def build_c(kernels: Sequence[NamedKernel], folder: Path, cc: str | None = None) -> Library:
    return build(emit_c(kernels, storage=""), kernels, folder, cc)


@dataclass
class Case:
    """One op on given types: its kernel, its arrays, and what the reference gives."""

    symbol: str
    op: Any
    types: list[TensorType]
    values: list[np.ndarray]
    expected: Arrays = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)
    named: NamedKernel | None = None


def prepare(case: Case, rng: np.random.Generator) -> Case:
    """Lower the case's op, run its reference, and lay out inputs, states and empty outputs by parameter name."""
    op, types = case.op, case.types
    outputs = op.infer(types)
    state_types = op.state_types(types)
    states = [draw(t, rng) for t, _ in state_types]
    site = Site(tuple(types), outputs, tuple(t for t, _ in state_types), dict(enumerate(case.values)))
    lowered = op.lower(site)
    tensors = [as_tensor(v, t) for v, t in zip(case.values, types, strict=True)]
    with torch.no_grad():
        outs, new = op.run(tensors, [as_tensor(s, t) for s, (t, _) in zip(states, state_types, strict=True)])
    params = [p[0] for p in lowered.params]
    inputs = [v for k, v in enumerate(case.values) if k not in lowered.drops]
    arrays: Arrays = dict(zip(params, inputs, strict=False)) | {n: np.asarray(a) for n, a in lowered.consts.items()}
    rest = [n for n in params if n not in arrays]
    results = [] if op.output_is_state else [t.numpy() for t in outs]
    named = dict(zip(rest, [*states, *[np.full_like(r, 7) for r in results]], strict=False))
    case.expected = dict(zip(rest, [*[t.numpy() for t in new], *results], strict=False))
    scratch = {p[0]: np.zeros(p[1], p[2]) for p in lowered.params if p[0] in rest and p[0] not in named}
    case.arrays = arrays | named | scratch
    case.named = NamedKernel(case.symbol, lowered, frozenset(rest), comment=f"{op.name}\n{types}", where=op.name)
    return case


def draw(t: TensorType, rng: np.random.Generator) -> np.ndarray:
    """Random values of a type: integers small, and the ends of their range."""
    if t.dtype.is_float:
        return rng.normal(size=t.shape).astype(np.float32)
    low, high = t.dtype.range
    values = rng.integers(max(low, -9), min(high, 9) + 1, t.shape)
    return np.where(rng.random(t.shape) < 0.2, rng.choice([low, high], t.shape), values).astype(t.dtype.storage)


def check_family(family: Family, seed: int, folder: Path) -> list[NamedKernel]:
    """The kernels of ops on random values, whose C gives what the reference gives and leaves the inputs alone."""
    rng = np.random.default_rng(seed)
    cases = []
    for k, (op, types) in enumerate(family(rng)):
        values = [draw(t, rng) for t in types]
        cases.append(prepare(Case(f"k{k}_{op.name}", op, types, values), rng))
    kernels = [c.named for c in cases]
    library = build_c(kernels, folder)
    for case in cases:
        got = library(case.symbol, case.arrays)
        for name, expected in case.expected.items():
            np.testing.assert_allclose(
                got[name].reshape(expected.shape), expected, rtol=2e-5, atol=2e-6, err_msg=f"{case.op} {name}"
            )
        for name in case.arrays:
            if name not in case.named.writable:
                np.testing.assert_array_equal(got[name].ravel(), case.arrays[name].ravel())
    return kernels
