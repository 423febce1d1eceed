"""Ops the torch importer adds: the generated C against the op's torch reference, on random shapes and values."""

import pytest

from tests.backends.kernel_tools import check_family
from tests.op_families import neurons, pools, rows


@pytest.mark.parametrize("family", [rows, pools, neurons])
@pytest.mark.parametrize("seed", range(3))
def test_generated_c_computes_the_reference(family, seed, tmp_path):
    check_family(family, seed, tmp_path)
