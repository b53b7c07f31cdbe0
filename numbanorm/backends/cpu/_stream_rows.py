"""Rows written past the caches, each while the next one is summed.

Summing and writing in turn, a core leaves memory's writes idle for one half of the time and
its reads for the other. Only rows that stay in L1 meanwhile gain by it.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from numbanorm.backends.cpu._elements import load, store
from numbanorm.backends.cpu._jit import inner
from numbanorm.backends.cpu._row_sums import first_mean, is_trustworthy, rest_sums
from numbanorm.backends.cpu._stream import whole_lines, write_and_sum_lines
from numbanorm.backends.cpu._sums import block_moments, segment_moments
from numbanorm.backends.cpu._write import centred, scaled


def parameter(values, i):
    """Element `i` of an array of parameters, or the one that serves all."""
    return load(values, i) if isinstance(values, np.ndarray) else values


@overload(parameter)
def _jit_parameter(values, i):
    if isinstance(values, types.Array):
        return lambda values, i: load(values, i)
    return lambda values, i: values


@inner
def write_and_sum(x, start, length, operands, gamma, beta, y, statistics):
    """Write the row y[start : start + length]; mean and m2 of the row that follows it in x, to `statistics`.

    gamma and beta are arrays, or the numbers that serve all columns. A row is one block of sums.
    """
    high, low, rstd = operands
    ahead = start + length
    shift = first_mean(x, ahead, rstd)
    head, n_lines, step = whole_lines(y, start, length, True)
    first, n_sums = start + head, length // step
    total, squares = write_and_sum_lines(
        x, first, y, first, high, low, rstd, gamma, beta, head, n_lines, ahead, shift, n_sums
    )
    lines = n_lines * step
    for i in range(length - lines):
        j = i if i < head else i + lines
        value = scaled(centred(load(x, start + j), high, low), rstd, parameter(gamma, j))
        store(y, start + j, value + parameter(beta, j))
    total_of_rest, squares_of_rest = rest_sums(x, ahead + n_sums * step, ahead + length, shift)
    total, squares = total + total_of_rest, squares + squares_of_rest
    sums = np.float64(shift), np.float64(total), np.float64(squares)
    _, statistics[0, 0], statistics[1, 0] = block_moments(np.float64(length), *sums)
    if not is_trustworthy(np.float64(squares), statistics[1, 0]):
        _, statistics[0, 0], statistics[1, 0] = segment_moments(x, ahead, ahead + length)
