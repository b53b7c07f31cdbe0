"""Masked sets of few elements: a batch of them in each loop, as a call for each would cost more than its numbers."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from numbanorm.backends.cpu._elements import load, store
from numbanorm.backends.cpu._jit import exact, inner, kernel
from numbanorm.backends.cpu._kernels import keep_statistics
from numbanorm.backends.cpu._masked_sums import finish_sets
from numbanorm.backends.cpu._memory import free, memory
from numbanorm.backends.cpu._runs import parameter
from numbanorm.backends.cpu._stream import settle, whole_lines
from numbanorm.backends.cpu._stream_masked import write_masked_line
from numbanorm.backends.cpu._write import centred, scaled


@exact
def _corrected(count, mean, offset, squares):
    """Mean and m2 of `count` numbers from sums of their differences from `mean`, which rounding left non-zero."""
    if not count > 0:
        return np.float64(0), np.float64(0)
    m2 = squares - offset * offset / count
    if offset - offset == 0:  # an infinite mean stays one
        mean += offset / count
    return mean, max(m2, np.float64(0)) if m2 == m2 else m2


@inner
def _short_moments(x, mask, start, n, length, counts, statistics):
    """Moments of n sets of `length` neighbours each: two passes, the second of which finds them in L1."""
    for k in range(n):
        first = start + k * length
        count, total = np.int64(0), np.float64(0)
        for i in range(first, first + length):
            taken = load(mask, i)
            count += np.int64(taken)
            total += np.float64(load(x, i)) if taken else np.float64(0)
        mean = total / np.float64(count) if count else np.float64(0)
        offset, squares = np.float64(0), np.float64(0)
        for i in range(first, first + length):
            difference = np.float64(load(x, i)) - mean
            difference = difference if load(mask, i) else np.float64(0)
            offset += difference
            squares += difference * difference
        counts[k] = np.float64(count)
        statistics[0, k], statistics[1, k] = _corrected(counts[k], mean, offset, squares)


def of_line(given, otherwise):
    """A parameter that all lines share, an array; or where that is None, a line's own number."""
    return otherwise if given is None else given


@overload(of_line)
def _jit_of_line(given, otherwise):
    if isinstance(given, types.NoneType):
        return lambda given, otherwise: otherwise
    return lambda given, otherwise: given


@inner
def _write_short(x, mask, start, n, length, operands, gamma, beta, keep, y, past_caches):
    """y of n lines, whose gamma and beta are arrays as long as a line, or None where operands hold one for each."""
    for k in range(n):
        first = start + k * length
        high, low, rstd = operands[0, k], operands[1, k], operands[2, k]
        gammas, betas = of_line(gamma, operands[3, k]), of_line(beta, operands[4, k])
        upper, n_lines, step = whole_lines(y, first, length, past_caches)
        lower = 0
        while True:
            for i in range(lower, upper):
                itself = load(x, first + i)
                value = scaled(centred(itself, high, low), rstd, parameter(gammas, i)) + parameter(betas, i)
                padding = itself if keep else type(itself)(0)
                store(y, first + i, value if load(mask, first + i) else padding)
            if upper == length:
                break
            for i in range(n_lines):
                j = upper + i * step
                at = first + j
                write_masked_line(x, at, y, at, high, low, rstd, gammas, betas, j, mask, at, keep)
            lower, upper = upper + n_lines * step, length


@kernel
def masked_short_kernel(
    part, n_parts, x, mask, cut, gamma, beta, by_column, scale, ddof, keep, y, past_caches, mean, rstd
):
    """Unit = one set of n_lines lines."""
    n_lines, length, batch = cut
    size = n_lines * length
    last = x.size // size * (part + 1) // n_parts
    counts, statistics = memory(batch), memory((2, batch))
    operands, lines = memory((3, batch), gamma.dtype), memory((5, batch * n_lines), gamma.dtype)
    for first in range(x.size // size * part // n_parts, last, batch):
        n = min(batch, last - first)
        _short_moments(x, mask, first * size, n, size, counts, statistics)
        finish_sets(n, counts, ddof, scale, statistics, operands)
        for k in range(n * n_lines):
            for i in range(3):
                lines[i, k] = operands[i, k // n_lines]
            lines[3, k] = gamma[(first * n_lines + k) % gamma.size]
            lines[4, k] = beta[(first * n_lines + k) % beta.size]
        if by_column:
            _write_short(x, mask, first * size, n, length, lines, gamma, beta, keep, y, past_caches)
        else:
            _write_short(x, mask, first * size, n * n_lines, length, lines, None, None, keep, y, past_caches)
        keep_statistics(n, first, statistics, mean, rstd)
    settle()
    free(counts, statistics, operands, lines)
