"""Rows that take part as wholes, or not at all, as those of padded sequences do: neighbours go together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm.backends.cpu._edges import new_edge, settle_edge
from numbanorm.backends.cpu._jit import kernel, spliced
from numbanorm.backends.cpu._kernels import keep_statistics, write_rows_of
from numbanorm.backends.cpu._masked_write import write_padding
from numbanorm.backends.cpu._memory import free, memory
from numbanorm.backends.cpu._row_sums import row_moments
from numbanorm.backends.cpu._write import finish

Array = NDArray[Any]


@spliced
def alike(lengths, row, most):
    """How many rows from `row` on, `most` at most, have its length."""
    n = 1
    while n < most and lengths[row + n] == lengths[row]:
        n += 1
    return n


def are_whole(taken: Array, length: int) -> bool:
    """Whether lines take part as wholes or not at all."""
    return bool(taken.dtype != np.bool_ and ((taken == 0) | (taken == length)).all())


@kernel
def whole_rows_kernel(
    part, n_parts, x, lengths, n_cols, batch, gamma, beta, scale, ddof, keep, y, past_caches, mean, rstd
):
    """``norm_rows_kernel`` of the rows whose length is not 0; those that follow one another make a batch."""
    n_rows = x.size // n_cols
    last = n_rows * (part + 1) // n_parts
    statistics, operands, edge = memory((2, batch)), memory((5, batch), gamma.dtype), new_edge(past_caches)
    row = n_rows * part // n_parts
    while row < last:
        n = alike(lengths, row, min(batch, last - row))
        if lengths[row]:
            row_moments(x, row * n_cols, n, n_cols, operands, statistics)
            # Nothing but the variance takes the count.
            finish(n, max(np.float64(n_cols) - ddof, np.float64(0)), scale, statistics, operands)
            write_rows_of(x, row * n_cols, n, n_cols, operands, gamma, beta, y, edge)
        else:
            statistics[:, :n] = np.nan
            write_padding(x, row * n_cols, n * n_cols, keep, y, past_caches)
        keep_statistics(n, row, statistics, mean, rstd)
        row += n
    settle_edge(y, edge)
    free(statistics, operands)
