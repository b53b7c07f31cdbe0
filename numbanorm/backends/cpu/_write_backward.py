"""The loops that write dx; everything else is arithmetic on a few numbers per row.

``operands`` is an array (6, n) in the compute dtype with, for each row, segment or column,
the rounded mean, rstd, the mean of the xhat that these two give, gamma, and the two
coefficients of ``dx = (dy * gamma - through_mean - xhat * through_var) * rstd``.
"""

from __future__ import annotations

import numpy as np

from numbanorm.backends.cpu._elements import load, store
from numbanorm.backends.cpu._jit import exact, inner
from numbanorm.backends.cpu._launch import TILE
from numbanorm.backends.cpu._sums_backward import standardized


@exact
def gradient(dy, xhat, rstd, gamma, through_mean, through_var):
    """dx of one element."""
    return ((dy * gamma - through_mean) - xhat * through_var) * rstd


@exact
def set_operands(k, count, sums, high, rstd, gamma, scale, operands):
    """Operands of row `k` from its sums of ``dy * gamma``, ``dy * gamma * xhat`` and xhat; the mean of xhat."""
    total, product, offset = sums
    std_eps, ddof, use_mean = scale
    low, through_mean = np.float64(0), np.float64(0)
    if use_mean:
        low, through_mean = offset / count, total / count
    share = 1 - std_eps * rstd  # std / (std + eps); a row of equal numbers has none, and an xhat of zero
    slope = 1 / share if share > 0 else np.float64(0)
    operands[0, k] = high
    operands[1, k] = rstd
    operands[2, k] = low
    operands[3, k] = gamma
    operands[4, k] = through_mean
    operands[5, k] = (product - low * total) / (count - ddof) * slope
    return low


@inner
def write_segment_gradients(dy, x, start, n_segments, length, operands, step, dx):
    """dx of segments whose operands are constant, and `step` columns apart."""
    for k in range(n_segments):
        first, of = start + k * length, k * step
        high, rstd, low = operands[0, of], operands[1, of], operands[2, of]
        gamma, through_mean, through_var = operands[3, of], operands[4, of], operands[5, of]
        for i in range(length):
            xhat = standardized(load(x, first + i), high, rstd, low)
            store(dx, first + i, gradient(load(dy, first + i), xhat, rstd, gamma, through_mean, through_var))


@inner
def write_row_gradients(dy, x, start, n_rows, stride, width, operands, first_row, gamma, parameter, dx):
    """dx of `width` columns of rows `stride` apart, with gamma per element from index `parameter` on."""
    for k in range(n_rows):
        first, of = start + k * stride, first_row + k
        high, rstd, low = operands[0, of], operands[1, of], operands[2, of]
        through_mean, through_var = operands[4, of], operands[5, of]
        for i in range(width):
            factor = load(gamma, parameter + i)
            xhat = standardized(load(x, first + i), high, rstd, low)
            store(dx, first + i, gradient(load(dy, first + i), xhat, rstd, factor, through_mean, through_var))


@inner
def write_column_gradients(dy, x, start, n_rows, stride, width, operands, dx):
    """dx of rows `stride` apart; operands per column, in a flat array, TILE apart."""
    for k in range(n_rows):
        first = start + k * stride
        for i in range(width):
            c = np.uintp(i)
            high, rstd = operands[c], operands[c + np.uintp(TILE)]
            low, gamma = operands[c + np.uintp(2 * TILE)], operands[c + np.uintp(3 * TILE)]
            through_mean, through_var = operands[c + np.uintp(4 * TILE)], operands[c + np.uintp(5 * TILE)]
            xhat = standardized(load(x, first + i), high, rstd, low)
            store(dx, first + i, gradient(load(dy, first + i), xhat, rstd, gamma, through_mean, through_var))
