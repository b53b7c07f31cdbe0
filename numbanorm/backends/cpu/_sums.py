"""The loops that read x for its moments, and those that merge them.

Numbers are summed as differences from a shift taken from among them, in blocks of bounded
length; blocks are merged with Chan's formula. In float64 the only error of float32 data
that shows is that of the last conversion.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from numbanorm import _recurrences
from numbanorm.backends.cpu._column_lines import add_rows
from numbanorm.backends.cpu._elements import load
from numbanorm.backends.cpu._jit import exact, inner, spliced
from numbanorm.backends.cpu._launch import BLOCK, TILE
from numbanorm.backends.cpu._line_sums import line_sums

block_moments = exact(_recurrences.block_moments)
welford_combine = exact(_recurrences.welford_combine)


@exact
def finite_or_zero(value):
    """A shift must be finite: x - inf would make NaN of finite numbers."""
    return value if value - value == value - value else np.float64(0)


@exact
def segment_moments(x, start, stop):
    """Moments of x[start:stop], block by block."""
    count, mean, m2 = np.float64(0), np.float64(0), np.float64(0)
    for lower in range(start, stop, BLOCK):
        upper = min(lower + BLOCK, stop)
        shift = finite_or_zero(np.float64(load(x, lower)))
        total, squares = line_sums(x, lower, upper - lower, shift)
        count_b, mean_b, m2_b = block_moments(np.float64(upper - lower), shift, total, squares)
        count, mean, m2 = welford_combine(count, mean, m2, count_b, mean_b, m2_b)
    return count, mean, m2


def weight_of(x, weights, i):
    """How much element `i` of x counts, a number or whether; `weights` is an array, or True: all but NaN count."""
    if not isinstance(weights, np.ndarray):
        return load(x, i) == load(x, i)
    return load(weights, i) if weights.dtype == np.bool_ else np.float64(load(weights, i))


@overload(weight_of)
def _jit_weight_of(x, weights, i):
    if not isinstance(weights, types.Array):
        return lambda x, weights, i: load(x, i) == load(x, i)
    if isinstance(weights.dtype, types.Boolean):
        return lambda x, weights, i: load(weights, i)
    return lambda x, weights, i: np.float64(load(weights, i))


def weighted(weight, value):
    """An element's value as often as it counts; a value that does not count must be zero."""
    return weight * value


@overload(weighted)
def _jit_weighted(weight, value):
    if isinstance(weight, types.Boolean):
        return lambda weight, value: value
    return lambda weight, value: weight * value


@inner
def weighted_segment_moments(x, weights, start, stop):
    """Moments of x[start:stop], whose elements count as their weights say."""
    count, mean, m2 = np.float64(0), np.float64(0), np.float64(0)
    for lower in range(start, stop, BLOCK):
        upper = min(lower + BLOCK, stop)
        first = lower
        while first < upper and weight_of(x, weights, first) == 0:
            first += 1
        if first == upper:
            continue
        shift = finite_or_zero(np.float64(load(x, first)))
        n = weight_of(x, weights, first) * 0  # an integer where elements are counted
        total, squares = np.float64(0), np.float64(0)
        for i in range(first, upper):
            weight = weight_of(x, weights, i)
            difference = np.float64(load(x, i)) - shift
            difference = difference if weight > 0 else np.float64(0)
            n += weight
            total += weighted(weight, difference)
            squares += weighted(weight, difference) * difference
        count_b, mean_b, m2_b = block_moments(np.float64(n), shift, total, squares)
        count, mean, m2 = welford_combine(count, mean, m2, count_b, mean_b, m2_b)
    return count, mean, m2


@inner
def column_sums(x, start, stride, n_rows, opened, width, sums):
    """Shift of each column of a block, and sums of its differences and of their squares, TILE apart.

    Added to what the first `opened` columns have already.
    """
    for j in range(opened, width):
        sums[j] = finite_or_zero(np.float64(load(x, start + j)))
        sums[TILE + j] = 0
        sums[2 * TILE + j] = 0
    add_rows(x, start, stride, n_rows, width, sums)


@exact
def clipped(count, first, width):
    """How many of `width` elements from `first` on are among the first `count` of a line."""
    return min(max(count - first, 0), width)


