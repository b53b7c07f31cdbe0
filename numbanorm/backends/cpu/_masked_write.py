"""The loops that write a normalised x of which only some elements take part.

What the others become is `keep`: x itself, or zero.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from numbanorm.backends.cpu._elements import bridge, load, store
from numbanorm.backends.cpu._jit import inner, spliced
from numbanorm.backends.cpu._lanes import LINE
from numbanorm.backends.cpu._masked_sums import is_taken, n_first
from numbanorm.backends.cpu._runs import parameter
from numbanorm.backends.cpu._stream import whole_lines, write_line
from numbanorm.backends.cpu._stream_masked import write_flags, write_masked_line, write_padding_line
from numbanorm.backends.cpu._write import centred, scaled

#: Elements that one turn of a vectorised loop writes; what is left over costs as much one by one.
TURN = 64


def bounds(taken, run, length):
    """(limit, index, n) such that element i of a run takes part if ``is_taken(limit, index + i)``: none from n on.

    `taken` is a mask, where the first run begins in it and how far apart they are; or the
    lengths of lines, the line of the first run and where runs begin in their lines.
    """
    values, first, other = taken
    if values.dtype == np.bool_:
        return values, first + run * other, length
    n = n_first(values, first + run, other, length)
    return n, 0, n


@overload(bounds)
def _jit_bounds(taken, run, length):
    if isinstance(taken[0].dtype, types.Boolean):
        return lambda taken, run, length: (taken[0], taken[1] + run * taken[2], length)

    def of_lengths(taken, run, length):
        n = n_first(taken[0], taken[1] + run, taken[2], length)
        return n, 0, n

    return of_lengths


def n_inside(limit, n_lines, n, step):
    """How many of n_lines lines of `step` elements take part as wholes for sure: those of the first n elements."""
    return 0 if isinstance(limit, np.ndarray) else min(n_lines, max(n, 0) // step)


@overload(n_inside)
def _jit_n_inside(limit, n_lines, n, step):
    if isinstance(limit, types.Array):
        return lambda limit, n_lines, n, step: 0
    return lambda limit, n_lines, n, step: min(n_lines, max(n, 0) // step)


@inner
def spread_lengths(lengths, line, stride, n_runs, n_lines, length, flags):
    """Flags of n_runs times n_lines lines that are `stride` lines apart: the first lengths[line] of each are true.

    Flags come in whole cache lines: what is too much, the next line overwrites.
    """
    for run in range(n_runs):
        for k in range(n_lines):
            first = (run * n_lines + k) * length
            for lower in range(0, length, LINE):
                write_flags(flags, first + lower, n_first(lengths, line + run * stride + k, lower, LINE))


@spliced
def n_seen(y, first, n, length, past_caches):
    """How many elements of a run to look at, of which the first n take part: the others are padding."""
    if n == length:
        return length
    # Padding begins with a cache line of its own: to write a line in two halves would mean to read it first.
    until_line, _, _ = whole_lines(y, first, length, True)
    return min(length, until_line + -(-n // TURN) * TURN)


@inner
def write_padding(x, first, length, keep, y, past_caches):
    """y of elements none of which takes part: x if `keep`, else zeros, without a look at x."""
    upper, n_lines, step = whole_lines(y, first, length, past_caches)
    lower = 0
    while True:
        if keep:
            for i in range(first + lower, first + upper):
                store(y, i, load(x, i))
        else:
            for i in range(first + lower, first + upper):
                store(y, i, np.float32(0))
        if upper == length:
            break
        for i in range(n_lines):
            j = first + upper + i * step
            write_padding_line(x, j, y, keep)
        lower, upper = upper + n_lines * step, length


@inner
def write_runs(x, start, n_runs, stride, length, operands, at, taken, keep, y, past_caches):
    """y = (x - mean) * rstd * gamma + beta where elements are taken, n_runs times `length` of them.

    Operands are numbers, or arrays whose elements from `at` on serve each run; `taken` is as
    in :func:`bounds`.
    """
    high, low, rstd, gamma, beta = operands
    for k in range(n_runs):
        first = start + k * stride
        limit, index, n = bounds(taken, k, length)
        seen = n_seen(y, first, n, length, past_caches)
        upper, n_lines, step = whole_lines(y, first, seen, past_caches)
        lower = 0
        while True:
            for i in range(lower, upper):
                itself = load(x, first + i)
                value = centred(itself, parameter(high, at + i), parameter(low, at + i))
                value = scaled(value, parameter(rstd, at + i), parameter(gamma, at + i)) + parameter(beta, at + i)
                padding = itself if keep else type(itself)(0)
                store(y, first + i, value if is_taken(limit, index + i) else padding)
            if upper == seen:
                break
            inside = n_inside(limit, n_lines, n - upper, step)
            for i in range(inside):
                j = upper + i * step
                write_line(x, first + j, y, first + j, high, low, rstd, gamma, beta, at + j)
            for i in range(inside, n_lines):
                j = upper + i * step
                write_masked_line(
                    x, first + j, y, first + j, high, low, rstd, gamma, beta, at + j, limit, index + j, keep
                )
            lower, upper = upper + n_lines * step, seen
        if seen < length:
            if past_caches:
                bridge(x, first + seen, first + length)
            write_padding(x, first + seen, length - seen, keep, y, past_caches)


@spliced
def write_piece(x, mask, lengths, piece, operands, at, keep, y, past_caches):
    """Write a piece of a line, with operands as in :func:`write_runs`; mask or lengths are None.

    A piece is (line, the lines' length, where it begins in its line, its size).
    """
    line, length, lower, size = piece
    first = line * length + lower
    if mask is not None:
        write_runs(x, first, 1, 0, size, operands, at, (mask, first, 0), keep, y, past_caches)
    if lengths is not None:
        write_runs(x, first, 1, 0, size, operands, at, (lengths, line, lower), keep, y, past_caches)
