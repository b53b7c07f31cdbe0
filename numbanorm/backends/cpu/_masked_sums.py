"""Moments of the elements that take part: those a mask says, or the first of each line."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from numbanorm.backends.cpu._elements import bridge, load
from numbanorm.backends.cpu._jit import exact, inner, spliced
from numbanorm.backends.cpu._row_sums import row_moments
from numbanorm.backends.cpu._sums import segment_moments, weighted_segment_moments, welford_combine
from numbanorm.backends.cpu._write import finish


def is_taken(taken, i):
    """Whether element `i` takes part: as a mask says, or if it comes before the element `taken`."""
    return load(taken, i) if isinstance(taken, np.ndarray) else i < taken


@overload(is_taken)
def _jit_is_taken(taken, i):
    if isinstance(taken, types.Array):
        return lambda taken, i: load(taken, i)
    return lambda taken, i: i < taken


@exact
def n_first(lengths, line, lower, size):
    """How many of the `size` elements from `lower` on are among the first `lengths[line]` of their line."""
    return min(max(load(lengths, line) - lower, 0), size)


@spliced
def piece_moments(x, mask, lengths, piece):
    """Moments of a piece (line, the lines' length, where it begins in its line, its size)."""
    line, length, lower, size = piece
    first = line * length + lower
    moments = np.float64(0), np.float64(0), np.float64(0)
    if mask is not None:
        moments = weighted_segment_moments(x, mask, first, first + size)
    if lengths is not None:
        moments = segment_moments(x, first, first + n_first(lengths, line, lower, size))
    return moments


@spliced
def set_moments(x, mask, lengths, line, n_lines, length, past_caches, like, scratch):
    """Moments of the n_lines lines from `line` on together; `scratch` is (2, 1)."""
    moments = np.float64(0), np.float64(0), np.float64(0)
    if mask is not None:
        moments = weighted_segment_moments(x, mask, line * length, (line + n_lines) * length)
    if lengths is not None:
        for k in range(line, line + n_lines):
            n = n_first(lengths, k, 0, length)
            row_moments(x, k * length, 1, n, like, scratch)
            if past_caches:
                bridge(x, k * length + n, (k + 1) * length)
            moments = welford_combine(*moments, np.float64(n), scratch[0, 0], scratch[1, 0])
    return moments


@inner
def finish_sets(n, counts, ddof, scale, statistics, operands):
    """Turn (mean, m2) of n sets of `counts` numbers into (mean, rstd), and these into operands.

    Both are NaN where there are no numbers.
    """
    for k in range(n):
        statistics[1, k] /= max(counts[k] - ddof, np.float64(0))
    finish(n, np.float64(1), scale, statistics, operands)
    for k in range(n):
        if counts[k] == 0:
            statistics[0, k] = np.nan
            statistics[1, k] = np.nan
