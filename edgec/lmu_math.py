"""Legendre memory unit matrices in float64 numpy, shared by the torch modules and the kernels.

Notation: q = order (memory size), theta = window in steps, dt = 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_TAYLOR_TERMS = 18  # the remainder is below 1e-17 once the scaled norm is at most 1/2


def matrix_exponential(a: Float64) -> Float64:
    """Return exp(a) by scaling, an 18-term Taylor series and repeated squaring.

    a: [N,N] finite float64 -> [N,N]. ValueError if a is not square.
    """
    if a.ndim != 2 or a.shape[0] != a.shape[1]:
        raise ValueError(f"matrix_exponential: expected a square matrix, found shape {a.shape}")
    norm = float(np.abs(a).sum(axis=0).max(initial=0.0))
    squarings = max(0, int(np.ceil(np.log2(norm))) + 1) if norm > 0.0 else 0
    scaled = a / 2.0**squarings
    result = np.eye(a.shape[0])
    for term in range(_TAYLOR_TERMS, 0, -1):
        result = np.eye(a.shape[0]) + scaled @ result / term
    for _ in range(squarings):
        result = result @ result
    return result


def lmu_matrices(order: int, theta: int) -> tuple[Float64, Float64]:
    """Return the zero-order-hold pair (Abar, Bbar) of m[t] = Abar m[t-1] + Bbar u[t].

    order: q >= 1, theta: >= 1 -> Abar [q,q], Bbar [q]. ValueError outside these ranges.
    A[i,j] = (2i+1)/theta * (-1 if i < j else (-1)^(i-j+1)), B[i] = (2i+1)/theta * (-1)^i
    (Voelker, Kajic, Eliasmith 2019), discretised as exp([[A,B],[0,0]]).
    """
    if order < 1 or theta < 1:
        raise ValueError(f"lmu_matrices: order and theta must be >= 1, found {order} and {theta}")
    index = np.arange(order)
    gain = (2.0 * index + 1.0) / theta
    i, j = index[:, None], index[None, :]
    a = gain[:, None] * np.where(i < j, -1.0, np.where((i - j) % 2 == 0, -1.0, 1.0))
    b = gain * np.where(index % 2 == 0, 1.0, -1.0)
    block = np.zeros((order + 1, order + 1))
    block[:order, :order] = a
    block[:order, order] = b
    exponential = matrix_exponential(block)
    return exponential[:order, :order].copy(), exponential[:order, order].copy()


def lmu_impulse_response(order: int, theta: int, taps: int) -> Float64:
    """Return H with H[:,k] = Abar^k Bbar, so that m[t] = sum_k H[:,k] u[t-k].

    order: q >= 1, theta: >= 1, taps: K >= 1 -> H [q,K]. ValueError outside these ranges.
    Chilkuri and Eliasmith 2021 (the FIR form when K = theta).
    """
    if taps < 1:
        raise ValueError(f"lmu_impulse_response: taps must be >= 1, found {taps}")
    a, column = lmu_matrices(order, theta)
    response = np.empty((order, taps))
    for k in range(taps):
        response[:, k] = column
        column = a @ column
    return response
