"""The Legendre memory: its matrices, its two forms, its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgec.lmu_math import lmu_impulse_response, lmu_matrices, matrix_exponential
from edgec.nn import LMUMemory, lmu_memory

REGISTRATION = ("test_schema", "test_autograd_registration", "test_faketensor")


def zoh_by_torch(order: int, theta: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The matrices entry by entry from the formula, then torch's matrix exponential."""
    block = torch.zeros(order + 1, order + 1, dtype=torch.float64)
    for i in range(order):
        for j in range(order):
            sign = -1.0 if i < j else (-1.0) ** (i - j + 1)
            block[i, j] = (2 * i + 1) / theta * sign
        block[i, order] = (2 * i + 1) / theta * (-1.0) ** i
    exponential = torch.linalg.matrix_exp(block)
    return exponential[:order, :order], exponential[:order, order]


@pytest.mark.parametrize(("order", "theta"), [(1, 1), (4, 20), (32, 128), (128, 128), (256, 128)])
def test_matrices_equal_the_formula(order, theta):
    a, b = lmu_matrices(order, theta)
    expected_a, expected_b = zoh_by_torch(order, theta)
    np.testing.assert_allclose(a, expected_a, atol=2e-12)
    np.testing.assert_allclose(b, expected_b, atol=2e-12)


@pytest.mark.parametrize(("order", "theta", "radius"), [(256, 128, 0.861), (32, 128, 0.934)])
def test_spectral_radius(order, theta, radius):
    a, _ = lmu_matrices(order, theta)
    assert float(np.abs(np.linalg.eigvals(a)).max()) == pytest.approx(radius, abs=6e-4)


def test_matrix_exponential_of_a_rotation():
    turn = np.array([[0.0, -5.0], [5.0, 0.0]])
    expected = [[np.cos(5), -np.sin(5)], [np.sin(5), np.cos(5)]]
    np.testing.assert_allclose(matrix_exponential(turn), expected, atol=1e-13)
    np.testing.assert_array_equal(matrix_exponential(np.zeros((2, 2))), np.eye(2))


def test_memory_decodes_the_delayed_input():
    """sum_i P_i(2 d/theta - 1) m_i is the input d steps ago (here a slow sine)."""
    order, theta, steps = 12, 50, 200
    u = torch.sin(torch.arange(steps, dtype=torch.float64) / 20)[None, :, None]
    memory = lmu_memory(u, order, theta, "recurrent")[0, -1].numpy()
    for delay in (0, 10, 25, 50):
        decoded = np.polynomial.legendre.legval(2 * delay / theta - 1, memory)
        assert decoded == pytest.approx(float(u[0, -1 - delay, 0]), abs=0.03)


def recurrence(u: torch.Tensor, order: int, theta: int) -> torch.Tensor:
    a, b = (torch.from_numpy(matrix) for matrix in lmu_matrices(order, theta))
    m = torch.zeros(u.shape[0], order, dtype=torch.float64)
    steps = []
    for u_t in u.unbind(1):
        m = m @ a.T + u_t * b
        steps.append(m)
    return torch.stack(steps, 1)


def test_recurrent_form_equals_the_recurrence():
    torch.manual_seed(0)
    u = torch.rand(2, 70, 1, dtype=torch.float64)
    torch.testing.assert_close(lmu_memory(u, 24, 30, "recurrent"), recurrence(u, 24, 30))


def test_fir_form_equals_the_recurrence_inside_the_window_only():
    torch.manual_seed(0)
    u = (torch.rand(2, 70, 1) < 0.3).double()
    fir, exact = lmu_memory(u, 24, 30, "fir"), recurrence(u, 24, 30)
    torch.testing.assert_close(fir[:, :30], exact[:, :30])
    assert (fir[:, 30:] - exact[:, 30:]).abs().max() > 1e-3
    response = torch.from_numpy(lmu_impulse_response(24, 30, 30))
    latest_first = u[:, 40:70, 0].flip(1)
    torch.testing.assert_close(fir[:, 69], latest_first @ response.T)


@pytest.mark.parametrize("form", ["fir", "recurrent"])
@pytest.mark.parametrize("steps", [1, 5, 17])
def test_gradient(form, steps):
    u = torch.randn(2, steps, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: lmu_memory(x, 6, 8, form), u)


def test_torch_accepts_the_registration():
    torch.library.opcheck(lmu_memory, (torch.randn(2, 9, 1, requires_grad=True), 6, 8, "fir"), test_utils=REGISTRATION)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"u must be \[B,T,1\], found shape \(2, 9, 3\)"):
        lmu_memory(torch.zeros(2, 9, 3), 4, 8, "fir")
    with pytest.raises(ValueError, match=r"form must be one of \('fir', 'recurrent'\)"):
        LMUMemory(4, 8, "iir")(torch.zeros(1, 2, 1))
    with pytest.raises(ValueError, match="order and theta must be >= 1"):
        lmu_matrices(0, 8)
    with pytest.raises(ValueError, match="taps must be >= 1"):
        lmu_impulse_response(4, 8, 0)
    with pytest.raises(ValueError, match="square"):
        matrix_exponential(np.zeros((2, 3)))
