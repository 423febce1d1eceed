"""The general ops against the ONNX project's own node tests: the references, and the generated C of all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgec.ir.evaluate import as_tensor
from tests.backends.kernel_tools import Case, build_c, prepare
from tests.ops.onnx_nodes import NodeTest, node_tests, type_of

TESTS = node_tests()
LEAST = 360


def test_they_are_many() -> None:
    assert len(TESTS) >= LEAST


@pytest.mark.parametrize("test", TESTS, ids=lambda t: t.name)
def test_a_reference_gives_what_onnx_expects(test: NodeTest) -> None:
    values = [as_tensor(v, type_of(v)) for v in test.x]
    with np.errstate(all="ignore"):
        for op, others in test.ops:
            values = [op.reference(*values, *(torch.from_numpy(o) for o in others))]
    found = values[0].numpy().astype(test.expected.dtype)
    assert found.shape == test.expected.shape
    np.testing.assert_allclose(found, test.expected, rtol=1e-3, atol=1e-6)


def test_the_generated_c_gives_what_onnx_expects(tmp_path) -> None:
    """A third of the tests of one op, in one library."""
    rng, cases = np.random.default_rng(0), []
    single = [t for t in TESTS if len(t.ops) == 1][::3]
    for k, t in enumerate(single):
        op, others = t.ops[0]
        values = [*t.x, *others]
        cases.append(prepare(Case(f"k{k}", op, [type_of(v) for v in values], values), rng))
    library = build_c([c.named for c in cases], tmp_path)
    for case, t in zip(cases, single, strict=True):
        (name,) = case.expected
        found = library(case.symbol, case.arrays)[name].reshape(t.expected.shape).astype(t.expected.dtype)
        np.testing.assert_allclose(found, t.expected, rtol=1e-3, atol=1e-6, err_msg=t.name)
