"""The loops that write dx; everything else is arithmetic on a few numbers per row.

``operands`` is an array (6, n) in the compute dtype with, for each row, segment or column:
the rounded mean, rstd, the mean of the xhat that these two give, gamma, and the two last
numbers of ``dx = dy * (gamma * rstd) + xhat * slope + constant``. With ``past_caches`` whole
cache lines are streamed, see :mod:`numbanorm.backends.cpu._stream`.
"""

from __future__ import annotations

import numpy as np

from numbanorm.backends.cpu._elements import load, store
from numbanorm.backends.cpu._jit import exact, inner, spliced
from numbanorm.backends.cpu._launch import TILE
from numbanorm.backends.cpu._masked_elements import is_taken
from numbanorm.backends.cpu._stream import whole_lines
from numbanorm.backends.cpu._stream_backward import copy_line, write_gradient_line
from numbanorm.backends.cpu._sums_backward import standardized


@exact
def gradient(dy, xhat, rstd, gamma, slope, constant):
    """dx of one element, rounded as in a line that is streamed."""
    return (dy * (gamma * rstd) + xhat * slope) + constant


@exact
def set_operands(k, count, sums, high, rstd, gamma, scale, operands):
    """Operands of row `k` from its sums of ``dy * gamma``, ``dy * gamma * xhat`` and xhat; the mean of xhat."""
    total, product, offset = sums
    std_eps, ddof, use_mean = scale
    low, through_mean = np.float64(0), np.float64(0)
    if use_mean:
        low, through_mean = offset / count, total / count
    share = 1 - std_eps * rstd  # std / (std + eps); a row of equal numbers has none, and an xhat of zero
    steepness = 1 / share if share > 0 else np.float64(0)
    through_var = (product - low * total) / (count - ddof) * steepness
    operands[0, k] = high
    operands[1, k] = rstd
    operands[2, k] = low
    operands[3, k] = gamma
    operands[4, k] = -through_var * rstd
    operands[5, k] = (low * through_var - through_mean) * rstd
    return low


@inner
def write_segment_gradients(dy, x, start, n_segments, length, operands, at, dx, past_caches, taken=None, keep=False):
    """dx of segments, each with the operands of a column of its own from `at` on."""
    zero = operands.dtype.type(0)
    for k in range(n_segments):
        first = start + k * length
        high, rstd, gamma = operands[0, at + k], operands[1, at + k], operands[3, at + k]
        slope, constant = operands[4, at + k], operands[5, at + k]
        upper, n_lines, step = whole_lines(dx, first, length, past_caches)
        lower = 0
        while True:
            of, n = first + lower, upper - lower
            for i in range(n):
                xhat = standardized(load(x, of + i), high, rstd, zero)
                of_y = load(dy, of + i)
                value = gradient(of_y, xhat, rstd, gamma, slope, constant)
                store(dx, of + i, value if is_taken(taken, of + i) else of_y if keep else zero)
            if upper == length:
                break
            for i in range(n_lines):
                j = first + upper + i * step
                write_gradient_line(dy, x, j, dx, high, rstd, gamma, 0, slope, constant, taken, keep)
            lower, upper = upper + n_lines * step, length


@inner
def write_row_gradients(
    dy, x, start, n_rows, stride, width, operands, at, gamma, parameter, dx, past_caches, taken=None, keep=False
):
    """dx of `width` columns of rows `stride` apart, with gamma per element from index `parameter` on."""
    zero = operands.dtype.type(0)
    for k in range(n_rows):
        first = start + k * stride
        high, rstd = operands[0, at + k], operands[1, at + k]
        slope, constant = operands[4, at + k], operands[5, at + k]
        upper, n_lines, step = whole_lines(dx, first, width, past_caches)
        lower = 0
        while True:
            of, factor, n = first + lower, parameter + lower, upper - lower
            for i in range(n):
                xhat = standardized(load(x, of + i), high, rstd, zero)
                of_y = load(dy, of + i)
                value = gradient(of_y, xhat, rstd, load(gamma, factor + i), slope, constant)
                store(dx, of + i, value if is_taken(taken, of + i) else of_y if keep else zero)
            if upper == width:
                break
            for i in range(n_lines):
                j = upper + i * step
                of = parameter + j
                write_gradient_line(dy, x, first + j, dx, high, rstd, gamma, of, slope, constant, taken, keep)
            lower, upper = upper + n_lines * step, width


@inner
def write_column_gradients(dy, x, start, n_rows, stride, width, operands, dx, taken=None, keep=False):
    """dx of rows `stride` apart; operands per column, in a flat array, TILE apart."""
    zero = operands.dtype.type(0)
    for k in range(n_rows):
        first = start + k * stride
        for i in range(width):
            c = np.uintp(i)
            high, rstd = operands[c], operands[c + np.uintp(TILE)]
            gamma = operands[c + np.uintp(3 * TILE)]
            slope, constant = operands[c + np.uintp(4 * TILE)], operands[c + np.uintp(5 * TILE)]
            xhat = standardized(load(x, first + i), high, rstd, zero)
            of_y = load(dy, first + i)
            value = gradient(of_y, xhat, rstd, gamma, slope, constant)
            store(dx, first + i, value if is_taken(taken, first + i) else of_y if keep else zero)


@inner
def write_scaled_columns(dy, start, n_rows, stride, width, operands, dx, taken=None, keep=False):
    """dx = dy * gamma * rstd, without a look at x, which may hold inf."""
    zero = operands.dtype.type(0)
    for k in range(n_rows):
        first = start + k * stride
        for i in range(width):
            c = np.uintp(i)
            of_y = load(dy, first + i)
            value = of_y * (operands[c + np.uintp(3 * TILE)] * operands[c + np.uintp(TILE)])
            store(dx, first + i, value if is_taken(taken, first + i) else of_y if keep else zero)


@inner
def write_scaled_segment(dy, start, length, operands, at, dx, taken, keep):
    """The same of neighbours that share their operands."""
    zero = operands.dtype.type(0)
    factor = operands[3, at] * operands[1, at]
    for i in range(start, start + length):
        of_y = load(dy, i)
        store(dx, i, of_y * factor if is_taken(taken, i) else of_y if keep else zero)


@inner
def _copy(dy, start, length, dx, past_caches):
    """dy, or 0 if it is None."""
    upper, n_lines, step = whole_lines(dx, start, length, past_caches)
    lower = 0
    while True:
        for i in range(start + lower, start + upper):
            store(dx, i, np.float32(0) if dy is None else load(dy, i))
        if upper == length:
            break
        for i in range(n_lines):
            copy_line(dy, dx, start + upper + i * step)
        lower, upper = upper + n_lines * step, length


@spliced
def write_padding(dy, keep, start, length, dx, past_caches):
    """dx of neighbours that do not take part: dy, or 0."""
    if keep:
        _copy(dy, start, length, dx, past_caches)
    else:
        _copy(None, start, length, dx, past_caches)
