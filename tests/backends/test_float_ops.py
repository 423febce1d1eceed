"""Every float op with a kernel: the generated C against the op's torch reference, on random shapes and values."""

import pytest

from tests.backends.kernel_tools import build_c, check_family
from tests.op_families import elementwise, maps, movement, products, stateful


@pytest.mark.parametrize("family", [elementwise, maps, products, movement, stateful])
@pytest.mark.parametrize("seed", range(3))
def test_generated_c_computes_the_reference(family, seed, tmp_path):
    kernels = check_family(family, seed, tmp_path)
    if seed == 0:
        build_c(kernels, tmp_path, cc="zig")  # its compiler is clang
