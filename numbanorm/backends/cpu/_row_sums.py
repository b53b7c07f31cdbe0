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
from numbanorm.backends.cpu._launch import QUICK_BLOCK, SHORT_ROW
from numbanorm.backends.cpu._line_sums import line_sums
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


@spliced
def row_moments(x, start, n, length, like, statistics):
    """Mean and m2 of n rows of x from x[start] on, to statistics (2, n); sums in the dtype of `like`.

    Block by block, each about the mean of those before it.
    """
    for k in range(n):
        first = start + k * length
        count, mean, m2, all_squares = np.float64(0), np.float64(0), np.float64(0), np.float64(0)
        if length >= QUICK_FROM:
            shift = first_mean(x, first, like[0, 0])
            for lower in range(first, first + length, QUICK_BLOCK):
                size = min(QUICK_BLOCK, first + length - lower)
                total, squares = line_sums(x, lower, size, shift)
                all_squares += np.float64(squares)
                sums = np.float64(shift), np.float64(total), np.float64(squares)
                count_b, mean_b, m2_b = block_moments(np.float64(size), *sums)
                count, mean, m2 = welford_combine(count, mean, m2, count_b, mean_b, m2_b)
                shift = type(shift)(mean)
        # Not for short rows either: checking their sums would cost as much as summing in float64.
        if not is_trustworthy(all_squares, m2):
            _, mean, m2 = segment_moments(x, first, first + length)
        statistics[0, k] = mean
        statistics[1, k] = m2
