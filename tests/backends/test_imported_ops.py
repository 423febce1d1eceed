"""Ops the torch importer adds: the generated C against the op's torch reference, on random shapes and values."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from kernel_tools import check_family, f32

from edgec.ir.types import TensorType
from edgec.ops import OPS

Cases = Iterator[tuple[Any, list[TensorType]]]


def rows(rng: np.random.Generator) -> Cases:
    n, m, c = (int(v) for v in rng.integers(1, 7, size=3))
    yield OPS["layer_norm"](eps=1e-3), [f32(n, m, c + 1), f32(c + 1), f32(c + 1)]
    yield OPS["softmax"](), [f32(n, m, c)]
    yield OPS["clip"](low=-0.5), [f32(n, m)]
    yield OPS["clip"](low=-0.5, high=0.7), [f32(n, m)]
    yield OPS["slice"](axis=1, start=1, stop=3), [f32(n, 4, c)]
    yield OPS["slice"](axis=2, start=0, stop=c), [f32(n, m, c + 2)]


def pools(rng: np.random.Generator) -> Cases:
    for name, pad in itertools.product(("max_pool2d", "avg_pool2d"), ((0, 0, 0, 0), (1, 0, 0, 1))):
        kernel = tuple(int(k) for k in rng.integers(2, 4, size=2))
        stride = tuple(int(s) for s in rng.integers(1, 3, size=2))
        yield OPS[name](kernel=kernel, stride=stride, pad=pad), [f32(2, 7, 5, 3)]


def neurons(rng: np.random.Generator) -> Cases:
    c = int(rng.integers(2, 7))
    x = f32(1, 1, c, time=1)
    back: dict[str, list[TensorType]] = {"none": [], "one_to_one": [f32(c)], "all_to_all": [f32(c, c), f32(c)]}
    for synapse, feedback, late in itertools.product((False, True), back, (False, True)):
        reset = str(rng.choice(["subtract", "zero", "none"]))
        signals = ("spikes", "membrane", "current")[: 2 + synapse]
        op = OPS["snntorch_neuron"](
            outputs=signals, synapse=synapse, feedback=feedback, reset=reset, delayed_reset=late
        )
        yield op, [x, f32(1), f32(c), *[f32(c)] * synapse, *back[feedback]]
    for reset in ("subtract", "zero", "none"):
        op = OPS["alpha_neuron"](outputs=("spikes", "excitatory", "inhibitory", "membrane"), reset=reset)
        yield op, [x, f32(1), f32(c), f32(1), f32(1)]


@pytest.mark.parametrize("family", [rows, pools, neurons])
@pytest.mark.parametrize("seed", range(3))
def test_generated_c_computes_the_reference(family, seed, tmp_path):
    check_family(family, seed, tmp_path)
