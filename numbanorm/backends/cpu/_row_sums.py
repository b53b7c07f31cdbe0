"""Moments of rows that are normalised at once: to the seven digits that a factor 1 / std needs.

Sums are taken in the compute dtype, which for float32 costs half as much as in float64,
about a mean of the row's first numbers. Where they cancel, overflow or vanish, the row is
summed again in float64.
"""

from __future__ import annotations

import sys

import numba
import numpy as np

from numbanorm.backends.cpu._elements import load
from numbanorm.backends.cpu._jit import exact, spliced
from numbanorm.backends.cpu._lanes import elements_of_line
from numbanorm.backends.cpu._launch import QUICK_BLOCK, SHORT_ROW
from numbanorm.backends.cpu._line_sums import sum_lines
from numbanorm.backends.cpu._sums import block_moments, segment_moments, welford_combine

#: Elements from which a row is summed in float32. Without the JIT there are no lanes that keep such sums short.
QUICK_FROM = sys.maxsize if numba.config.DISABLE_JIT else SHORT_ROW
#: Sums of squares between these have lost nothing to the range of float32.
SMALLEST_SQUARES, LARGEST_SQUARES = 1e-30, 1e37


@spliced
def is_trustworthy(squares, m2):
    """Whether sums of differences from a shift keep what float32 has; false for NaN."""
    return squares > SMALLEST_SQUARES and m2 * 2 > squares and squares < LARGEST_SQUARES


@exact
def first_mean(x, start, like):
    """Mean of eight numbers, in the dtype of the number `like`: a shift that cancels little."""
    eighth = type(like)(0.125)
    a = load(x, start) * eighth + load(x, start + 1) * eighth
    b = load(x, start + 2) * eighth + load(x, start + 3) * eighth
    c = load(x, start + 4) * eighth + load(x, start + 5) * eighth
    d = load(x, start + 6) * eighth + load(x, start + 7) * eighth
    return (a + b) + (c + d)


@exact
def rest_sums(x, start, stop, shift):
    """The sums of those few numbers of a row that fill no line."""
    total, squares = type(shift)(0), type(shift)(0)
    for i in range(start, stop):
        difference = load(x, i) - shift
        total += difference
        squares += difference * difference
    return total, squares


@spliced
def _block_sums(x, start, length, shift):
    """Sums over x[start : start + length] of differences from `shift` and of their squares."""
    lines = length // elements_of_line(x)
    rest = start + lines * elements_of_line(x)
    total, squares = sum_lines(x, start, shift, lines)
    total_of_rest, squares_of_rest = rest_sums(x, rest, start + length, shift)
    return total + total_of_rest, squares + squares_of_rest


@spliced
def row_moments(x, start, n, length, scratch, statistics):
    """Mean and m2 of n rows of x from x[start] on, to statistics (2, n).

    For rows of one block a step is done for all rows before the next one, so that a row need
    not wait for the sums of the one before. `scratch` (3, n) has the compute dtype.
    """
    if QUICK_FROM <= length <= QUICK_BLOCK:
        _one_block_rows(x, start, n, length, scratch, statistics)
        return
    for k in range(n):
        first = start + k * length
        if length < QUICK_FROM:
            # Checking sums in float32 would cost as much as summing in float64.
            _, statistics[0, k], statistics[1, k] = segment_moments(x, first, first + length)
        else:
            _, statistics[0, k], statistics[1, k] = _long_row(x, first, first + length, scratch)


@spliced
def _one_block_rows(x, start, n, length, scratch, statistics):
    for k in range(n):
        scratch[0, k] = first_mean(x, start + k * length, scratch[0, k])
    for k in range(n):
        scratch[1, k], scratch[2, k] = _block_sums(x, start + k * length, length, scratch[0, k])
    count = np.float64(length)
    for k in range(n):
        sums = np.float64(scratch[0, k]), np.float64(scratch[1, k]), np.float64(scratch[2, k])
        _, statistics[0, k], statistics[1, k] = block_moments(count, *sums)
    for k in range(n):
        if not is_trustworthy(np.float64(scratch[2, k]), statistics[1, k]):
            first = start + k * length
            _, statistics[0, k], statistics[1, k] = segment_moments(x, first, first + length)


@spliced
def _long_row(x, start, stop, scratch):
    """Moments of x[start:stop] block by block, each about the mean of those before it."""
    count, mean, m2 = np.float64(0), np.float64(0), np.float64(0)
    shift = first_mean(x, start, scratch[0, 0])
    for lower in range(start, stop, QUICK_BLOCK):
        upper = min(lower + QUICK_BLOCK, stop)
        total, squares = _block_sums(x, lower, upper - lower, shift)
        count_b, mean_b, m2_b = block_moments(
            np.float64(upper - lower), np.float64(shift), np.float64(total), np.float64(squares)
        )
        if not is_trustworthy(np.float64(squares), m2_b):
            count_b, mean_b, m2_b = segment_moments(x, lower, upper)
        count, mean, m2 = welford_combine(count, mean, m2, count_b, mean_b, m2_b)
        shift = type(shift)(mean)
    return count, mean, m2
