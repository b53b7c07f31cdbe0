"""Rows written past the caches, each while the next one is summed.

Summing and writing in turn, a core leaves memory's writes idle for one half of the time and
its reads for the other. Only rows that stay in L1 meanwhile gain by it.
"""

from __future__ import annotations

import numpy as np

from numbanorm.backends.cpu._jit import inner
from numbanorm.backends.cpu._row_sums import first_mean, is_trustworthy
from numbanorm.backends.cpu._runs import write_and_sum_run
from numbanorm.backends.cpu._sums import block_moments, segment_moments


@inner
def write_and_sum(x, start, length, operands, gamma, beta, y, edge, statistics):
    """Write the row y[start : start + length]; mean and m2 of the row that follows it in x, to `statistics`.

    gamma and beta are arrays, or the numbers that serve all columns. A row is one block of sums.
    """
    high, low, rstd = operands
    ahead = start + length
    shift = first_mean(x, ahead, rstd)
    total, squares = write_and_sum_run(x, start, y, start, high, low, rstd, gamma, beta, 0, length, edge, shift)
    sums = np.float64(shift), np.float64(total), np.float64(squares)
    _, statistics[0, 0], statistics[1, 0] = block_moments(np.float64(length), *sums)
    if not is_trustworthy(np.float64(squares), statistics[1, 0]):
        _, statistics[0, 0], statistics[1, 0] = segment_moments(x, ahead, ahead + length)
