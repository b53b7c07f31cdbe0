"""Columns of dy and xhat whose elements do not all take part: laid out in scratch, where these are zero.

Sums over rows visit several rows at once, and LLVM would not vectorise loops over so many arrays
if each had a mask beside it. ``scratch`` is of the compute dtype, in stretches of TILE for each row.
"""

from __future__ import annotations

import numpy as np

from numbanorm.backends.cpu._elements import load, store
from numbanorm.backends.cpu._jit import inner, spliced
from numbanorm.backends.cpu._launch import TILE
from numbanorm.backends.cpu._masked_elements import is_taken, reach
from numbanorm.backends.cpu._sums_backward import add_columns, standardized

#: Rows of a tile that are laid out at once: they stay in L2.
AT_ONCE = 16


@inner
def copy_taken(dy, taken, start, n, width, out, at):
    """dy[start : start + n] where it takes part, else 0, to out[at : at + width]."""
    zero = out.dtype.type(0)
    for j in range(n):
        value = load(dy, start + j)
        store(out, at + j, value if is_taken(taken, start + j) else zero)
    for j in range(n, width):
        store(out, at + j, zero)


@inner
def standardize_taken(x, taken, start, n, width, high, rstd, low, out, at):
    """The same of xhat."""
    zero = out.dtype.type(0)
    for j in range(n):
        xhat = standardized(load(x, start + j), high, rstd, low)
        store(out, at + j, xhat if is_taken(taken, start + j) else zero)
    for j in range(n, width):
        store(out, at + j, zero)


@inner
def standardize_taken_columns(x, taken, start, n, width, statistics, out, at):
    """The same with a mean and an rstd for each column, in two stretches of TILE."""
    zero = out.dtype.type(0)
    for j in range(n):
        column = np.uintp(j)
        xhat = standardized(load(x, start + j), statistics[column], statistics[column + np.uintp(TILE)], zero)
        store(out, at + j, xhat if is_taken(taken, start + j) else zero)
    for j in range(n, width):
        store(out, at + j, zero)


@inner
def count_columns(taken, start, n, counts):
    """Add one to the counts, int32, of columns whose elements take part."""
    for j in range(n):
        counts[np.uintp(j)] += np.int32(1 if is_taken(taken, start + j) else 0)


@spliced
def add_taken_columns(dy, x, taken, columns, operands, first, scratch, as_it_is, short, sums, at):
    """:func:`add_columns` for the elements that take part in `width` columns of n rows from `row` on.

    `as_it_is` are operands for what is laid out: a mean of zero and an rstd of one.
    """
    row, n, n_cols, lower, width = columns
    for top in range(0, n, AT_ONCE):
        laid_out = 0
        for k in range(top, min(top + AT_ONCE, n)):
            length = reach(taken, row + k, lower + width) - lower
            if length > 0:
                start, to = (row + k) * n_cols + lower, laid_out * TILE
                high, rstd, low = operands[0, first + k], operands[1, first + k], operands[2, first + k]
                copy_taken(dy, taken, start, length, width, scratch[0], to)
                standardize_taken(x, taken, start, length, width, high, rstd, low, scratch[1], to)
                laid_out += 1
        add_columns(scratch[0], scratch[1], 0, laid_out, TILE, width, as_it_is, 0, short, sums, at)