@inner
def leading_column_sums(x, counts, line, start, col, stride, n_lines, n_cols, fold, sums):
    """The same of the first elements of each line, and how many each column has.

    Neighbours that take part with equally many elements are read together, whole lines `fold`
    at a time as one wide row; what is left of these is the beginning of such a row.
    """
    width = n_cols * fold
    for j in range(width):
        for k in range(4):
            sums[np.uintp(k * TILE + j)] = 0
    i, opened = 0, 0
    while i < n_lines:
        n = clipped(counts[np.uintp(line + i)], col, n_cols)
        stop = i + 1
        while stop < n_lines and clipped(counts[np.uintp(line + stop)], col, n_cols) == n:
            stop += 1
        at_once = fold if n == n_cols else 1
        while i < stop and n > 0:
            at_once = min(at_once, stop - i)
            n_rows = (stop - i) // at_once
            wide = n * at_once
            column_sums(x, start + i * stride, stride * at_once, n_rows, opened, wide, sums)
            opened = max(opened, wide)
            sums[np.uintp(3 * TILE + wide - 1)] += n_rows
            i += n_rows * at_once
        i = stop
    for j in range(width - 1, 0, -1):
        sums[np.uintp(3 * TILE + j - 1)] += sums[np.uintp(3 * TILE + j)]


@inner
def weighted_column_sums(x, weights, start, stride, n_rows, width, sums):
    """The same with weights, and the sums of weights.

    The shift is the first number of each column that takes part.
    """
    for k in range(4 * TILE):
        sums[k] = 0
    missing = width
    for row in range(n_rows):
        a = start + row * stride
        if missing > 0:
            for j in range(width):
                if sums[3 * TILE + j] == 0 and weight_of(x, weights, a + j) > 0:
                    sums[j] = finite_or_zero(np.float64(load(x, a + j)))
                    missing -= 1
        for j in range(width):
            weight = weight_of(x, weights, a + j)
            difference = np.float64(load(x, a + j)) - sums[j]
            difference = difference if weight > 0 else np.float64(0)
            sums[TILE + j] += weighted(weight, difference)
            sums[2 * TILE + j] += weighted(weight, difference) * difference
            sums[3 * TILE + j] += weight


@exact
def merge_columns(n, uneven, sums, width, n_out, out, count, mean, m2):
    """Merge the sums of a block into the n_out outputs from `out` on, to which its columns belong in turn.

    Each column has n elements, or where they are `uneven` as many as its sums say.
    """
    for first in range(0, width, n_out):
        for j in range(first, first + n_out):
            k = np.uintp(out + j - first)
            c = np.uintp(j)
            count_b = sums[c + np.uintp(3 * TILE)] if uneven else n
            moments_b = block_moments(count_b, sums[c], sums[c + np.uintp(TILE)], sums[c + np.uintp(2 * TILE)])
            count[k], mean[k], m2[k] = welford_combine(count[k], mean[k], m2[k], *moments_b)


@exact
def merge_parts(count, mean, m2, first, n_parts, stride, width, out, out_count, out_mean, out_m2):
    """Merge n_parts parts that lie `stride` apart, for `width` neighbouring sets, part after part."""
    for j in range(width):
        k = np.uintp(out + j)
        out_count[k], out_mean[k], out_m2[k] = np.float64(0), np.float64(0), np.float64(0)
    for i in range(n_parts):
        part = first + i * stride
        for j in range(width):
            k = np.uintp(out + j)
            moments_b = load(count, part + j), load(mean, part + j), load(m2, part + j)
            merged = welford_combine(out_count[k], out_mean[k], out_m2[k], *moments_b)
            out_count[k], out_mean[k], out_m2[k] = merged


@spliced
def tile_moments(x, weights, counts, start, stride, n_rows, n_cols, fold, sums, out, count, mean, m2):
    """Moments of n_cols neighbouring columns over n_rows rows, to the outputs from `out` on.

    Where there are `counts`, of as many of the first elements of each row of `stride` elements.

    Narrow matrices are read `fold` rows at a time, as one wide row (of `stride` elements each),
    and the rows that are left over one at a time.
    """
    for k in range(out, out + n_cols):
        i = np.uintp(k)
        count[i], mean[i], m2[i] = np.float64(0), np.float64(0), np.float64(0)
    row, at_once = 0, fold
    while row < n_rows:
        if row + at_once > n_rows:
            at_once = 1
        n = min(BLOCK, (n_rows - row) // at_once)
        width = n_cols * at_once
        first = start + row * stride
        if counts is not None:
            line, col = first // stride, first % stride
            leading_column_sums(x, counts, line, first, col, stride, n * at_once, n_cols, at_once, sums)
        elif weights is None:
            column_sums(x, first, stride * at_once, n, 0, width, sums)
        else:
            weighted_column_sums(x, weights, first, stride * at_once, n, width, sums)
        uneven = weights is not None or counts is not None
        merge_columns(np.float64(n), uneven, sums, width, n_cols, out, count, mean, m2)
        row += n * at_once


@spliced
def channel_moments(x, shape, channel):
    """Moments of one channel of x (n, n_channels, n_inner)."""
    n, n_channels, n_inner = shape
    count, mean, m2 = np.float64(0), np.float64(0), np.float64(0)
    for i in range(n):
        start = (i * n_channels + channel) * n_inner
        count, mean, m2 = welford_combine(count, mean, m2, *segment_moments(x, start, start + n_inner))
    return count, mean, m2
